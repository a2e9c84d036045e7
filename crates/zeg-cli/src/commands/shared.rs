//! Arguments that several commands share, and the settings they stand for.

mod calibration;
mod examples;
mod inference;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use burn::tensor::Device;
use clap::{Args, ValueEnum as _};
use zeg::{
    DeviceChoice,
    loading::{MethodChoice, ModelOptions},
    model::{
        Precision,
        method::{Method, StartingPoint},
        methods::Methods,
        section::Section,
        weights::{StatedActivation, StatedHeads},
    },
    vocab::classes::{ClassQuery, parse_classes_argument},
};
use zeg_base::ranks::USUAL_TIMEOUT;

pub(crate) use self::calibration::{CalibrationFile, FittedOn};
pub(crate) use self::examples::{ExamplesArgs, encode_examples, warn_of_masks};
pub(crate) use self::inference::{InferenceArgs, InferenceChanges, TestTimeArgs, TestTimeChanges};
use super::model_file::resolve_model;
pub(crate) use super::place::Existing;
use crate::{
    Program,
    numbers::{capped, count, positive},
    ranks,
};

/// Headings of the options in the help of a command.
pub(crate) mod heading {
    pub(crate) const DATA: &str = "Data";
    pub(crate) const CLASSES: &str = "Classes";
    pub(crate) const MODEL: &str = "Model";
    pub(crate) const INFERENCE: &str = "Inference";
    pub(crate) const TRAINING: &str = "Training";
    pub(crate) const OUTPUT: &str = "Output";
    pub(crate) const PERFORMANCE: &str = "Performance";
}

/// Options for the device and the threads.
#[derive(Debug, Args)]
pub(crate) struct ComputeArgs {
    /// Device to compute on: cpu, cuda:N (build feature `cuda`), webgpu (build feature `webgpu`), or auto: a GPU if there
    /// is one, for each process of a host another one
    #[arg(long, value_name = "DEVICE", default_value_t, value_parser = device, env = "ZEG_DEVICE",
          help_heading = heading::PERFORMANCE)]
    device: DeviceChoice,
    /// Number of CPU threads, at most 4 per core [default: one per core]
    #[arg(long, value_name = "N", env = "ZEG_THREADS", value_parser = count, help_heading = heading::PERFORMANCE)]
    threads: Option<usize>,
}

/// The option for work that several processes share.
#[derive(Debug, Args)]
pub(crate) struct RanksArgs {
    /// Time to wait for another process of an MPI run, in seconds; then all of them end
    #[arg(long, value_name = "SECONDS", default_value_t = USUAL_TIMEOUT.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=604_800), help_heading = heading::PERFORMANCE)]
    rank_timeout: u64,
}

impl RanksArgs {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.rank_timeout)
    }
}

/// Device and threads that a command computes with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComputeSettings {
    pub(crate) device: DeviceChoice,
    /// Number of CPU threads; `None` for one per core.
    pub(crate) threads: Option<usize>,
}

/// Parses a device.
fn device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(ranks::own_device()),
        name => name.parse(),
    }
}

impl ComputeArgs {
    pub(crate) fn settings(self) -> ComputeSettings {
        ComputeSettings {
            device: self.device,
            threads: thread_count(self.threads),
        }
    }
}

/// Returns the number of threads of `--threads` or ZEG_THREADS, reduced to a multiple of the cores.
pub(crate) fn thread_count(wanted: Option<usize>) -> Option<usize> {
    wanted.map(|wanted| capped("--threads", wanted))
}

impl ComputeSettings {
    /// Opens the device and sets the number of threads.
    pub(crate) fn open_device(self) -> anyhow::Result<Device> {
        if let Some(threads) = self.threads.or_else(ranks::own_threads) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            // The pool is shared by all commands of a process, so a second command may find it built already.
            if let Err(error) = pool.build_global()
                && rayon::current_num_threads() != threads
            {
                return Err(error).context("starting threads");
            }
        }
        self.device.open().map_err(anyhow::Error::msg)
    }
}

/// The option for the precision of inference.
#[derive(Debug, Args)]
pub(crate) struct PrecisionArgs {
    /// Arithmetic of the encoder on the CPU
    #[arg(long, value_enum, default_value_t, env = "ZEG_PRECISION", help_heading = heading::PERFORMANCE)]
    precision: PrecisionArg,
}

impl PrecisionArgs {
    /// Returns the chosen precision.
    pub(crate) fn value(&self) -> Precision {
        match self.precision {
            PrecisionArg::F32 => Precision::Float,
            PrecisionArg::Bf16 => Precision::Bf16,
            PrecisionArg::Int8 => Precision::Int8,
            PrecisionArg::Auto => Precision::automatic(),
        }
    }
}

/// A [`Precision`] as a value of `--precision`.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum PrecisionArg {
    /// 32-bit floats
    #[default]
    F32,
    /// 16-bit floats with 32-bit sums: nearly the same labels; faster on processors with instructions for them, such
    /// as AMD's since Zen 4
    Bf16,
    /// 8-bit integers: faster, slightly less accurate
    Int8,
    /// bf16 on processors that gain from it, else f32
    Auto,
}

