//! `zeg train`: an experiment file to a trained model.

mod run_folder;
mod validation;
mod views;

pub(crate) use self::run_folder::{NothingToStartFrom, RunExists};

use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use burn::tensor::Device;
use indicatif::ProgressBar;
use zeg::{
    data::{Loader, LoaderOptions, OpenSet, Pipeline, SampleSource as _},
    image::Normalization,
    mini::{is_mini, open_weights, weights_sha256},
    model::{embeddings::ClassEmbeddings, method::Method, weights::StateDict},
    vocab::{classes::ClassSet, templates::TemplateSet},
    words::{WordSources, embed_class_set},
};
use zeg_train::setting::supervision;
use zeg_train::{
    TrainError,
    batch::{Inputs, Samples},
    checkpoint::{BaseWeights, CheckpointInfo, Contents, StoredClass, save},
    experiment::{Experiment, Setting},
    features::FeatureCache,
    trainer::Trainer,
};

use self::{
    run_folder::{RunFolder, Start},
    validation::{Score, Validator},
};
use super::{data_folder, open_device, stop_flag};
use crate::{cli::TrainArgs, progress};

/// Exit code of a run that the user stopped.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(args: &TrainArgs) -> anyhow::Result<ExitCode> {
    let device = open_device(&args.compute)?;
    let experiment = Experiment::open(&args.config, &args.changes)?;
    let data = &experiment.data;
    let root = data_folder(args.data.as_deref(), &data.dataset)?;
    let dataset = Arc::new(data.open(root, &data.train_split)?);
    let classes = dataset.classes().clone();
    let (folder, start) = RunFolder::open(&args.output, args.resume, &experiment)?;
    let start = start.or_init(args.init.as_deref(), &experiment)?;

    let weights = open_weights(&args.weights)?;
    let embeddings = embed_classes(
        args,
        &experiment.data.templates,
        &classes,
        &weights,
        &device,
    )?;
    let base = BaseWeights {
        path: if is_mini(&args.weights) {
            args.weights.clone()
        } else {
            let whole = args.weights.canonicalize();
            whole.unwrap_or_else(|_| args.weights.clone())
        },
        sha256: weights_sha256(&args.weights)?,
    };
    let mut trainer = build_trainer(
        &experiment,
        &classes,
        &weights,
        &embeddings,
        &start,
        (&base, args.backbone.as_deref()),
        &device,
    )?;
    folder.write_manifest(
        &experiment,
        args,
        &base,
        dataset.len(),
        trainer.step_number(),
    )?;
    eprintln!(
        "training ({}) on {} pictures of {} {}, {} seen and {} unseen classes; {} steps of {} pictures",
        experiment.training.setting.name(),
        dataset.len(),
        dataset.name(),
        experiment.data.train_split,
        classes.len() - classes.unseen.len(),
        classes.unseen.len(),
        experiment.training.steps,
        experiment.training.batch
    );

    let info = CheckpointInfo {
        format: 0,
        writer: String::new(),
        step: 0,
        classes: stored_classes(&classes, experiment.training.setting),
        base,
        optimizer_time: std::collections::BTreeMap::new(),
        experiment,
    };
    let validator = Validator::new(
        &info.experiment,
        root,
        (&info.classes, &embeddings),
        &device,
    )?;
    let mut session = Session {
        folder,
        info,
        embeddings,
        validator,
    };
    let finished = session.run(&mut trainer, &dataset, args)?;
    if !finished {
        eprintln!(
            "stopped at step {}; `--resume` continues",
            trainer.step_number()
        );
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let path = session.folder.model();
    session.save_model(&trainer, &path)?;
    println!("{}", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Embeddings of all classes of the data set. Training sees the rows of the seen classes only; the others travel to
/// the checkpoint, for scoring.
fn embed_classes(
    args: &TrainArgs,
    templates: &str,
    classes: &ClassSet,
    weights: &StateDict,
    device: &Device,
) -> anyhow::Result<ClassEmbeddings> {
    let templates = TemplateSet::by_name(templates)?;
    let sources = WordSources {
        table: args.text.as_deref(),
        table_names: Some(&classes.classes),
        stored: None,
        weights,
        templates: &templates,
        cache: None,
        progress: None,
    };
    embed_class_set(classes, &sources, device)
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

fn build_trainer(
    experiment: &Experiment,
    classes: &ClassSet,
    base_weights: &StateDict,
    embeddings: &ClassEmbeddings,
    start: &Start,
    (base, backbone): (&BaseWeights, Option<&Path>),
    device: &Device,
) -> anyhow::Result<Trainer> {
    let supervision = supervision(&experiment.training, classes)?;
    let rows: Vec<Vec<String>> = supervision
        .names()
        .iter()
        .map(|name| vec![name.clone()])
        .collect();
    let training_device = device.clone().autodiff();
    let text = embeddings.select(&rows)?.to_tensor(&training_device);

    let mut weights = base_weights.clone();
    if let Some(backbone) = backbone {
        anyhow::ensure!(
            experiment.model.method == Method::ZegFormer,
            "--backbone is ZegFormer's residual network; {} has none",
            experiment.model.method.title()
        );
        weights.add(backbone)?;
    }
    if let Start::From(checkpoint) | Start::Init(checkpoint) = start {
        anyhow::ensure!(
            checkpoint.info.base.sha256 == base.sha256,
            "{} was trained with weights of SHA-256 {}, {} has {}",
            checkpoint.path().display(),
            checkpoint.info.base.sha256,
            base.path.display(),
            base.sha256
        );
        weights.add(checkpoint.path())?;
    }
    let config = experiment.model.architecture()?;
    let (model, provenance) = config.build(&weights, &training_device, experiment.training.seed)?;
    if backbone.is_some() {
        let fresh = |name: &&String| name.starts_with("backbone.") && !name.contains(".norm.");
        if let Some(name) = provenance.initialized.iter().find(fresh) {
            anyhow::bail!("--backbone: {} holds no {name:?}", weights.origin());
        }
    }
    let mut trainer = Trainer::new(model, experiment.training.clone(), supervision, text)?;
    match start {
        Start::Fresh => {}
        // The weights alone: optimiser and schedule start afresh.
        Start::Init(checkpoint) => eprintln!(
            "starting from step {} of {}",
            checkpoint.info.step,
            checkpoint.path().display()
        ),
        Start::From(checkpoint) => {
            trainer.resume(checkpoint.info.step, checkpoint.moments()?);
            eprintln!("resuming at step {}", checkpoint.info.step);
        }
    }
    Ok(trainer)
}

/// Where the samples of a run come from.
enum Source {
    Pictures(Box<Loader>),
    Features(FeatureCache),
}

impl Source {
    fn next(&mut self, step: u64, batch: usize) -> Result<Samples, TrainError> {
        match self {
            Self::Features(cache) => Ok(cache.batch(step, batch)),
            Self::Pictures(loader) => {
                let batch = loader.next_batch()?;
                for (id, reason) in &batch.skipped {
                    eprintln!("warning: {id} is skipped: {reason}");
                }
                Ok(Samples {
                    inputs: Inputs::Pictures(batch.images),
                    labels: batch.labels,
                    size: batch.size,
                    ids: batch.ids,
                })
            }
        }
    }
}

struct Session {
    folder: RunFolder,
    info: CheckpointInfo,
    embeddings: ClassEmbeddings,
    validator: Option<Validator>,
}

impl Session {
    /// Trains to the end; `false` when the user stopped it.
    fn run(
        &mut self,
        trainer: &mut Trainer,
        dataset: &Arc<OpenSet>,
        args: &TrainArgs,
    ) -> anyhow::Result<bool> {
        let training = self.info.experiment.training.clone();
        let stop = stop_flag();
        let pipeline = Pipeline::new(training.preprocess.clone(), Normalization::IMAGENET)?;
        let mut source = match training.cached_views {
            Some(views) => {
                match views::features(
                    &self.info,
                    trainer,
                    dataset,
                    (&pipeline, views),
                    args,
                    &stop,
                )? {
                    Some(cache) => Source::Features(cache),
                    None => return Ok(false),
                }
            }
            None => Source::Pictures(Box::new(Loader::new(
                Arc::clone(dataset),
                pipeline,
                LoaderOptions {
                    batch_size: training.batch,
                    seed: training.seed,
                    start_batch: trainer.step_number(),
                    workers: args.workers.max(1),
                    on_bad_sample: training.on_bad_sample,
                },
            )?)),
        };
        let bar = progress::bar(training.steps, "training");
        bar.set_position(trainer.step_number());
        let mut log = self.folder.open_log(trainer.step_number())?;
        // A file of scores is only made where scores were asked for.
        let scores = self.validator.as_ref();
        let scores = scores.map(|_| self.folder.open_scores(trainer.step_number()));
        let (mut scores, before) = scores.transpose()?.unzip();
        let before = before.unwrap_or_default();
        let mut best = before.iter().map(Score::value).reduce(f64::max);
        while trainer.step_number() < training.steps {
            let started = Instant::now();
            let samples = source.next(trainer.step_number(), training.batch)?;
            let report = trainer.train_step(samples)?;
            log.write_step(&report, started.elapsed())?;
            show(&bar, &report);
            let stopping = stop.load(Ordering::SeqCst);
            let done = trainer.step_number();
            // Before the checkpoint: a run that is killed between the two scores this step again.
            if let Some(validator) = &self.validator
                && validator.is_due(done, training.steps)
                && !stopping
            {
                let score = validator.score(trainer)?;
                bar.suspend(|| eprintln!("{}", score.line()));
                if best.is_none_or(|best| score.value() > best) {
                    best = Some(score.value());
                    self.save_model(trainer, &self.folder.best())?;
                }
                if let Some(scores) = &mut scores {
                    scores.write(&score)?;
                }
            }
            if stopping
                || done.is_multiple_of(training.checkpoint_every())
                || done == training.steps
            {
                self.save_checkpoint(trainer)?;
            }
            if stopping && done < training.steps {
                bar.finish_and_clear();
                return Ok(false);
            }
        }
        bar.finish_and_clear();
        Ok(true)
    }

    fn save_checkpoint(&mut self, trainer: &Trainer) -> anyhow::Result<()> {
        let path = self.folder.checkpoint(trainer.step_number());
        self.info.step = trainer.step_number();
        let moments = Some(trainer.moments()?);
        let contents = Contents {
            info: self.info.clone(),
            model: trainer.model(),
            embeddings: &self.embeddings,
            moments,
        };
        save(&path, contents)?;
        self.folder
            .forget_old(self.info.experiment.training.keep_checkpoints)
    }

    /// Writes the trained weights without the optimiser's state.
    fn save_model(&self, trainer: &Trainer, path: &Path) -> anyhow::Result<()> {
        let info = CheckpointInfo {
            step: trainer.step_number(),
            ..self.info.clone()
        };
        let contents = Contents {
            info,
            model: trainer.model(),
            embeddings: &self.embeddings,
            moments: None,
        };
        Ok(save(path, contents)?)
    }
}

fn show(bar: &ProgressBar, report: &zeg_train::trainer::StepReport) {
    bar.set_position(report.step + 1);
    let terms: Vec<String> = report
        .terms
        .iter()
        .map(|(name, value)| format!("{name} {value:.3}"))
        .collect();
    bar.set_message(format!(
        "loss {:.3} ({}), lr {:.2e}",
        report.loss,
        terms.join(", "),
        report.lr
    ));
}
