//! A data set as an experiment or a plan of an evaluation names it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeg_vocab::classes::ClassSet;

use crate::{
    DataError, OpenSet, SampleSource as _, Selection,
    mini_world::{DATASET, WorldData},
};

/// The images and what they are labelled with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataConfig {
    /// Layout of the folder: `voc12`, `coco-stuff164k`, …, or a file that describes one (`.toml`); `mini-world` is made
    /// while it is read and needs no folder.
    pub dataset: String,
    /// Which mini world, and how many images.
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
    /// Split to train on.
    #[serde(default = "train")]
    pub train_split: String,
    /// Split to score on.
    #[serde(default = "val")]
    pub eval_split: String,
}

impl DataConfig {
    /// A data set with its usual classes, splits and templates.
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

    /// Its classes, without its images.
    ///
    /// # Errors
    /// The data set, its class list or the split of classes is not known.
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
