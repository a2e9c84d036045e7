//! Holds the labels of a micro-batch: known, or waiting for pseudo labels from the model's own scores.

use burn::tensor::Tensor;

use crate::{
    TrainError,
    supervision::{PartlyLabelled, Supervision},
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

impl Labels {
    /// Replaces class indices of the data set by indices of the training classes.
    ///
    /// # Errors
    /// Returns an error if the labels do not have this size, or one is not a class.
    pub(crate) fn mapped(
        mut values: Vec<u16>,
        images: usize,
        size: [usize; 2],
        supervision: &Supervision,
    ) -> Result<Self, TrainError> {
        supervision.map(&mut values);
        Ok(if supervision.pseudo_labels().is_some() {
            Self::Waiting {
                values,
                images,
                size,
            }
        } else {
            let classes = supervision.names().len();
            Self::Ready(Targets::new(values, images, size, classes)?)
        })
    }
}

impl<'a> PartLabels<'a> {
    /// Returns the labels that training may use.
    ///
    /// - `values`: class indices of the data set, `[images, height, width]`
    ///
    /// # Errors
    /// Returns an error if the labels do not have this size, or one is not a class.
    pub fn mapped(
        values: Vec<u16>,
        images: usize,
        size: [usize; 2],
        supervision: &'a Supervision,
    ) -> Result<Self, TrainError> {
        let labels = Labels::mapped(values, images, size, supervision)?;
        Ok(Self::new(labels, supervision))
    }

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

    /// Returns the labels; every pixel that waits gets the class with the highest score among the classes without
    /// labels. Only the order of the scores matters, so that they may have any range.
    ///
    /// - `score`: computes the scores of the classes with these indices, `[batch, classes, h, w]`; it is not called if no
    ///   pixel waits
    ///
    /// # Errors
    /// Returns the errors of `score`, and an error if the device cannot be read or a label is not a class.
    pub fn ranked(
        self,
        score: impl FnOnce(&[usize]) -> Result<Tensor<4>, TrainError>,
    ) -> Result<Targets, TrainError> {
        match self.labels {
            Labels::Ready(targets) => Ok(targets),
            Labels::Waiting {
                mut values,
                images,
                size,
            } => {
                if let Some(classes) = self.supervision.pseudo_labels()
                    && PartlyLabelled::has_waiting(&values)
                {
                    let candidates = classes.unlabelled();
                    PartlyLabelled::rank(score(&candidates)?, &candidates, &mut values, size)?;
                }
                Targets::new(values, images, size, self.supervision.names().len())
            }
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