/// Options for plain CLIP weights, which segment without training.
#[derive(Debug, Args)]
pub(crate) struct MethodArgs {
    #[arg(long, value_name = "METHOD", help = method_help(), help_heading = heading::MODEL)]
    method: Option<String>,
    /// Parts of the encoder's last block that --method keeps
    #[arg(long, value_enum, requires = "method", help_heading = heading::MODEL)]
    last_block: Option<LastBlockArg>,
    /// Factor on the cosine similarities before the softmax over classes; it changes the confidence, not the best class
    #[arg(long, value_name = "FACTOR", requires = "method", value_parser = positive, help_heading = heading::MODEL)]
    logit_scale: Option<f32>,
    /// MaskCLIP's prompt denoising: leaves out classes that are nowhere more probable than this; published: 0.5
    #[arg(long, value_name = "PROBABILITY", requires = "method", value_parser = positive, help_heading = heading::MODEL)]
    prompt_denoising: Option<f32>,
    /// MaskCLIP's key smoothing: averages scores over similar places where no class is this probable; published: 1
    #[arg(long, value_name = "PROBABILITY", requires = "method", value_parser = positive, help_heading = heading::MODEL)]
    key_smoothing: Option<f32>,
}

/// Returns the help of `--method`, which lists the built-in methods with the default first.
fn method_help() -> String {
    let methods = Methods::default();
    let names: Vec<_> = methods
        .starting_from(StartingPoint::PlainClip)
        .map(Method::name)
        .collect();
    format!(
        "Training-free method for plain CLIP weights: {} [default: {}]",
        names.join(", "),
        names.first().unwrap_or(&"none")
    )
}

/// The parts of the encoder's last block that are kept, as a value of `--last-block`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LastBlockArg {
    /// The attention only
    AttentionOnly,
    /// The attention, the residual connections and the MLP
    Full,
}

impl MethodArgs {
    /// Returns the chosen method, if there is one.
    pub(crate) fn choice(&self) -> Option<MethodChoice> {
        let mut options = Section::default();
        if let Some(last_block) = self.last_block {
            options.set(
                "last-block",
                match last_block {
                    LastBlockArg::AttentionOnly => "attention-only",
                    LastBlockArg::Full => "full",
                },
            );
        }
        if let Some(logit_scale) = self.logit_scale {
            options.set("logit-scale", logit_scale);
        }
        for (key, threshold) in [
            ("prompt-denoising", self.prompt_denoising),
            ("key-smoothing", self.key_smoothing),
        ] {
            if let Some(threshold) = threshold {
                options.set(key, threshold);
            }
        }
        Some(MethodChoice {
            name: self.method.clone()?,
            options,
        })
    }
}

/// Options for the files that a model consists of.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Weights of the frozen encoder [default: the file that the checkpoint was trained with]
    #[arg(long, value_name = "FILE", help_heading = heading::MODEL)]
    weights: Option<PathBuf>,
    /// Class embeddings (.npy or .safetensors) [default: those in the checkpoint]
    #[arg(long, value_name = "FILE", help_heading = heading::MODEL)]
    text: Option<PathBuf>,
    #[command(flatten)]
    text_classes: TextClassesArgs,
    #[command(flatten)]
    stated: StatedArgs,
}

/// The option for the classes of a table of class embeddings.
#[derive(Debug, Args)]
pub(crate) struct TextClassesArgs {
    /// Classes of the rows of --text, for a table without class names: names, a class file, or a class list such as
    /// voc20
    #[arg(long, value_name = "LIST|FILE", requires = "text", help_heading = heading::MODEL)]
    text_classes: Option<String>,
}

impl TextClassesArgs {
    /// Returns the list as it was given, for another process of this program.
    pub(crate) fn text(&self) -> Option<&str> {
        self.text_classes.as_deref()
    }

    /// Returns the classes.
    ///
    /// # Errors
    /// Returns an error if the class list cannot be read.
    pub(crate) fn value(&self) -> anyhow::Result<Option<Vec<ClassQuery>>> {
        let list = self.text_classes.as_deref().map(parse_classes_argument);
        list.transpose().context("--text-classes")
    }
}

/// Returns the path of the class file that a class argument names, if it names one.
pub(crate) fn class_file(argument: &str) -> PathBuf {
    let trimmed = argument.trim();
    trimmed.strip_prefix('@').unwrap_or(trimmed).into()
}

/// Options for what the configuration of CLIP weights states, for weights without one.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct StatedArgs {
    /// Activation of the CLIP weights [default: that of the configuration beside the weights]
    #[arg(long, value_enum, help_heading = heading::MODEL)]
    activation: Option<ActivationArg>,
    /// Attention heads of the CLIP weights' image tower and, after a comma, of their text tower, such as 16 or 16,12
    /// [default: those of the configuration beside the weights]
    #[arg(long, value_name = "IMAGE[,TEXT]", value_parser = parse_heads, help_heading = heading::MODEL)]
    heads: Option<StatedHeads>,
}

