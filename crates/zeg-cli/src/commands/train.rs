//! `zeg train`: trains the model of an experiment file.

mod args;
mod begun_run;
mod build;
mod cached_copies;
mod checkpoint_files;
mod class_texts;
mod facts;
mod hints;
mod init;
mod output;
mod run_folder;
mod start;
mod stated;
mod together;
mod training_run;
mod validation;

pub(crate) use self::{
    args::TrainArgs,
    begun_run::{BegunRun, is_begun},
    hints::hint,
    together::same_fingerprints,
};

#[cfg(feature = "schema")]
pub(crate) use self::output::output_schema;

use std::{path::Path, process::ExitCode, sync::Arc, time::Instant};

use anyhow::Context as _;
use zeg::{
    data::{DataError, OpenSet, SampleSource as _},
    mini::{is_mini, open_weights, weights_sha256},
    model::{
        config::Activation,
        method::Architecture,
        methods::Methods,
        weights::{StateDict, StatedHeads},
    },
    vocab::classes::ClassSet,
};
use zeg_base::{file, fingerprint::Fingerprint, plural::counted, ranks::Ranks};
use zeg_train::{
    checkpoint::{BaseWeights, CheckpointInfo, StoredClass},
    experiment::{Experiment, Setting},
    pseudo_labels::Teacher,
    recipe::Recipe,
};

use self::{
    args::TrainSettings,
    build::{TrainerInput, build_trainer},
    class_texts::{TextInput, embed_classes},
    init::Init,
    output::TrainOutput,
    run_folder::{ManifestInput, RunFolder},
    start::{NothingToStartFrom, Start},
    stated::{state_activation, state_heads},
    training_run::TrainingRun,
    validation::{Validator, ValidatorInput},
};
use super::{
    data_folder, interrupt, model_file::warn_of_files, same_images::warn_of_same_images, stop_flag,
    write_result,
};
use crate::{Program, progress::Verbosity};

/// Largest number of parameters whose names are printed.
const MOST_FRESH_NAMES: usize = 12;

pub(crate) fn run(
    program: &Program,
    args: TrainArgs,
    verbosity: Verbosity,
    ranks: &Ranks,
) -> anyhow::Result<ExitCode> {
    let mut settings = args.settings(verbosity)?;
    // The first rank writes the document.
    settings.json = settings.json.filter(|_| ranks.is_first());
    train(program, &settings, ranks)
}

fn train(program: &Program, settings: &TrainSettings, ranks: &Ranks) -> anyhow::Result<ExitCode> {
    let (started, stop) = (Instant::now(), stop_flag());
    let device = settings.compute.open_device()?;
    let Program { methods, recipes } = program;
    let mut experiment = super::open_experiment(program, &settings.config, &settings.changes)?;
    // The model keeps the path, and scoring may run in another folder.
    experiment.data.make_absolute();
    together::check_micro_batches(&experiment.training, ranks)?;
    let root = data_folder(settings.data.as_deref(), &experiment.data.dataset)?;
    let dataset = Arc::new(open_dataset(settings, &experiment, root)?);
    let classes = dataset.classes().clone();
    let (mut folder, start) = open_folder(ranks, settings, &experiment, methods)?;
    check_feature_cache(settings, &experiment)?;
    let mut weights = read_weights(settings, methods)?;
    let activation = state_activation(&mut weights, settings, &experiment.model)?;
    let model = experiment.model.with_activation(activation);
    let architecture = model.architecture(methods)?;
    let heads = state_heads(&mut weights, settings, &*architecture)?;
    let recipe = recipes.of(architecture.method())?;
    let found = initial(folder.as_ref(), start, settings, &experiment, methods)?;
    let (init, start) = together::start_of_first(ranks, found, methods)?;
    check_start(&start, &experiment, recipe, &*architecture, methods)?;
    let base = base_weights(&settings.weights)?;
    let images = validation::images(&experiment, root)?;
    let sets = facts::Sets {
        training: &dataset,
        evaluation: images.as_ref(),
    };
    let fingerprint = facts::fingerprint(settings, &experiment, &sets, &weights, &base)?;
    if let Some(folder) = &folder {
        facts::check(folder, &start, &base, &fingerprint)?;
    }
    together::check_same(ranks, settings, &experiment, &start, &fingerprint)?;

    let text_weights = start.with_checkpoint(&weights)?;
    let (embeddings, texts) = embed_classes(&TextInput {
        settings,
        templates: &experiment.data.templates,
        classes: &classes,
        needs: &architecture.blueprint(&device)?.class_needs(),
        weights: &text_weights,
        device: &device,
    })?;
    let (mut trainer, fresh) = build_trainer(&TrainerInput {
        recipe,
        methods,
        architecture: &*architecture,
        experiment: &experiment,
        classes: &classes,
        weights: &weights,
        backbone: settings.backbone.as_deref(),
        embeddings: &embeddings,
        texts: texts.as_ref(),
        start: &start,
        init: init.as_ref().map(|init| &*init.path),
        device: &device,
        verbosity: settings.verbosity,
    })?;
    trainer.set_ranks(ranks.clone());
    together::check_parameters(ranks, &trainer)?;
    tell_fresh(&fresh, settings.verbosity);
    if let Some(folder) = &mut folder {
        folder.begin(&ManifestInput {
            experiment: &experiment,
            settings,
            base: &base,
            fingerprint: &fingerprint,
            images: dataset.len(),
            first_step: trainer.step_number(),
            init: init.as_ref(),
            fresh: &fresh,
            ranks,
        })?;
    }
    announce(settings, &experiment, &dataset);

    let towers = (activation, heads);
    let info = checkpoint_info(settings, &experiment, &classes, base, fingerprint, towers)?;
    let first_step = trainer.step_number();
    let validator = Validator::new(ValidatorInput {
        experiment: &experiment,
        architecture: &*architecture,
        images,
        classes: &info.classes,
        embeddings: &embeddings,
        texts: texts.clone(),
        weights: &text_weights,
        device: &device,
    })?;
    let mut run = TrainingRun {
        folder,
        ranks: ranks.clone(),
        info,
        experiment,
        architecture,
        embeddings,
        texts,
        validator,
    };
    let finished = run.complete(&mut trainer, &dataset, settings, &stop)?;
    let steps = [first_step, trainer.step_number()];
    let output = output(&run, settings, &dataset, steps, finished);
    let seconds = started.elapsed().as_secs_f64();
    finish(settings, &TrainOutput { seconds, ..output })
}

