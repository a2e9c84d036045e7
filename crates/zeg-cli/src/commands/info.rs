//! `zeg info`: describes an experiment, a checkpoint or a file of weights, and its cost.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;
use zeg::model::{config::VisionConfig, cost::CostPart, weights::Inspection};
use zeg_base::plural::counted;
use zeg_train::{checkpoint::Checkpoint, experiment::Experiment};

use super::{JsonTarget, json::JsonArgs, shared::heading, write_result};
use crate::{Program, say::StdoutError};

/// Arguments of `zeg info`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg info configs/voc12/zegclip-inductive.toml
  zeg info configs/voc12/zegclip-inductive.toml --set training.batch=8
  zeg info runs/quick/model.safetensors
  zeg info ViT-B-16.pt --json | jq .family")]
pub(crate) struct InfoArgs {
    /// Experiment file (TOML), checkpoint, or weights in any published format
    file: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
    /// Setting of the experiment to change; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = crate::numbers::change, help_heading = heading::TRAINING)]
    changes: Vec<String>,
}

/// Settings of `zeg info`.
#[derive(Debug)]
struct InfoSettings {
    file: PathBuf,
    json: Option<JsonTarget>,
    /// Changes to an experiment, `key=value`.
    changes: Vec<String>,
}

impl InfoArgs {
    /// # Errors
    /// Returns an error if the file of `--json` may not be written.
    fn settings(self) -> anyhow::Result<InfoSettings> {
        Ok(InfoSettings {
            file: self.file,
            json: self.json.target("info")?,
            changes: self.changes,
        })
    }
}

/// The description of an experiment or a checkpoint.
#[derive(Debug, Serialize)]
struct Info {
    file: String,
    method: String,
    encoder: String,
    classes: String,
    seen: usize,
    unseen: usize,
    setting: &'static str,
    steps: u64,
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_steps: Option<u64>,
    parameters: InfoParameters,
    macs: InfoMacs,
}

/// Numbers of parameters.
#[derive(Debug, Serialize)]
struct InfoParameters {
    encoder_and_head: u64,
    trained: u64,
    declared_by_reference: u64,
}

/// Multiply-accumulates for one square image.
#[derive(Debug, Serialize)]
struct InfoMacs {
    /// Side of the image in pixels.
    size: usize,
    /// Multiply-accumulates of each part.
    #[serde(flatten, serialize_with = "by_key")]
    parts: Vec<CostPart>,
    total: u64,
    /// Number of crops that the encoder gets, in a two-stage model.
    #[serde(skip_serializing_if = "Option::is_none")]
    crops: Option<usize>,
}

/// Serialises the multiply-accumulates as a map from the key of each part.
fn by_key<S: serde::Serializer>(parts: &[CostPart], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(parts.iter().map(|part| (part.key, part.macs)))
}

pub(crate) fn run(program: &Program, args: InfoArgs) -> anyhow::Result<ExitCode> {
    info(program, &args.settings()?)?;
    Ok(ExitCode::SUCCESS)
}

fn info(program: &Program, settings: &InfoSettings) -> anyhow::Result<()> {
    let InfoSettings {
        file,
        json,
        changes,
    } = settings;
    let (experiment, trained_steps) = if super::is_experiment(file) {
        (super::open_experiment(program, file, changes)?, None)
    } else {
        let weights = zeg::mini::open_weights(file, &program.methods)?;
        if !Checkpoint::is_checkpoint(&weights) {
            let found = Inspection::of(&weights)?;
            return write_result(json.as_ref(), &found, || {
                print_result!("{}", super::import::describe(&found).trim_end())
            });
        }
        let checkpoint = Checkpoint::open(file, &program.methods)?;
        (
            Experiment::of_checkpoint(&checkpoint)?,
            Some(checkpoint.info.step),
        )
    };
    let info = describe(program, &experiment, trained_steps, file)?;
    write_result(json.as_ref(), &info, || print(&info))
}

fn describe(
    program: &Program,
    experiment: &Experiment,
    trained_steps: Option<u64>,
    file: &Path,
) -> anyhow::Result<Info> {
    let classes = experiment.data.class_set()?;
    let config = experiment.architecture(&program.methods)?;
    let cost = config.cost(classes.len())?;
    let params = cost.params;
    Ok(Info {
        file: file.display().to_string(),
        method: config.title().to_owned(),
        encoder: config
            .encoder()
            .map_or_else(|| "none".to_owned(), VisionConfig::name),
        seen: classes.len() - classes.unseen.len(),
        unseen: classes.unseen.len(),
        classes: classes.name,
        setting: experiment.training.setting.name(),
        steps: experiment.training.steps,
        batch: experiment.training.batch,
        trained_steps,
        parameters: InfoParameters {
            encoder_and_head: params.all,
            trained: params.trained,
            declared_by_reference: params.declared_by_reference,
        },
        macs: InfoMacs {
            size: config.resolution(),
            total: cost.total(),
            crops: cost.crops,
            parts: cost.parts,
        },
    })
}

fn print(info: &Info) -> Result<(), StdoutError> {
    let giga = |macs: u64| macs as f64 / 1e9;
    print_result!("{}", info.file)?;
    print_result!("  method       {}", info.method)?;
    print_result!("  encoder      {}", info.encoder)?;
    print_result!(
        "  classes      {}: {} seen, {} unseen",
        info.classes,
        info.seen,
        info.unseen
    )?;
    let done = info
        .trained_steps
        .map_or_else(String::new, |done| format!("{done} of "));
    print_result!(
        "  training     {}, {done}{} of {}",
        info.setting,
        counted(info.steps, "step"),
        counted(info.batch, "image")
    )?;
    print_result!(
        "  parameters   {} in encoder and head",
        grouped(info.parameters.encoder_and_head)
    )?;
    print_result!(
        "               {} trained",
        grouped(info.parameters.trained)
    )?;
    print_result!(
        "               {} in the layout of the reference's checkpoints, unused modules included",
        grouped(info.parameters.declared_by_reference)
    )?;
    print_result!(
        "  cost         {:.1} G multiply-accumulates for one image of {}×{} pixels",
        giga(info.macs.total),
        info.macs.size,
        info.macs.size
    )?;
    let parts: Vec<String> = info
        .macs
        .parts
        .iter()
        .map(|part| format!("{} {:.1} G", part.label, giga(part.macs)))
        .collect();
    print_result!("               {}", parts.join(", "))?;
    Ok(())
}

/// Formats a number with its digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}
