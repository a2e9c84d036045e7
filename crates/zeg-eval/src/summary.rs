//! The mean over several runs, as papers state it: mean ± standard deviation over seeds.
//!
//! Only seeds of one configuration are averaged: runs of the same method with the same settings, except for the seed.
//! `check_seeds` is the one place that decides this, for summaries and for reports.
//!
//! The mean of hIoU is the mean of the runs' hIoU, not the hIoU of the mean mIoU: each run is one measurement of each
//! number. The deviation is the sample standard deviation (divided by n − 1); a single run has none.

use serde::{Deserialize, Serialize};

use std::collections::BTreeSet;

use crate::record::same;
use crate::report::Report;
use crate::{EvalError, Evaluation, Metric};

/// The text of [`Summary::note`].
const NOTE: &str = "mean ± sample standard deviation over runs; hIoU is the mean of the runs' hIoU";

/// Mean and deviation of one number over runs, fractions of 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation; `None` (JSON `null`) for one run.
    pub std: Option<f64>,
    /// Number of runs that have a value.
    pub n: usize,
}

impl Spread {
    /// Returns mean and deviation of the values that exist; `None` if none does.
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

    /// Returns mean and deviation in percent, as `84.26 ± 0.31`.
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// Number of runs.
    pub runs: usize,
    /// Pixel accuracy: share of all pixels whose predicted class is right.
    pub p_acc: Option<Spread>,
    /// Mean IoU of all classes.
    pub miou: Option<Spread>,
    /// Mean IoU of the seen classes.
    pub miou_seen: Option<Spread>,
    /// Mean IoU of the unseen classes.
    pub miou_unseen: Option<Spread>,
    /// Mean of the runs' hIoU.
    pub hiou: Option<Spread>,
    /// Mean accuracy of all classes.
    pub macc: Option<Spread>,
    /// Mean Dice coefficient of all classes.
    pub mdice: Option<Spread>,
    /// Metric of the data set; tables show it first.
    pub metric: Metric,
    /// Sentence on how the numbers were computed.
    pub note: String,
}

impl Summary {
    /// Averages the scores of several runs, by the runs' rule for classes without pixels.
    ///
    /// # Errors
    /// Returns [`EvalError::Nothing`] if there is no run, [`EvalError::Differs`] or [`EvalError::OtherFact`] if the runs
    /// differ in benchmark, classes, label rule, method, protocol, settings, frozen weights, training step or images, and
    /// [`EvalError::NotSeeds`] if their seeds are not known to be different.
    pub fn of(evaluations: &[Evaluation]) -> Result<Self, EvalError> {
        let Some(first) = evaluations.first() else {
            return Err(EvalError::Nothing);
        };
        let runs: Vec<Run<'_>> = evaluations
            .iter()
            .map(|evaluation| Run {
                evaluation,
                experiment: None,
            })
            .collect();
        check_seeds(&runs)?;
        let reports: Vec<Report> = evaluations
            .iter()
            .map(Evaluation::report)
            .collect::<Result<_, _>>()?;
        Ok(Self::of_reports(&reports, first.metric))
    }

    /// Averages the reports of runs that the caller knows to be comparable, such as those of one method on several
    /// generated data sets.
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

    /// Returns the numbers with their names, in the order of tables: the metric of the data set first.
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

/// The record of a run, with the experiment it was trained by.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The record.
    pub evaluation: &'a Evaluation,
    /// The experiment as TOML; `None` if it is unknown.
    pub experiment: Option<&'a str>,
}

/// Returns the positions of runs in groups, each of which holds seeds of one configuration by the rule of
/// [`check_seeds`].
pub(crate) fn group_seeds(runs: &[Run<'_>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for position in 0..runs.len() {
        let is_seed_of = |group: &Vec<usize>| {
            let members = group.iter().chain([&position]);
            let members: Vec<Run<'_>> = members.filter_map(|&at| runs.get(at).copied()).collect();
            check_seeds(&members).is_ok()
        };
        match groups.iter_mut().find(|group| is_seed_of(group)) {
            Some(group) => group.push(position),
            None => groups.push(vec![position]),
        }
    }
    groups
}

