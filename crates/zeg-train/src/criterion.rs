//! Computes the loss of a batch: splits it into micro-batches, maps their labels and calls the method's own loss.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use zeg_image::IGNORE_LABEL;
use zeg_model::{method::Model, text::ClassTexts};

use crate::{
    TrainError,
    batch::{Inputs, Samples, thin_labels},
    experiment::TrainingConfig,
    labels::{Labels, PartLabels},
    recipe::{Criterion, LossPart, PartTerms},
    supervision::Supervision,
    whole_batch::{PartFacts, WholeBatch},
};

/// The loss of a batch: the method's criterion with the classes and labels it may use.
pub(crate) struct BatchLoss {
    criterion: Box<dyn Criterion>,
    loss_stride: usize,
    micro_batch: usize,
    supervision: Supervision,
    /// The model that gives the pseudo labels; `None` if the model in training does.
    teacher: Option<Box<dyn Model>>,
    /// Embeddings of the training classes, `[classes, dim]`.
    text: Tensor<2>,
    /// Texts of the training classes, if a text tower is trained with the model.
    texts: Option<ClassTexts>,
    device: Device,
}

/// Images that go through the model at once, with those of their labels that are known.
pub(crate) struct MicroBatch {
    inputs: Inputs,
    labels: Labels,
    /// Side of the images in pixels.
    size: usize,
    ids: Vec<String>,
    /// This part's share of the images of the whole batch, 0 to 1.
    share: f64,
    /// Number of labelled classes in each image of the whole batch.
    batch_masks: Arc<[usize]>,
}

impl BatchLoss {
    /// Creates the loss that a configuration describes.
    ///
    /// # Errors
    /// Returns an error if there are not as many embeddings as training classes.
    pub(crate) fn new(
        criterion: Box<dyn Criterion>,
        config: &TrainingConfig,
        supervision: Supervision,
        text: Tensor<2>,
    ) -> Result<Self, TrainError> {
        let [rows, _] = text.dims();
        if rows != supervision.names().len() {
            return Err(TrainError::Config(format!(
                "{rows} class embeddings for {} training classes; the numbers must be equal",
                supervision.names().len()
            )));
        }
        Ok(Self {
            criterion,
            loss_stride: config.loss_stride,
            micro_batch: config.micro_batch(),
            supervision,
            teacher: None,
            device: text.device(),
            text,
            texts: None,
        })
    }

    /// Sets the texts of the training classes, which a trained text tower embeds for every part.
    ///
    /// # Errors
    /// Returns an error if there are not as many as training classes.
    pub(crate) fn set_texts(&mut self, texts: ClassTexts) -> Result<(), TrainError> {
        let classes = self.supervision.names().len();
        if texts.len() != classes {
            return Err(TrainError::Config(format!(
                "texts of {} classes for {classes} training classes; the numbers must be equal",
                texts.len()
            )));
        }
        self.texts = Some(texts);
        Ok(())
    }

    /// Returns the embeddings of the training classes, with gradients if the model's text tower is trained: `[classes,
    /// dim]`.
    fn embeddings(&self, model: &dyn Model) -> Tensor<2> {
        match (&self.texts, model.text_tower()) {
            (Some(texts), Some(tower)) => tower.embed_texts(texts),
            _ => self.text.clone(),
        }
    }

    /// Returns the embeddings of the training classes for a model that is not trained, without gradients: `[classes,
    /// dim]`.
    fn teacher_embeddings(&self, teacher: &dyn Model) -> Tensor<2> {
        match (&self.texts, teacher.text_tower()) {
            (Some(texts), Some(tower)) => tower.embed_texts(texts),
            _ => self.text.clone().without_autodiff(),
        }
    }

    /// Lets a model give the pseudo labels that is not trained.
    pub(crate) fn set_teacher(&mut self, teacher: &dyn Model) {
        self.teacher = Some(teacher.for_inference());
    }

    /// Returns the device of the class embeddings and of the model.
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the method's criterion.
    pub(crate) fn criterion(&self) -> &dyn Criterion {
        &*self.criterion
    }