/// Opens the encoder's weights, all of which the model must read.
fn read_weights(settings: &TrainSettings, methods: &Methods) -> anyhow::Result<StateDict> {
    let weights = open_weights(&settings.weights, methods)?;
    warn_of_files(&weights);
    weights.check_unread()?;
    Ok(weights)
}

/// Opens the folder of the run on the first rank, which alone uses it, and returns where that rank starts.
fn open_folder(
    ranks: &Ranks,
    settings: &TrainSettings,
    experiment: &Experiment,
    methods: &Methods,
) -> anyhow::Result<(Option<RunFolder>, Start)> {
    if !ranks.is_first() {
        return Ok((None, Start::Fresh));
    }
    let (folder, start) = RunFolder::open(settings, experiment, methods)?;
    Ok((Some(folder), start))
}

/// Returns the checkpoint of another run that this one begins with, if there is one, and where this run goes on.
///
/// - `folder`: the folder of the run, on the first rank
fn initial(
    folder: Option<&RunFolder>,
    start: Start,
    settings: &TrainSettings,
    experiment: &Experiment,
    methods: &Methods,
) -> anyhow::Result<(Option<Init>, Start)> {
    let Some(folder) = folder else {
        return Ok((None, start));
    };
    let teaches = experiment.training.self_training.teacher == Teacher::Start;
    let init = folder.init(settings.init.as_deref(), &start, teaches)?;
    let start = start.or_init(init.as_ref(), experiment, methods)?;
    Ok((init, start))
}

/// Checks that a transductive run has a model that gives pseudo labels, unless its method labels without one.
fn check_start(
    start: &Start,
    experiment: &Experiment,
    recipe: &dyn Recipe,
    architecture: &dyn Architecture,
    methods: &Methods,
) -> anyhow::Result<()> {
    let transductive = experiment.training.setting == Setting::Transductive;
    if transductive && matches!(start, Start::Fresh) && !recipe.labels_untrained() {
        return Err(NothingToStartFrom.into());
    }
    start.check_architecture(architecture, methods)
}

/// Returns what a checkpoint says of a run besides its weights.
fn checkpoint_info(
    settings: &TrainSettings,
    experiment: &Experiment,
    classes: &ClassSet,
    base: BaseWeights,
    fingerprint: Fingerprint,
    (activation, heads): (Activation, StatedHeads),
) -> anyhow::Result<CheckpointInfo> {
    Ok(CheckpointInfo {
        format: 0,
        writer: String::new(),
        step: 0,
        classes: stored_classes(classes, experiment.training.setting),
        base,
        fingerprint,
        activation: Some(activation),
        heads: Some(heads),
        table: settings.text.as_deref().map(file_name),
        optimizer_time: std::collections::BTreeMap::new(),
        experiment: experiment.to_json()?,
    })
}

/// Returns what is known of a run from its folder, its images and its experiment.
///
/// - `first_step`, `step`: numbers of the steps that were done before and after
fn output(
    run: &TrainingRun,
    settings: &TrainSettings,
    dataset: &OpenSet,
    [first_step, step]: [u64; 2],
    finished: bool,
) -> TrainOutput {
    let folder = run.folder.as_ref();
    let best = folder.map(RunFolder::best);
    let training = &run.experiment.training;
    TrainOutput {
        folder: settings.output.clone(),
        model: folder.filter(|_| finished).map(RunFolder::model),
        best: best.filter(|best| best.is_file()),
        method: run.architecture.title().to_owned(),
        dataset: dataset.name().to_owned(),
        images: dataset.len(),
        seed: training.seed,
        first_step,
        step,
        steps: training.steps,
        finished,
        ..TrainOutput::default()
    }
}

