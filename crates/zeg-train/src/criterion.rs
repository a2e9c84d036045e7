//! From a part of a batch to the terms of its loss: what each method is trained with.
//!
//! The trainer knows a model by its parameters and a criterion by named terms; everything between the two is here. A
//! method whose loss is not of class masks has its own arm in [`Criterion::terms`].

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use zeg_model::{
    dense::DenseModel, method::Model, trace::Trace, vision::Encoded, zegformer::ZegFormer,
};

use crate::{
    TrainError,
    batch::{Inputs, Samples, features_tensor, pictures_tensor, thin_labels},
    experiment::TrainingConfig,
    loss::MaskLoss,
    mask_targets::MaskTargets,
    objective::{NamedTerms, Objective},
    set_criterion::{SetLoss, SetTerms},
    supervision::Supervision,
    targets::Targets,
};

/// What a model is trained with.
pub(crate) struct Criterion {
    objective: Objective,
    weights: MaskLoss,
    set_loss: SetLoss,
    loss_stride: usize,
    micro_batch: usize,
    supervision: Supervision,
    /// Embeddings of the classes that are trained: `[classes, dim]`
    text: Tensor<2>,
    device: Device,
}

/// Pictures that go through the model at once, with what is known of their labels.
pub(crate) struct Part {
    inputs: Inputs,
    labels: Labels,
    /// Side of the pictures in pixels.
    size: usize,
    /// Share of the batch's pictures.
    share: f64,
    /// Labelled classes of each picture of the whole batch.
    batch_masks: Arc<Vec<usize>>,
}

/// Labels of a part.
enum Labels {
    /// All known.
    Ready(Targets),
    /// Some wait for the model's scores.
    Waiting {
        /// `[pictures, height, width]`
        values: Vec<u16>,
        pictures: usize,
        size: [usize; 2],
    },
}

/// Labelled classes of each picture; none where labels wait.
fn masks_of_pictures(parts: &[Part]) -> Vec<usize> {
    let mut masks = Vec::new();
    for part in parts {
        if let Labels::Ready(targets) = &part.labels {
            let present = targets.present().chunks_exact(targets.classes().max(1));
            masks.extend(present.map(|picture| picture.iter().filter(|p| **p).count()));
        }
    }
    masks
}

/// The loss of a part.
pub(crate) struct Terms {
    /// Weighted, by name.
    pub(crate) named: NamedTerms,
    /// Where the batch's normaliser was not known: what this part adds to it. The terms are not divided then.
    pub(crate) count: usize,
}

impl Criterion {
    /// What a configuration says, for the classes of these embeddings.
    ///
    /// # Errors
    /// There are not as many embeddings as classes.
    pub(crate) fn new(
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
            objective: config.objective,
            weights: config.loss,
            set_loss: config.set_loss,
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

    /// The batch's micro-batches, with labels as far as they are known.
    ///
    /// # Errors
    /// A label is no class.
    pub(crate) fn parts(&self, samples: Samples) -> Result<Vec<Part>, TrainError> {
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
            let (pictures, thinned) = (part.ids.len(), [size / stride, size / stride]);
            let labels = if self.supervision.pseudo_labels().is_some() {
                Labels::Waiting {
                    values,
                    pictures,
                    size: thinned,
                }
            } else {
                let classes = self.supervision.names().len();
                Labels::Ready(Targets::new(values, pictures, thinned, classes)?)
            };
            parts.push(Part {
                inputs: part.inputs,
                labels,
                size,
                share: pictures as f64 / all,
                batch_masks: Arc::default(),
            });
        }
        let masks = Arc::new(masks_of_pictures(&parts));
        for part in &mut parts {
            part.batch_masks = Arc::clone(&masks);
        }
        Ok(parts)
    }

    /// Whether the parts' pseudo labels must be there before the first part's gradient: some terms are divided by
    /// their number and others are not, so that a sum over several parts cannot be divided in the end.
    pub(crate) fn labels_first(&self, model: &Model, parts: &[Part]) -> bool {
        parts.len() > 1 && self.recovers(model) && self.normalizer(parts).is_none()
    }

    /// Gives a part its pseudo labels, by a pass of its own; with the same dropout as in [`Criterion::terms`], they are
    /// those that it would have found.
    ///
    /// # Errors
    /// The device could not be read.
    pub(crate) fn label(&self, model: &Model, part: Part) -> Result<Part, TrainError> {
        let encoded = self.encode(model, part.inputs.clone(), part.size);
        let masks = model.masks(encoded, self.text.clone());
        let labels = Labels::Ready(self.targets(part.labels, &masks)?);
        Ok(Part { labels, ..part })
    }

    /// Whether the loss has CLIP-RC's recovery terms.
    fn recovers(&self, model: &Model) -> bool {
        matches!(model, Model::ClipRc(_)) && self.weights.recovery() > 0.0
    }

