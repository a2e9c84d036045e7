//! `zeg bench`: how long a model takes.

use std::{path::PathBuf, process::ExitCode};

use crate::timing::{self, Amount, Timing};
use burn::tensor::Device;
use clap::Args;
use serde::Serialize;
use zeg::{loading::LoadedModel, model::Precision};
use zeg_train::experiment::Experiment;

use super::{JsonTarget, machine, open_device};
use crate::cli::{ComputeArgs, MethodArgs, ModelArgs, PrecisionArgs};

/// Arguments of `zeg bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg bench configs/voc12/zegclip-inductive.toml
  zeg bench configs/voc12/zegclip-inductive.toml --precision int8 --threads 2 --json -
  zeg bench configs/voc12/zegclip-inductive.toml --training --batch 4 --micro-batch 1
  zeg bench clip-vit-b-16.safetensors --size 224 --classes 150")]
pub(crate) struct BenchArgs {
    /// Experiment file (TOML), timed with generated weights, or a model
    file: PathBuf,
    /// Time steps of the experiment's training instead of pictures to scores
    #[arg(long)]
    training: bool,
    /// Side of the pictures in pixels [default: what the experiment is made for, or 512]
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Classes [default: the experiment's, or 20]
    #[arg(long, value_name = "N", conflicts_with = "training")]
    classes: Option<usize>,
    /// Pictures at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    batch: usize,
    /// Pictures of a training step that go through the model at once [default: all]
    #[arg(long, value_name = "N", requires = "training", value_parser = positive)]
    micro_batch: Option<usize>,
    /// Runs that count; one more goes before them
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    runs: usize,
    /// Write the result as JSON; `-` writes it to standard output instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("give a number from 1 on".to_owned()),
    }
}

/// What was timed, where, and how long it took.
#[derive(Debug, Serialize)]
struct Report {
    program: &'static str,
    machine: String,
    device: String,
    threads: usize,
    model: String,
    method: String,
    what: &'static str,
    precision: String,
    batch: usize,
    /// Of training.
    #[serde(skip_serializing_if = "Option::is_none")]
    micro_batch: Option<usize>,
    size: usize,
    classes: usize,
    runs: usize,
    #[serde(flatten)]
    timing: Timing,
}

/// What of a report follows from the file.
struct Measured {
    method: String,
    amount: Amount,
    classes: usize,
    timing: Timing,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let device = open_device(&args.compute)?;
    let is_experiment = args
        .file
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    let measured = if is_experiment {
        measure_experiment(args, &device)?
    } else {
        measure_model(args, &device)?
    };
    let report = Report {
        program: concat!("zeg ", env!("CARGO_PKG_VERSION")),
        machine: machine::name(),
        device: args.compute.device.to_string(),
        threads: rayon::current_num_threads(),
        model: args.file.display().to_string(),
        method: measured.method,
        what: if args.training {
            "training step"
        } else {
            "forward"
        },
        precision: args.precision.value().to_string(),
        batch: measured.amount.batch,
        micro_batch: args.training.then_some(measured.amount.micro_batch),
        size: measured.amount.size,
        classes: measured.classes,
        runs: args.runs,
        timing: measured.timing,
    };
    let target = args.json.as_deref().map(JsonTarget::new);
    if let Some(target) = &target {
        target.write(&report)?;
    }
    if !matches!(target, Some(JsonTarget::Stdout)) {
        print(&report);
    }
    Ok(ExitCode::SUCCESS)
}

fn measure_experiment(args: &BenchArgs, device: &Device) -> anyhow::Result<Measured> {
    let experiment = Experiment::open(&args.file, &[])?;
    let config = experiment.model.architecture()?;
    let amount = args.amount(config.resolution());
    let set = timing::classes(&experiment)?;
    let classes = args.classes.unwrap_or(set.len());
    let timing = if args.training {
        anyhow::ensure!(
            args.precision.value() == Precision::Float,
            "training computes with 32-bit floats; leave --precision out"
        );
        let weights = timing::generated_weights(&config)?;
        timing::training(&experiment, weights, amount, device)?
    } else {
        let model = timing::generated_model(&config, device, args.precision.value())?;
        timing::forward(&model, classes, amount, device)?
    };
    Ok(Measured {
        method: config.method().title().to_owned(),
        amount,
        classes,
        timing,
    })
}

fn measure_model(args: &BenchArgs, device: &Device) -> anyhow::Result<Measured> {
    anyhow::ensure!(
        !args.training,
        "{}: --training times an experiment file (.toml)",
        args.file.display()
    );
    let base = args.model.weights.as_deref();
    let (method, precision) = (args.method.config(), args.precision.value());
    let loaded = LoadedModel::open(&args.file, base, method, device, precision)?;
    let amount = args.amount(512);
    let classes = args.classes.unwrap_or(20);
    Ok(Measured {
        timing: timing::forward(loaded.model.as_ref(), classes, amount, device)?,
        method: loaded.method,
        amount,
        classes,
    })
}

impl BenchArgs {
    fn amount(&self, size: usize) -> Amount {
        Amount {
            batch: self.batch,
            micro_batch: self.micro_batch.unwrap_or(self.batch),
            size: self.size.unwrap_or(size),
            runs: self.runs,
        }
    }
}

fn print(report: &Report) {
    let Report { timing, .. } = report;
    println!(
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
    );
    println!(
        "  {:.3} s  (median of {}; {:.3} to {:.3})",
        timing.median_s, report.runs, timing.min_s, timing.max_s
    );
    if let Some(cpu) = timing.cpu_median_s {
        println!("  {cpu:.3} s on cores, all threads together");
    }
    if let (Some(before), Some(peak)) = (timing.before_mb, timing.peak_mb) {
        println!("  {peak:.0} MB at most, {before:.0} MB of it before the first run");
    }
}
