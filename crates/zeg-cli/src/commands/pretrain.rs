//! `zeg pretrain`: pre-trains MiniCLIP from random values and writes its weights.

use std::{
    fs::File, io::Write as _, path::PathBuf, process::ExitCode, sync::atomic::Ordering,
    time::Instant,
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::json;

use zeg_train::pretraining::{CURRICULUM, Pretraining};
use zeg_train::{TrainError, checkpoint::write_atomically, pretrain::PretrainConfig};

use super::{
    JsonTarget,
    json::{self, JsonArgs},
    machine,
    shared::{ComputeArgs, ComputeSettings, Existing, heading},
    stop_flag, write_result,
};
use crate::{Program, progress::Verbosity};

/// Number of images of one object that the model is scored on.
const SCORED: u64 = 512;
/// Number of times that the model is scored during training.
const SCORES: u64 = 16;

/// Arguments of `zeg pretrain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg pretrain -o miniclip.safetensors --threads 1
  zeg pretrain -o other.safetensors --seed 1 --steps 1600

Two files are written beside the weights: FILE.jsonl with a line per step, and FILE.json with the
settings and the final score.")]
pub(crate) struct PretrainArgs {
    /// File for the weights (.safetensors)
    #[arg(short, long, value_name = "FILE", help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Seed for initialisation and images
    #[arg(long, value_name = "SEED", default_value_t = 0, help_heading = heading::TRAINING)]
    seed: u64,
    /// Number of optimiser steps
    #[arg(long, value_name = "N", default_value_t = PretrainConfig::default().steps, help_heading = heading::TRAINING)]
    steps: u64,
    /// Number of pairs of an image and a caption in a step
    #[arg(long, value_name = "N", default_value_t = PretrainConfig::default().batch, help_heading = heading::TRAINING)]
    batch: usize,
    /// Learning rate after the warm-up, before it decays
    #[arg(long, value_name = "RATE", default_value_t = PretrainConfig::default().learning_rate,
          help_heading = heading::TRAINING)]
    learning_rate: f64,
    /// Replace a file that exists
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Settings of `zeg pretrain`.
#[derive(Debug)]
struct PretrainSettings {
    output: PathBuf,
    config: PretrainConfig,
    existing: Existing,
    json: Option<JsonTarget>,
    compute: ComputeSettings,
    verbosity: Verbosity,
}

impl PretrainArgs {
    /// # Errors
    /// Returns an error if there is no step, if a step has fewer than two pairs, or if the file of `--json` may not be
    /// written.
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<PretrainSettings> {
        anyhow::ensure!(
            self.steps > 0 && self.batch > 1,
            "--steps {} --batch {}: at least one step with two pairs is needed",
            self.steps,
            self.batch
        );
        let defaults = PretrainConfig::default();
        Ok(PretrainSettings {
            output: self.output,
            config: PretrainConfig {
                steps: self.steps,
                batch: self.batch,
                learning_rate: self.learning_rate,
                warmup_steps: defaults.warmup_steps.min(self.steps / 10),
                seed: self.seed,
                ..defaults
            },
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("pretrain")?,
            compute: self.compute.settings(),
            verbosity,
        })
    }
}

/// The weights that were trained, and the files beside them.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct PretrainOutput {
    /// File of the weights.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    weights: PathBuf,
    /// File with one JSON object per step.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    log: PathBuf,
    /// File with the settings and the final score.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    manifest: PathBuf,
    /// Seed for initialisation and images.
    seed: u64,
    /// Number of optimiser steps.
    steps: u64,
    /// Number of pairs of an image and a caption in all steps.
    pairs: u64,
    /// Share of class names that the final model finds, 0 to 1.
    zero_shot_accuracy: f64,
    /// Number of images that this was measured on.
    zero_shot_images: u64,
    /// Wall time of the training in seconds.
    seconds: f64,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<PretrainOutput>("pretrain")
}

pub(crate) fn run(
    _program: &Program,
    args: PretrainArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    pretrain(&args.settings(verbosity)?)
}

fn pretrain(settings: &PretrainSettings) -> anyhow::Result<ExitCode> {
    let PretrainSettings { config, .. } = settings;
    let output = &settings.existing.place(&settings.output)?;
    let device = settings.compute.open_device()?;
    let config = *config;
    let pretraining = Pretraining::new(config, &device)?;
    let beside = |extension: &str| output.with_extension(extension);
    let log_path = settings.existing.place(&beside("jsonl"))?;
    let manifest_path = settings.existing.place(&beside("json"))?;
    let mut log = File::create(&log_path).with_context(|| log_path.display().to_string())?;
    let stop = stop_flag();
    let bar = settings
        .verbosity
        .progress("training", "steps", config.steps);
    let every = config.steps.div_ceil(SCORES);
    let started = Instant::now();
    let mut before = started;
    let mut accuracy = 0.0;
    let trainer = pretraining.run::<anyhow::Error>(|trainer, report| {
        let mut line = serde_json::to_value(report)?;
        line["size"] = json!(pretraining.stage(report.step).size);
        line["seconds"] = json!(round(before.elapsed().as_secs_f64()));
        let done = report.step + 1;
        if done.is_multiple_of(every) || done == config.steps {
            accuracy = pretraining.zero_shot_accuracy(&trainer.inference_model(), SCORED)?;
            line["zero_shot_accuracy"] = json!(accuracy);
            let percent = 100.0 * accuracy;
            bar.suspend(|| {
                let text = format!("step {done}: {percent:.1} % of class names are right");
                settings.verbosity.notice(text);
            });
        }
        before = Instant::now();
        writeln!(log, "{line}")?;
        bar.set_message(format!("loss {:.3}", report.loss));
        bar.inc();
        if stop.load(Ordering::SeqCst) {
            return Err(TrainError::Interrupted.into());
        }
        Ok(())
    });
    bar.finish();
    let trainer = match trainer {
        Err(error) if matches!(error.downcast_ref(), Some(TrainError::Interrupted)) => {
            return Ok(json::stopped(settings.json.as_ref()));
        }
        other => other?,
    };
    let stages: Vec<_> = CURRICULUM
        .iter()
        .map(|(stage, share)| json!({ "stage": stage, "share-of-steps": share }))
        .collect();
    let manifest = json!({
        "program": concat!("zeg ", env!("CARGO_PKG_VERSION")),
        "command": format!(
            "zeg pretrain -o FILE --seed {} --steps {} --batch {} --learning-rate {}",
            config.seed, config.steps, config.batch, config.learning_rate
        ),
        "recipe": config,
        "curriculum": stages,
        "pairs": config.steps * config.batch as u64,
        "zero-shot-accuracy": accuracy,
        "zero-shot-images": SCORED,
        "seconds": round(started.elapsed().as_secs_f64()),
        "threads": rayon::current_num_threads(),
        "machine": machine::name(),
    });
    pretraining.save(output, &trainer, &manifest.to_string())?;
    let mut text = serde_json::to_string_pretty(&manifest)?;
    text.push('\n');
    write_atomically(&manifest_path, text.as_bytes())?;
    let written = PretrainOutput {
        weights: output.clone(),
        log: log_path,
        manifest: manifest_path,
        seed: config.seed,
        steps: config.steps,
        pairs: config.steps * config.batch as u64,
        zero_shot_accuracy: accuracy,
        zero_shot_images: SCORED,
        seconds: round(started.elapsed().as_secs_f64()),
    };
    write_result(settings.json.as_ref(), &written, || {
        print_result!("{}", output.display())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Rounds seconds to a tenth of a millisecond.
fn round(seconds: f64) -> f64 {
    (seconds * 1e4).round() / 1e4
}