    /// What the terms of a batch are divided by. `None` where labels wait: pseudo labels follow from each part's own
    /// scores, so that their number is only known after the last; the loss is linear in its inverse.
    pub(crate) fn normalizer(&self, parts: &[Part]) -> Option<f64> {
        let ready: Option<Vec<&Targets>> = parts
            .iter()
            .map(|part| match &part.labels {
                Labels::Ready(targets) => Some(targets),
                Labels::Waiting { .. } => None,
            })
            .collect();
        ready.map(|targets| self.objective.normalizer(&targets))
    }

    /// The loss of a part.
    ///
    /// - `normalizer`: see [`Criterion::normalizer`]
    ///
    /// # Errors
    /// The device could not be read.
    pub(crate) fn terms(
        &self,
        model: &Model,
        part: Part,
        normalizer: Option<f64>,
    ) -> Result<Terms, TrainError> {
        let Part {
            inputs,
            labels,
            size,
            share,
            batch_masks,
        } = part;
        match model {
            Model::ZegFormer(model) => {
                let masks = &batch_masks;
                let named = self.set_terms(model, (inputs, size), &labels, masks)?;
                Ok(Terms { named, count: 0 })
            }
            Model::ClipRc(clip_rc) if self.recovers(model) => {
                let encoded = self.encode(model, inputs, size);
                let text = self.text.clone();
                let head = &clip_rc.decode_head;
                let (masks, recovery) =
                    head.forward_with_recovery(encoded, text, &mut Trace::off());
                let mut terms = self.mask_terms(masks, labels, normalizer)?;
                let undivided = if normalizer.is_none() {
                    terms.count.max(1) as f64
                } else {
                    1.0
                };
                let recovery = self.weights.recovery_terms(&recovery).into_iter();
                let factor = share * undivided;
                terms
                    .named
                    .extend(recovery.map(|(name, term)| (name, term * factor)));
                Ok(terms)
            }
            Model::ZegClip(_) | Model::ClipRc(_) => {
                let encoded = self.encode(model, inputs, size);
                let masks = model.masks(encoded, self.text.clone());
                self.mask_terms(masks, labels, normalizer)
            }
        }
    }

    /// The loss of a ZegFormer, summed over its decoder layers.
    ///
    /// - `batch_masks`: labelled classes of each picture of the whole batch
    fn set_terms(
        &self,
        model: &ZegFormer,
        (inputs, size): (Inputs, usize),
        labels: &Labels,
        batch_masks: &[usize],
    ) -> Result<NamedTerms, TrainError> {
        let (Inputs::Pictures(values), Labels::Ready(targets)) = (inputs, labels) else {
            return Err(TrainError::Config(
                "ZegFormer is trained on pictures with labels, not on encoded views or pseudo labels".into(),
            ));
        };
        let images = pictures_tensor(values, size, &self.device);
        let targets = MaskTargets::from_labels(targets);
        let outputs = model.forward_all(images, self.text.clone(), &mut Trace::off());
        let normalizer = self
            .set_loss
            .normalizer(batch_masks, model.config().queries);
        let mut sum: Option<SetTerms> = None;
        for output in outputs {
            let terms = self.set_loss.forward(output, &targets, normalizer)?;
            sum = Some(match sum {
                Some(sum) => sum.plus(terms),
                None => terms,
            });
        }
        let terms = sum.into_iter();
        Ok(terms
            .flat_map(|terms| {
                [
                    ("class", terms.class),
                    ("focal", terms.focal),
                    ("dice", terms.dice),
                ]
            })
            .collect())
    }

    /// What the encoder makes of the pictures.
    fn encode(&self, model: &Model, inputs: Inputs, size: usize) -> Encoded {
        match inputs {
            Inputs::Pictures(values) => model.encode(pictures_tensor(values, size, &self.device)),
            Inputs::Features(features) => features_tensor(&features, &self.device),
        }
    }

    /// The loss of class masks `[batch, classes, h, w]`.
    fn mask_terms(
        &self,
        masks: Tensor<4>,
        labels: Labels,
        normalizer: Option<f64>,
    ) -> Result<Terms, TrainError> {
        let targets = self.targets(labels, &masks)?;
        let (divisor, count) = match normalizer {
            Some(known) => (known, 0),
            None => (1.0, self.objective.count(&targets)),
        };
        let named = self
            .objective
            .forward(masks, &targets, &self.weights, divisor);
        Ok(Terms { named, count })
    }

    /// What a part's loss compares its masks with.
    fn targets(&self, labels: Labels, masks: &Tensor<4>) -> Result<Targets, TrainError> {
        match labels {
            Labels::Ready(targets) => Ok(targets),
            Labels::Waiting {
                mut values,
                pictures,
                size,
            } => {
                if let Some(classes) = self.supervision.pseudo_labels() {
                    classes.fill(masks.clone(), &mut values, size)?;
                }
                Targets::new(values, pictures, size, self.supervision.names().len())
            }
        }
    }
}
