//! Fingerprints: the named facts that a stored result follows from.
//!
//! A cache, a checkpoint or a record of scores belongs to the weights, labels, class names and settings that it was made
//! with. A [`Fingerprint`] names each of them, so that a result is not used with others, and the difference can be told
//! by its name.
//!
//! ```
//! use zeg_base::fingerprint::Fingerprint;
//!
//! let then = Fingerprint::new().with("label rule: threshold", 128);
//! let now = Fingerprint::new().with("label rule: threshold", 1);
//! let difference = then.check(&now).unwrap_err();
//! assert_eq!(difference.to_string(), "label rule: threshold 128 then, 1 now");
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hex;

/// Separates the group of a part from the rest of its name.
const GROUP: &str = ": ";
/// Largest number of characters of a value in a message; the digits of a SHA-256 fit.
const SHOWN: usize = 64;
/// Number of equal characters that a message shows before the first difference of long values.
const CONTEXT: usize = 16;
/// Value in a message of a part that a fingerprint lacks.
const NOT_SET: &str = "not set";

/// The named facts that a stored result follows from.
///
/// It is serialised as a map of texts. The name of a part may begin with a group, as `label rule: threshold`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// Returns a fingerprint without parts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part; it replaces one of the same name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl fmt::Display) -> Self {
        self.0.insert(name.into(), value.to_string());
        self
    }

    /// Adds all parts of another fingerprint.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Returns the same parts in a group of their own: `group: ` comes before every name.
    #[must_use]
    pub fn grouped(&self, group: &str) -> Self {
        let parts = self.0.iter();
        Self(
            parts
                .map(|(name, value)| (format!("{group}{GROUP}{name}"), value.clone()))
                .collect(),
        )
    }

    /// Returns the parts whose names `keep` accepts.
    #[must_use]
    pub fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let parts = self.0.iter().filter(|(name, _)| keep(name));
        Self(parts.map(|(a, b)| (a.clone(), b.clone())).collect())
    }

    /// Returns whether there is no part, as in files of versions that did not write fingerprints.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value of a part.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Checks that every part that both fingerprints have is the same; `self` is that of the stored result.
    ///
    /// # Errors
    /// Returns all parts that differ.
    pub fn check(&self, now: &Self) -> Result<(), Mismatch> {
        let differs = |(name, then): (&String, &String)| {
            let now = now.0.get(name).filter(|now| *now != then)?;
            Some(Difference {
                name: name.clone(),
                then: then.clone(),
                now: now.clone(),
            })
        };
        Mismatch::of(self.0.iter().filter_map(differs).collect())
    }

    /// Checks that both fingerprints have the same parts with the same values; `self` is that of the stored result.
    ///
    /// # Errors
    /// Returns all parts that differ; one that a fingerprint lacks has the value `not set` there.
    pub fn check_all(&self, now: &Self) -> Result<(), Mismatch> {
        let names: BTreeSet<&String> = self.0.keys().chain(now.0.keys()).collect();
        let value = |of: &Self, name: &str| of.get(name).unwrap_or(NOT_SET).to_owned();
        let differ = |name: &&String| self.0.get(*name) != now.0.get(*name);
        let differences = names.into_iter().filter(differ);
        let differences = differences.map(|name| Difference {
            name: name.clone(),
            then: value(self, name),
            now: value(now, name),
        });
        Mismatch::of(differences.collect())
    }

    /// Returns what [`Fingerprint::check`] could not compare: the groups of the parts that the stored result lacks.
    pub fn unverified(&self, now: &Self) -> Vec<String> {
        let missing = now.0.keys().filter(|name| !self.0.contains_key(*name));
        let groups: BTreeSet<&str> = missing
            .map(|name| {
                name.split_once(GROUP)
                    .map_or(name.as_str(), |(group, _)| group)
            })
            .collect();
        groups.into_iter().map(str::to_owned).collect()
    }

    /// Returns the SHA-256 of all parts in lower-case hexadecimal digits, such as for the name of a file.
    pub fn digest(&self) -> String {
        digest(self.0.iter().flat_map(|(name, value)| [name, value]))
    }
}

/// Returns the SHA-256 of a list of texts or bytes in lower-case hexadecimal digits.
///
/// Each is preceded by its length, so that no two lists give the same bytes.
pub fn digest(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex::encode(hasher.finalize())
}

/// The parts in which a stored result differs from what is there now; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The parts, sorted by name.
    pub differences: Vec<Difference>,
}

/// A part in which two fingerprints differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Name of the part.
    pub name: String,
    /// Value of the stored result.
    pub then: String,
    /// Value now.
    pub now: String,
}

