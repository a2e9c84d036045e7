//! `zeg import`: published weights of any format to one safetensors file.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use zeg::model::{
    methods::Methods,
    weights::{ImportPrecision, Inspection, StateDict, StatedActivation, WeightsPart, import},
};

use super::{JsonTarget, json::JsonArgs, shared::Existing, write_result};
use crate::{Program, progress::Verbosity};

/// Arguments of `zeg import`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads OpenAI's TorchScript archives, Hugging Face CLIPModel folders' files, open_clip files, and mmcv checkpoints of
ZegCLIP and CLIP-RC; a pickle is read by a reader that can build tensors and nothing else. What was written is read
back and compared. The other commands take all these files directly; importing saves the conversion at every start.

Examples:
  zeg import ViT-B-16.pt -o clip-vit-b-16.safetensors
  zeg import clip-vit-base-patch16/model.safetensors -o clip.safetensors --precision f16
  zeg info ViT-B-16.pt                      (only says what a file is)")]
pub(crate) struct ImportArgs {
    /// The file as it was published
    file: PathBuf,
    /// The safetensors file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How numbers are stored
    #[arg(long, value_enum, default_value = "same")]
    precision: StoredPrecisionArg,
    /// Replace the output if it exists
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// See [`ImportPrecision`].
#[derive(Debug, Clone, Copy, ValueEnum)]
enum StoredPrecisionArg {
    /// As in the source
    Same,
    /// 32 bits
    F32,
    /// 16 bits
    F16,
}

/// What is imported, and to where.
#[derive(Debug)]
struct ImportSettings {
    file: PathBuf,
    output: PathBuf,
    precision: ImportPrecision,
    existing: Existing,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
}

impl ImportArgs {
    /// # Errors
    /// The file of `--json` may not be written.
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<ImportSettings> {
        Ok(ImportSettings {
            file: self.file,
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
        output,
        precision,
        existing,
        json,
        verbosity,
    } = settings;
    existing.check(output)?;
    let tables = methods.key_tables();
    let before = Inspection::of(&StateDict::open(file, &tables)?)?;
    let bar = verbosity.byte_progress("importing");
    let written = import(file, &tables, output, *precision, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })?;
    bar.finish();
    let both = serde_json::json!({ "source": before, "written": written });
    write_result(json.as_ref(), &both, || {
        print!("{}", describe(&before));
        println!(
            "written      {} ({:.0} MB), read back and compared",
            output.display(),
            written.bytes as f64 / 1e6
        );
    })
}

/// A file stands where the result would go.
#[derive(Debug, thiserror::Error)]
#[error("{}: exists", .0.display())]
pub(crate) struct OutputExists(pub(crate) PathBuf);

/// What a weight file is, in words.
pub(crate) fn describe(found: &Inspection) -> String {
    // Writing to a string cannot fail.
    let mut text = String::new();
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
            "  {:<12} {} tensors, {} parameters",
            part_name(*part),
            summary.tensors,
            super::info::grouped(summary.parameters)
        );
    }
    if let Some(architecture) = &found.architecture {
        if let Some(v) = &architecture.vision {
            let _ = writeln!(
                text,
                "  images     patch {}, {} blocks of width {}, {} heads, trained on {}×{}",
                v.patch, v.layers, v.width, v.heads, v.input_resolution, v.input_resolution
            );
        }
        if let Some(t) = &architecture.text {
            let _ = writeln!(
                text,
                "  words        {} blocks of width {}, {} heads, {} tokens",
                t.layers, t.width, t.heads, t.context_length
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

fn activation(activation: StatedActivation, basis: zeg::model::weights::Basis) -> &'static str {
    use zeg::model::weights::Basis;
    match (activation, basis) {
        (StatedActivation::QuickGelu, Basis::Stated) => "QuickGELU",
        (StatedActivation::Gelu, _) => "GELU",
        (StatedActivation::QuickGelu, Basis::Assumed) => {
            "QuickGELU, assumed: no file says so (models trained with open_clip mostly have GELU; put their \
             open_clip_config.json beside the weights)"
        }
    }
}
