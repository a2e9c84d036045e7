//! The command line, as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use zeg::{
    DeviceChoice,
    model::{
        Precision,
        inference::View,
        training_free::{DenseAttention, LastBlock, TrainingFreeConfig},
    },
};

use crate::commands::{
    ablate::AblateArgs, bench::BenchArgs, data::DataArgs, eval::EvalArgs, import::ImportArgs,
    models::ModelsArgs, pretrain::PretrainArgs, pull::PullArgs, quickstart::QuickstartArgs,
    report::ReportArgs, segment::outputs::Output,
};

/// Zero-shot semantic segmentation: label every pixel of a picture with class names given as words.
#[derive(Debug, Parser)]
#[command(
    name = "zeg",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done; 1 the work failed; 2 the command line is wrong; 130 interrupted.
Results go to standard output, everything else to standard error."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See zero-shot segmentation happen in minutes, without a download
    Quickstart(QuickstartArgs),
    /// Pre-train MiniCLIP on pictures and captions of the mini world
    Pretrain(PretrainArgs),
    /// Train a model from an experiment file
    Train(TrainArgs),
    /// Run a suite of experiments over seeds, into one table
    Ablate(AblateArgs),
    /// Score models on a data set: pAcc, mIoU on seen and unseen classes, hIoU, Dice
    Eval(EvalArgs),
    /// Write a page about evaluations, beside the published numbers
    Report(ReportArgs),
    /// List, prepare and examine data sets
    Data(DataArgs),

    /// Label pictures with class names
    Segment(SegmentArgs),
    /// List public weights that can be fetched by name
    Models(ModelsArgs),
    /// Fetch public weights by name
    Pull(PullArgs),
    /// Convert published weights of any format to one safetensors file
    Import(ImportArgs),
    /// Show what an experiment, a checkpoint or a file of weights is
    Info(InfoArgs),
    /// Time a model: pictures to scores, or steps of its training
    Bench(BenchArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Where to compute.
#[derive(Debug, Args)]
pub(crate) struct ComputeArgs {
    /// Device: cpu, cuda:N (build feature `cuda`) or webgpu (build feature `webgpu`)
    #[arg(long, value_name = "DEVICE", default_value_t, env = "ZEG_DEVICE")]
    pub(crate) device: DeviceChoice,
    /// Threads for computing on the CPU [default: all cores]
    #[arg(long, value_name = "N", env = "ZEG_THREADS")]
    pub(crate) threads: Option<usize>,
}

/// What to compute with.
#[derive(Debug, Args)]
pub(crate) struct PrecisionArgs {
    /// What the encoder computes with on the CPU: 32-bit floats, or 8-bit integers, faster and a little less exact
    #[arg(long, value_enum, default_value_t, env = "ZEG_PRECISION")]
    precision: PrecisionArg,
}

impl PrecisionArgs {
    /// What was chosen.
    pub(crate) fn value(&self) -> Precision {
        self.precision.into()
    }
}

/// See [`Precision`].
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub(crate) enum PrecisionArg {
    /// 32-bit floats
    #[default]
    F32,
    /// 8-bit integers
    Int8,
}

impl From<PrecisionArg> for Precision {
    fn from(arg: PrecisionArg) -> Self {
        match arg {
            PrecisionArg::F32 => Self::Float,
            PrecisionArg::Int8 => Self::Int8,
        }
    }
}

/// Arguments of `zeg train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg train configs/voc12/zegclip-quick.toml --data VOCdevkit/VOC2012 \\
      --weights clip-vit-b16.safetensors --text voc12_single.npy -o runs/quick
  zeg train configs/voc12/zegclip-inductive.toml … --set training.batch=8 --set training.seed=1
  zeg train … -o runs/quick --resume
  zeg train configs/voc12/zegclip-transductive.toml … --init runs/voc/checkpoint-00010000.safetensors -o runs/voc-st")]
pub(crate) struct TrainArgs {
    /// Experiment file (TOML)
    pub(crate) config: PathBuf,
    /// Data set folder; the mini world needs none
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// CLIP weights in any published format, or `mini`, MiniCLIP, which is part of the program: the image encoder,
    /// and the text tower where they have one
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: PathBuf,
    /// ZegFormer's residual network, pre-trained: torchvision's or detectron2's file [default: from scratch]
    #[arg(long, value_name = "FILE")]
    pub(crate) backbone: Option<PathBuf>,
    /// Class embeddings (.npy or .safetensors) [default: computed by the text tower of the weights]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Folder of the run: checkpoints, log, manifest, model.safetensors
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Change a setting of the experiment; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
    /// Start from the weights of another run's checkpoint, with a fresh optimiser and schedule
    #[arg(long, value_name = "FILE")]
    pub(crate) init: Option<PathBuf>,
    /// Continue the run in the output folder from its newest checkpoint
    #[arg(long)]
    pub(crate) resume: bool,
    /// Keep the encoded views of training.cached-views in this folder, for this and other runs of the same encoder
    #[arg(long, value_name = "DIR")]
    pub(crate) feature_cache: Option<PathBuf>,
    /// Threads that load pictures
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) workers: usize,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// How plain CLIP weights are used.
#[derive(Debug, Args)]
pub(crate) struct MethodArgs {
    /// Training-free method for plain CLIP weights: clearclip, sclip, naclip, maskclip, or clip itself
    /// [default: clearclip]
    #[arg(long, value_name = "METHOD", value_parser = method)]
    pub(crate) method: Option<DenseAttention>,
    /// What remains of the last block around its attention
    #[arg(long, value_enum, requires = "method")]
    pub(crate) last_block: Option<LastBlockArg>,
    /// Factor on cosines before the softmax over classes; it changes how sure scores are, not which class is best
    #[arg(long, value_name = "FACTOR", requires = "method")]
    pub(crate) logit_scale: Option<f32>,
}

fn method(name: &str) -> Result<DenseAttention, String> {
    DenseAttention::by_name(name).map_err(|error| error.to_string())
}

/// See [`LastBlock`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum LastBlockArg {
    /// Its attention alone
    AttentionOnly,
    /// Attention, residual and MLP
    Full,
}

