//! ADE20K scene parsing (SceneParse150): 150 classes, 20,210 training and 2,000 validation pictures.
//!
//! `ADEChallengeData2016` as it is downloaded: label maps hold `1..=150` in the order of `objectInfo150.txt`, and 0
//! where nothing was labelled, which is no class.

use std::path::Path;

use crate::benchmark::{Benchmark, OfficialSplit};
use crate::listing::{Listing, Place, Scanned, find_root};
use crate::{DataError, LabelRule};

const TITLE: &str = "ADE20K";
const ROOTS: [&str; 4] = [
    "",
    "ADEChallengeData2016",
    "ade/ADEChallengeData2016",
    "ADEChallengeData2016/ADEChallengeData2016",
];

/// What is known of the benchmark.
pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "ade20k",
    title: TITLE,
    class_lists: &["ade20k-150"],
    splits: &[
        OfficialSplit::new("train", 20_210, &["training"]),
        OfficialSplit::new("val", 2000, &["validation"]),
    ],
    layout: "ADEChallengeData2016/{images, annotations}/{training, validation}",
    held_out: &[("train", "val")],
    border_in: None,
    list,
    rule,
};

fn rule(_class_list: &str) -> LabelRule {
    LabelRule::reduce_zero()
}

/// The pairs of a split: `train`, `val`, or the path of a text file with one id a line.
fn list(given: &Path, split: &str) -> Result<Listing, DataError> {
    let root = find_root(TITLE, given, &ROOTS, &["images", "annotations"])?;
    let place = |folder: &str| {
        let images = format!("images/{folder}/{{id}}.jpg");
        let labels = format!("annotations/{folder}/{{id}}.png");
        Place::new(&images, &[&labels]).unwrap_or_default()
    };
    let scanned = Scanned {
        title: TITLE,
        root,
        parts: vec![
            (&["train", "training"], place("training")),
            (&["val", "validation"], place("validation")),
        ],
    };
    scanned.list(split)
}
