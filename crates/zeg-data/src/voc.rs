//! PASCAL VOC 2012: 20 classes, 1,464 training and 1,449 validation pictures.
//!
//! Published zero-shot results train on 10,582 pictures: `train` and the label maps of the Semantic Boundaries
//! data set (SBD, Hariharan et al. 2011), which usually lie in `SegmentationClassAug` and are listed in
//! `aug.txt`. The background, value 0 in the files, has no name to be described with: it is ignored in
//! training and in scores.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::dataset::check_files_exist;
use crate::split::{available_splits, read_split};
use crate::{DataError, Dataset, Item, LabelRule};

const TITLE: &str = "VOC";
const CLASSES: usize = 20;
const LISTS: &str = "ImageSets/Segmentation";
const LABELS: &str = "SegmentationClass";
const AUGMENTED_LABELS: &str = "SegmentationClassAug";

/// Opens PASCAL VOC 2012 and checks that every file of the split exists.
///
/// - `root`: `VOCdevkit/VOC2012` itself, `VOCdevkit`, or the folder that holds it
/// - `split`: the name of a list in `ImageSets/Segmentation` (`train`, `val`, …), `train_aug` for `train` and
///   `aug` together, or the path of any text file with one id a line
///
/// Label maps come from `SegmentationClass`; pictures that have none there take theirs from
/// `SegmentationClassAug`.
///
/// # Errors
/// - [`DataError::RootNotFound`], [`DataError::SplitNotFound`]: with the folders looked for, the splits there are
/// - [`DataError::Unreadable`], [`DataError::IllegalId`], [`DataError::DuplicateId`], [`DataError::Empty`] for
///   the list
/// - [`DataError::MissingFiles`] when a picture or a label map of the split does not exist
pub fn open_voc(root: &Path, split: &str) -> Result<Dataset, DataError> {
    let root = find_root(root)?;
    let ids = read_ids(&root, split)?;
    let items: Vec<Item> = ids.into_iter().map(|id| item(&root, id)).collect();
    check_files_exist(TITLE, split, &items)?;
    Ok(Dataset {
        name: "voc12".to_owned(),
        title: TITLE.to_owned(),
        items,
        label_rule: LabelRule::ReduceZero,
        classes: CLASSES,
    })
}

/// The folder that holds `ImageSets/Segmentation`: `given` or one of the folders archives unpack to.
fn find_root(given: &Path) -> Result<PathBuf, DataError> {
    let candidates = ["", "VOC2012", "VOCdevkit/VOC2012"].map(|below| given.join(below));
    if let Some(root) = candidates.iter().find(|root| root.join(LISTS).is_dir()) {
        return Ok(root.clone());
    }
    Err(DataError::RootNotFound {
        dataset: TITLE,
        root: given.to_owned(),
        looked_for: candidates.iter().map(|root| root.join(LISTS)).collect(),
    })
}

fn read_ids(root: &Path, split: &str) -> Result<Vec<String>, DataError> {
    let folder = root.join(LISTS);
    let list = |name: &str| folder.join(format!("{name}.txt"));
    let not_found = || DataError::SplitNotFound {
        dataset: TITLE,
        split: split.to_owned(),
        folder: folder.clone(),
        available: available_splits(&folder),
    };
    if is_path(split) {
        return if Path::new(split).is_file() {
            read_split(Path::new(split))
        } else {
            Err(not_found())
        };
    }
    if list(split).is_file() {
        return read_split(&list(split));
    }
    if split == "train_aug" && list("train").is_file() && list("aug").is_file() {
        let mut ids = read_split(&list("train"))?;
        // Some copies of aug.txt repeat pictures of train.txt; the union counts each once.
        let known: HashSet<String> = ids.iter().cloned().collect();
        let more = read_split(&list("aug"))?;
        ids.extend(more.into_iter().filter(|id| !known.contains(id)));
        return Ok(ids);
    }
    Err(not_found())
}

/// Whether a split is given as a file and not by name.
fn is_path(split: &str) -> bool {
    let path = Path::new(split);
    path.components().count() > 1 || path.extension().is_some_and(|ending| ending == "txt")
}

fn item(root: &Path, id: String) -> Item {
    let file = format!("{id}.png");
    let labels = root.join(LABELS).join(&file);
    let augmented = root.join(AUGMENTED_LABELS).join(&file);
    Item {
        image: root.join("JPEGImages").join(format!("{id}.jpg")),
        labels: if !labels.is_file() && augmented.is_file() {
            augmented
        } else {
            labels
        },
        id,
    }
}
