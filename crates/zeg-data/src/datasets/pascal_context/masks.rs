//! The forms that the masks of PASCAL Context have been published in, and what their values become.
//!
//! 459 annotated categories become the 60 classes (background and 59) that are scored. Each form is recognised:
//!
//! - `trainval_merged.json` of PASCAL in Detail, run lengths with the 459 ids (what mmsegmentation converts);
//! - `trainval/*.mat` of the original release, a matrix `LabelMap` of the 459 ids;
//! - PNGs of the 459 ids, of 8 or 16 bits;
//! - PNGs of `0..=59` in mmsegmentation's order, the alphabet's, which are only checked;
//! - PNGs of `0..=58` and 255 in that order, the background left out;
//! - `59_context_labels` of the original release: `0..=59`, but VOC's 20 classes first. These cannot be told from
//!   mmsegmentation's by their values, and a mix-up scores near zero, so it is the folder's name, or the list
//!   `59_labels.txt` beside it, that tells.
//!
//! Ids outside the 59 are background.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_image::{IGNORE_LABEL, decode_labels};

use super::{MASKS, TITLE};
use crate::prepare::PrepareError;
use crate::prepare::find::{self, Tree};
use crate::prepare::labels::{Form, IGNORE_BYTE, Rule, SharedRule};
use crate::prepare::plan::Plan;

const MAT: Form = Form::Matlab(&["LabelMap"]);
const LAST_ID: u16 = 459;
/// PNGs that are looked into to tell the form of a folder.
const SAMPLES: usize = 200;

/// The 60 classes in mmsegmentation's order, each with its id among the 459 and its number in `59_context_labels`.
///
/// Sources: `tools/convert_datasets/pascal_context.py` and the class names of mmsegmentation, `59_labels.txt` of the
/// PASCAL Context release.
const CLASSES: [(&str, u16, u16); 60] = [
    ("background", 0, 0),
    ("aeroplane", 2, 1),
    ("bag", 9, 21),
    ("bed", 18, 22),
    ("bedclothes", 19, 52),
    ("bench", 22, 23),
    ("bicycle", 23, 2),
    ("bird", 25, 3),
    ("boat", 31, 4),
    ("book", 33, 24),
    ("bottle", 34, 5),
    ("building", 44, 25),
    ("bus", 45, 6),
    ("cabinet", 46, 26),
    ("car", 59, 7),
    ("cat", 65, 8),
    ("ceiling", 68, 27),
    ("chair", 72, 9),
    ("cloth", 80, 28),
    ("computer", 85, 29),
    ("cow", 98, 10),
    ("cup", 104, 30),
    ("curtain", 105, 42),
    ("dog", 113, 12),
    ("door", 115, 31),
    ("fence", 144, 32),
    ("floor", 158, 33),
    ("flower", 159, 34),
    ("food", 162, 35),
    ("grass", 187, 36),
    ("ground", 189, 37),
    ("horse", 207, 13),
    ("keyboard", 220, 38),
    ("light", 232, 39),
    ("motorbike", 258, 14),
    ("mountain", 259, 40),
    ("mouse", 260, 41),
    ("person", 284, 15),
    ("plate", 295, 45),
    ("platform", 296, 43),
    ("pottedplant", 308, 16),
    ("road", 324, 46),
    ("rock", 326, 47),
    ("sheep", 347, 17),
    ("shelves", 349, 48),
    ("sidewalk", 354, 49),
    ("sign", 355, 44),
    ("sky", 360, 50),
    ("snow", 366, 51),
    ("sofa", 368, 18),
    ("table", 397, 11),
    ("track", 415, 53),
    ("train", 416, 19),
    ("tree", 420, 54),
    ("truck", 424, 55),
    ("tvmonitor", 427, 20),
    ("wall", 440, 56),
    ("water", 445, 57),
    ("window", 454, 58),
    ("wood", 458, 59),
];

/// The classes' ids among the 459.
pub(super) fn rule_of_459() -> Rule {
    let pairs = CLASSES
        .into_iter()
        .zip(0..)
        .map(|((_, id, _), class)| (id, class));
    Rule::new(TITLE, "ids 0..=459", 60, pairs).with_others_up_to(LAST_ID, 0)
}

/// `0..=58` and 255 for the background.
fn rule_without_background() -> Rule {
    let pairs = (0..=58)
        .map(|value| (value, value + 1))
        .chain([(IGNORE_BYTE, 0)]);
    Rule::new(
        TITLE,
        "classes 0..=58 and 255 for the background",
        60,
        pairs,
    )
}

