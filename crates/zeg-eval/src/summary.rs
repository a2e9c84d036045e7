//! The mean over several runs, as papers state it: mean ± standard deviation over seeds.
//!
//! The mean of hIoU is the mean of the runs' hIoU, not the hIoU of the mean mIoU: each run is one measurement of each
//! number. The deviation is the sample's (divided by n − 1), and one run has none.

use serde::{Deserialize, Serialize};

use crate::report::Report;
use crate::{EvalError, Evaluation, Metric};

/// What [`Summary::note`] says.
const NOTE: &str = "mean ± sample standard deviation over runs; hIoU is the mean of the runs' hIoU";

/// Mean and deviation of one number over runs, fractions of 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation; `None` (JSON `null`) for one run.
    pub std: Option<f64>,
    /// Runs that have the number.
    pub n: usize,
}

impl Spread {
    /// Of the values that exist; `None` if none does.
    pub fn of(values: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().flatten().collect();
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let std = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
        Some(Self { mean, std, n })
    }

    /// In percent, as `84.26 ± 0.31`.
    pub fn percent(&self) -> String {
        let mean = 100.0 * self.mean;
        match self.std {
            Some(std) => format!("{mean:.2} ± {:.2}", 100.0 * std),
            None => format!("{mean:.2}"),
        }
    }
}

/// The numbers of several runs of one evaluation; `None` (JSON `null`) where no run has one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many runs.
    pub runs: usize,
    /// Part of all pixels that have the right class.
    pub p_acc: Option<Spread>,
    /// Mean IoU of all classes.
    pub miou: Option<Spread>,
    /// Mean IoU of the seen classes.
    pub miou_seen: Option<Spread>,
    /// Mean IoU of the unseen classes.
    pub miou_unseen: Option<Spread>,
    /// hIoU, the mean of the runs' hIoU.
    pub hiou: Option<Spread>,
    /// Mean accuracy of all classes.
    pub macc: Option<Spread>,
    /// Mean Dice coefficient of all classes.
    pub mdice: Option<Spread>,
    /// The metric of the data set, which tables put first.
    pub metric: Metric,
    /// How the numbers come about, in words.
    pub note: String,
}

impl Summary {
    /// Of several runs, by mmsegmentation's rule for classes without pixels.
    ///
    /// # Errors
    /// [`EvalError::Nothing`] for no run; [`EvalError::Differs`] if they are not of one benchmark, class list,
    /// protocol and settings, or not of as many images.
    pub fn of(evaluations: &[Evaluation]) -> Result<Self, EvalError> {
        let Some((first, others)) = evaluations.split_first() else {
            return Err(EvalError::Nothing);
        };
        for other in others {
            first.check_comparable(other)?;
        }
        let reports: Vec<Report> = evaluations
            .iter()
            .map(Evaluation::report)
            .collect::<Result<_, _>>()?;
        Ok(Self::of_reports(&reports, first.metric))
    }

    /// Of the reports of runs that the caller knows to be comparable, such as those of one method on several worlds.
    pub fn of_reports(reports: &[Report], metric: Metric) -> Self {
        let of = |value: fn(&Report) -> Option<f64>| Spread::of(reports.iter().map(value));
        Self {
            runs: reports.len(),
            p_acc: of(|report| report.p_acc),
            miou: of(|report| report.miou),
            miou_seen: of(|report| report.miou_seen),
            miou_unseen: of(|report| report.miou_unseen),
            hiou: of(|report| report.hiou),
            macc: of(|report| report.macc),
            mdice: of(|report| report.mdice),
            metric,
            note: NOTE.into(),
        }
    }

    /// The numbers by name, in the order of tables: the metric of the data set first.
    pub fn named(&self) -> Vec<(&'static str, Option<Spread>)> {
        let mut named = vec![
            ("pAcc", self.p_acc),
            ("mIoU", self.miou),
            ("mIoU(S)", self.miou_seen),
            ("mIoU(U)", self.miou_unseen),
            ("hIoU", self.hiou),
            ("mAcc", self.macc),
            ("mDice", self.mdice),
        ];
        if self.metric == Metric::Dice {
            named.rotate_right(1);
        }
        named
    }
}

impl Evaluation {
    /// Checks that the scores of another record may be averaged with this one's.
    pub(crate) fn check_comparable(&self, other: &Self) -> Result<(), EvalError> {
        self.check_same_benchmark(other)?;
        if self.images == other.images {
            return Ok(());
        }
        Err(EvalError::Differs {
            field: "images",
            first: self.images.to_string(),
            second: other.images.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_samples() {
        // statistics.mean and statistics.stdev of Python's standard library
        let spread = Spread::of([Some(0.843), Some(0.851), None, Some(0.838)]).unwrap();
        assert_eq!(spread.n, 3);
        assert!((spread.mean - 0.844).abs() < 1e-12);
        assert!((spread.std.unwrap() - 0.006557438524302006).abs() < 1e-12);
        assert_eq!(spread.percent(), "84.40 ± 0.66");
    }

    #[test]
    fn one_run_has_no_deviation() {
        let spread = Spread::of([Some(0.5)]).unwrap();
        assert_eq!((spread.std, spread.percent()), (None, "50.00".to_owned()));
        assert_eq!(Spread::of([None, None]), None);
    }
}
