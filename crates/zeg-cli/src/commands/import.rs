//! `zeg import`: converts published weights of any format to a safetensors file.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};
use zeg_base::plural::counted;

use clap::{Args, ValueEnum};
use serde::Serialize;
use zeg::model::{
    methods::Methods,
    weights::{
        Basis, ImportPrecision, Inspection, StateDict, StatedActivation, StatedHeads, WeightsPart,
        import_opened,
    },
};

use super::{
    JsonTarget,
    json::JsonArgs,
    model_file::{resolve_model, warn_of_assumed, warn_of_files},
    place::output_file,
    shared::{Existing, StatedArgs, heading},
    write_result,
};
use crate::{Program, progress::Verbosity};

/// Arguments of `zeg import`.
#[derive(Debug, Args)]
#[command(after_help = "\
The formats are OpenAI's TorchScript archives, files of Hugging Face's CLIPModel, open_clip files,
and mmcv checkpoints of ZegCLIP and CLIP-RC. Pickles are read by a reader that can only build
tensors. The written file is read back and compared. The other commands read all these formats
directly; an imported file opens faster. `zeg info FILE` describes a file without converting it.
The activation and the number of heads are read from the configuration beside the file. What no
file states is assumed with a warning, and stands in the new file as assumed; with --activation
and --heads it stands there as stated.

Examples:
  zeg import ViT-B-16.pt -o clip-vit-b-16.safetensors
  zeg import clip-vit-base-patch16/model.safetensors -o clip.safetensors --precision f16")]
pub(crate) struct ImportArgs {
    /// Published file of weights, or the name of downloaded ones from `zeg models`
    file: PathBuf,
    #[command(flatten)]
    stated: StatedArgs,
    /// Safetensors file to write
    #[arg(short, long, value_name = "FILE", value_parser = output_file(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Precision of the stored numbers
    #[arg(long, value_enum, default_value = "same", help_heading = heading::OUTPUT)]
    precision: StoredPrecisionArg,
    /// Replace a file that exists
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// An [`ImportPrecision`] as a value of `--precision`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StoredPrecisionArg {
    /// As in the published file
    Same,
    /// 32 bits
    F32,
    /// 16 bits
    F16,
}

/// Settings of `zeg import`.
#[derive(Debug)]
struct ImportSettings {
    file: PathBuf,
    /// Activation of the weights; `None` for that of the files.
    activation: Option<StatedActivation>,
    /// Numbers of attention heads; `None` for those of the files.
    heads: StatedHeads,
    output: PathBuf,
    precision: ImportPrecision,
    existing: Existing,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
}

impl ImportArgs {
    /// # Errors
    /// Returns an error if the weights are not downloaded, or the file of `--json` may not be written.
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<ImportSettings> {
        Ok(ImportSettings {
            file: resolve_model(&self.file)?,
            activation: self.stated.activation(),
            heads: self.stated.heads(),
            output: self.output,
            precision: match self.precision {
                StoredPrecisionArg::Same => ImportPrecision::Same,
                StoredPrecisionArg::F32 => ImportPrecision::F32,
                StoredPrecisionArg::F16 => ImportPrecision::F16,
            },
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("import")?,
            verbosity,
        })
    }
}

/// The published file and the file that was written.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ImportOutput {
    /// The published file.
    source: Inspection,
    /// The written file, as it was read back.
    written: Inspection,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<ImportOutput>("import")
}

pub(crate) fn run(
    program: &Program,
    args: ImportArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    convert(&program.methods, &args.settings(verbosity)?)?;
    Ok(ExitCode::SUCCESS)
}

fn convert(methods: &Methods, settings: &ImportSettings) -> anyhow::Result<()> {
    let ImportSettings {
        file,
        activation,
        heads,
        output,
        precision,
        existing,
        json,
        verbosity,
    } = settings;
    let output = &existing.place(output)?;
    let mut weights = StateDict::open(file, &methods.key_tables())?;
    if let Some(activation) = activation {
        weights.state_activation(*activation);
    }
    weights.state_heads(*heads);
    warn_of_files(&weights);
    let before = Inspection::of(&weights)?;
    if let Some(architecture) = &before.architecture {
        warn_of_assumed(file, &architecture.assumptions());
    }
    let bar = verbosity.byte_progress("importing");
    let written = import_opened(&weights, output, *precision, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish();
    let files = ImportOutput {
        source: before,
        written,
    };
    write_result(json.as_ref(), &files, || {
        print_result!("{}", describe(&files.source).trim_end())?;
        print_result!(
            "written      {} ({:.0} MB), read back and compared",
            output.display(),
            files.written.bytes as f64 / 1e6
        )
    })
}

/// Describes a file of weights in a few lines.
pub(crate) fn describe(found: &Inspection) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", found.path.display());
    let _ = writeln!(
        text,
        "  format       {}, {:.0} MB",
        found.format,
        found.bytes as f64 / 1e6
    );
    let _ = writeln!(text, "  family       {}", found.family);
    for (part, summary) in &found.parts {
        let _ = writeln!(
            text,
            "  {:<12} {}, {} parameters",
            part_name(*part),
            counted(summary.tensors, "tensor"),
            super::info::grouped(summary.parameters)
        );
    }
    if let Some(architecture) = &found.architecture {
        if let Some(v) = &architecture.vision {
            let _ = writeln!(
                text,
                "  image        patch {}, {} blocks of width {}, {} heads{}, trained on {}×{}",
                v.patch,
                v.layers,
                v.width,
                v.heads,
                assumed(v.heads_basis, v.published_name()),
                v.input_resolution,
                v.input_resolution
            );
        }
        if let Some(t) = &architecture.text {
            let _ = writeln!(
                text,
                "  text         {} blocks of width {}, {} heads{}, {} tokens",
                t.layers,
                t.width,
                t.heads,
                assumed(t.heads_basis, None),
                t.context_length
            );
        }
        let _ = writeln!(
            text,
            "  activation   {}",
            activation(architecture.activation, architecture.activation_basis)
        );
    }
    for name in &found.missing {
        let _ = writeln!(text, "  missing      {name}");
    }
    for key in &found.ignored {
        let _ = writeln!(text, "  ignored      {} ({})", key.key, key.why);
    }
    for key in &found.left_over {
        let _ = writeln!(text, "  left over    {} {:?}", key.key, key.shape);
    }
    text
}

fn part_name(part: WeightsPart) -> &'static str {
    match part {
        WeightsPart::ImageTower => "image tower",
        WeightsPart::TextTower => "text tower",
        WeightsPart::DecodeHead => "decode head",
    }
}

/// Says that a number of heads is assumed, and as in which published tower.
fn assumed(basis: Basis, published: Option<String>) -> String {
    match (basis, published) {
        (Basis::Stated, _) => String::new(),
        (Basis::Assumed, Some(name)) => format!(" (assumed, as in {name})"),
        (Basis::Assumed, None) => " (assumed)".to_owned(),
    }
}

/// Returns the name to display.
pub(crate) fn activation_name(activation: StatedActivation) -> &'static str {
    match activation {
        StatedActivation::QuickGelu => "QuickGELU",
        StatedActivation::Gelu => "GELU",
    }
}

fn activation(activation: StatedActivation, basis: Basis) -> &'static str {
    match (activation, basis) {
        (StatedActivation::QuickGelu, Basis::Assumed) => {
            "QuickGELU, assumed because no file states it (most models trained with open_clip have GELU; put their \
             open_clip_config.json beside the weights)"
        }
        (activation, _) => activation_name(activation),
    }
}
