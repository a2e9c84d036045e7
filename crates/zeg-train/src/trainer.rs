//! The trainer: one step after the other, counted in steps.

use std::collections::BTreeMap;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use zeg_image::IGNORE_LABEL;
use zeg_model::{params::flat_gradients, trace::Trace, zegclip::ZegClip};

use crate::{
    TrainError,
    batch::{Inputs, Samples, features_tensor, pictures_tensor, thin_labels},
    experiment::TrainingConfig,
    objective::NamedTerms,
    optimizer::{Moments, NamedAdamW},
    supervision::Supervision,
    targets::Targets,
};

/// What a step reports; losses are weighted, means over the whole batch.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepReport {
    /// From 0.
    pub step: u64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Sum of the terms.
    pub loss: f32,
    /// The terms by name, such as `focal` and `dice`.
    #[serde(flatten)]
    pub terms: BTreeMap<&'static str, f32>,
}

/// A model in training.
pub struct Trainer {
    model: ZegClip,
    optimizer: NamedAdamW,
    config: TrainingConfig,
    supervision: Supervision,
    /// Embeddings of the classes that are trained: `[classes, dim]`
    text: Tensor<2>,
    device: Device,
    step: u64,
}

impl Trainer {
    /// A trainer at step 0.
    ///
    /// - `model`: on a device with autodiff
    /// - `supervision`: what it may know of the classes
    /// - `text`: embeddings of its classes `[classes, dim]`, on the same device
    ///
    /// # Errors
    /// There are not as many embeddings as classes.
    pub fn new(
        model: ZegClip,
        config: TrainingConfig,
        supervision: impl Into<Supervision>,
        text: Tensor<2>,
    ) -> Result<Self, TrainError> {
        let supervision = supervision.into();
        let [rows, _] = text.dims();
        if rows != supervision.names().len() {
            return Err(TrainError::Config(format!(
                "{rows} class embeddings for {} classes to train",
                supervision.names().len()
            )));
        }
        let optimizer = NamedAdamW::new(&config.optimizer);
        let device = text.device();
        Ok(Self {
            model,
            optimizer,
            config,
            supervision,
            text,
            device,
            step: 0,
        })
    }

    /// Continues from a checkpoint's optimiser state; the model already has its weights.
    pub fn resume(&mut self, step: u64, moments: BTreeMap<String, Moments>) {
        self.step = step;
        self.optimizer
            .import(moments, &self.device.clone().without_autodiff());
    }

    /// Steps done so far; the number of the next one.
    pub fn step_number(&self) -> u64 {
        self.step
    }

    /// The model in training.
    pub fn model(&self) -> &ZegClip {
        &self.model
    }

    /// The model for inference: no dropout, no graph.
    pub fn inference_model(&self) -> ZegClip {
        self.model.valid()
    }

    /// The optimiser's state.
    ///
    /// # Errors
    /// The device could not be read.
    pub fn moments(&self) -> Result<BTreeMap<String, Moments>, TrainError> {
        self.optimizer.export()
    }

    /// Trains on one batch.
    ///
    /// # Errors
    /// A label is no class of the data set, or the loss is not finite; the model is then as before the step.
    pub fn train_step(&mut self, samples: Samples) -> Result<StepReport, TrainError> {
        let ids = samples.ids.clone();
        let size = samples.size;
        let parts = self.parts(samples)?;
        let ready: Option<Vec<&Targets>> = parts.iter().map(|(_, labels)| labels.ready()).collect();
        // Pseudo labels follow from each part's own scores, so that their number is only known after the last; the
        // loss is linear in its inverse.
        let objective = self.config.objective;
        let known = ready.map(|targets| objective.normalizer(&targets));
        let mut counted = 0;

        let mut gradients: BTreeMap<String, Tensor<1>> = BTreeMap::new();
        let mut terms: BTreeMap<&'static str, f32> = BTreeMap::new();
        for (number, (inputs, labels)) in parts.into_iter().enumerate() {
            // Dropout draws from the device's stream: seeded by step and part, it continues exactly after a resume.
            self.device
                .seed(dropout_seed(self.config.seed, self.step, number as u64));
            let masks = self.forward(inputs, size);
            let targets = self.targets(labels, &masks)?;
            let of_part = known.unwrap_or_else(|| {
                counted += objective.count(&targets);
                1.0
            });
            let named = objective.forward(masks, &targets, &self.config.loss, of_part);
            for (name, term) in &named {
                *terms.entry(name).or_default() += term.clone().into_scalar::<f32>();
            }
            let mut part = total(named).backward();
            for (name, gradient) in flat_gradients(&self.model, &mut part) {
                let sum = match gradients.remove(&name) {
                    Some(sum) => sum + gradient,
                    None => gradient,
                };
                gradients.insert(name, sum);
            }
        }
        if known.is_none() {
            let divisor = counted.max(1) as f32;
            for term in terms.values_mut() {
                *term /= divisor;
            }
            gradients = gradients
                .into_iter()
                .map(|(name, gradient)| (name, gradient / divisor))
                .collect();
        }
        let loss = terms.values().sum::<f32>();
        if !loss.is_finite() {
            return Err(TrainError::NotFinite {
                step: self.step,
                value: loss,
                terms,
                pictures: ids,
            });
        }
        let lr = self.config.schedule.at(self.step, self.config.steps);
        self.model = self.optimizer.step(self.model.clone(), gradients, lr);
        let report = StepReport {
            step: self.step,
            lr,
            loss,
            terms,
        };
        self.step += 1;
        Ok(report)
    }

