//! Sources of samples: a list of files, or images that are rendered on request.
//!
//! The loader and the evaluation need only the number of samples, the classes, and each sample by its index, so they
//! do not depend on files.

use zeg_vocab::classes::ClassSet;

use crate::mini_world::{DATASET, WorldData, WorldSet};
use crate::{DataError, Dataset, Metric, Sample, Selection};

/// A source of samples that are loaded by their index and labelled with one list of classes.
pub trait SampleSource: Send + Sync {
    /// Returns the name that configurations and messages use.
    fn name(&self) -> &str;

    /// Returns the classes; a label is the position of its class.
    fn classes(&self) -> &ClassSet;

    /// Returns the number of samples.
    fn len(&self) -> usize;

    /// Returns whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the name of a sample in messages; empty if `index` is beyond the end of a list of files.
    fn id(&self, index: usize) -> String;

    /// Loads a sample; the same `index` always gives the same image and labels.
    ///
    /// # Errors
    /// Returns [`DataError::NoSuchSample`] if `index` is beyond the end, and another error if the sample cannot be
    /// read.
    fn load(&self, index: usize) -> Result<Sample, DataError>;
}

impl SampleSource for Dataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn classes(&self) -> &ClassSet {
        &self.classes
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn id(&self, index: usize) -> String {
        let item = self.items.get(index);
        item.map(|item| item.id.clone()).unwrap_or_default()
    }

    fn load(&self, index: usize) -> Result<Sample, DataError> {
        Dataset::load(self, index)
    }
}

/// An opened data set: a list of files, or a mini world, which needs no files.
#[derive(Debug, Clone, PartialEq)]
pub enum OpenSet {
    /// Images and label maps in files.
    Files(Dataset),
    /// Images of a mini world.
    World(WorldSet),
}

impl OpenSet {
    /// Opens the selected data set: a mini world if its name is [`DATASET`], or else files in a folder.
    ///
    /// - `world`: settings of the mini world and its number of images; `None` means the defaults
    ///
    /// # Errors
    /// Returns the errors of [`open`](crate::open), an error if a mini world's settings are out of range or it has no
    /// such split, and [`DataError::WorldClasses`] if the selection names a class list or unseen classes for it.
    pub fn open(selection: &Selection, world: Option<&WorldData>) -> Result<Self, DataError> {
        if selection.dataset != DATASET {
            return crate::open(selection).map(Self::Files);
        }
        let named = [
            (
                "class list",
                selection.classes,
                "it has its own classes, and no other list fits its images",
            ),
            (
                "list of unseen classes",
                selection.unseen,
                "`data.mini-world.world.split` and `split-seed` of an experiment choose them",
            ),
        ];
        for (what, value, instead) in named {
            if let Some(value) = value {
                return Err(DataError::WorldClasses {
                    what,
                    value: value.to_owned(),
                    instead,
                });
            }
        }
        let usual = WorldData::default();
        WorldSet::open(world.unwrap_or(&usual), selection.split).map(Self::World)
    }

    /// Returns the name that messages use.
    pub fn title(&self) -> &str {
        match self {
            Self::Files(dataset) => &dataset.title,
            Self::World(_) => "the mini world",
        }
    }

    /// Returns the metric in which results are usually reported.
    pub fn metric(&self) -> Metric {
        match self {
            Self::Files(dataset) => dataset.metric,
            Self::World(_) => Metric::MeanIou,
        }
    }

    /// Keeps the samples whose position `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut position = 0;
        let mut next = || {
            position += 1;
            keep(position - 1)
        };
        match self {
            Self::Files(dataset) => dataset.items.retain(|_| next()),
            Self::World(world) => world.images_mut().retain(|_| next()),
        }
    }

    fn source(&self) -> &dyn SampleSource {
        match self {
            Self::Files(dataset) => dataset,
            Self::World(world) => world,
        }
    }
}

impl SampleSource for OpenSet {
    fn name(&self) -> &str {
        self.source().name()
    }

    fn classes(&self) -> &ClassSet {
        self.source().classes()
    }

    fn len(&self) -> usize {
        self.source().len()
    }

    fn id(&self, index: usize) -> String {
        self.source().id(index)
    }

    fn load(&self, index: usize) -> Result<Sample, DataError> {
        self.source().load(index)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A mini world has its own classes, so others are refused instead of ignored.
    #[test]
    fn a_mini_world_is_opened_with_no_other_classes_than_its_own() {
        let usual = Selection {
            dataset: DATASET,
            root: Path::new(""),
            split: "test",
            classes: None,
            unseen: None,
        };
        assert!(OpenSet::open(&usual, None).is_ok());
        let refused = |selection: &Selection| match OpenSet::open(selection, None) {
            Err(DataError::WorldClasses { what, value, .. }) => (what, value),
            other => panic!("{other:?}"),
        };
        let other = Selection {
            classes: Some("voc20"),
            ..usual
        };
        assert_eq!(refused(&other), ("class list", "voc20".to_owned()));
        for unseen in ["none", "published", "no such class"] {
            let other = Selection {
                unseen: Some(unseen),
                ..usual
            };
            let expected = ("list of unseen classes", unseen.to_owned());
            assert_eq!(refused(&other), expected);
        }
    }
}
