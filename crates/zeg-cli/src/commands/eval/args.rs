//! Arguments and settings of `zeg eval`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{ArgGroup, Args, Subcommand};
use zeg::{
    data::OnBadSample,
    eval::{Protocol, Shard},
    session::Confidence,
    vocab::classes::{ClassArgumentError, ClassQuery, parse_class_list},
};

use super::{
    merge::{MergeArgs, MergeSettings},
    plan::PlanChanges,
};
use crate::commands::{
    JsonTarget,
    journal::Continuation,
    json::JsonArgs,
    model_file::resolve_model,
    place::output_folder,
    shared::{
        CacheUse, ComputeArgs, ComputeSettings, ExamplesArgs, Existing, InferenceArgs, MethodArgs,
        ModelArgs, ModelSettings, PrecisionArgs, RanksArgs, TestTimeArgs, heading,
    },
};
use crate::{
    numbers::{WrongArgument, count, count_or_zero, finite},
    progress::Verbosity,
};

/// Arguments of `zeg eval`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    group(ArgGroup::new("records").args(["output", "in_runs"])),
    after_help = "\
Examples:
  zeg eval runs/quick/model.safetensors --data VOCdevkit/VOC2012 -o scores/quick
  zeg eval runs/s0/model.safetensors runs/s1/model.safetensors --data VOCdevkit/VOC2012 \\
      --json scores.json
  zeg eval clip-vit-b-16.safetensors --method sclip --dataset voc12 --data VOCdevkit/VOC2012
  zeg eval runs/coco/model.safetensors --data VOCdevkit/VOC2012 \\
      --plan configs/cross-dataset/coco-stuff164k-to-voc12.toml

Choose a seen offset on images that are not reported:
  zeg eval runs/quick/model.safetensors --data VOCdevkit/VOC2012 --split train:1/5 \\
      --seen-offsets 0,0.05,0.1,0.2

Fit a calibration on train, and measure it on val with classes left out of the list:
  zeg eval runs/quick/model.safetensors --data VOCdevkit/VOC2012 --split train \\
      --fit-calibration calibration.toml
  zeg eval runs/quick/model.safetensors --data VOCdevkit/VOC2012 \\
      --calibration calibration.toml --leave-out \"dog, sofa\"

Go on after an interruption:
  zeg eval runs/quick/model.safetensors --data VOCdevkit/VOC2012 -o scores/quick --resume

