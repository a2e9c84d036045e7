//! PASCAL VOC 2012: 20 classes, 1,464 training and 1,449 validation pictures.
//!
//! Published zero-shot results train on 10,582 pictures: `train` and the label maps of the Semantic Boundaries
//! data set (SBD, Hariharan et al. 2011), which usually lie in `SegmentationClassAug` and are listed in
//! `aug.txt`. The background, value 0 in the files, has no name to be described with: in `voc20` it is ignored in
//! training and in scores. `voc21` makes it a class of its own, as ZS3Net and the closed-set benchmark do.

use std::collections::HashSet;
use std::path::Path;

use crate::benchmark::{Benchmark, OfficialSplit};
use crate::listing::{Listed, Listing, Place, find_root};
use crate::split::{IdForm, read_split};
use crate::{DataError, LabelRule};

const TITLE: &str = "VOC";
const LISTS: &str = "ImageSets/Segmentation";
const ROOTS: [&str; 3] = ["", "VOC2012", "VOCdevkit/VOC2012"];

/// What is known of the benchmark.
pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "voc12",
    title: TITLE,
    class_lists: &["voc20", "voc21"],
    splits: &[
        OfficialSplit::new("train", 1464, &[]),
        OfficialSplit::new("aug", 9118, &[]),
        OfficialSplit::new("train_aug", 10582, &["trainaug"]),
        OfficialSplit::new("trainval", 2913, &[]),
        OfficialSplit::new("val", 1449, &[]),
    ],
    layout: "VOC2012/{JPEGImages, SegmentationClass, SegmentationClassAug, ImageSets/Segmentation}",
    held_out: &[("train", "val"), ("aug", "val"), ("train_aug", "val")],
    border_in: Some("SegmentationClass"),
    list,
    rule,
};

fn rule(class_list: &str) -> LabelRule {
    match class_list {
        "voc21" => LabelRule::identity(),
        _ => LabelRule::reduce_zero(),
    }
}

/// The pairs of a split.
///
/// - `given`: `VOCdevkit/VOC2012` itself, `VOCdevkit`, or the folder that holds it
/// - `split`: the name of a list in `ImageSets/Segmentation` (`train`, `val`, …), `train_aug` for `train` and
///   `aug` together, or the path of any text file with one id a line
///
/// Label maps come from `SegmentationClass`; pictures that have none there take theirs from `SegmentationClassAug`.
fn list(given: &Path, split: &str) -> Result<Listing, DataError> {
    let root = find_root(TITLE, given, &ROOTS, &[LISTS])?;
    let place = Place::new(
        "JPEGImages/{id}.jpg",
        &[
            "SegmentationClass/{id}.png",
            "SegmentationClassAug/{id}.png",
        ],
    );
    let listed = Listed {
        title: TITLE,
        root,
        lists: LISTS,
        place: place.unwrap_or_default(),
    };
    let joined = BENCHMARK
        .official(split)
        .is_some_and(|official| official.name == "train_aug");
    let (train, aug) = (listed.file("train"), listed.file("aug"));
    if joined && !listed.file(split).is_file() && train.is_file() && aug.is_file() {
        let mut found = read_split(&train, IdForm::Name)?;
        // Some copies of aug.txt repeat pictures of train.txt; the union counts each once.
        let known: HashSet<String> = found.ids.iter().cloned().collect();
        let more = read_split(&aug, IdForm::Name)?;
        found
            .ids
            .extend(more.ids.into_iter().filter(|id| !known.contains(id)));
        found.repeated.extend(more.repeated);
        return Ok(listed.of(found.ids, found.repeated));
    }
    listed.list(split)
}
