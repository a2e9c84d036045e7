//! Cityscapes: 19 classes, 2,975 training and 500 validation pictures with fine labels.
//!
//! The label maps are `*_gtFine_labelTrainIds.png`, with `0..=18` and 255, which the data set's own scripts write. The
//! `*_gtFine_labelIds.png` of the download hold 34 other numbers and are refused.

use std::path::Path;

use crate::benchmark::{Benchmark, OfficialSplit};
use crate::listing::{Listing, Place, Scanned, find_root};
use crate::pattern::Pattern;
use crate::{DataError, LabelRule};

const TITLE: &str = "Cityscapes";
const ROOTS: [&str; 2] = ["", "cityscapes"];
const RAW: &str = "_gtFine_labelIds.png";

/// What is known of the benchmark.
pub(crate) const BENCHMARK: Benchmark = Benchmark {
    name: "cityscapes",
    title: TITLE,
    class_lists: &["cityscapes19"],
    splits: &[
        OfficialSplit::new("train", 2975, &[]),
        OfficialSplit::new("val", 500, &[]),
    ],
    layout: "{leftImg8bit, gtFine}/{train, val}/<city>, label maps *_gtFine_labelTrainIds.png",
    held_out: &[("train", "val")],
    border_in: None,
    list,
    rule,
};

fn rule(_class_list: &str) -> LabelRule {
    LabelRule::identity()
}

/// The pairs of a split: `train`, `val`, or the path of a text file with `<city>/<name>` a line.
fn list(given: &Path, split: &str) -> Result<Listing, DataError> {
    let root = find_root(TITLE, given, &ROOTS, &["leftImg8bit", "gtFine"])?;
    let place = |split: &str| {
        let images = format!("leftImg8bit/{split}/**/{{id}}_leftImg8bit.png");
        let labels = format!("gtFine/{split}/**/{{id}}_gtFine_labelTrainIds.png");
        Place::new(&images, &[&labels]).unwrap_or_default()
    };
    let scanned = Scanned {
        title: TITLE,
        root,
        parts: vec![(&["train"], place("train")), (&["val"], place("val"))],
    };
    let mut listing = scanned.list(split)?;
    let raw = unconverted(&listing);
    listing.defects.extend(raw);
    for item in &mut listing.items {
        // The city stands in the name too.
        if let Some((_, name)) = item.id.rsplit_once('/') {
            item.id = name.to_owned();
        }
    }
    Ok(listing)
}

/// Says so where the first label map that is missing lies there unconverted.
fn unconverted(listing: &Listing) -> Option<DataError> {
    let missing = listing.items.iter().find(|item| !item.labels.is_file())?;
    let pattern = Pattern::parse(&format!("{{id}}{RAW}")).ok()?;
    let folder = missing.labels.parent()?;
    let id = missing.id.rsplit('/').next()?;
    let raw = pattern.file(folder, id);
    raw.is_file().then(|| DataError::UnconvertedLabels {
        dataset: TITLE.to_owned(),
        wanted: missing.labels.clone(),
        found: raw,
    })
}
