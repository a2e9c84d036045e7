//! From a batch to the terms of its loss: micro-batches, labels as far as they may be known, the method's own loss.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use zeg_model::method::Model;

use crate::{
    TrainError,
    batch::{Inputs, Samples, thin_labels},
    experiment::TrainingConfig,
    labels::{Labels, PartLabels},
    recipe::{Criterion, LossPart, PartTerms},
    supervision::Supervision,
    targets::Targets,
};

/// What a model is trained with.
pub(crate) struct BatchLoss {
    criterion: Box<dyn Criterion>,
    loss_stride: usize,
    micro_batch: usize,
    supervision: Supervision,
    /// Embeddings of the classes that are trained: `[classes, dim]`
    text: Tensor<2>,
    device: Device,
}

/// Images that go through the model at once, with what is known of their labels.
pub(crate) struct MicroBatch {
    inputs: Inputs,
    labels: Labels,
    /// Side of the images in pixels.
    size: usize,
    /// Share of the batch's images.
    share: f64,
    /// Labelled classes of each image of the whole batch.
    batch_masks: Arc<Vec<usize>>,
}

/// Labelled classes of each image; none where labels wait.
fn masks_of_images(parts: &[MicroBatch]) -> Vec<usize> {
    let mut masks = Vec::new();
    for part in parts {
        if let Labels::Ready(targets) = &part.labels {
            let present = targets.present().chunks_exact(targets.classes().max(1));
            masks.extend(present.map(|image| image.iter().filter(|p| **p).count()));
        }
    }
    masks
}

impl BatchLoss {
    /// What a configuration says, for the classes of these embeddings.
    ///
    /// # Errors
    /// There are not as many embeddings as classes.
    pub(crate) fn new(
        criterion: Box<dyn Criterion>,
        config: &TrainingConfig,
        supervision: Supervision,
        text: Tensor<2>,
    ) -> Result<Self, TrainError> {
        let [rows, _] = text.dims();
        if rows != supervision.names().len() {
            return Err(TrainError::Config(format!(
                "{rows} class embeddings for {} classes to train",
                supervision.names().len()
            )));
        }
        Ok(Self {
            criterion,
            loss_stride: config.loss_stride,
            micro_batch: config.micro_batch(),
            supervision,
            device: text.device(),
            text,
        })
    }

    /// The device of the class embeddings, and of the model.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The method's loss.
    pub(crate) fn criterion(&self) -> &dyn Criterion {
        &*self.criterion
    }

    /// The batch's micro-batches, with labels as far as they are known.
    ///
    /// # Errors
    /// A label is no class.
    pub(crate) fn parts(&self, samples: Samples) -> Result<Vec<MicroBatch>, TrainError> {
        let (size, stride) = (samples.size, self.loss_stride);
        let all = samples.ids.len().max(1) as f64;
        let mut parts = Vec::new();
        for part in samples.split(self.micro_batch) {
            let mut values = if stride == 1 {
                part.labels
            } else {
                thin_labels(&part.labels, size, stride)
            };
            self.supervision.map(&mut values);
            let (images, thinned) = (part.ids.len(), [size / stride, size / stride]);
            let labels = if self.supervision.pseudo_labels().is_some() {
                Labels::Waiting {
                    values,
                    images,
                    size: thinned,
                }
            } else {
                let classes = self.supervision.names().len();
                Labels::Ready(Targets::new(values, images, thinned, classes)?)
            };
            parts.push(MicroBatch {
                inputs: part.inputs,
                labels,
                size,
                share: images as f64 / all,
                batch_masks: Arc::default(),
            });
        }
        let masks = Arc::new(masks_of_images(&parts));
        for part in &mut parts {
            part.batch_masks = Arc::clone(&masks);
        }
        Ok(parts)
    }

    /// Whether the parts' pseudo labels must be there before the first part's gradient.
    pub(crate) fn labels_first(&self, parts: &[MicroBatch]) -> bool {
        parts.len() > 1 && self.criterion.needs_all_labels() && self.normalizer(parts).is_none()
    }

    /// Gives a part its pseudo labels, by a pass of its own; with the same dropout as in [`BatchLoss::terms`], they are
    /// those that it would have found.
    ///
    /// # Errors
    /// The device could not be read.
    pub(crate) fn label(
        &self,
        model: &dyn Model,
        part: MicroBatch,
    ) -> Result<MicroBatch, TrainError> {
        let (inputs, text) = (part.inputs.clone(), self.text.clone());
        let logits = self
            .criterion
            .class_logits(model, inputs, part.size, text)?;
        let labels = PartLabels::new(part.labels, &self.supervision).with_logits(&logits)?;
        Ok(MicroBatch {
            labels: Labels::Ready(labels),
            ..part
        })
    }

    /// What the terms of a batch are divided by. `None` where labels wait: pseudo labels follow from each part's own
    /// scores, so that their number is only known after the last; the loss is linear in its inverse.
    pub(crate) fn normalizer(&self, parts: &[MicroBatch]) -> Option<f64> {
        let counts = parts.iter().map(|part| match &part.labels {
            Labels::Ready(targets) => Some(self.criterion.count(targets)),
            Labels::Waiting { .. } => None,
        });
        let count: Option<usize> = counts.sum();
        count.map(|count| count.max(1) as f64)
    }

    /// The loss of a part.
    ///
    /// - `normalizer`: see [`BatchLoss::normalizer`]
    ///
    /// # Errors
    /// The device could not be read.
    pub(crate) fn terms(
        &self,
        model: &dyn Model,
        part: MicroBatch,
        normalizer: Option<f64>,
    ) -> Result<PartTerms, TrainError> {
        self.criterion.terms(
            model,
            LossPart {
                inputs: part.inputs,
                size: part.size,
                text: self.text.clone(),
                labels: PartLabels::new(part.labels, &self.supervision),
                normalizer,
                share: part.share,
                batch_masks: &part.batch_masks,
            },
        )
    }
}
