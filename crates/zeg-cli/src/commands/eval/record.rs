//! Builds the record of an evaluation from its outcome.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use zeg::{
    data::{Metric as DatasetMetric, OpenSet, SampleSource as _, datasets},
    eval::{BenchmarkRef, ClassRef, Evaluation, Metric, ModelRef, Shard, Timing, record::FORMAT},
    evaluation::EvaluationOutcome,
    loading::LoadedModel,
    mini::weights_sha256,
    model::Precision,
    text_sources::EmbeddingOrigin,
};
use zeg_base::fingerprint::Fingerprint;
use zeg_train::experiment::Experiment;

use super::plan::Plan;
use crate::commands::machine;

/// Everything that a record is built from.
pub(super) struct RecordInput<'a> {
    pub(super) checkpoint: &'a Path,
    pub(super) loaded: &'a LoadedModel,
    /// Origin of the class embeddings.
    pub(super) origin: &'a EmbeddingOrigin,
    pub(super) plan: &'a Plan,
    pub(super) fingerprint: &'a Fingerprint,
    pub(super) dataset: &'a OpenSet,
    pub(super) outcome: EvaluationOutcome,
    pub(super) shard: Option<Shard>,
    /// Wall time of scoring.
    pub(super) wall: Duration,
    pub(super) threads: usize,
}

/// Builds the record, which holds everything needed to compare the scores with others.
pub(super) fn evaluation(input: RecordInput) -> anyhow::Result<Evaluation> {
    let RecordInput {
        checkpoint,
        loaded,
        origin,
        plan,
        fingerprint,
        dataset,
        outcome,
        shard,
        wall,
        threads,
    } = input;
    let info = loaded
        .checkpoint
        .as_ref()
        .map(|checkpoint| &checkpoint.info);
    let seed = loaded.checkpoint.as_ref().map(Experiment::of_checkpoint);
    let seed = seed.transpose()?.map(|experiment| experiment.training.seed);
    let official = datasets::find(dataset.name()).and_then(|entry| {
        let split = entry.official(&plan.data.eval_split)?;
        Some(split.images as u64)
    });
    let unseen = dataset.classes().unseen_flags();
    let mut inference = serde_json::to_value(&plan.session.inference)?;
    if loaded.precision != Precision::Float {
        inference["precision"] = loaded.precision.to_string().into();
    }
    let colours = dataset.classes().palette();
    let classes = dataset.classes().classes.iter().zip(unseen).zip(colours);
    Ok(Evaluation {
        format: FORMAT,
        program: concat!("zeg ", env!("CARGO_PKG_VERSION")).to_owned(),
        benchmark: BenchmarkRef {
            dataset: dataset.name().to_owned(),
            title: dataset.title().to_owned(),
            class_list: dataset.classes().name.clone(),
            split: plan.data.eval_split.clone(),
            official_images: official,
        },
        protocol: plan.protocol,
        trained_on: loaded
            .data
            .as_ref()
            .map(|data| data.short_name().to_owned()),
        method: loaded.method.clone(),
        model: ModelRef {
            path: checkpoint.display().to_string(),
            sha256: weights_sha256(checkpoint)?,
            step: info.map(|info| info.step),
            seed,
        },
        templates: templates(origin, plan, loaded),
        inference,
        scales: plan.session.test_time.scales.clone(),
        flip: plan.session.test_time.flip,
        fingerprint: fingerprint.clone(),
        classes: classes
            .map(|((name, unseen), colour)| ClassRef {
                name: name.clone(),
                unseen,
                colour,
            })
            .collect(),
        images: outcome.images.len() as u64,
        image_scores: outcome.images,
        skipped: outcome.skipped,
        tied: outcome.tied,
        confusion: outcome.confusion,
        reliability: outcome.reliability,
        metric: match dataset.metric() {
            DatasetMetric::MeanIou => Metric::MeanIou,
            DatasetMetric::Dice => Metric::Dice,
        },
        nan_rule: plan.nan_rule,
        shard,
        timing: Timing {
            wall_s: wall.as_secs_f64(),
            model_s: outcome.times.model().as_secs_f64(),
            threads,
            machine: machine::name(),
        },
        gallery: Vec::new(),
    })
}

/// Returns the experiment of a model's training as TOML, if the checkpoint holds one.
pub(super) fn experiment(loaded: &LoadedModel) -> anyhow::Result<Option<String>> {
    let experiment = loaded.checkpoint.as_ref().map(Experiment::of_checkpoint);
    let text = experiment.transpose()?.map(|it| toml::to_string(&it));
    Ok(text.transpose()?)
}

/// Returns what the class embeddings were made with: prompt templates, or a table.
fn templates(origin: &EmbeddingOrigin, plan: &Plan, loaded: &LoadedModel) -> String {
    match origin {
        EmbeddingOrigin::TextTower => plan.data.templates.clone(),
        EmbeddingOrigin::Examples => "examples".to_owned(),
        EmbeddingOrigin::Table(path) => {
            // The folder may differ among the machines that score parts of a data set.
            let name = path.file_name().unwrap_or(path.as_os_str());
            format!("table {}", name.to_string_lossy())
        }
        EmbeddingOrigin::Checkpoint => {
            let checkpoint = loaded.checkpoint.as_ref();
            let table = checkpoint.and_then(|checkpoint| checkpoint.info.table.as_ref());
            let made_with = match table {
                Some(table) => format!("table {table}"),
                None => plan.data.templates.clone(),
            };
            format!("{made_with} (stored in the checkpoint)")
        }
    }
}

/// Returns a folder name for every model: the name of its run's folder, with a number if several runs share the name.
/// No two names are the same.
pub(super) fn run_names(checkpoints: &[PathBuf]) -> Vec<String> {
    let name = |path: &PathBuf| {
        let folder = path.parent().and_then(Path::file_name);
        let name = folder.or(path.file_stem()).unwrap_or_default();
        name.to_string_lossy().into_owned()
    };
    let names: Vec<String> = checkpoints.iter().map(name).collect();
    let unique = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    // A number must not lead to the name of another run.
    let mut taken: BTreeSet<String> = names.iter().cloned().collect();
    names
        .iter()
        .enumerate()
        .map(|(number, wanted)| {
            if unique(wanted) && !wanted.is_empty() {
                return wanted.clone();
            }
            let mut numbered = (number + 1..).map(|number| format!("{wanted}-{number}"));
            let free = numbered.find(|name| taken.insert(name.clone()));
            free.unwrap_or_default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_folder_of_its_own() {
        let names =
            |paths: &[&str]| run_names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(
            names(&["runs/a/model.safetensors", "runs/b/model.safetensors"]),
            ["a", "b"]
        );
        assert_eq!(
            names(&[
                "runs/a/checkpoint-1.safetensors",
                "runs/a/checkpoint-2.safetensors"
            ]),
            ["a-1", "a-2"]
        );
        assert_eq!(
            names(&["a/x.pth", "a/y.pth", "a-1/x.pth", "a-3/x.pth", "a/z.pth"]),
            ["a-2", "a-4", "a-1", "a-3", "a-5"]
        );
        assert_eq!(names(&["x.pth"]), ["x"]);
    }
}
