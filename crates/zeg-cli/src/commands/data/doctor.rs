//! `zeg data doctor`: a problem is found before training, not after.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use zeg::data::{Diagnosis, DoctorOptions, Selection, Verdict, datasets, examine};

use crate::{
    commands::{JsonTarget, json::JsonArgs, write_result},
    progress::Verbosity,
};

/// Arguments of `zeg data doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg data doctor voc12 --data VOCdevkit/VOC2012
  zeg data doctor kvasir-seg.toml --data Kvasir-SEG --json report.json

Exit code 1 when there is an error, with --strict also when there is a warning.")]
pub(super) struct DoctorArgs {
    /// Data set, as `zeg data list` names it, or the file that describes one's own
    dataset: String,
    /// Its folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Splits to examine, separated by commas [default: train and val, as far as they are there]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    split: Vec<String>,
    /// Class list, such as voc21
    #[arg(long, value_name = "NAME")]
    class_list: Option<String>,
    /// Which classes are unseen: published, none, a split's name, a file, or names with commas
    #[arg(long, value_name = "SPLIT")]
    unseen: Option<String>,
    /// Look only at the first images of each split
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", env = "ZEG_THREADS")]
    threads: Option<usize>,
}

/// What is examined, and what counts as broken.
#[derive(Debug)]
pub(super) struct DoctorSettings {
    dataset: String,
    folder: PathBuf,
    /// Empty: those that experiments use, as far as they are there.
    splits: Vec<String>,
    classes: Option<String>,
    unseen: Option<String>,
    limit: Option<usize>,
    /// Warnings count as errors.
    strict: bool,
    json: Option<JsonTarget>,
    threads: Option<usize>,
    verbosity: Verbosity,
}

impl DoctorArgs {
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<DoctorSettings> {
        Ok(DoctorSettings {
            dataset: self.dataset,
            folder: self.data,
            splits: self.split,
            classes: self.class_list,
            unseen: self.unseen,
            limit: self.limit,
            strict: self.strict,
            json: self.json.target("data doctor")?,
            threads: self.threads,
            verbosity,
        })
    }
}

pub(super) fn doctor(settings: &DoctorSettings) -> anyhow::Result<ExitCode> {
    let mut diagnoses = Vec::new();
    let mut first_error = None;
    let splits = splits(settings);
    for split in &splits {
        let selection = Selection {
            dataset: &settings.dataset,
            root: &settings.folder,
            split,
            classes: settings.classes.as_deref(),
            unseen: settings.unseen.as_deref(),
        };
        let options = DoctorOptions {
            threads: settings.threads.unwrap_or_else(rayon::current_num_threads),
            limit: settings.limit,
        };
        let bar = settings.verbosity.progress("examining", "images", 0);
        bar.set_message(split.clone());
        let result = examine(&selection, &options, &|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        });
        bar.finish();
        match result {
            Ok(diagnosis) => diagnoses.push(diagnosis),
            // Nobody asked for this split by name, and many downloads lack one.
            Err(error) if settings.splits.is_empty() && splits.len() > 1 => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let (true, Some(error)) = (diagnoses.is_empty(), first_error) {
        return Err(error.into());
    }
    let document = serde_json::json!({ "splits": diagnoses });
    write_result(settings.json.as_ref(), &document, || {
        for diagnosis in &diagnoses {
            println!("{}", diagnosis.to_table());
        }
    })?;
    let failed = |diagnosis: &Diagnosis| match diagnosis.verdict() {
        Verdict::Broken => true,
        Verdict::Suspicious => settings.strict,
        Verdict::Healthy => false,
    };
    Ok(if diagnoses.iter().any(failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The splits asked for; else those that experiments use.
fn splits(settings: &DoctorSettings) -> Vec<String> {
    if !settings.splits.is_empty() {
        return settings.splits.clone();
    }
    let entry = datasets::find(&settings.dataset);
    match entry.and_then(datasets::DatasetEntry::usual_splits) {
        Some(usual) => vec![usual.train.to_owned(), usual.val.to_owned()],
        // An unknown data set is refused when its split is opened.
        None => zeg::data::splits(&settings.dataset)
            .unwrap_or_else(|_| vec!["train".to_owned(), "val".to_owned()]),
    }
}
