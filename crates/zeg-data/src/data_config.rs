//! The data set section of a training or evaluation configuration.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeg_vocab::classes::ClassSet;

use crate::{
    DataError, OpenSet, SampleSource as _, Selection,
    mini_world::{DATASET, WorldData},
};

/// A data set with its classes, prompt templates and splits, as a configuration names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataConfig {
    /// Name of the data set: `voc12`, `coco-stuff164k`, …, or the path of a `.toml` file that describes one;
    /// `mini-world` is rendered on request and needs no folder.
    pub dataset: String,
    /// Settings of the mini world and its numbers of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mini_world: Option<WorldData>,
    /// Class list: `voc20`, `coco-stuff171`, …; `None` means the data set's default list, or its own list if a `.toml`
    /// file describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<String>,
    /// The unseen classes: `published`, the name of a built-in split, a file with one class name per line, or class
    /// names separated by commas; `None` means the list's published split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// Prompt templates of class names: `single` ("a photo of a …") or `multi` (fifteen templates, whose embeddings are
    /// averaged). A table of class embeddings was made with its own templates.
    #[serde(default = "single")]
    pub templates: String,
    /// Split to train on.
    #[serde(default = "train")]
    pub train_split: String,
    /// Split to evaluate on.
    #[serde(default = "val")]
    pub eval_split: String,
}

impl DataConfig {
    /// Returns a data set with its default classes, splits and prompt templates.
    pub fn new(dataset: &str) -> Self {
        Self {
            dataset: dataset.to_owned(),
            mini_world: None,
            classes: None,
            unseen: None,
            templates: single(),
            train_split: train(),
            eval_split: val(),
        }
    }

    /// Returns the selection of a split in a folder.
    pub fn selection<'a>(&'a self, root: &'a Path, split: &'a str) -> Selection<'a> {
        Selection {
            dataset: &self.dataset,
            root,
            split,
            classes: self.classes.as_deref(),
            unseen: self.unseen.as_deref(),
        }
    }

    /// Opens a split.
    ///
    /// - `root`: the data set's folder; not used for a mini world
    ///
    /// # Errors
    /// Returns the errors of [`OpenSet::open`].
    pub fn open(&self, root: &Path, split: &str) -> Result<OpenSet, DataError> {
        OpenSet::open(&self.selection(root, split), self.mini_world.as_ref())
    }

    /// Returns the classes, without opening the images.
    ///
    /// # Errors
    /// Returns an error if the data set, its class list or the split of classes is unknown.
    pub fn class_set(&self) -> Result<ClassSet, DataError> {
        if self.dataset == DATASET {
            let set = self.open(Path::new(""), &self.train_split)?;
            return Ok(set.classes().clone());
        }
        let (list, unseen) = (self.classes.as_deref(), self.unseen.as_deref());
        crate::classes(&self.dataset, list, unseen)
    }
}

fn single() -> String {
    "single".to_owned()
}
fn train() -> String {
    "train".to_owned()
}
fn val() -> String {
    "val".to_owned()
}
