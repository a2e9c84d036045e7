//! The diagnosis: findings and counts, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::Patient;
use super::collector::Seen;
use super::finding::{Finding, Severity};
use crate::Selection;

/// What the doctor found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The data set's name.
    pub dataset: String,
    /// Its title.
    pub title: String,
    /// The split as it was named.
    pub split: String,
    /// The class list.
    pub class_list: String,
    /// Images in the split.
    pub images: usize,
    /// Images whose content was examined.
    pub examined: usize,
    /// Images of the official split of this name.
    pub official: Option<usize>,
    /// The worst of the findings.
    pub verdict: Verdict,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// Pixels without a class in the label files that were examined.
    pub ignored_pixels: u64,
    /// Pixels of seen classes.
    pub seen_pixels: u64,
    /// Pixels of unseen classes.
    pub unseen_pixels: u64,
    /// One entry a class, in label order.
    pub classes: Vec<ClassCount>,
}

/// How often a class occurs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassCount {
    /// Class name.
    pub name: String,
    /// Whether the class is unseen.
    pub unseen: bool,
    /// Its pixels.
    pub pixels: u64,
    /// Its part of all pixels that have a class, 0 to 1.
    pub share: f64,
    /// Images with at least one pixel of it.
    pub images: u64,
}

/// Whether the split can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// There is an error: training or scores would fail or be wrong.
    Broken,
    /// There is a warning to look at.
    Suspicious,
    /// There is neither.
    Healthy,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Broken => "broken: correct the errors before anything is trained or scored",
            Self::Suspicious => "usable, with something to look at",
            Self::Healthy => "healthy",
        })
    }
}

/// Puts together what was seen.
pub(super) fn diagnosis(
    patient: &Patient,
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
    let set = &patient.dataset.classes;
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
        dataset: patient.dataset.name.clone(),
        title: patient.dataset.title.clone(),
        split: selection.split.to_owned(),
        class_list: set.name.clone(),
        images: patient.dataset.len(),
        examined,
        official: patient.official().map(|(_, images)| images),
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
    /// Whether the split can be used.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }
}
