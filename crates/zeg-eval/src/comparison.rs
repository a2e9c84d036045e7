//! Several models side by side: the scores of each, and means over seeds of one configuration only.

use serde::Serialize;

use crate::summary::{Run, check_seeds, group_seeds};
use crate::{EvalError, Evaluation, Protocol, Report, Summary};

/// The scores of several models.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Comparison {
    /// The models, in the order in which they were given.
    pub models: Vec<ComparedModel>,
    /// One entry for each configuration of which there are several seeds.
    pub means: Vec<SeedMean>,
    /// Sentences on why there is no mean over all models, and on models with other data or classes than the first one;
    /// empty if all models are seeds of one configuration.
    pub notes: Vec<String>,
}

/// A model with what tells it from the others.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ComparedModel {
    /// Its file.
    pub model: String,
    /// The method, as `ZegCLIP`.
    pub method: String,
    /// What it knew about the unseen classes in training.
    pub protocol: Protocol,
    /// Seed of the training, if it is recorded.
    pub seed: Option<u64>,
    /// Training step of the checkpoint, if it is recorded.
    pub step: Option<u64>,
    /// Name of the data set on which it was scored.
    pub dataset: String,
    /// Name of the split.
    pub split: String,
    /// Name of the class list.
    pub class_list: String,
    /// Its scores.
    pub scores: Report,
}

/// The mean over the seeds of one configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SeedMean {
    /// Files of the models.
    pub models: Vec<String>,
    /// Mean and deviation of their scores.
    pub scores: Summary,
}

impl Comparison {
    /// Compares evaluations, in their order.
    ///
    /// - `runs`: evaluations with the experiments of their trainings, which tell seeds from other settings
    ///
    /// # Errors
    /// Returns [`EvalError::Nothing`] if there is none, and [`EvalError::Classes`] if a class list does not fit its
    /// counts.
    pub fn of(runs: &[Run<'_>]) -> Result<Self, EvalError> {
        let models = runs.iter().map(|run| ComparedModel::of(run.evaluation));
        let models: Vec<ComparedModel> = models.collect::<Result<_, _>>()?;
        let groups = group_seeds(runs);
        let means = groups.iter().filter(|group| group.len() > 1);
        let means = means.map(|group| {
            let seeds = || group.iter().filter_map(|&position| models.get(position));
            let reports: Vec<Report> = seeds().map(|seed| seed.scores.clone()).collect();
            let metric = reports.first().map(|report| report.metric);
            SeedMean {
                models: seeds().map(|seed| seed.model.clone()).collect(),
                scores: Summary::of_reports(&reports, metric.unwrap_or_default()),
            }
        });
        Ok(Self {
            means: means.collect(),
            notes: notes(runs)?,
            models,
        })
    }

    /// Returns the mean over all models; `None` unless they are seeds of one configuration.
    pub fn mean_of_all(&self) -> Option<&Summary> {
        let [mean] = &self.means[..] else {
            return None;
        };
        (mean.models.len() == self.models.len()).then_some(&mean.scores)
    }
}

impl ComparedModel {
    fn of(evaluation: &Evaluation) -> Result<Self, EvalError> {
        let (model, benchmark) = (&evaluation.model, &evaluation.benchmark);
        Ok(Self {
            model: model.path.clone(),
            method: evaluation.method.clone(),
            protocol: evaluation.protocol,
            seed: model.seed,
            step: model.step,
            dataset: benchmark.dataset.clone(),
            split: benchmark.split.clone(),
            class_list: benchmark.class_list.clone(),
            scores: evaluation.report()?,
        })
    }
}

/// Returns what keeps the models from one mean, and the models whose scores cannot be compared with the first one's.
fn notes(runs: &[Run<'_>]) -> Result<Vec<String>, EvalError> {
    let Some((first, others)) = runs.split_first() else {
        return Err(EvalError::Nothing);
    };
    let mut notes = Vec::new();
    if let Err(reason) = check_seeds(runs) {
        notes.push(format!("no mean over these models: {reason}"));
    }
    for other in others {
        let (first, other) = (first.evaluation, other.evaluation);
        if let Err(difference) = first.check_same_images(other) {
            notes.push(format!(
                "the scores of {} cannot be compared with those of {}: {difference}",
                other.model.path, first.model.path
            ));
        }
    }
    Ok(notes)
}
