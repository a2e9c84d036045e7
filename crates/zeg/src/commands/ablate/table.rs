//! The table of a suite: what was measured, and what was published beside it.

use std::{fmt::Write as _, path::PathBuf};

use serde::Serialize;
use zeg::eval::{
    Evaluation, Summary,
    published::{self, Row as Published},
    summary::Spread,
};

use super::{
    record,
    suite::{Row, Suite},
};

/// All rows with their scores.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    title: String,
    /// Where the published figures are from.
    source: Option<String>,
    /// What was scored on: data set, split and number of pictures.
    scored_on: String,
    /// Whether these pictures are the official ones; published figures are of those.
    official: bool,
    rows: Vec<TableRow>,
}

#[derive(Debug, Serialize)]
struct TableRow {
    name: String,
    scores: Summary,
    published: Option<PublishedScores>,
}

/// Fractions of 100, as published; hIoU recomputed.
#[derive(Debug, Serialize)]
struct PublishedScores {
    method: String,
    #[serde(rename = "pAcc")]
    p_acc: Option<f64>,
    #[serde(rename = "mIoU_seen")]
    seen: Option<f64>,
    #[serde(rename = "mIoU_unseen")]
    unseen: Option<f64>,
    #[serde(rename = "hIoU")]
    hiou: Option<f64>,
}

impl Table {
    /// - `scored`: a row and the folder of a record, for every run that is scored
    pub(super) fn new(suite: &Suite, scored: &[(&Row, PathBuf)]) -> anyhow::Result<Self> {
        let published = suite.table.as_deref().and_then(published::table);
        let mut table = Self {
            title: suite.title.clone(),
            source: published.map(|table| table.source.clone()),
            scored_on: String::new(),
            official: false,
            rows: Vec::new(),
        };
        for row in &suite.rows {
            let records = scored
                .iter()
                .filter(|(of, _)| of.name == row.name)
                .map(|(_, folder)| record(folder))
                .collect::<anyhow::Result<Vec<Evaluation>>>()?;
            let Some(first) = records.first() else {
                continue;
            };
            table.scored_on = format!(
                "{} {}, {} pictures",
                first.benchmark.title, first.benchmark.split, first.images
            );
            table.official = !first.is_subset() && first.benchmark.official_pictures.is_some();
            let of_row = |published: &&Published| {
                published.benchmark == first.benchmark.dataset
                    && Some(&published.method) == row.published.as_ref()
            };
            table.rows.push(TableRow {
                name: row.name.clone(),
                scores: Summary::of(&records)?,
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

    /// Markdown, in percent.
    pub(super) fn to_markdown(&self) -> String {
        let mut text = format!("# {}\n\nScored on {}. ", self.title, self.scored_on);
        text.push_str(
            "Means over seeds ± sample standard deviation; hIoU is the mean of the runs' hIoU.",
        );
        if let Some(source) = &self.source {
            let _ = write!(
                text,
                " Published: {source}, pAcc / S / U / hIoU (recomputed)"
            );
            text.push_str(if self.official {
                "."
            } else {
                ", of the official pictures and the full budget: not comparable, beside for the order of rows."
            });
        }
        text.push_str("\n\n| row | n | pAcc | mIoU(S) | mIoU(U) | hIoU | published |\n");
        text.push_str("|---|---:|---:|---:|---:|---:|---|\n");
        let measured =
            |spread: &Option<Spread>| spread.map_or_else(|| "–".to_owned(), |s| s.percent());
        let figure =
            |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |v| format!("{v:.1}"));
        for row in &self.rows {
            let scores = &row.scores;
            let published = row.published.as_ref().map_or_else(String::new, |p| {
                let figures = [p.p_acc, p.seen, p.unseen, p.hiou].map(figure).join(" / ");
                format!("{}: {figures}", p.method.replace('|', "\\|"))
            });
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {published} |",
                row.name,
                scores.runs,
                measured(&scores.p_acc),
                measured(&scores.miou_seen),
                measured(&scores.miou_unseen),
                measured(&scores.hiou),
            );
        }
        text
    }
}
