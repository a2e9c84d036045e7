//! PASCAL VOC 2012: 20 classes, 1,464 training and 1,449 validation images.
//!
//! The folder holds `VOC2012/{JPEGImages, SegmentationClass, SegmentationClassAug, ImageSets/Segmentation}`.
//!
//! Published zero-shot results are trained on 10,582 images: `train`, and 9,118 images for which only the Semantic
//! Boundaries data set (SBD, Hariharan et al. 2011) has masks; these are usually in `SegmentationClassAug` and listed
//! in `aug.txt`. The background, value 0 in the files, cannot be described by a class name, so `voc20` ignores it in
//! training and in scores. `voc21` makes it a class of its own, as ZS3Net and the closed-set benchmark do.
//!
//! Preparation combines both data sets. SBD's own lists split its 11,355 images differently and overlap VOC's
//! validation images, so `aug` is all of SBD without VOC's `train` and `val`. SBD's masks are MATLAB structs; if there
//! are none, a folder `SegmentationClassAug` of PNGs, which is widely circulated, is used instead. Some copies of that
//! folder store the masks in colour.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeg_base::plural::counted;

use super::{ClassListEntry, DatasetEntry, OfficialSplit, Preparation, SplitPair};
use crate::listing::{Listed, Listing, Place, find_root};
use crate::prepare::PrepareError;
use crate::prepare::find::{self, Tree};
use crate::prepare::labels::{Form, Rule};
use crate::prepare::plan::{List, Plan, Task};
use crate::{DataError, LabelRule};

const TITLE: &str = "VOC";
const DOWNLOAD: &str = "PASCAL VOC 2012";

/// The entry of the data set.
pub(super) static ENTRY: DatasetEntry = DatasetEntry {
    name: "voc12",
    title: TITLE,
    class_lists: &[
        ClassListEntry::new("voc20", LabelRule::reduce_zero),
        ClassListEntry::new("voc21", LabelRule::identity),
        ClassListEntry::new("voc20-zegformer", LabelRule::reduce_zero),
    ],
    splits: &[
        OfficialSplit::new("train", 1464, &[]),
        OfficialSplit::new("aug", 9118, &[]),
        OfficialSplit::new("train_aug", 10582, &["trainaug"]),
        OfficialSplit::new("trainval", 2913, &[]),
        OfficialSplit::new("val", 1449, &[]),
    ],
    held_out: &[
        SplitPair::new("train", "val"),
        SplitPair::new("aug", "val"),
        SplitPair::new("train_aug", "val"),
    ],
    border_in: Some("SegmentationClass"),
    list,
    preparation: Some(Preparation {
        title: DOWNLOAD,
        plan,
    }),
};

const LISTS: &str = "ImageSets/Segmentation";
const ROOTS: [&str; 3] = ["", "VOC2012", "VOCdevkit/VOC2012"];

/// Lists the pairs of a split.
///
/// - `given`: `VOCdevkit/VOC2012`, `VOCdevkit`, or the folder that holds `VOCdevkit`
/// - `split`: the name of a list in `ImageSets/Segmentation` (`train`, `val`, …), `train_aug` for `train` and
///   `aug` together, or the path of any text file with one id per line
///
/// Label maps are read from `SegmentationClass`, or from `SegmentationClassAug` for images that have none there.
fn list(given: &Path, split: &str) -> Result<Listing, DataError> {
    let root = find_root(TITLE, given, &ROOTS, &[LISTS])?;
    let place = Place::new(
        "JPEGImages/{id}.jpg",
        &[
            "SegmentationClass/{id}.png",
            "SegmentationClassAug/{id}.png",
        ],
    );
    let listed = Listed {
        title: TITLE,
        root,
        lists: LISTS,
        place: place.unwrap_or_default(),
    };
    let joined = ENTRY
        .official(split)
        .is_some_and(|official| official.name == "train_aug");
    let (train, aug) = (listed.file("train"), listed.file("aug"));
    if joined && !listed.file(split).is_file() && train.is_file() && aug.is_file() {
        let (mut items, mut repeated) = listed.read(&train)?;
        // Some copies of aug.txt repeat images of train.txt; the union counts each once.
        let known: HashSet<String> = items.iter().map(|item| item.id.clone()).collect();
        let (more, more_repeated) = listed.read(&aug)?;
        items.extend(more.into_iter().filter(|item| !known.contains(&item.id)));
        repeated.extend(more_repeated);
        return Ok(listed.of(items, repeated));
    }
    listed.list(split)
}

