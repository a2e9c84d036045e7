//! `zeg bench`: measures the time and memory of a model.

mod systems;
mod table;

use std::{path::PathBuf, process::ExitCode};
use zeg_base::plural::counted;

use crate::timing::{self, Amount, Reader, Timing};
use anyhow::Context as _;
use burn::tensor::Device;
use clap::Args;
use serde::Serialize;
use zeg::{loading::LoadedModel, model::Precision};
use zeg_base::memory;
use zeg_train::experiment::TrainingPrecision;

use self::table::TableSettings;
use super::{
    JsonTarget, is_experiment,
    json::JsonArgs,
    machine,
    model_file::{resolve_model, warn_of_architecture, warn_of_assumptions},
    shared::{
        ComputeArgs, ComputeSettings, MethodArgs, ModelArgs, ModelSettings, PrecisionArgs, heading,
    },
    stated::{check_activation, check_heads},
    write_result,
};
use crate::{
    Program,
    numbers::{WrongArgument, count},
    progress::Verbosity,
    say::StdoutError,
};

/// Arguments of `zeg bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg bench configs/voc12/zegclip-inductive.toml
  zeg bench configs/voc12/zegclip-inductive.toml --precision int8 --threads 2 --json
  zeg bench configs/voc12/zegclip-inductive.toml --training --batch 4 --micro-batch 1
  zeg bench clip-vit-b-16.safetensors --size 224 --classes 150
  zeg bench --table --threads 2
  zeg bench --table --only zegclip,clip-rc --runs 3 --json")]
pub(crate) struct BenchArgs {
    /// Model file, or experiment file (TOML), which is measured with generated weights
    #[arg(required_unless_present = "table")]
    file: Option<PathBuf>,
    /// Measure ZegFormer, ZegCLIP and CLIP-RC as published, with the classes of VOC and of COCO-Stuff, beside the
    /// published figures; minutes, most of them for ZegFormer
    #[arg(
        long,
        conflicts_with_all = ["file", "training", "size", "classes", "batch", "method", "last_block", "logit_scale",
            "prompt_denoising", "key_smoothing", "scores", "weights", "text", "activation", "heads"],
        help_heading = heading::MODEL
    )]
    table: bool,
    /// Methods of --table to measure, separated by commas: zegformer, zegclip, clip-rc [default: all]
    #[arg(long, value_name = "METHODS", value_delimiter = ',', requires = "table", help_heading = heading::MODEL)]
    only: Vec<String>,
    /// Measure training steps of the experiment instead of inference
    #[arg(long, help_heading = heading::TRAINING)]
    training: bool,
    /// Number of images that go through the model at once in a training step [default: the batch]
    #[arg(long, value_name = "N", requires = "training", value_parser = count, help_heading = heading::TRAINING)]
    micro_batch: Option<usize>,
    /// Side of the images in pixels [default: the resolution of the experiment, or 512]
    #[arg(long, value_name = "PIXELS", value_parser = count, help_heading = heading::DATA)]
    size: Option<usize>,
    /// Number of classes [default: the experiment's, or 20]
    #[arg(long, value_name = "N", conflicts_with = "training", value_parser = count, help_heading = heading::DATA)]
    classes: Option<usize>,
    /// Number of images in each run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count, help_heading = heading::DATA)]
    batch: usize,
    /// Compute the scores of every class at every pixel, too, as a file of scores or an exporter needs them, instead of
    /// labels alone
    #[arg(long, conflicts_with = "training", help_heading = heading::DATA)]
    scores: bool,
    /// Number of measured runs, after one that is not measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = count, help_heading = heading::DATA)]
    runs: usize,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// The result: what was measured, on which machine, and its times.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct BenchReport {
    /// Program and version, as `zeg 0.1.0`.
    program: &'static str,
    /// System, architecture and processor.
    machine: String,
    /// Device of the computation, as `--device` names it.
    device: String,
    /// Number of threads.
    threads: usize,
    /// File of the model or of the experiment.
    model: String,
    /// The method, as `ZegCLIP`.
    method: String,
    /// What a run is: `forward`, `forward with scores` or `training step`.
    what: &'static str,
    /// Arithmetic of the encoder: `f32`, `bf16` or `int8`.
    precision: String,
    /// Number of images in a run.
    batch: usize,
    /// Number of images that go through the model at once; only for training.
    #[serde(skip_serializing_if = "Option::is_none")]
    micro_batch: Option<usize>,
    /// Side of the images in pixels.
    size: usize,
    /// Number of classes.
    classes: usize,
    /// Number of measured runs.
    runs: usize,
    #[serde(flatten)]
    timing: Timing,
}

