//! Arguments of `zeg segment`, as typed and as meant.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use zeg::{
    explain::ExplainOptions,
    export::{ExportFormat, Overwrite},
    image::inputs::Recursion,
    vocab::classes::{ClassQuery, Role, parse_class_list, parse_classes_argument},
};

use super::outputs::format_parser;
use crate::commands::{
    JsonTarget,
    json::JsonArgs,
    shared::{
        CacheUse, ComputeArgs, ComputeSettings, InferenceArgs, InferenceChanges, MethodArgs,
        ModelArgs, ModelSettings, PrecisionArgs, TestTimeArgs, TestTimeChanges,
    },
};

/// Arguments of `zeg segment`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg segment photo.jpg --model clip-vit-b-16 --classes \"dog, sofa|couch\" --background \"wall, floor\" -o out
  zeg segment images/ --model runs/quick/model.safetensors --classes rooms.txt -o out --write labels,html
  zeg segment \"*.jpg\" --model ViT-B-16.pt --classes voc20 -o out --write coco,label-studio --json
  zeg segment photo.jpg --model clip-vit-b-16 --classes \"cat, fox, dog\" -o out --explain 3")]
pub(crate) struct SegmentArgs {
    /// Images (JPEG, PNG, WebP, BMP, TIFF, GIF), folders of them, or patterns such as "*.jpg"
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Checkpoint of a trained model, CLIP weights in any published format, a name from `zeg models`, or `mini`,
    /// which is part of the program
    #[arg(long = "model", value_name = "FILE|NAME")]
    checkpoint: PathBuf,
    /// Class names separated by commas (`|` between synonyms), a class file (.txt, .toml), or a list such as voc20
    #[arg(long, value_name = "LIST|FILE")]
    classes: String,
    /// Words that compete for pixels but are no answer: their pixels stay without a class
    #[arg(long, value_name = "LIST")]
    background: Option<String>,
    /// Folder for the results
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// What to write, separated by commas [default: labels,overlay]
    #[arg(long, value_parser = format_parser(), value_delimiter = ',', default_values = ["labels", "overlay"], hide_default_value = true,
          value_name = "KINDS")]
    write: Vec<&'static ExportFormat>,
    /// Replace files that exist
    #[arg(long)]
    overwrite: bool,
    /// Look into folders of folders
    #[arg(short, long)]
    recursive: bool,
    /// Leave pixels without a class where no class scores this much, 0 to 1; 0 labels every pixel [default: 0.1 with
    /// a trained model, 0 with plain CLIP]
    #[arg(long, value_name = "SCORE")]
    threshold: Option<f32>,
    /// Sentences that class names are read in: single, multi, imagenet-80, … or a file with one a line
    #[arg(long, value_name = "NAME|FILE")]
    templates: Option<String>,
    /// Say which words compete for each large region, so many of them
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3")]
    explain: Option<usize>,
    /// Opacity of the colours in the overlay, 0 to 1
    #[arg(long, default_value_t = 0.55)]
    opacity: f32,
    /// Leave regions of fewer pixels out of annotations
    #[arg(long, value_name = "PIXELS", default_value_t = 16)]
    min_area: u64,
    /// What stands before an image's path in Label Studio's tasks
    #[arg(long, value_name = "PREFIX", default_value = "/data/local-files/?d=")]
    label_studio_prefix: String,
    /// Do not keep embeddings of words in the cache folder
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    inference: InferenceArgs,
    #[command(flatten)]
    test_time: TestTimeArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// What `zeg segment` is to do.
#[derive(Debug)]
pub(super) struct SegmentSettings {
    /// Images, folders and patterns.
    pub(super) inputs: Vec<PathBuf>,
    pub(super) recursion: Recursion,
    /// A file, or the name of weights.
    pub(super) model: PathBuf,
    pub(super) model_settings: ModelSettings,
    /// The classes to tell apart, with those of the background.
    pub(super) classes: Vec<ClassQuery>,
    /// Prompt templates by name or file; without, the model's own.
    pub(super) templates: Option<String>,
    pub(super) cache: CacheUse,
    pub(super) inference: InferenceChanges,
    pub(super) test_time: TestTimeChanges,
    /// Score that a class needs; 0 for none, without the model's default.
    pub(super) threshold: Option<f32>,
    pub(super) explain: Option<ExplainOptions>,
    pub(super) output: SegmentOutput,
    pub(super) json: Option<JsonTarget>,
    pub(super) compute: ComputeSettings,
}

/// What is written.
#[derive(Debug)]
pub(super) struct SegmentOutput {
    pub(super) folder: PathBuf,
    pub(super) kinds: Vec<&'static ExportFormat>,
    pub(super) overwrite: Overwrite,
    /// Opacity of colours in overlays, 0 to 1.
    pub(super) opacity: f32,
    /// Regions smaller than this are left out of annotations, in pixels.
    pub(super) minimal_area: u64,
    /// What stands before an image's path in Label Studio's tasks.
    pub(super) label_studio_prefix: String,
}

impl SegmentArgs {
    /// # Errors
    /// A class list cannot be read, or a number is out of range.
    pub(super) fn settings(self) -> anyhow::Result<SegmentSettings> {
        let classes = class_list(&self.classes, self.background.as_deref())?;
        for (name, value) in [
            ("--threshold", self.threshold.unwrap_or(0.0)),
            ("--opacity", self.opacity),
        ] {
            anyhow::ensure!(
                (0.0..=1.0).contains(&value),
                "{name} {value}: a number from 0 to 1"
            );
        }
        let explain = self.explain;
        Ok(SegmentSettings {
            inputs: self.images,
            recursion: if self.recursive {
                Recursion::Subfolders
            } else {
                Recursion::FolderOnly
            },
            model: self.checkpoint,
            model_settings: self.model.settings(&self.method, &self.precision),
            classes,
            templates: self.templates,
            cache: CacheUse::of_flag(self.no_cache),
            inference: self.inference.settings(),
            test_time: self.test_time.settings(),
            threshold: self.threshold,
            explain: explain.map(|candidates| ExplainOptions { candidates }),
            output: SegmentOutput {
                folder: self.output,
                kinds: self.write,
                overwrite: if self.overwrite {
                    Overwrite::Replace
                } else {
                    Overwrite::Refuse
                },
                opacity: self.opacity,
                minimal_area: self.min_area,
                label_studio_prefix: self.label_studio_prefix,
            },
            json: self.json.target("segment")?,
            compute: self.compute.settings(),
        })
    }
}

/// The classes to tell apart: what `--classes` means, and the class names of `--background`.
fn class_list(classes: &str, background: Option<&str>) -> anyhow::Result<Vec<ClassQuery>> {
    let mut classes = parse_classes_argument(classes).context("--classes")?;
    if let Some(list) = background {
        for mut class in parse_class_list(list).context("--background")? {
            class.role = Role::Background;
            classes.push(class);
        }
        let mut seen = std::collections::HashSet::new();
        for name in classes.iter().flat_map(ClassQuery::names) {
            anyhow::ensure!(
                seen.insert(name.to_lowercase()),
                "--background: {name:?} is among the classes too"
            );
        }
    }
    Ok(classes)
}