    /// Splits a batch into micro-batches, with those of their labels that are known.
    ///
    /// # Errors
    /// Returns an error if a label is not a class.
    pub(crate) fn parts(&self, samples: Samples) -> Result<Vec<MicroBatch>, TrainError> {
        let (size, stride) = (samples.size, self.loss_stride);
        let mut parts = Vec::new();
        for part in samples.split(self.micro_batch) {
            let values = if stride == 1 {
                part.labels
            } else {
                thin_labels(&part.labels, size, stride)
            };
            let (images, thinned) = (part.ids.len(), [size / stride, size / stride]);
            let labels = Labels::mapped(values, images, thinned, &self.supervision)?;
            parts.push(MicroBatch {
                inputs: part.inputs,
                labels,
                size,
                ids: part.ids,
                share: 0.0,
                batch_masks: Arc::default(),
            });
        }
        Ok(parts)
    }

    /// Returns what the whole batch must know of a part.
    pub(crate) fn facts(&self, part: &MicroBatch) -> PartFacts {
        let (count, masks, is_labelled) = match &part.labels {
            Labels::Ready(targets) => {
                let present = targets.present().chunks_exact(targets.classes().max(1));
                let masks = present.map(|image| image.iter().filter(|p| **p).count());
                let count = self.criterion.count(targets);
                (Some(count), masks.collect(), targets.count() > 0)
            }
            Labels::Waiting { values, .. } => {
                let is_labelled = values.iter().any(|label| *label != IGNORE_LABEL);
                (None, Vec::new(), is_labelled)
            }
        };
        PartFacts {
            ids: part.ids.clone(),
            count,
            masks,
            is_labelled,
        }
    }

    /// Tells every part its share of the batch, and the numbers of labelled classes in all images.
    pub(crate) fn share(parts: &mut [MicroBatch], whole: &WholeBatch) {
        let masks: Arc<[usize]> = whole.masks().into();
        for part in parts {
            part.batch_masks = Arc::clone(&masks);
            part.share = part.ids.len() as f64 / whole.images().max(1) as f64;
        }
    }

    /// Returns whether the pseudo labels of all parts are needed before the gradient of the first part.
    pub(crate) fn labels_first(&self, whole: &WholeBatch) -> bool {
        let is_waiting = whole.normalizer().is_none();
        let needs_all = whole.len() > 1 && self.criterion.needs_all_labels();
        is_waiting && (needs_all || self.teacher.is_some())
    }

    /// Computes the pseudo labels of a part by a separate forward pass, of the teacher if there is one.
    ///
    /// Without a teacher and with the same dropout seed, they are the labels that [`BatchLoss::terms`] would compute itself.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub(crate) fn label(
        &self,
        model: &dyn Model,
        part: MicroBatch,
    ) -> Result<MicroBatch, TrainError> {
        let inputs = part.inputs.clone();
        let (model, text) = match &self.teacher {
            Some(teacher) => (&**teacher, self.teacher_embeddings(&**teacher)),
            None => (model, self.embeddings(model)),
        };
        let logits = self
            .criterion
            .class_logits(model, inputs, part.size, text)?;
        let labels = PartLabels::new(part.labels, &self.supervision).with_logits(&logits)?;
        Ok(MicroBatch {
            labels: Labels::Ready(labels),
            ..part
        })
    }

    /// Computes the loss terms of a part.
    ///
    /// - `normalizer`: see [`WholeBatch::normalizer`]
    /// - `step`: number of the step, from 0
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub(crate) fn terms(
        &self,
        model: &dyn Model,
        part: MicroBatch,
        normalizer: Option<f64>,
        step: u64,
    ) -> Result<PartTerms, TrainError> {
        self.criterion.terms(
            model,
            LossPart {
                inputs: part.inputs,
                size: part.size,
                text: self.embeddings(model),
                names: self.supervision.names(),
                labels: PartLabels::new(part.labels, &self.supervision),
                normalizer,
                share: part.share,
                batch_masks: &part.batch_masks,
                step,
            },
        )
    }
}
