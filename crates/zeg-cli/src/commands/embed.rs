//! `zeg embed`: writes a table of class embeddings from the text tower of a model.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use burn::tensor::Device;
use clap::Args;
use serde::Serialize;
use zeg::{
    loading::{LoadedModel, ModelOptions},
    mini,
    model::{
        Precision,
        classes::ClassNeeds,
        embeddings::table_bytes,
        recognize::Recognized,
        stop::StopSign,
        weights::{Architecture, Assumption, StateDict, StatedActivation, StatedHeads},
    },
    text_sources::{Templates, TextSources, embed, usual_templates},
    vocab::{
        classes::{ClassQuery, parse_classes_argument},
        templates::TemplateSet,
    },
};
use zeg_base::plural::counted;
use zeg_train::checkpoint::{Checkpoint, write_atomically};

use super::{
    JsonTarget,
    json::JsonArgs,
    model_file::{
        resolve_model, warn_of_assumed, warn_of_assumptions, warn_of_files, warn_of_text,
    },
    shared::{ComputeArgs, ComputeSettings, Existing, StatedArgs, heading},
    write_result,
};
use crate::{Program, progress::Verbosity};

/// Arguments of `zeg embed`.
#[derive(Debug, Args)]
#[command(after_help = "\
The table holds one row of unit length for each class, and the class names. Every command reads it
with --text, in place of a text tower.

Examples:
  zeg embed --weights clip.safetensors --classes voc20 --templates imagenet-80 -o voc20.safetensors
  zeg embed --model clip-vit-b-16 --classes \"dog, sofa|couch\" -o pets.safetensors
  zeg segment photo.jpg --model clip-vit-b-16 --classes dog,sofa --text pets.safetensors -o out")]
pub(crate) struct EmbedArgs {
    /// Class names separated by commas (`|` between synonyms), a class file (.txt, .toml), or a class list such as
    /// voc20
    #[arg(long, value_name = "LIST|FILE", help_heading = heading::CLASSES)]
    classes: String,
    /// Prompt templates: single, multi, imagenet-80, …, or a file with one template per line [default: the model's]
    #[arg(long, value_name = "NAME|FILE", help_heading = heading::CLASSES)]
    templates: Option<String>,
    /// CLIP weights with a text tower in any published format, a checkpoint, a name from `zeg models`, or `mini`
    /// (MiniCLIP, which is part of the program)
    #[arg(long, visible_alias = "weights", value_name = "FILE|NAME", help_heading = heading::MODEL)]
    model: PathBuf,
    #[command(flatten)]
    stated: StatedArgs,
    /// Safetensors file to write
    #[arg(short, long, value_name = "FILE", help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Replace a file that exists
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Settings of `zeg embed`.
#[derive(Debug)]
struct EmbedSettings {
    classes: Vec<ClassQuery>,
    /// Prompt templates; `None` for the model's own.
    templates: Option<TemplateSet>,
    /// A file, or the name of downloaded weights.
    model: PathBuf,
    /// Activation of the weights; `None` for that of the files.
    activation: Option<StatedActivation>,
    /// Numbers of attention heads; `None` for those of the files.
    heads: StatedHeads,
    output: PathBuf,
    existing: Existing,
    json: Option<JsonTarget>,
    compute: ComputeSettings,
    verbosity: Verbosity,
}

impl EmbedArgs {
    /// # Errors
    /// Returns an error if the class list or the templates cannot be read, or the file of `--json` may not be written.
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<EmbedSettings> {
        let templates = self.templates.as_deref();
        Ok(EmbedSettings {
            classes: parse_classes_argument(&self.classes).context("--classes")?,
            templates: templates.map(TemplateSet::by_name_or_file).transpose()?,
            model: self.model,
            activation: self.stated.activation(),
            heads: self.stated.heads(),
            output: self.output,
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("embed")?,
            compute: self.compute.settings(),
            verbosity,
        })
    }
}

/// The table that was written.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct EmbedOutput {
    /// The written file.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    file: PathBuf,
    /// Class names of the rows; several names of a class are separated by commas.
    classes: Vec<String>,
    /// Length of a row.
    dim: usize,
    /// Name of the prompt templates.
    templates: String,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<EmbedOutput>("embed")
}

