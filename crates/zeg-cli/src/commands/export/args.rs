//! Arguments and settings of `zeg export`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use zeg::{
    model::Precision as ModelPrecision,
    onnx::{NEWEST_OPSET, OLDEST_OPSET, Precision},
    vocab::classes::{ClassQuery, parse_classes_argument},
};

use crate::commands::{
    JsonTarget,
    json::JsonArgs,
    place::output_file,
    shared::{
        CacheUse, ComputeArgs, ComputeSettings, Existing, MethodArgs, ModelArgs, ModelSettings,
        heading,
    },
};

/// Arguments of `zeg export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --classes, class embeddings are an input of the graph, so that class names change without a new export; `zeg
embed` writes them. The graph computes one window; its metadata state how the image is normalised and resized, and
what the scores mean.

Examples:
  zeg export mini -o mini.onnx
  zeg export runs/quick/model.safetensors --classes voc20 --with-preprocessing -o quick.onnx
  zeg export clip-vit-b-16 --method clearclip --dynamic-size --batch dynamic --precision f16 -o clip.onnx
  zeg export clip-vit-b-16 --split encoder,head --json -o clip.onnx")]
pub(crate) struct ExportArgs {
    /// Checkpoint, CLIP weights in any published format, a name from `zeg models`, or `mini` (MiniCLIP, which is part
    /// of the program)
    #[arg(value_name = "MODEL")]
    checkpoint: PathBuf,
    /// Classes that the graph holds: names separated by commas (`|` between synonyms), a class file (.txt, .toml), or a
    /// class list such as voc20
    #[arg(long, value_name = "LIST|FILE", help_heading = heading::CLASSES)]
    classes: Option<String>,
    /// Take class embeddings as an input of the graph (default)
    #[arg(long, conflicts_with = "classes", help_heading = heading::CLASSES)]
    dynamic_classes: bool,
    /// Prompt templates: single, multi, imagenet-80, …, or a file with one template per line [default: the model's]
    #[arg(long, value_name = "NAME|FILE", requires = "classes", help_heading = heading::CLASSES)]
    templates: Option<String>,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Size of the image in pixels: one side, or HEIGHTxWIDTH [default: that of the model's windows]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = heading::OUTPUT)]
    size: Option<[usize; 2]>,
    /// Take images of any size
    #[arg(long, conflicts_with = "size", help_heading = heading::OUTPUT)]
    dynamic_size: bool,
    /// Number of images, or `dynamic` for any
    #[arg(long, value_name = "N|dynamic", default_value = "1", value_parser = parse_batch, help_heading = heading::OUTPUT)]
    batch: Batch,
    /// Number format of the graph
    #[arg(long, value_enum, default_value_t, help_heading = heading::OUTPUT)]
    precision: PrecisionArg,
    /// Version of ONNX's operators
    #[arg(long, value_name = "N", default_value_t = OLDEST_OPSET, value_parser = opset(), help_heading = heading::OUTPUT)]
    opset: i64,
    /// Write the part that does not depend on the classes as a graph of its own
    #[arg(long, value_enum, value_name = "PARTS", help_heading = heading::OUTPUT)]
    split: Option<SplitArg>,
    /// Take bytes, `[batch, height, width, 3]`, and normalise (and, with a fixed size, resize) them in the graph
    #[arg(long, help_heading = heading::OUTPUT)]
    with_preprocessing: bool,
    /// Write parameters to a second file, FILE.data, even if the model is smaller than 2 GB
    #[arg(long, help_heading = heading::OUTPUT)]
    external_data: bool,
    /// ONNX file to write; a model in parts becomes several files, such as model.encoder.onnx
    #[arg(short, long, value_name = "FILE", value_parser = output_file(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Replace files that exist
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Do not use the cache of class embeddings
    #[arg(long, help_heading = heading::PERFORMANCE)]
    no_cache: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// A table of class embeddings is named, but the graph holds no classes.
#[derive(Debug, thiserror::Error)]
#[error(
    "--text: without --classes, class embeddings are an input of the graph, and no table is read"
)]
pub(crate) struct UnusedText;

/// Returns the parser of `--opset`.
fn opset() -> impl clap::builder::TypedValueParser<Value = i64> {
    clap::value_parser!(i64).range(OLDEST_OPSET..=NEWEST_OPSET)
}

/// A [`Precision`] as a value of `--precision`.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum PrecisionArg {
    /// 32-bit floats
    #[default]
    F32,
    /// 16-bit floats; inputs and outputs stay 32-bit floats
    F16,
    /// Matrices as 8-bit integers with a scale for every output (QDQ), computed in 32-bit floats
    Int8Qdq,
}

/// The parts of a model, as a value of `--split`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SplitArg {
    /// The encoder of images, and the head that scores classes
    #[value(name = "encoder,head")]
    EncoderHead,
}

/// Number of images, as a value of `--batch`.
#[derive(Debug, Clone, Copy)]
struct Batch(Option<usize>);

fn parse_batch(text: &str) -> Result<Batch, String> {
    if text == "dynamic" {
        return Ok(Batch(None));
    }
    match text.parse() {
        Ok(count @ 1..=1024) => Ok(Batch(Some(count))),
        _ => Err("it must be a number from 1 to 1024, or `dynamic`".to_owned()),
    }
}

fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let side = |text: &str| match text.parse() {
        Ok(side @ 1..=16384) => Ok(side),
        _ => Err(format!(
            "{text:?} is not a number from 1 to 16384; write 512 or 384x640"
        )),
    };
    match text.split_once(['x', '×']) {
        Some((height, width)) => Ok([side(height)?, side(width)?]),
        None => side(text).map(|side| [side; 2]),
    }
}

/// Size of the image.
#[derive(Debug, Clone, Copy)]
pub(super) enum Size {
    /// That of the model's windows.
    OfModel,
    /// Height and width in pixels.
    Fixed([usize; 2]),
    /// Any size.
    Any,
}

/// Settings of `zeg export`.
#[derive(Debug)]
pub(super) struct ExportSettings {
    /// A file, or the name of downloaded weights.
    pub(super) model: PathBuf,
    pub(super) model_settings: ModelSettings,
    /// Classes that the graph holds; `None` if their embeddings are an input.
    pub(super) classes: Option<Vec<ClassQuery>>,
    /// What `--classes` says, which may be the path of a file.
    pub(super) class_source: Option<String>,
    /// Name or file of the prompt templates; `None` for the model's own.
    pub(super) templates: Option<String>,
    pub(super) cache: CacheUse,
    pub(super) size: Size,
    /// Number of images; `None` for any.
    pub(super) batch: Option<usize>,
    pub(super) precision: Precision,
    pub(super) opset: i64,
    /// Whether the encoder becomes a graph of its own.
    pub(super) split: bool,
    /// Whether the graph takes bytes.
    pub(super) preprocessing: bool,
    pub(super) external_data: bool,
    pub(super) output: PathBuf,
    pub(super) existing: Existing,
    pub(super) json: Option<JsonTarget>,
    pub(super) compute: ComputeSettings,
}

impl ExportArgs {
    /// # Errors
    /// Returns an error if the class list cannot be read, or the file of `--json` may not be written.
    pub(super) fn settings(self) -> anyhow::Result<ExportSettings> {
        let classes = self.classes.as_deref().map(parse_classes_argument);
        let model_settings = self
            .model
            .settings_in(&self.method, ModelPrecision::Float)?;
        if classes.is_none() && model_settings.text.is_some() {
            return Err(UnusedText.into());
        }
        Ok(ExportSettings {
            model: self.checkpoint,
            model_settings,
            classes: classes.transpose().context("--classes")?,
            class_source: self.classes,
            templates: self.templates,
            cache: CacheUse::of_flag(self.no_cache),
            size: match self.size {
                Some(size) => Size::Fixed(size),
                None if self.dynamic_size => Size::Any,
                None => Size::OfModel,
            },
            batch: self.batch.0,
            precision: match self.precision {
                PrecisionArg::F32 => Precision::F32,
                PrecisionArg::F16 => Precision::F16,
                PrecisionArg::Int8Qdq => Precision::Int8Qdq,
            },
            opset: self.opset,
            split: self.split.is_some(),
            preprocessing: self.with_preprocessing,
            external_data: self.external_data,
            output: self.output,
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("export")?,
            compute: self.compute.settings(),
        })
    }
}