/// Parses the value of `--heads`: the number of heads of the image tower, and that of the text tower.
fn parse_heads(text: &str) -> Result<StatedHeads, String> {
    let number = |part: &str| match part.trim().parse::<usize>() {
        Ok(heads) if heads > 0 => Ok(Some(heads)),
        _ => Err(format!(
            "{part:?} is not a number of at least 1; write one number, or two such as 16,12"
        )),
    };
    Ok(match text.split_once(',') {
        Some((image, text)) => StatedHeads {
            image: number(image)?,
            text: number(text)?,
        },
        None => StatedHeads {
            image: number(text)?,
            text: None,
        },
    })
}

/// A [`StatedActivation`] as a value of `--activation`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ActivationArg {
    /// OpenAI's models and those derived from them
    QuickGelu,
    /// Most models trained with open_clip
    Gelu,
}

impl StatedArgs {
    /// Returns the numbers of heads that are stated.
    pub(crate) fn heads(self) -> StatedHeads {
        self.heads.unwrap_or_default()
    }

    /// Returns the same options for another process of this program.
    pub(crate) fn arguments(self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(name) = self.activation.and_then(|it| it.to_possible_value()) {
            arguments.extend(["--activation".to_owned(), name.get_name().to_owned()]);
        }
        if let Some(StatedHeads { image, text }) = self.heads {
            let numbers: Vec<String> = [image, text]
                .into_iter()
                .flatten()
                .map(|heads| heads.to_string())
                .collect();
            arguments.extend(["--heads".to_owned(), numbers.join(",")]);
        }
        arguments
    }

    /// Returns the chosen activation, if there is one.
    pub(crate) fn activation(self) -> Option<StatedActivation> {
        self.activation.map(|activation| match activation {
            ActivationArg::QuickGelu => StatedActivation::QuickGelu,
            ActivationArg::Gelu => StatedActivation::Gelu,
        })
    }
}

/// Settings for opening a model file.
#[derive(Debug, Clone)]
pub(crate) struct ModelSettings {
    /// Weights of the frozen encoder, if they are not the file that the checkpoint names.
    pub(crate) weights: Option<PathBuf>,
    /// Table of class embeddings that replaces the text encoder.
    pub(crate) text: Option<PathBuf>,
    /// Classes of the table's rows, for a table without class names.
    pub(crate) text_classes: Option<Vec<ClassQuery>>,
    /// Activation of the CLIP weights; `None` for that of the files.
    pub(crate) activation: Option<StatedActivation>,
    /// Numbers of attention heads of the CLIP weights; `None` for those of the files.
    pub(crate) heads: StatedHeads,
    /// Training-free method for plain CLIP weights.
    pub(crate) method: Option<MethodChoice>,
    pub(crate) precision: Precision,
}

impl ModelSettings {
    /// Returns the options that the library opens the model with.
    pub(crate) fn options(&self, program: &Program, device: &Device) -> ModelOptions {
        ModelOptions {
            methods: program.methods.clone(),
            base: self.weights.clone(),
            method: self.method.clone(),
            device: device.clone(),
            precision: self.precision,
            activation: self.activation,
            heads: self.heads,
        }
    }
}

impl ModelArgs {
    /// Whether a table of class embeddings is named.
    pub(crate) fn has_table(&self) -> bool {
        self.text.is_some()
    }

    /// Returns the values that may be paths of files to read.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let classes = self.text_classes.text().map(class_file);
        let files = [self.weights.clone(), self.text.clone(), classes];
        files.into_iter().flatten().collect()
    }

    /// # Errors
    /// Returns an error if the weights are not downloaded, or the class list of the table cannot be read.
    pub(crate) fn settings(
        self,
        method: &MethodArgs,
        precision: &PrecisionArgs,
    ) -> anyhow::Result<ModelSettings> {
        self.settings_in(method, precision.value())
    }

    /// # Errors
    /// Returns an error if the weights are not downloaded, or the class list of the table cannot be read.
    pub(crate) fn settings_in(
        self,
        method: &MethodArgs,
        precision: Precision,
    ) -> anyhow::Result<ModelSettings> {
        Ok(ModelSettings {
            weights: self.weights.as_deref().map(resolve_model).transpose()?,
            text: self.text,
            text_classes: self.text_classes.value()?,
            activation: self.stated.activation(),
            heads: self.stated.heads(),
            method: method.choice(),
            precision,
        })
    }
}

/// Whether class embeddings are read from and written to the cache folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheUse {
    Use,
    Skip,
}

impl CacheUse {
    /// Returns what `--no-cache` means.
    pub(crate) fn of_flag(no_cache: bool) -> Self {
        if no_cache { Self::Skip } else { Self::Use }
    }

    /// Returns the cache folder, unless it is not used or not found.
    pub(crate) fn folder(self) -> Option<PathBuf> {
        match self {
            Self::Use => super::model_file::cache_folder(),
            Self::Skip => None,
        }
    }
}
