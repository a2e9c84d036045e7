//! Arguments of `zeg eval`, as typed and as meant.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use zeg::eval::{Protocol, Shard};

use super::{
    merge::{MergeArgs, MergeSettings},
    plan::PlanChanges,
};
use crate::commands::{
    JsonTarget,
    json::JsonArgs,
    shared::{
        CacheUse, ComputeArgs, ComputeSettings, Existing, InferenceArgs, MethodArgs, ModelArgs,
        ModelSettings, PrecisionArgs, TestTimeArgs,
    },
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
    dataset: Option<String>,
    /// Class list of the data set, such as voc21 or pascal-context59 [default: the experiment's]
    #[arg(long, value_name = "NAME")]
    class_list: Option<String>,
    /// Which classes are unseen: published, none, a split's name, a file, or names with commas [default: the
    /// experiment's, or the published ones]
    #[arg(long, value_name = "SPLIT")]
    unseen: Option<String>,
    /// Split to score [default: the experiment's, or val]
    #[arg(long)]
    split: Option<String>,
    /// Sentences that class names are read in: single, multi, … [default: the experiment's]
    #[arg(long, value_name = "NAME")]
    templates: Option<String>,
    /// What the scores are to be compared with [default: from the model and the data set]
    #[arg(long, value_enum)]
    protocol: Option<ProtocolArg>,
    /// Score with each of these seen offsets, from one run of the model: to choose one, on images that are not
    /// reported, such as --split train:1/5
    #[arg(
        long,
        value_name = "SCORES",
        value_delimiter = ',',
        value_parser = finite,
        conflicts_with = "seen_offset"
    )]
    seen_offsets: Vec<f32>,
    #[command(flatten)]
    test_time: TestTimeArgs,
    /// Score only the first images of the split
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Score one part of the images: part I of N, from 1; `zeg eval merge` adds the parts
    #[arg(long, value_name = "I/N", value_parser = shard, requires = "output")]
    shard: Option<Shard>,
    /// Folder for the record, which `zeg report` and `zeg eval merge` read
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Keep each record in its model's folder, under this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["output", "shard"])]
    in_runs: Option<PathBuf>,
    /// Folder for the predicted label maps, NAME.png each: class indices with a palette and the class names
    #[arg(long, value_name = "DIR")]
    write_labels: Option<PathBuf>,
    /// Images of each kind (best, median, worst) to keep for the report
    #[arg(long, value_name = "N", default_value_t = 3)]
    gallery: usize,
    /// Replace a record that exists
    #[arg(long)]
    overwrite: bool,
    /// Do not keep embeddings of words in the cache folder
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    inference: InferenceArgs,
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
    Merge(MergeArgs),
}

/// See [`Protocol`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ProtocolArg {
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

/// What `zeg eval` is to do.
pub(super) enum EvalTask {
    Score(Box<EvalSettings>),
    Merge(MergeSettings),
}

/// Which models are scored, on what, and where the scores go.
#[derive(Debug)]
pub(super) struct EvalSettings {
    pub(super) checkpoints: Vec<PathBuf>,
    pub(super) model: ModelSettings,
    pub(super) cache: CacheUse,
    /// The data set's folder.
    pub(super) data: Option<PathBuf>,
    pub(super) plan: Option<PathBuf>,
    /// What the command line says against plan and experiment.
    pub(super) changes: PlanChanges,
    /// Seen offsets to score with; empty for the plan's.
    pub(super) seen_offsets: Vec<f32>,
    pub(super) limit: Option<usize>,
    pub(super) shard: Option<Shard>,
    pub(super) records: RecordPlace,
    pub(super) existing: Existing,
    /// Folder for predicted label maps.
    pub(super) labels: Option<PathBuf>,
    /// Images of each rank for the gallery.
    pub(super) gallery: usize,
    pub(super) json: Option<JsonTarget>,
    pub(super) compute: ComputeSettings,
}

/// Where records go.
#[derive(Debug)]
pub(super) enum RecordPlace {
    Nowhere,
    /// One folder; with several models a folder each in it.
    Folder(PathBuf),
    /// A folder of this name beside each model.
    BesideModels(PathBuf),
}

impl EvalArgs {
    /// # Errors
    /// The file of `--json` may not be written.
    pub(super) fn settings(self) -> anyhow::Result<EvalTask> {
        if let Some(EvalCommand::Merge(args)) = self.command {
            return Ok(EvalTask::Merge(args.settings()?));
        }
        Ok(EvalTask::Score(Box::new(EvalSettings {
            checkpoints: self.checkpoint,
            model: self.model.settings(&self.method, &self.precision),
            cache: CacheUse::of_flag(self.no_cache),
            data: self.data,
            plan: self.plan,
            changes: PlanChanges {
                dataset: self.dataset,
                classes: self.class_list,
                unseen: self.unseen,
                split: self.split,
                templates: self.templates,
                protocol: self.protocol.map(Into::into),
                inference: self.inference.settings(),
                test_time: self.test_time.settings(),
            },
            seen_offsets: self.seen_offsets,
            limit: self.limit,
            shard: self.shard,
            records: match (self.output, self.in_runs) {
                (_, Some(name)) => RecordPlace::BesideModels(name),
                (Some(folder), None) => RecordPlace::Folder(folder),
                (None, None) => RecordPlace::Nowhere,
            },
            existing: Existing::of_flag(self.overwrite),
            labels: self.write_labels,
            gallery: self.gallery,
            json: self.json.target("eval")?,
            compute: self.compute.settings(),
        })))
    }
}