impl Difference {
    /// Returns both values for a message: long values only around their first difference.
    pub fn shown(&self) -> [String; 2] {
        let pairs = self.then.chars().zip(self.now.chars());
        let same = pairs.take_while(|(a, b)| a == b).count();
        [&self.then, &self.now].map(|value| around(value, same))
    }
}

/// Returns a text, or the part of a long one that begins shortly before character `position`.
fn around(text: &str, position: usize) -> String {
    let length = text.chars().count();
    if length <= SHOWN {
        return text.to_owned();
    }
    let start = position.saturating_sub(CONTEXT).min(length - SHOWN);
    let part: String = text.chars().skip(start).take(SHOWN).collect();
    let before = if start > 0 { "…" } else { "" };
    let after = if start + SHOWN < length { "…" } else { "" };
    format!("{before}{part}{after}")
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [then, now] = self.shown();
        write!(f, "{} {then} then, {now} now", self.name)
    }
}

impl Mismatch {
    /// Returns the mismatch of these parts as an error; without parts, there is none.
    fn of(differences: Vec<Difference>) -> Result<(), Self> {
        if differences.is_empty() {
            Ok(())
        } else {
            Err(Self { differences })
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, difference) in self.differences.iter().enumerate() {
            let separator = if number > 0 { "; " } else { "" };
            write!(f, "{separator}{difference}")?;
        }
        Ok(())
    }
}

impl Error for Mismatch {}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Fingerprint {
        Fingerprint::new()
            .with("label rule: kind", "binary")
            .with("label rule: threshold", 128)
            .with("weights: SHA-256", "ab")
    }

    #[test]
    fn every_difference_is_told_by_its_name_with_both_values() {
        assert_eq!(stored().check(&stored()), Ok(()));
        let now = stored()
            .with("label rule: threshold", 1)
            .with("weights: SHA-256", "cd");
        assert_eq!(
            stored().check(&now).unwrap_err().to_string(),
            "label rule: threshold 128 then, 1 now; weights: SHA-256 ab then, cd now"
        );
        assert_ne!(stored().digest(), now.digest());
    }

    #[test]
    fn parts_that_an_earlier_version_did_not_write_are_unverified_and_no_difference() {
        let earlier = stored().only(|name| name.starts_with("weights"));
        assert_eq!(earlier.check(&stored()), Ok(()));
        assert_eq!(earlier.unverified(&stored()), ["label rule"]);
        assert_eq!(
            Fingerprint::new().unverified(&stored()),
            ["label rule", "weights"]
        );
        assert!(stored().unverified(&earlier).is_empty());
    }

    #[test]
    fn a_part_that_one_of_two_equal_results_lacks_is_a_difference() {
        assert_eq!(stored().check_all(&stored()), Ok(()));
        let now = Fingerprint::new()
            .with("label rule: kind", "binary")
            .with("label rule: threshold", 1)
            .with("model", "mini");
        let mismatch = stored().check_all(&now).unwrap_err();
        assert_eq!(
            mismatch.to_string(),
            "label rule: threshold 128 then, 1 now; model not set then, mini now; weights: SHA-256 ab then, not set now"
        );
    }

    #[test]
    fn long_values_are_shown_around_their_first_difference() {
        let names = |last: &str| format!("{}{last}{}", "cat, ".repeat(50), ", sofa".repeat(50));
        let (then, now) = (names("dog"), names("cow"));
        let then = Fingerprint::new().with("class list: names", then);
        let now = Fingerprint::new().with("class list: names", now);
        let text = then.check(&now).unwrap_err().to_string();
        assert!(
            text.contains("cat, dog, sofa") && text.contains("cat, cow, sofa"),
            "{text}"
        );
        assert!(text.chars().count() < 200, "{text}");
    }

    #[test]
    fn the_digest_depends_on_the_borders_of_the_parts() {
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        let parts = |name: &str, value: &str| Fingerprint::new().with(name, value).digest();
        assert_ne!(parts("ab", "c"), parts("a", "bc"));
    }

    #[test]
    fn a_fingerprint_is_a_map_of_texts_in_a_file() {
        let text = r#"{"label rule: kind":"binary","label rule: threshold":"128","weights: SHA-256":"ab"}"#;
        assert_eq!(serde_json::from_str::<Fingerprint>(text).unwrap(), stored());
        assert_eq!(serde_json::to_string(&stored()).unwrap(), text);
    }

    #[test]
    fn a_group_is_put_before_every_name() {
        let parts = Fingerprint::new().with("files: sizes", 3);
        let grouped = parts.grouped("evaluation split");
        assert_eq!(grouped.get("evaluation split: files: sizes"), Some("3"));
        assert_eq!(grouped.get("files: sizes"), None);
        assert_eq!(
            Fingerprint::new().unverified(&grouped),
            ["evaluation split".to_owned()]
        );
    }
}
