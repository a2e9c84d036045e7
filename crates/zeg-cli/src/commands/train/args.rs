//! Arguments and settings of `zeg train`.

use std::path::{Path, PathBuf};

use clap::Args;
use zeg::{
    model::weights::{StatedActivation, StatedHeads},
    vocab::classes::ClassQuery,
};

use crate::{
    commands::{
        JsonTarget,
        json::JsonArgs,
        model_file::resolve_model,
        place::output_folder,
        shared::{ComputeArgs, ComputeSettings, RanksArgs, StatedArgs, TextClassesArgs, heading},
    },
    numbers::{capped, change, count},
    progress::Verbosity,
};

/// Arguments of `zeg train`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg train configs/mini-world/zegclip-inductive.toml --weights mini -o runs/mini
  zeg train configs/voc12/zegclip-quick.toml --data VOCdevkit/VOC2012 \\
      --weights clip-vit-b16.safetensors --text voc12_single.npy --text-classes voc20 -o runs/quick
  zeg train configs/voc12/zegclip-inductive.toml … --set training.batch=8 --set training.seed=1
  zeg train … -o runs/quick --resume
  zeg train configs/voc12/zegclip-transductive.toml … -o runs/voc-st \\
      --init runs/voc/checkpoint-00010000.safetensors")]
pub(crate) struct TrainArgs {
    /// Experiment file (TOML)
    config: PathBuf,
    /// Setting of the experiment to change; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = change, help_heading = heading::TRAINING)]
    changes: Vec<String>,
    /// Continue the run in the output folder from its newest checkpoint
    #[arg(long, conflicts_with = "overwrite", help_heading = heading::TRAINING)]
    resume: bool,
    /// Checkpoint of another run whose weights this run starts from, with a new optimiser and schedule
    #[arg(long, value_name = "FILE", help_heading = heading::TRAINING)]
    init: Option<PathBuf>,
    /// Folder of the data set; the mini world needs none, and a .toml file may name its own
    #[arg(long, value_name = "DIR", help_heading = heading::DATA)]
    data: Option<PathBuf>,
    /// CLIP weights in any published format: a file, an index of several files or the folder of a model, a name from
    /// `zeg models`, or `mini` (MiniCLIP, which is part of the program)
    #[arg(long, value_name = "FILE", help_heading = heading::MODEL)]
    weights: PathBuf,
    /// Class embeddings (.npy or .safetensors) [default: computed by the text encoder of the weights]
    #[arg(long, value_name = "FILE", help_heading = heading::MODEL)]
    text: Option<PathBuf>,
    #[command(flatten)]
    text_classes: TextClassesArgs,
    #[command(flatten)]
    stated: StatedArgs,
    /// Pre-trained residual network of ZegFormer, from torchvision or detectron2 [default: random weights]
    #[arg(long, value_name = "FILE", help_heading = heading::MODEL)]
    backbone: Option<PathBuf>,
    /// Folder of the run: checkpoints, log, manifest, model.safetensors
    #[arg(short, long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Replace a run that the folder holds; its checkpoints and its model are removed
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Folder that keeps the encoded augmented copies of training.cached-copies for other runs with the same encoder
    #[arg(long, value_name = "DIR", help_heading = heading::PERFORMANCE)]
    feature_cache: Option<PathBuf>,
    /// Number of threads that load images
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = count, help_heading = heading::PERFORMANCE)]
    workers: usize,
    #[command(flatten)]
    compute: ComputeArgs,
    #[command(flatten)]
    pub(crate) ranks: RanksArgs,
}

/// Settings of `zeg train`.
#[derive(Debug)]
pub(super) struct TrainSettings {
    /// File of the experiment.
    pub(super) config: PathBuf,
    /// Changes to the experiment, `key=value`.
    pub(super) changes: Vec<String>,
    /// Folder of the data set.
    pub(super) data: Option<PathBuf>,
    /// File, index or folder of the frozen weights.
    pub(super) weights: PathBuf,
    /// File of a pre-trained residual network.
    pub(super) backbone: Option<PathBuf>,
    /// Table of class embeddings.
    pub(super) text: Option<PathBuf>,
    /// Classes of the table's rows, for a table without class names.
    pub(super) text_classes: Option<Vec<ClassQuery>>,
    /// Activation of the frozen weights; `None` for that of the experiment or of the files.
    pub(super) activation: Option<StatedActivation>,
    /// Numbers of attention heads of the frozen weights; `None` for those of the experiment and of the files.
    pub(super) heads: StatedHeads,
    /// Folder of the run.
    pub(super) output: PathBuf,
    /// Checkpoint whose weights the run starts from.
    pub(super) init: Option<PathBuf>,
    pub(super) continuation: Continuation,
    /// Folder for encoded augmented copies.
    pub(super) feature_cache: Option<PathBuf>,
    /// Number of threads that load images, at least 1.
    pub(super) loaders: usize,
    pub(super) json: Option<JsonTarget>,
    pub(super) compute: ComputeSettings,
    pub(super) verbosity: Verbosity,
}

/// What happens if the folder holds a run already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Continuation {
    /// The run is refused.
    Fresh,
    /// The files of the run are removed.
    Replace,
    /// The run continues from its newest checkpoint.
    Resume,
}

impl TrainSettings {
    /// Returns the files that the run reads, which it must not replace.
    pub(super) fn inputs(&self) -> Vec<&Path> {
        let files = [&self.init, &self.text, &self.backbone];
        let files = files
            .into_iter()
            .flatten()
            .chain([&self.weights, &self.config]);
        files.map(PathBuf::as_path).collect()
    }
}

impl TrainArgs {
    /// # Errors
    /// Returns an error if the weights are not downloaded, if the class list of the table cannot be read, or if the file
    /// of `--json` may not be written.
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<TrainSettings> {
        Ok(TrainSettings {
            config: self.config,
            changes: self.changes,
            data: self.data,
            weights: resolve_model(&self.weights)?,
            backbone: self.backbone,
            text: self.text,
            text_classes: self.text_classes.value()?,
            activation: self.stated.activation(),
            heads: self.stated.heads(),
            output: self.output,
            init: self.init,
            continuation: match (self.resume, self.overwrite) {
                (true, _) => Continuation::Resume,
                (false, true) => Continuation::Replace,
                (false, false) => Continuation::Fresh,
            },
            feature_cache: self.feature_cache,
            loaders: capped("--workers", self.workers),
            json: self.json.target("train")?,
            compute: self.compute.settings(),
            verbosity,
        })
    }
}