/// The part of a report that depends on the file.
struct Measured {
    method: String,
    precision: Precision,
    amount: Amount,
    classes: usize,
    timing: Timing,
}

/// Settings of `zeg bench`.
#[derive(Debug)]
struct BenchSettings {
    /// Experiment or model.
    file: PathBuf,
    work: BenchWork,
    /// Side of the images in pixels; `None` for the resolution of the experiment, or 512.
    size: Option<usize>,
    /// Number of classes; `None` for the experiment's, or 20.
    classes: Option<usize>,
    /// Number of images in each run.
    batch: usize,
    /// Number of images that go through the model at once in a training step.
    micro_batch: usize,
    /// Number of measured runs.
    runs: usize,
    model: ModelSettings,
    json: Option<JsonTarget>,
    compute: ComputeSettings,
}

/// The work of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BenchWork {
    /// Segmentation of a batch of images.
    Forward,
    /// Segmentation of a batch of images, with the scores of all classes at all pixels.
    Scores,
    /// A step of training.
    Training,
}

impl BenchWork {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Scores => "forward with scores",
            Self::Training => "training step",
        }
    }
}

impl BenchArgs {
    /// # Errors
    /// Returns an error if the arguments contradict each other, or the file of `--json` may not be written.
    fn settings(self) -> anyhow::Result<BenchSettings> {
        let model = self.model.settings(&self.method, &self.precision)?;
        let file = self.file.unwrap_or_default();
        let reason = if !self.training {
            None
        } else if !is_experiment(&file) {
            let file = file.display();
            Some(format!(
                "{file}: --training needs an experiment file (.toml)"
            ))
        } else if model.precision == Precision::Int8 {
            Some("--precision int8: training computes in f32 or bf16".to_owned())
        } else {
            None
        };
        if let Some(reason) = reason {
            return Err(WrongArgument(reason).into());
        }
        Ok(BenchSettings {
            file,
            work: match (self.training, self.scores) {
                (true, _) => BenchWork::Training,
                (false, true) => BenchWork::Scores,
                (false, false) => BenchWork::Forward,
            },
            size: self.size,
            classes: self.classes,
            batch: self.batch,
            micro_batch: self.micro_batch.unwrap_or(self.batch),
            runs: self.runs,
            model,
            json: self.json.target("bench")?,
            compute: self.compute.settings(),
        })
    }
}

impl BenchArgs {
    fn table_settings(self, verbosity: Verbosity) -> anyhow::Result<TableSettings> {
        Ok(TableSettings {
            only: self.only,
            runs: self.runs,
            precision: self.precision.value(),
            compute: self.compute.settings(),
            json: self.json.target("bench")?,
            verbosity,
        })
    }
}

/// The times of one model, or with `--table` those of the published systems.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(untagged)]
#[allow(dead_code, clippy::large_enum_variant)] // only its schema is used
enum BenchOutput {
    /// Of one model.
    One(BenchReport),
    /// Of the published systems.
    Table(table::BenchTable),
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<BenchOutput>("bench")
}

