//! PASCAL Context: 60 classes with the background, 4,998 training and 5,105 validation images of VOC 2010.
//!
//! The folder holds `VOC2010/{JPEGImages, SegmentationClassContext, ImageSets/SegmentationContext}`.
//!
//! The label maps are those of mmsegmentation's converter, indices `0..=59` in the order of `pascal-context60`, where 0
//! is the background: everything that no other class covers. `pascal-context59` ignores it and counts the rest from 0.
//!
//! Preparation makes them from any of the published forms of the masks ([`masks`]). The splits are the images of
//! VOC 2010's `train` and `val` that have masks.

mod masks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeg_base::plural::counted;

use self::masks::{Masks, find_masks, rule_of_459};
use super::{ClassListEntry, DatasetEntry, OfficialSplit, Preparation, SplitPair};
use crate::listing::{Listed, Listing, Place, find_root};
use crate::prepare::PrepareError;
use crate::prepare::detail::{self, Detail, DetailImage};
use crate::prepare::find::{self, Tree};
use crate::prepare::plan::{List, Plan, Task};
use crate::{DataError, LabelRule};

const TITLE: &str = "PASCAL Context";
const MASKS: &str = "SegmentationClassContext";
const LISTS: &str = "ImageSets/SegmentationContext";
const ROOTS: [&str; 3] = ["", "VOC2010", "VOCdevkit/VOC2010"];

/// The entry of the data set.
pub(super) static ENTRY: DatasetEntry = DatasetEntry {
    name: "pascal-context",
    title: TITLE,
    class_lists: &[
        ClassListEntry::new("pascal-context60", LabelRule::identity),
        ClassListEntry::new("pascal-context59", LabelRule::reduce_zero),
    ],
    splits: &[
        OfficialSplit::new("train", 4998, &[]),
        OfficialSplit::new("val", 5105, &[]),
    ],
    held_out: &[SplitPair::new("train", "val")],
    border_in: None,
    list,
    preparation: Some(Preparation { title: TITLE, plan }),
};

/// Lists the pairs of a split: a list in `ImageSets/SegmentationContext`, or any text file with one id per line.
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

/// Plans the conversion of a download: `VOCdevkit/VOC2010`, and either `trainval_merged.json`, `trainval/*.mat` or a
/// folder of label PNGs.
fn plan(plan: &mut Plan, tree: &Tree) -> Result<(), PrepareError> {
    let Some(voc) = find_voc(tree) else {
        return Err(plan.not_found(&["VOC2010/JPEGImages"]));
    };
    plan.findings.push(format!("VOC 2010 at {}", voc.display()));
    let image_files = find::files(&voc.join("JPEGImages"), ".jpg")?;
    if let Some(json) = tree.file("trainval_merged.json") {
        plan_json(plan, &json, &image_files)?;
        return Ok(());
    }
    let masks = find_masks(tree, &voc, plan)?.ok_or_else(|| {
        plan.not_found(&[
            "trainval_merged.json",
            "trainval/*.mat",
            "SegmentationClassContext/*.png",
            "59_context_labels/*.png",
        ])
    })?;
    plan_files(plan, tree, &voc, &image_files, &masks)?;
    Ok(())
}

fn find_voc(tree: &Tree) -> Option<PathBuf> {
    let has_images = |folder: &&Path| folder.join("JPEGImages").is_dir();
    let named = tree.named("VOC2010").find(has_images);
    named
        .or_else(|| {
            let mut other = tree.all(|folder| {
                let name = folder.file_name().map(|name| name.to_string_lossy());
                has_images(&folder) && !name.is_some_and(|name| name.starts_with("VOC20"))
            });
            other.next()
        })
        .map(Path::to_owned)
}

