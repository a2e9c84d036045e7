//! What only the whole split can tell: shifted labels, a lost border, classes that never occur, equal images.
//!
//! These are guesses from counts, and so warnings and notes. Each says which counts it goes by.

use super::Patient;
use super::collector::{Seen, Values};
use super::finding::Code;
use crate::labels::LabelKind;

/// Fewer label files than this say nothing about the whole.
const ENOUGH_FILES: u64 = 8;
/// Fewer label files than this may lack a value by chance.
const MANY_FILES: u64 = 32;
/// Part of the pixels that only a background covers, not borders: 1 in 5.
const BACKGROUND_SHARE: u64 = 5;
/// Borders are in nearly every file; fewer than 1 in 10 have one where they were lost.
const BORDER_SHARE: u64 = 10;

/// - `examined`: images whose content was looked into
pub(super) fn examine(patient: &Patient, examined: usize, seen: &mut Seen) {
    let rest = patient.dataset.len().saturating_sub(examined);
    if rest > 0 {
        // Added as one finding with the count of images.
        let example = format!("{examined} of {} were", patient.dataset.len());
        seen.findings
            .insert(Code::Limited, (rest, [(0, example)].into()));
    }
    let values = seen.values.clone();
    shifted(patient, &values, seen);
    border(&values, seen);
    storage(&values, seen);
    classes(patient, seen);
    same_images(patient, seen);
}

/// Labels one too low or too high for the class list.
fn shifted(patient: &Patient, values: &Values, seen: &mut Seen) {
    let classes = patient.dataset.classes.len();
    if values.files < ENOUGH_FILES || classes < 2 {
        return;
    }
    let mostly_ignored = values.ignored * BACKGROUND_SHARE > values.pixels;
    let has_zero = values.with_zero > 0;
    let largest = values.largest.map(usize::from);
    let never_zero = !has_zero && values.files >= MANY_FILES;
    let seldom_zero = 2 * values.with_zero < values.files;
    let sums = format!(
        "value 0 in {} of {} label files, largest value {}, no class in {} of {} pixels",
        values.with_zero,
        values.files,
        values
            .largest
            .map_or_else(|| "none".to_owned(), |value| value.to_string()),
        values.ignored,
        values.pixels
    );
    let text = match patient.dataset.label_rule.kind {
        // 0 should be the background, and the last class is its number.
        LabelKind::ReduceZero
            if largest < Some(classes) && seldom_zero && (mostly_ignored || never_zero) =>
        {
            "as if 0 were a class already and the background 255, though 0 is read as no class"
        }
        LabelKind::Identity if 2 * values.one_above > values.files && seldom_zero => {
            "values go from 1 to the number of classes, where 0 should be the first class"
        }
        LabelKind::Identity if values.one_above > 0 && !has_zero => {
            "0 never occurs and the number of classes does: as if counted from 1"
        }
        LabelKind::Identity if background_comes_first(patient) && seldom_zero && mostly_ignored => {
            "the background, class 0, is missing in most files while many pixels have no class: as if it was taken away"
        }
        _ => return,
    };
    seen.add(Code::ShiftedLabels, 0, format!("{text} ({sums})"));
}

fn background_comes_first(patient: &Patient) -> bool {
    let first = patient.dataset.classes.classes.first();
    first.is_some_and(|name| name == "background")
}

fn border(values: &Values, seen: &mut Seen) {
    if values.border_wanted >= ENOUGH_FILES
        && values.border_found * BORDER_SHARE < values.border_wanted
    {
        let text = format!(
            "{} of {} label files have it",
            values.border_found, values.border_wanted
        );
        seen.add(Code::NoBorder, 0, text);
    }
}

fn storage(values: &Values, seen: &mut Seen) {
    if values.storage.len() > 1 {
        let kinds = values.storage.iter();
        let kinds: Vec<String> = kinds
            .map(|(kind, files)| format!("{files} {kind}"))
            .collect();
        seen.add(Code::MixedStorage, 0, kinds.join(", "));
    }
}

/// Classes without a pixel, and whether any unseen class has one.
fn classes(patient: &Patient, seen: &mut Seen) {
    if seen.ignored == 0 && seen.classes.iter().all(|(pixels, _)| *pixels == 0) {
        return; // no label file could be read, which is another finding
    }
    let set = &patient.dataset.classes;
    let absent: Vec<usize> = seen
        .classes
        .iter()
        .enumerate()
        .filter(|(_, (pixels, _))| *pixels == 0)
        .map(|(label, _)| label)
        .collect();
    for &label in &absent {
        let unseen = if set.is_unseen(label) {
            " (unseen)"
        } else {
            ""
        };
        let name = set.names_of(label).join(", ");
        seen.add(Code::AbsentClass, label, format!("{label} {name}{unseen}"));
    }
    let none_unseen = set.unseen.iter().all(|label| absent.contains(label));
    if !set.unseen.is_empty() && none_unseen {
        let text = format!("none of {} unseen classes occurs", set.unseen.len());
        seen.add(Code::NoUnseenPixels, 0, text);
    }
}

/// Files of one size and hash.
fn same_images(patient: &Patient, seen: &mut Seen) {
    let mut hashes = std::mem::take(&mut seen.hashes);
    hashes.sort_unstable();
    let name = |position: usize| {
        let item = patient.dataset.items.get(position);
        item.map(|item| patient.name(&item.image))
            .unwrap_or_default()
    };
    for group in hashes.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let Some(((.., first), others)) = group.split_first() else {
            continue;
        };
        for (.., other) in others {
            let text = format!("{} is the same as {}", name(*other), name(*first));
            seen.add(Code::SameImage, *other, text);
        }
    }
}
