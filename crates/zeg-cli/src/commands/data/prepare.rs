//! `zeg data prepare`: converts official downloads to the folders that training and scoring read.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering,
};

use clap::Args;
use serde::Serialize;
use zeg::data::{
    is_description,
    prepare::{
        ImagePlacement, Missing, OnBad, Plan, PrepareError, PrepareOptions, SplitImages, Summary,
        plan,
    },
};
use zeg_base::plural::counted;

use crate::{
    commands::{
        JsonTarget,
        json::JsonArgs,
        place::output_folder,
        shared::{heading, thread_count},
        stop_flag, write_result,
    },
    numbers::{count, count_or_zero},
    progress::Verbosity,
    say::StdoutError,
};

/// Arguments of `zeg data prepare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg data prepare voc12 --from downloads -o data/voc12
  zeg data prepare coco-stuff164k --from coco -o data/coco_stuff164k --dry-run

The files of the download are never changed. The same command continues a run that was stopped.")]
pub(super) struct PrepareArgs {
    /// Name of the data set, from `zeg data list`
    dataset: String,
    /// Folder of the unpacked downloads
    #[arg(long, value_name = "DIR", help_heading = heading::DATA)]
    from: PathBuf,
    /// Folder to create
    #[arg(short, long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Link images that need no change to the download, or copy them
    #[arg(long, value_enum, default_value = "link", help_heading = heading::OUTPUT)]
    images: PlacementArg,
    /// Report files that cannot be read at the end, instead of stopping at the first
    #[arg(long, help_heading = heading::DATA)]
    keep_going: bool,
    /// ADE20K-Full only: longest short side of an image, in pixels; larger images are shrunk, 0 shrinks none
    #[arg(long, value_name = "PIXELS", default_value_t = 512, value_parser = count_or_zero, help_heading = heading::DATA)]
    shrink: usize,
    /// Print what would be created, and create nothing
    #[arg(long, help_heading = heading::OUTPUT)]
    dry_run: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Number of CPU threads, at most 4 per core [default: one per core]
    #[arg(long, value_name = "N", env = "ZEG_THREADS", value_parser = count, help_heading = heading::PERFORMANCE)]
    threads: Option<usize>,
}

/// An [`ImagePlacement`] as a value of `--images`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PlacementArg {
    Link,
    Copy,
}

/// Settings of `zeg data prepare`.
#[derive(Debug)]
pub(super) struct PrepareSettings {
    dataset: String,
    /// Folder of the downloads.
    from: PathBuf,
    /// Folder to create.
    output: PathBuf,
    options: PrepareOptions,
    /// Whether to print the plan instead of carrying it out.
    dry_run: bool,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
}

impl PrepareArgs {
    /// # Errors
    /// Returns an error if the file of `--json` may not be written.
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<PrepareSettings> {
        Ok(PrepareSettings {
            dataset: self.dataset,
            from: self.from,
            output: self.output,
            options: PrepareOptions {
                threads: thread_count(self.threads).unwrap_or_else(rayon::current_num_threads),
                images: match self.images {
                    PlacementArg::Link => ImagePlacement::Link,
                    PlacementArg::Copy => ImagePlacement::Copy,
                },
                on_bad: if self.keep_going {
                    OnBad::Report
                } else {
                    OnBad::Stop
                },
                shrink: (self.shrink > 0).then_some(self.shrink),
            },
            dry_run: self.dry_run,
            json: self.json.target("data prepare")?,
            verbosity,
        })
    }
}

/// The outcome of a conversion, or with `--dry-run` its plan.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum PrepareOutput<'a> {
    /// The outcome of a conversion.
    Outcome(&'a Summary),
    /// With `--dry-run`: what would be made.
    Plan(PlanOutput),
}

/// What a conversion would make.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct PlanOutput {
    /// The data set's name.
    dataset: &'static str,
    /// Descriptions of the recognised parts of the download.
    findings: Vec<String>,
    /// Parts of a complete download that this one lacks.
    missing: Vec<Missing>,
    /// Number of images of each split, here and as published.
    splits: Vec<SplitImages>,
    /// Number of files that would be made, not counting lists.
    files: usize,
    /// Lists of ids that would be written, relative to the folder.
    #[serde(serialize_with = "zeg_base::paths::serialize_all")]
    lists: Vec<PathBuf>,
}

impl PlanOutput {
    fn of(plan: &Plan) -> Self {
        Self {
            dataset: plan.name(),
            findings: plan.findings().to_vec(),
            missing: plan.missing().to_vec(),
            splits: plan.splits().to_vec(),
            files: plan.files(),
            lists: plan.lists().map(Path::to_owned).collect(),
        }
    }
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<PrepareOutput<'_>>("data prepare")
}

pub(super) fn prepare(settings: &PrepareSettings) -> anyhow::Result<ExitCode> {
    let plan = plan(&settings.dataset, &settings.from)?;
    if settings.dry_run {
        let output = PrepareOutput::Plan(PlanOutput::of(&plan));
        write_result(settings.json.as_ref(), &output, || print_result!("{plan}"))?;
        return Ok(ExitCode::SUCCESS);
    }
    settings.verbosity.notice(&plan);
    let stop = stop_flag();
    let bar = settings.verbosity.progress("preparing", "files", 0);
    let result = plan.run(&settings.output, &settings.options, &|progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
        if stop.load(Ordering::SeqCst) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    bar.finish();
    let summary = result?;
    let output = PrepareOutput::Outcome(&summary);
    write_result(settings.json.as_ref(), &output, || print(&summary))?;
    Ok(if summary.stopped {
        crate::commands::interrupt::exit_code()
    } else if summary.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(summary: &Summary) -> Result<(), StdoutError> {
    print_result!(
        "{}: {} converted, {} linked, {} copied, {} existed already, {} failed; {}; {:.1} s",
        summary.dataset,
        summary.converted,
        summary.linked,
        summary.copied,
        summary.skipped,
        summary.failed.len(),
        counted(summary.lists, "list"),
        summary.seconds
    )?;
    for failure in &summary.failed {
        print_result!("failed: {}: {}", failure.file.display(), failure.reason)?;
    }
    if summary.stopped {
        print_result!("stopped; the same command continues")?;
    }
    Ok(())
}

/// Returns the hint for an error, if there is one.
pub(crate) fn hint(error: &PrepareError) -> Option<String> {
    Some(match error {
        PrepareError::WouldReplaceSource { .. } => {
            "name another folder with -o; the files of the download are never changed".into()
        }
        PrepareError::Occupied { .. } => {
            "name another folder with -o, or move the file away; no file of yours is replaced"
                .into()
        }
        PrepareError::NotFound { .. } => {
            "name the folder of the unpacked archives with --from".into()
        }
        PrepareError::UnknownDataset { name } if is_description(name) => {
            format!(
                "a data set that a file describes needs no conversion; `zeg data doctor {name}` checks it"
            )
        }
        PrepareError::UnknownDataset { .. } => "`zeg data list` lists the data sets".into(),
        _ => return None,
    })
}
