//! Defines the training side of a method: its loss and its groups of parameters.
//!
//! A [`Recipe`] is one entry of the list in [`crate::methods`]. It creates a loss from the experiment's settings. A
//! method implements the loss as a [`MethodLoss`] for its own model type; the trainer uses it as a [`Criterion`] that
//! returns named terms.

use burn::tensor::{Device, Tensor};
use zeg_base::numbers::Legal;
use zeg_model::{
    method::{Architecture, Model, SegmentationModel},
    params::RunningValue,
    section::Section,
};

use crate::{
    TrainError,
    batch::{Features, Inputs},
    experiment::TrainingConfig,
    labels::PartLabels,
    objective::NamedTerms,
    optimizer::{AdamWSettings, ParamGroup, usual_group},
    targets::Targets,
};

/// The training side of a method, as the trainer uses it.
pub trait Recipe: Send + Sync {
    /// Returns the name of the method.
    fn method(&self) -> &'static str;

    /// Checks the settings and creates the loss that they describe.
    ///
    /// # Errors
    /// Returns an error if a setting does not fit the method; the error names the setting and its value.
    fn criterion(
        &self,
        training: &TrainingConfig,
        architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError>;

    /// Returns whether the method labels pixels of unseen classes from the first step on, so that the transductive setting
    /// needs no trained model to start from.
    fn labels_untrained(&self) -> bool {
        false
    }

    /// Returns the optimiser's group of a parameter.
    fn group(&self, settings: &AdamWSettings, name: &str) -> ParamGroup {
        usual_group(settings, name)
    }
}

/// A micro-batch: images that go through the model at once, with those of their labels that are known.
pub struct LossPart<'a> {
    /// Normalised images, or the features that a frozen encoder computed from them.
    pub inputs: Inputs,
    /// Side of the images in pixels.
    pub size: usize,
    /// Embeddings of the training classes, `[classes, dim]`.
    pub text: Tensor<2>,
    /// Names of the training classes, in the order of their embeddings.
    pub names: &'a [String],
    /// The labels; some may wait for pseudo labels from the model's own scores.
    pub labels: PartLabels<'a>,
    /// The number that the terms of the whole batch are divided by; `None` if it is not known before the last part.
    pub normalizer: Option<f64>,
    /// This part's share of the batch's images, 0 to 1.
    pub share: f64,
    /// Number of labelled classes in each image of the whole batch; empty if labels wait for pseudo labels.
    pub batch_masks: &'a [usize],
    /// Number of the step, from 0.
    pub step: u64,
}

impl LossPart<'_> {
    /// Returns the device that the loss is computed on.
    pub fn device(&self) -> Device {
        self.text.device()
    }
}

/// The loss of a micro-batch.
pub struct PartTerms {
    /// The weighted terms, by name.
    pub named: NamedTerms,
    /// This part's contribution to the batch's normaliser if that was not known; the terms are then not divided.
    pub count: usize,
    /// Observations of running means, which the trainer adds to the model if the step succeeds.
    pub observed: Vec<RunningValue>,
}

/// A loss as a method implements it.
pub trait MethodLoss: Send + Sync + 'static {
    /// The model that the loss trains.
    type Model: SegmentationModel;

    /// Computes the terms of a micro-batch.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read or the method cannot use the labels.
    fn terms(&self, model: &Self::Model, part: LossPart) -> Result<PartTerms, TrainError>;

    /// Computes the class logits of a micro-batch without a loss, for pseudo labels: `[batch, classes, h, w]`.
    ///
    /// Returns `None` if the method has no class logits.
    ///
    /// # Errors
    /// Returns an error if the method cannot use the inputs.
    fn class_logits(
        &self,
        model: &Self::Model,
        inputs: Inputs,
        size: usize,
        text: Tensor<2>,
    ) -> Result<Option<Tensor<4>>, TrainError> {
        let _ = (model, inputs, size, text);
        Ok(None)
    }

    /// Returns a micro-batch's contribution to the normaliser of the batch.
    fn count(&self, targets: &Targets) -> usize {
        targets.count()
    }

    /// Returns whether all labels of a batch must be known before the first gradient.
    ///
    /// This is so if some terms are divided by the number of labels and others are not, because then a sum over several
    /// parts cannot be divided at the end.
    fn needs_all_labels(&self) -> bool {
        false
    }

    /// Computes the features of one image `[1, 3, size, size]` with the frozen encoder, in main memory.
    ///
    /// Returns `None` if the method cannot be trained on features.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    fn features(
        &self,
        model: &Self::Model,
        images: Tensor<4>,
    ) -> Result<Option<Features>, TrainError> {
        let _ = (model, images);
        Ok(None)
    }
}

