//! `zeg train`: trains the model of an experiment file.

mod args;
mod cached_copies;
mod output;
mod run_folder;
mod training_run;
mod validation;

pub(crate) use self::{
    args::TrainArgs,
    run_folder::{NothingToStartFrom, RunExists},
};

#[cfg(feature = "schema")]
pub(crate) use self::output::output_schema;

use std::{path::Path, process::ExitCode, sync::Arc, time::Instant};

use burn::tensor::Device;
use zeg::{
    data::SampleSource as _,
    mini::{is_mini, open_weights, weights_sha256},
    model::{
        ModelError,
        config::Activation,
        embeddings::ClassEmbeddings,
        method::Architecture,
        section::ModelSection,
        weights::{self, StateDict},
    },
    text_sources::{TableSource, Templates, TextSources, embed_class_set},
    vocab::{
        classes::{ClassQuery, ClassSet},
        templates::TemplateSet,
    },
};
use zeg_train::setting::supervision;
use zeg_train::{
    checkpoint::{BaseWeights, CheckpointInfo, StoredClass, read_moments},
    experiment::{Experiment, Setting},
    recipe::Recipe,
    trainer::Trainer,
};

use self::{
    args::TrainSettings,
    output::TrainOutput,
    run_folder::{ManifestInput, RunFolder, Start},
    training_run::TrainingRun,
    validation::{Validator, ValidatorInput},
};
use super::{
    data_folder,
    model_file::{warn_of_assumed_activation, warn_of_text},
    write_result,
};
use crate::{Program, progress::Verbosity};

/// Exit code of a run that the user stopped.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(
    program: &Program,
    args: TrainArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    train(program, &args.settings(verbosity)?)
}

fn train(program: &Program, settings: &TrainSettings) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let device = settings.compute.open_device()?;
    let Program { methods, recipes } = program;
    let experiment = super::open_experiment(program, &settings.config, &settings.changes)?;
    let data = &experiment.data;
    let root = data_folder(settings.data.as_deref(), &data.dataset)?;
    let dataset = Arc::new(data.open(root, &data.train_split)?);
    let classes = dataset.classes().clone();
    let (folder, start) = RunFolder::open(
        &settings.output,
        settings.continuation,
        &experiment,
        methods,
    )?;
    let mut weights = open_weights(&settings.weights, methods)?;
    let activation = state_activation(&mut weights, settings, &experiment.model)?;
    let model = experiment.model.with_activation(activation);
    let architecture = model.architecture(methods)?;
    let start = start.or_init(settings.init.as_deref(), &experiment, methods)?;
    start.check_architecture(&*architecture, methods)?;

    let embeddings = embed_classes(
        settings,
        &experiment.data.templates,
        &classes,
        &weights,
        &device,
    )?;
    let base = base_weights(&settings.weights)?;
    let mut trainer = build_trainer(&TrainerInput {
        recipe: recipes.of(architecture.method())?,
        architecture: &*architecture,
        experiment: &experiment,
        classes: &classes,
        weights: &weights,
        base: &base,
        backbone: settings.backbone.as_deref(),
        embeddings: &embeddings,
        start: &start,
        device: &device,
        verbosity: settings.verbosity,
    })?;
    folder.write_manifest(&ManifestInput {
        experiment: &experiment,
        settings,
        base: &base,
        images: dataset.len(),
        first_step: trainer.step_number(),
    })?;
    settings.verbosity.notice(format_args!(
        "training ({}) on {} images of {} {}, {} seen and {} unseen classes; {} steps of {} images",
        experiment.training.setting.name(),
        dataset.len(),
        dataset.name(),
        experiment.data.train_split,
        classes.len() - classes.unseen.len(),
        classes.unseen.len(),
        experiment.training.steps,
        experiment.training.batch
    ));

    let info = CheckpointInfo {
        format: 0,
        writer: String::new(),
        step: 0,
        classes: stored_classes(&classes, experiment.training.setting),
        base,
        activation: Some(activation),
        table: settings.text.as_deref().map(file_name),
        optimizer_time: std::collections::BTreeMap::new(),
        experiment: experiment.to_json()?,
    };
    let first_step = trainer.step_number();
    let validator = Validator::new(&ValidatorInput {
        experiment: &experiment,
        architecture: &*architecture,
        root,
        classes: &info.classes,
        embeddings: &embeddings,
        weights: &weights,
        device: &device,
    })?;
    let mut run = TrainingRun {
        folder,
        info,
        experiment,
        architecture,
        embeddings,
        validator,
    };
    let finished = run.train(&mut trainer, &dataset, settings)?;
    let path = run.folder.model();
    if finished {
        run.save_model(&trainer, &path)?;
    }
    let best = run.folder.best();
    let output = TrainOutput {
        folder: settings.output.clone(),
        model: finished.then_some(path),
        best: best.is_file().then_some(best),
        method: run.architecture.title().to_owned(),
        dataset: dataset.name().to_owned(),
        images: dataset.len(),
        seed: run.experiment.training.seed,
        first_step,
        step: trainer.step_number(),
        steps: run.experiment.training.steps,
        finished,
        seconds: started.elapsed().as_secs_f64(),
    };
    if !finished {
        settings.verbosity.notice(format_args!(
            "stopped at step {}; --resume continues the run",
            output.step
        ));
    }
    write_result(settings.json.as_ref(), &output, || match &output.model {
        Some(model) => print_result!("{}", model.display()),
        None => Ok(()),
    })?;
    Ok(if finished {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INTERRUPTED)
    })
}

