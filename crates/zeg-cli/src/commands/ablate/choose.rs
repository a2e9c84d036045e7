//! Which settings and seen offset each row is run with: every row tries the same candidates, on images that are not
//! reported.
//!
//! Comparing designs with one learning rate for all says as much about the rate as about the designs. Each row trains
//! once with every candidate on a part of the training images, is scored with every offset on another part, and the
//! best hIoU decides (mIoU where no class is unseen).

use serde::Serialize;
use zeg::eval::Evaluation;

use super::{
    AblateSettings,
    run::Run,
    suite::{Row, Suite},
};

/// What a row is run with.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Choice {
    pub(super) row: String,
    /// The candidate's settings, `key=value`.
    pub(super) settings: Vec<String>,
    /// Subtracted from the scores of seen classes.
    pub(super) offset: f32,
    /// hIoU (or mIoU) on the images it was chosen on.
    pub(super) score: f64,
    /// The best score of every candidate, in the suite's order.
    pub(super) candidates: Vec<f64>,
}

/// The runs that settings are chosen by, rows outermost; none where the suite chooses nothing.
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
                name: format!("{}, candidate {}", row.name, number + 1),
                weights: settings.first_weights(),
                config: suite.config(row),
                folder: folder_of(&row.name),
                init: init.map(|init| folder_of(&init.row).join(&init.checkpoint)),
                offsets: suite.offsets(row),
                row,
                changes,
            });
        }
    }
    runs
}

/// The best candidate and offset of every row; the first of equals.
pub(super) fn choices(suite: &Suite, candidates: &[Run]) -> anyhow::Result<Vec<Choice>> {
    let Some(choose) = &suite.choose else {
        return Ok(Vec::new());
    };
    let mut choices: Vec<Choice> = Vec::new();
    for runs in candidates.chunk_by(|a, b| a.row.name == b.row.name) {
        let mut best: Option<Choice> = None;
        let mut scores = Vec::new();
        for (run, settings) in runs.iter().zip(choose.candidates()) {
            let mut of_candidate = f64::NEG_INFINITY;
            for &offset in &run.offsets {
                let report = Evaluation::open(run.record(offset))?.report()?;
                let score = report.hiou.or(report.miou).unwrap_or(0.0);
                of_candidate = of_candidate.max(score);
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
            scores.push(of_candidate);
        }
        choices.extend(best.map(|best| Choice {
            candidates: scores,
            ..best
        }));
    }
    Ok(choices)
}
