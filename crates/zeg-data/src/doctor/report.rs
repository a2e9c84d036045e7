//! The diagnosis: findings and counts, for people and for programs.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use super::Patient;
use super::collector::Seen;
use super::finding::{Finding, Severity};
use crate::Selection;

/// Columns of the table of findings where no terminal says how many there are.
const WIDTH: u16 = 120;

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
    /// Pictures in the split.
    pub pictures: usize,
    /// Pictures whose content was examined.
    pub examined: usize,
    /// Pictures of the official split of this name.
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
    /// Pictures with at least one pixel of it.
    pub pictures: u64,
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
        .map(|((&(pixels, pictures), name), unseen)| ClassCount {
            name: name.clone(),
            unseen,
            pixels,
            share: pixels as f64 / labelled.max(1) as f64,
            pictures,
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
        pictures: patient.dataset.len(),
        examined,
        official: patient.official().map(|(_, pictures)| pictures),
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

    /// The diagnosis for people: a row a class, a row a finding, then the verdict.
    pub fn to_table(&self) -> String {
        let official = self
            .official
            .map_or_else(String::new, |official| format!(" (officially {official})"));
        let all = self.ignored_pixels + self.seen_pixels + self.unseen_pixels;
        let part = |pixels: u64| 100.0 * pixels as f64 / all.max(1) as f64;
        let count = |severity: Severity| {
            let findings = self.findings.iter();
            let count = findings
                .filter(|finding| finding.severity == severity)
                .count();
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {}{plural}", severity.name())
        };
        let mut parts = vec![format!(
            "{}, split {}, class list {}: {} pictures{official}, {} examined",
            self.title, self.split, self.class_list, self.pictures, self.examined
        )];
        if all > 0 {
            parts.push(self.class_table().to_string());
            parts.push(format!(
                "pixels: {:.2} % seen classes, {:.2} % unseen classes, {:.2} % no class",
                part(self.seen_pixels),
                part(self.unseen_pixels),
                part(self.ignored_pixels)
            ));
        }
        if !self.findings.is_empty() {
            parts.push(self.finding_table().to_string());
        }
        parts.push(format!(
            "{}, {}, {}; {}\n",
            count(Severity::Error),
            count(Severity::Warning),
            count(Severity::Note),
            self.verdict
        ));
        parts.join("\n\n")
    }

    fn class_table(&self) -> Table {
        let mut classes = table(&["class", "split", "pictures", "pixels", "share"]);
        for class in &self.classes {
            classes.add_row([
                class.name.clone(),
                if class.unseen { "unseen" } else { "seen" }.to_owned(),
                class.pictures.to_string(),
                class.pixels.to_string(),
                format!("{:.3} %", 100.0 * class.share),
            ]);
        }
        for column in classes.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        classes
    }

    fn finding_table(&self) -> Table {
        let mut findings = table(&["", "finding", "what and where", "what to do"]);
        findings.set_content_arrangement(ContentArrangement::Dynamic);
        if findings.width().is_none() {
            findings.set_width(WIDTH); // not a terminal
        }
        for finding in &self.findings {
            let mut lines = vec![finding.message.clone()];
            lines.extend(finding.examples.iter().skip(1).cloned());
            let rest = finding.count.saturating_sub(finding.examples.len());
            if rest > 0 && finding.examples.len() > 1 {
                lines.push(format!("and {rest} more"));
            }
            findings.add_row([
                finding.severity.name(),
                finding.code.as_str(),
                &lines.join("\n"),
                finding.remedy,
            ]);
        }
        findings
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(header.iter().copied());
    table
}
