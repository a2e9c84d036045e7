//! Recognises lists in other forms than that of a class list: JSON, YAML, tables with a header, numbered lists.
//!
//! Read as class names, they would give classes called `0: cat` or `["cat"`, which a text tower encodes without an error.

use std::path::Path;

use thiserror::Error;
use zeg_base::content::{StandIn, stand_in};

/// Words in the header of a table of classes.
const HEADER_WORDS: [&str; 21] = [
    "id",
    "idx",
    "index",
    "no",
    "number",
    "label",
    "labels",
    "name",
    "names",
    "class",
    "classes",
    "class_id",
    "class_name",
    "category",
    "categories",
    "color",
    "colour",
    "r",
    "g",
    "b",
    "synonyms",
];
/// Characters that separate a number from the name after it.
const AFTER_NUMBER: [char; 8] = [':', ',', ';', '.', ')', '|', '\t', ' '];

/// A form of a list that is not that of a class list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OtherForm {
    /// JSON.
    #[error("JSON")]
    Json,
    /// YAML.
    #[error("YAML")]
    Yaml,
    /// The text form of protocol buffers, such as a label map of TensorFlow.
    #[error("a text protocol buffer")]
    Protobuf,
    /// XML.
    #[error("XML")]
    Xml,
    /// A table whose first line names its columns.
    #[error("the header of a table")]
    Header,
    /// HTML, such as the page that a failed download leaves.
    #[error("a web page")]
    WebPage,
    /// The text that Git LFS stores in the place of a file.
    #[error("a Git LFS pointer")]
    GitLfsPointer,
}

/// File extensions of other forms.
pub(super) const ENDINGS: [(&str, OtherForm); 6] = [
    ("json", OtherForm::Json),
    ("jsonl", OtherForm::Json),
    ("yaml", OtherForm::Yaml),
    ("yml", OtherForm::Yaml),
    ("pbtxt", OtherForm::Protobuf),
    ("xml", OtherForm::Xml),
];

/// Returns the form that the extension of a file stands for, if it is not that of a class file.
pub(super) fn of_extension(file: &Path) -> Option<OtherForm> {
    let extension = file.extension()?.to_str()?;
    let mut endings = ENDINGS.into_iter();
    let found = endings.find(|(ending, _)| extension.eq_ignore_ascii_case(ending));
    found.map(|(_, form)| form)
}

/// Returns the form of a whole text whose beginning shows that it is not a class list.
pub(super) fn of_start(text: &str) -> Option<OtherForm> {
    match stand_in(text.as_bytes())? {
        StandIn::GitLfsPointer => Some(OtherForm::GitLfsPointer),
        StandIn::WebPage => Some(OtherForm::WebPage),
        StandIn::Xml => Some(OtherForm::Xml),
        StandIn::Json => Some(OtherForm::Json),
        _ => None,
    }
}

/// Returns the form of a line that is not a class.
///
/// - `is_first`: whether the line is the first with content
pub(super) fn of_line(line: &str, is_first: bool, file: &Path) -> Option<OtherForm> {
    let is_header = || {
        let words: Vec<&str> = line.split([',', ';', '|']).map(str::trim).collect();
        let is_csv = file
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        let known = |word: &&str| HEADER_WORDS.contains(&word.to_lowercase().as_str());
        (words.len() > 1 || is_csv) && words.iter().all(known)
    };
    if line.starts_with("- ") || line == "---" || line.ends_with(':') {
        Some(OtherForm::Yaml)
    } else if line.ends_with('{') || line == "}" {
        Some(OtherForm::Protobuf)
    } else if is_first && is_header() {
        Some(OtherForm::Header)
    } else {
        None
    }
}

/// Returns whether all entries begin with numbers that count up from 0 or 1, as in `0: cat`, `1: dog`.
pub(super) fn is_numbered(entries: &[&str]) -> bool {
    let numbers: Option<Vec<u64>> = entries.iter().map(|entry| leading_number(entry)).collect();
    numbers.is_some_and(|numbers| {
        numbers.len() > 1
            && numbers.first().is_some_and(|first| *first <= 1)
            && numbers.is_sorted_by(|a, b| a < b)
    })
}

/// Returns the number before the name in an entry.
fn leading_number(entry: &str) -> Option<u64> {
    let entry = entry.trim();
    let rest = entry.trim_start_matches(|character: char| character.is_ascii_digit());
    let number = entry.strip_suffix(rest)?.parse().ok()?;
    let name = rest.strip_prefix(AFTER_NUMBER)?.trim();
    (!name.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_pointers_are_no_class_lists() {
        for (text, expected) in [
            ("<!DOCTYPE html>\n<html>", Some(OtherForm::WebPage)),
            (
                "version https://git-lfs.github.com/spec/v1\noid sha256:0",
                Some(OtherForm::GitLfsPointer),
            ),
            ("<?xml version=\"1.0\"?>", Some(OtherForm::Xml)),
            ("{\"error\": \"not found\"}", Some(OtherForm::Json)),
            ("cat\ndog\n", None),
            ("", None),
        ] {
            assert_eq!(of_start(text), expected, "{text}");
        }
    }

    #[test]
    fn numbered_entries_count_up_from_0_or_1() {
        for entries in [
            &["0: cat", "1: dog"][..],
            &["1 cat", "2 dog", "10 cow"],
            &["0,cat", "1,dog"],
            &["1. cat", "2. dog"],
        ] {
            assert!(is_numbered(entries), "{entries:?}");
        }
        for entries in [
            &["1 dollar bill"][..],
            &["7 up", "8 ball"],
            &["3d printer", "4d film"],
            &["1 cat", "dog"],
            &["0", "1"],
            &[],
        ] {
            assert!(!is_numbered(entries), "{entries:?}");
        }
    }
}