/// A loss of any method, as the trainer uses it.
pub trait Criterion: Send + Sync {
    /// Computes the terms of a micro-batch; see [`MethodLoss::terms`].
    ///
    /// # Errors
    /// Returns the errors of [`MethodLoss::terms`], and an error if the model belongs to another method.
    fn terms(&self, model: &dyn Model, part: LossPart) -> Result<PartTerms, TrainError>;
    /// Computes the class logits of a micro-batch; see [`MethodLoss::class_logits`].
    ///
    /// # Errors
    /// Returns an error if the model belongs to another method, or if the method has no class logits.
    fn class_logits(
        &self,
        model: &dyn Model,
        inputs: Inputs,
        size: usize,
        text: Tensor<2>,
    ) -> Result<Tensor<4>, TrainError>;
    /// Returns a micro-batch's contribution to the normaliser; see [`MethodLoss::count`].
    fn count(&self, targets: &Targets) -> usize;
    /// Returns whether all labels must be known before the first gradient; see [`MethodLoss::needs_all_labels`].
    fn needs_all_labels(&self) -> bool;
    /// Computes the features of one image; see [`MethodLoss::features`].
    ///
    /// # Errors
    /// Returns an error if the device cannot be read, if the model belongs to another method, or if the method cannot
    /// be trained on features.
    fn features(&self, model: &dyn Model, images: Tensor<4>) -> Result<Features, TrainError>;
}

/// Returns the model as the type of its own method.
fn own<M: 'static>(model: &dyn Model) -> Result<&M, TrainError> {
    model.as_any().downcast_ref().ok_or_else(|| {
        TrainError::Config("the model belongs to another method than the loss".into())
    })
}

impl<L: MethodLoss> Criterion for L {
    fn terms(&self, model: &dyn Model, part: LossPart) -> Result<PartTerms, TrainError> {
        MethodLoss::terms(self, own(model)?, part)
    }

    fn class_logits(
        &self,
        model: &dyn Model,
        inputs: Inputs,
        size: usize,
        text: Tensor<2>,
    ) -> Result<Tensor<4>, TrainError> {
        MethodLoss::class_logits(self, own(model)?, inputs, size, text)?.ok_or_else(|| {
            TrainError::Config(
                "pseudo labels need class masks, which the method does not have".into(),
            )
        })
    }

    fn count(&self, targets: &Targets) -> usize {
        MethodLoss::count(self, targets)
    }

    fn needs_all_labels(&self) -> bool {
        MethodLoss::needs_all_labels(self)
    }

    fn features(&self, model: &dyn Model, images: Tensor<4>) -> Result<Features, TrainError> {
        MethodLoss::features(self, own(model)?, images)?.ok_or_else(|| {
            TrainError::Config(
                "the method trains on images, not on cached features; leave out training.cached-copies".into(),
            )
        })
    }
}

/// The list of training recipes that a program knows.
#[derive(Clone)]
pub struct Recipes(Vec<&'static dyn Recipe>);

impl Default for Recipes {
    /// Returns the recipes of [`crate::methods::BUILTIN`].
    fn default() -> Self {
        Self(crate::methods::BUILTIN.to_vec())
    }
}

impl Recipes {
    /// Adds a recipe.
    #[must_use]
    pub fn with(mut self, recipe: &'static dyn Recipe) -> Self {
        self.0.push(recipe);
        self
    }

    /// Returns the recipe of a method.
    ///
    /// # Errors
    /// Returns an error if the method has no recipe, because it is training-free.
    pub fn of(&self, method: &str) -> Result<&'static dyn Recipe, TrainError> {
        let found = self.0.iter().find(|recipe| recipe.method() == method);
        found.copied().ok_or_else(|| {
            TrainError::Config(format!("the method {method:?} has no training recipe"))
        })
    }
}

/// Reads the method's own section of the training settings (`[training.loss]`).
///
/// # Errors
/// Returns an error if a key is unknown, or a weight is negative or not finite.
pub fn read_loss<T: serde::de::DeserializeOwned>(section: &Section) -> Result<T, TrainError> {
    let legal = Legal::NotNegative;
    let weights = section.numbers();
    let illegal = weights
        .into_iter()
        .find(|(_, weight)| !legal.accepts(*weight));
    if let Some((key, value)) = illegal {
        return Err(TrainError::Setting {
            setting: format!("training.loss.{key}"),
            value,
            legal: legal.text(),
        });
    }
    Ok(section.read("`training.loss`")?)
}
