//! The result of a whole comparison.

use super::{
    check::{Findings, Outcome},
    limit::Limit,
};

/// Results nearest to their limits that are kept, of all files together.
const NEAREST: usize = 5;

/// What came of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Files that were read and recognised.
    pub files: usize,
    /// Tensors, and tables of the descriptions, that were compared.
    pub tensors: usize,
    /// Those of them that deviate.
    pub failed: usize,
    /// Inputs and weights of the files, which are not counted among the tensors.
    pub inputs: usize,
    /// Results that a second computation gave again to the bit.
    pub repeated: usize,
    /// Files and folders that could not be compared.
    pub unreadable: usize,
    /// The results that came nearest to their limits, or exceed them most, the worst first.
    pub nearest: Vec<Worst>,
}

/// A result near its limit.
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
    pub(crate) share: f64,
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
        self.inputs += findings.inputs.len();
        self.repeated += findings.repeated;
        self.failed += findings.outcomes.iter().filter(|o| !o.passed()).count();
        let worst = |outcome: &Outcome| Worst {
            file: label.to_owned(),
            name: outcome.name.clone(),
            deviation: outcome.deviation,
            limit: outcome.limit,
            share: outcome.share(),
        };
        self.nearest.extend(findings.outcomes.iter().map(worst));
        // Of equals, the first stays the first.
        self.nearest.sort_by(|a, b| b.share.total_cmp(&a.share));
        self.nearest.truncate(NEAREST);
    }

    /// The result that came nearest to its limit, or exceeds it most.
    pub fn worst(&self) -> Option<&Worst> {
        self.nearest.first()
    }
}
