//! Labels of a part of a batch: known, or waiting for the model's own scores.

use burn::tensor::Tensor;

use crate::{TrainError, supervision::Supervision, targets::Targets};

/// Labels of images that go through the model at once.
pub struct PartLabels<'a> {
    labels: Labels,
    supervision: &'a Supervision,
}

/// See [`PartLabels`].
#[derive(Clone)]
pub(crate) enum Labels {
    /// All known.
    Ready(Targets),
    /// Some wait for the model's scores.
    Waiting {
        /// `[images, height, width]`
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

    /// The labels, where the model's scores have no part in them.
    ///
    /// # Errors
    /// Some wait for pseudo labels.
    pub fn known(self) -> Result<Targets, TrainError> {
        match self.labels {
            Labels::Ready(targets) => Ok(targets),
            Labels::Waiting { .. } => Err(TrainError::Config(
                "pseudo labels need class masks; the method has none".into(),
            )),
        }
    }

    /// The labels; those that wait follow from class logits.
    ///
    /// - `logits`: `[batch, classes, h, w]`
    ///
    /// # Errors
    /// The device could not be read, or a label is no class.
    pub fn with_logits(self, logits: &Tensor<4>) -> Result<Targets, TrainError> {
        match self.labels {
            Labels::Ready(targets) => Ok(targets),
            Labels::Waiting {
                mut values,
                images,
                size,
            } => {
                if let Some(classes) = self.supervision.pseudo_labels() {
                    classes.fill(logits.clone(), &mut values, size)?;
                }
                Targets::new(values, images, size, self.supervision.names().len())
            }
        }
    }
}
