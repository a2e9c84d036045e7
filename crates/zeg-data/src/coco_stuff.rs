//! COCO-Stuff 164k: 171 classes, 118,287 training and 5,000 validation pictures.
//!
//! The raw label maps use 182 ids with gaps; mmsegmentation's converter writes `*_labelTrainIds.png` with
//! `0..=170` and 255, and those are what this module reads.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::dataset::check_files_exist;
use crate::{DataError, Dataset, Item, LabelRule};

const TITLE: &str = "COCO-Stuff";
const CLASSES: usize = 171;
const SUFFIX: &str = "_labelTrainIds.png";

/// Opens COCO-Stuff 164k and checks that every picture has its label map.
///
/// - `root`: the folder that holds `images` and `annotations`
/// - `split`: `train` or `val`
///
/// The samples are the pictures of `images/<split>2017`, sorted by name; the label map of `a.jpg` is
/// `annotations/<split>2017/a_labelTrainIds.png`.
///
/// # Errors
/// - [`DataError::RootNotFound`], [`DataError::SplitNotFound`], [`DataError::Empty`], [`DataError::Unreadable`]
/// - [`DataError::RawCocoLabels`] when the label maps were not converted
/// - [`DataError::MissingFiles`] when pictures have no label map
pub fn open_coco_stuff(root: &Path, split: &str) -> Result<Dataset, DataError> {
    let (images, annotations) = (root.join("images"), root.join("annotations"));
    if !images.is_dir() || !annotations.is_dir() {
        return Err(DataError::RootNotFound {
            dataset: TITLE,
            root: root.to_owned(),
            looked_for: vec![images, annotations],
        });
    }
    let folder = format!("{split}2017");
    if !["train", "val"].contains(&split) || !images.join(&folder).is_dir() {
        return Err(DataError::SplitNotFound {
            dataset: TITLE,
            split: split.to_owned(),
            available: ["train", "val"]
                .into_iter()
                .filter(|split| images.join(format!("{split}2017")).is_dir())
                .map(str::to_owned)
                .collect(),
            folder: images,
        });
    }
    let (images, annotations) = (images.join(&folder), annotations.join(&folder));
    let items: Vec<Item> = pictures(&images)?
        .into_iter()
        .map(|(id, image)| Item {
            labels: annotations.join(format!("{id}{SUFFIX}")),
            image,
            id,
        })
        .collect();
    check_converted(&annotations)?;
    check_files_exist(TITLE, split, &items)?;
    Ok(Dataset {
        name: "coco-stuff164k".to_owned(),
        title: TITLE.to_owned(),
        items,
        label_rule: LabelRule::Identity,
        classes: CLASSES,
    })
}

/// The JPEG files of a folder with their ids, sorted: the order must not depend on the file system.
fn pictures(folder: &Path) -> Result<Vec<(String, PathBuf)>, DataError> {
    let mut pictures: Vec<(String, PathBuf)> = list(folder)?
        .into_iter()
        .filter(|path| path.extension() == Some(OsStr::new("jpg")))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.to_owned(), path)))
        .collect();
    pictures.sort();
    if pictures.is_empty() {
        return Err(DataError::Empty {
            path: folder.to_owned(),
        });
    }
    Ok(pictures)
}

/// Refuses a folder in which PNG files lie, but none of them converted.
fn check_converted(folder: &Path) -> Result<(), DataError> {
    let mut raw = None;
    for path in list(folder)? {
        let name = path.file_name().map(OsStr::to_string_lossy);
        match name {
            Some(name) if name.ends_with(SUFFIX) => return Ok(()),
            Some(name) if name.ends_with(".png") => raw = Some(name.into_owned()),
            _ => {}
        }
    }
    match raw {
        Some(example) => Err(DataError::RawCocoLabels {
            folder: folder.to_owned(),
            example,
        }),
        None => Ok(()),
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let unreadable = |source| DataError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    fs::read_dir(folder)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(unreadable))
        .collect()
}
