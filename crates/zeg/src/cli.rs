//! The command line, as typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use zeg::DeviceChoice;

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
    /// Train a model from an experiment file
    Train(TrainArgs),
    /// Score a trained model on a data set: pAcc, mIoU on seen and unseen classes, hIoU
    Eval(EvalArgs),
    /// Label pictures with class names
    Segment(SegmentArgs),
    /// Show what an experiment or checkpoint is: parameters, multiply-accumulates, classes
    Info(InfoArgs),
    /// Recompute reference numbers and compare
    Parity(ParityArgs),
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

/// Arguments of `zeg train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg train configs/voc12/zegclip-quick.toml --data VOCdevkit/VOC2012 \\
      --weights clip-vit-b16.safetensors --text voc12_single.npy -o runs/quick
  zeg train configs/voc12/zegclip-inductive.toml … --set training.batch=8 --set training.seed=1
  zeg train … -o runs/quick --resume")]
pub(crate) struct TrainArgs {
    /// Experiment file (TOML)
    pub(crate) config: PathBuf,
    /// Data set folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// CLIP weights (safetensors): the frozen image encoder, and the text tower where they have one
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: PathBuf,
    /// Class embeddings (.npy or .safetensors) [default: computed by the text tower of the weights]
    #[arg(long, value_name = "FILE")]
    pub(crate) text: Option<PathBuf>,
    /// Folder of the run: checkpoints, log, manifest, model.safetensors
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Change a setting of the experiment; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
    /// Continue the run in the output folder from its newest checkpoint
    #[arg(long)]
    pub(crate) resume: bool,
    /// Threads that load pictures
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) workers: usize,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
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
    /// Length of a picture's short side in pixels [default: from the checkpoint]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) short_side: Option<usize>,
    /// Side of a sliding window in pixels [default: from the checkpoint]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) crop: Option<usize>,
    /// Step between sliding windows in pixels [default: from the checkpoint]
    #[arg(long, value_name = "PIXELS")]
    pub(crate) stride: Option<usize>,
    /// Subtracted from the scores of classes seen in training [default: from the checkpoint]
    #[arg(long, value_name = "SCORE")]
    pub(crate) seen_offset: Option<f32>,
}

/// Arguments of `zeg eval`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  zeg eval runs/quick/model.safetensors --data VOCdevkit/VOC2012 --json scores.json")]
pub(crate) struct EvalArgs {
    /// Checkpoint of a trained model
    pub(crate) checkpoint: PathBuf,
    /// Data set folder
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
    /// Split to score [default: the experiment's]
    #[arg(long)]
    pub(crate) split: Option<String>,
    /// Write the scores as JSON; `-` writes them to standard output instead of the table
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) inference: InferenceArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Arguments of `zeg segment`.
#[derive(Debug, Args)]
#[command(after_help = "\
Writes NAME.png (class indices with a palette; 255: no class) and NAME.overlay.png (the picture with colours
and a legend) for every picture.

Examples:
  zeg segment photo.jpg --model runs/quick/model.safetensors --classes \"dog, sofa\" -o out
  zeg segment *.jpg --model runs/quick/model.safetensors --classes \"cat|kitten, sofa\" -o out --json -")]
pub(crate) struct SegmentArgs {
    /// Pictures (JPEG, PNG, WebP, BMP, TIFF, GIF)
    #[arg(required = true)]
    pub(crate) images: Vec<PathBuf>,
    /// Checkpoint of a trained model
    #[arg(long = "model", value_name = "CHECKPOINT")]
    pub(crate) checkpoint: PathBuf,
    /// Class names, separated by commas; synonyms of one class by `|`
    #[arg(long)]
    pub(crate) classes: String,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Leave pixels without a class where no class scores this much, 0 to 1; 0 labels every pixel
    #[arg(long, value_name = "SCORE", default_value_t = 0.1)]
    pub(crate) threshold: f32,
    /// Opacity of the colours in the overlay, 0 to 1
    #[arg(long, default_value_t = 0.55)]
    pub(crate) opacity: f32,
    /// Write a JSON list of what was found in each picture; `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    #[command(flatten)]
    pub(crate) inference: InferenceArgs,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

/// Arguments of `zeg info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Experiment file (TOML) or checkpoint (safetensors)
    pub(crate) file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Change a setting of the experiment; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) changes: Vec<String>,
}

/// Arguments of `zeg parity`.
#[derive(Debug, Args)]
pub(crate) struct ParityArgs {
    /// Files of reference numbers, or folders of them
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Folder whose `weights/` and `text/` the files name
    #[arg(long, value_name = "DIR")]
    pub(crate) assets: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}
