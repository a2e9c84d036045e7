//! Choice of the settings and the seen offset of each row, among the same candidates and on images that are not
//! reported.
//!
//! If all designs had one learning rate, their comparison would depend on the rate as much as on the designs. Each row
//! is therefore trained once with every candidate on one part of the training images and scored with every offset on
//! another part; the best hIoU decides (mIoU if no class is unseen).

use serde::Serialize;
use zeg::eval::Evaluation;
use zeg_base::fingerprint::Fingerprint;

use super::{
    AblateSettings,
    run::Run,
    suite::{Row, Suite},
};

/// The chosen settings and seen offset of a row.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct Choice {
    /// Name of the row.
    pub(super) row: String,
    /// Settings of the chosen candidate, `key=value`.
    pub(super) settings: Vec<String>,
    /// Chosen seen offset: subtracted from the scores of seen classes.
    pub(super) offset: f32,
    /// hIoU (or mIoU) of the choice, on the images of the choice.
    pub(super) score: f64,
    /// Best score of every candidate, in the order of the suite.
    pub(super) candidates: Vec<f64>,
}

/// Returns the runs that the settings are chosen by, row by row; none if the suite chooses nothing.
pub(super) fn candidates<'a>(
    settings: &AblateSettings,
    suite: &'a Suite,
    rows: &[&'a Row],
) -> Vec<Run<'a>> {
    let Some(choose) = &suite.choose else {
        return Vec::new();
    };
    let mut runs = Vec::new();
    for row in rows.iter().copied() {
        for (number, candidate) in choose.candidates().into_iter().enumerate() {
            let folder_of = |row: &str| {
                let folder = settings.output.join("choose").join(row);
                folder.join(format!("candidate-{}", number + 1))
            };
            let mut changes = [
                &suite.set[..],
                &row.set,
                &choose.set,
                &candidate,
                &settings.changes,
            ]
            .concat();
            changes.extend([
                format!("training.seed={}", choose.seed),
                format!("data.train-split={}", choose.train_split),
                format!("data.eval-split={}", choose.eval_split),
            ]);
            let init = row.init.as_ref();
            runs.push(Run {
                variant: None,
                name: format!("{}, candidate {}", row.name, number + 1),
                weights: settings.first_weights(),
                config: suite.config(row),
                folder: folder_of(&row.name),
                init: init.map(|init| folder_of(&init.row).join(&init.checkpoint)),
                offsets: suite.offsets(row),
                scored_on: Fingerprint::new(),
                row,
                changes,
            });
        }
    }
    runs
}

/// Returns the best candidate and offset of every row; the first of several equally good ones.
pub(super) fn choices(suite: &Suite, candidates: &[Run]) -> anyhow::Result<Vec<Choice>> {
    let Some(choose) = &suite.choose else {
        return Ok(Vec::new());
    };
    let mut choices: Vec<Choice> = Vec::new();
    for runs in candidates.chunk_by(|a, b| a.row.name == b.row.name) {
        let mut best: Option<Choice> = None;
        let mut scores = Vec::new();
        for (run, settings) in runs.iter().zip(choose.candidates()) {
            let mut best_of_candidate = f64::NEG_INFINITY;
            for &offset in &run.offsets {
                let report = Evaluation::open(run.record(offset))?.report()?;
                let score = report.hiou.or(report.miou).unwrap_or(0.0);
                best_of_candidate = best_of_candidate.max(score);
                if best.as_ref().is_none_or(|best| score > best.score) {
                    best = Some(Choice {
                        row: run.row.name.clone(),
                        settings: settings.clone(),
                        offset,
                        score,
                        candidates: Vec::new(),
                    });
                }
            }
            scores.push(best_of_candidate);
        }
        choices.extend(best.map(|best| Choice {
            candidates: scores,
            ..best
        }));
    }
    Ok(choices)
}
