//! Checks of a split's lists and folders, before any image is opened.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::Subject;
use super::collector::Collector;
use super::finding::Code;
use crate::DataError;
use crate::datasets::SplitPair;
use crate::folder::Description;
use crate::selection::Source;

pub(super) fn examine(subject: &Subject, collector: &Collector) {
    defects(subject, collector);
    official_count(subject, collector);
    overlap(subject, collector);
    orphans(subject, collector);
}

/// Adds the defects that listing the split found.
fn defects(subject: &Subject, collector: &Collector) {
    for (number, defect) in subject.found.listing.defects.iter().enumerate() {
        let (code, text) = match defect {
            DataError::DuplicateId {
                list,
                id,
                first,
                second,
            } => {
                let list = subject.name(list);
                let text = format!("{list}: `{id}` in lines {first} and {second}");
                (Code::RepeatedId, text)
            }
            DataError::SameId { id, first, second } => {
                let (first, second) = (subject.name(first), subject.name(second));
                let text = format!("{first} and {second} have the id `{id}`");
                (Code::RepeatedId, text)
            }
            DataError::RawCocoLabels { folder, example } => {
                let text = format!("{} holds {example}", subject.name(folder));
                (Code::RawCocoIds, text)
            }
            DataError::LeftOut { files, .. } => {
                for (number, file) in files.iter().enumerate() {
                    collector.add(Code::LeftOutImages, number, subject.name(file));
                }
                continue;
            }
            other => (Code::UnconvertedLabels, other.to_string()),
        };
        collector.add(code, number, text);
    }
}

/// Checks whether the split has the official number of images, which published results are measured on.
fn official_count(subject: &Subject, collector: &Collector) {
    let Some(official) = subject.official() else {
        return;
    };
    let count = subject.dataset.len();
    if count != official.1 {
        let text = format!(
            "`{}` has {count} images here, but {} officially; scores are not comparable with published ones",
            official.0, official.1
        );
        collector.add(Code::NotTheOfficialSplit, 0, text);
    }
}

impl Subject<'_> {
    /// Returns the name and the number of images of the official split.
    pub(super) fn official(&self) -> Option<(&'static str, usize)> {
        match &self.found.source {
            Source::BuiltIn(entry) => {
                let official = entry.official(self.split)?;
                Some((official.name, official.images))
            }
            Source::Described(_) => None,
        }
    }
}

/// Checks whether a training split and a validation split share images.
fn overlap(subject: &Subject, collector: &Collector) {
    let source = &subject.found.source;
    let others: Vec<String> = match source {
        Source::BuiltIn(entry) => {
            let Some((own, _)) = subject.official() else {
                return;
            };
            let other = |pair: &SplitPair| match own {
                own if own == pair.train => Some(pair.val.to_owned()),
                own if own == pair.val => Some(pair.train.to_owned()),
                _ => None,
            };
            entry.held_out.iter().filter_map(other).collect()
        }
        Source::Described(description) => opposite_splits(description, subject.split),
    };
    let ids: HashSet<&str> = subject
        .dataset
        .items
        .iter()
        .map(|item| item.id.as_str())
        .collect();
    let mut known = HashSet::new();
    for other in others {
        // A split that does not exist cannot overlap.
        let Ok(listing) = source.list(subject.given, &other) else {
            continue;
        };
        for (place, item) in listing.items.iter().enumerate() {
            if ids.contains(item.id.as_str()) && known.insert(item.id.clone()) {
                let text = format!("`{}` is in {} and in {other}", item.id, subject.split);
                collector.add(Code::TrainValOverlap, place, text);
            }
        }
    }
}

/// Returns the splits of a description that should not share an image with `split`, judged by their names.
fn opposite_splits(description: &Description, split: &str) -> Vec<String> {
    let (own, splits) = (role(split), description.proper_splits());
    let opposite =
        |name: &&str| matches!((own, role(name)), (Some(own), Some(other)) if own != other);
    splits.filter(opposite).map(str::to_owned).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Training,
    Scoring,
}

fn role(split: &str) -> Option<Role> {
    let split = split.to_lowercase();
    let scoring = split.contains("val") || split.contains("test");
    match (split.contains("train"), scoring) {
        (true, false) => Some(Role::Training),
        (false, true) => Some(Role::Scoring),
        _ => None,
    }
}

/// Finds label files that belong to no image.
fn orphans(subject: &Subject, collector: &Collector) {
    let listed: HashSet<&Path> = subject
        .dataset
        .items
        .iter()
        .map(|item| item.labels.as_path())
        .collect();
    let root = subject.root;
    let mut place_in_list = 0;
    for place in &subject.found.listing.places {
        // A folder that cannot be read is reported through its missing files.
        let Ok(found) = place.images.scan(root) else {
            continue;
        };
        let found: HashSet<String> = found.into_iter().collect();
        for pattern in &place.labels {
            let ids = pattern.scan(root).unwrap_or_default();
            let lost = ids.into_iter().filter(|id| !found.contains(id));
            let files = lost.map(|id| (pattern.file(root, &id), id));
            let files: Vec<(PathBuf, String)> = files
                .filter(|(file, _)| !listed.contains(file.as_path()))
                .collect();
            for (file, id) in files {
                let name = subject.name(&file);
                let image = place.images.file(root, &id);
                match subject.in_other_case(&image) {
                    Some(other) => {
                        let text = format!(
                            "{} exists, but {name} belongs to {}",
                            subject.name(&other),
                            subject.name(&image)
                        );
                        collector.add(Code::CaseMismatch, place_in_list, text);
                    }
                    None => collector.add(Code::OrphanLabels, place_in_list, name),
                }
                place_in_list += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_have_roles_by_their_names() {
        for (split, expected) in [
            ("train", Some(Role::Training)),
            ("Train-small", Some(Role::Training)),
            ("val", Some(Role::Scoring)),
            ("test2", Some(Role::Scoring)),
            ("trainval", None),
            ("all", None),
        ] {
            assert!(role(split) == expected, "{split}");
        }
    }
}
