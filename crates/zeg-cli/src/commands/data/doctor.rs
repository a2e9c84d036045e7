//! `zeg data doctor`: finds the problems of a data set before training does.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;
use zeg::data::{
    Diagnosis, DoctorOptions, Selection, Verdict, datasets, examine, mini_world::DATASET,
};

use super::examples::{self, ExamplesDiagnosis, ExamplesSettings};
use crate::{
    commands::{
        JsonTarget, data_folder,
        json::JsonArgs,
        shared::{heading, thread_count},
        write_result,
    },
    numbers::count,
    progress::Verbosity,
};

/// Arguments of `zeg data doctor`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg data doctor voc12 --data VOCdevkit/VOC2012
  zeg data doctor kvasir-seg.toml --data Kvasir-SEG --json report.json
  zeg data doctor --examples parts

The exit code is 1 if there is an error; with --strict also if there is a warning.")]
pub(super) struct DoctorArgs {
    /// Name from `zeg data list`, or the file that describes your own data set (.toml)
    #[arg(required_unless_present = "examples")]
    dataset: Option<String>,
    /// Check a folder of example images with masks, for --examples of other commands
    #[arg(long, value_name = "DIR", conflicts_with_all = ["dataset", "data", "split", "class_list", "unseen", "limit"],
          help_heading = heading::CLASSES)]
    examples: Option<PathBuf>,
    /// Folder of the data set [default for a file: the folder that it names]
    #[arg(long, value_name = "DIR", help_heading = heading::DATA)]
    data: Option<PathBuf>,
    /// Splits to check, separated by commas [default: those of train and val that exist]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = heading::DATA)]
    split: Vec<String>,
    /// Class list, such as voc21 [default: the data set's]
    #[arg(long, value_name = "NAME", help_heading = heading::CLASSES)]
    class_list: Option<String>,
    /// Unseen classes: `published`, `none`, the name of a split, a file, or class names separated by commas
    #[arg(long, value_name = "SPLIT", help_heading = heading::CLASSES)]
    unseen: Option<String>,
    /// Number of images to check, from the start of each split [default: all]
    #[arg(long, value_name = "N", value_parser = count, help_heading = heading::DATA)]
    limit: Option<usize>,
    /// Treat warnings as errors
    #[arg(long, help_heading = heading::OUTPUT)]
    strict: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Number of CPU threads, at most 4 per core [default: one per core]
    #[arg(long, value_name = "N", env = "ZEG_THREADS", value_parser = count, help_heading = heading::PERFORMANCE)]
    threads: Option<usize>,
}

/// What `zeg data doctor` checks.
pub(super) enum DoctorTask {
    Dataset(DoctorSettings),
    Examples(ExamplesSettings),
}

/// Settings of `zeg data doctor` for a data set.
#[derive(Debug)]
pub(super) struct DoctorSettings {
    dataset: String,
    folder: PathBuf,
    /// Splits to check; empty for those of the usual training and validation splits that exist.
    splits: Vec<String>,
    classes: Option<String>,
    unseen: Option<String>,
    limit: Option<usize>,
    /// Whether warnings count as errors.
    strict: bool,
    json: Option<JsonTarget>,
    threads: Option<usize>,
    verbosity: Verbosity,
}

impl DoctorArgs {
    /// # Errors
    /// Returns an error if the data set has no files or no folder, or if the file of `--json` may not be written.
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<DoctorTask> {
        let dataset = match (self.dataset, self.examples) {
            (Some(dataset), _) => dataset,
            (None, folder) => {
                return Ok(DoctorTask::Examples(ExamplesSettings {
                    folder: folder.unwrap_or_default(),
                    strict: self.strict,
                    json: self.json.target("data doctor")?,
                    verbosity,
                }));
            }
        };
        anyhow::ensure!(
            dataset != DATASET,
            "the data set {DATASET} is rendered on request and has no files to check"
        );
        Ok(DoctorTask::Dataset(DoctorSettings {
            folder: data_folder(self.data.as_deref(), &dataset)?.to_owned(),
            dataset,
            splits: self.split,
            classes: self.class_list,
            unseen: self.unseen,
            limit: self.limit,
            strict: self.strict,
            json: self.json.target("data doctor")?,
            threads: thread_count(self.threads),
            verbosity,
        }))
    }
}

/// What was found in a data set.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DoctorOutput {
    /// One entry per split.
    splits: Vec<Diagnosis>,
    /// What was found in a folder of examples, if one was checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    examples: Option<ExamplesDiagnosis>,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<DoctorOutput>("data doctor")
}

pub(super) fn doctor(task: &DoctorTask) -> anyhow::Result<ExitCode> {
    match task {
        DoctorTask::Dataset(settings) => doctor_of_dataset(settings),
        DoctorTask::Examples(settings) => {
            let found = examples::examine(settings)?;
            let failed = found.fails(settings.strict);
            let output = DoctorOutput {
                splits: Vec::new(),
                examples: Some(found),
            };
            write_result(settings.json.as_ref(), &output, || {
                let found = output.examples.iter();
                found
                    .flat_map(ExamplesDiagnosis::lines)
                    .try_for_each(|line| print_result!("{line}"))
            })?;
            Ok(if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
    }
}

fn doctor_of_dataset(settings: &DoctorSettings) -> anyhow::Result<ExitCode> {
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
            // This split was not asked for, and many downloads lack one of the two.
            Err(error) if settings.splits.is_empty() && splits.len() > 1 => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let (true, Some(error)) = (diagnoses.is_empty(), first_error) {
        return Err(error.into());
    }
    let output = DoctorOutput {
        splits: diagnoses,
        examples: None,
    };
    write_result(settings.json.as_ref(), &output, || {
        for diagnosis in &output.splits {
            print_result!("{}", diagnosis.to_table())?;
        }
        Ok(())
    })?;
    let failed = |diagnosis: &Diagnosis| match diagnosis.verdict() {
        Verdict::Broken => true,
        Verdict::Suspicious => settings.strict,
        Verdict::Healthy => false,
    };
    Ok(if output.splits.iter().any(failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Returns the chosen splits, or else those that experiments use.
fn splits(settings: &DoctorSettings) -> Vec<String> {
    if !settings.splits.is_empty() {
        return settings.splits.clone();
    }
    let entry = datasets::find(&settings.dataset);
    match entry.and_then(datasets::DatasetEntry::usual_splits) {
        Some(usual) => vec![usual.train.to_owned(), usual.val.to_owned()],
        // Opening a split of an unknown data set gives the error.
        None => zeg::data::splits(&settings.dataset)
            .unwrap_or_else(|_| vec!["train".to_owned(), "val".to_owned()]),
    }
}
