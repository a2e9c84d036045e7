//! Reads experiments: one configuration file describes data, model, training and inference.

use std::{path::Path, sync::Arc};

use burn::tensor::Device;

use serde::{Deserialize, Serialize};
use zeg_base::{
    file::read_error,
    keys::{explain, first_not_finite},
    numbers::Legal,
};
pub use zeg_data::DataConfig;
use zeg_data::{OnBadSample, Preprocess};
use zeg_model::{
    inference::Inference,
    method::Architecture,
    methods::Methods,
    renamed::rename_all,
    section::{ModelSection, Section},
};

use crate::{
    TrainError,
    checkpoint::Checkpoint,
    objective::Objective,
    optimizer::AdamWSettings,
    pseudo_labels::{PseudoLabelRule, Unlabelled},
    recipe::Recipes,
    schedule::Schedule,
    supervision::PseudoLabels,
};

mod changes;
mod precision;
mod validation;

pub use precision::TrainingPrecision;
pub use validation::Validation;

/// Largest side of a window or of the images that a position table is resized for; no image file is larger.
const MOST_PIXELS: usize = 1 << 20;

/// A whole experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Experiment {
    /// The images and their classes.
    pub data: DataConfig,
    /// The model.
    pub model: ModelSection,
    /// The training settings.
    pub training: TrainingConfig,
    /// The inference settings, for evaluation and use.
    #[serde(default)]
    pub inference: Inference,
}

/// An experiment as it was read from its file.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentFile {
    /// The experiment.
    pub experiment: Experiment,
    /// One sentence for each key of the file that has been renamed since, or that belongs to another data set.
    pub notices: Vec<String>,
}

/// The names and labels that training may use; see [`crate::supervision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Names and labels of seen classes; names and labels of unseen classes are not used.
    Inductive,
    /// Names of all classes and labels of seen classes; pixels of unseen classes get pseudo labels (the released
    /// "†ST").
    Transductive,
    /// Names and labels of all classes.
    FullySupervised,
}

impl Setting {
    /// Returns the name of the setting in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inductive => "inductive",
            Self::Transductive => "transductive",
            Self::FullySupervised => "fully-supervised",
        }
    }
}

/// The training settings of an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainingConfig {
    /// The names and labels that training may use.
    pub setting: Setting,
    /// Which pixels get pseudo labels in the transductive setting.
    #[serde(default, skip_serializing_if = "PseudoLabels::is_default")]
    pub pseudo_labels: PseudoLabels,
    /// How scores become pseudo labels in the transductive setting.
    #[serde(default, skip_serializing_if = "PseudoLabelRule::is_default")]
    pub self_training: PseudoLabelRule,
    /// Number of optimiser steps.
    pub steps: u64,
    /// Number of images per step.
    pub batch: usize,
    /// Number of images that go through the model at once; `None`: the whole batch.
    ///
    /// The gradients of a step are summed over its micro-batches, with the same result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Seed for initialisation, data order, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
    /// Preprocessing from a decoded image to a training sample.
    pub preprocess: Preprocess,
    /// Number of augmented copies of every image that are encoded once, before the first step, to train the head on.
    ///
    /// Only for an encoder without prompts; `None`: images are encoded in every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_copies: Option<usize>,
    /// Stride of the loss along both axes, in pixels; the released recipes use 1.
    #[serde(default = "one")]
    pub loss_stride: usize,
    /// The arithmetic of the frozen blocks of CLIP's towers. It changes nothing in a model without frozen blocks, such as one
    /// whose encoder is tuned.
    #[serde(default, skip_serializing_if = "TrainingPrecision::is_default")]
    pub precision: TrainingPrecision,
    /// The objective that is minimised.
    #[serde(default, skip_serializing_if = "Objective::is_default")]
    pub objective: Objective,
    /// Whether pixels without the label of a training class are negatives for every class in the sigmoid losses of class
    /// masks, as released: pixels that people left unlabelled, padding, and in the inductive setting those of unseen
    /// classes. `false` leaves them out of the loss.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub unlabelled_negatives: bool,
    /// Weights of the terms of the method's loss.
    #[serde(default, skip_serializing_if = "Section::is_empty")]
    pub loss: Section,
    /// Settings of the optimiser.
    #[serde(default)]
    pub optimizer: AdamWSettings,
    /// Schedule of the learning rate.
    #[serde(default)]
    pub schedule: Schedule,
    /// Number of steps between checkpoints; `None`: a tenth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,
    /// Validation during training; `None`: no validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Validation>,
    /// Number of newest checkpoints to keep.
    #[serde(default = "two")]
    pub keep_checkpoints: usize,
    /// Reaction to a training image that cannot be read.
    #[serde(default)]
    pub on_bad_sample: OnBadSample,
}

