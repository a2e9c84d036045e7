//! Builds the trainer of a run: its model, its teacher, and where it starts.

use std::{collections::BTreeSet, path::Path};

use burn::tensor::Device;
use zeg::{
    model::{
        ModelError, embeddings::ClassEmbeddings, method::Architecture, methods::Methods,
        text::ClassTexts, weights::StateDict,
    },
    vocab::classes::ClassSet,
};
use zeg_train::{
    checkpoint::{Checkpoint, read_moments},
    experiment::Experiment,
    pseudo_labels::Teacher,
    recipe::Recipe,
    setting::supervision,
    trainer::Trainer,
};

use super::start::Start;
use crate::{commands::model_file::EMULATED, progress::Verbosity};

/// Everything that a trainer is built from.
pub(super) struct TrainerInput<'a> {
    pub(super) recipe: &'static dyn Recipe,
    pub(super) methods: &'a Methods,
    pub(super) architecture: &'a dyn Architecture,
    pub(super) experiment: &'a Experiment,
    /// All classes of the data set.
    pub(super) classes: &'a ClassSet,
    /// The frozen weights.
    pub(super) weights: &'a StateDict,
    /// File of a pre-trained residual network.
    pub(super) backbone: Option<&'a Path>,
    /// Class embeddings of all classes.
    pub(super) embeddings: &'a ClassEmbeddings,
    /// Texts of all classes, for a text tower that is trained.
    pub(super) texts: Option<&'a ClassTexts>,
    pub(super) start: &'a Start,
    /// File of the checkpoint that the run began with.
    pub(super) init: Option<&'a Path>,
    pub(super) device: &'a Device,
    pub(super) verbosity: Verbosity,
}

/// Returns the trainer and the names of the parameters that start fresh.
pub(super) fn build_trainer(input: &TrainerInput) -> anyhow::Result<(Trainer, Vec<String>)> {
    let TrainerInput {
        recipe,
        methods,
        architecture,
        experiment,
        classes,
        backbone,
        embeddings,
        texts,
        start,
        init,
        device,
        verbosity,
        ..
    } = *input;
    let supervision = supervision(&experiment.training, classes)?;
    let texts = texts.map(|texts| texts.select(&supervision.classes()));
    let training_device = device.clone().autodiff();
    let text = embeddings.rows(&supervision.classes())?;
    let text = text.to_tensor(&training_device);

    let mut weights = input.weights.clone();
    if let Some(backbone) = backbone {
        let params = architecture.params()?;
        anyhow::ensure!(
            params
                .iter()
                .any(|param| architecture.is_backbone(&param.name)),
            "--backbone: the method {} has no backbone of its own beside CLIP",
            architecture.title()
        );
        weights.add(backbone)?;
    }
    let seed = experiment.training.seed;
    let frozen = experiment.training.precision.of_frozen();
    if frozen.is_emulated() {
        print_notice!("warning: {EMULATED}");
    }
    let teacher = match (experiment.training.self_training.teacher, init) {
        (Teacher::Start, Some(init)) => {
            let mut weights = weights.clone();
            weights.add(init)?;
            Some(architecture.build(&weights, device, seed)?.0)
        }
        _ => None,
    };
    if let Start::Resumed(checkpoint) | Start::Init(checkpoint) = start {
        weights.add(checkpoint.path())?;
    }
    let (model, provenance) =
        architecture.build_frozen_in(&weights, &training_device, seed, frozen)?;
    if backbone.is_some() {
        let fresh = |name: &&String| architecture.is_backbone(name);
        if let Some(name) = provenance.initialized.iter().find(fresh) {
            anyhow::bail!("--backbone: {} holds no {name:?}", weights.origin());
        }
    }
    // The other parameters are constants or have no effect.
    let fresh: Vec<String> = (provenance.initialized.into_iter())
        .filter(|key| architecture.trains(key) || architecture.keeps(key))
        .collect();
    if let Start::Resumed(checkpoint) | Start::Init(checkpoint) = start
        && let Some(key) = first_missing(&fresh, checkpoint, methods)?
    {
        return Err(ModelError::MissingTensor {
            key: key.clone(),
            origin: checkpoint.path().display().to_string(),
        }
        .into());
    }
    let mut trainer = Trainer::new(
        recipe,
        architecture,
        model,
        experiment.training.clone(),
        supervision,
        text,
    )?;
    if let Some(texts) = texts {
        trainer.set_texts(texts)?;
    }
    if let Some(teacher) = teacher {
        trainer.set_teacher(&*teacher);
    }
    match start {
        Start::Fresh => {}
        // Only the weights are taken over; optimiser and schedule start anew.
        Start::Init(checkpoint) => verbosity.notice(format_args!(
            "starting from step {} of {}",
            checkpoint.info.step,
            checkpoint.path().display()
        )),
        Start::Resumed(checkpoint) => {
            trainer.resume(checkpoint.info.step, read_moments(checkpoint)?);
            verbosity.notice(format_args!("resuming at step {}", checkpoint.info.step));
        }
    }
    Ok((trainer, fresh))
}

/// Returns the first parameter that starts fresh although the model of the checkpoint has it.
fn first_missing<'a>(
    fresh: &'a [String],
    checkpoint: &Checkpoint,
    methods: &Methods,
) -> anyhow::Result<Option<&'a String>> {
    if fresh.is_empty() {
        return Ok(None);
    }
    let before = checkpoint.architecture(methods)?.params()?;
    let names: BTreeSet<&str> = before.iter().map(|param| param.name.as_str()).collect();
    Ok(fresh.iter().find(|name| names.contains(name.as_str())))
}
