//! `zeg eval`: scores of models on a data set, and `zeg eval merge`, which puts the shards of one together.

mod gallery;
mod merge;
mod plan;
mod record;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use burn::tensor::Device;
use clap::{Args, Subcommand};
use zeg::{
    data::Dataset,
    eval::{Evaluation, Protocol, Shard, Summary, record::FILE_NAME},
    evaluation::{Outcome, Setup, evaluate},
    loading::LoadedModel,
    model::inference::ClassQueries,
    vocab::templates::TemplateSet,
    words::{WordSources, embed_class_set},
};

use self::plan::{Plan, PlanFile};
use super::{JsonTarget, import::OutputExists, open_device};
use crate::{
    cli::{ComputeArgs, InferenceArgs, MethodArgs, ModelArgs},
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
    /// Data set folder
    #[arg(long, value_name = "DIR", required = true)]
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
    let mut evaluations = Vec::new();
    for (number, checkpoint) in args.checkpoint.iter().enumerate() {
        let folder = folders.get(number).map(PathBuf::as_path);
        evaluations.push(score(args, checkpoint, file.as_ref(), folder, &device)?);
    }
    show(&evaluations, args.json.as_deref())?;
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
    let summary = Summary::of(evaluations)?;
    if let Some(target) = &target {
        target.write(&summary)?;
    }
    if !quiet {
        println!("{}", summary.to_table());
    }
    Ok(())
}

/// The folder of every model's record, checked before any work: none without `--output`, the folder itself for one
/// model, folders in it for several.
fn folders(args: &EvalArgs) -> anyhow::Result<Vec<PathBuf>> {
    let Some(output) = &args.output else {
        return Ok(Vec::new());
    };
    let folders: Vec<PathBuf> = if let [_] = &args.checkpoint[..] {
        vec![output.clone()]
    } else {
        record::run_names(&args.checkpoint)
            .iter()
            .map(|name| output.join(name))
            .collect()
    };
    for folder in &folders {
        let file = folder.join(FILE_NAME);
        if file.exists() && !args.overwrite {
            return Err(OutputExists(file).into());
        }
    }
    Ok(folders)
}

/// Scores one model.
fn score(
    args: &EvalArgs,
    checkpoint: &Path,
    file: Option<&PlanFile>,
    folder: Option<&Path>,
    device: &Device,
) -> anyhow::Result<Evaluation> {
    let base = args.model.weights.as_deref();
    let loaded = LoadedModel::open(checkpoint, base, args.method.config(), device)?;
    let plan = Plan::new(args, file, (checkpoint, &loaded))?;
    let root = args.data.as_deref().unwrap_or(Path::new("."));
    let mut dataset = plan.open_dataset(root)?;
    if let Some(limit) = args.limit {
        dataset.items.truncate(limit);
    }
    if let Some(Shard { index, count }) = args.shard {
        let mut number = 0;
        dataset.items.retain(|_| {
            number += 1;
            (number - 1) % count == index - 1
        });
    }
    warn_of_seen(&dataset, &loaded);
    let queries = queries(args, &plan, &dataset, &loaded, device)?;
    let setup = Setup {
        model: loaded.model.as_ref(),
        queries: &queries,
        settings: &plan.settings,
        test_time: &plan.test_time,
        device,
        threads: rayon::current_num_threads(),
    };
    let started = Instant::now();
    let outcome = scored(&setup, &dataset)?;
    let wall = started.elapsed();
    tell_times(&outcome, wall);
    let mut evaluation = record::evaluation(
        (checkpoint, &loaded, &plan),
        &dataset,
        outcome,
        (args.shard, wall, setup.threads),
    )?;
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder)?;
        let colours = dataset.classes.palette();
        let rated = gallery::rated(&evaluation);
        let look = (args.gallery, &colours[..]);
        evaluation.gallery = gallery::write(&setup, &dataset, &rated, look, folder)?;
        evaluation.save(folder)?;
        eprintln!("record: {}", folder.join(FILE_NAME).display());
    }
    Ok(evaluation)
}

/// Says which classes the scores call unseen although the model was trained on their masks.
fn warn_of_seen(dataset: &Dataset, loaded: &LoadedModel) {
    let was_trained = |label: &&usize| {
        let name = dataset.classes.classes.get(**label);
        let mut trained = loaded.trained_on.iter();
        trained.any(|class| class.seen && Some(&class.name) == name)
    };
    let names: Vec<String> = dataset
        .classes
        .unseen
        .iter()
        .filter(was_trained)
        .filter_map(|&label| dataset.classes.classes.get(label).cloned())
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
    dataset: &Dataset,
    loaded: &LoadedModel,
    device: &Device,
) -> anyhow::Result<ClassQueries> {
    let templates = TemplateSet::by_name(&plan.data.templates)?;
    let classes = &dataset.classes;
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
    bar.finish_and_clear();
    Ok(ClassQueries {
        text: embeddings.to_tensor(device),
        seen: plan.lowered(dataset, loaded),
    })
}

fn scored(setup: &Setup, dataset: &Dataset) -> anyhow::Result<Outcome> {
    let bar = progress::bar(dataset.len() as u64, "scoring");
    let outcome = evaluate(setup, dataset, |id| {
        bar.inc(1);
        bar.set_message(id.to_owned());
        Ok(())
    });
    bar.finish_and_clear();
    outcome
}

/// Says where the time went.
fn tell_times(outcome: &Outcome, wall: std::time::Duration) {
    let times = outcome.times;
    let total = times.total().as_secs_f64().max(1e-9);
    let share = |part: std::time::Duration| 100.0 * part.as_secs_f64() / total;
    eprintln!(
        "{} pictures in {:.1} s; model {:.1} %, of it scores of pixels {:.1} %; reading {:.1} %, resizing {:.1} %, \
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
