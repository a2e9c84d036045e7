//! Arguments and settings of `zeg visualize`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use zeg::vocab::classes::{ClassQuery, parse_classes_argument};

use crate::commands::{
    JsonTarget,
    json::JsonArgs,
    place::output_folder,
    shared::{
        CacheUse, ComputeArgs, ComputeSettings, Existing, MethodArgs, ModelArgs, ModelSettings,
        PrecisionArgs, class_file, heading,
    },
};

/// Arguments of `zeg visualize`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg visualize photo.jpg --model clip-vit-b-16 --classes \"dog, sofa|couch\" -o maps
  zeg visualize photo.jpg --model runs/quick/model.safetensors --classes \"dog, sofa\" -o maps --json

The image is resized to one square window of the model. Written are photo.pca.png, the first three principal
components of the patch features as red, green and blue, and for every class a heat map of its mask's logits and one
of the cosine of its embedding with every patch feature. Each map is scaled to its own range, which --json lists.")]
pub(crate) struct VisualizeArgs {
    /// Image (JPEG, PNG, WebP, BMP, TIFF, GIF)
    image: PathBuf,
    /// Class names separated by commas (`|` between synonyms), a class file (.txt, .toml), or a class list such as
    /// voc20
    #[arg(long, value_name = "LIST|FILE", help_heading = heading::CLASSES)]
    classes: String,
    /// Prompt templates: single, multi, imagenet-80, …, or a file with one template per line [default: the model's]
    #[arg(long, value_name = "NAME|FILE", help_heading = heading::CLASSES)]
    templates: Option<String>,
    /// Checkpoint, CLIP weights in any published format, a name from `zeg models`, or `mini` (MiniCLIP, which is part
    /// of the program)
    #[arg(long = "model", value_name = "FILE|NAME", help_heading = heading::MODEL)]
    checkpoint: PathBuf,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Folder for the maps
    #[arg(short, long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
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
    precision: PrecisionArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Settings of `zeg visualize`.
#[derive(Debug)]
pub(super) struct VisualizeSettings {
    pub(super) image: PathBuf,
    /// Paths of all files that the command reads; some may be names of built-in lists or weights.
    pub(super) files: Vec<PathBuf>,
    /// A file, or the name of downloaded weights.
    pub(super) model: PathBuf,
    pub(super) model_settings: ModelSettings,
    pub(super) classes: Vec<ClassQuery>,
    /// Name or file of the prompt templates; `None` for the model's own.
    pub(super) templates: Option<String>,
    pub(super) cache: CacheUse,
    /// Folder for the maps.
    pub(super) output: PathBuf,
    pub(super) existing: Existing,
    pub(super) json: Option<JsonTarget>,
    pub(super) compute: ComputeSettings,
}

impl VisualizeArgs {
    /// # Errors
    /// Returns an error if the class list cannot be read, or the file of `--json` may not be written.
    pub(super) fn settings(self) -> anyhow::Result<VisualizeSettings> {
        let mut files = vec![self.image.clone(), self.checkpoint.clone()];
        files.push(class_file(&self.classes));
        files.extend(self.templates.as_ref().map(PathBuf::from));
        files.extend(self.model.files());
        Ok(VisualizeSettings {
            image: self.image,
            files,
            model: self.checkpoint,
            model_settings: self.model.settings(&self.method, &self.precision)?,
            classes: parse_classes_argument(&self.classes).context("--classes")?,
            templates: self.templates,
            cache: CacheUse::of_flag(self.no_cache),
            output: self.output,
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("visualize")?,
            compute: self.compute.settings(),
        })
    }
}
