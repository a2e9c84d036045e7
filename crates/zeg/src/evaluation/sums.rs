//! Adds the contributions of images to the outcomes of an evaluation.

use anyhow::Context as _;
use zeg_eval::{ConfusionMatrix, SkippedImage};

use super::{EvaluationOutcome, EvaluationSetup, EvaluationTimes, Scored};

/// The outcomes of an evaluation so far.
pub(super) struct Sums {
    outcomes: Vec<EvaluationOutcome>,
    times: EvaluationTimes,
}

impl Sums {
    pub(super) fn new(setups: &[EvaluationSetup]) -> Self {
        let times = EvaluationTimes::default();
        let empty = |setup: &EvaluationSetup| EvaluationOutcome {
            confusion: ConfusionMatrix::new(setup.labels()),
            reliability: None,
            images: Vec::new(),
            skipped: Vec::new(),
            tied: Vec::new(),
            times,
        };
        let outcomes = setups
            .iter()
            .flat_map(|setup| std::iter::repeat_n(empty(setup), setup.outputs()));
        Self {
            outcomes: outcomes.collect(),
            times,
        }
    }

    /// Adds the contribution of the next image.
    pub(super) fn add(&mut self, scored: &Scored) -> anyhow::Result<()> {
        for (outcome, counts) in self.outcomes.iter_mut().zip(&scored.counts) {
            outcome
                .confusion
                .add_pairs(&counts.pairs)
                .with_context(|| format!("image {}", scored.id))?;
            if let Some(counts) = &counts.reliability {
                outcome.reliability.get_or_insert_default().merge(counts);
            }
            outcome.images.push(counts.score.clone());
            if counts.tied {
                outcome.tied.push(scored.id.clone());
            }
        }
        if let Some(reason) = &scored.failure {
            for outcome in &mut self.outcomes {
                outcome.skipped.push(SkippedImage {
                    id: scored.id.clone(),
                    reason: reason.clone(),
                });
            }
        }
        self.times += scored.times;
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<EvaluationOutcome> {
        let times = self.times;
        let outcomes = self.outcomes.into_iter();
        let timed = outcomes.map(|outcome| EvaluationOutcome { times, ..outcome });
        timed.collect()
    }
}
