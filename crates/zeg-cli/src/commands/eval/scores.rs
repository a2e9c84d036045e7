//! The scores of one model, or of several models one after the other with a comparison at the end.

use std::path::{Path, PathBuf};

use serde::Serialize;
use zeg::{
    eval::{Comparison, Evaluation, Report, Summary, reliability::ConfidenceReport, summary::Run},
    notices::TIED,
};

use super::{Scored, sweep::OffsetScores};
use crate::{
    commands::{JsonTarget, json::Failure, write_result},
    hints,
};

/// The scores of models.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(super) enum EvalDocument {
    /// Of one model.
    One(Box<Report>),
    /// Of several models.
    Several(Box<SeveralModels>),
    /// With `--seen-offsets`: of every model with every offset.
    Offsets(OffsetScores),
}

/// The scores of several models.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct SeveralModels {
    /// The mean over all models, if they are seeds of one configuration.
    #[serde(flatten)]
    mean: Option<Summary>,
    #[serde(flatten)]
    comparison: Comparison,
    /// Folders of the records, in the order of the models; empty if none is written.
    #[serde(serialize_with = "zeg_base::paths::serialize_all")]
    records: Vec<PathBuf>,
    /// Models that could not be scored.
    failed: Vec<Failure>,
}

/// Models that were scored, and those that could not be.
#[derive(Debug, Default)]
pub(super) struct ScoredModels {
    pub(super) evaluations: Vec<Evaluation>,
    /// Experiment of each model's training as TOML, if it is known.
    pub(super) experiments: Vec<Option<String>>,
    /// Folders of the records, in the order of the evaluations; empty if none is written.
    pub(super) records: Vec<PathBuf>,
    pub(super) failed: Vec<Failure>,
}

impl ScoredModels {
    /// Adds the evaluation of a model.
    pub(super) fn add(&mut self, scored: Scored) {
        self.evaluations.push(scored.evaluation);
        self.experiments.push(scored.experiment);
        self.records.extend(scored.record);
    }

    /// Notes that one of several models could not be scored, and prints why.
    pub(super) fn fail(&mut self, model: &Path, error: anyhow::Error) {
        let error = error.context(format!("{} is not scored", model.display()));
        hints::print(&error);
        self.failed.push(Failure::new(model, &error));
    }
}

/// Returns the schema of the output of `zeg eval`.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<EvalDocument>("eval")
}

/// Returns the schema of the output of `zeg eval merge`.
#[cfg(feature = "schema")]
pub(crate) fn merge_output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<Report>("eval merge")
}

/// Warns of models that tell no classes apart in some images, once a model.
pub(super) fn warn_of_ties(evaluations: &[Evaluation]) {
    let mut named: Vec<&str> = Vec::new();
    for evaluation in evaluations {
        let model = evaluation.model.path.as_str();
        // With several seen offsets, a model has several evaluations of the same scores.
        if let Some(first) = evaluation.tied.first()
            && !named.contains(&model)
        {
            named.push(model);
            print_notice!(
                "warning: {model}: in {} of {} images, such as {first}, {TIED}",
                evaluation.tied.len(),
                evaluation.images
            );
        }
    }
}

/// Prints the scores of one model.
pub(super) fn show_one(evaluation: &Evaluation, json: Option<&JsonTarget>) -> anyhow::Result<()> {
    let report = evaluation.report()?;
    let table = report.to_table();
    let confidence = report.confidence.iter().flat_map(ConfidenceReport::lines);
    let confidence: Vec<String> = confidence.collect();
    write_result(json, &EvalDocument::One(Box::new(report)), || {
        print_result!("{table}")?;
        confidence
            .iter()
            .try_for_each(|line| print_result!("{line}"))
    })
}

/// Prints the scores of each of several models and compares them.
pub(super) fn show_several(scored: ScoredModels, json: Option<&JsonTarget>) -> anyhow::Result<()> {
    let pairs = scored.evaluations.iter().zip(&scored.experiments);
    let runs = pairs.map(|(evaluation, experiment)| Run {
        evaluation,
        experiment: experiment.as_deref(),
    });
    let comparison = Comparison::of(&runs.collect::<Vec<_>>())?;
    for note in &comparison.notes {
        print_notice!("warning: {note}");
    }
    let mut texts: Vec<String> = comparison
        .models
        .iter()
        .map(|model| format!("{}\n\n{}", model.model, model.scores.to_table()))
        .collect();
    texts.push(comparison.to_table());
    let output = EvalDocument::Several(Box::new(SeveralModels {
        mean: comparison.mean_of_all().cloned(),
        comparison,
        records: scored.records,
        failed: scored.failed,
    }));
    write_result(json, &output, || {
        for text in &texts {
            print_result!("{text}")?;
        }
        Ok(())
    })
}
