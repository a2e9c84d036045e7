//! Holds the labels of a micro-batch: known, or waiting for pseudo labels from the model's own scores.

use burn::tensor::Tensor;

use crate::{
    TrainError,
    supervision::Supervision,
    targets::{LeftOut, Targets},
};

/// Labels of images that go through the model at once.
pub struct PartLabels<'a> {
    labels: Labels,
    supervision: &'a Supervision,
}

/// The state of the labels of a micro-batch.
#[derive(Clone)]
pub(crate) enum Labels {
    /// All labels are known.
    Ready(Targets),
    /// Some pixels wait for pseudo labels.
    Waiting {
        /// Labels, `[images, height, width]`.
        values: Vec<u16>,
        images: usize,
        size: [usize; 2],
    },
}

impl<'a> PartLabels<'a> {
    pub(crate) fn new(labels: Labels, supervision: &'a Supervision) -> Self {
        Self {
            labels,
            supervision,
        }
    }

    /// Returns whether none of the labels depends on the model's scores.
    pub fn is_known(&self) -> bool {
        matches!(self.labels, Labels::Ready(_))
    }

    /// Returns the labels if none of them depends on the model's scores.
    ///
    /// # Errors
    /// Returns an error if some pixels wait for pseudo labels.
    pub fn known(self) -> Result<Targets, TrainError> {
        match self.labels {
            Labels::Ready(targets) => Ok(targets),
            Labels::Waiting { .. } => Err(TrainError::Config(
                "pseudo labels need class masks, which the method does not have".into(),
            )),
        }
    }

    /// Returns the labels; pseudo labels are computed from class logits.
    ///
    /// - `logits`: `[batch, classes, h, w]`
    ///
    /// # Errors
    /// Returns an error if the device cannot be read or a label is not a class.
    pub fn with_logits(self, logits: &Tensor<4>) -> Result<Targets, TrainError> {
        match self.labels {
            Labels::Ready(targets) => Ok(targets),
            Labels::Waiting {
                mut values,
                images,
                size,
            } => {
                let left_out = match self.supervision.pseudo_labels() {
                    Some(classes) => classes.fill(logits.clone(), &mut values, size)?,
                    None => LeftOut::default(),
                };
                let classes = self.supervision.names().len();
                Ok(Targets::new(values, images, size, classes)?.without(left_out))
            }
        }
    }
}
