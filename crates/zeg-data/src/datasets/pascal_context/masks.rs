//! Recognises the published forms of the PASCAL Context masks and converts their values.
//!
//! 459 annotated categories become the 60 classes (background and 59) that are scored. The forms are:
//!
//! - `trainval_merged.json` of PASCAL in Detail, run lengths with the 459 ids (mmsegmentation's converter reads this);
//! - `trainval/*.mat` of the original release, a matrix `LabelMap` of the 459 ids;
//! - PNGs of the 459 ids, of 8 or 16 bits;
//! - PNGs of `0..=59` in mmsegmentation's order, which is alphabetical; these are only checked;
//! - PNGs of `0..=58` and 255 in the same order, with 255 for the background;
//! - `59_context_labels` of the original release: `0..=59`, but VOC's 20 classes first. Their values do not distinguish
//!   them from mmsegmentation's, and a model evaluated with the wrong order scores near zero; so they are recognised by
//!   the folder's name or by the list `59_labels.txt` in it.
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
/// Largest number of PNGs that are read to recognise the form of a folder.
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

/// Returns the rule for the 459 ids; ids outside the 59 classes become background.
pub(super) fn rule_of_459() -> Rule {
    let pairs = CLASSES
        .into_iter()
        .zip(0..)
        .map(|((_, id, _), class)| (id, class));
    Rule::new(TITLE, "ids 0..=459", 60, pairs).with_others_up_to(LAST_ID, 0)
}

/// Returns the rule for `0..=58` and 255 for the background.
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

/// Returns the rule for the order of `59_context_labels`.
fn rule_of_release() -> Rule {
    let pairs = CLASSES
        .into_iter()
        .zip(0..)
        .map(|((_, _, number), class)| (number, class));
    let pairs = pairs.chain([(IGNORE_BYTE, IGNORE_LABEL)]);
    Rule::new(TITLE, "classes 0..=59 and 255", 60, pairs)
}

/// The files of a folder of label maps, their format and the rule that converts their values.
pub(super) struct Masks {
    pub(super) files: BTreeMap<String, PathBuf>,
    pub(super) form: Form,
    pub(super) rule: SharedRule,
}

/// Finds the masks of a download in any form other than JSON; returns `None` if there are none.
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
    let (rule, description) = recognise(folder, &files)?;
    plan.findings.push(format!(
        "{} PNGs of {description} at {}",
        files.len(),
        folder.display()
    ));
    Ok(Some(Masks {
        files,
        form: Form::Index,
        rule: Arc::new(rule),
    }))
}

/// Recognises the meaning of the values of a folder of PNGs by its name and by some of its files; returns the rule and
/// its description.
fn recognise(
    folder: &Path,
    files: &BTreeMap<String, PathBuf>,
) -> Result<(Rule, String), PrepareError> {
    let step = files.len().div_ceil(SAMPLES).max(1);
    let (mut beyond, mut last, mut ignore) = (None, None, None);
    let mut examined = 0;
    let mut damaged = None;
    for (id, path) in files.iter().step_by(step) {
        // A damaged file is reported by the conversion; only if no file can be read, nothing can be recognised.
        let map = match decode_labels(path) {
            Ok(map) => map,
            Err(error) => {
                damaged.get_or_insert(error);
                continue;
            }
        };
        examined += 1;
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
    if let Some(error) = damaged.filter(|_| examined == 0) {
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
            "59 classes in the order of 59_labels.txt, VOC's first (recognised by the folder's name or this file)"
                .into(),
        ));
    }
    let Some((id, _)) = ignore.filter(|_| last.is_none()) else {
        let by = match last {
            Some((id, _)) => format!("recognised by the value 59 in {id}.png"),
            None => format!("no value above 58 in {examined} files"),
        };
        return Ok((
            Rule::identity(TITLE, "classes 0..=59 and 255", 59),
            format!("60 classes with the background, in mmsegmentation's order ({by})"),
        ));
    };
    if examined < 20 {
        return Err(PrepareError::Ambiguous {
            folder: folder.into(),
            reason: format!(
                "the values of these {examined} label maps include 255 (in {id}.png) but not 59, so they may be 59 \
                 classes without the background or 60 with it; at least 20 label maps are needed to decide"
            ),
        });
    }
    Ok((
        rule_without_background(),
        format!(
            "59 classes without the background (255 in {id}.png, and no 59 in {examined} files)"
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