const SBD_MASK: Form = Form::Matlab(&["GTcls", "Segmentation"]);

/// Plans the conversion of a download: `VOCdevkit/VOC2012`, and SBD (`benchmark_RELEASE/dataset`) or a converted folder
/// `SegmentationClassAug`.
fn plan(plan: &mut Plan, tree: &Tree) -> Result<(), PrepareError> {
    let Some(voc) = find_voc(tree) else {
        return Err(plan.not_found(&["VOC2012/ImageSets/Segmentation/train.txt and val.txt"]));
    };
    plan.findings.push(format!("VOC 2012 at {}", voc.display()));
    let lists = voc.join(LISTS);
    let (train, val) = (
        find::read_ids(&lists.join("train.txt"))?,
        find::read_ids(&lists.join("val.txt"))?,
    );
    let trainval = match lists.join("trainval.txt") {
        list if list.is_file() => find::read_ids(&list)?,
        _ => train
            .iter()
            .chain(&val)
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
    };
    let augmented = find_augmented(tree, &voc, plan)?;
    let known: BTreeSet<&String> = train.iter().chain(&val).collect();
    let (aug, masks) = match augmented {
        Some(Augmented { ids, masks }) => {
            let ids: Vec<String> = ids.into_iter().filter(|id| !known.contains(id)).collect();
            (ids, masks)
        }
        None => (Vec::new(), SbdMasks::none()),
    };
    add_files(plan, &voc, (&train, &val, &aug), &masks)?;
    let train_aug: Vec<String> = train.iter().chain(&aug).cloned().collect();
    for (split, ids) in [
        ("train", &train),
        ("val", &val),
        ("trainval", &trainval),
        ("aug", &aug),
        ("train_aug", &train_aug),
    ] {
        let needs_aug = split.ends_with("aug");
        if ids.is_empty() || needs_aug && aug.is_empty() {
            continue;
        }
        plan.split(split, ids.len());
        plan.lists.push(List {
            to: Path::new(LISTS).join(format!("{split}.txt")),
            ids: ids.clone(),
        });
    }
    Ok(())
}

/// Finds the folder with VOC's segmentation lists; `VOCdevkit` may hold the lists of other years, too.
fn find_voc(tree: &Tree) -> Option<PathBuf> {
    let has_lists = |folder: &Path| {
        let lists = folder.join(LISTS);
        lists.join("train.txt").is_file() && lists.join("val.txt").is_file()
    };
    let other_year = |folder: &Path| {
        let name = folder.file_name().map(|name| name.to_string_lossy());
        name.is_some_and(|name| name.starts_with("VOC20") && name != "VOC2012")
    };
    let mut found = tree.all(|folder| has_lists(folder) && !other_year(folder));
    found.next().map(Path::to_owned)
}

/// The masks that VOC itself does not have.
struct Augmented {
    /// Ids of all images that SBD lists or that have such a mask.
    ids: BTreeSet<String>,
    masks: SbdMasks,
}

struct SbdMasks {
    files: BTreeMap<String, PathBuf>,
    form: Form,
    /// Images that come with the masks.
    image_files: BTreeMap<String, PathBuf>,
}

impl SbdMasks {
    fn none() -> Self {
        Self {
            files: BTreeMap::new(),
            form: SBD_MASK,
            image_files: BTreeMap::new(),
        }
    }
}

