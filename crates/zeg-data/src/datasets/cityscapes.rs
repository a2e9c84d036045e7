//! Cityscapes: 19 classes, 2,975 training and 500 validation images with fine labels.
//!
//! The folder holds `{leftImg8bit, gtFine}/{train, val}/<city>`.
//!
//! The label maps are `*_gtFine_labelTrainIds.png`, with `0..=18` and 255. The archive of fine annotations holds only
//! `*_gtFine_labelIds.png`, with 34 other ids, which cannot be loaded; the data set's own scripts convert them, and
//! preparation does the same. Files that are already converted are checked and linked or copied.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_image::IGNORE_LABEL;

use super::{ClassListEntry, DatasetEntry, OfficialSplit, Preparation, SplitPair};
use crate::listing::{Listing, Place, Scanned, find_root};
use crate::pattern::Pattern;
use crate::prepare::PrepareError;
use crate::prepare::find::{self, Tree};
use crate::prepare::labels::{Form, IGNORE_BYTE, Rule};
use crate::prepare::plan::{Plan, Task};
use crate::{DataError, LabelRule};

const TITLE: &str = "Cityscapes";

/// The entry of the data set.
pub(super) static ENTRY: DatasetEntry = DatasetEntry {
    name: "cityscapes",
    title: TITLE,
    class_lists: &[ClassListEntry::new("cityscapes19", LabelRule::identity)],
    splits: &[
        OfficialSplit::new("train", 2975, &[]),
        OfficialSplit::new("val", 500, &[]),
    ],
    held_out: &[SplitPair::new("train", "val")],
    border_in: None,
    list,
    preparation: Some(Preparation { title: TITLE, plan }),
};

const ROOTS: [&str; 2] = ["", "cityscapes"];

/// Lists the pairs of a split: `train`, `val`, or the path of a text file with one `<city>/<name>` per line.
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
        // The name contains the city, so the folder is dropped from the id.
        if let Some((_, name)) = item.id.rsplit_once('/') {
            item.id = name.to_owned();
        }
    }
    Ok(listing)
}

/// Returns an error if the first missing label map exists in unconverted form.
fn unconverted(listing: &Listing) -> Option<DataError> {
    let missing = listing.items.iter().find(|item| !item.labels.is_file())?;
    let pattern = Pattern::parse(&format!("{{id}}{IDS}")).ok()?;
    let folder = missing.labels.parent()?;
    let id = missing.id.rsplit('/').next()?;
    let raw = pattern.file(folder, id);
    raw.is_file().then(|| DataError::UnconvertedLabels {
        dataset: TITLE.to_owned(),
        wanted: missing.labels.clone(),
        found: raw,
    })
}

/// The label ids of the 19 classes in class order, road to bicycle. Source: `labels.py` of the official scripts.
const CLASS_IDS: [u16; 19] = [
    7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
];
const LAST_ID: u16 = 33;
const IMAGE: &str = "_leftImg8bit.png";
const IDS: &str = "_gtFine_labelIds.png";
const TRAIN_IDS: &str = "_gtFine_labelTrainIds.png";

/// Plans the conversion of a download: `{leftImg8bit, gtFine}/{train, val}`.
fn plan(plan: &mut Plan, tree: &Tree) -> Result<(), PrepareError> {
    let has_split = |folder: &Path| folder.join("train").is_dir() || folder.join("val").is_dir();
    let find = |name| tree.named(name).find(|folder| has_split(folder));
    let (Some(images), Some(labels)) = (find("leftImg8bit"), find("gtFine")) else {
        return Err(plan.not_found(&["leftImg8bit/{train,val}", "gtFine/{train,val}"]));
    };
    plan.findings
        .push(format!("images at {}", images.display()));
    plan.findings
        .push(format!("label maps at {}", labels.display()));
    let pairs = CLASS_IDS.into_iter().zip(0..);
    let ids_rule = Arc::new(
        Rule::new(
            TITLE,
            "label ids 0..=33 and 255",
            19,
            pairs.chain([(IGNORE_BYTE, IGNORE_LABEL)]),
        )
        .with_others_up_to(LAST_ID, IGNORE_LABEL),
    );
    let done_rule = Arc::new(Rule::identity(TITLE, "train ids 0..=18 and 255", 18));
    for split in ["train", "val"] {
        let image_files = files_of_cities(&images.join(split), IMAGE)?;
        let ids = files_of_cities(&labels.join(split), IDS)?;
        let done = files_of_cities(&labels.join(split), TRAIN_IDS)?;
        let mut without = Vec::new();
        for (id, image) in &image_files {
            let (mask, rule) = match (ids.get(id), done.get(id)) {
                (Some(mask), _) => (mask, &ids_rule),
                (None, Some(mask)) => (mask, &done_rule),
                (None, None) => {
                    without.push(format!("{id}{IDS}"));
                    continue;
                }
            };
            plan.tasks.push(Task::place(
                Path::new("leftImg8bit")
                    .join(split)
                    .join(format!("{id}{IMAGE}")),
                image,
            ));
            plan.tasks.push(Task::labels(
                Path::new("gtFine")
                    .join(split)
                    .join(format!("{id}{TRAIN_IDS}")),
                (mask, Form::Index),
                rule,
                image,
            ));
        }
        plan.split(split, image_files.len() - without.len());
        plan.note_missing(
            format!("label maps of {split}"),
            &without,
            "their images are left out",
        );
        let alone: Vec<String> = ids
            .keys()
            .filter(|id| !image_files.contains_key(*id))
            .map(|id| format!("{id}{IMAGE}"))
            .collect();
        plan.note_missing(
            format!("images of {split}"),
            &alone,
            "their label maps are left out",
        );
    }
    Ok(())
}

/// Returns the files of all cities of a split, by `<city>/<name>` without the ending.
fn files_of_cities(split: &Path, ending: &str) -> Result<BTreeMap<String, PathBuf>, PrepareError> {
    let mut all = BTreeMap::new();
    if !split.is_dir() {
        return Ok(all);
    }
    let unreadable = |source| PrepareError::unreadable(split, source);
    for entry in fs::read_dir(split).map_err(unreadable)? {
        let city = entry.map_err(unreadable)?.path();
        let Some(name) = city.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !city.is_dir() || name.starts_with('.') {
            continue;
        }
        let files = find::files(&city, ending)?;
        all.extend(
            files
                .into_iter()
                .map(|(id, path)| (format!("{name}/{id}"), path)),
        );
    }
    Ok(all)
}
