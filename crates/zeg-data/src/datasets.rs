//! The data sets that are known by name: one entry each, in one table.
//!
//! An entry says everything about a data set but its class names (`zeg_vocab::classes`) and published results
//! (`zeg_eval::published`, by the entry's name): which folder layout it has, which class lists its label files can be read
//! with, its splits, how it is made from a download, and what the doctor expects. A new data set is a file beside these
//! and a line in [`all`]'s table; one that only its owner has is a `.toml` file instead ([`folder`](crate::folder)).

mod ade20k;
mod ade20k_full;
mod cityscapes;
mod coco_stuff164k;
mod pascal_context;
mod voc12;

use std::path::Path;

use crate::listing::Listing;
use crate::prepare::{Plan, PrepareError, find::Tree};
use crate::{DataError, LabelRule};

/// The table, in the order of lists and messages.
static TABLE: [&DatasetEntry; 6] = [
    &voc12::ENTRY,
    &coco_stuff164k::ENTRY,
    &pascal_context::ENTRY,
    &ade20k::ENTRY,
    &ade20k_full::ENTRY,
    &cityscapes::ENTRY,
];

/// Everything that is known of a data set without looking at a disk.
#[derive(Debug)]
pub struct DatasetEntry {
    /// The name configurations use, such as `voc12`.
    pub name: &'static str,
    /// The name messages use, such as `VOC`.
    pub title: &'static str,
    /// Class lists its label files can be read with; the first is the default.
    pub class_lists: &'static [ClassListEntry],
    /// The splits with their official numbers of images.
    pub splits: &'static [OfficialSplit],
    /// Splits that must not share an image; the first pair is the usual one.
    pub held_out: &'static [SplitPair],
    /// How it is made from its official download; `None` where it cannot be.
    pub preparation: Option<Preparation>,
    /// The folder of label maps in which nearly every object has a border of no class.
    border_in: Option<&'static str>,
    /// Lists the pairs of a split below a folder.
    list: fn(&Path, &str) -> Result<Listing, DataError>,
}

/// A class list that label files can be read with.
#[derive(Debug)]
pub struct ClassListEntry {
    /// Its name, as `ClassSet::by_name` takes it.
    pub name: &'static str,
    rule: fn() -> LabelRule,
}

/// A split as it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfficialSplit {
    /// Its name.
    pub name: &'static str,
    /// Number of images.
    pub images: usize,
    /// Other names that mean the same, such as the folder's.
    also: &'static [&'static str],
}

/// A split to train on and one to score on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitPair {
    /// What is trained on.
    pub train: &'static str,
    /// What is scored.
    pub val: &'static str,
}

/// How a data set is made from its official download.
#[derive(Debug)]
pub struct Preparation {
    /// The name of the download in messages.
    pub title: &'static str,
    /// Writes down what is to be done with a download.
    plan: fn(&mut Plan, &Tree) -> Result<(), PrepareError>,
}

/// Returns all entries.
pub fn all() -> impl Iterator<Item = &'static DatasetEntry> {
    TABLE.into_iter()
}

/// Returns the entry of a name.
pub fn find(name: &str) -> Option<&'static DatasetEntry> {
    all().find(|entry| entry.name == name)
}

/// Returns the names of the entries that `accept` takes, for messages.
pub(crate) fn names(accept: impl Fn(&DatasetEntry) -> bool) -> String {
    let names: Vec<&str> = all()
        .filter(|entry| accept(entry))
        .map(|entry| entry.name)
        .collect();
    names.join(", ")
}

impl DatasetEntry {
    /// Returns the official split of this name, under its own or its folder's name.
    pub fn official(&self, split: &str) -> Option<&'static OfficialSplit> {
        let named =
            |official: &&OfficialSplit| official.name == split || official.also.contains(&split);
        self.splits.iter().find(named)
    }

    /// Returns the splits that are trained on and scored unless others are asked for.
    pub fn usual_splits(&self) -> Option<SplitPair> {
        self.held_out.first().copied()
    }

    /// Lists the pairs of a split below a folder.
    pub(crate) fn list(&self, folder: &Path, split: &str) -> Result<Listing, DataError> {
        (self.list)(folder, split)
    }

    /// Returns the folder of label maps in which nearly every object has a border of no class.
    pub(crate) fn border_in(&self) -> Option<&'static str> {
        self.border_in
    }
}

impl ClassListEntry {
    const fn new(name: &'static str, rule: fn() -> LabelRule) -> Self {
        Self { name, rule }
    }

    /// Returns how label files become the classes of the list.
    pub(crate) fn rule(&self) -> LabelRule {
        (self.rule)()
    }
}

impl OfficialSplit {
    const fn new(name: &'static str, images: usize, also: &'static [&'static str]) -> Self {
        Self { name, images, also }
    }
}

impl SplitPair {
    const fn new(train: &'static str, val: &'static str) -> Self {
        Self { train, val }
    }
}

impl Preparation {
    /// Writes down what is to be done with a download.
    pub(crate) fn plan(&self, plan: &mut Plan, tree: &Tree) -> Result<(), PrepareError> {
        (self.plan)(plan, tree)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use zeg_vocab::classes::ClassSet;

    use super::*;

    #[test]
    fn every_entry_is_whole_and_its_names_lead_somewhere() {
        for entry in all() {
            assert!(std::ptr::eq(find(entry.name).unwrap(), entry));
            assert!(!entry.class_lists.is_empty(), "{}", entry.name);
            for list in entry.class_lists {
                ClassSet::by_name(list.name).unwrap();
            }
            assert!(entry.usual_splits().is_some(), "{}", entry.name);
            for SplitPair { train, val } in entry.held_out {
                assert_eq!(entry.official(train).unwrap().name, *train);
                assert_eq!(entry.official(val).unwrap().name, *val);
            }
            let names = entry.splits.iter().flat_map(|split| {
                let also = split.also.iter().copied();
                also.chain([split.name])
            });
            let names: Vec<&str> = names.collect();
            let different: BTreeSet<&str> = names.iter().copied().collect();
            assert_eq!(different.len(), names.len(), "{}", entry.name);
        }
        assert!(find("voc13").is_none());
        let names: BTreeSet<&str> = all().map(|entry| entry.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }

    #[test]
    fn folder_names_are_names_of_splits() {
        let images = |name: &str, split: &str| {
            let official = find(name).unwrap().official(split);
            official.map(|official| official.images)
        };
        assert_eq!(images("ade20k", "validation"), Some(2000));
        assert_eq!(images("coco-stuff164k", "train2017"), Some(118_287));
        assert_eq!(images("voc12", "trainaug"), Some(10_582));
        assert_eq!(images("cityscapes", "test"), None);
    }
}
