//! Formats a diagnosis as tables for people.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use zeg_base::plural::counted;

use super::{Diagnosis, Severity};

/// Width of the table of findings, in characters, if the output is not a terminal.
const WIDTH: u16 = 120;

impl Diagnosis {
    /// Returns the diagnosis as text: a table with a row per class, a table with a row per finding, then the verdict.
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
            counted(count, severity.name())
        };
        let mut parts = vec![format!(
            "{}, split {}, class list {}: {}{official}, {} examined",
            self.title,
            self.split,
            self.class_list,
            counted(self.images, "image"),
            self.examined
        )];
        if all > 0 {
            parts.push(self.class_table().to_string());
            parts.push(format!(
                "pixels: {:.2} % seen classes, {:.2} % unseen classes, {:.2} % ignored",
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
        let mut classes = table(&["class", "split", "images", "pixels", "share"]);
        for class in &self.classes {
            classes.add_row([
                class.name.clone(),
                if class.unseen { "unseen" } else { "seen" }.to_owned(),
                class.images.to_string(),
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
            findings.set_width(WIDTH);
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
