//! Checks that need the counts of the whole split: shifted labels, a lost border, absent classes, equal images.
//!
//! They are guesses from counts and therefore warnings and notes. Each message names the counts it is based on.

use super::Subject;
use super::collector::{Seen, Values};
use super::finding::Code;
use crate::labels::LabelKind;

/// Smallest number of label files from which the checks of this module conclude anything.
const ENOUGH_FILES: u64 = 8;
/// Number of label files from which on a value that never occurs is not missing by chance.
const MANY_FILES: u64 = 32;
/// If more than 1 in 5 pixels are ignored, they are a background and not only borders.
const BACKGROUND_SHARE: u64 = 5;
/// If fewer than 1 in 10 label files have a border, the borders were lost: nearly every official label map has one.
const BORDER_SHARE: u64 = 10;

/// Adds the findings that need the counts of the whole split.
///
/// - `examined`: number of images whose content was examined
pub(super) fn examine(subject: &Subject, examined: usize, seen: &mut Seen) {
    let rest = subject.dataset.len().saturating_sub(examined);
    if rest > 0 {
        // One finding that counts images, and not one finding per image.
        let example = format!("{examined} of {} were examined", subject.dataset.len());
        seen.findings
            .insert(Code::Limited, (rest, [(0, example)].into()));
    }
    let values = seen.values.clone();
    shifted(subject, &values, seen);
    border(&values, seen);
    storage(&values, seen);
    classes(subject, seen);
    same_images(subject, seen);
}

/// Reports labels that seem one too low or too high for the class list.
fn shifted(subject: &Subject, values: &Values, seen: &mut Seen) {
    let classes = subject.dataset.classes.len();
    if values.files < ENOUGH_FILES || classes < 2 {
        return;
    }
    let mostly_ignored = values.ignored * BACKGROUND_SHARE > values.pixels;
    let has_zero = values.with_zero > 0;
    let largest = values.largest.map(usize::from);
    let never_zero = !has_zero && values.files >= MANY_FILES;
    let seldom_zero = 2 * values.with_zero < values.files;
    let sums = format!(
        "value 0 in {} of {} label files, largest value {}, {} of {} pixels ignored",
        values.with_zero,
        values.files,
        values
            .largest
            .map_or_else(|| "none".to_owned(), |value| value.to_string()),
        values.ignored,
        values.pixels
    );
    let text = match subject.dataset.label_rule.kind {
        // Value 0 should be ignored (usually the background), and the value of the last class is the number of classes.
        LabelKind::ReduceZero
            if largest < Some(classes) && seldom_zero && (mostly_ignored || never_zero) =>
        {
            "0 seems to be a class and 255 the background, but 0 is read as ignored"
        }
        LabelKind::ReduceZero if has_zero && only_last_absent(seen) => {
            "the number of the last class never occurs while 0 and all other numbers do, so labels seem to be counted from 0, but 0 is read as ignored"
        }
        LabelKind::Identity if 2 * values.one_above > values.files && seldom_zero => {
            "values go from 1 to the number of classes, but the first class should have the value 0"
        }
        LabelKind::Identity if values.one_above > 0 && !has_zero => {
            "the value 0 never occurs and the number of classes does occur, so labels seem to be counted from 1"
        }
        LabelKind::Identity if background_comes_first(subject) && seldom_zero && mostly_ignored => {
            "the background, class 0, is missing in most files while many pixels are ignored, so it seems to have been removed"
        }
        _ => return,
    };
    seen.add(Code::ShiftedLabels, 0, format!("{text} ({sums})"));
}

/// Returns whether every class but the last one has a pixel.
fn only_last_absent(seen: &Seen) -> bool {
    let is_absent = |(pixels, _): &(u64, u64)| *pixels == 0;
    let last = seen.classes.split_last();
    last.is_some_and(|(last, others)| is_absent(last) && !others.iter().any(is_absent))
}

fn background_comes_first(subject: &Subject) -> bool {
    let first = subject.dataset.classes.classes.first();
    first.is_some_and(|name| name == "background")
}

fn border(values: &Values, seen: &mut Seen) {
    if values.border_wanted >= ENOUGH_FILES
        && values.border_found * BORDER_SHARE < values.border_wanted
    {
        let text = format!(
            "{} of {} label files have the value",
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

/// Reports classes without a pixel, and a split in which no unseen class has a pixel.
fn classes(subject: &Subject, seen: &mut Seen) {
    if seen.ignored == 0 && seen.classes.iter().all(|(pixels, _)| *pixels == 0) {
        return; // no label file could be read, which is reported as another finding
    }
    let set = &subject.dataset.classes;
    let absent: Vec<usize> = seen
        .classes
        .iter()
        .enumerate()
        .filter(|(_, (pixels, _))| *pixels == 0)
        .map(|(label, _)| label)
        .collect();
    if let [_, _, ..] = seen.classes[..]
        && absent.len() + 1 == seen.classes.len()
    {
        let present = (0..seen.classes.len()).find(|label| !absent.contains(label));
        let name = present.map_or_else(String::new, |label| set.names_of(label).join(", "));
        seen.add(Code::OneClass, 0, format!("only {name} occurs"));
    }
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
        let text = format!("none of the {} unseen classes occurs", set.unseen.len());
        seen.add(Code::NoUnseenPixels, 0, text);
    }
}

/// Reports images with the same content, judged by file size and hash.
fn same_images(subject: &Subject, seen: &mut Seen) {
    let mut hashes = std::mem::take(&mut seen.hashes);
    hashes.sort_unstable();
    let name = |position: usize| {
        let item = subject.dataset.items.get(position);
        item.map(|item| subject.name(&item.image))
            .unwrap_or_default()
    };
    for group in hashes.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let Some(((.., first), others)) = group.split_first() else {
            continue;
        };
        for (.., other) in others {
            let text = format!("{} has the same content as {}", name(*other), name(*first));
            seen.add(Code::SameImage, *other, text);
        }
    }
}