pub(crate) fn run(
    program: &Program,
    args: BenchArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    if args.table {
        table::run(program, &args.table_settings(verbosity)?)?;
    } else {
        bench(program, &args.settings()?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn bench(program: &Program, settings: &BenchSettings) -> anyhow::Result<()> {
    let device = settings.compute.open_device()?;
    let measured = if is_experiment(&settings.file) {
        measure_experiment(program, settings, &device)?
    } else {
        measure_model(program, settings, &device)?
    };
    let is_training = settings.work == BenchWork::Training;
    let report = BenchReport {
        program: concat!("zeg ", env!("CARGO_PKG_VERSION")),
        machine: machine::name(),
        device: settings.compute.device.to_string(),
        threads: rayon::current_num_threads(),
        model: settings.file.display().to_string(),
        method: measured.method,
        what: settings.work.name(),
        precision: measured.precision.to_string(),
        batch: measured.amount.batch,
        micro_batch: is_training.then_some(measured.amount.micro_batch),
        size: measured.amount.size,
        classes: measured.classes,
        runs: settings.runs,
        timing: measured.timing,
    };
    write_result(settings.json.as_ref(), &report, || print(&report))
}

fn measure_experiment(
    program: &Program,
    settings: &BenchSettings,
    device: &Device,
) -> anyhow::Result<Measured> {
    let mut experiment = super::open_experiment(program, &settings.file, &[])?;
    if settings.model.precision == Precision::Bf16 {
        experiment.training.precision = TrainingPrecision::Bf16;
    }
    let config = experiment.architecture(&program.methods)?;
    let model = &settings.model;
    for (option, is_given) in [
        ("--weights", model.weights.is_some()),
        ("--text", model.text.is_some()),
        ("--method", model.method.is_some()),
    ] {
        if is_given {
            let reason = format!("{option}: an experiment is measured with generated weights");
            return Err(WrongArgument(reason).into());
        }
    }
    check_heads(&*config, model.heads)?;
    check_activation(&*config, model.activation)?;
    let amount = settings.amount(config.resolution());
    let set = timing::classes(&experiment)?;
    let classes = settings.classes.unwrap_or(set.len());
    check_memory(&amount, classes)?;
    let mut precision = settings.model.precision;
    let timing = if settings.work == BenchWork::Training {
        precision = experiment.training.precision.of_frozen();
        let weights = timing::generated_weights(&*config)?;
        timing::training(&experiment, program, weights, amount, device)?
    } else {
        let model = timing::generated_model(&*config, device, settings.model.precision)?;
        timing::forward(&*model, classes, settings.reader(), amount, device)?
    };
    Ok(Measured {
        method: config.title().to_owned(),
        precision,
        amount,
        classes,
        timing,
    })
}

fn measure_model(
    program: &Program,
    settings: &BenchSettings,
    device: &Device,
) -> anyhow::Result<Measured> {
    let model = &settings.model;
    let loaded = LoadedModel::open(
        &resolve_model(&settings.file)?,
        &model.options(program, device),
    )?;
    warn_of_assumptions(&loaded);
    warn_of_architecture(&loaded)?;
    let amount = settings.amount(512);
    let classes = settings.classes.unwrap_or(20);
    check_memory(&amount, classes)?;
    Ok(Measured {
        timing: timing::forward(
            loaded.model.as_ref(),
            classes,
            settings.reader(),
            amount,
            device,
        )?,
        method: loaded.method,
        precision: settings.model.precision,
        amount,
        classes,
    })
}

/// Checks that the images and the masks of a run fit into memory.
fn check_memory(amount: &Amount, classes: usize) -> anyhow::Result<()> {
    let Amount { batch, size, .. } = *amount;
    // The masks have at most a sixteenth of the pixels per side, so the classes count little.
    let images = memory::product(&[batch, size, size, 3 * size_of::<f32>()]);
    let masks = memory::product(&[batch, size / 16, size / 16, classes, size_of::<f32>()]);
    memory::check(images.saturating_add(masks))
        .with_context(|| format!("{batch} images of {size}×{size} pixels, {classes} classes"))
}

impl BenchSettings {
    /// Returns what reads the results of a forward pass.
    fn reader(&self) -> Reader {
        match self.work {
            BenchWork::Scores => Reader::Scores,
            BenchWork::Forward | BenchWork::Training => Reader::Labels,
        }
    }

    fn amount(&self, size: usize) -> Amount {
        Amount {
            batch: self.batch,
            micro_batch: self.micro_batch,
            size: self.size.unwrap_or(size),
            runs: self.runs,
        }
    }
}

fn print(report: &BenchReport) -> Result<(), StdoutError> {
    let BenchReport { timing, .. } = report;
    print_result!(
        "{} ({}), {} in {}: {} × {}×{} pixels, {}, {}",
        report.model,
        report.method,
        report.what,
        report.precision,
        report.batch,
        report.size,
        report.size,
        counted(report.classes, "class"),
        counted(report.threads, "thread")
    )?;
    print_result!(
        "  {:.3} s  (median of {}; {:.3} to {:.3})",
        timing.median_s,
        report.runs,
        timing.min_s,
        timing.max_s
    )?;
    if let Some(cpu) = timing.cpu_median_s {
        print_result!("  {cpu:.3} s of processor time, all threads together")?;
    }
    if let (Some(before), Some(peak)) = (timing.before_mb, timing.peak_mb) {
        print_result!("  {peak:.0} MB of memory at most, {before:.0} MB before the first run")?;
    }
    Ok(())
}