/// Opens the images to train on, and checks that a step on them fits into memory.
///
/// - `root`: folder of the data set
fn open_dataset(
    settings: &TrainSettings,
    experiment: &Experiment,
    root: &Path,
) -> anyhow::Result<OpenSet> {
    let data = &experiment.data;
    let opened = data.open(root, &data.train_split);
    let dataset = opened.map_err(|error| about_data(settings, error))?;
    warn_of_same_images(data, root, &data.train_split);
    let memory = experiment
        .training
        .check_memory(dataset.classes().classes.len());
    memory.with_context(|| settings.config.display().to_string())?;
    Ok(dataset)
}

/// Says what is trained on what.
fn announce(settings: &TrainSettings, experiment: &Experiment, dataset: &OpenSet) {
    let classes = dataset.classes();
    settings.verbosity.notice(format_args!(
        "training ({}) on {} of {} {}, {} seen and {}; {} of {}",
        experiment.training.setting.name(),
        counted(dataset.len(), "image"),
        dataset.name(),
        experiment.data.train_split,
        classes.len() - classes.unseen.len(),
        counted(classes.unseen.len(), "unseen class"),
        counted(experiment.training.steps, "step"),
        counted(experiment.training.batch, "image")
    ));
}

/// Prints the result; returns the exit code of the signal if one stopped the run.
fn finish(settings: &TrainSettings, output: &TrainOutput) -> anyhow::Result<ExitCode> {
    if !output.finished {
        settings.verbosity.notice(format_args!(
            "stopped at step {}; --resume continues the run",
            output.step
        ));
    }
    write_result(settings.json.as_ref(), output, || match &output.model {
        Some(model) => print_result!("{}", model.display()),
        None => Ok(()),
    })?;
    Ok(if output.finished {
        ExitCode::SUCCESS
    } else {
        interrupt::exit_code()
    })
}

/// Checks that encoded images can be kept, if the run keeps them.
fn check_feature_cache(settings: &TrainSettings, experiment: &Experiment) -> anyhow::Result<()> {
    match &settings.feature_cache {
        Some(folder) if experiment.training.cached_copies.is_some() => {
            file::check_folder(folder).with_context(|| folder.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Adds the file, and the line of the key that an error about the data set follows from.
fn about_data(settings: &TrainSettings, error: DataError) -> anyhow::Error {
    let key = match &error {
        DataError::UnknownDataset { .. } | DataError::WorldClasses { .. } => "data.dataset",
        DataError::ClassList { .. } | DataError::Classes(_) => "data.classes",
        DataError::SplitNotFound { .. } => "data.train-split",
        DataError::Unseen(_) => "data.unseen",
        _ => return error.into(),
    };
    anyhow::Error::new(error).context(place_of(settings, key))
}

/// Returns the file of the experiment with the line of a key, unless `--set` gave the key.
fn place_of(settings: &TrainSettings, key: &str) -> String {
    let is_changed = |change: &String| change.trim_start().starts_with(key);
    let text = std::fs::read_to_string(&settings.config).unwrap_or_default();
    let file = settings.config.display();
    match zeg_base::keys::line(&text, key) {
        Some(line) if !settings.changes.iter().any(is_changed) => format!("{file}: line {line}"),
        _ => file.to_string(),
    }
}

/// Returns the name of a file, without its folder.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn tell_fresh(names: &[String], verbosity: Verbosity) {
    if let Some(text) = starts_fresh(names) {
        verbosity.notice(text);
    }
}

/// Names the parameters that start fresh: neither the weights nor a checkpoint hold them. `None` if there are none.
fn starts_fresh(names: &[String]) -> Option<String> {
    let shown = names.get(..MOST_FRESH_NAMES).unwrap_or(names).join(", ");
    match names.len() {
        0 => None,
        count if count <= MOST_FRESH_NAMES => Some(format!(
            "{count} parameters start from initial values: {shown}"
        )),
        count => Some(format!(
            "{count} parameters start from initial values: {shown} and {} more, which run.json lists",
            count - MOST_FRESH_NAMES
        )),
    }
}

/// Returns the path of the frozen weights, which may be that of an index or a folder, and the digest of all files; the
/// path is absolute unless the weights are part of the program.
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

fn stored_classes(classes: &ClassSet, setting: Setting) -> Vec<StoredClass> {
    let unseen = classes.unseen_flags();
    let pairs = unseen.into_iter().enumerate();
    pairs
        .map(|(label, unseen)| StoredClass {
            name: classes.classes.get(label).cloned().unwrap_or_default(),
            synonyms: classes.synonyms.get(label).cloned().unwrap_or_default(),
            seen: !unseen || setting == Setting::FullySupervised,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_starts_fresh_is_named() {
        assert_eq!(starts_fresh(&[]), None);
        let names: Vec<String> = (0..20).map(|i| format!("decode_head.{i}")).collect();
        let few = starts_fresh(&names[..2]).unwrap();
        assert_eq!(
            few,
            "2 parameters start from initial values: decode_head.0, decode_head.1"
        );
        let many = starts_fresh(&names).unwrap();
        assert!(many.contains("decode_head.11 and 8 more"), "{many}");
    }
}
