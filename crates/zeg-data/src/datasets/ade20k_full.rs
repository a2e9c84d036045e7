//! ADE20K with all 847 classes that MaskFormer and ZegFormer use: 25,574 training and 2,000 validation images.
//!
//! The folder holds `ADE20K_2021_17_01/{images_detectron2, annotations_detectron2}/{training, validation}`.
//!
//! The layout is that of MaskFormer's preparation of `ADE20K_2021_17_01`: images in `images_detectron2`, label maps of
//! 16 bits in `annotations_detectron2`, TIFF or PNG, with the class index or 65535 for ignored pixels. 255 is a class
//! here.
//!
//! Preparation reads the classes from the colours of `*_seg.png`. Red and green of a colour encode the index of an
//! object name in the data set's own list of 3,688; MaskFormer (Cheng et al. 2021) chose the 847 that occur in both
//! splits, ordered by how much of the images they cover, and ZegFormer adopted them. Pixels of all other objects, and
//! pixels of no object, become 65535. Label maps are written as 16-bit grey PNGs, where MaskFormer writes TIFFs. Images
//! larger than [`PrepareOptions::shrink`](crate::prepare::PrepareOptions::shrink) are made smaller as in MaskFormer;
//! unlike in MaskFormer, the others are not compressed a second time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_image::IGNORE_LABEL;

use super::{ClassListEntry, DatasetEntry, OfficialSplit, Preparation, SplitPair};
use crate::labels::IGNORE_16_BIT;
use crate::listing::{Listing, Place, Scanned, find_root};
use crate::prepare::PrepareError;
use crate::prepare::find::Tree;
use crate::prepare::labels::{Form, Rule};
use crate::prepare::plan::{LabelSize, Plan, Task, Work};
use crate::{DataError, LabelKind, LabelRule};

const TITLE: &str = "ADE20K-Full";

/// The entry of the data set.
pub(super) static ENTRY: DatasetEntry = DatasetEntry {
    name: "ade20k-full",
    title: TITLE,
    class_lists: &[ClassListEntry::new("ade20k-full847", label_rule)],
    splits: &[
        OfficialSplit::new("train", 25_574, &["training"]),
        OfficialSplit::new("val", 2000, &["validation"]),
    ],
    held_out: &[SplitPair::new("train", "val")],
    border_in: None,
    list,
    preparation: Some(Preparation { title: TITLE, plan }),
};

const ROOTS: [&str; 2] = ["", "ADE20K_2021_17_01"];

/// Returns the rule for 16-bit label maps: only 65535 is ignored, because 255 is a class.
fn label_rule() -> LabelRule {
    LabelRule {
        kind: LabelKind::Identity,
        ignore: vec![IGNORE_16_BIT],
    }
}

/// Lists the pairs of a split: `train`, `val`, or the path of a text file with one id per line.
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

/// One line per class: object index, train id, names. Source: `datasets/prepare_ade20k_full_sem_seg.py` of MaskFormer.
const IDS: &str = include_str!("../../assets/ade20k_full_ids.txt");
const SEGMENTS: &str = "_seg.png";
/// Largest depth of images below a split; the data set has them in `<group>/<scene>` or one level deeper.
const DEPTH: usize = 6;

/// Returns pairs of an object index and its class index.
fn train_ids() -> impl Iterator<Item = (u16, u16)> {
    IDS.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    })
}

/// Plans the conversion of a download: `ADE20K_2021_17_01/images/ADE/{training, validation}`.
fn plan(plan: &mut Plan, tree: &Tree) -> Result<(), PrepareError> {
    let has_split = |folder: &Path| {
        ["training", "validation"]
            .iter()
            .any(|split| folder.join("images/ADE").join(split).is_dir())
    };
    let Some(root) = tree.all(has_split).next() else {
        return Err(plan.not_found(&["ADE20K_2021_17_01/images/ADE/{training,validation}"]));
    };
    plan.findings.push(format!("ADE20K at {}", root.display()));
    let rule = Rule::new(TITLE, "any colour", 847, train_ids()).with_others(IGNORE_LABEL);
    let rule = Arc::new(rule);
    for split in ["training", "validation"] {
        let folder = root.join("images/ADE").join(split);
        let mut image_files = BTreeMap::new();
        if folder.is_dir() {
            collect(&folder, DEPTH, &mut image_files)?;
        } else {
            plan.note_missing(
                format!("split {split}"),
                &[folder.display().to_string()],
                "the split cannot be opened",
            );
        }
        let mut without = Vec::new();
        let mut count = 0;
        for (id, image) in &image_files {
            let segments = image.with_file_name(format!("{id}{SEGMENTS}"));
            if !segments.is_file() {
                without.push(format!("{id}{SEGMENTS}"));
                continue;
            }
            count += 1;
            plan.tasks.push(Task {
                to: Path::new("images_detectron2")
                    .join(split)
                    .join(format!("{id}.jpg")),
                work: Work::Image {
                    from: image.clone(),
                },
            });
            plan.tasks.push(Task {
                to: Path::new("annotations_detectron2")
                    .join(split)
                    .join(format!("{id}.png")),
                work: Work::Labels {
                    from: segments,
                    form: Form::AdeColours,
                    rule: Arc::clone(&rule),
                    image: image.clone(),
                    size: LabelSize::Shrunk,
                },
            });
        }
        plan.split(split, count);
        plan.note_missing(
            format!("label maps of {split}"),
            &without,
            "their images are left out",
        );
    }
    Ok(())
}

/// Collects the images below a folder by their names; a repeated name is an error, since all go to one folder.
fn collect(
    folder: &Path,
    depth: usize,
    image_files: &mut BTreeMap<String, PathBuf>,
) -> Result<(), PrepareError> {
    let unreadable = |source| PrepareError::unreadable(folder, source);
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let path = entry.path();
        if let Some(id) = name.strip_suffix(".jpg") {
            if let Some(first) = image_files.insert(id.to_owned(), path.clone()) {
                return Err(PrepareError::SameName {
                    first,
                    second: path,
                });
            }
        } else if depth > 0 && !name.contains('.') && path.is_dir() {
            // Each image has a folder of its instance masks beside it, `ADE_train_…`, which holds no images.
            if !name.starts_with("ADE_") {
                collect(&path, depth - 1, image_files)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_class_has_one_object_index() {
        let ids: Vec<(u16, u16)> = train_ids().collect();
        assert_eq!(ids.len(), 847);
        assert_eq!(IDS.lines().count(), 847);
        assert!((0..).zip(&ids).all(|(place, &(_, class))| place == class));
        let objects: HashSet<u16> = ids.iter().map(|&(object, _)| object).collect();
        assert_eq!(objects.len(), 847);
        // wall, and the last class
        assert_eq!((ids[0], ids[846]), ((2978, 0), (3148, 846)));
    }

    /// The data set numbers its object names in alphabetical order; those from 3101 on were added later.
    #[test]
    fn object_indices_are_in_the_order_of_the_names() {
        let mut objects: Vec<(u16, String)> = IDS
            .lines()
            .map(|line| {
                let mut parts = line.splitn(3, ' ');
                let id = parts.next().unwrap().parse().unwrap();
                (id, parts.nth(1).unwrap().replace('-', " "))
            })
            .filter(|&(id, _)| id <= 3100)
            .collect();
        objects.sort();
        assert!(objects.len() > 820);
        for pair in objects.windows(2) {
            assert!(pair[0].1 < pair[1].1, "{pair:?}");
        }
    }
}