/// Returns whether a value is the default, which is left out of files.
fn is_default_value<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn yes() -> bool {
    true
}
#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_yes(value: &bool) -> bool {
    *value
}
fn one() -> usize {
    1
}
fn two() -> usize {
    2
}

impl TrainingConfig {
    /// Checks that no setting of class masks is changed, for a method that has a loss of its own.
    ///
    /// - `instead`: what the method has in place of them
    ///
    /// # Errors
    /// Returns an error that names the setting.
    pub(crate) fn check_no_class_masks(&self, instead: &str) -> Result<(), TrainError> {
        let setting = if !self.objective.is_default() {
            format!("objective = {:?}", self.objective)
        } else if !self.unlabelled_negatives {
            "unlabelled-negatives = false".to_owned()
        } else {
            return Ok(());
        };
        Err(TrainError::Config(format!(
            "training.{setting} is for methods with class masks; {instead}"
        )))
    }

    /// Returns the number of images that go through the model at once.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch
            .unwrap_or(self.batch)
            .clamp(1, self.batch.max(1))
    }

    /// Returns the number of steps between checkpoints.
    pub fn checkpoint_every(&self) -> u64 {
        self.checkpoint_every
            .unwrap_or(self.steps.div_ceil(10))
            .max(1)
    }
}

impl Experiment {
    /// Reads a configuration file and applies `key=value` changes to it.
    ///
    /// A key is a path of names, such as `training.steps`; a value is TOML, or a plain string.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or parsed, if a key is unknown or no longer exists, or if the values
    /// contradict each other.
    pub fn open(
        path: &Path,
        changes: &[String],
        methods: &Methods,
        recipes: &Recipes,
    ) -> Result<ExperimentFile, TrainError> {
        let read = std::fs::read_to_string(path);
        let text = read.map_err(|error| TrainError::ConfigFile {
            path: path.to_owned(),
            reason: read_error(path, error).to_string(),
        })?;
        Self::parse(&text, path, changes, methods, recipes)
    }