impl MethodArgs {
    /// The method asked for, if any.
    pub(crate) fn config(&self) -> Option<TrainingFreeConfig> {
        let mut config = TrainingFreeConfig::new(self.method?);
        if let Some(last_block) = self.last_block {
            config.last_block = match last_block {
                LastBlockArg::AttentionOnly => LastBlock::AttentionOnly,
                LastBlockArg::Full => LastBlock::Full,
            };
        }
        if let Some(logit_scale) = self.logit_scale {
            config.logit_scale = logit_scale;
        }
        Some(config)
    }
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The frozen encoder's weights [default: the file the checkpoint was trained on]
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Class embeddings (.npy or .safetensors) [default: those in the checkpoint]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
}

/// Changes to how pictures go through the model.
#[derive(Debug, Args)]
pub(crate) struct InferenceArgs {
    /// Length of a picture's short side in pixels; 0 keeps the picture's size [default: from the model]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) short_side: Option<usize>,
    /// Side of a sliding window in pixels [default: from the model]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) crop: Option<usize>,
    /// Step between sliding windows in pixels [default: from the model]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) stride: Option<usize>,
    /// Subtracted from the scores of classes seen in training [default: from the model]
    #[arg(long, value_name = "SCORE")]
    pub(crate) seen_offset: Option<f32>,
    /// Overlapping windows, or the whole picture at once [default: from the model]
    #[arg(long, value_enum)]
    pub(crate) view: Option<ViewArg>,
}

/// See [`View`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum ViewArg {
    /// Square windows whose scores are averaged
    Windows,
    /// The whole picture; the encoder's positions are resized to it
    Whole,
}

impl ViewArg {
    pub(crate) fn view(self) -> View {
        match self {
            Self::Windows => View::Windows,
            Self::Whole => View::Whole,
        }
    }
}

/// Arguments of `zeg segment`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg segment photo.jpg --model clip-vit-b-16 --classes \"dog, sofa|couch\" --background \"wall, floor\" -o out
  zeg segment pictures/ --model runs/quick/model.safetensors --classes rooms.txt -o out --write labels,html
  zeg segment \"*.jpg\" --model ViT-B-16.pt --classes voc20 -o out --write coco,label-studio --json -
  zeg segment photo.jpg --model clip-vit-b-16 --classes \"cat, fox, dog\" -o out --explain 3")]
pub(crate) struct SegmentArgs {
    /// Pictures (JPEG, PNG, WebP, BMP, TIFF, GIF), folders of them, or patterns such as "*.jpg"
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// Checkpoint of a trained model, CLIP weights in any published format, a name from `zeg models`, or `mini`,
    /// which is part of the program
    #[arg(long = "model", value_name = "FILE|NAME")]
    pub(crate) checkpoint: PathBuf,
    /// Class names separated by commas (`|` between synonyms), a class file (.txt, .toml), or a list such as voc20
    #[arg(long, value_name = "LIST|FILE")]
    pub(crate) classes: String,
    /// Words that compete for pixels but are no answer: their pixels stay without a class
    #[arg(long, value_name = "LIST")]
    pub(crate) background: Option<String>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What to write, separated by commas [default: labels,overlay]
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["labels", "overlay"], hide_default_value = true,
          value_name = "KINDS")]
    pub(crate) write: Vec<Output>,
    /// Replace files that exist
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Look into folders of folders
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Leave pixels without a class where no class scores this much, 0 to 1; 0 labels every pixel [default: 0.1 with
    /// a trained model, 0 with plain CLIP]
    #[arg(long, value_name = "SCORE")]
    pub(crate) threshold: Option<f32>,
    /// Sentences that class names are read in: single, multi, imagenet-80, … or a file with one a line
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) templates: Option<String>,
    /// Say which words compete for each large region, so many of them
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3")]
    pub(crate) explain: Option<usize>,
    /// Opacity of the colours in the overlay, 0 to 1
    #[arg(long, default_value_t = 0.55)]
    pub(crate) opacity: f32,
    /// Leave regions of fewer pixels out of annotations
    #[arg(long, value_name = "PIXELS", default_value_t = 16)]
    pub(crate) min_area: u64,
    /// What stands before a picture's path in Label Studio's tasks
    #[arg(long, value_name = "PREFIX", default_value = "/data/local-files/?d=")]
    pub(crate) label_studio_prefix: String,
    /// Do not keep embeddings of words in the cache folder
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Write a JSON list of what was found in each picture; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) method: MethodArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) inference: InferenceArgs,
    #[command(flatten)]
    pub(crate) precision: PrecisionArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Arguments of `zeg info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Experiment file (TOML), checkpoint, or weights in any published format
    pub(crate) file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Change a setting of the experiment; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
}
