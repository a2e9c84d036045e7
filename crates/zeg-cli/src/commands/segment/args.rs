//! Arguments and settings of `zeg segment`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use zeg::{
    eval::Shard,
    explain::ExplainOptions,
    export::{ExportFormat, Overwrite, USUAL_MINIMAL_AREA, USUAL_OPACITY, formats},
    image::inputs::Recursion,
    vocab::classes::{
        ClassArgumentError, ClassQuery, Role, parse_class_list, parse_classes_argument,
    },
};

use super::{
    inputs::STANDARD,
    merge::{MergeArgs, MergeSettings},
    outputs::format_parser,
};
use crate::commands::{
    JsonTarget,
    eval::parse_shard,
    journal::Continuation,
    json::JsonArgs,
    shared::{
        CacheUse, ComputeArgs, ComputeSettings, ExamplesArgs, InferenceArgs, InferenceChanges,
        MethodArgs, ModelArgs, ModelSettings, PrecisionArgs, RanksArgs, TestTimeArgs,
        TestTimeChanges, class_file, heading,
    },
};
use crate::{
    numbers::{WrongArgument, area, count, probability},
    progress::Verbosity,
};

/// Arguments of `zeg segment`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  zeg segment photo.jpg --model clip-vit-b-16 --classes \"dog, sofa|couch\" -o out
  zeg segment photo.jpg --model clip-vit-b-16 --classes dog --background \"wall, floor\" -o out
  zeg segment images/ --model runs/quick/model.safetensors --classes rooms.txt \\
      --write labels,html -o out
  zeg segment \"*.jpg\" --model ViT-B-16.pt --classes voc20 --write coco,label-studio -o out --json
  zeg segment photo.jpg --model clip-vit-b-16 --classes \"cat, fox, dog\" --explain 3 -o out
  zeg segment photo.jpg --model clip-vit-b-16 --classes \"hand, table\" --examples parts -o out
  zeg segment - --model clip-vit-b-16 --classes \"dog, cat\" -o - < photo.jpg > labels.png

Go on after an interruption, with finished images kept:
  zeg segment images/ --model clip-vit-b-16 --classes voc20 --write labels,coco -o out --resume

Divide the images among processes or machines:
  zeg segment images/ --model clip-vit-b-16 --classes voc20 --write labels,coco \\
      --shard 1/4 -o out/part-1
  zeg segment merge out/part-* -o out/whole"
)]
pub(crate) struct SegmentArgs {
    #[command(subcommand)]
    command: Option<SegmentCommand>,
    /// Images (JPEG, PNG, WebP, BMP, TIFF, GIF), folders of images, patterns such as "*.jpg", or `-` for an image from
    /// standard input
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Search the folders inside a folder as well
    #[arg(short, long, help_heading = heading::DATA)]
    recursive: bool,
    /// Segment part I of N of the images, counted from 1, into a folder of its own; `zeg segment merge` puts the parts
    /// together
    #[arg(long, value_name = "I/N", value_parser = parse_shard, help_heading = heading::DATA)]
    shard: Option<Shard>,
    /// Class names separated by commas (`|` between synonyms), a class file (.txt, .toml), or a class list such as
    /// voc20
    #[arg(long, value_name = "LIST|FILE", required_unless_present = "examples", help_heading = heading::CLASSES)]
    classes: Option<String>,
    #[command(flatten)]
    examples: ExamplesArgs,
    /// Class names of the background, separated by commas; pixels of these classes stay unlabelled
    #[arg(long, value_name = "LIST", help_heading = heading::CLASSES)]
    background: Option<String>,
    /// Prompt templates: single, multi, imagenet-80, …, or a file with one template per line [default: the model's]
    #[arg(long, value_name = "NAME|FILE", help_heading = heading::CLASSES)]
    templates: Option<String>,
    /// Checkpoint, CLIP weights in any published format, a name from `zeg models`, or `mini` (MiniCLIP, which is part
    /// of the program)
    #[arg(long = "model", value_name = "FILE|NAME", required = true, help_heading = heading::MODEL)]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Confidence from 0 to 1 below which a pixel stays unlabelled; 0 labels every pixel [default: 0.1 for a trained
    /// model, 0 for plain CLIP]
    #[arg(long, value_name = "SCORE", value_parser = probability, help_heading = heading::INFERENCE)]
    threshold: Option<f32>,
    #[command(flatten)]
    inference: InferenceArgs,
    #[command(flatten)]
    test_time: TestTimeArgs,
    /// Folder for the results; `-` writes the label map of one image to standard output, as PNG
    #[arg(short, long, value_name = "DIR", required = true, help_heading = heading::OUTPUT)]
    output: Option<PathBuf>,
    /// Kinds of files to write, separated by commas [default: labels,overlay]
    #[arg(long, value_parser = format_parser(), value_delimiter = ',', value_name = "KINDS",
          help_heading = heading::OUTPUT)]
    write: Vec<&'static ExportFormat>,
    /// Replace files that exist
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    /// Go on where an earlier run with the same settings stopped: keep finished images, compute the others, and write
    /// the files that all images share anew; with --overwrite, replace results of other settings
    #[arg(long, visible_alias = "skip-existing", help_heading = heading::OUTPUT)]
    resume: bool,
    /// Print the N best classes of each large region with their scores; without N, 3
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "3", value_parser = count,
          help_heading = heading::OUTPUT)]
    explain: Option<usize>,
    /// Opacity of the colours in overlays, from 0 to 1
    #[arg(long, default_value_t = USUAL_OPACITY, value_parser = probability, help_heading = heading::OUTPUT)]
    opacity: f32,
    /// Smallest region, in pixels: every smaller region of a label map, unlabelled ones included, takes the label of the
    /// largest region that it touches [default: label maps stay as they are, and annotations leave out regions of fewer
    /// than 16 pixels]
    #[arg(long, value_name = "PIXELS", value_parser = area, help_heading = heading::OUTPUT)]
    min_area: Option<u64>,
    /// Prefix of the image paths in the tasks of Label Studio
    #[arg(long, value_name = "PREFIX", default_value = "/data/local-files/?d=", help_heading = heading::OUTPUT)]
    label_studio_prefix: String,
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

