//! `zeg bench`: measures the time and memory of a model.

use std::{path::PathBuf, process::ExitCode};

use crate::timing::{self, Amount, Timing};
use burn::tensor::Device;
use clap::Args;
use serde::Serialize;
use zeg::{loading::LoadedModel, model::Precision};

use super::{
    JsonTarget, is_experiment,
    json::JsonArgs,
    machine,
    shared::{
        ComputeArgs, ComputeSettings, MethodArgs, ModelArgs, ModelSettings, PrecisionArgs, heading,
    },
    write_result,
};
use crate::{Program, say::StdoutError};

/// Arguments of `zeg bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg bench configs/voc12/zegclip-inductive.toml
  zeg bench configs/voc12/zegclip-inductive.toml --precision int8 --threads 2 --json
  zeg bench configs/voc12/zegclip-inductive.toml --training --batch 4 --micro-batch 1
  zeg bench clip-vit-b-16.safetensors --size 224 --classes 150")]
pub(crate) struct BenchArgs {
    /// Model file, or experiment file (TOML), which is measured with generated weights
    file: PathBuf,
    /// Measure training steps of the experiment instead of inference
    #[arg(long, help_heading = heading::TRAINING)]
    training: bool,
    /// Number of images that go through the model at once in a training step [default: the batch]
    #[arg(long, value_name = "N", requires = "training", value_parser = positive, help_heading = heading::TRAINING)]
    micro_batch: Option<usize>,
    /// Side of the images in pixels [default: the resolution of the experiment, or 512]
    #[arg(long, value_name = "PIXELS", help_heading = heading::DATA)]
    size: Option<usize>,
    /// Number of classes [default: the experiment's, or 20]
    #[arg(long, value_name = "N", conflicts_with = "training", help_heading = heading::DATA)]
    classes: Option<usize>,
    /// Number of images in each run
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive, help_heading = heading::DATA)]
    batch: usize,
    /// Number of measured runs, after one that is not measured
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive, help_heading = heading::DATA)]
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

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("give a number of at least 1".to_owned()),
    }
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
    /// What a run is: `forward` or `training step`.
    what: &'static str,
    /// Arithmetic of the encoder, `f32` or `int8`.
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
    /// A step of training.
    Training,
}

impl BenchWork {
    fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Training => "training step",
        }
    }
}

impl BenchArgs {
    fn settings(self) -> anyhow::Result<BenchSettings> {
        Ok(BenchSettings {
            file: self.file,
            work: if self.training {
                BenchWork::Training
            } else {
                BenchWork::Forward
            },
            size: self.size,
            classes: self.classes,
            batch: self.batch,
            micro_batch: self.micro_batch.unwrap_or(self.batch),
            runs: self.runs,
            model: self.model.settings(&self.method, &self.precision)?,
            json: self.json.target("bench")?,
            compute: self.compute.settings(),
        })
    }
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<BenchReport>("bench")
}

pub(crate) fn run(program: &Program, args: BenchArgs) -> anyhow::Result<ExitCode> {
    bench(program, &args.settings()?)?;
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
        precision: settings.model.precision.to_string(),
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
    let experiment = super::open_experiment(program, &settings.file, &[])?;
    let config = experiment.architecture(&program.methods)?;
    let amount = settings.amount(config.resolution());
    let set = timing::classes(&experiment)?;
    let classes = settings.classes.unwrap_or(set.len());
    let timing = if settings.work == BenchWork::Training {
        anyhow::ensure!(
            settings.model.precision == Precision::Float,
            "--precision int8: training computes with 32-bit floats only"
        );
        let weights = timing::generated_weights(&*config)?;
        timing::training(&experiment, program, weights, amount, device)?
    } else {
        let model = timing::generated_model(&*config, device, settings.model.precision)?;
        timing::forward(&*model, classes, amount, device)?
    };
    Ok(Measured {
        method: config.title().to_owned(),
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
    anyhow::ensure!(
        settings.work == BenchWork::Forward,
        "{}: --training needs an experiment file (.toml)",
        settings.file.display()
    );
    let model = &settings.model;
    let loaded = LoadedModel::open(&settings.file, &model.options(program, device))?;
    let amount = settings.amount(512);
    let classes = settings.classes.unwrap_or(20);
    Ok(Measured {
        timing: timing::forward(loaded.model.as_ref(), classes, amount, device)?,
        method: loaded.method,
        amount,
        classes,
    })
}

impl BenchSettings {
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
        "{} ({}), {} in {}: {} × {}×{} pixels, {} classes, {} threads",
        report.model,
        report.method,
        report.what,
        report.precision,
        report.batch,
        report.size,
        report.size,
        report.classes,
        report.threads
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
