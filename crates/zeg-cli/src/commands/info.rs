//! `zeg info`: describes an experiment, a checkpoint or a file of weights, and its cost.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;
use zeg::model::{config::VisionConfig, cost::CostPart, weights::Inspection};
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
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = heading::TRAINING)]
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

/// The description of a file: of an experiment or a checkpoint, or of weights.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum InfoOutput<'a> {
    /// Of an experiment or a checkpoint.
    Experiment(&'a Info),
    /// Of a file of weights.
    Weights(&'a Inspection),
}

/// The description of an experiment or a checkpoint.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Info {
    /// The file, as given.
    file: String,
    /// The method, as `ZegCLIP`.
    method: String,
    /// The image encoder, as `ViT-B/16`; `none` for a method without one.
    encoder: String,
    /// Name of the class list.
    classes: String,
    /// Number of seen classes.
    seen: usize,
    /// Number of unseen classes.
    unseen: usize,
    /// Setting of the training: `inductive`, `transductive` or `fully-supervised`.
    setting: &'static str,
    /// Number of training steps.
    steps: u64,
    /// Number of images in a training step.
    batch: usize,
    /// Number of steps that a checkpoint was trained for.
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_steps: Option<u64>,
    parameters: InfoParameters,
    macs: InfoMacs,
}

/// Numbers of parameters.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct InfoParameters {
    /// Parameters of encoder and head.
    encoder_and_head: u64,
    /// Those that are trained.
    trained: u64,
    /// Those in the layout of the reference's checkpoints, unused modules included.
    declared_by_reference: u64,
}

/// Multiply-accumulates for one square image.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct InfoMacs {
    /// Side of the image in pixels.
    size: usize,
    /// Multiply-accumulates of each part.
    #[serde(flatten, serialize_with = "by_key")]
    #[cfg_attr(
        feature = "schema",
        schemars(with = "std::collections::BTreeMap<String, u64>")
    )]
    parts: Vec<CostPart>,
    /// Multiply-accumulates of all parts.
    total: u64,
    /// Number of crops that the encoder gets, in a two-stage model.
    #[serde(skip_serializing_if = "Option::is_none")]
    crops: Option<usize>,
}

/// Serialises the multiply-accumulates as a map from the key of each part.
fn by_key<S: serde::Serializer>(parts: &[CostPart], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(parts.iter().map(|part| (part.key, part.macs)))
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<InfoOutput<'_>>("info")
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
            return write_result(json.as_ref(), &InfoOutput::Weights(&found), || {
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
    write_result(json.as_ref(), &InfoOutput::Experiment(&info), || {
        print(&info)
    })
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
        "  training     {}, {done}{} steps of {} images",
        info.setting,
        info.steps,
        info.batch
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
