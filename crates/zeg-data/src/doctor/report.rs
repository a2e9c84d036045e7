//! The diagnosis of a split: its findings and counts, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::Subject;
use super::collector::Seen;
use super::finding::{Finding, Severity};
use crate::Selection;

/// The findings and counts of a split.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Diagnosis {
    /// The data set's name.
    pub dataset: String,
    /// The data set's title.
    pub title: String,
    /// The split's name, as requested.
    pub split: String,
    /// The class list.
    pub class_list: String,
    /// Number of images in the split.
    pub images: usize,
    /// Number of images whose content was examined.
    pub examined: usize,
    /// Number of images of the official split of this name; `None` if there is none.
    pub official: Option<usize>,
    /// Whether the split can be used, by its worst finding.
    pub verdict: Verdict,
    /// The findings, errors first, then warnings, then notes.
    pub findings: Vec<Finding>,
    /// Number of ignored pixels in the label files that were examined.
    pub ignored_pixels: u64,
    /// Number of pixels of seen classes.
    pub seen_pixels: u64,
    /// Number of pixels of unseen classes.
    pub unseen_pixels: u64,
    /// One entry per class, in label order.
    pub classes: Vec<ClassCount>,
}

/// Number of pixels and images of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClassCount {
    /// Class name.
    pub name: String,
    /// Whether the class is unseen.
    pub unseen: bool,
    /// Number of its pixels.
    pub pixels: u64,
    /// Its share of all pixels that have a class, 0 to 1.
    pub share: f64,
    /// Number of images with at least one pixel of the class.
    pub images: u64,
}

/// Overall result of an examination: whether the split can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// There is at least one error: training or scores would fail or be wrong.
    Broken,
    /// There is no error, but at least one warning.
    Suspicious,
    /// There is neither an error nor a warning.
    Healthy,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "broken: correct the errors before training or scoring",
            Self::Suspicious => "usable, but look at the warnings",
            Self::Healthy => "healthy",
        })
    }
}

/// Builds the diagnosis from the collected findings and counts.
pub(super) fn diagnosis(
    subject: &Subject,
    selection: &Selection,
    examined: usize,
    seen: Seen,
) -> Diagnosis {
    let mut findings: Vec<Finding> = seen
        .findings
        .into_iter()
        .map(|(code, (count, examples))| {
            let examples: Vec<String> = examples.into_values().collect();
            let headline = code.headline(count);
            Finding {
                severity: code.severity(),
                code,
                message: match examples.first() {
                    Some(first) => format!("{headline}: {first}"),
                    None => headline,
                },
                count,
                examples,
                remedy: code.remedy(),
            }
        })
        .collect();
    findings.sort_by_key(|finding| (finding.severity, finding.code));
    let set = &subject.dataset.classes;
    let labelled: u64 = seen.classes.iter().map(|(pixels, _)| pixels).sum();
    let classes: Vec<ClassCount> = seen
        .classes
        .iter()
        .zip(&set.classes)
        .zip(set.unseen_flags())
        .map(|((&(pixels, images), name), unseen)| ClassCount {
            name: name.clone(),
            unseen,
            pixels,
            share: pixels as f64 / labelled.max(1) as f64,
            images,
        })
        .collect();
    let pixels_of = |unseen: bool| {
        let classes = classes.iter().filter(move |class| class.unseen == unseen);
        classes.map(|class| class.pixels).sum()
    };
    Diagnosis {
        dataset: subject.dataset.name.clone(),
        title: subject.dataset.title.clone(),
        split: selection.split.to_owned(),
        class_list: set.name.clone(),
        images: subject.dataset.len(),
        examined,
        official: subject.official().map(|(_, images)| images),
        verdict: match findings.first().map(|finding| finding.severity) {
            Some(Severity::Error) => Verdict::Broken,
            Some(Severity::Warning) => Verdict::Suspicious,
            _ => Verdict::Healthy,
        },
        findings,
        ignored_pixels: seen.ignored,
        seen_pixels: pixels_of(false),
        unseen_pixels: pixels_of(true),
        classes,
    }
}

impl Diagnosis {
    /// Returns whether the split can be used.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}
