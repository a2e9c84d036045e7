//! The result of a whole comparison.

use super::check::{Findings, Limit};

/// What came of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Files that were read and recognised.
    pub files: usize,
    /// Tensors, and tables of the descriptions, that were compared.
    pub tensors: usize,
    /// Those of them that deviate.
    pub failed: usize,
    /// Tensors that were not recomputed.
    pub not_recomputed: usize,
    /// Files and folders that could not be compared.
    pub unreadable: usize,
    /// The result that came nearest to its limit, or exceeds it most.
    pub worst: Option<Worst>,
}

/// The result that came nearest to its limit.
#[derive(Debug, Clone)]
pub struct Worst {
    /// The file's name without extension.
    pub file: String,
    /// The tensor.
    pub name: String,
    /// How far it is from its reference: of the reference's root mean square, unless its limit is of another measure.
    pub deviation: f64,
    /// What it was held to.
    pub(crate) limit: Limit,
    share: f64,
}

impl Summary {
    /// Whether something was compared, everything could be, and nothing deviated.
    pub fn passed(&self) -> bool {
        self.tensors > 0 && self.failed == 0 && self.unreadable == 0
    }

    /// Counts a file.
    pub(crate) fn add(&mut self, label: &str, findings: &Findings) {
        self.files += 1;
        self.tensors += findings.outcomes.len();
        self.not_recomputed += findings.left_out.len();
        for outcome in &findings.outcomes {
            if !outcome.passed() {
                self.failed += 1;
            }
            let share = outcome.share();
            if self.worst.as_ref().is_none_or(|worst| share > worst.share) {
                self.worst = Some(Worst {
                    file: label.to_owned(),
                    name: outcome.name.clone(),
                    deviation: outcome.deviation,
                    limit: outcome.limit,
                    share,
                });
            }
        }
    }
}
