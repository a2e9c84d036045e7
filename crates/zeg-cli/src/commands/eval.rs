//! `zeg eval`: scores of models on a data set, and `zeg eval merge`, which puts the shards of one together.

mod gallery;
mod merge;
mod plan;
mod record;
pub(crate) mod sweep;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use burn::tensor::Device;
use clap::{Args, Subcommand};
use zeg::{
    data::{OpenSet, SampleSource},
    eval::{EvalError, Evaluation, Protocol, Shard, Summary, record::FILE_NAME},
    evaluation::{Outcome, Setup, evaluate},
    loading::LoadedModel,
    model::inference::{ClassQueries, Inference, TestTime},
    vocab::templates::TemplateSet,
    words::{WordSources, embed_class_set, embed_for_crops},
};

use self::plan::{Plan, PlanFile};
use super::{JsonTarget, data_folder, import::OutputExists, open_device};
use crate::{
    cli::{ComputeArgs, InferenceArgs, MethodArgs, ModelArgs, PrecisionArgs},
    progress,
};

/// Arguments of `zeg eval`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  zeg eval runs/quick/model.safetensors --data VOCdevkit/VOC2012 -o scores/quick
  zeg eval runs/quick/model.safetensors --data VOCdevkit/VOC2012 --split train:1/5 --seen-offsets 0,0.05,0.1,0.2
  zeg eval runs/s0/model.safetensors runs/s1/model.safetensors --data VOCdevkit/VOC2012 --json scores.json
  zeg eval clip-vit-b-16.safetensors --method sclip --data VOCdevkit/VOC2012 --dataset voc12
  zeg eval runs/coco/model.safetensors --plan configs/cross-dataset/coco-stuff164k-to-voc12.toml --data VOCdevkit/VOC2012
  zeg eval model.safetensors --data coco_stuff164k --shard 3/8 -o scores/part-3
  zeg eval merge scores/part-* -o scores/coco"
)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    command: Option<EvalCommand>,
    /// Checkpoints of trained models, or CLIP weights; several give mean ± standard deviation
    #[arg(required = true)]
    checkpoint: Vec<PathBuf>,
    /// Data set folder; the mini world needs none
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// File that describes the evaluation, such as those in configs/cross-dataset
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Data set: voc12, coco-stuff164k, pascal-context, ade20k, ade20k-full, cityscapes, or a file that describes
    /// one's own (.toml) [default: the experiment's]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) dataset: Option<String>,
    /// Class list of the data set, such as voc21 or pascal-context59 [default: the experiment's]
    #[arg(long, value_name = "NAME")]
    pub(crate) word_list: Option<String>,
    /// Which classes are unseen: published, none, a split's name, a file, or names with commas [default: the
    /// experiment's, or the published ones]
    #[arg(long, value_name = "SPLIT")]
    pub(crate) unseen: Option<String>,
    /// Split to score [default: the experiment's, or val]
    #[arg(long)]
    pub(crate) split: Option<String>,
    /// Sentences that class names are read in: single, multi, … [default: the experiment's]
    #[arg(long, value_name = "NAME")]
    pub(crate) templates: Option<String>,
    /// What the scores are to be compared with [default: from the model and the data set]
    #[arg(long, value_enum)]
    pub(crate) protocol: Option<ProtocolArg>,
    /// Score with each of these seen offsets, from one run of the model: to choose one, on pictures that are not
    /// reported, such as --split train:1/5
    #[arg(
        long,
        value_name = "SCORES",
        value_delimiter = ',',
        value_parser = finite,
        conflicts_with = "seen_offset"
    )]
    seen_offsets: Vec<f32>,
    /// Look at every picture in these sizes, factors on the short side, and average the scores
    #[arg(long, value_name = "FACTORS", value_delimiter = ',')]
    pub(crate) scales: Vec<f64>,
    /// Look at every picture mirrored, too
    #[arg(long)]
    pub(crate) flip: bool,
    /// Score only the first pictures of the split
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Score one part of the pictures: part I of N, from 1; `zeg eval merge` adds the parts
    #[arg(long, value_name = "I/N", value_parser = shard, requires = "output")]
    shard: Option<Shard>,
    /// Folder for the record, which `zeg report` and `zeg eval merge` read
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Keep each record in its model's folder, under this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["output", "shard"])]
    in_runs: Option<PathBuf>,
    /// Pictures of each kind (best, median, worst) to keep for the report
    #[arg(long, value_name = "N", default_value_t = 3)]
    gallery: usize,
    /// Replace a record that exists
    #[arg(long)]
    overwrite: bool,
    /// Write the scores as JSON; `-` writes them to standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) inference: InferenceArgs,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// What else `zeg eval` does.
