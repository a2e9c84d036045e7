//! Evaluation with several seen offsets: the scores of a model are computed once and labelled with each offset.

use std::path::{Path, PathBuf};

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use zeg::eval::Report;

use super::scores::{EvalDocument, ScoredModels};
use crate::commands::{JsonTarget, json::Failure, write_result};

/// Returns the folder for the record of one offset.
///
/// - `records`: folder of the model's records
pub(crate) fn folder(records: &Path, offset: f32) -> PathBuf {
    records.join(format!("offset-{offset}"))
}

/// Returns the folders of a model's records: the folder itself without offsets, or one in it for every offset.
pub(crate) fn folders(records: &Path, offsets: &[f32]) -> Vec<PathBuf> {
    match offsets {
        [] => vec![records.to_owned()],
        offsets => offsets
            .iter()
            .map(|&offset| folder(records, offset))
            .collect(),
    }
}

/// The scores of every model with every seen offset.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct OffsetScores {
    /// One entry per model and offset, model by model.
    offsets: Vec<Line>,
    /// Models that could not be scored.
    failed: Vec<Failure>,
}

/// The scores of one model with one offset.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Line {
    /// File of the model.
    model: String,
    /// Number that is subtracted from the scores of seen classes.
    seen_offset: f64,
    /// Its scores.
    scores: Report,
}

/// Prints one table per model, in which the best offset is marked.
pub(super) fn show(
    scored: ScoredModels,
    offsets: &[f32],
    json: Option<&JsonTarget>,
) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for (evaluation, &offset) in scored.evaluations.iter().zip(offsets.iter().cycle()) {
        lines.push(Line {
            model: evaluation.model.path.clone(),
            // Converting through text keeps the digits of the command line: 0.1, not 0.10000000149.
            seen_offset: offset.to_string().parse().unwrap_or(f64::from(offset)),
            scores: evaluation.report()?,
        });
    }
    let tables: Vec<String> = lines
        .chunks(offsets.len().max(1))
        .filter_map(|lines| Some(format!("{}\n{}", lines.first()?.model, table(lines))))
        .collect();
    let output = EvalDocument::Offsets(OffsetScores {
        offsets: lines,
        failed: scored.failed,
    });
    write_result(json, &output, || {
        for table in &tables {
            print_result!("{table}")?;
        }
        Ok(())
    })
}

fn table(lines: &[Line]) -> Table {
    let value = |line: &Line| line.scores.hiou.or(line.scores.miou).unwrap_or(0.0);
    let best = lines.iter().map(value).fold(f64::NEG_INFINITY, f64::max);
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["seen offset", "pAcc", "mIoU(S)", "mIoU(U)", "hIoU", ""]);
    for line in lines {
        let scores = &line.scores;
        let numbers = [
            scores.p_acc,
            scores.miou_seen,
            scores.miou_unseen,
            scores.hiou,
        ];
        let mut row = vec![Cell::new(line.seen_offset)];
        row.extend(numbers.map(|number| {
            let text = number.map_or_else(|| "-".to_owned(), |n| format!("{:.2}", 100.0 * n));
            Cell::new(text).set_alignment(CellAlignment::Right)
        }));
        row.push(Cell::new(if value(line) >= best { "best" } else { "" }));
        table.add_row(row);
    }
    table
}