fn find_augmented(
    tree: &Tree,
    voc: &Path,
    plan: &mut Plan,
) -> Result<Option<Augmented>, PrepareError> {
    let sbd = tree
        .all(|folder| find::holds(&folder.join("cls"), &[".mat"], ""))
        .next();
    if let Some(sbd) = sbd {
        let files = find::files(&sbd.join("cls"), ".mat")?;
        let mut ids: BTreeSet<String> = BTreeSet::new();
        for list in ["train.txt", "val.txt"].map(|name| sbd.join(name)) {
            if list.is_file() {
                ids.extend(find::read_ids(&list)?);
            } else {
                plan.note_missing(
                    "list of SBD",
                    &[list.display().to_string()],
                    "all masks of SBD are used instead",
                );
                ids.extend(files.keys().cloned());
            }
        }
        let images = sbd.join("img");
        plan.findings.push(format!(
            "SBD at {}: {} in MATLAB files (GTcls.Segmentation), {} listed",
            sbd.display(),
            counted(files.len(), "mask"),
            counted(ids.len(), "image")
        ));
        return Ok(Some(Augmented {
            ids,
            masks: SbdMasks {
                files,
                form: SBD_MASK,
                image_files: find::files_if_any(&images, ".jpg")?,
            },
        }));
    }
    let ready = [voc.join("SegmentationClassAug")];
    let ready = ready.iter().map(PathBuf::as_path);
    let ready = ready
        .chain(tree.named("SegmentationClassAug"))
        .find(|folder| find::holds(folder, &[".png"], ""));
    let Some(ready) = ready else {
        plan.note_missing(
            "SBD",
            &["benchmark_RELEASE/dataset/cls/*.mat or SegmentationClassAug/*.png".to_owned()],
            "the result has no splits aug and train_aug, on which published zero-shot results are trained",
        );
        return Ok(None);
    };
    let files = find::files(ready, ".png")?;
    plan.findings.push(format!(
        "converted masks of SBD at {}: {} PNGs of indices or VOC colours",
        ready.display(),
        files.len()
    ));
    Ok(Some(Augmented {
        ids: files.keys().cloned().collect(),
        masks: SbdMasks {
            files,
            form: Form::IndexOrVocColours,
            image_files: BTreeMap::new(),
        },
    }))
}

/// Adds a task for every image and every mask that exists, and lists those that are missing.
fn add_files(
    plan: &mut Plan,
    voc: &Path,
    (train, val, aug): (&[String], &[String], &[String]),
    masks: &SbdMasks,
) -> Result<(), PrepareError> {
    let rule = Arc::new(Rule::identity(DOWNLOAD, "0..=20 and 255", 20));
    let mut image_files = find::files_if_any(&voc.join("JPEGImages"), ".jpg")?;
    for (id, path) in &masks.image_files {
        image_files
            .entry(id.clone())
            .or_insert_with(|| path.clone());
    }
    let own = find::files_if_any(&voc.join("SegmentationClass"), ".png")?;
    let (mut no_image, mut no_mask, mut no_aug_mask) = (Vec::new(), Vec::new(), Vec::new());
    let own_ids = train.iter().chain(val).map(|id| (id, false));
    let mut seen = BTreeSet::new();
    for (id, is_aug) in own_ids.chain(aug.iter().map(|id| (id, true))) {
        if !seen.insert(id) {
            continue; // lists may repeat an image, but two threads must not write one file
        }
        let Some(image) = image_files.get(id) else {
            no_image.push(id.clone());
            continue;
        };
        plan.tasks.push(Task::place(
            Path::new("JPEGImages").join(format!("{id}.jpg")),
            image,
        ));
        let (folder, mask, form) = if is_aug {
            ("SegmentationClassAug", masks.files.get(id), masks.form)
        } else {
            ("SegmentationClass", own.get(id), Form::IndexOrVocColours)
        };
        match mask {
            Some(mask) => plan.tasks.push(Task::labels(
                Path::new(folder).join(format!("{id}.png")),
                (mask, form),
                &rule,
                image,
            )),
            None if is_aug => no_aug_mask.push(id.clone()),
            None => no_mask.push(id.clone()),
        }
    }
    plan.note_missing(
        "images (JPEGImages)",
        &no_image,
        "their splits cannot be opened",
    );
    plan.note_missing(
        "masks (SegmentationClass)",
        &no_mask,
        "train and val cannot be opened",
    );
    plan.note_missing(
        "masks of SBD",
        &no_aug_mask,
        "aug and train_aug cannot be opened",
    );
    Ok(())
}
