//! One configuration file is one experiment: data, model, training and inference.

use std::{path::Path, sync::Arc};

use burn::tensor::Device;

use serde::{Deserialize, Serialize};
pub use zeg_data::DataConfig;
use zeg_data::{OnBadSample, Preprocess};
use zeg_model::{
    inference::{Inference, TestTime},
    method::Architecture,
    methods::Methods,
    renamed::rename_all,
    section::{ModelSection, Section},
};

use crate::{
    TrainError, checkpoint::Checkpoint, objective::Objective, optimizer::AdamWSettings,
    recipe::Recipes, schedule::Schedule, supervision::PseudoLabels,
};

/// A whole experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Experiment {
    /// The images and what they are labelled with.
    pub data: DataConfig,
    /// The model.
    pub model: ModelSection,
    /// How it is trained.
    pub training: TrainingConfig,
    /// How it is used and scored.
    #[serde(default)]
    pub inference: Inference,
}

/// An experiment as it was read from its file.
#[derive(Debug, Clone, PartialEq)]
pub struct ExperimentFile {
    /// The experiment.
    pub experiment: Experiment,
    /// A sentence for each key of the file that has another name now.
    pub notices: Vec<String>,
}

/// What the training may know of the classes; see [`crate::supervision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Seen classes only; unseen names and pixels stay unknown.
    Inductive,
    /// All names, and labels of seen classes; pixels of unseen classes get pseudo labels (the released "†ST").
    Transductive,
    /// All names and labels.
    FullySupervised,
}

impl Setting {
    /// Its name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inductive => "inductive",
            Self::Transductive => "transductive",
            Self::FullySupervised => "fully-supervised",
        }
    }
}

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainingConfig {
    /// What the training may know.
    pub setting: Setting,
    /// Which pixels get pseudo labels in the transductive setting.
    #[serde(default, skip_serializing_if = "PseudoLabels::is_default")]
    pub pseudo_labels: PseudoLabels,
    /// Optimiser steps.
    pub steps: u64,
    /// Images a step.
    pub batch: usize,
    /// Images that go through the model at once; a step's gradients are summed over its micro-batches, with the
    /// same result. Without, the whole batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Of initial values, order, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
    /// From a decoded image to a training sample.
    pub preprocess: Preprocess,
    /// Encode this many augmented copies of every image once, before the first step, and train the head on them.
    /// Only for an encoder without prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_copies: Option<usize>,
    /// Every how many pixels the loss looks, along both axes; 1 as released.
    #[serde(default = "one")]
    pub loss_stride: usize,
    /// What is minimised.
    #[serde(default, skip_serializing_if = "Objective::is_default")]
    pub objective: Objective,
    /// Weights of the terms of the loss; the method's own.
    #[serde(default, skip_serializing_if = "Section::is_empty")]
    pub loss: Section,
    /// The optimiser.
    #[serde(default)]
    pub optimizer: AdamWSettings,
    /// The learning rate.
    #[serde(default)]
    pub schedule: Schedule,
    /// Steps between checkpoints; without, a tenth of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,
    /// Scores on the way; without, none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<Validation>,
    /// Checkpoints to keep, the newest.
    #[serde(default = "two")]
    pub keep_checkpoints: usize,
    /// What happens when a training image cannot be read.
    #[serde(default)]
    pub on_bad_sample: OnBadSample,
}

/// Scores during training: a line each in `scores.jsonl`, and the model with the best of them in `best.safetensors`.
///
/// The best model is chosen by hIoU where the split of classes has unseen ones, else by mIoU. Choosing it on the
/// images that are reported in the end makes those scores optimistic: name a split of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Validation {
    /// Steps between scores; the last step is always scored.
    pub every: u64,
    /// Split to score on; the data set's own or a text file with an id a line. Without, `data.eval-split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Only its first images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Scales and flip that scores are averaged over.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub test_time: TestTime,
}

/// For leaving the usual value out of files.
fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn one() -> usize {
    1
}
fn two() -> usize {
    2
}

