//! `zeg eval merge`: adds up the parts of a divided evaluation.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use zeg::eval::{Evaluation, record::FILE_NAME};

use crate::{
    commands::{
        JsonTarget,
        json::JsonArgs,
        place::output_folder,
        shared::{Existing, heading},
    },
    progress::Verbosity,
};

/// Arguments of `zeg eval merge`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg eval merge scores/part-* -o scores/coco")]
pub(super) struct MergeArgs {
    /// Folders of all parts, as `zeg eval --shard … -o` wrote them
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Folder for the record of the whole evaluation
    #[arg(short, long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Replace a record that exists
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// Settings of `zeg eval merge`.
#[derive(Debug)]
pub(super) struct MergeSettings {
    parts: Vec<PathBuf>,
    output: PathBuf,
    existing: Existing,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
}

impl MergeArgs {
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<MergeSettings> {
        Ok(MergeSettings {
            parts: self.parts,
            output: self.output,
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("eval merge")?,
            verbosity,
        })
    }
}

/// The error for a folder after `-o` that holds one of the parts.
#[derive(Debug, thiserror::Error)]
#[error("{}: -o is the folder of this part; name another folder for the whole evaluation", .0.display())]
struct OutputIsPart(PathBuf);

/// The gallery files of a part.
struct PartFiles {
    names: Vec<String>,
    /// Folder that holds them.
    folder: PathBuf,
}

/// Adds up the parts and copies the gallery files of the whole evaluation.
pub(super) fn merge(settings: &MergeSettings) -> anyhow::Result<()> {
    let file = settings.output.join(FILE_NAME);
    check_is_no_part(settings)?;
    settings.existing.check(&file)?;
    let parts = settings
        .parts
        .iter()
        .map(Evaluation::open)
        .collect::<Result<Vec<_>, _>>()?;
    warn_of_unverified(&settings.parts, &parts);
    let pairs = settings.parts.iter().zip(&parts);
    let files: Vec<PartFiles> = pairs
        .map(|(path, part)| PartFiles {
            names: gallery_files(part),
            folder: folder_of(path),
        })
        .collect();
    let whole = Evaluation::merge(parts)?;
    let mut copies = Vec::new();
    for name in gallery_files(&whole) {
        if let Some(part) = files.iter().find(|part| part.names.contains(&name)) {
            let to = settings.existing.place(&settings.output.join(&name))?;
            copies.push((part.folder.join(&name), to));
        }
    }
    fs::create_dir_all(&settings.output).with_context(|| settings.output.display().to_string())?;
    for (from, to) in copies {
        fs::copy(&from, &to).with_context(|| from.display().to_string())?;
    }
    whole.save(&settings.output)?;
    settings
        .verbosity
        .notice(format_args!("record: {}", file.display()));
    super::warn_of_ties(std::slice::from_ref(&whole));
    super::show_one(&whole, settings.json.as_ref())
}

/// Checks that the record of the whole does not take the place of one of its parts, even with `--overwrite`.
fn check_is_no_part(settings: &MergeSettings) -> anyhow::Result<()> {
    let Ok(output) = settings.output.join(FILE_NAME).canonicalize() else {
        return Ok(()); // no record is there
    };
    for part in &settings.parts {
        let record = if part.is_dir() {
            part.join(FILE_NAME)
        } else {
            part.clone()
        };
        if record.canonicalize().is_ok_and(|record| record == output) {
            return Err(OutputIsPart(part.clone()).into());
        }
    }
    Ok(())
}

/// Warns if a part does not record how it was read, because an earlier version wrote it.
fn warn_of_unverified(paths: &[PathBuf], parts: &[Evaluation]) {
    let mut pairs = paths.iter().zip(parts);
    if let Some((path, _)) = pairs.find(|(_, part)| part.fingerprint.is_empty()) {
        print_notice!(
            "warning: {}: an earlier version of the program wrote this record without label rule, images and weights, so \
             it could not be verified that all parts have the same; score the parts again to be sure",
            path.display()
        );
    }
}

/// Returns the folder of a record, whose path is either that folder or the file in it.
fn folder_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    path.parent().unwrap_or(Path::new("")).to_owned()
}

/// Returns the names of the files in the gallery.
fn gallery_files(evaluation: &Evaluation) -> Vec<String> {
    let files = evaluation
        .gallery
        .iter()
        .flat_map(|entry| [&entry.image, &entry.truth, &entry.prediction, &entry.error]);
    files.cloned().collect()
}