/// Returns the name of a file, without its folder.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Returns the activation of the frozen weights: that of the experiment or of `--activation`, or else that of the
/// files. The weights' text tower then has the same.
fn state_activation(
    weights: &mut StateDict,
    settings: &TrainSettings,
    model: &ModelSection,
) -> anyhow::Result<Activation> {
    let of_experiment = model.activation()?;
    let of_option = settings.activation.map(Activation::from);
    if let (Some(key), Some(option)) = (of_experiment, of_option) {
        anyhow::ensure!(
            key == option,
            "--activation contradicts model.activation of the experiment; leave one of them out"
        );
    }
    if let Some(activation) = of_experiment.or(of_option) {
        weights.state_activation(activation.into());
        return Ok(activation);
    }
    let stated = weights::Architecture::stated_activation(weights)?;
    if stated.is_none() {
        warn_of_assumed_activation(&settings.weights);
    }
    Ok(stated.map(Activation::from).unwrap_or_default())
}

/// Returns path and digest of the frozen weights; the path is absolute unless they are part of the program.
///
/// Links are kept: a configuration may lie beside the link only, as in the cache of Hugging Face.
fn base_weights(weights: &Path) -> anyhow::Result<BaseWeights> {
    let path = if is_mini(weights) {
        weights.to_owned()
    } else {
        std::path::absolute(weights).unwrap_or_else(|_| weights.to_owned())
    };
    Ok(BaseWeights {
        path,
        sha256: weights_sha256(weights)?,
    })
}

/// Embeds all classes of the data set.
///
/// Training uses the rows of the seen classes only; the checkpoint stores all of them, for scoring.
fn embed_classes(
    settings: &TrainSettings,
    templates: &str,
    classes: &ClassSet,
    weights: &StateDict,
    device: &Device,
) -> anyhow::Result<ClassEmbeddings> {
    let templates = TemplateSet::by_name(templates)?;
    let row_classes: Option<Vec<Vec<String>>> = settings.text_classes.as_ref().map(|classes| {
        let names = |class: &ClassQuery| class.names().map(str::to_owned).collect();
        classes.iter().map(names).collect()
    });
    let sources = TextSources {
        table: settings.text.as_deref().map(|path| TableSource {
            path,
            row_classes: row_classes.as_deref(),
        }),
        stored: None,
        weights,
        templates: Templates::Usual(&templates),
        cache: None,
        progress: None,
    };
    let embedded = embed_class_set(classes, &sources, device)?;
    warn_of_text(&embedded.notices);
    Ok(embedded.embeddings)
}

fn stored_classes(classes: &ClassSet, setting: Setting) -> Vec<StoredClass> {
    let unseen = classes.unseen_flags();
    let pairs = classes.classes.iter().zip(unseen);
    pairs
        .map(|(name, unseen)| StoredClass {
            name: name.clone(),
            seen: !unseen || setting == Setting::FullySupervised,
        })
        .collect()
}

/// Everything that a trainer is built from.
struct TrainerInput<'a> {
    recipe: &'static dyn Recipe,
    architecture: &'a dyn Architecture,
    experiment: &'a Experiment,
    /// All classes of the data set.
    classes: &'a ClassSet,
    /// The frozen weights.
    weights: &'a StateDict,
    /// File of the frozen weights.
    base: &'a BaseWeights,
    /// File of a pre-trained residual network.
    backbone: Option<&'a Path>,
    /// Class embeddings of all classes.
    embeddings: &'a ClassEmbeddings,
    start: &'a Start,
    device: &'a Device,
    verbosity: Verbosity,
}

fn build_trainer(input: &TrainerInput) -> anyhow::Result<Trainer> {
    let TrainerInput {
        recipe,
        architecture,
        experiment,
        classes,
        base,
        backbone,
        embeddings,
        start,
        device,
        verbosity,
        ..
    } = *input;
    let supervision = supervision(&experiment.training, classes)?;
    let rows: Vec<Vec<String>> = supervision
        .names()
        .iter()
        .map(|name| vec![name.clone()])
        .collect();
    let training_device = device.clone().autodiff();
    let text = embeddings.select(&rows)?.to_tensor(&training_device);

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
    if let Start::Resumed(checkpoint) | Start::Init(checkpoint) = start {
        anyhow::ensure!(
            checkpoint.info.base.sha256 == base.sha256,
            "{} was trained with weights of SHA-256 {}, but {} has SHA-256 {}",
            checkpoint.path().display(),
            checkpoint.info.base.sha256,
            base.path.display(),
            base.sha256
        );
        weights.add(checkpoint.path())?;
    }
    let seed = experiment.training.seed;
    let (model, provenance) = architecture.build(&weights, &training_device, seed)?;
    if backbone.is_some() {
        let fresh = |name: &&String| architecture.is_backbone(name);
        if let Some(name) = provenance.initialized.iter().find(fresh) {
            anyhow::bail!("--backbone: {} holds no {name:?}", weights.origin());
        }
    }
    if let Start::Resumed(checkpoint) | Start::Init(checkpoint) = start
        && let Some(key) = (provenance.initialized.iter())
            .find(|key| architecture.trains(key) || architecture.keeps(key))
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
    Ok(trainer)
}
