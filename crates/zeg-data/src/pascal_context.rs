//! PASCAL Context: 60 classes with the background, 4,998 training and 5,105 validation pictures of VOC 2010.
//!
//! The label maps are those of mmsegmentation's converter, indices `0..=59` in the order of `pascal-context60`, where 0
//! is what no other class covers. `pascal-context59` ignores it and counts the rest from 0.

use std::path::Path;

use crate::benchmark::{Benchmark, OfficialSplit};
use crate::listing::{Listed, Listing, Place, find_root};
use crate::{DataError, LabelRule};

const TITLE: &str = "PASCAL Context";
const LISTS: &str = "ImageSets/SegmentationContext";
const ROOTS: [&str; 3] = ["", "VOC2010", "VOCdevkit/VOC2010"];

/// What is known of the benchmark.
pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "pascal-context",
    title: TITLE,
    class_lists: &["pascal-context60", "pascal-context59"],
    splits: &[
        OfficialSplit::new("train", 4998, &[]),
        OfficialSplit::new("val", 5105, &[]),
    ],
    layout: "VOC2010/{JPEGImages, SegmentationClassContext, ImageSets/SegmentationContext}",
    held_out: &[("train", "val")],
    border_in: None,
    list,
    rule,
};

fn rule(class_list: &str) -> LabelRule {
    match class_list {
        "pascal-context59" => LabelRule::reduce_zero(),
        _ => LabelRule::identity(),
    }
}

/// The pairs of a split: a list in `ImageSets/SegmentationContext`, or any text file with one id a line.
fn list(given: &Path, split: &str) -> Result<Listing, DataError> {
    let root = find_root(TITLE, given, &ROOTS, &[LISTS])?;
    let place = Place::new(
        "JPEGImages/{id}.jpg",
        &["SegmentationClassContext/{id}.png"],
    );
    let listed = Listed {
        title: TITLE,
        root,
        lists: LISTS,
        place: place.unwrap_or_default(),
    };
    listed.list(split)
}