    /// Parses the text of a configuration file and applies `key=value` changes to it, as [`Experiment::open`] does.
    ///
    /// - `path`: the file, for error messages
    ///
    /// # Errors
    /// Returns the errors of [`Experiment::open`], except for those of reading the file.
    pub fn parse(
        text: &str,
        path: &Path,
        changes: &[String],
        methods: &Methods,
        recipes: &Recipes,
    ) -> Result<ExperimentFile, TrainError> {
        let keys = changes.iter().filter_map(|change| change.split_once('='));
        let changed: Vec<&str> = keys.map(|(key, _)| key.trim()).collect();
        let fail = |reason: String| TrainError::ConfigFile {
            path: path.to_owned(),
            reason: explain(text, &reason, &changed),
        };
        let mut table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| fail(error.to_string()))?;
        let of_file = changes::dataset_of(&table);
        for change in changes {
            changes::set(&mut table, change).map_err(&fail)?;
        }
        // JSON has no such numbers, so they are refused before the table becomes JSON.
        if let Some((setting, value)) = first_not_finite(&table) {
            let error = TrainError::Setting {
                setting,
                value,
                legal: Legal::Finite.text(),
            };
            return Err(fail(error.to_string()));
        }
        let adapted = changes::adapt_data(&mut table, of_file.as_deref(), changes);
        let mut as_json = serde_json::to_value(&table).map_err(|error| fail(error.to_string()))?;
        let renames = rename_all(&mut as_json);
        if let Some(setting) = renames.dropped.first() {
            return Err(fail(format!("`{setting}` no longer exists; leave it out")));
        }
        // Errors of the TOML table name the place of the key, so the table is parsed directly unless a key was renamed.
        let experiment: Self = if renames.notices.is_empty() {
            table
                .try_into()
                .map_err(|error: toml::de::Error| fail(error.to_string()))?
        } else {
            serde_json::from_value(as_json).map_err(|error| fail(error.to_string()))?
        };
        experiment
            .check(methods, recipes)
            .map_err(|error| fail(error.to_string()))?;
        let mut notices = renames.notices;
        notices.extend(adapted);
        Ok(ExperimentFile {
            experiment,
            notices,
        })
    }

    /// Reads the experiment stored in a checkpoint.
    ///
    /// # Errors
    /// Returns an error if it cannot be parsed.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let experiment = checkpoint.info.experiment.clone();
        serde_json::from_value(experiment).map_err(|error| TrainError::Checkpoint {
            path: checkpoint.path().to_owned(),
            reason: format!("the stored experiment cannot be parsed: {error}"),
        })
    }

    /// Returns the experiment in the form that a checkpoint stores.
    ///
    /// # Errors
    /// Returns an error if a value cannot be represented in JSON.
    pub fn to_json(&self) -> Result<serde_json::Value, TrainError> {
        serde_json::to_value(self).map_err(|error| TrainError::Config(error.to_string()))
    }

    /// Returns the model's architecture.
    ///
    /// # Errors
    /// Returns an error if the method is unknown or its section contradicts itself.
    pub fn architecture(&self, methods: &Methods) -> Result<Arc<dyn Architecture>, TrainError> {
        Ok(self.model.architecture(methods)?)
    }

    /// Checks that the parts of the experiment fit each other.
    ///
    /// # Errors
    /// Returns a [`TrainError::Config`] that names the setting and its value.
    pub fn check(&self, methods: &Methods, recipes: &Recipes) -> Result<(), TrainError> {
        let training = &self.training;
        let fail = |text: String| Err(TrainError::Config(text));
        let architecture = self.architecture(methods)?;
        if training.steps == 0 || training.batch == 0 {
            return fail(format!(
                "training.steps = {} and training.batch = {}: both must be at least 1",
                training.steps, training.batch
            ));
        }
        if let Err(error) = training.preprocess.check() {
            return fail(format!("training.preprocess.{error}"));
        }
        let size = training.preprocess.size();
        if !size.is_multiple_of(architecture.stride()) {
            return fail(format!(
                "training.preprocess: the image size of {size} pixels must be a multiple of the patch size, {}",
                architecture.stride()
            ));
        }
        if training.loss_stride == 0 || !size.is_multiple_of(training.loss_stride) {
            return fail(format!(
                "training.loss-stride = {}: it must divide the image size of {size} pixels",
                training.loss_stride
            ));
        }
        training.check_numbers()?;
        let recipe = recipes.of(architecture.method())?;
        recipe.criterion(training, &*architecture)?;
        if training.evaluation.as_ref().is_some_and(|e| e.every == 0) {
            return fail("training.evaluation.every = 0: it must be at least 1".into());
        }
        if let Some(evaluation) = &training.evaluation {
            evaluation.test_time.check().map_err(TrainError::Model)?;
        }
        training.self_training.check()?;
        if training.objective == Objective::CrossEntropy
            && training.self_training.unlabelled != Unlabelled::Negative
        {
            return fail(
                "training.self-training.unlabelled: with training.objective = \"cross-entropy\" a pixel without a label \
                 has no part in the loss of any class; leave it out"
                    .into(),
            );
        }
        if training.setting != Setting::Transductive && !training.self_training.is_default() {
            return fail(
                "training.self-training: it applies to training.setting = \"transductive\" only"
                    .into(),
            );
        }
        if training.cached_copies == Some(0) {
            return fail(
                "training.cached-copies = 0: leave it out to encode images in every step".into(),
            );
        }
        for (setting, pixels) in [
            ("model.input-resolution", architecture.resolution()),
            ("training.preprocess", size),
            ("inference.crop", self.inference.crop),
        ] {
            if pixels > MOST_PIXELS {
                return fail(format!(
                    "{setting} = {pixels}: must be at most {MOST_PIXELS} pixels"
                ));
            }
            architecture.check_side(setting, pixels)?;
        }
        if training.cached_copies.is_some() && !architecture.has_frozen_encoder() {
            return fail(format!(
                "training.cached-copies needs a frozen image encoder and a method that trains on encoded images; {}'s changes \
                 in training as configured, or the method trains on images (leave out model.prompts and \
                 model.tune-encoder, or training.cached-copies)",
                architecture.title()
            ));
        }
        let mut blueprint = architecture.blueprint(&Device::flex())?;
        blueprint.set_options(&self.inference.method)?;
        self.inference.check().map_err(TrainError::Model)
    }
}
