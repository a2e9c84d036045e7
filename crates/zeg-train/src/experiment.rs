//! One configuration file is one experiment: data, model, training and inference.

mod model;

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeg_data::{
    DataError, OnBadSample, OpenSet, Preprocess, SampleSource as _, Selection,
    mini_world::{DATASET, WorldData},
};
use zeg_model::{inference::Inference, method::Method};
use zeg_vocab::classes::ClassSet;

pub use self::model::{Encoder, EncoderSizes, ModelConfig};
use crate::{
    TrainError, loss::MaskLoss, objective::Objective, optimizer::AdamWSettings, schedule::Schedule,
    set_criterion::SetLoss, supervision::PseudoLabels,
};

/// A whole experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Experiment {
    /// The pictures and what they are labelled with.
    pub data: DataConfig,
    /// The model.
    pub model: ModelConfig,
    /// How it is trained.
    pub training: TrainingConfig,
    /// How it is used and scored.
    #[serde(default)]
    pub inference: Inference,
}

/// The pictures and what they are labelled with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataConfig {
    /// Layout of the folder: `voc12`, `coco-stuff164k`, …, or a file that describes one (`.toml`); `mini-world` is made
    /// while it is read and needs no folder.
    pub dataset: String,
    /// Which mini world, and how many pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mini_world: Option<WorldData>,
    /// Class list: `voc20`, `coco-stuff171`, … A data set of one's own brings its list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<String>,
    /// Which classes are unseen: `published`, the name of a built-in split, a file with a name a line, or names
    /// separated by commas. Without, the list's published split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// Sentences that a text tower reads class names in: `single` ("a photo of a …") or `multi` (fifteen, their
    /// directions averaged). A table of embeddings was made with its own.
    #[serde(default = "single")]
    pub templates: String,
    /// Sentences for a second stage's views of regions, such as `zegformer-32`; without, the same as for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop_templates: Option<String>,
    /// Split to train on.
    pub train_split: String,
    /// Split to score on.
    pub eval_split: String,
}

impl DataConfig {
    /// One of its splits, in a folder.
    pub fn selection<'a>(&'a self, root: &'a Path, split: &'a str) -> Selection<'a> {
        Selection {
            dataset: &self.dataset,
            root,
            split,
            classes: self.classes.as_deref(),
            unseen: self.unseen.as_deref(),
        }
    }

    /// Opens one of its splits.
    ///
    /// - `root`: the data set's folder; a mini world needs none
    ///
    /// # Errors
    /// As [`OpenSet::open`].
    pub fn open(&self, root: &Path, split: &str) -> Result<OpenSet, DataError> {
        OpenSet::open(&self.selection(root, split), self.mini_world.as_ref())
    }

    /// Its classes, without its pictures.
    ///
    /// # Errors
    /// The data set, its class list or the split of classes is not known.
    pub fn class_set(&self) -> Result<ClassSet, DataError> {
        if self.dataset == DATASET {
            let set = self.open(Path::new(""), &self.train_split)?;
            return Ok(set.classes().clone());
        }
        let (list, unseen) = (self.classes.as_deref(), self.unseen.as_deref());
        zeg_data::classes(&self.dataset, list, unseen)
    }
}

fn single() -> String {
    "single".to_owned()
}

/// What the training may know of the classes; see [`crate::supervision`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainingConfig {
    /// What the training may know.
    pub setting: Setting,
    /// Which pixels get pseudo labels in the transductive setting.
    #[serde(default, skip_serializing_if = "PseudoLabels::is_default")]
    pub pseudo_labels: PseudoLabels,
    /// Optimiser steps.
    pub steps: u64,
    /// Pictures a step.
    pub batch: usize,
    /// Pictures that go through the model at once; a step's gradients are summed over its micro-batches, with the
    /// same result. Without, the whole batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Of initial values, order, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
    /// From a decoded picture to a training sample.
    pub preprocess: Preprocess,
    /// Encode this many augmented views of every picture once, before the first step, and train the head on them.
    /// Only for an encoder without prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_views: Option<usize>,
    /// Every how many pixels the loss looks, along both axes; 1 as released.
    #[serde(default = "one")]
    pub loss_stride: usize,
    /// What is minimised.
    #[serde(default, skip_serializing_if = "Objective::is_default")]
    pub objective: Objective,
    /// Weights of the focal and dice terms, and of CLIP-RC's recovery.
    #[serde(default)]
    pub loss: MaskLoss,
    /// Weights of ZegFormer's terms, which are of queries and not of classes.
    #[serde(default, skip_serializing_if = "SetLoss::is_default")]
    pub set_loss: SetLoss,
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
    /// What happens when a training picture cannot be read.
    #[serde(default)]
    pub on_bad_sample: OnBadSample,
}

