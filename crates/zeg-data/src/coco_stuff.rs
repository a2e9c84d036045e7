//! COCO-Stuff 164k: 171 classes, 118,287 training and 5,000 validation pictures.
//!
//! The raw label maps use 182 ids with gaps; mmsegmentation's converter writes `*_labelTrainIds.png` with
//! `0..=170` and 255, and those are what this module reads.

use std::ffi::OsStr;
use std::path::Path;

use crate::benchmark::{Benchmark, OfficialSplit};
use crate::listing::{Listing, Place, Scanned, find_root};
use crate::pattern::entries;
use crate::{DataError, LabelRule};

const TITLE: &str = "COCO-Stuff";
const SUFFIX: &str = "_labelTrainIds.png";
const ROOTS: [&str; 4] = ["", "coco_stuff164k", "coco-stuff164k", "coco"];

/// What is known of the benchmark.
pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "coco-stuff164k",
    title: TITLE,
    class_lists: &["coco-stuff171"],
    splits: &[
        OfficialSplit::new("train", 118_287, &["train2017"]),
        OfficialSplit::new("val", 5000, &["val2017"]),
    ],
    layout: "{images, annotations}/{train2017, val2017}, label maps *_labelTrainIds.png",
    held_out: &[("train", "val")],
    border_in: None,
    list,
    rule,
};

fn rule(_class_list: &str) -> LabelRule {
    LabelRule::identity()
}

/// The pairs of a split.
///
/// - `given`: the folder that holds `images` and `annotations`, or the one that holds it
/// - `split`: `train`, `val`, or the path of a text file with one id a line
///
/// The samples are the pictures of `images/<split>2017`, sorted by name; the label map of `a.jpg` is
/// `annotations/<split>2017/a_labelTrainIds.png`. A folder of unconverted label maps is a defect.
fn list(given: &Path, split: &str) -> Result<Listing, DataError> {
    let root = find_root(TITLE, given, &ROOTS, &["images", "annotations"])?;
    let place = |folder: &str| {
        let images = format!("images/{folder}/{{id}}.jpg");
        let labels = format!("annotations/{folder}/{{id}}{SUFFIX}");
        Place::new(&images, &[&labels]).unwrap_or_default()
    };
    let scanned = Scanned {
        title: TITLE,
        root,
        parts: vec![
            (&["train", "train2017"], place("train2017")),
            (&["val", "val2017"], place("val2017")),
        ],
    };
    let mut listing = scanned.list(split)?;
    for place in &listing.places {
        for labels in &place.labels {
            let raw = raw_labels(&labels.folder(&listing.root));
            listing.defects.extend(raw);
        }
    }
    Ok(listing)
}

/// Says so where PNG files lie in a folder, but none of them converted.
fn raw_labels(folder: &Path) -> Option<DataError> {
    let mut raw = None;
    for path in entries(folder).unwrap_or_default() {
        let name = path.file_name().map(OsStr::to_string_lossy);
        match name {
            Some(name) if name.ends_with(SUFFIX) => return None,
            Some(name) if name.ends_with(".png") => raw = Some(name.into_owned()),
            _ => {}
        }
    }
    raw.map(|example| DataError::RawCocoLabels {
        folder: folder.to_owned(),
        example,
    })
}
