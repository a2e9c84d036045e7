//! ADE20K scene parsing (SceneParse150): 150 classes, 20,210 training and 2,000 validation images.
//!
//! The folder holds `ADEChallengeData2016/{images, annotations}/{training, validation}`.
//!
//! `ADEChallengeData2016` is read as downloaded: label maps hold `1..=150` in the order of `objectInfo150.txt`, and 0
//! for unlabelled pixels, which are ignored. Preparation only checks the files and links or copies them.

use std::path::Path;
use std::sync::Arc;

use super::{ClassListEntry, DatasetEntry, OfficialSplit, Preparation, SplitPair};
use crate::listing::{Listing, Place, Scanned, find_root};
use crate::prepare::PrepareError;
use crate::prepare::find::{self, Tree};
use crate::prepare::labels::{Form, Rule};
use crate::prepare::plan::{Plan, Task};
use crate::{DataError, LabelRule};

const TITLE: &str = "ADE20K";

/// The entry of the data set.
pub(super) static ENTRY: DatasetEntry = DatasetEntry {
    name: "ade20k",
    title: TITLE,
    class_lists: &[ClassListEntry::new("ade20k-150", LabelRule::reduce_zero)],
    splits: &[
        OfficialSplit::new("train", 20_210, &["training"]),
        OfficialSplit::new("val", 2000, &["validation"]),
    ],
    held_out: &[SplitPair::new("train", "val")],
    border_in: None,
    list,
    preparation: Some(Preparation { title: TITLE, plan }),
};

const ROOTS: [&str; 4] = [
    "",
    "ADEChallengeData2016",
    "ade/ADEChallengeData2016",
    "ADEChallengeData2016/ADEChallengeData2016",
];

/// Lists the pairs of a split: `train`, `val`, or the path of a text file with one id per line.
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

/// Plans the conversion of a download: `ADEChallengeData2016/{images, annotations}/{training, validation}`.
fn plan(plan: &mut Plan, tree: &Tree) -> Result<(), PrepareError> {
    let is_root = |folder: &Path| {
        ["training", "validation"].iter().any(|split| {
            find::holds(&folder.join("images").join(split), &[".jpg"], "")
                && find::holds(&folder.join("annotations").join(split), &[".png"], "")
        })
    };
    let Some(root) = tree.all(is_root).next() else {
        return Err(plan.not_found(&[
            "images/{training,validation}/*.jpg with annotations/{training,validation}/*.png",
        ]));
    };
    plan.findings
        .push(format!("ADEChallengeData2016 at {}", root.display()));
    // 0 means unlabelled and stays 0, because the loaders ignore it.
    let pairs = (0..=150).map(|value| (value, value));
    let rule = Arc::new(Rule::new(TITLE, "0..=150", 151, pairs));
    for split in ["training", "validation"] {
        let (images, annotations) = (
            root.join("images").join(split),
            root.join("annotations").join(split),
        );
        if !images.is_dir() || !annotations.is_dir() {
            plan.note_missing(
                format!("split {split}"),
                &[
                    images.display().to_string(),
                    annotations.display().to_string(),
                ],
                "the split cannot be opened",
            );
            continue;
        }
        let image_files = find::files(&images, ".jpg")?;
        let masks = find::files(&annotations, ".png")?;
        let mut without = Vec::new();
        for (id, image) in &image_files {
            let Some(mask) = masks.get(id) else {
                without.push(format!("{id}.png"));
                continue;
            };
            plan.tasks.push(Task::place(
                Path::new("images").join(split).join(format!("{id}.jpg")),
                image,
            ));
            plan.tasks.push(Task::labels(
                Path::new("annotations")
                    .join(split)
                    .join(format!("{id}.png")),
                (mask, Form::Index),
                &rule,
                image,
            ));
        }
        plan.split(split, image_files.len() - without.len());
        plan.note_missing(
            format!("label maps of {split}"),
            &without,
            "their images are left out",
        );
    }
    let names = root.join("objectInfo150.txt");
    if names.is_file() {
        plan.tasks.push(Task::place("objectInfo150.txt", names));
    }
    Ok(())
}
