//! `zeg pretrain`: pre-trains MiniCLIP from random values and writes its weights.

mod files;

use std::{path::PathBuf, process::ExitCode, sync::atomic::Ordering, time::Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::json;
use zeg_base::memory;

use zeg_train::pretraining::{CURRICULUM, Pretraining};
use zeg_train::{
    TrainError,
    checkpoint::write_atomically,
    pretrain::{PretrainConfig, PretrainReport},
    pretrain_checkpoint::PretrainCheckpoint,
};

use self::files::PretrainFiles;
use super::{
    JsonTarget,
    json::{self, JsonArgs},
    machine,
    place::output_file,
    run_files::Log,
    shared::{ComputeArgs, ComputeSettings, heading},
    stop_flag, write_result,
};
use crate::{
    Program,
    numbers::{at_least_two, count_u64, positive_f64, seed},
    progress::Verbosity,
};

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
  zeg pretrain -o other.safetensors --seed 1 --steps 1600 --resume

Two files are written beside the weights: FILE.jsonl with a line per step, and FILE.json with the
settings and the final score. A run that has not finished has a third one, its checkpoint.")]
pub(crate) struct PretrainArgs {
    /// File for the weights (.safetensors)
    #[arg(short, long, value_name = "FILE", value_parser = output_file(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Seed for initialisation and images
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = seed, help_heading = heading::TRAINING)]
    seed: u64,
    /// Number of optimiser steps
    #[arg(long, value_name = "N", default_value_t = PretrainConfig::default().steps, value_parser = count_u64,
          help_heading = heading::TRAINING)]
    steps: u64,
    /// Number of pairs of an image and a caption in a step
    #[arg(long, value_name = "N", default_value_t = PretrainConfig::default().batch, value_parser = at_least_two,
          help_heading = heading::TRAINING)]
    batch: usize,
    /// Learning rate after the warm-up, before it decays
    #[arg(long, value_name = "RATE", default_value_t = PretrainConfig::default().learning_rate,
          value_parser = positive_f64, help_heading = heading::TRAINING)]
    learning_rate: f64,
    /// Number of steps between two checkpoints [default: a sixteenth of the steps]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = heading::TRAINING)]
    checkpoint_every: Option<u64>,
    /// Continue a run that was stopped from its checkpoint beside the weights
    #[arg(long, conflicts_with = "overwrite", help_heading = heading::TRAINING)]
    resume: bool,
    /// Replace files that exist, such as those of another run
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
    /// Number of steps between two checkpoints, at least 1.
    checkpoint_every: u64,
    continuation: Continuation,
    json: Option<JsonTarget>,
    compute: ComputeSettings,
    verbosity: Verbosity,
}

/// What happens if the files of a run exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Continuation {
    /// The run is refused.
    Fresh,
    /// The files are replaced.
    Replace,
    /// The run continues from its checkpoint.
    Resume,
}

impl PretrainArgs {
    /// # Errors
    /// Returns an error if the pairs of a step cannot fit into memory, or if the file of `--json` may not be written.
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<PretrainSettings> {
        check_memory(self.batch)?;
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
            checkpoint_every: self
                .checkpoint_every
                .unwrap_or_else(|| self.steps.div_ceil(SCORES)),
            continuation: match (self.resume, self.overwrite) {
                (true, _) => Continuation::Resume,
                (false, true) => Continuation::Replace,
                (false, false) => Continuation::Fresh,
            },
            json: self.json.target("pretrain")?,
            compute: self.compute.settings(),
            verbosity,
        })
    }
}

