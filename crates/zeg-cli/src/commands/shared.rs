//! Arguments that several commands take, and what they mean.

use std::path::PathBuf;

use anyhow::Context as _;
use burn::tensor::Device;
use clap::Args;
use zeg::{
    DeviceChoice,
    loading::{MethodChoice, ModelOptions},
    model::{
        Precision,
        inference::{Inference, InferenceMode, TestTime},
        method::{Method, StartingPoint},
        methods::Methods,
        section::Section,
    },
};

use crate::Program;

/// Where to compute.
#[derive(Debug, Args)]
pub(crate) struct ComputeArgs {
    /// Device: cpu, cuda:N (build feature `cuda`) or webgpu (build feature `webgpu`)
    #[arg(long, value_name = "DEVICE", default_value_t, env = "ZEG_DEVICE")]
    device: DeviceChoice,
    /// Threads for computing on the CPU [default: all cores]
    #[arg(long, value_name = "N", env = "ZEG_THREADS")]
    threads: Option<usize>,
}

/// Where a command computes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ComputeSettings {
    pub(crate) device: DeviceChoice,
    /// Threads on the CPU; without, one a core.
    pub(crate) threads: Option<usize>,
}

impl ComputeArgs {
    pub(crate) fn settings(self) -> ComputeSettings {
        ComputeSettings {
            device: self.device,
            threads: self.threads,
        }
    }
}

impl ComputeSettings {
    /// Opens the device and sets the number of threads.
    pub(crate) fn open_device(self) -> anyhow::Result<Device> {
        if let Some(threads) = self.threads {
            anyhow::ensure!(threads > 0, "--threads 0: at least one thread is needed");
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            // A program that runs several commands starts its threads once.
            if let Err(error) = pool.build_global()
                && rayon::current_num_threads() != threads
            {
                return Err(error).context("starting threads");
            }
        }
        self.device.open().map_err(anyhow::Error::msg)
    }
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
        match self.precision {
            PrecisionArg::F32 => Precision::Float,
            PrecisionArg::Int8 => Precision::Int8,
        }
    }
}

/// See [`Precision`].
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum PrecisionArg {
    /// 32-bit floats
    #[default]
    F32,
    /// 8-bit integers
    Int8,
}

/// How plain CLIP weights are used.
#[derive(Debug, Args)]
pub(crate) struct MethodArgs {
    #[arg(long, value_name = "METHOD", help = method_help())]
    method: Option<String>,
    /// What remains of the last block around its attention
    #[arg(long, value_enum, requires = "method")]
    last_block: Option<LastBlockArg>,
    /// Factor on cosines before the softmax over classes; it changes how sure scores are, not which class is best
    #[arg(long, value_name = "FACTOR", requires = "method")]
    logit_scale: Option<f32>,
}

/// Help of `--method`: the built-in methods, the default first.
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

/// What remains of the last block around its attention.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LastBlockArg {
    /// Its attention alone
    AttentionOnly,
    /// Attention, residual and MLP
    Full,
}

impl MethodArgs {
    /// The method asked for, if any.
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
        Some(MethodChoice {
            name: self.method.clone()?,
            options,
        })
    }
}

/// Which model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// The frozen encoder's weights [default: the file the checkpoint was trained on]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Class embeddings (.npy or .safetensors) [default: those in the checkpoint]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
}

/// How a model file is opened.
#[derive(Debug, Clone)]
pub(crate) struct ModelSettings {
    /// The frozen encoder's weights, where they are not the file that the checkpoint names.
    pub(crate) weights: Option<PathBuf>,
    /// A table of class embeddings instead of a text tower.
    pub(crate) text: Option<PathBuf>,
    /// How plain CLIP weights are used.
    pub(crate) method: Option<MethodChoice>,
    pub(crate) precision: Precision,
}

impl ModelSettings {
    /// What the library opens a model with.
    pub(crate) fn options(&self, program: &Program, device: &Device) -> ModelOptions {
        ModelOptions {
            methods: program.methods.clone(),
            base: self.weights.clone(),
            method: self.method.clone(),
            device: device.clone(),
            precision: self.precision,
        }
    }
}

impl ModelArgs {
    pub(crate) fn settings(self, method: &MethodArgs, precision: &PrecisionArgs) -> ModelSettings {
        ModelSettings {
            weights: self.weights,
            text: self.text,
            method: method.choice(),
            precision: precision.value(),
        }
    }
}

