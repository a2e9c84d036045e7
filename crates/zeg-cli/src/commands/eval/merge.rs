//! `zeg eval merge`: the parts of a divided evaluation become one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use zeg::eval::{Evaluation, record::FILE_NAME};

use crate::commands::import::OutputExists;

/// Arguments of `zeg eval merge`.
#[derive(Debug, Args)]
pub(super) struct MergeArgs {
    /// Folders that `zeg eval --shard … -o` wrote, every part once
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Folder for the whole
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Replace a record that exists
    #[arg(long)]
    overwrite: bool,
    /// Write the scores as JSON; `-` writes them to standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(super) fn run(args: &MergeArgs) -> anyhow::Result<ExitCode> {
    let file = args.output.join(FILE_NAME);
    if file.exists() && !args.overwrite {
        return Err(OutputExists(file).into());
    }
    let parts = args
        .parts
        .iter()
        .map(Evaluation::open)
        .collect::<Result<Vec<_>, _>>()?;
    let folders: Vec<(Vec<String>, PathBuf)> = args
        .parts
        .iter()
        .zip(&parts)
        .map(|(path, part)| (gallery_files(part), folder_of(path)))
        .collect();
    let whole = Evaluation::merge(parts)?;
    fs::create_dir_all(&args.output).with_context(|| args.output.display().to_string())?;
    for name in gallery_files(&whole) {
        let Some((_, folder)) = folders.iter().find(|(files, _)| files.contains(&name)) else {
            continue;
        };
        let (from, to) = (folder.join(&name), args.output.join(&name));
        if from != to {
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
    }
    whole.save(&args.output)?;
    eprintln!("record: {}", file.display());
    super::show(&[whole], args.json.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// The folder of a record that is named by its folder or by itself.
fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    path.parent().unwrap_or(Path::new("")).to_owned()
}

/// Files of the gallery, by name.
fn gallery_files(evaluation: &Evaluation) -> Vec<String> {
    let files = evaluation.gallery.iter().flat_map(|entry| {
        [
            &entry.picture,
            &entry.truth,
            &entry.prediction,
            &entry.error,
        ]
    });
    files.cloned().collect()
}
