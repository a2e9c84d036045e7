//! Summarises the results of a whole comparison.

use super::{
    check::{Findings, Outcome},
    limit::Limit,
};

/// Number of results nearest to their limits that are listed for all files together.
const NEAREST: usize = 5;

/// The result of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Number of files that were read and recognised.
    pub files: usize,
    /// Number of tensors, and tables of the descriptions, that were compared.
    pub tensors: usize,
    /// Number of them that deviate.
    pub failed: usize,
    /// Number of inputs and weights of the files, which are not counted among the tensors.
    pub inputs: usize,
    /// Number of results that a second computation reproduced bit by bit.
    pub repeated: usize,
    /// Number of files and folders that could not be compared.
    pub unreadable: usize,
    /// The results that come nearest to their limits, or exceed them most, worst first.
    pub nearest: Vec<Worst>,
}

/// A result near its limit.
#[derive(Debug, Clone)]
pub struct Worst {
    /// The file's name without extension.
    pub file: String,
    /// Name of the tensor.
    pub name: String,
    /// Deviation from the reference, as a share of the reference's root mean square unless its limit has another
    /// measure.
    pub deviation: f64,
    /// The limit of the deviation.
    pub(crate) limit: Limit,
    pub(crate) share: f64,
}

impl Summary {
    /// Returns whether something was compared, every file could be compared, and nothing deviated.
    pub fn passed(&self) -> bool {
        self.tensors > 0 && self.failed == 0 && self.unreadable == 0
    }

    /// Adds the findings of a file.
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
        // The sort is stable, so equal shares stay in the order of the files.
        self.nearest.sort_by(|a, b| b.share.total_cmp(&a.share));
        self.nearest.truncate(NEAREST);
    }

    /// Returns the result that comes nearest to its limit, or exceeds it most.
    pub fn worst(&self) -> Option<&Worst> {
        self.nearest.first()
    }
}