/// Changes to how images go through the model.
#[derive(Debug, Args)]
pub(crate) struct InferenceArgs {
    /// Length of an image's short side in pixels; 0 keeps the image's size [default: from the model]
    #[arg(long, value_name = "PIXELS")]
    short_side: Option<usize>,
    /// Side of a sliding window in pixels [default: from the model]
    #[arg(long, value_name = "PIXELS")]
    crop: Option<usize>,
    /// Step between sliding windows in pixels [default: from the model]
    #[arg(long, value_name = "PIXELS")]
    stride: Option<usize>,
    /// Subtracted from the scores of classes seen in training [default: from the model]
    #[arg(long, value_name = "SCORE")]
    seen_offset: Option<f32>,
    /// Overlapping windows, or the whole image at once [default: from the model]
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
}

/// See [`InferenceMode`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ModeArg {
    /// Square windows whose scores are averaged
    Slide,
    /// The whole image; the encoder's positions are resized to it
    Whole,
}

/// Changes to how images go through a model; what is `None` stays as the model has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InferenceChanges {
    short_side: Option<usize>,
    crop: Option<usize>,
    stride: Option<usize>,
    seen_offset: Option<f32>,
    mode: Option<InferenceMode>,
}

impl InferenceArgs {
    pub(crate) fn settings(self) -> InferenceChanges {
        InferenceChanges {
            short_side: self.short_side,
            crop: self.crop,
            stride: self.stride,
            seen_offset: self.seen_offset,
            mode: self.mode.map(|mode| match mode {
                ModeArg::Slide => InferenceMode::Slide,
                ModeArg::Whole => InferenceMode::Whole,
            }),
        }
    }
}

impl InferenceChanges {
    /// Applies the changes and checks the result.
    pub(crate) fn apply(&self, inference: &mut Inference) -> anyhow::Result<()> {
        if let Some(short_side) = self.short_side {
            inference.short_side = short_side;
        }
        if let Some(crop) = self.crop {
            inference.crop = crop;
            inference.stride = inference.stride.min(crop);
        }
        if let Some(stride) = self.stride {
            inference.stride = stride;
        }
        if let Some(offset) = self.seen_offset {
            inference.seen_offset = offset;
        }
        if let Some(mode) = self.mode {
            inference.mode = mode;
        }
        Ok(inference.check()?)
    }
}

/// Test-time augmentation.
#[derive(Debug, Args)]
pub(crate) struct TestTimeArgs {
    /// Look at every image in these sizes, factors on the short side, and average the scores
    #[arg(long, value_name = "FACTORS", value_delimiter = ',')]
    scales: Vec<f64>,
    /// Look at every image mirrored, too
    #[arg(long)]
    flip: bool,
}

/// Changes to test-time augmentation.
#[derive(Debug, Clone)]
pub(crate) struct TestTimeChanges {
    /// Empty: the scales stay.
    scales: Vec<f64>,
    /// Whether to flip, too; a flip that was asked for elsewhere stays.
    flip: bool,
}

impl TestTimeArgs {
    pub(crate) fn settings(self) -> TestTimeChanges {
        TestTimeChanges {
            scales: self.scales,
            flip: self.flip,
        }
    }
}

impl TestTimeChanges {
    /// Applies the changes and checks the result.
    pub(crate) fn apply(&self, test_time: &mut TestTime) -> anyhow::Result<()> {
        if !self.scales.is_empty() {
            test_time.scales.clone_from(&self.scales);
        }
        test_time.flip |= self.flip;
        Ok(test_time.check()?)
    }
}

/// Whether what is there may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    Refuse,
    Replace,
}

impl Existing {
    /// What `--overwrite` says.
    pub(crate) fn of_flag(overwrite: bool) -> Self {
        if overwrite {
            Self::Replace
        } else {
            Self::Refuse
        }
    }

    /// Refuses a file that is there, unless it may be replaced.
    pub(crate) fn check(self, file: &std::path::Path) -> anyhow::Result<()> {
        if self == Self::Refuse && file.exists() {
            return Err(super::import::OutputExists(file.to_owned()).into());
        }
        Ok(())
    }
}

/// Whether class embeddings are kept in the cache folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheUse {
    Keep,
    Without,
}

impl CacheUse {
    /// What `--no-cache` says.
    pub(crate) fn of_flag(no_cache: bool) -> Self {
        if no_cache { Self::Without } else { Self::Keep }
    }

    /// The folder of the cache, where there is one.
    pub(crate) fn folder(self) -> Option<PathBuf> {
        match self {
            Self::Keep => super::model_file::cache_folder(),
            Self::Without => None,
        }
    }
}