impl TrainingConfig {
    /// Images that go through the model at once.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch
            .unwrap_or(self.batch)
            .clamp(1, self.batch.max(1))
    }

    /// Steps between checkpoints.
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
    /// The file cannot be read or does not parse, a key is not known or no longer exists, or the values do not fit
    /// each other.
    pub fn open(
        path: &Path,
        changes: &[String],
        methods: &Methods,
        recipes: &Recipes,
    ) -> Result<ExperimentFile, TrainError> {
        let fail = |reason: String| TrainError::ConfigFile {
            path: path.to_owned(),
            reason,
        };
        let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
        let mut table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| fail(error.to_string()))?;
        for change in changes {
            set(&mut table, change).map_err(&fail)?;
        }
        let mut as_json = serde_json::to_value(&table).map_err(|error| fail(error.to_string()))?;
        let renames = rename_all(&mut as_json);
        if let Some(setting) = renames.dropped.first() {
            return Err(fail(format!("`{setting}` no longer exists; leave it out")));
        }
        // The table's own errors name the line; they are kept wherever no key was moved.
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
        Ok(ExperimentFile {
            experiment,
            notices: renames.notices,
        })
    }

    /// The experiment in a checkpoint.
    ///
    /// # Errors
    /// It does not parse.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let experiment = checkpoint.info.experiment.clone();
        serde_json::from_value(experiment).map_err(|error| TrainError::Checkpoint {
            path: checkpoint.path().to_owned(),
            reason: format!("its experiment does not parse: {error}"),
        })
    }

    /// The experiment as a checkpoint keeps it.
    ///
    /// # Errors
    /// A value has no JSON.
    pub fn to_json(&self) -> Result<serde_json::Value, TrainError> {
        serde_json::to_value(self).map_err(|error| TrainError::Config(error.to_string()))
    }

    /// The model's architecture.
    ///
    /// # Errors
    /// The method is not known, or its section contradicts itself.
    pub fn architecture(&self, methods: &Methods) -> Result<Arc<dyn Architecture>, TrainError> {
        Ok(self.model.architecture(methods)?)
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// A [`TrainError::Config`] that names the setting and its value.
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
        let size = training.preprocess.size();
        if !size.is_multiple_of(architecture.stride()) {
            return fail(format!(
                "training.preprocess: images of {size} pixels are not a multiple of the patch, {}",
                architecture.stride()
            ));
        }
        if training.loss_stride == 0 || !size.is_multiple_of(training.loss_stride) {
            return fail(format!(
                "training.loss-stride = {} does not divide {size} pixels",
                training.loss_stride
            ));
        }
        let recipe = recipes.of(architecture.method())?;
        recipe.criterion(training, &*architecture)?;
        if training.evaluation.as_ref().is_some_and(|e| e.every == 0) {
            return fail("training.evaluation.every = 0: it must be at least 1".into());
        }
        if let Some(evaluation) = &training.evaluation {
            evaluation.test_time.check().map_err(TrainError::Model)?;
        }
        if training.cached_copies == Some(0) {
            return fail(
                "training.cached-copies = 0: leave it out to encode images as they come".into(),
            );
        }
        for (setting, pixels) in [
            ("model.input-resolution", architecture.resolution()),
            ("training.preprocess", size),
            ("inference.crop", self.inference.crop),
        ] {
            architecture.check_side(setting, pixels)?;
        }
        if training.cached_copies.is_some() && !architecture.has_frozen_encoder() {
            return fail(format!(
                "training.cached-copies needs an image encoder that training does not change; {}'s changes as it is \
                 configured, or the method does not train on encoded images (leave out model.prompts and \
                 model.tune-encoder, or cached-copies)",
                architecture.title()
            ));
        }
        let mut blueprint = architecture.blueprint(&Device::flex())?;
        blueprint.set_options(&self.inference.method)?;
        self.inference.check().map_err(TrainError::Model)
    }
}

/// Applies one `key=value` change.
fn set(table: &mut toml::Table, change: &str) -> Result<(), String> {
    let (key, value) = change
        .split_once('=')
        .ok_or_else(|| format!("--set {change:?}: write key=value, such as training.steps=100"))?;
    let value = value.trim();
    // A value is TOML; what does not parse as such is a string, so that quotes are not needed on a shell's line.
    let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path
        .pop()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| format!("--set {change:?}: the key is empty"))?;
    let mut table = table;
    for name in path {
        let entry = table
            .entry(name)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry
            .as_table_mut()
            .ok_or_else(|| format!("--set {change:?}: {name:?} is a value, not a table"))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_reaches_into_tables_and_makes_them() {
        let mut table: toml::Table = "[training]\nsteps = 5".parse().unwrap();
        set(&mut table, "training.steps=7").unwrap();
        set(&mut table, "training.schedule.base = 1e-3").unwrap();
        set(&mut table, "data.train-split=train_aug").unwrap();
        assert_eq!(table["training"]["steps"].as_integer(), Some(7));
        assert_eq!(table["training"]["schedule"]["base"].as_float(), Some(1e-3));
        assert_eq!(table["data"]["train-split"].as_str(), Some("train_aug"));
        assert!(
            set(&mut table, "training.steps")
                .unwrap_err()
                .contains("key=value")
        );
        assert!(
            set(&mut table, "training.steps.deeper=1")
                .unwrap_err()
                .contains("not a table")
        );
    }
}
