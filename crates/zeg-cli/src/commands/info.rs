//! `zeg info`: describes an experiment, a checkpoint or a file of weights, and its cost, or a table of class embeddings.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;
use zeg::model::{
    ModelError,
    config::{Activation, VisionConfig},
    cost::CostPart,
    embeddings::EmbeddingTable,
    recognize::Recognized,
    weights::{Inspection, StateDict, StatedActivation, StatedHeads},
};
use zeg_base::plural::counted;
use zeg_train::{checkpoint::Checkpoint, experiment::Experiment};

use super::{
    JsonTarget,
    json::JsonArgs,
    model_file::{resolve_model, warn_of_files},
    shared::{StatedArgs, heading},
    stated::{check_activation, check_heads},
    write_result,
};
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
    /// Experiment file (TOML), checkpoint, weights in any published format, a name from `zeg models`, or a table of
    /// class embeddings
    file: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    stated: StatedArgs,
    /// Setting of the experiment to change; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = crate::numbers::change, help_heading = heading::TRAINING)]
    changes: Vec<String>,
}

/// Settings of `zeg info`.
#[derive(Debug)]
struct InfoSettings {
    file: PathBuf,
    json: Option<JsonTarget>,
    /// Activation of CLIP weights; `None` for that of the files.
    activation: Option<StatedActivation>,
    /// Numbers of attention heads of CLIP weights; `None` for those of the files.
    heads: StatedHeads,
    /// Changes to an experiment, `key=value`.
    changes: Vec<String>,
}

impl InfoArgs {
    /// # Errors
    /// Returns an error if the weights are not downloaded, or the file of `--json` may not be written.
    fn settings(self) -> anyhow::Result<InfoSettings> {
        Ok(InfoSettings {
            file: resolve_model(&self.file)?,
            json: self.json.target("info")?,
            activation: self.stated.activation(),
            heads: self.stated.heads(),
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
    /// Of a table of class embeddings.
    Table(&'a TableInfo),
}

/// The description of a table of class embeddings.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct TableInfo {
    /// The file, as given.
    file: String,
    /// Number of rows, one per class.
    rows: usize,
    /// Length of a row.
    dim: usize,
    /// Type of the stored numbers, such as `f32`.
    dtype: String,
    /// Class names of the rows, if the file holds them.
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<Vec<String>>,
    /// Euclidean length of the shortest row in the file.
    shortest: f64,
    /// Euclidean length of the longest row in the file; rows are divided by their lengths when they are read.
    longest: f64,
}

impl TableInfo {
    fn open(file: &Path) -> Result<Self, ModelError> {
        let table = EmbeddingTable::open(file)?;
        let [shortest, longest] = table.lengths();
        Ok(Self {
            file: file.display().to_string(),
            rows: table.rows(),
            dim: table.dim(),
            dtype: table.dtype().to_owned(),
            names: table.names().map(<[String]>::to_vec),
            shortest,
            longest,
        })
    }

    fn print(&self) -> Result<(), StdoutError> {
        print_result!("{}", self.file)?;
        print_result!("  kind         table of class embeddings")?;
        print_result!(
            "  rows         {} of {} values, {}",
            self.rows,
            self.dim,
            self.dtype
        )?;
        print_result!("  lengths      {:.4} to {:.4}", self.shortest, self.longest)?;
        match &self.names {
            Some(names) => print_result!("  names        {}", names.join("; ")),
            None => {
                print_result!("  names        none; --text-classes states the classes of the rows")
            }
        }
    }
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
    /// Activation of the image encoder of a checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    activation: Option<Activation>,
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
    /// Parameters that a checkpoint lacks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<String>,
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
        activation,
        heads,
        changes,
    } = settings;
    if !super::is_experiment(file) && EmbeddingTable::is_array(file) {
        return describe_table(file, json.as_ref());
    }
    let (experiment, checkpoint) = if super::is_experiment(file) {
        (super::open_experiment(program, file, changes)?, None)
    } else {
        let mut weights = zeg::mini::open_weights(file, &program.methods)?;
        if !Checkpoint::is_checkpoint(&weights) {
            if EmbeddingTable::is_in(&weights) {
                return describe_table(file, json.as_ref());
            }
            if let Some(activation) = activation {
                weights.state_activation(*activation);
            }
            weights.state_heads(*heads);
            warn_of_files(&weights);
            let found = inspect(program, &weights)?;
            warn_of_missing(file, &found.missing);
            return write_result(json.as_ref(), &InfoOutput::Weights(&found), || {
                print_result!("{}", super::import::describe(&found).trim_end())
            });
        }
        let checkpoint = Checkpoint::open(file, &program.methods)?;
        (Experiment::of_checkpoint(&checkpoint)?, Some(checkpoint))
    };
    let info = describe(program, &experiment, checkpoint.as_ref(), settings)?;
    warn_of_missing(file, &info.missing);
    write_result(json.as_ref(), &InfoOutput::Experiment(&info), || {
        print(&info)
    })
}

fn describe_table(file: &Path, json: Option<&JsonTarget>) -> anyhow::Result<()> {
    let table = TableInfo::open(file)?;
    write_result(json, &InfoOutput::Table(&table), || table.print())
}

/// Summarises weights; the parameters that a trained model lacks are listed as missing, like those of the towers.
fn inspect(program: &Program, weights: &StateDict) -> anyhow::Result<Inspection> {
    let mut found = Inspection::of(weights)?;
    // Weights that no method recognises are described all the same.
    if let Ok(Recognized::Trained(architecture)) =
        Recognized::from_weights(weights, &program.methods)
    {
        let others = architecture.missing(weights)?;
        let others = others
            .into_iter()
            .filter(|key| !found.missing.contains(key));
        let others: Vec<String> = others.collect();
        found.missing.extend(others);
    }
    Ok(found)
}

/// Warns that a model is not whole, and names what it lacks.
fn warn_of_missing(file: &Path, missing: &[String]) {
    if let Some(first) = missing.first() {
        let more = match missing.len() {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        print_notice!(
            "warning: {}: the model is not whole, so other commands refuse it: it lacks {first}{more}",
            file.display()
        );
    }
}

/// Describes an experiment, or the model of a checkpoint.
///
/// - `checkpoint`: the checkpoint that the experiment is part of, if the file is one
fn describe(
    program: &Program,
    experiment: &Experiment,
    checkpoint: Option<&Checkpoint>,
    settings: &InfoSettings,
) -> anyhow::Result<Info> {
    let classes = experiment.data.class_set()?;
    let config = match checkpoint {
        Some(checkpoint) => checkpoint.architecture(&program.methods)?,
        None => experiment.architecture(&program.methods)?,
    };
    check_heads(&*config, settings.heads)?;
    // A checkpoint of an earlier version does not record the activation of its training.
    if checkpoint.is_none_or(|checkpoint| checkpoint.info.activation.is_some()) {
        check_activation(&*config, settings.activation)?;
    }
    let missing = checkpoint.map(|checkpoint| config.missing(&checkpoint.weights));
    let cost = config.cost(classes.len())?;
    let params = cost.params;
    Ok(Info {
        file: settings.file.display().to_string(),
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
        trained_steps: checkpoint.map(|checkpoint| checkpoint.info.step),
        activation: (config.encoder())
            .filter(|_| checkpoint.is_some())
            .map(|encoder| encoder.activation),
        missing: missing.transpose()?.unwrap_or_default(),
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
    if let Some(activation) = info.activation {
        let name = super::import::activation_name(activation.into());
        print_result!("  activation   {name}")?;
    }
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
    for name in &info.missing {
        print_result!("  missing      {name}")?;
    }
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
