//! `zeg eval merge`: the parts of a divided evaluation become one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use zeg::eval::{Evaluation, record::FILE_NAME};

use crate::commands::{JsonTarget, json::JsonArgs, shared::Existing};

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
    #[command(flatten)]
    json: JsonArgs,
}

/// Which parts become one, and where it goes.
#[derive(Debug)]
pub(super) struct MergeSettings {
    parts: Vec<PathBuf>,
    output: PathBuf,
    existing: Existing,
    json: Option<JsonTarget>,
}

impl MergeArgs {
    pub(super) fn settings(self) -> anyhow::Result<MergeSettings> {
        Ok(MergeSettings {
            parts: self.parts,
            output: self.output,
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("eval merge")?,
        })
    }
}

/// The files of a part's gallery, and where they lie.
struct PartFiles {
    names: Vec<String>,
    folder: PathBuf,
}

/// Adds the parts up, and copies their galleries.
pub(super) fn merge(settings: &MergeSettings) -> anyhow::Result<()> {
    let file = settings.output.join(FILE_NAME);
    settings.existing.check(&file)?;
    let parts = settings
        .parts
        .iter()
        .map(Evaluation::open)
        .collect::<Result<Vec<_>, _>>()?;
    let pairs = settings.parts.iter().zip(&parts);
    let files: Vec<PartFiles> = pairs
        .map(|(path, part)| PartFiles {
            names: gallery_files(part),
            folder: folder_of(path),
        })
        .collect();
    let whole = Evaluation::merge(parts)?;
    fs::create_dir_all(&settings.output).with_context(|| settings.output.display().to_string())?;
    for name in gallery_files(&whole) {
        let Some(part) = files.iter().find(|part| part.names.contains(&name)) else {
            continue;
        };
        let (from, to) = (part.folder.join(&name), settings.output.join(&name));
        if from != to {
            fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        }
    }
    whole.save(&settings.output)?;
    eprintln!("record: {}", file.display());
    super::show(&[whole], settings.json.as_ref())
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
    let files = evaluation
        .gallery
        .iter()
        .flat_map(|entry| [&entry.image, &entry.truth, &entry.prediction, &entry.error]);
    files.cloned().collect()
}