Score a large split in several processes:
  zeg eval model.safetensors --data coco_stuff164k --shard 3/8 -o scores/part-3
  zeg eval merge scores/part-* -o scores/coco"
)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    command: Option<EvalCommand>,
    /// Checkpoints, CLIP weights or names from `zeg models`; several are compared, with mean ± standard deviation over
    /// seeds of one configuration
    #[arg(required = true)]
    checkpoint: Vec<PathBuf>,
    /// Folder of the data set; the mini world needs none, and a .toml file may name its own
    #[arg(long, value_name = "DIR", help_heading = heading::DATA)]
    data: Option<PathBuf>,
    /// File that describes the evaluation, such as those in configs/cross-dataset
    #[arg(long, value_name = "FILE", help_heading = heading::DATA)]
    plan: Option<PathBuf>,
    /// Data set: a name from `zeg data list`, or a file that describes your own (.toml) [default: the experiment's]
    #[arg(long, value_name = "NAME|FILE", help_heading = heading::DATA)]
    dataset: Option<String>,
    /// Split to score [default: the experiment's, or val]
    #[arg(long, help_heading = heading::DATA)]
    split: Option<String>,
    /// Number of images to score, from the start of the split [default: all]
    #[arg(long, value_name = "N", value_parser = count, help_heading = heading::DATA)]
    limit: Option<usize>,
    /// Score part I of N of the images, counted from 1; `zeg eval merge` adds the parts up
    #[arg(long, value_name = "I/N", value_parser = parse_shard, requires = "output", help_heading = heading::DATA)]
    shard: Option<Shard>,
    /// What becomes of an image that cannot be read
    #[arg(long, value_name = "ACTION", value_enum, default_value_t, help_heading = heading::DATA)]
    on_bad_image: OnBadImageArg,
    /// Protocol that the scores belong to [default: from the model and the data set]
    #[arg(long, value_enum, help_heading = heading::DATA)]
    protocol: Option<ProtocolArg>,
    /// Class list of the data set, such as voc21 or pascal-context59 [default: the experiment's]
    #[arg(long, value_name = "NAME", help_heading = heading::CLASSES)]
    class_list: Option<String>,
    /// Unseen classes: `published`, `none`, the name of a split, a file, or class names separated by commas [default:
    /// the experiment's, or the published ones]
    #[arg(long, value_name = "SPLIT", help_heading = heading::CLASSES)]
    unseen: Option<String>,
    #[command(flatten)]
    examples: ExamplesArgs,
    /// Prompt templates: single, multi, … [default: the experiment's]
    #[arg(long, value_name = "NAME", help_heading = heading::CLASSES)]
    templates: Option<String>,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    inference: InferenceArgs,
    /// Score once with each of these seen offsets, separated by commas; the model runs only once
    #[arg(
        long,
        value_name = "SCORES",
        value_delimiter = ',',
        value_parser = finite,
        conflicts_with = "seen_offset",
        help_heading = heading::INFERENCE
    )]
    seen_offsets: Vec<f32>,
    #[command(flatten)]
    test_time: TestTimeArgs,
    /// Measure the confidence as well: calibration error, and what thresholds leave unlabelled
    #[arg(long, conflicts_with = "seen_offsets", help_heading = heading::INFERENCE)]
    confidence: bool,
    /// Fit a calibration of the confidence to these images, best those of train, and write it for --calibration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["calibration", "seen_offsets"], help_heading = heading::OUTPUT)]
    fit_calibration: Option<PathBuf>,
    /// Leave these classes out of the class list, separated by commas, and measure how many of their pixels thresholds
    /// leave unlabelled
    #[arg(long, value_name = "LIST", conflicts_with = "seen_offsets", help_heading = heading::CLASSES)]
    leave_out: Option<String>,
    /// Folder for the record, which `zeg report` and `zeg eval merge` read
    #[arg(short, long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
    output: Option<PathBuf>,
    /// Write each record into the folder of its model, in a folder of this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["output", "shard"], help_heading = heading::OUTPUT)]
    in_runs: Option<PathBuf>,
    /// Folder for the predicted label maps, ID.png each: class indices with a palette and the class names
    #[arg(long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
    write_labels: Option<PathBuf>,
    /// Number of best, of median and of worst images that the report shows
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = count_or_zero, help_heading = heading::OUTPUT)]
    gallery: usize,
    /// Replace a record and label maps that exist
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    /// Go on where an earlier run with the same settings stopped: images that it has scored are not scored again
    #[arg(long, visible_alias = "skip-existing", requires = "records", conflicts_with = "overwrite",
          help_heading = heading::OUTPUT)]
    resume: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Do not use the cache of class embeddings
    #[arg(long, help_heading = heading::PERFORMANCE)]
    no_cache: bool,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    ranks: RanksArgs,
}

/// The subcommands of `zeg eval`.
#[derive(Debug, Subcommand)]
enum EvalCommand {
    /// Add up the parts of an evaluation that was divided with --shard
    Merge(MergeArgs),
}

/// An [`OnBadSample`] as a value of `--on-bad-image`.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum OnBadImageArg {
    /// End with an error; with -o, --resume then goes on
    #[default]
    Stop,
    /// Leave it out of the scores; it is named in a warning and in the record
    Skip,
}

impl From<OnBadImageArg> for OnBadSample {
    fn from(arg: OnBadImageArg) -> Self {
        match arg {
            OnBadImageArg::Stop => Self::Stop,
            OnBadImageArg::Skip => Self::Skip,
        }
    }
}

/// A [`Protocol`] as a value of `--protocol`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ProtocolArg {
    /// Trained on the seen classes only
    Inductive,
    /// Self-training with pseudo-labels on all unlabelled pixels
    Transductive,
    /// Self-training with pseudo-labels on the pixels of unseen classes only (marked † in the papers)
    TransductiveUnseen,
    /// Trained on all classes
    FullySupervised,
    /// Trained on another data set; seen and unseen classes are not told apart
    CrossDataset,
    /// Seen and unseen classes are not told apart
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