/// Plans label maps from the run lengths of a JSON file, and splits from its `phase`.
fn plan_json(
    plan: &mut Plan,
    json: &Path,
    image_files: &BTreeMap<String, PathBuf>,
) -> Result<(), PrepareError> {
    let index = detail::index(json)?;
    plan.findings.push(format!(
        "{}: run lengths of the 459 ids for {} of the {} listed images",
        json.display(),
        index.bytes.len(),
        index.images.len()
    ));
    let mut images = Vec::new();
    let mut splits: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    let (mut no_image, mut no_mask) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for image in &index.images {
        let split = match image.phase.as_str() {
            "train" => "train",
            "val" => "val",
            _ => continue,
        };
        let stem = image
            .file_name
            .strip_suffix(".jpg")
            .unwrap_or(&image.file_name);
        let Some((stem, image_file)) = image_files.get_key_value(stem) else {
            no_image.push(image.file_name.clone());
            continue;
        };
        let Some(&bytes) = index.bytes.get(&image.id) else {
            no_mask.push(image.file_name.clone());
            continue;
        };
        splits.entry(split).or_default().insert(stem.clone());
        if !seen.insert(stem) {
            continue; // an image may be listed twice, but two threads must not write one file
        }
        plan.tasks.push(Task::place(
            Path::new("JPEGImages").join(format!("{stem}.jpg")),
            image_file,
        ));
        images.push(DetailImage {
            to: Path::new(MASKS).join(format!("{stem}.png")),
            id: image.id,
            stem: stem.clone(),
            image_path: image_file.clone(),
            bytes,
            json: json.into(),
        });
    }
    plan.note_missing(
        "images (JPEGImages)",
        &no_image,
        "they are left out of the splits",
    );
    plan.note_missing(
        "masks in the JSON",
        &no_mask,
        "their images are left out of the splits",
    );
    plan.detail = Some(Detail {
        json: json.into(),
        rule: Arc::new(rule_of_459()),
        images,
    });
    add_splits(plan, splits);
    Ok(())
}

/// Plans label maps from files, and splits from the first folder that has lists.
fn plan_files(
    plan: &mut Plan,
    tree: &Tree,
    voc: &Path,
    image_files: &BTreeMap<String, PathBuf>,
    masks: &Masks,
) -> Result<(), PrepareError> {
    let has_list =
        |folder: &PathBuf| folder.join("train.txt").is_file() || folder.join("val.txt").is_file();
    let lists = tree.named("SegmentationContext").map(Path::to_owned);
    let lists = [voc.join(LISTS)]
        .into_iter()
        .chain(lists)
        .chain([voc.join("ImageSets/Main")]);
    let lists: Option<PathBuf> = lists.into_iter().find(has_list);
    let mut splits: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    let (mut no_image, mut no_mask) = (Vec::new(), 0);
    if let Some(lists) = &lists {
        plan.findings.push(format!("splits at {}", lists.display()));
        for split in ["train", "val"] {
            let list = lists.join(format!("{split}.txt"));
            if !list.is_file() {
                continue;
            }
            for id in find::read_ids(&list)? {
                if !masks.files.contains_key(&id) {
                    no_mask += 1;
                } else if image_files.contains_key(&id) {
                    splits.entry(split).or_default().insert(id);
                }
            }
        }
        if no_mask > 0 {
            plan.findings.push(format!(
                "{} of these lists without a mask will be left out",
                counted(no_mask, "image")
            ));
        }
    } else {
        plan.note_missing(
            "lists",
            &["ImageSets/SegmentationContext or ImageSets/Main with train.txt and val.txt".into()],
            "the label maps are converted, but no split can be opened",
        );
    }
    for (id, mask) in &masks.files {
        let Some(image_file) = image_files.get(id) else {
            no_image.push(format!("{id}.jpg"));
            continue;
        };
        plan.tasks.push(Task::place(
            Path::new("JPEGImages").join(format!("{id}.jpg")),
            image_file,
        ));
        plan.tasks.push(Task::labels(
            Path::new(MASKS).join(format!("{id}.png")),
            (mask, masks.form),
            &masks.rule,
            image_file,
        ));
    }
    plan.note_missing("images (JPEGImages)", &no_image, "their masks are left out");
    add_splits(plan, splits);
    Ok(())
}

fn add_splits(plan: &mut Plan, splits: BTreeMap<&'static str, BTreeSet<String>>) {
    for (split, ids) in splits {
        plan.split(split, ids.len());
        plan.lists.push(List {
            to: Path::new(LISTS).join(format!("{split}.txt")),
            ids: ids.into_iter().collect(),
        });
    }
}
