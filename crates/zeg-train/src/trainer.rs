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
    loss::{LossTerms, normalizer},
    optimizer::{Moments, NamedAdamW},
    targets::{SeenClasses, Targets},
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
    /// Focal term.
    pub focal: f32,
    /// Dice term.
    pub dice: f32,
}

/// A model in training.
pub struct Trainer {
    model: ZegClip,
    optimizer: NamedAdamW,
    config: TrainingConfig,
    seen: SeenClasses,
    /// Embeddings of the seen classes: `[seen, dim]`
    text: Tensor<2>,
    device: Device,
    step: u64,
}

impl Trainer {
    /// A trainer at step 0.
    ///
    /// - `model`: on a device with autodiff
    /// - `text`: embeddings of the seen classes `[seen, dim]`, on the same device
    ///
    /// # Errors
    /// There are not as many embeddings as seen classes.
    pub fn new(
        model: ZegClip,
        config: TrainingConfig,
        seen: SeenClasses,
        text: Tensor<2>,
    ) -> Result<Self, TrainError> {
        let [rows, _] = text.dims();
        if rows != seen.names().len() {
            return Err(TrainError::Config(format!(
                "{rows} class embeddings for {} seen classes",
                seen.names().len()
            )));
        }
        let optimizer = NamedAdamW::new(&config.optimizer);
        let device = text.device();
        Ok(Self {
            model,
            optimizer,
            config,
            seen,
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
        let (size, stride) = (samples.size, self.config.loss_stride);
        let mut parts = Vec::new();
        for part in samples.split(self.config.micro_batch()) {
            let mut labels = if stride == 1 {
                part.labels
            } else {
                thin_labels(&part.labels, size, stride)
            };
            self.seen.map(&mut labels);
            let targets = Targets::new(
                labels,
                part.ids.len(),
                [size / stride, size / stride],
                self.seen.names().len(),
            )?;
            parts.push((part.inputs, targets));
        }
        let normalizer = normalizer(&parts.iter().map(|(_, targets)| targets).collect::<Vec<_>>());

        let mut gradients: BTreeMap<String, Tensor<1>> = BTreeMap::new();
        let (mut focal, mut dice) = (0.0, 0.0);
        for (number, (inputs, targets)) in parts.into_iter().enumerate() {
            // Dropout draws from the device's stream: seeded by step and part, it continues exactly after a resume.
            self.device
                .seed(dropout_seed(self.config.seed, self.step, number as u64));
            let masks = self.forward(inputs, size);
            let terms = self.config.loss.forward(masks, &targets, normalizer);
            let (part_focal, part_dice) = values(&terms);
            focal += part_focal;
            dice += part_dice;
            let mut part = terms.total().backward();
            for (name, gradient) in flat_gradients(&self.model, &mut part) {
                let sum = match gradients.remove(&name) {
                    Some(sum) => sum + gradient,
                    None => gradient,
                };
                gradients.insert(name, sum);
            }
        }
        let loss = focal + dice;
        if !loss.is_finite() {
            return Err(TrainError::NotFinite {
                step: self.step,
                value: loss,
                focal,
                dice,
                pictures: ids,
            });
        }
        let lr = self.config.schedule.at(self.step, self.config.steps);
        self.model = self.optimizer.step(self.model.clone(), gradients, lr);
        let report = StepReport {
            step: self.step,
            lr,
            loss,
            focal,
            dice,
        };
        self.step += 1;
        Ok(report)
    }

    /// Class masks on the patch grid: `[batch, seen, h, w]`.
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

/// The terms as numbers: focal, dice.
fn values(terms: &LossTerms) -> (f32, f32) {
    (
        terms.focal.clone().into_scalar::<f32>(),
        terms.dice.clone().into_scalar::<f32>(),
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