    /// The batch's micro-batches, with labels as far as they are known.
    fn parts(&self, samples: Samples) -> Result<Vec<(Inputs, Labels)>, TrainError> {
        let (size, stride) = (samples.size, self.config.loss_stride);
        let mut parts = Vec::new();
        for part in samples.split(self.config.micro_batch()) {
            let mut values = if stride == 1 {
                part.labels
            } else {
                thin_labels(&part.labels, size, stride)
            };
            self.supervision.map(&mut values);
            let (pictures, size) = (part.ids.len(), [size / stride, size / stride]);
            let labels = if self.supervision.pseudo_labels().is_some() {
                Labels::Waiting {
                    values,
                    pictures,
                    size,
                }
            } else {
                let classes = self.supervision.names().len();
                Labels::Ready(Targets::new(values, pictures, size, classes)?)
            };
            parts.push((part.inputs, labels));
        }
        Ok(parts)
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

    /// Class masks on the patch grid: `[batch, classes, h, w]`.
    fn forward(&self, inputs: Inputs, size: usize) -> Tensor<4> {
        let trace = &mut Trace::off();
        let text = self.text.clone();
        match inputs {
            Inputs::Pictures(values) => {
                self.model
                    .forward(pictures_tensor(values, size, &self.device), text, trace)
            }
            Inputs::Features(features) => self.model.decode_head.forward(
                features_tensor(&features, &self.device),
                text,
                trace,
            ),
        }
    }
}

/// Labels of a micro-batch.
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

impl Labels {
    fn ready(&self) -> Option<&Targets> {
        match self {
            Self::Ready(targets) => Some(targets),
            Self::Waiting { .. } => None,
        }
    }
}

/// Sum of the terms: `[1]`.
fn total(terms: NamedTerms) -> Tensor<1> {
    let mut terms = terms.into_iter().map(|(_, term)| term);
    let first = terms.next();
    first.map_or_else(
        || Tensor::zeros([1], &Device::default()),
        |first| terms.fold(first, |sum, term| sum + term),
    )
}

/// A seed of its own for every step and micro-batch (splitmix64 of the three).
fn dropout_seed(seed: u64, step: u64, part: u64) -> u64 {
    [step, part].into_iter().fold(seed, |state, value| {
        let mut z = (state ^ value).wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// Share of labelled pixels whose class has the highest logit; the reference logs it as `acc_seg`.
///
/// - `scores`: `[batch, classes, pixels]`, row-major
/// - `labels`: `[batch, pixels]`
pub fn pixel_accuracy(scores: &[f32], labels: &[u16], classes: usize, pixels: usize) -> f64 {
    let (mut right, mut counted) = (0_u64, 0_u64);
    for (position, &label) in labels
        .iter()
        .enumerate()
        .filter(|(_, label)| **label != IGNORE_LABEL)
    {
        let (picture, pixel) = (position / pixels, position % pixels);
        let at = |class: usize| scores[(picture * classes + class) * pixels + pixel];
        let best = (1..classes).fold(
            0,
            |best, class| if at(class) > at(best) { class } else { best },
        );
        right += u64::from(best == usize::from(label));
        counted += 1;
    }
    right as f64 / counted.max(1) as f64
}
