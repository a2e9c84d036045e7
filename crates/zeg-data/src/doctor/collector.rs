//! What the threads have seen so far, in amounts that do not grow with the number of findings.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::finding::Code;

/// How many examples of a finding are kept.
const EXAMPLES: usize = 5;

/// Takes what the threads find.
pub(super) struct Collector(Mutex<Seen>);

/// Everything seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Count and first examples of every finding, by the position of the image in the list.
    pub(super) findings: BTreeMap<Code, (usize, BTreeMap<usize, String>)>,
    /// Pixels of every class, and images that have any.
    pub(super) classes: Vec<(u64, u64)>,
    /// Pixels of no class.
    pub(super) ignored: u64,
    /// What label files store, over all files.
    pub(super) values: Values,
    /// Size and hash of every image, with its position in the list.
    pub(super) hashes: Vec<(u64, u64, usize)>,
}

/// Sums over index label files, for what only the whole can tell.
#[derive(Default, Clone)]
pub(super) struct Values {
    /// Label files that were read.
    pub(super) files: u64,
    /// Their pixels.
    pub(super) pixels: u64,
    /// The largest value that is neither ignored nor beyond one more than the legal ones.
    pub(super) largest: Option<u16>,
    /// Files with the value 0, and its pixels.
    pub(super) with_zero: u64,
    pub(super) zeros: u64,
    /// Pixels of ignored values.
    pub(super) ignored: u64,
    /// Files that should have a border, and those that have.
    pub(super) border_wanted: u64,
    pub(super) border_found: u64,
    /// Files by how they store labels.
    pub(super) storage: BTreeMap<&'static str, u64>,
    /// Files whose only illegal value is one above the last.
    pub(super) one_above: u64,
}

/// What a label file holds.
#[derive(Default)]
pub(super) struct Counted {
    /// Pixels of every class.
    pub(super) classes: Vec<u64>,
    /// Pixels of no class.
    pub(super) ignored: u64,
    /// The file's share in the sums.
    pub(super) values: Values,
}

impl Collector {
    pub(super) fn new(classes: usize) -> Self {
        Self(Mutex::new(Seen {
            classes: vec![(0, 0); classes],
            ..Seen::default()
        }))
    }

    /// Notes a finding about the image at `position` of the list.
    pub(super) fn add(&self, code: Code, position: usize, example: impl Into<String>) {
        self.with(|seen| seen.add(code, position, example));
    }

    /// Notes an image's content.
    pub(super) fn add_hash(&self, size: u64, hash: u64, position: usize) {
        self.with(|seen| seen.hashes.push((size, hash, position)));
    }

    /// Adds what a label file holds.
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

    /// The end of collecting.
    pub(super) fn into_seen(self) -> Seen {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, change: impl FnOnce(&mut Seen)) {
        // Sums stay sums if another thread panicked.
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Seen {
    /// Notes a finding; of more than a few, the first in the list are kept.
    pub(super) fn add(&mut self, code: Code, position: usize, example: impl Into<String>) {
        let (count, examples) = self.findings.entry(code).or_default();
        *count += 1;
        // An image has two files, and a file may have two faults of a kind.
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