/// The order of `59_context_labels`.
fn rule_of_release() -> Rule {
    let pairs = CLASSES
        .into_iter()
        .zip(0..)
        .map(|((_, _, number), class)| (number, class));
    let pairs = pairs.chain([(IGNORE_BYTE, IGNORE_LABEL)]);
    Rule::new(TITLE, "classes 0..=59 and 255", 60, pairs)
}

/// A folder of label maps and what their values mean.
pub(super) struct Masks {
    pub(super) files: BTreeMap<String, PathBuf>,
    pub(super) form: Form,
    pub(super) rule: SharedRule,
}

/// Finds the masks of a download in any of the forms that are files; `None` where there are none.
pub(super) fn find_masks(
    tree: &Tree,
    voc: &Path,
    plan: &mut Plan,
) -> Result<Option<Masks>, PrepareError> {
    let mat = tree
        .named("trainval")
        .find(|folder| find::holds(folder, &[".mat"], ""));
    if let Some(folder) = mat {
        let files = find::files(folder, ".mat")?;
        plan.findings.push(format!(
            "{} MATLAB files with `LabelMap` of the 459 ids at {}",
            files.len(),
            folder.display()
        ));
        return Ok(Some(Masks {
            files,
            form: MAT,
            rule: Arc::new(rule_of_459()),
        }));
    }
    let own = voc.join(MASKS);
    let names = [
        "SegmentationClassContext",
        "59_context_labels",
        "trainval",
        "459_labels",
    ];
    let folders = names.iter().flat_map(|name| tree.named(name));
    let folder = [own.as_path()]
        .into_iter()
        .chain(folders)
        .find(|folder| find::holds(folder, &[".png"], ""));
    let Some(folder) = folder else {
        return Ok(None);
    };
    let files = find::files(folder, ".png")?;
    let (rule, words) = recognise(folder, &files)?;
    plan.findings.push(format!(
        "{} PNGs of {words} at {}",
        files.len(),
        folder.display()
    ));
    Ok(Some(Masks {
        files,
        form: Form::Index,
        rule: Arc::new(rule),
    }))
}

/// Tells what the values of a folder of PNGs mean, by its name and by some of its files.
fn recognise(
    folder: &Path,
    files: &BTreeMap<String, PathBuf>,
) -> Result<(Rule, String), PrepareError> {
    let step = files.len().div_ceil(SAMPLES).max(1);
    let (mut beyond, mut last, mut ignore) = (None, None, None);
    let mut looked_at = 0;
    let mut damaged = None;
    for (id, path) in files.iter().step_by(step) {
        // One damaged file is the run's to report; if no file can be read, there is nothing to recognise.
        let map = match decode_labels(path) {
            Ok(map) => map,
            Err(error) => {
                damaged.get_or_insert(error);
                continue;
            }
        };
        looked_at += 1;
        for &value in map.labels() {
            let place = match value {
                0..=58 => continue,
                59 => &mut last,
                IGNORE_BYTE => &mut ignore,
                _ => &mut beyond,
            };
            if place.is_none() {
                *place = Some((id, value));
            }
        }
    }
    if let Some(error) = damaged.filter(|_| looked_at == 0) {
        return Err(error.into());
    }
    if let Some((id, value)) = beyond {
        return Ok((
            rule_of_459(),
            format!("the 459 ids (recognised by the value {value} in {id}.png)"),
        ));
    }
    let is_release = folder
        .file_name()
        .is_some_and(|name| name == "59_context_labels")
        || folder.join("59_labels.txt").is_file();
    if is_release {
        return Ok((
            rule_of_release(),
            "59 classes in the order of 59_labels.txt, VOC's first (recognised by the folder)"
                .into(),
        ));
    }
    let Some((id, _)) = ignore.filter(|_| last.is_none()) else {
        let by = match last {
            Some((id, _)) => format!("recognised by the value 59 in {id}.png"),
            None => format!("no value above 58 in {looked_at} files"),
        };
        return Ok((
            Rule::identity(TITLE, "classes 0..=59 and 255", 59),
            format!("60 classes with the background, in mmsegmentation's order ({by})"),
        ));
    };
    if looked_at < 20 {
        return Err(PrepareError::Ambiguous {
            folder: folder.into(),
            reason: format!(
                "{looked_at} label maps with 255 (in {id}.png) and without 59 may be 59 classes without the \
                 background or 60 with it; more of them would tell"
            ),
        });
    }
    Ok((
        rule_without_background(),
        format!(
            "59 classes without the background (255 in {id}.png, and no 59 in {looked_at} files)"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_alphabet_and_of_the_ids() {
        assert!(CLASSES[1..].windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(CLASSES.windows(2).all(|pair| pair[0].1 < pair[1].1));
        let numbers: BTreeSet<u16> = CLASSES.iter().map(|class| class.2).collect();
        assert_eq!(numbers, (0..60).collect());
    }
}
