//! ADE20K with all 847 classes that MaskFormer and ZegFormer use: 25,574 training and 2,000 validation pictures.
//!
//! The layout is that of MaskFormer's preparation of `ADE20K_2021_17_01`: pictures in `images_detectron2`, label maps of
//! 16 bits in `annotations_detectron2`, TIFF or PNG, with the class index or 65535 for no class. 255 is a class here.

use std::path::Path;

use crate::benchmark::{Benchmark, OfficialSplit};
use crate::labels::IGNORE_16_BIT;
use crate::listing::{Listing, Place, Scanned, find_root};
use crate::{DataError, LabelKind, LabelRule};

const TITLE: &str = "ADE20K-Full";
const ROOTS: [&str; 2] = ["", "ADE20K_2021_17_01"];

/// What is known of the benchmark.
pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "ade20k-full",
    title: TITLE,
    class_lists: &["ade20k-full847"],
    splits: &[
        OfficialSplit::new("train", 25_574, &["training"]),
        OfficialSplit::new("val", 2000, &["validation"]),
    ],
    layout: "ADE20K_2021_17_01/{images_detectron2, annotations_detectron2}/{training, validation}",
    held_out: &[("train", "val")],
    border_in: None,
    list,
    rule,
};

fn rule(_class_list: &str) -> LabelRule {
    LabelRule {
        kind: LabelKind::Identity,
        ignore: vec![IGNORE_16_BIT],
    }
}

/// The pairs of a split: `train`, `val`, or the path of a text file with one id a line.
fn list(given: &Path, split: &str) -> Result<Listing, DataError> {
    let markers = ["images_detectron2", "annotations_detectron2"];
    let root = find_root(TITLE, given, &ROOTS, &markers)?;
    let place = |folder: &str| {
        let images = format!("images_detectron2/{folder}/{{id}}.jpg");
        let labels = format!("annotations_detectron2/{folder}/{{id}}.{{png,tif}}");
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
