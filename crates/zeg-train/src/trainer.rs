//! Trains a model step by step: micro-batches, gradients, one optimiser step per batch.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use zeg_base::{random::splitmix64, ranks::Ranks};
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    method::{Architecture, Model},
    params::{add_observations, flat_gradients},
    text::ClassTexts,
};

use crate::{
    TrainError,
    batch::Samples,
    criterion::{BatchLoss, MicroBatch},
    experiment::TrainingConfig,
    gradient_sum::{GradientSum, Gradients},
    objective::NamedTerms,
    optimizer::{Moments, NamedAdamW},
    recipe::{Criterion, PartTerms, Recipe},
    supervision::Supervision,
    whole_batch::{BatchTerms, PartLoss, WholeBatch},
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
    pub terms: BTreeMap<String, f32>,
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
    ranks: Ranks,
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
            ranks: Ranks::single(),
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

    /// Shares every batch with other processes, which have the same model and call the same methods.
    pub fn set_ranks(&mut self, ranks: Ranks) {
        self.ranks = ranks;
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
    /// - `samples`: the batch; with several ranks, this rank's [`positions`](crate::whole_batch::positions) of it
    ///
    /// # Errors
    /// Returns an error if a label is not a class of the data set, if the loss is not finite, or if another rank has
    /// failed; the model is then unchanged.
    pub fn train_step(&mut self, samples: Samples) -> Result<StepReport, TrainError> {
        let mut parts = self.loss.parts(samples)?;
        let whole = self.whole(&mut parts)?;
        let is_labelled = whole.is_labelled();
        let ids = whole.ids();
        self.labels.images += ids.len() as u64;
        self.labels.found |= is_labelled;
        let mut known = whole.normalizer();
        if self.loss.labels_first(&whole) {
            let label = |(number, part)| {
                self.seed_dropout(number);
                self.loss.label(&*self.model, part)
            };
            let numbered = self.numbers().zip(parts);
            parts = numbered.map(label).collect::<Result<_, _>>()?;
            known = self.whole(&mut parts)?.normalizer();
        }

        let mut sum = GradientSum::new(&self.ranks, &*self.model);
        let mut losses = Vec::new();
        let mut own = self.numbers().zip(parts);
        for _ in 0..whole.len().div_ceil(self.ranks.size()) {
            let gradients = match own.next() {
                Some((number, part)) => {
                    let (loss, gradients) = self.backward(number, part, known)?;
                    losses.push(loss);
                    Some(gradients)
                }
                None => None,
            };
            sum.add(gradients)?;
        }
        let BatchTerms {
            mut terms,
            count,
            observed,
        } = BatchTerms::collect(&self.ranks, losses, self.loss.device())?;
        let mut gradients = sum.finish(self.loss.device())?;
        if known.is_none() {
            let divisor = count.max(1) as f32;
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

    /// Collects what is known of the whole batch, and tells every part.
    fn whole(&self, parts: &mut [MicroBatch]) -> Result<WholeBatch, TrainError> {
        let facts = parts.iter().map(|part| self.loss.facts(part)).collect();
        let whole = WholeBatch::collect(&self.ranks, facts)?;
        BatchLoss::share(parts, &whole);
        Ok(whole)
    }

    /// Returns the numbers of this rank's micro-batches in a batch.
    fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        (self.ranks.rank()..).step_by(self.ranks.size())
    }

    /// Computes loss and gradients of a micro-batch.
    fn backward(
        &self,
        number: usize,
        part: MicroBatch,
        normalizer: Option<f64>,
    ) -> Result<(PartLoss, Gradients), TrainError> {
        self.seed_dropout(number);
        let PartTerms {
            named,
            count,
            observed,
        } = self.loss.terms(&*self.model, part, normalizer, self.step)?;
        let values = named.iter();
        let values = values.map(|(name, term)| ((*name).to_owned(), term.clone().into_scalar()));
        let loss = PartLoss::new(values.collect(), count, observed)?;
        let mut gradients = total(named).backward();
        Ok((loss, flat_gradients(&*self.model, &mut gradients)))
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
