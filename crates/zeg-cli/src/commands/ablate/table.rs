//! The table of a suite: measured scores with the published ones beside them.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};
use zeg_base::plural::counted;

use anyhow::Context as _;
use serde::Serialize;
use zeg::eval::{
    Evaluation, Summary,
    published::{self, Row as Published},
    summary::Spread,
};

use super::{choose::Choice, run::Run, suite::Suite};
use crate::commands::place::Existing;

/// Name of the table's file in the folder of the suite.
const FILE_NAME: &str = "ablation.md";

/// The error for a file that is in the table's place.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: the file is no table of this command, so it is not replaced; move it away, or choose another folder with -o",
    .0.display()
)]
struct NoTable(PathBuf);

/// Returns the file of a suite's table; an earlier table is replaced, and nothing else.
///
/// # Errors
/// Returns an error if something else stands at the place, or if it cannot be read.
pub(super) fn place(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join(FILE_NAME);
    let place = Existing::Replace.place(&path)?;
    match fs::read(&place) {
        Ok(old) if is_table(&String::from_utf8_lossy(&old)) => Ok(place),
        Ok(_) => Err(NoTable(path).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(place),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Whether a text is a table of this command, or empty.
fn is_table(text: &str) -> bool {
    let begins = text.starts_with("# ") && text.contains("\n\nScored on ");
    text.is_empty() || begins && text.contains("\n| row | n |")
}

/// A scored run.
pub(super) struct Scored {
    row: String,
    /// Evaluation with the chosen offset, or with the experiment's.
    chosen: Evaluation,
    /// Evaluation with the seen offset 0, if an offset was chosen.
    uncalibrated: Option<Evaluation>,
}

impl Scored {
    /// Opens the records of a run; returns `None` if it has no scores yet.
    pub(super) fn of(run: &Run, choices: &[Choice]) -> Option<anyhow::Result<Self>> {
        let choice = choices.iter().find(|choice| choice.row == run.row.name);
        let open = || {
            let offset = choice.map_or(0.0, |choice| choice.offset);
            Ok(Self {
                row: run.row.name.clone(),
                chosen: Evaluation::open(run.record(offset))?,
                uncalibrated: choice
                    .map(|_| Evaluation::open(run.record(0.0)))
                    .transpose()?,
            })
        };
        run.has_scores().then(open)
    }
}

/// All rows with their scores.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Table {
    /// Title of the suite.
    title: String,
    /// Source of the published scores.
    source: Option<String>,
    /// Data set, split and number of images of the evaluation.
    scored_on: String,
    /// Whether these are all images of the official split, as in the published scores.
    official: bool,
    rows: Vec<TableRow>,
}

/// A row with its scores.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct TableRow {
    /// Its name.
    name: String,
    /// Scores over the runs of the row.
    scores: Summary,
    /// Scores with the seen offset 0, if an offset was chosen.
    uncalibrated: Option<Summary>,
    /// Settings that were chosen for the row, if the suite chooses any.
    choice: Option<Choice>,
    /// Published scores of the row, if there are any.
    published: Option<PublishedScores>,
}

/// Published scores in percent; the hIoU is recomputed from the mIoU of seen and unseen classes.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct PublishedScores {
    /// Name of the method in the publication.
    method: String,
    /// Pixel accuracy in percent.
    p_acc: Option<f64>,
    /// Mean IoU of the seen classes in percent.
    #[serde(rename = "miou_seen")]
    seen: Option<f64>,
    /// Mean IoU of the unseen classes in percent.
    #[serde(rename = "miou_unseen")]
    unseen: Option<f64>,
    /// Harmonic mean of the two, in percent.
    hiou: Option<f64>,
}

impl Table {
    pub(super) fn new(
        suite: &Suite,
        scored: &[Scored],
        choices: &[Choice],
    ) -> anyhow::Result<Self> {
        let published = suite.table.as_deref().and_then(published::table);
        let mut table = Self {
            title: suite.title.clone(),
            source: published.map(|table| table.source.clone()),
            scored_on: String::new(),
            official: false,
            rows: Vec::new(),
        };
        for row in &suite.rows {
            let runs = || scored.iter().filter(|run| run.row == row.name);
            let records: Vec<Evaluation> = runs().map(|run| run.chosen.clone()).collect();
            let plain = runs().filter_map(|run| run.uncalibrated.clone());
            let plain: Vec<Evaluation> = plain.collect();
            let Some(first) = records.first() else {
                continue;
            };
            table.scored_on = format!(
                "{} {}, {}",
                first.benchmark.title,
                first.benchmark.split,
                counted(first.images, "image")
            );
            table.official = !first.is_subset() && first.benchmark.official_images.is_some();
            // A data set without published scores has those of VOC beside it, to compare the order of the rows.
            let own = &first.benchmark.dataset;
            let has_own =
                published.is_some_and(|table| table.rows.iter().any(|row| row.benchmark == *own));
            let benchmark = if has_own { own.as_str() } else { "voc12" };
            let of_row = |published: &&Published| {
                published.benchmark == benchmark
                    && published.protocol == first.protocol
                    && Some(&published.method) == row.published.as_ref()
            };
            table.rows.push(TableRow {
                name: row.name.clone(),
                scores: summary(&records, suite)?,
                uncalibrated: match &plain[..] {
                    [] => None,
                    plain => Some(summary(plain, suite)?),
                },
                choice: choices.iter().find(|c| c.row == row.name).cloned(),
                published: published
                    .and_then(|table| table.rows.iter().find(of_row))
                    .map(|row| PublishedScores {
                        method: row.method.clone(),
                        p_acc: row.p_acc,
                        seen: row.seen,
                        unseen: row.unseen,
                        hiou: row.recomputed_hiou(),
                    }),
            });
        }
        Ok(table)
    }

