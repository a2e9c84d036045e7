//! Table of the data sets that are known by name, one entry each.
//!
//! An entry holds everything about a data set except its class names (`zeg_vocab::classes`) and published results
//! (`zeg_eval::published`, by the entry's name): its folder layout, the class lists its label files can be read with,
//! its splits, how it is made from a download, and what the doctor expects. To add a data set, add a file beside these
//! and a line in the table. A private data set is described by a `.toml` file instead ([`folder`](crate::folder)).

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

/// All entries, in the order of lists and messages.
static TABLE: [&DatasetEntry; 6] = [
    &voc12::ENTRY,
    &coco_stuff164k::ENTRY,
    &pascal_context::ENTRY,
    &ade20k::ENTRY,
    &ade20k_full::ENTRY,
    &cityscapes::ENTRY,
];

/// A known data set: everything about it that does not depend on the files on disk.
#[derive(Debug)]
pub struct DatasetEntry {
    /// The name in configurations, such as `voc12`.
    pub name: &'static str,
    /// The name in messages, such as `VOC`.
    pub title: &'static str,
    /// Class lists its label files can be read with; the first is the default.
    pub class_lists: &'static [ClassListEntry],
    /// The splits with their official numbers of images.
    pub splits: &'static [OfficialSplit],
    /// Pairs of splits that must not share an image; the first pair is the default for training and validation.
    pub held_out: &'static [SplitPair],
    /// The conversion of its official download; `None` if there is none.
    pub preparation: Option<Preparation>,
    /// The folder of label maps in which nearly every object has a border of ignored pixels.
    border_in: Option<&'static str>,
    /// Lists the pairs of a split below a folder.
    list: fn(&Path, &str) -> Result<Listing, DataError>,
}

/// A class list that label files can be read with.
#[derive(Debug)]
pub struct ClassListEntry {
    /// Its name, a name that `ClassSet::by_name` accepts.
    pub name: &'static str,
    /// Returns the rule that converts label values to classes of the list.
    rule: fn() -> LabelRule,
}

/// An officially published split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfficialSplit {
    /// Its name.
    pub name: &'static str,
    /// Number of images.
    pub images: usize,
    /// Other names of the split, such as the name of its folder.
    also: &'static [&'static str],
}

/// A training split and a validation split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitPair {
    /// Name of the training split.
    pub train: &'static str,
    /// Name of the validation split.
    pub val: &'static str,
}

/// The conversion of a data set's official download.
#[derive(Debug)]
pub struct Preparation {
    /// The name of the download in messages.
    pub title: &'static str,
    /// Adds the tasks for a download to a plan.
    plan: fn(&mut Plan, &Tree) -> Result<(), PrepareError>,
}

/// Returns all entries.
pub fn all() -> impl Iterator<Item = &'static DatasetEntry> {
    TABLE.into_iter()
}

/// Returns the entry with this name.
pub fn find(name: &str) -> Option<&'static DatasetEntry> {
    all().find(|entry| entry.name == name)
}

/// Returns the names of the entries that `accept` accepts, separated by commas, for messages.
pub(crate) fn names(accept: impl Fn(&DatasetEntry) -> bool) -> String {
    let names: Vec<&str> = all()
        .filter(|entry| accept(entry))
        .map(|entry| entry.name)
        .collect();
    names.join(", ")
}

impl DatasetEntry {
    /// Returns the official split with this name or alternative name, such as its folder's.
    pub fn official(&self, split: &str) -> Option<&'static OfficialSplit> {
        let named =
            |official: &&OfficialSplit| official.name == split || official.also.contains(&split);
        self.splits.iter().find(named)
    }

    /// Returns the default splits for training and validation.
    pub fn usual_splits(&self) -> Option<SplitPair> {
        self.held_out.first().copied()
    }

    /// Lists the pairs of a split below a folder.
    ///
    /// # Errors
    /// Returns an error if the folder does not hold the data set or has no such split, or if a list cannot be read.
    pub(crate) fn list(&self, folder: &Path, split: &str) -> Result<Listing, DataError> {
        (self.list)(folder, split)
    }

    /// Returns the folder of label maps in which nearly every object has a border of ignored pixels.
    pub(crate) fn border_in(&self) -> Option<&'static str> {
        self.border_in
    }
}

impl ClassListEntry {
    const fn new(name: &'static str, rule: fn() -> LabelRule) -> Self {
        Self { name, rule }
    }

    /// Returns the rule that converts label values to classes of the list.
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
    /// Adds the tasks for a download to a plan.
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
    fn every_entry_is_complete_and_its_names_are_known_and_distinct() {
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
    fn splits_are_found_by_their_folder_names() {
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
