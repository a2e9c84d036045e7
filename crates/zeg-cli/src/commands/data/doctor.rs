//! `zeg data doctor`: a problem is found before training, not after.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use zeg::data::{Diagnosis, DoctorOptions, Selection, Verdict, datasets, examine};

use crate::{commands::JsonTarget, progress};

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
    word_list: Option<String>,
    /// Which classes are unseen: published, none, a split's name, a file, or names with commas
    #[arg(long, value_name = "SPLIT")]
    unseen: Option<String>,
    /// Look only at the first pictures of each split
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
    /// Write what was found as JSON; `-` writes it to standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", env = "ZEG_THREADS")]
    threads: Option<usize>,
}

pub(super) fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let mut diagnoses = Vec::new();
    let mut first_error = None;
    let splits = splits(args);
    for split in &splits {
        let selection = Selection {
            dataset: &args.dataset,
            root: &args.data,
            split,
            classes: args.word_list.as_deref(),
            unseen: args.unseen.as_deref(),
        };
        let options = DoctorOptions {
            threads: args.threads.unwrap_or_else(rayon::current_num_threads),
            limit: args.limit,
        };
        let bar = progress::bar(0, "examining");
        bar.set_message(split.clone());
        let result = examine(&selection, &options, &|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        });
        bar.finish_and_clear();
        match result {
            Ok(diagnosis) => diagnoses.push(diagnosis),
            // Nobody asked for this split by name, and many downloads lack one.
            Err(error) if args.split.is_empty() && splits.len() > 1 => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let (true, Some(error)) = (diagnoses.is_empty(), first_error) {
        return Err(error.into());
    }
    show(args, &diagnoses)?;
    let failed = |diagnosis: &Diagnosis| match diagnosis.verdict() {
        Verdict::Broken => true,
        Verdict::Suspicious => args.strict,
        Verdict::Healthy => false,
    };
    Ok(if diagnoses.iter().any(failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn show(args: &DoctorArgs, diagnoses: &[Diagnosis]) -> anyhow::Result<()> {
    let target = args.json.as_deref().map(JsonTarget::new);
    if let Some(target) = &target {
        target.write(&diagnoses)?;
    }
    if !matches!(target, Some(JsonTarget::Stdout)) {
        for diagnosis in diagnoses {
            println!("{}", diagnosis.to_table());
        }
    }
    Ok(())
}

/// The splits asked for; else those that experiments use.
fn splits(args: &DoctorArgs) -> Vec<String> {
    if !args.split.is_empty() {
        return args.split.clone();
    }
    let entry = datasets::find(&args.dataset);
    match entry.and_then(datasets::DatasetEntry::usual_splits) {
        Some(usual) => vec![usual.train.to_owned(), usual.val.to_owned()],
        // An unknown data set is refused when its split is opened.
        None => zeg::data::splits(&args.dataset)
            .unwrap_or_else(|_| vec!["train".to_owned(), "val".to_owned()]),
    }
}