#[derive(Debug, Subcommand)]
enum EvalCommand {
    /// Add the parts of an evaluation that was divided with --shard
    Merge(merge::MergeArgs),
}

/// See [`Protocol`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum ProtocolArg {
    /// Trained on seen classes alone
    Inductive,
    /// Self-training with pseudo labels on all unlabelled pixels
    Transductive,
    /// Self-training with pseudo labels on pixels of unseen classes alone (the papers' †)
    TransductiveUnseen,
    /// Trained on all classes
    FullySupervised,
    /// Trained on another data set; all classes are scored alike
    CrossDataset,
    /// All classes are scored alike
    OpenVocabulary,
    /// CLIP without any training on masks
    TrainingFree,
}

impl From<ProtocolArg> for Protocol {
    fn from(arg: ProtocolArg) -> Self {
        match arg {
            ProtocolArg::Inductive => Self::Inductive,
            ProtocolArg::Transductive => Self::Transductive,
            ProtocolArg::TransductiveUnseen => Self::TransductiveUnseen,
            ProtocolArg::FullySupervised => Self::FullySupervised,
            ProtocolArg::CrossDataset => Self::CrossDataset,
            ProtocolArg::OpenVocabulary => Self::OpenVocabulary,
            ProtocolArg::TrainingFree => Self::TrainingFree,
        }
    }
}

fn finite(text: &str) -> Result<f32, String> {
    match text.trim().parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("give a number, such as 0.1".to_owned()),
    }
}

/// `3/8`
fn shard(text: &str) -> Result<Shard, String> {
    let parts = text
        .split_once('/')
        .and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
    match parts {
        Some((index, count)) if (1..=count).contains(&index) => Ok(Shard { index, count }),
        _ => Err("write part/parts, such as 3/8; parts count from 1".to_owned()),
    }
}

pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<ExitCode> {
    if let Some(EvalCommand::Merge(args)) = &args.command {
        return merge::run(args);
    }
    let device = open_device(&args.compute)?;
    let file = args.plan.as_deref().map(PlanFile::open).transpose()?;
    let folders = folders(args)?;
    let mut jobs = Vec::new();
    for (number, checkpoint) in args.checkpoint.iter().enumerate() {
        let folder = folders.get(number).cloned();
        jobs.push(Job::new(args, checkpoint, file.as_ref(), folder, &device)?);
    }
    let mut evaluations = Vec::new();
    for jobs in jobs.chunk_by(Job::shares_encoding) {
        evaluations.extend(score(args, jobs, &device)?);
    }
    let json = args.json.as_deref();
    match &args.seen_offsets[..] {
        [] => show(&evaluations, json)?,
        offsets => sweep::show(&evaluations, offsets, json)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the scores of one evaluation, or a comparison of several.
pub(super) fn show(evaluations: &[Evaluation], json: Option<&Path>) -> anyhow::Result<()> {
    let target = json.map(JsonTarget::new);
    let quiet = matches!(target, Some(JsonTarget::Stdout));
    if let [evaluation] = evaluations {
        let report = evaluation.report()?;
        if let Some(target) = &target {
            target.write(&report)?;
        }
        if !quiet {
            println!("{}", report.to_table());
        }
        return Ok(());
    }
    match Summary::of(evaluations) {
        Ok(summary) => {
            if let Some(target) = &target {
                target.write(&summary)?;
            }
            if !quiet {
                println!("{}", summary.to_table());
            }
        }
        // Each has its scores; only a mean over them would say nothing.
        Err(error @ EvalError::Differs { .. }) => {
            eprintln!("no mean over these models: {error}");
            let reports = evaluations
                .iter()
                .map(|evaluation| Ok((evaluation.model.path.clone(), evaluation.report()?)))
                .collect::<anyhow::Result<Vec<_>>>()?;
            if let Some(target) = &target {
                let list: Vec<_> = reports
                    .iter()
                    .map(|(model, report)| serde_json::json!({ "model": model, "scores": report }))
                    .collect();
                target.write(&list)?;
            }
            if !quiet {
                for (model, report) in reports {
                    println!("{model}\n\n{}", report.to_table());
                }
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// The folder of every model's record, checked before any work: none without `--output`, the folder itself for one
/// model, folders in it for several; with `--in-runs` a folder beside each model.
fn folders(args: &EvalArgs) -> anyhow::Result<Vec<PathBuf>> {
    let folders: Vec<PathBuf> = match (&args.output, &args.in_runs, &args.checkpoint[..]) {
        (None, None, _) => return Ok(Vec::new()),
        (_, Some(name), models) => {
            let beside = |model: &PathBuf| model.parent().unwrap_or(Path::new("")).join(name);
            models.iter().map(beside).collect()
        }
        (Some(output), None, [_]) => vec![output.clone()],
        (Some(output), None, models) => record::run_names(models)
            .iter()
            .map(|name| output.join(name))
            .collect(),
    };
    let records = folders
        .iter()
        .flat_map(|folder| record_folders(folder, &args.seen_offsets));
    for folder in records {
        let file = folder.join(FILE_NAME);
        if file.exists() && !args.overwrite {
            return Err(OutputExists(file).into());
        }
    }
    Ok(folders)
}

/// The folders of a model's records: one, or one an offset.
fn record_folders(folder: &Path, offsets: &[f32]) -> Vec<PathBuf> {
    match offsets {
        [] => vec![folder.to_owned()],
        offsets => offsets
            .iter()
            .map(|&offset| sweep::folder(folder, offset))
            .collect(),
    }
}

/// A model and what it is scored on.
struct Job<'a> {
    checkpoint: &'a Path,
    loaded: LoadedModel,
    plan: Plan,
    dataset: OpenSet,
    queries: ClassQueries,
    /// Seen offsets to score with; empty for the plan's.
    offsets: Vec<f32>,
    /// Where the record goes.
    folder: Option<PathBuf>,
}

impl<'a> Job<'a> {
    fn new(
        args: &EvalArgs,
        checkpoint: &'a Path,
        file: Option<&PlanFile>,
        folder: Option<PathBuf>,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let base = args.model.weights.as_deref();
        let precision = args.precision.value();
        let loaded = LoadedModel::open(checkpoint, base, args.method.config(), device, precision)?;
        let plan = Plan::new(args, file, (checkpoint, &loaded))?;
        let root = data_folder(args.data.as_deref(), &plan.data.dataset)?;
        let mut dataset = plan.open_dataset(root)?;
        if let Some(limit) = args.limit {
            dataset.retain(|position| position < limit);
        }
        if let Some(Shard { index, count }) = args.shard {
            dataset.retain(|position| position as u64 % count == index - 1);
        }
        warn_of_seen(&dataset, &loaded);
        let queries = queries(args, &plan, &dataset, &loaded, device)?;
        Ok(Self {
            checkpoint,
            loaded,
            plan,
            dataset,
            queries,
            offsets: args.seen_offsets.clone(),
            folder,
        })
    }

    fn setup<'b>(&'b self, device: &'b Device) -> Setup<'b> {
        Setup {
            model: self.loaded.model.as_ref(),
            queries: &self.queries,
            settings: &self.plan.settings,
            test_time: &self.plan.test_time,
            offsets: &self.offsets,
            device,
            threads: rayon::current_num_threads(),
        }
    }

    /// The plan of every outcome, and where its record goes.
    fn plans(&self) -> Vec<(Plan, Option<PathBuf>)> {
        match &self.offsets[..] {
            [] => vec![(self.plan.clone(), self.folder.clone())],
            offsets => offsets
                .iter()
                .map(|&offset| {
                    let mut plan = self.plan.clone();
                    plan.settings.seen_offset = offset;
                    let records = self.folder.as_deref();
                    (plan, records.map(|records| sweep::folder(records, offset)))
                })
                .collect(),
        }
    }

    /// Whether a picture that is encoded for one model is encoded for the other, too: the same frozen encoder sees
    /// the same windows once.
    fn shares_encoding(&self, other: &Self) -> bool {
        let windows = |job: &Self| {
            let Inference {
                short_side,
                crop,
                stride,
                view,
                ..
            } = job.plan.settings;
            (short_side, crop, stride, view)
        };
        match (self.loaded.frozen_encoder(), other.loaded.frozen_encoder()) {
            (Some(one), Some(two)) => {
                one == two
                    && self.dataset == other.dataset
                    && windows(self) == windows(other)
                    && [self, other]
                        .iter()
                        .all(|job| job.plan.test_time == TestTime::default())
            }
            _ => false,
        }
    }
}

/// Scores models that share their encoder; one alone is the common case.
fn score(args: &EvalArgs, jobs: &[Job], device: &Device) -> anyhow::Result<Vec<Evaluation>> {
    let Some(Job { dataset, .. }) = jobs.first() else {
        return Ok(Vec::new());
    };
    let setups: Vec<Setup> = jobs.iter().map(|job| job.setup(device)).collect();
    let started = Instant::now();
    let outcomes = scored(&setups, dataset)?;
    let wall = started.elapsed();
    if let Some(outcome) = outcomes.first() {
        tell_times(outcome, jobs.len(), wall);
    }
    let mut outcomes = outcomes.into_iter();
    let mut evaluations = Vec::new();
    for (job, setup) in jobs.iter().zip(&setups) {
        let how = (args.shard, wall, setup.threads);
        for ((plan, folder), outcome) in job.plans().into_iter().zip(&mut outcomes) {
            let model = (job.checkpoint, &job.loaded, &plan);
            let mut evaluation = record::evaluation(model, dataset, outcome, how)?;
            if let Some(folder) = folder {
                std::fs::create_dir_all(&folder)?;
                let colours = dataset.classes().palette();
                let rated = gallery::rated(&evaluation);
                let setup = Setup {
                    settings: &plan.settings,
                    ..*setup
                };
                let look = (args.gallery, &colours[..]);
                evaluation.gallery = gallery::write(&setup, dataset, &rated, look, &folder)?;
                evaluation.save(&folder)?;
                eprintln!("record: {}", folder.join(FILE_NAME).display());
            }
            evaluations.push(evaluation);
        }
    }
    Ok(evaluations)
}

/// Says which classes the scores call unseen although the model was trained on their masks.
fn warn_of_seen(dataset: &OpenSet, loaded: &LoadedModel) {
    let was_trained = |label: &&usize| {
        let name = dataset.classes().classes.get(**label);
        let mut trained = loaded.trained_on.iter();
        trained.any(|class| class.seen && Some(&class.name) == name)
    };
    let names: Vec<String> = dataset
        .classes()
        .unseen
        .iter()
        .filter(was_trained)
        .filter_map(|&label| dataset.classes().classes.get(label).cloned())
        .collect();
    // Fully supervised models are scored on the published split as the papers do.
    let all_trained = loaded.trained_on.iter().all(|class| class.seen);
    if !names.is_empty() && !all_trained {
        eprintln!(
            "warning: the model was trained on masks of classes that are called unseen here: {}",
            names.join(", ")
        );
    }
}

/// The data set's classes, ready for the model.
fn queries(
    args: &EvalArgs,
    plan: &Plan,
    dataset: &OpenSet,
    loaded: &LoadedModel,
    device: &Device,
) -> anyhow::Result<ClassQueries> {
    let templates = TemplateSet::by_name(&plan.data.templates)?;
    let classes = dataset.classes();
    let bar = progress::bar(classes.len() as u64, "words");
    let sources = WordSources {
        table: args.model.text.as_deref(),
        table_names: Some(&classes.classes),
        stored: loaded.stored.as_ref(),
        weights: &loaded.weights,
        templates: &templates,
        cache: None,
        progress: Some(&|done, _| bar.set_position(done as u64)),
    };
    let embeddings = embed_class_set(classes, &sources, device)?;
    let names: Vec<Vec<String>> = (0..classes.len()).map(|c| classes.names_of(c)).collect();
    let crop_templates = plan.data.crop_templates.as_deref();
    let for_crops = embed_for_crops(&names, crop_templates, &sources, device)?;
    bar.finish_and_clear();
    Ok(ClassQueries {
        text: embeddings.to_tensor(device),
        crop_text: for_crops.map(|embeddings| embeddings.to_tensor(device)),
        seen: plan.lowered(dataset, loaded),
    })
}

fn scored(setups: &[Setup], dataset: &OpenSet) -> anyhow::Result<Vec<Outcome>> {
    let bar = progress::bar(dataset.len() as u64, "scoring");
    let outcomes = evaluate(setups, dataset, |id| {
        bar.inc(1);
        bar.set_message(id.to_owned());
        Ok(())
    });
    bar.finish_and_clear();
    outcomes
}

/// Says where the time went.
fn tell_times(outcome: &Outcome, models: usize, wall: std::time::Duration) {
    let times = outcome.times;
    let total = times.total().as_secs_f64().max(1e-9);
    let together = if models > 1 {
        format!(", {models} models with one encoder,")
    } else {
        String::new()
    };
    let share = |part: std::time::Duration| 100.0 * part.as_secs_f64() / total;
    eprintln!(
        "{} pictures{together} in {:.1} s; model {:.1} %, of it scores of pixels {:.1} %; reading {:.1} %, resizing {:.1} %, \
         counting {:.1} %",
        outcome.pictures.len(),
        wall.as_secs_f64(),
        share(times.model()),
        share(times.stages.scores),
        share(times.load),
        share(times.stages.prepare),
        share(times.count)
    );
}
