//! Everything that a training follows from besides its experiment, and the check that a run goes on with the same.

use std::path::PathBuf;

use zeg::{
    data::OpenSet,
    loading::check_base,
    model::weights::{StateDict, text_facts},
    vocab::templates::TemplateSet,
};
use zeg_base::fingerprint::{Fingerprint, Mismatch};
use zeg_train::{checkpoint::BaseWeights, experiment::Experiment};

use super::{args::TrainSettings, run_folder::RunFolder, start::Start};
use crate::commands::facts::{class_embeddings, origin_of};

/// The error for a run that would go on with other labels, classes, images, weights or class embeddings.
#[derive(Debug, thiserror::Error)]
#[error("{}: the run was trained on other data or weights: {mismatch}", checkpoint.display())]
pub(crate) struct OtherFacts {
    /// The checkpoint, or the manifest of a run without one.
    checkpoint: PathBuf,
    mismatch: Mismatch,
}

/// The images of a run.
pub(super) struct Sets<'a> {
    pub(super) training: &'a OpenSet,
    /// The images of `training.evaluation`, which decide on the best model.
    pub(super) evaluation: Option<&'a OpenSet>,
}

/// Returns everything that a training follows from besides its experiment.
///
/// - `weights`, `base`: the frozen weights, opened and by their files
///
/// # Errors
/// Returns an error if the table of class embeddings cannot be read, or if the templates are unknown.
pub(super) fn fingerprint(
    settings: &TrainSettings,
    experiment: &Experiment,
    sets: &Sets,
    weights: &StateDict,
    base: &BaseWeights,
) -> anyhow::Result<Fingerprint> {
    let templates = TemplateSet::by_name(&experiment.data.templates)?;
    let origin = origin_of(settings.text.as_deref());
    let embeddings = class_embeddings(&origin, settings.text_classes.as_deref(), &templates)?;
    let all = |set: &OpenSet| set.fingerprint().and(set.sizes()).and(set.label_content());
    // Classes and label rule are those of the training images.
    let is_of_images = |name: &str| name == "images" || name.starts_with("files: ");
    let evaluation = sets.evaluation;
    let evaluation = evaluation.map(|set| all(set).only(is_of_images).grouped("evaluation split"));
    Ok(all(sets.training)
        .and(evaluation.unwrap_or_default())
        .and(embeddings)
        .and(text_facts(weights))
        .with("weights: SHA-256", &base.sha256))
}

/// Checks that a run goes on with what it was trained on, and that the weights it starts from fit the frozen weights.
///
/// A run that ended before its first checkpoint goes on with what its manifest names.
///
/// What a checkpoint of an earlier version did not record gives a warning.
///
/// # Errors
/// Returns [`LoadError::OtherBase`](zeg::loading::LoadError::OtherBase) for other frozen weights, and [`OtherFacts`]
/// for other facts.
pub(super) fn check(
    folder: &RunFolder,
    start: &Start,
    base: &BaseWeights,
    now: &Fingerprint,
) -> anyhow::Result<()> {
    if let (Some(run), Start::Fresh | Start::Init(_)) = (folder.begun(), start) {
        let checked = run.fingerprint.check(now);
        checked.map_err(|mismatch| OtherFacts {
            checkpoint: folder.manifest(),
            mismatch,
        })?;
    }
    let (Start::Resumed(checkpoint) | Start::Init(checkpoint)) = start else {
        return Ok(());
    };
    if let Some(unverified) = check_base(checkpoint, &base.path, &base.sha256)? {
        print_notice!("warning: {unverified}");
    }
    let now = match start {
        Start::Resumed(_) => now.clone(),
        // A run that starts from the weights of another one has its own data.
        _ => now.only(|name| name.starts_with("weights: ")),
    };
    let then = &checkpoint.info.fingerprint;
    then.check(&now).map_err(|mismatch| OtherFacts {
        checkpoint: checkpoint.path().to_owned(),
        mismatch,
    })?;
    let unverified = then.unverified(&now);
    if matches!(start, Start::Resumed(_)) && !unverified.is_empty() {
        print_notice!(
            "warning: {}: an earlier version of the program wrote this checkpoint and did not record these facts, so it \
             could not be verified that they are the same now: {}",
            checkpoint.path().display(),
            unverified.join(", ")
        );
    }
    Ok(())
}