/// Scores during training: a line each in `scores.jsonl`, and the model with the best of them in `best.safetensors`.
///
/// The best model is chosen by hIoU where the split of classes has unseen ones, else by mIoU. Choosing it on the
/// pictures that are reported in the end makes those scores optimistic: name a split of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Validation {
    /// Steps between scores; the last step is always scored.
    pub every: u64,
    /// Split to score on; the data set's own or a text file with an id a line. Without, `data.eval-split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Only its first pictures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

fn one() -> usize {
    1
}
fn two() -> usize {
    2
}

impl TrainingConfig {
    /// Pictures that go through the model at once.
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
    /// The file cannot be read or does not parse, a key is not known, or the values do not fit each other.
    pub fn open(path: &Path, changes: &[String]) -> Result<Self, TrainError> {
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
        let experiment: Self = table
            .try_into()
            .map_err(|error: toml::de::Error| fail(error.to_string()))?;
        experiment
            .check()
            .map_err(|error| fail(error.to_string()))?;
        Ok(experiment)
    }

    /// Checks that the parts fit each other.
    ///
    /// # Errors
    /// A [`TrainError::Config`] that names the setting and its value.
    pub fn check(&self) -> Result<(), TrainError> {
        let training = &self.training;
        let fail = |text: String| Err(TrainError::Config(text));
        let architecture = self.model.architecture()?;
        if training.steps == 0 || training.batch == 0 {
            return fail(format!(
                "training.steps = {} and training.batch = {}: both must be at least 1",
                training.steps, training.batch
            ));
        }
        let size = training.preprocess.size();
        if !size.is_multiple_of(architecture.patch()) {
            return fail(format!(
                "training.preprocess: pictures of {size} pixels are not a multiple of the patch, {}",
                architecture.patch()
            ));
        }
        if training.loss_stride == 0 || !size.is_multiple_of(training.loss_stride) {
            return fail(format!(
                "training.loss-stride = {} does not divide {size} pixels",
                training.loss_stride
            ));
        }
        let two_stage = self.model.method == Method::ZegFormer;
        if two_stage && training.setting == Setting::Transductive {
            return fail(
                "training.setting = \"transductive\" needs class masks for its pseudo labels; ZegFormer has none".into(),
            );
        }
        if two_stage && !training.objective.is_default() {
            return fail(format!(
                "training.objective = {:?} is of class masks; ZegFormer's weights are training.set-loss",
                training.objective
            ));
        }
        let scoring = training.objective.scoring();
        if !two_stage && architecture.scoring() != scoring {
            return fail(format!(
                "training.objective = {:?} needs model.head.scoring = {scoring:?}, which is {:?}",
                training.objective,
                architecture.scoring()
            ));
        }
        if training.evaluation.as_ref().is_some_and(|e| e.every == 0) {
            return fail("training.evaluation.every = 0: it must be at least 1".into());
        }
        if training.cached_views == Some(0) {
            return fail(
                "training.cached-views = 0: leave it out to encode pictures as they come".into(),
            );
        }
        let sides = [
            ("model.input-resolution", self.model.input_resolution),
            ("training.preprocess", size),
            ("inference.crop", self.inference.crop),
        ];
        if let Some(regions) = architecture.encoder().and_then(|encoder| encoder.regions) {
            check_lattice(regions, architecture.patch(), &sides)?;
        } else if training.loss.recovery.is_some() {
            return fail("training.loss.recovery is CLIP-RC's; leave it out".into());
        }
        if training.cached_views.is_some() && self.model.method != Method::ZegClip {
            return fail(format!(
                "training.cached-views works with ZegCLIP alone, not with {}",
                self.model.method.title()
            ));
        }
        let changes = self.model.prompts.is_some() || self.model.tune_encoder;
        if training.cached_views.is_some() && changes {
            return fail(
                "training.cached-views needs an encoder that does not change: leave out model.prompts and \
                 model.tune-encoder"
                    .into(),
            );
        }
        self.inference.check().map_err(TrainError::Model)
    }
}

/// Whether a lattice of region tokens divides the grids of patches of all pictures. Patches that it left over would
/// belong to no region.
fn check_lattice(regions: usize, patch: usize, sides: &[(&str, usize)]) -> Result<(), TrainError> {
    let lattice = regions.isqrt();
    for (setting, pixels) in sides {
        let grid = pixels / patch;
        if grid == 0 || !grid.is_multiple_of(lattice) {
            let fitting = (1..=grid).filter(|side| grid.is_multiple_of(*side));
            let fitting: Vec<String> = fitting.map(|side| (side * side).to_string()).collect();
            return Err(TrainError::Config(format!(
                "model.regions = {regions}: a lattice of {lattice}×{lattice} does not divide the {grid}×{grid} patches \
                 of {pixels} pixels ({setting}); these do: {}",
                fitting.join(", ")
            )));
        }
    }
    Ok(())
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
