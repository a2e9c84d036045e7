//! Arguments of `zeg train`, as typed and as meant.

use std::path::PathBuf;

use clap::Args;

use crate::commands::shared::{ComputeArgs, ComputeSettings};

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
    config: PathBuf,
    /// Data set folder; the mini world needs none
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// CLIP weights in any published format, or `mini`, MiniCLIP, which is part of the program: the image encoder,
    /// and the text tower where they have one
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// ZegFormer's residual network, pre-trained: torchvision's or detectron2's file [default: from scratch]
    #[arg(long, value_name = "FILE")]
    backbone: Option<PathBuf>,
    /// Class embeddings (.npy or .safetensors) [default: computed by the text tower of the weights]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Folder of the run: checkpoints, log, manifest, model.safetensors
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Change a setting of the experiment; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// Start from the weights of another run's checkpoint, with a fresh optimiser and schedule
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Continue the run in the output folder from its newest checkpoint
    #[arg(long)]
    resume: bool,
    /// Keep the encoded views of training.cached-copies in this folder, for this and other runs of the same encoder
    #[arg(long, value_name = "DIR")]
    feature_cache: Option<PathBuf>,
    /// Threads that load images
    #[arg(long, value_name = "N", default_value_t = 2)]
    workers: usize,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// What `zeg train` is to do.
#[derive(Debug)]
pub(super) struct TrainSettings {
    /// The experiment's file.
    pub(super) config: PathBuf,
    /// Changes to the experiment, `key=value`.
    pub(super) changes: Vec<String>,
    /// The data set's folder.
    pub(super) data: Option<PathBuf>,
    /// The frozen weights.
    pub(super) weights: PathBuf,
    /// A pre-trained residual network.
    pub(super) backbone: Option<PathBuf>,
    /// A table of class embeddings.
    pub(super) text: Option<PathBuf>,
    /// The run's folder.
    pub(super) output: PathBuf,
    /// A checkpoint whose weights the run starts from.
    pub(super) init: Option<PathBuf>,
    pub(super) continuation: Continuation,
    /// Folder for encoded augmented copies.
    pub(super) feature_cache: Option<PathBuf>,
    /// Threads that load images, at least 1.
    pub(super) loaders: usize,
    pub(super) compute: ComputeSettings,
}

/// What is done about a run that the folder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Continuation {
    /// It is refused.
    Fresh,
    /// It goes on from its newest checkpoint.
    Resume,
}

impl TrainArgs {
    pub(super) fn settings(self) -> TrainSettings {
        TrainSettings {
            config: self.config,
            changes: self.changes,
            data: self.data,
            weights: self.weights,
            backbone: self.backbone,
            text: self.text,
            output: self.output,
            init: self.init,
            continuation: if self.resume {
                Continuation::Resume
            } else {
                Continuation::Fresh
            },
            feature_cache: self.feature_cache,
            loaders: self.workers.max(1),
            compute: self.compute.settings(),
        }
    }
}
