//! The benchmarks by name: what is known of each without looking at a disk.

use std::path::Path;

use crate::listing::Listing;
use crate::{
    DataError, LabelRule, ade20k, ade20k_full, cityscapes, coco_stuff, pascal_context, voc,
};

/// The names of the built-in data sets, which configurations use.
pub const DATASETS: [&str; 6] = [
    "voc12",
    "coco-stuff164k",
    "pascal-context",
    "ade20k",
    "ade20k-full",
    "cityscapes",
];

/// What is known of a built-in data set.
pub struct Benchmark {
    /// The name configurations use, such as `voc12`.
    pub name: &'static str,
    /// The name messages use, such as `VOC`.
    pub title: &'static str,
    /// Class lists its label files can be read with; the first is the default.
    pub class_lists: &'static [&'static str],
    /// The splits with their official numbers of pictures.
    pub splits: &'static [OfficialSplit],
    /// The folders it consists of, in words.
    pub layout: &'static str,
    /// Splits that must not share a picture: what is trained on, and what is scored.
    pub(crate) held_out: &'static [(&'static str, &'static str)],
    /// The folder of label maps in which nearly every object has a border of no class.
    pub(crate) border_in: Option<&'static str>,
    /// Lists the pairs of a split below a folder.
    pub(crate) list: fn(&Path, &str) -> Result<Listing, DataError>,
    /// How label files become the classes of one of the lists.
    pub(crate) rule: fn(&str) -> LabelRule,
}

/// A split as it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfficialSplit {
    /// Its name.
    pub name: &'static str,
    /// Number of pictures.
    pub pictures: usize,
    /// Other names that mean the same, such as the folder's.
    also: &'static [&'static str],
}

impl OfficialSplit {
    pub(crate) const fn new(
        name: &'static str,
        pictures: usize,
        also: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            pictures,
            also,
        }
    }
}

impl Benchmark {
    /// The official split of this name, under its own or its folder's name.
    pub fn official(&self, split: &str) -> Option<&'static OfficialSplit> {
        let named =
            |official: &&OfficialSplit| official.name == split || official.also.contains(&split);
        self.splits.iter().find(named)
    }
}

const BENCHMARKS: [&Benchmark; DATASETS.len()] = [
    &voc::BENCHMARK,
    &coco_stuff::BENCHMARK,
    &pascal_context::BENCHMARK,
    &ade20k::BENCHMARK,
    &ade20k_full::BENCHMARK,
    &cityscapes::BENCHMARK,
];

/// The benchmark of a name in [`DATASETS`].
pub fn benchmark(name: &str) -> Option<&'static Benchmark> {
    BENCHMARKS
        .into_iter()
        .find(|benchmark| benchmark.name == name)
}

#[cfg(test)]
mod tests {
    use zeg_vocab::classes::ClassSet;

    use super::*;

    #[test]
    fn every_name_has_its_benchmark_and_every_list_exists() {
        for name in DATASETS {
            let benchmark = benchmark(name).unwrap();
            assert!(!benchmark.class_lists.is_empty());
            for list in benchmark.class_lists {
                ClassSet::by_name(list).unwrap();
            }
            for (train, val) in benchmark.held_out {
                assert!(benchmark.official(train).is_some() && benchmark.official(val).is_some());
            }
        }
        assert!(benchmark("voc13").is_none());
    }

    #[test]
    fn folder_names_are_names_of_splits() {
        let pictures = |name: &str, split: &str| {
            let official = benchmark(name).unwrap().official(split);
            official.map(|official| official.pictures)
        };
        assert_eq!(pictures("ade20k", "validation"), Some(2000));
        assert_eq!(pictures("coco-stuff164k", "train2017"), Some(118_287));
        assert_eq!(pictures("voc12", "trainaug"), Some(10_582));
        assert_eq!(pictures("cityscapes", "test"), None);
    }
}
