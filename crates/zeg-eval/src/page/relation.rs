//! How the evaluations of a report relate to each other: seeds of one configuration, or different methods.
//!
//! Seeds of one configuration are measurements of one thing, so a report shows their mean and deviation. Different
//! methods, or one method with different settings, are shown side by side, and nothing is averaged or summed over them.

use std::ffi::OsString;
use std::path::Path;

use super::{ReportInput, RunInput};
use crate::EvalError;
use crate::summary::{Run, check_seeds};

/// Relation between the evaluations of a report.
pub(super) enum Relation {
    /// There is one evaluation.
    Single,
    /// The evaluations are of one configuration, trained with different seeds.
    Seeds,
    /// The evaluations are of different methods or settings, on the same benchmark.
    SideBySide {
        /// Sentence on why no mean is given.
        reason: String,
    },
}

impl Relation {
    /// Finds the relation by the rule of [`check_seeds`], the same as for a [`Summary`](crate::Summary).
    ///
    /// # Errors
    /// Returns [`EvalError::Nothing`] without evaluations and [`EvalError::Differs`] or [`EvalError::OtherFact`] if they
    /// are of different benchmarks, label rules, classes or images, so that they cannot stand in one table.
    pub(super) fn of(input: &ReportInput) -> Result<Self, EvalError> {
        match input.runs.len() {
            0 => return Err(EvalError::Nothing),
            1 => return Ok(Self::Single),
            _ => {}
        }
        // All pairs are compared, because an evaluation without unseen classes fits any split.
        for (position, run) in input.runs.iter().enumerate() {
            for earlier in input.runs.iter().take(position) {
                let (a, b) = (&earlier.evaluation, &run.evaluation);
                a.check_same_images(b)?;
            }
        }
        Ok(match check_seeds(&trainings(input)) {
            Ok(()) => Self::Seeds,
            Err(EvalError::Differs { field, .. }) => Self::SideBySide {
                reason: format!(
                    "No mean is given, because the evaluations differ in {}.",
                    in_words(field)
                ),
            },
            Err(error) => Self::SideBySide {
                reason: format!("No mean is given: {error}."),
            },
        })
    }

    /// Returns true if the evaluations are shown side by side, without any mean.
    pub(super) fn is_side_by_side(&self) -> bool {
        matches!(self, Self::SideBySide { .. })
    }

    /// Returns the name of each evaluation: `This run`, `Run 2`, or the method, with its folder where two evaluations
    /// of one method have to be told apart.
    pub(super) fn names(&self, input: &ReportInput) -> Vec<String> {
        match self {
            Self::Single => vec!["This run".to_owned()],
            Self::Seeds => (1..=input.runs.len())
                .map(|number| format!("Run {number}"))
                .collect(),
            Self::SideBySide { .. } => method_names(&input.runs),
        }
    }
}

/// Returns the evaluations with the experiments of their trainings.
pub(super) fn trainings(input: &ReportInput) -> Vec<Run<'_>> {
    let runs = input.runs.iter().map(|run| Run {
        evaluation: &run.evaluation,
        experiment: run.experiment.as_deref(),
    });
    runs.collect()
}

/// Returns the words for a field of a record in which evaluations differ.
fn in_words(field: &str) -> &str {
    match field {
        "trained_on" => "training data set",
        "templates" => "prompt templates",
        "inference" => "inference settings",
        "scales" => "test-time scales",
        "flip" => "test-time flip",
        "nan_rule" => "the rule for classes without pixels",
        "classes" => "the split into seen and unseen classes",
        "model.step" => "training step",
        "experiment" => "training settings",
        other => other,
    }
}

fn method_names(runs: &[RunInput]) -> Vec<String> {
    let folders = folder_names(runs);
    let methods = runs.iter().map(|run| &run.evaluation.method);
    let names: Vec<String> = methods
        .clone()
        .zip(folders)
        .map(|(method, folder)| {
            if methods.clone().filter(|other| *other == method).count() == 1 {
                method.clone()
            } else {
                format!("{method} ({folder})")
            }
        })
        .collect();
    // The same folder may be given twice.
    let is_unique = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    names
        .iter()
        .enumerate()
        .map(|(position, name)| {
            if is_unique(name) {
                name.clone()
            } else {
                format!("{name}, {}", position + 1)
            }
        })
        .collect()
}

/// Returns the folder of each run without the leading and trailing components that all folders share.
fn folder_names(runs: &[RunInput]) -> Vec<String> {
    let parts: Vec<Vec<OsString>> = runs
        .iter()
        .map(|run| {
            run.folder
                .components()
                .map(|part| part.as_os_str().to_owned())
                .collect()
        })
        .collect();
    let shortest = parts.iter().map(Vec::len).min().unwrap_or_default();
    let shared = |position: &dyn Fn(&Vec<OsString>) -> Option<OsString>| {
        let mut parts = parts.iter().map(position);
        let first = parts.next();
        first.is_some_and(|first| first.is_some() && parts.all(|part| part == first))
    };
    let leading = (0..shortest)
        .take_while(|&at| shared(&|parts| parts.get(at).cloned()))
        .count();
    let trailing = (0..shortest - leading)
        .take_while(|&at| shared(&|parts| parts.iter().rev().nth(at).cloned()))
        .count();
    runs.iter()
        .zip(&parts)
        .map(|(run, parts)| {
            let own = parts
                .get(leading..parts.len() - trailing)
                .unwrap_or_default();
            let own: std::path::PathBuf = own.iter().collect();
            let whole: &Path = if own.as_os_str().is_empty() {
                &run.folder
            } else {
                &own
            };
            whole.display().to_string()
        })
        .collect()
}