/// Parses a part of divided work, such as `3/8`.
pub(crate) fn parse_shard(text: &str) -> Result<Shard, String> {
    let parts = text
        .split_once('/')
        .and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
    match parts {
        Some((index, count)) if (1..=count).contains(&index) => Ok(Shard { index, count }),
        _ => Err(
            "give a part and the number of parts, such as 3/8; parts are counted from 1".to_owned(),
        ),
    }
}

/// The work of `zeg eval` or of its subcommand.
pub(super) enum EvalTask {
    Score(Box<EvalSettings>),
    Merge(MergeSettings),
}

/// Settings of `zeg eval`.
#[derive(Debug)]
pub(super) struct EvalSettings {
    pub(super) checkpoints: Vec<PathBuf>,
    pub(super) model: ModelSettings,
    /// Folder of example images with masks.
    pub(super) examples: Option<PathBuf>,
    pub(super) cache: CacheUse,
    /// Folder of the data set.
    pub(super) data: Option<PathBuf>,
    pub(super) plan: Option<PathBuf>,
    /// Changes to the plan or the experiment.
    pub(super) changes: PlanChanges,
    /// Seen offsets to score with; empty for the offset of the plan.
    pub(super) seen_offsets: Vec<f32>,
    pub(super) limit: Option<usize>,
    pub(super) shard: Option<Shard>,
    pub(super) records: RecordPlace,
    pub(super) existing: Existing,
    pub(super) continuation: Continuation,
    /// What becomes of an image that cannot be read.
    pub(super) on_bad_image: OnBadSample,
    /// Folder for the predicted label maps.
    pub(super) labels: Option<PathBuf>,
    /// Whether the confidence is measured.
    pub(super) confidence: Confidence,
    /// File for the fitted calibration.
    pub(super) fit_calibration: Option<PathBuf>,
    /// Classes that are left out of the class list.
    pub(super) left_out: Vec<ClassQuery>,
    /// Number of images of each rank in the gallery.
    pub(super) gallery: usize,
    pub(super) json: Option<JsonTarget>,
    pub(super) compute: ComputeSettings,
    pub(super) verbosity: Verbosity,
}

/// Place of the records.
#[derive(Debug)]
pub(super) enum RecordPlace {
    Nowhere,
    /// One folder, which holds one folder per model if there are several.
    Folder(PathBuf),
    /// A folder of this name in the folder of each model.
    BesideModels(PathBuf),
}

impl EvalArgs {
    /// Returns the time that the command waits for other ranks; `None` for a subcommand, which is work for one process.
    pub(crate) fn rank_timeout(&self) -> Option<Duration> {
        let is_whole = self.command.is_none();
        is_whole.then(|| self.ranks.timeout())
    }

    /// Whether this is one part of an evaluation that the user has divided.
    pub(crate) fn is_shard(&self) -> bool {
        self.shard.is_some()
    }

    /// # Errors
    /// Returns an error if weights are not downloaded, or the file of `--json` may not be written.
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<EvalTask> {
        if let Some(EvalCommand::Merge(args)) = self.command {
            return Ok(EvalTask::Merge(args.settings(verbosity)?));
        }
        if self.fit_calibration.is_some() && self.checkpoint.len() > 1 {
            let reason = "--fit-calibration: a calibration belongs to one model; name one";
            return Err(WrongArgument(reason.to_owned()).into());
        }
        let left_out = self.leave_out.as_deref().map(parse_class_list).transpose();
        let left_out = left_out
            .map_err(ClassArgumentError::from)
            .context("--leave-out")?
            .unwrap_or_default();
        let is_measured = self.confidence || self.fit_calibration.is_some() || !left_out.is_empty();
        let checkpoints = self.checkpoint.iter().map(|file| resolve_model(file));
        Ok(EvalTask::Score(Box::new(EvalSettings {
            checkpoints: checkpoints.collect::<anyhow::Result<_>>()?,
            model: self.model.settings(&self.method, &self.precision)?,
            examples: self.examples.folder(),
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
            continuation: Continuation::of_flag(self.resume),
            on_bad_image: self.on_bad_image.into(),
            labels: self.write_labels,
            confidence: if is_measured {
                Confidence::Keep
            } else {
                Confidence::Leave
            },
            fit_calibration: self.fit_calibration,
            left_out,
            gallery: self.gallery,
            json: self.json.target("eval")?,
            compute: self.compute.settings(),
            verbosity,
        })))
    }
}
