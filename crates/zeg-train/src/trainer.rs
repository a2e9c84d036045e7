//! Trains a model step by step: micro-batches, gradients, one optimiser step per batch.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use zeg_base::random::splitmix64;
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    method::{Architecture, Model},
    params::{add_observations, flat_gradients},
    text::ClassTexts,
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

/// The report of one training step; losses are weighted means over the whole batch.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StepReport {
    /// Number of the step, from 0.
    pub step: u64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Sum of the terms.
    pub loss: f32,
    /// The terms by name, such as `focal` and `dice`.
    #[serde(flatten)]
    pub terms: BTreeMap<&'static str, f32>,
    /// Ids of the batch's images if none of their pixels has the label of a training class; empty otherwise.
    #[serde(skip)]
    pub unlabelled: Vec<String>,
}

/// A model in training, with its optimiser and its loss.
pub struct Trainer {
    model: Box<dyn Model>,
    optimizer: NamedAdamW,
    config: TrainingConfig,
    loss: BatchLoss,
    step: u64,
    labels: LabelCount,
}

/// Whether a trainer has met a label since it was created.
#[derive(Debug, Default)]
struct LabelCount {
    /// Number of images.
    images: u64,
    /// Whether a pixel of one of them had the label of a training class.
    found: bool,
}

impl Trainer {
    /// Creates a trainer at step 0.
    ///
    /// - `recipe`: the training recipe of the model's method
    /// - `architecture`: the architecture of the model
    /// - `model`: the model, on a device with autodiff
    /// - `supervision`: the class names and labels that training may use
    /// - `text`: embeddings of the training classes, `[classes, dim]`, on the same device
    ///
    /// # Errors
    /// Returns an error if there are not as many embeddings as classes, or if the settings do not fit the method.
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
            labels: LabelCount::default(),
        })
    }

    /// Gives the trainer the texts of the training classes, in the order of their embeddings: if the model's text tower is
    /// trained, it embeds them in every step.
    ///
    /// # Errors
    /// Returns an error if there are not as many as training classes.
    pub fn set_texts(&mut self, texts: ClassTexts) -> Result<(), TrainError> {
        self.loss.set_texts(texts)
    }

    /// Restores a checkpoint's step number and optimiser state; the model must already have its weights.
    pub fn resume(&mut self, step: u64, moments: BTreeMap<String, Moments>) {
        self.step = step;
        let device = self.loss.device().clone().without_autodiff();
        self.optimizer.import(moments, &device);
    }

    /// Lets a model give the pseudo labels that is not trained: that of the checkpoint the run started from.
    pub fn set_teacher(&mut self, teacher: &dyn Model) {
        self.loss.set_teacher(teacher);
    }

    /// Returns the number of steps done so far, which is the number of the next step.
    pub fn step_number(&self) -> u64 {
        self.step
    }

    /// Checks that a pixel of the images so far had the label of a training class.
    ///
    /// Nothing is learned from other images. Single ones are no error, so this is checked at the end of the run, and
    /// as soon as every image of the data set was used.
    ///
    /// - `images`: number of images of the data set
    ///
    /// # Errors
    /// Returns an error if all images were used, or the run is at its end, and no label was found since this trainer
    /// was created.
    pub fn check_labels(&self, images: usize) -> Result<(), TrainError> {
        // A resumed run may have few steps left, and its labels were found before.
        let all_steps = self.step >= self.config.steps
            && self.labels.images >= self.config.steps.saturating_mul(self.config.batch as u64);
        let used = all_steps || self.labels.images >= images as u64;
        if self.labels.found || self.labels.images == 0 || !used {
            return Ok(());
        }
        Err(TrainError::Unlabelled {
            images: self.labels.images,
        })
    }

    /// Returns the model in training.
    pub fn model(&self) -> &dyn Model {
        &*self.model
    }

    /// Returns the loss of the model's method.
    pub fn criterion(&self) -> &dyn Criterion {
        self.loss.criterion()
    }

    /// Returns the model for inference, without dropout and without an autodiff graph.
    pub fn inference_model(&self) -> Box<dyn Model> {
        self.model.for_inference()
    }

    /// Returns the optimiser's state.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn moments(&self) -> Result<BTreeMap<String, Moments>, TrainError> {
        self.optimizer.export()
    }

    /// Trains on one batch.
    ///
    /// # Errors
    /// Returns an error if a label is not a class of the data set, or if the loss is not finite; the model is then
    /// unchanged.
    pub fn train_step(&mut self, samples: Samples) -> Result<StepReport, TrainError> {
        let ids = samples.ids.clone();
        let mut parts = self.loss.parts(samples)?;
        let is_labelled = BatchLoss::is_labelled(&parts);
        self.labels.images += ids.len() as u64;
        self.labels.found |= is_labelled;
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
            BatchLoss::share_masks(&mut parts);
        }
        let known = self.loss.normalizer(&parts);
        let (mut counted, mut observed) = (0, Vec::new());

        let mut gradients: BTreeMap<String, Tensor<1>> = BTreeMap::new();
        let mut terms: BTreeMap<&'static str, f32> = BTreeMap::new();
        for (number, part) in parts.into_iter().enumerate() {
            self.seed_dropout(number);
            let PartTerms {
                named,
                count,
                observed: of_part,
            } = self.loss.terms(&*self.model, part, known, self.step)?;
            counted += count;
            observed.extend(of_part);
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
        add_observations(&mut *self.model, observed);
        let report = StepReport {
            step: self.step,
            lr,
            loss,
            terms,
            unlabelled: if is_labelled { Vec::new() } else { ids },
        };
        self.step += 1;
        Ok(report)
    }

    /// Seeds the device's random stream for dropout by step and micro-batch, so that a resumed run continues exactly.
    fn seed_dropout(&self, part: usize) {
        let seed = dropout_seed(self.config.seed, self.step, part as u64);
        self.loss.device().seed(seed);
    }
}

/// Returns the sum of the terms: `[1]`.
fn total(terms: NamedTerms) -> Tensor<1> {
    let mut terms = terms.into_iter().map(|(_, term)| term);
    let first = terms.next();
    first.map_or_else(
        || Tensor::zeros([1], &Device::default()),
        |first| terms.fold(first, |sum, term| sum + term),
    )
}

/// Returns a separate dropout seed for every step and micro-batch (splitmix64 of seed, step and part).
fn dropout_seed(seed: u64, step: u64, part: u64) -> u64 {
    [step, part]
        .into_iter()
        .fold(seed, |state, value| splitmix64(state ^ value))
}

/// Returns the share of labelled pixels whose class has the highest logit, which the reference logs as `acc_seg`.
///
/// - `scores`: logits, `[batch, classes, pixels]`, row-major
/// - `labels`: class indices or the ignore index, `[batch, pixels]`
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
