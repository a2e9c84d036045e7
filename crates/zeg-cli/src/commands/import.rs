//! `zeg import`: published weights of any format to one safetensors file.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use zeg::model::{
    key_tables::METHODS,
    weights::{ImportPrecision, Inspection, StateDict, StatedActivation, WeightsPart, import},
};

use crate::progress;

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
    pub(crate) file: PathBuf,
    /// The safetensors file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// How numbers are stored
    #[arg(long, value_enum, default_value = "same")]
    pub(crate) precision: PrecisionArg,
    /// Replace the output if it exists
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// See [`ImportPrecision`].
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// As in the source
    Same,
    /// 32 bits
    F32,
    /// 16 bits
    F16,
}

pub(crate) fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    if args.output.exists() && !args.overwrite {
        return Err(OutputExists(args.output.clone()).into());
    }
    let precision = match args.precision {
        PrecisionArg::Same => ImportPrecision::Same,
        PrecisionArg::F32 => ImportPrecision::F32,
        PrecisionArg::F16 => ImportPrecision::F16,
    };
    let before = Inspection::of(&StateDict::open(&args.file, METHODS)?)?;
    let bar = progress::bytes("importing");
    let written = import(
        &args.file,
        METHODS,
        &args.output,
        precision,
        &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
    )?;
    bar.finish_and_clear();
    if args.json {
        let both = serde_json::json!({ "source": before, "written": written });
        println!("{}", serde_json::to_string_pretty(&both)?);
    } else {
        print!("{}", describe(&before));
        println!(
            "written      {} ({:.0} MB), read back and compared",
            args.output.display(),
            written.bytes as f64 / 1e6
        );
    }
    Ok(ExitCode::SUCCESS)
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
                "  pictures     patch {}, {} blocks of width {}, {} heads, trained on {}×{}",
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