pub(crate) fn run(
    program: &Program,
    args: EmbedArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    write_table(program, &args.settings(verbosity)?)?;
    Ok(ExitCode::SUCCESS)
}

fn write_table(program: &Program, settings: &EmbedSettings) -> anyhow::Result<()> {
    let file = settings.existing.place(&settings.output)?;
    let device = settings.compute.open_device()?;
    let TextWeights {
        weights,
        trained_with,
        needs,
    } = TextWeights::open(program, settings, &device)?;
    let templates = match &settings.templates {
        Some(templates) => templates.clone(),
        None => usual_templates(&weights, trained_with.as_deref())?,
    };
    let names: Vec<Vec<String>> = settings
        .classes
        .iter()
        .map(|class| class.names().map(str::to_owned).collect())
        .collect();
    let bar = settings
        .verbosity
        .progress("embedding", "class names", names.len() as u64);
    let sources = TextSources {
        table: None,
        // Stored embeddings are those of the classes of the training only.
        stored: None,
        weights: &weights,
        templates: Templates::Usual(&templates),
        cache: None,
        progress: Some(&|done, _| bar.set_position(done as u64)),
        stop: StopSign::default(),
    };
    let embedded = embed(&names, &needs, &sources, &device);
    bar.finish();
    let embedded = embedded?;
    warn_of_text(&embedded.notices);
    let classes: Vec<String> = names.iter().map(|names| names.join(", ")).collect();
    let bytes = table_bytes(&embedded.embeddings, &classes, templates.name());
    write_atomically(&file, &bytes)?;
    let output = EmbedOutput {
        file,
        dim: embedded.embeddings.dim(),
        templates: templates.name().to_owned(),
        classes,
    };
    settings.verbosity.notice(format_args!(
        "{} of {} values, prompt templates {}",
        counted(output.classes.len(), "class embedding"),
        output.dim,
        output.templates
    ));
    write_result(settings.json.as_ref(), &output, || {
        print_result!("{}", output.file.display())
    })
}

/// The weights that hold the text tower.
struct TextWeights {
    weights: StateDict,
    /// Prompt templates that the model was trained with, if it is a checkpoint.
    trained_with: Option<String>,
    /// What the model needs of the classes.
    needs: ClassNeeds,
}

impl TextWeights {
    /// Opens the weights; for a checkpoint, those of its frozen encoder as well.
    fn open(program: &Program, settings: &EmbedSettings, device: &Device) -> anyhow::Result<Self> {
        let path = resolve_model(&settings.model)?;
        let mut weights = mini::open_weights(&path, &program.methods)?;
        if Checkpoint::is_checkpoint(&weights) {
            let options = ModelOptions {
                methods: program.methods.clone(),
                base: None,
                method: None,
                device: device.clone(),
                precision: Precision::Float,
                activation: settings.activation,
                heads: settings.heads,
            };
            let loaded = LoadedModel::open(&path, &options)?;
            warn_of_assumptions(&loaded);
            return Ok(Self {
                needs: loaded.model.class_needs(),
                weights: loaded.weights,
                trained_with: loaded.data.map(|data| data.templates),
            });
        }
        if let Some(activation) = settings.activation {
            weights.state_activation(activation);
        }
        weights.state_heads(settings.heads);
        warn_of_files(&weights);
        let mut assumptions = Architecture::infer(&weights)?.assumptions();
        // The image tower is not used.
        assumptions.retain(|assumption| !matches!(assumption, Assumption::ImageHeads { .. }));
        warn_of_assumed(&path, &assumptions);
        let (trained_with, needs) = match Recognized::trained(&weights, &program.methods)? {
            Some(architecture) => (
                architecture.templates().map(str::to_owned),
                architecture.blueprint(device)?.class_needs(),
            ),
            None => (None, ClassNeeds::default()), // plain CLIP, or a text tower alone
        };
        Ok(Self {
            weights,
            trained_with,
            needs,
        })
    }
}
