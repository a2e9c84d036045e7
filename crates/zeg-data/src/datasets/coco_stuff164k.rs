//! COCO-Stuff 164k: 171 classes, 118,287 training and 5,000 validation images.
//!
//! The folder holds `{images, annotations}/{train2017, val2017}`, with label maps `*_labelTrainIds.png`.
//!
//! The label maps of `stuffthingmaps_trainval2017.zip` hold 255 and ids from 0 to 181, of which 11 (all things) were
//! never annotated. The remaining 171, in the order of their ids, are the classes of mmsegmentation and so of the
//! published zero-shot splits. mmsegmentation's converter writes them as `*_labelTrainIds.png` with `0..=170` and 255;
//! preparation does the same, and training and evaluation read those files only.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_base::plural::counted;
use zeg_image::IGNORE_LABEL;

use super::{ClassListEntry, DatasetEntry, OfficialSplit, Preparation, SplitPair};
use crate::listing::{Listing, Place, Scanned, find_root};
use crate::pattern::entries;
use crate::prepare::PrepareError;
use crate::prepare::find::{self, Tree};
use crate::prepare::labels::{Form, IGNORE_BYTE, Rule};
use crate::prepare::plan::{Plan, Task};
use crate::{DataError, LabelRule};

const TITLE: &str = "COCO-Stuff";
const DOWNLOAD: &str = "COCO-Stuff 164k";

/// The entry of the data set.
pub(super) static ENTRY: DatasetEntry = DatasetEntry {
    name: "coco-stuff164k",
    title: TITLE,
    class_lists: &[ClassListEntry::new("coco-stuff171", LabelRule::identity)],
    splits: &[
        OfficialSplit::new("train", 118_287, &["train2017"]),
        OfficialSplit::new("val", 5000, &["val2017"]),
    ],
    held_out: &[SplitPair::new("train", "val")],
    border_in: None,
    list,
    preparation: Some(Preparation {
        title: DOWNLOAD,
        plan,
    }),
};

const SUFFIX: &str = "_labelTrainIds.png";
const ROOTS: [&str; 4] = ["", "coco_stuff164k", "coco-stuff164k", "coco"];

/// Lists the pairs of a split.
///
/// - `given`: the folder that holds `images` and `annotations`, or its parent folder
/// - `split`: `train`, `val`, or the path of a text file with one id per line
///
/// The samples are the images of `images/<split>2017`, sorted by name; the label map of `a.jpg` is
/// `annotations/<split>2017/a_labelTrainIds.png`. A folder of unconverted label maps is listed as a defect.
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

/// Returns an error if a folder holds PNG files but no converted one.
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

/// Largest raw id.
const LAST_ID: u16 = 181;
/// Raw ids of the things that COCO names but never annotated (street sign, hat, shoe, eye glasses, plate, mirror,
/// window, desk, door, blender, hair brush). Source: the list of labels in the COCO-Stuff repository.
const UNUSED_IDS: [u16; 11] = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90];

/// Returns pairs of a raw id and its class index, in class order.
fn train_ids() -> impl Iterator<Item = (u16, u16)> {
    (0..=LAST_ID).filter(|id| !UNUSED_IDS.contains(id)).zip(0..)
}

/// Plans the conversion of a download: folders `train2017` and `val2017` with images, and folders of the same names
/// with the label maps of `stuffthingmaps_trainval2017.zip`.
fn plan(plan: &mut Plan, tree: &Tree) -> Result<(), PrepareError> {
    let pairs = train_ids().chain([(IGNORE_BYTE, IGNORE_LABEL)]);
    let raw_rule = Arc::new(Rule::new(
        DOWNLOAD,
        "raw ids 0..=181 without the 11 unused ones, and 255",
        171,
        pairs,
    ));
    let done_rule = Arc::new(Rule::identity(DOWNLOAD, "train ids 0..=170 and 255", 170));
    for split in ["train", "val"] {
        let name = format!("{split}2017");
        let with = |endings: &'static [&'static str], but: &'static str| {
            tree.named(&name)
                .find(|folder| find::holds(folder, endings, but))
                .map(Path::to_owned)
        };
        let images = with(&[".jpg"], "");
        let raw = with(&[".png"], SUFFIX);
        // Label maps that are already converted are checked and linked or copied.
        let done = with(&[SUFFIX], "");
        let (masks, form): (BTreeMap<String, PathBuf>, _) = match (&raw, &done) {
            (Some(folder), _) => {
                let files = find::files(folder, ".png")?;
                let raw = files
                    .into_iter()
                    .filter(|(id, _)| !id.ends_with("_labelTrainIds"));
                (raw.collect(), Some(("raw ids", folder, &raw_rule)))
            }
            (None, Some(folder)) => (
                find::files(folder, SUFFIX)?,
                Some(("train ids", folder, &done_rule)),
            ),
            (None, None) => (BTreeMap::new(), None),
        };
        let Some((ids, folder, rule)) = form else {
            plan.note_missing(
                format!("label maps of {split}"),
                &[format!("{name}/*.png (stuffthingmaps_trainval2017.zip)")],
                "the split cannot be opened",
            );
            continue;
        };
        plan.findings.push(format!(
            "{} of {split} at {}: {ids}",
            counted(masks.len(), "label map"),
            folder.display()
        ));
        let Some(images) = images else {
            plan.note_missing(
                format!("images of {split}"),
                &[format!("{name}/*.jpg ({name}.zip)")],
                "the split cannot be opened",
            );
            continue;
        };
        let image_files = find::files(&images, ".jpg")?;
        plan.findings.push(format!(
            "{} of {split} at {}",
            counted(image_files.len(), "image"),
            images.display()
        ));
        let mut without = Vec::new();
        let mut count = 0;
        for (id, image) in &image_files {
            let Some(mask) = masks.get(id) else {
                without.push(format!("{id}.png"));
                continue;
            };
            count += 1;
            plan.tasks.push(Task::place(
                Path::new("images").join(&name).join(format!("{id}.jpg")),
                image,
            ));
            plan.tasks.push(Task::labels(
                Path::new("annotations")
                    .join(&name)
                    .join(format!("{id}{SUFFIX}")),
                (mask, Form::Index),
                rule,
                image,
            ));
        }
        plan.note_missing(
            format!("label maps of {split} images"),
            &without,
            "their images are left out",
        );
        let alone: Vec<String> = masks
            .keys()
            .filter(|id| !image_files.contains_key(*id))
            .map(|id| format!("{id}.jpg"))
            .collect();
        plan.note_missing(
            format!("images of {split} label maps"),
            &alone,
            "their label maps are left out",
        );
        plan.split(split, count);
    }
    if plan.tasks.is_empty() {
        return Err(plan.not_found(&[
            "train2017/*.jpg or val2017/*.jpg",
            "train2017/*.png or val2017/*.png",
        ]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_171_classes_in_the_order_of_their_ids() {
        let ids: Vec<(u16, u16)> = train_ids().collect();
        assert_eq!(ids.len(), 171);
        assert_eq!(ids.first(), Some(&(0, 0)));
        assert!(ids.contains(&(12, 11)) && ids.contains(&(10, 10))); // stop sign after fire hydrant
        assert_eq!(ids.last(), Some(&(181, 170))); // wood
    }
}
