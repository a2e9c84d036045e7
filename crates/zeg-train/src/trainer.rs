//! The trainer: one step after the other, counted in steps.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use zeg_base::random::splitmix64;
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    method::{Architecture, Model},
    params::flat_gradients,
};

use crate::{
    TrainError,
    batch::Samples,
    criterion::BatchLoss,
    experiment::TrainingConfig,
    objective::NamedTerms,
    optimizer::{Moments, NamedAdamW},
    recipe::{Criterion, PartTerms, Recipe},
    supervision::Supervision,
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
    model: Box<dyn Model>,
    optimizer: NamedAdamW,
    config: TrainingConfig,
    loss: BatchLoss,
    step: u64,
}

impl Trainer {
    /// A trainer at step 0.
    ///
    /// - `recipe`: how the model's method is trained
    /// - `architecture`: of the model
    /// - `model`: on a device with autodiff
    /// - `supervision`: what it may know of the classes
    /// - `text`: embeddings of its classes `[classes, dim]`, on the same device
    ///
    /// # Errors
    /// There are not as many embeddings as classes, or the settings do not fit the method.
    pub fn new(
        recipe: &'static dyn Recipe,
        architecture: &dyn Architecture,
        model: Box<dyn Model>,
        config: TrainingConfig,
        supervision: impl Into<Supervision>,
        text: Tensor<2>,
    ) -> Result<Self, TrainError> {
        let settings = config.optimizer;
        let optimizer =
            NamedAdamW::with_groups(&settings, move |name| recipe.group(&settings, name));
        let criterion = recipe.criterion(&config, architecture)?;
        Ok(Self {
            model,
            optimizer,
            loss: BatchLoss::new(criterion, &config, supervision.into(), text)?,
            config,
            step: 0,
        })
    }

    /// Continues from a checkpoint's optimiser state; the model already has its weights.
    pub fn resume(&mut self, step: u64, moments: BTreeMap<String, Moments>) {
        self.step = step;
        let device = self.loss.device().clone().without_autodiff();
        self.optimizer.import(moments, &device);
    }

    /// Steps done so far; the number of the next one.
    pub fn step_number(&self) -> u64 {
        self.step
    }

    /// The model in training.
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// The loss of its method.
    pub fn criterion(&self) -> &dyn Criterion {
        self.loss.criterion()
    }

    /// The model for inference: no dropout, no graph.
    pub fn inference_model(&self) -> Box<dyn Model> {
        self.model.for_inference()
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
        let mut parts = self.loss.parts(samples)?;
        if self.loss.labels_first(&parts) {
            let label = |(number, part)| {
                self.seed_dropout(number);
                self.loss.label(&*self.model, part)
            };
            parts = parts
                .into_iter()
                .enumerate()
                .map(label)
                .collect::<Result<_, _>>()?;
        }
        let known = self.loss.normalizer(&parts);
        let mut counted = 0;

        let mut gradients: BTreeMap<String, Tensor<1>> = BTreeMap::new();
        let mut terms: BTreeMap<&'static str, f32> = BTreeMap::new();
        for (number, part) in parts.into_iter().enumerate() {
            self.seed_dropout(number);
            let PartTerms { named, count } = self.loss.terms(&*self.model, part, known)?;
            counted += count;
            for (name, term) in &named {
                *terms.entry(name).or_default() += term.clone().into_scalar::<f32>();
            }
            let mut part = total(named).backward();
            for (name, gradient) in flat_gradients(&*self.model, &mut part) {
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
                images: ids,
            });
        }
        let lr = self.config.schedule.at(self.step, self.config.steps);
        self.optimizer.step(&mut *self.model, gradients, lr);
        let report = StepReport {
            step: self.step,
            lr,
            loss,
            terms,
        };
        self.step += 1;
        Ok(report)
    }

    /// Dropout draws from the device's stream: seeded by step and part, it continues exactly after a resume.
    fn seed_dropout(&self, part: usize) {
        let seed = dropout_seed(self.config.seed, self.step, part as u64);
        self.loss.device().seed(seed);
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
    [step, part]
        .into_iter()
        .fold(seed, |state, value| splitmix64(state ^ value))
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
        let (image, pixel) = (position / pixels, position % pixels);
        let at = |class: usize| scores[(image * classes + class) * pixels + pixel];
        let best = (1..classes).fold(
            0,
            |best, class| if at(class) > at(best) { class } else { best },
        );
        right += u64::from(best == usize::from(label));
        counted += 1;
    }
    right as f64 / counted.max(1) as f64
}