/// The subcommands of `zeg segment`.
#[derive(Debug, Subcommand)]
enum SegmentCommand {
    /// Put the parts of a run together that was divided with --shard
    Merge(MergeArgs),
}

/// The work of `zeg segment` or of its subcommand.
pub(super) enum SegmentTask {
    Segment(Box<SegmentSettings>),
    Merge(MergeSettings),
}

/// Settings of `zeg segment`.
#[derive(Debug)]
pub(super) struct SegmentSettings {
    /// Images, folders and patterns.
    pub(super) inputs: Vec<PathBuf>,
    pub(super) recursion: Recursion,
    /// The part of the images to segment; `None` for all.
    pub(super) shard: Option<Shard>,
    /// Paths of the files that the command reads besides the images; some may be names of built-in lists or weights.
    pub(super) files: Vec<PathBuf>,
    /// A file, or the name of downloaded weights.
    pub(super) model: PathBuf,
    pub(super) model_settings: ModelSettings,
    /// Classes to segment, those of the background included.
    pub(super) classes: Vec<ClassQuery>,
    /// Folder of example images with masks; its classes are segmented as well.
    pub(super) examples: Option<PathBuf>,
    /// Name or file of the prompt templates; `None` for the model's own.
    pub(super) templates: Option<String>,
    pub(super) cache: CacheUse,
    pub(super) inference: InferenceChanges,
    pub(super) test_time: TestTimeChanges,
    /// Lowest confidence of a labelled pixel; 0 for no threshold, `None` for the model's default.
    pub(super) threshold: Option<f32>,
    pub(super) explain: Option<ExplainOptions>,
    pub(super) output: SegmentOutput,
    pub(super) json: Option<JsonTarget>,
    pub(super) compute: ComputeSettings,
    pub(super) verbosity: Verbosity,
}

/// Kinds of files that are written unless others are named.
const USUAL_KINDS: [&str; 2] = ["labels", "overlay"];

/// Place of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputPlace {
    Folder,
    /// The label map of one image goes to standard output.
    Stdout,
}

/// Settings of the files that `zeg segment` writes.
#[derive(Debug)]
pub(super) struct SegmentOutput {
    pub(super) place: OutputPlace,
    /// Folder of the results, unless they go to standard output.
    pub(super) folder: PathBuf,
    pub(super) kinds: Vec<&'static ExportFormat>,
    pub(super) overwrite: Overwrite,
    pub(super) continuation: Continuation,
    /// Opacity of the colours in overlays, from 0 to 1.
    pub(super) opacity: f32,
    /// Smallest region in annotations, in pixels.
    pub(super) minimal_area: u64,
    /// Size in pixels below which a region of a label map takes the label of another one; `None` for no change.
    pub(super) absorbed_area: Option<u64>,
    /// Prefix of the image paths in the tasks of Label Studio.
    pub(super) label_studio_prefix: String,
}

