//! The training half of a method: what it minimises, and at which rates its parameters learn.
//!
//! A [`Recipe`] is one entry of the list in [`crate::methods`]. It makes a loss of the experiment's settings
//! ([`MethodLoss`], whose model has a type of its own); the trainer knows it as a [`Criterion`] and its results as
//! named terms.

use burn::tensor::{Device, Tensor};
use zeg_model::{
    method::{Architecture, Model, SegmentationModel},
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

/// How a method is trained: what the trainer has to know of it.
pub trait Recipe: Send + Sync {
    /// Name of the method.
    fn method(&self) -> &'static str;

    /// Makes the loss that the settings ask for, after checking them.
    ///
    /// # Errors
    /// A setting does not fit the method; the error names it and its value.
    fn criterion(
        &self,
        training: &TrainingConfig,
        architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError>;

    /// The optimiser's group of a parameter.
    fn group(&self, settings: &AdamWSettings, name: &str) -> ParamGroup {
        usual_group(settings, name)
    }
}

/// Images that go through the model at once, with what is known of their labels.
pub struct LossPart<'a> {
    /// Normalised images, or what a frozen encoder made of them.
    pub inputs: Inputs,
    /// Side of the images in pixels.
    pub size: usize,
    /// Embeddings of the classes that are trained: `[classes, dim]`
    pub text: Tensor<2>,
    /// The labels; some may wait for the model's own scores.
    pub labels: PartLabels<'a>,
    /// What the terms of the whole batch are divided by; `None` where it is not known before the last part.
    pub normalizer: Option<f64>,
    /// Share of the batch's images.
    pub share: f64,
    /// Labelled classes of each image of the whole batch; empty where labels wait.
    pub batch_masks: &'a [usize],
}

impl LossPart<'_> {
    /// The device that the loss is computed on.
    pub fn device(&self) -> Device {
        self.text.device()
    }
}

/// The loss of a part.
pub struct PartTerms {
    /// Weighted, by name.
    pub named: NamedTerms,
    /// Where the batch's normaliser was not known: what this part adds to it. The terms are not divided then.
    pub count: usize,
}

/// A loss as its method writes it.
pub trait MethodLoss: Send + Sync + 'static {
    /// The model that it trains.
    type Model: SegmentationModel;

    /// Computes the terms of a part.
    ///
    /// # Errors
    /// The device could not be read, or the labels are of a kind that the method cannot use.
    fn terms(&self, model: &Self::Model, part: LossPart) -> Result<PartTerms, TrainError>;

    /// Computes class logits of a part without a loss, for pseudo labels: `[batch, classes, h, w]`. `None` where the
    /// method has no class logits.
    ///
    /// # Errors
    /// The inputs are of a kind that the method cannot use.
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

    /// A part's share of the normaliser of the batch.
    fn count(&self, targets: &Targets) -> usize {
        targets.count()
    }

    /// Whether all labels of a batch must be known before the first gradient: some terms are divided by their number and
    /// others are not, so that a sum over several parts cannot be divided in the end.
    fn needs_all_labels(&self) -> bool {
        false
    }

    /// What a frozen encoder makes of one image `[1, 3, size, size]`, in main memory; `None` where the method cannot be
    /// trained on it.
    ///
    /// # Errors
    /// The device could not be read.
    fn features(
        &self,
        model: &Self::Model,
        images: Tensor<4>,
    ) -> Result<Option<Features>, TrainError> {
        let _ = (model, images);
        Ok(None)
    }
}

/// A loss of any method.
pub trait Criterion: Send + Sync {
    /// See [`MethodLoss::terms`].
    ///
    /// # Errors
    /// See [`MethodLoss::terms`], or the model is another method's.
    fn terms(&self, model: &dyn Model, part: LossPart) -> Result<PartTerms, TrainError>;
    /// See [`MethodLoss::class_logits`].
    ///
    /// # Errors
    /// The model is another method's, or the method has no class logits.
    fn class_logits(
        &self,
        model: &dyn Model,
        inputs: Inputs,
        size: usize,
        text: Tensor<2>,
    ) -> Result<Tensor<4>, TrainError>;
    /// See [`MethodLoss::count`].
    fn count(&self, targets: &Targets) -> usize;
    /// See [`MethodLoss::needs_all_labels`].
    fn needs_all_labels(&self) -> bool;
    /// See [`MethodLoss::features`].
    ///
    /// # Errors
    /// The device could not be read, or the model is another method's or cannot be trained on features.
    fn features(&self, model: &dyn Model, images: Tensor<4>) -> Result<Features, TrainError>;
}

/// The model as the type of its own method.
fn own<M: 'static>(model: &dyn Model) -> Result<&M, TrainError> {
    model
        .as_any()
        .downcast_ref()
        .ok_or_else(|| TrainError::Config("the model is of another method than its loss".into()))
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
            TrainError::Config("pseudo labels need class masks; the method has none".into())
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
                "the method is not trained on encoded augmented copies of images".into(),
            )
        })
    }
}

/// Recipes that a program knows.
#[derive(Clone)]
pub struct Recipes(Vec<&'static dyn Recipe>);

impl Default for Recipes {
    /// Those of [`crate::methods::BUILTIN`].
    fn default() -> Self {
        Self(crate::methods::BUILTIN.to_vec())
    }
}

impl Recipes {
    /// These recipes and one more.
    #[must_use]
    pub fn with(mut self, recipe: &'static dyn Recipe) -> Self {
        self.0.push(recipe);
        self
    }

    /// The recipe of a method.
    ///
    /// # Errors
    /// The method is not trained.
    pub fn of(&self, method: &str) -> Result<&'static dyn Recipe, TrainError> {
        let found = self.0.iter().find(|recipe| recipe.method() == method);
        found
            .copied()
            .ok_or_else(|| TrainError::Config(format!("{method} is a method without training")))
    }
}

/// Reads the method's own section of the training settings (`[training.loss]`).
///
/// # Errors
/// A key is not known.
pub fn read_loss<T: serde::de::DeserializeOwned>(section: &Section) -> Result<T, TrainError> {
    Ok(section.read("`training.loss`")?)
}