/// Checks that runs are seeds of one configuration, so that a mean over them is a mean over seeds.
///
/// # Errors
/// Returns [`EvalError::Differs`] or [`EvalError::OtherFact`] for the first difference other than the seed, and
/// [`EvalError::NotSeeds`] for two runs whose seeds are equal or not recorded. A single run is always accepted.
pub(crate) fn check_seeds(runs: &[Run<'_>]) -> Result<(), EvalError> {
    let Some((first, others)) = runs.split_first() else {
        return Ok(());
    };
    let experiment = first.experiment.map(without_seed);
    for other in others {
        let (a, b) = (first.evaluation, other.evaluation);
        a.check_same_settings(b)?;
        same("model.step", &a.model.step, &b.model.step)?;
        same("images", &a.images, &b.images)?;
        a.check_same_skipped(b)?;
        if let (Some(experiment), Some(other)) = (&experiment, other.experiment) {
            check_same_experiment(experiment, &without_seed(other))?;
        }
    }
    for (position, run) in runs.iter().enumerate() {
        let seed = run.evaluation.model.seed;
        // Seeds are known to differ only if both are recorded.
        let may_be_equal = |other: &&Run<'_>| {
            let other = other.evaluation.model.seed;
            seed.is_none() || other.is_none() || other == seed
        };
        if let Some(other) = runs.iter().take(position).find(may_be_equal) {
            return Err(EvalError::NotSeeds {
                first: model_and_seed(other.evaluation),
                second: model_and_seed(run.evaluation),
            });
        }
    }
    Ok(())
}

/// Checks that two experiments are the same; the error shows the first setting in which they differ.
fn check_same_experiment(first: &str, second: &str) -> Result<(), EvalError> {
    if first == second {
        return Ok(());
    }
    let tables = (
        first.parse::<toml::Table>().ok(),
        second.parse::<toml::Table>().ok(),
    );
    let difference = match &tables {
        (Some(first), Some(second)) => first_difference(first, second, ""),
        _ => None,
    };
    let (first, second) = difference.unwrap_or_else(|| (first.to_owned(), second.to_owned()));
    Err(EvalError::Differs {
        field: "experiment",
        first,
        second,
    })
}

/// Returns the first setting in which two tables differ, as each of them has it.
///
/// - `path`: keys of the tables in the experiment, such as `model.head`
fn first_difference(
    first: &toml::Table,
    second: &toml::Table,
    path: &str,
) -> Option<(String, String)> {
    let keys: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    keys.into_iter().find_map(|key| {
        let place = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let shown = |value: Option<&toml::Value>| match value {
            Some(value) => format!("{place} = {value}"),
            None => format!("no {place}"),
        };
        match (first.get(key), second.get(key)) {
            (Some(toml::Value::Table(first)), Some(toml::Value::Table(second))) => {
                first_difference(first, second, &place)
            }
            (first, second) => (first != second).then(|| (shown(first), shown(second))),
        }
    })
}

/// Returns an experiment without its `training.seed`; the text itself if it is not TOML.
fn without_seed(experiment: &str) -> String {
    let Ok(mut table) = experiment.parse::<toml::Table>() else {
        return experiment.to_owned();
    };
    if let Some(toml::Value::Table(training)) = table.get_mut("training") {
        training.remove("seed");
    }
    table.to_string()
}

/// Returns the path and the seed of a model, for an error message.
fn model_and_seed(evaluation: &Evaluation) -> String {
    let path = &evaluation.model.path;
    match evaluation.model.seed {
        Some(seed) => format!("{path} (seed {seed})"),
        None => format!("{path} (seed not recorded)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        // statistics.mean and statistics.stdev of Python's standard library
        let spread = Spread::of([Some(0.843), Some(0.851), None, Some(0.838)]).unwrap();
        assert_eq!(spread.n, 3);
        assert!((spread.mean - 0.844).abs() < 1e-12);
        assert!((spread.std.unwrap() - 0.006557438524302006).abs() < 1e-12);
        assert_eq!(spread.percent(), "84.40 ± 0.66");
    }

    #[test]
    fn experiments_are_compared_without_their_seed() {
        let experiment = |seed: u64, rate: f64| {
            format!("[training]\nseed = {seed}\nlearning-rate = {rate}\n[model]\nseed = 3\n")
        };
        assert_eq!(
            without_seed(&experiment(1, 0.1)),
            without_seed(&experiment(2, 0.1))
        );
        assert_ne!(
            without_seed(&experiment(1, 0.1)),
            without_seed(&experiment(1, 0.2))
        );
        assert_eq!(without_seed("= no TOML"), "= no TOML");
        let error = check_same_experiment(&experiment(1, 0.1), &experiment(1, 0.2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the evaluations differ in experiment: training.learning-rate = 0.1 and training.learning-rate = 0.2"
        );
    }

    #[test]
    fn one_run_has_no_deviation() {
        let spread = Spread::of([Some(0.5)]).unwrap();
        assert_eq!((spread.std, spread.percent()), (None, "50.00".to_owned()));
        assert_eq!(Spread::of([None, None]), None);
    }
}