impl SegmentArgs {
    /// Returns the values that may be paths of files to read, besides the images.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.checkpoint.iter().cloned().collect();
        files.extend(self.classes.as_deref().map(class_file));
        files.extend(self.templates.as_ref().map(PathBuf::from));
        files.extend(self.model.files());
        files
    }

    /// Returns the time that the command waits for other ranks; `None` for a subcommand, which is work for one process.
    pub(crate) fn rank_timeout(&self) -> Option<Duration> {
        let is_whole = self.command.is_none();
        is_whole.then(|| self.ranks.timeout())
    }

    /// Whether this is one part of a run that the user has divided.
    pub(crate) fn is_shard(&self) -> bool {
        self.shard.is_some()
    }

    /// # Errors
    /// Returns an error if a class list cannot be read, or the file of `--json` may not be written.
    pub(super) fn task(mut self, verbosity: Verbosity) -> anyhow::Result<SegmentTask> {
        if let Some(SegmentCommand::Merge(args)) = self.command.take() {
            return Ok(SegmentTask::Merge(args.settings(verbosity)?));
        }
        Ok(SegmentTask::Segment(Box::new(self.settings(verbosity)?)))
    }

    fn settings(self, verbosity: Verbosity) -> anyhow::Result<SegmentSettings> {
        let classes = class_list(self.classes.as_deref(), self.background.as_deref())?;
        let explain = self.explain;
        let files = self.files();
        // The command line requires all three; only the subcommand goes without.
        let (checkpoint, output) = (self.checkpoint, self.output);
        let (checkpoint, output) = (checkpoint.unwrap_or_default(), output.unwrap_or_default());
        let place = if output == Path::new(STANDARD) {
            OutputPlace::Stdout
        } else {
            OutputPlace::Folder
        };
        let json = self.json.target("segment")?;
        if place == OutputPlace::Stdout {
            let is_labels = matches!(&self.write[..], [] | [ExportFormat { name: "labels", .. }]);
            anyhow::ensure!(
                is_labels,
                "-o - writes the label map; leave --write out, or name a folder with -o"
            );
            anyhow::ensure!(
                self.shard.is_none(),
                "--shard needs a folder for the part; name it with -o"
            );
            anyhow::ensure!(
                !self.resume,
                "--resume needs a folder with earlier results; name it with -o"
            );
            anyhow::ensure!(
                !json.as_ref().is_some_and(JsonTarget::is_stdout),
                "the label map and the JSON cannot both go to standard output; name a file with --json"
            );
        }
        let is_written = |format: &&ExportFormat| match &self.write[..] {
            [] => USUAL_KINDS.contains(&format.name),
            kinds => kinds.contains(format),
        };
        let kinds = formats().filter(is_written).collect();
        Ok(SegmentSettings {
            inputs: self.images,
            recursion: if self.recursive {
                Recursion::Subfolders
            } else {
                Recursion::FolderOnly
            },
            files,
            shard: self.shard,
            model: checkpoint,
            model_settings: self.model.settings(&self.method, &self.precision)?,
            classes,
            examples: self.examples.folder(),
            templates: self.templates,
            cache: CacheUse::of_flag(self.no_cache),
            inference: self.inference.settings(),
            test_time: self.test_time.settings(),
            threshold: self.threshold,
            explain: explain.map(|candidates| ExplainOptions { candidates }),
            output: SegmentOutput {
                place,
                folder: output,
                kinds,
                overwrite: if self.overwrite {
                    Overwrite::Replace
                } else {
                    Overwrite::Refuse
                },
                continuation: Continuation::of_flag(self.resume),
                opacity: self.opacity,
                minimal_area: self.min_area.unwrap_or(USUAL_MINIMAL_AREA),
                absorbed_area: self.min_area,
                label_studio_prefix: self.label_studio_prefix,
            },
            json,
            compute: self.compute.settings(),
            verbosity,
        })
    }
}

/// Returns the classes of `--classes`, followed by those of `--background`.
fn class_list(classes: Option<&str>, background: Option<&str>) -> anyhow::Result<Vec<ClassQuery>> {
    let classes = classes.map(parse_classes_argument).transpose();
    let mut classes = classes.context("--classes")?.unwrap_or_default();
    if let Some(list) = background {
        let list = parse_class_list(list)
            .map_err(ClassArgumentError::from)
            .context("--background")?;
        for mut class in list {
            class.role = Role::Background;
            classes.push(class);
        }
        let mut seen = std::collections::HashSet::new();
        for name in classes.iter().flat_map(ClassQuery::names) {
            if !seen.insert(name.to_lowercase()) {
                let reason = format!("--background: {name:?} is one of the --classes as well");
                return Err(WrongArgument(reason).into());
            }
        }
    }
    Ok(classes)
}