/// Checks that the images of a step, and the similarities of all its pairs, fit into memory.
fn check_memory(batch: usize) -> anyhow::Result<()> {
    let sides = CURRICULUM.iter().map(|(stage, _)| stage.size);
    let side = sides.max().unwrap_or(0);
    let images = memory::product(&[batch, 3, side, side, size_of::<f32>()]);
    let similarities = memory::product(&[batch, batch, size_of::<f32>()]);
    memory::check(images.saturating_add(similarities)).with_context(|| format!("--batch {batch}"))
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
    let stop = stop_flag();
    let config = settings.config;
    let (files, checkpoint) =
        PretrainFiles::open(&settings.output, settings.continuation, &config)?;
    let device = settings.compute.open_device()?;
    let pretraining = Pretraining::new(config, &device)?;
    let mut trainer = pretraining.start()?;
    match checkpoint {
        Some(checkpoint) => {
            let step = checkpoint.step;
            settings
                .verbosity
                .notice(format_args!("resuming at step {step}"));
            trainer.resume(checkpoint)?;
        }
        None => files
            .remove_checkpoint()
            .with_context(|| files.checkpoint.display().to_string())?,
    }
    let first_step = trainer.step_number();
    let (mut log, _) = Log::open(files.log.clone(), |line| {
        line["step"].as_u64().is_some_and(|step| step < first_step)
    })?;
    let bar = settings
        .verbosity
        .progress("training", "steps", config.steps);
    bar.set_position(first_step);
    let every = config.steps.div_ceil(SCORES);
    let started = Instant::now();
    let mut before = started;
    let mut accuracy = 0.0;
    let mut done = first_step;
    let trainer = pretraining.finish::<anyhow::Error>(trainer, |trainer, report| {
        done = trainer.step_number();
        let mut line = log_line(&pretraining, report)?;
        line["seconds"] = json!(round(before.elapsed().as_secs_f64()));
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
        log.write(&line)?;
        bar.set_message(format!("loss {:.3}", report.loss));
        bar.set_position(done);
        if done == config.steps {
            return Ok(()); // the weights follow
        }
        let is_stopping = stop.load(Ordering::SeqCst);
        if is_stopping || done.is_multiple_of(settings.checkpoint_every) {
            PretrainCheckpoint::save(&files.checkpoint, trainer)?;
        }
        if is_stopping {
            return Err(TrainError::Interrupted.into());
        }
        Ok(())
    });
    bar.finish();
    let trainer = match trainer {
        Err(error) if matches!(error.downcast_ref(), Some(TrainError::Interrupted)) => {
            settings.verbosity.notice(format_args!(
                "stopped at step {done}; --resume continues the run"
            ));
            return Ok(json::stopped(settings.json.as_ref()));
        }
        other => other?,
    };
    let mut manifest = manifest(&config, accuracy);
    // The weights hold nothing that differs between two runs of the same settings on one machine.
    pretraining.save(&files.weights, &trainer, &manifest.to_string())?;
    manifest["first-step"] = json!(first_step);
    manifest["seconds"] = json!(round(started.elapsed().as_secs_f64()));
    let mut text = serde_json::to_string_pretty(&manifest)?;
    text.push('\n');
    write_atomically(&files.manifest, text.as_bytes())?;
    files
        .remove_checkpoint()
        .with_context(|| files.checkpoint.display().to_string())?;
    let written = PretrainOutput {
        weights: files.weights.clone(),
        log: files.log.clone(),
        manifest: files.manifest.clone(),
        seed: config.seed,
        steps: config.steps,
        pairs: config.steps * config.batch as u64,
        zero_shot_accuracy: accuracy,
        zero_shot_images: SCORED,
        seconds: round(started.elapsed().as_secs_f64()),
    };
    write_result(settings.json.as_ref(), &written, || {
        print_result!("{}", files.weights.display())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the numbers of a step for the log.
fn log_line(
    pretraining: &Pretraining,
    report: &PretrainReport,
) -> anyhow::Result<serde_json::Value> {
    let mut line = serde_json::to_value(report)?;
    line["size"] = json!(pretraining.stage(report.step).size);
    Ok(line)
}

/// Returns what was run and how well it went.
///
/// - `accuracy`: the zero-shot accuracy of the finished model
fn manifest(config: &PretrainConfig, accuracy: f64) -> serde_json::Value {
    let stages: Vec<_> = CURRICULUM
        .iter()
        .map(|(stage, share)| json!({ "stage": stage, "share-of-steps": share }))
        .collect();
    json!({
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
        "threads": rayon::current_num_threads(),
        "machine": machine::name(),
    })
}

/// Rounds seconds to a tenth of a millisecond.
fn round(seconds: f64) -> f64 {
    (seconds * 1e4).round() / 1e4
}
