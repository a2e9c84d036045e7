//! Collects the findings and counts of all threads, in memory that does not grow with the number of findings.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::finding::Code;

/// Largest number of examples that a finding keeps.
const EXAMPLES: usize = 5;

/// Collector of findings and counts that all threads share.
pub(super) struct Collector(Mutex<Seen>);

/// All findings and counts so far.
#[derive(Default)]
pub(super) struct Seen {
    /// For every finding its count and its first examples, by the position of the image in the list.
    pub(super) findings: BTreeMap<Code, (usize, BTreeMap<usize, String>)>,
    /// For every class the number of its pixels and the number of images that have any.
    pub(super) classes: Vec<(u64, u64)>,
    /// Number of ignored pixels.
    pub(super) ignored: u64,
    /// Sums of the stored values over all label files.
    pub(super) values: Values,
    /// Size in bytes, hash and position in the list of every image.
    pub(super) hashes: Vec<(u64, u64, usize)>,
}

/// Sums over index label files, for the checks that need the whole split.
#[derive(Default, Clone)]
pub(super) struct Values {
    /// Number of label files that were read.
    pub(super) files: u64,
    /// Number of their pixels.
    pub(super) pixels: u64,
    /// The largest value in the legal range of class values that is not an ignored value.
    pub(super) largest: Option<u16>,
    /// Number of files with the value 0.
    pub(super) with_zero: u64,
    /// Number of pixels with the value 0.
    pub(super) zeros: u64,
    /// Number of pixels with an ignored value.
    pub(super) ignored: u64,
    /// Number of files that should have a border.
    pub(super) border_wanted: u64,
    /// Number of those files that have a border.
    pub(super) border_found: u64,
    /// Number of files by the way they store labels.
    pub(super) storage: BTreeMap<&'static str, u64>,
    /// Number of files whose only illegal value is the last legal class value plus one.
    pub(super) one_above: u64,
}

/// Counts of one label file.
#[derive(Default)]
pub(super) struct Counted {
    /// Number of pixels of every class.
    pub(super) classes: Vec<u64>,
    /// Number of ignored pixels.
    pub(super) ignored: u64,
    /// The file's contribution to the sums over all files.
    pub(super) values: Values,
}

impl Collector {
    pub(super) fn new(classes: usize) -> Self {
        Self(Mutex::new(Seen {
            classes: vec![(0, 0); classes],
            ..Seen::default()
        }))
    }

    /// Adds a finding about the image at `position` of the list.
    pub(super) fn add(&self, code: Code, position: usize, example: impl Into<String>) {
        self.with(|seen| seen.add(code, position, example));
    }

    /// Adds the size and hash of an image file.
    pub(super) fn add_hash(&self, size: u64, hash: u64, position: usize) {
        self.with(|seen| seen.hashes.push((size, hash, position)));
    }

    /// Adds the counts of a label file.
    pub(super) fn add_counts(&self, counted: &Counted) {
        self.with(|seen| {
            for ((pixels, images), &more) in seen.classes.iter_mut().zip(&counted.classes) {
                *pixels += more;
                *images += u64::from(more > 0);
            }
            seen.ignored += counted.ignored;
            seen.values.add(&counted.values);
        });
    }

    /// Returns what was collected.
    pub(super) fn into_seen(self) -> Seen {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, change: impl FnOnce(&mut Seen)) {
        // The sums are still valid after another thread panicked, so a poisoned lock is used as it is.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Seen {
    /// Adds a finding; keeps the [`EXAMPLES`] examples that come first in the list.
    pub(super) fn add(&mut self, code: Code, position: usize, example: impl Into<String>) {
        let (count, examples) = self.findings.entry(code).or_default();
        *count += 1;
        // An image has two files (image and label map), so a position can have two examples of one code.
        let mut place = 2 * position;
        if examples.contains_key(&place) {
            place += 1;
        }
        examples.entry(place).or_insert_with(|| example.into());
        if examples.len() > EXAMPLES {
            examples.pop_last();
        }
    }
}

impl Values {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.pixels += other.pixels;
        self.largest = self.largest.max(other.largest);
        self.with_zero += other.with_zero;
        self.zeros += other.zeros;
        self.ignored += other.ignored;
        self.border_wanted += other.border_wanted;
        self.border_found += other.border_found;
        self.one_above += other.one_above;
        for (storage, files) in &other.storage {
            *self.storage.entry(storage).or_default() += files;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_examples_in_the_list_are_kept_in_any_order_of_arrival() {
        let mut seen = Seen::default();
        for position in [9, 3, 7, 1, 8, 2, 4, 6, 5] {
            seen.add(Code::EmptyFile, position, position.to_string());
        }
        let (count, examples) = &seen.findings[&Code::EmptyFile];
        assert_eq!(*count, 9);
        let examples: Vec<&str> = examples.values().map(String::as_str).collect();
        assert_eq!(examples, ["1", "2", "3", "4", "5"]);
    }
}