    /// Returns the table as Markdown, in percent.
    pub(super) fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n\nScored on {}. ", self.title, self.scored_on);
        text.push_str(
            "Means over the n runs of a row ± sample standard deviation; hIoU is the mean of the runs' hIoU.",
        );
        if let Some(source) = &self.source {
            let _ = write!(
                text,
                " Published: {source}, pAcc / S / U / hIoU (recomputed)"
            );
            text.push_str(if self.official {
                "."
            } else {
                ", on the official images with the full training budget: not comparable, shown for the order of the rows."
            });
        }
        let chosen = self.rows.iter().any(|row| row.choice.is_some());
        if chosen {
            text.push_str(
                " Each row's settings and seen offset were chosen on other images; offset 0 treats seen and unseen \
                 classes alike.",
            );
        }
        text.push_str("\n\n| row | n |");
        if chosen {
            text.push_str(" chosen | U at 0 | hIoU at 0 |");
        }
        text.push_str(" pAcc | mIoU(S) | mIoU(U) | hIoU | published |\n|---|---:|");
        if chosen {
            text.push_str("---|---:|---:|");
        }
        text.push_str("---:|---:|---:|---:|---|\n");
        for row in &self.rows {
            let _ = writeln!(text, "{}", row.to_markdown(chosen));
        }
        text
    }
}

/// Summarises the runs of a row.
///
/// Variants may differ in their classes, so their reports are averaged without the check that they are comparable.
fn summary(records: &[Evaluation], suite: &Suite) -> anyhow::Result<Summary> {
    let Some(first) = records.first().filter(|_| !suite.variants.is_empty()) else {
        return Ok(Summary::of(records)?);
    };
    let reports = records.iter().map(Evaluation::report);
    let reports = reports.collect::<Result<Vec<_>, _>>()?;
    Ok(Summary::of_reports(&reports, first.metric))
}

impl TableRow {
    /// Returns a line of the table.
    ///
    /// - `has_choice`: whether the table has the columns of the choice
    fn to_markdown(&self, has_choice: bool) -> String {
        let measured =
            |spread: &Option<Spread>| spread.map_or_else(|| "–".to_owned(), |s| s.percent());
        let figure =
            |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.1}"));
        let scores = &self.scores;
        let mut text = format!("| {} | {} |", self.name, scores.runs);
        if has_choice {
            let choice = self.choice.as_ref().map_or_else(String::new, |choice| {
                let offset = format!("offset {}", choice.offset);
                let settings = choice.settings.iter().map(|s| s.replace('|', "\\|"));
                settings.chain([offset]).collect::<Vec<_>>().join(", ")
            });
            let plain = |of: fn(&Summary) -> &Option<Spread>| {
                self.uncalibrated
                    .as_ref()
                    .map_or_else(|| "–".to_owned(), |plain| measured(of(plain)))
            };
            let (unseen, hiou) = (plain(|s| &s.miou_unseen), plain(|s| &s.hiou));
            let _ = write!(text, " {choice} | {unseen} | {hiou} |");
        }
        let published = self.published.as_ref().map_or_else(String::new, |p| {
            let figures = [p.p_acc, p.seen, p.unseen, p.hiou].map(figure).join(" / ");
            format!("{}: {figures}", p.method.replace('|', "\\|"))
        });
        let _ = write!(
            text,
            " {} | {} | {} | {} | {published} |",
            measured(&scores.p_acc),
            measured(&scores.miou_seen),
            measured(&scores.miou_unseen),
            measured(&scores.hiou),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_table_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE_NAME);
        assert_eq!(place(folder.path()).unwrap(), file);
        let table = "# Designs\n\nScored on mini, test, 4 images. Means\n\n| row | n | pAcc |\n|---|---:|---:|\n";
        for old in ["", table] {
            fs::write(&file, old).unwrap();
            assert!(place(folder.path()).is_ok(), "{old}");
        }
        for own in ["my notes\n", "# Ablation\n\nWhat I scored on Monday.\n"] {
            fs::write(&file, own).unwrap();
            let error = place(folder.path()).unwrap_err();
            assert!(error.is::<NoTable>(), "{error}");
        }
    }
}
