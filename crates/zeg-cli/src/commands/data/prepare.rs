//! `zeg data prepare`: from official downloads to what training and scoring read.

use std::{ops::ControlFlow, path::PathBuf, process::ExitCode, sync::atomic::Ordering};

use clap::Args;
use zeg::data::prepare::{ImagePlacement, OnBad, PrepareError, PrepareOptions, Summary, plan};

use crate::{
    commands::{JsonTarget, json::JsonArgs, stop_flag, write_result},
    progress::Verbosity,
};

/// Exit code of a run that the user stopped.
const INTERRUPTED: u8 = 130;

/// Arguments of `zeg data prepare`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg data prepare voc12 --from downloads -o data/voc12
  zeg data prepare coco-stuff164k --from coco -o data/coco_stuff164k --dry-run

No file of the source is ever changed. A run that was stopped goes on where it was; a second run has nothing to do.")]
pub(super) struct PrepareArgs {
    /// Data set, as `zeg data list` names it
    dataset: String,
    /// Folder of the unpacked downloads
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Link images that need no change to the source, or copy them
    #[arg(long, value_enum, default_value = "link")]
    images: PlacementArg,
    /// Report files that cannot be read and go on
    #[arg(long)]
    keep_going: bool,
    /// ADE20K-Full: shrink images whose short side is longer; 0 keeps their size
    #[arg(long, value_name = "PIXELS", default_value_t = 512)]
    shrink: usize,
    /// Say what would be made, and make nothing
    #[arg(long, conflicts_with = "json")]
    dry_run: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Threads [default: all cores]
    #[arg(long, value_name = "N", env = "ZEG_THREADS")]
    threads: Option<usize>,
}

/// See [`Images`].
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PlacementArg {
    Link,
    Copy,
}

/// What is made of what.
#[derive(Debug)]
pub(super) struct PrepareSettings {
    dataset: String,
    /// Folder of the downloads.
    from: PathBuf,
    /// Folder to make.
    output: PathBuf,
    options: PrepareOptions,
    /// Say what would be made, and make nothing.
    dry_run: bool,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
}

impl PrepareArgs {
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<PrepareSettings> {
        Ok(PrepareSettings {
            dataset: self.dataset,
            from: self.from,
            output: self.output,
            options: PrepareOptions {
                threads: self.threads.unwrap_or_else(rayon::current_num_threads),
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

pub(super) fn prepare(settings: &PrepareSettings) -> anyhow::Result<ExitCode> {
    let plan = plan(&settings.dataset, &settings.from)?;
    if settings.dry_run {
        println!("{plan}");
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
    write_result(settings.json.as_ref(), &summary, || print(&summary))?;
    Ok(if summary.stopped {
        ExitCode::from(INTERRUPTED)
    } else if summary.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(summary: &Summary) {
    println!(
        "{}: {} converted, {} linked, {} copied, {} there already, {} failed; {} lists; {:.1} s",
        summary.dataset,
        summary.converted,
        summary.linked,
        summary.copied,
        summary.skipped,
        summary.failed.len(),
        summary.lists,
        summary.seconds
    );
    for failure in &summary.failed {
        println!("failed: {}: {}", failure.file.display(), failure.reason);
    }
    if summary.stopped {
        println!("stopped; the same command goes on");
    }
}

/// The way out of an error, where there is one.
pub(crate) fn hint(error: &PrepareError) -> Option<String> {
    Some(match error {
        PrepareError::WouldReplaceSource { .. } => {
            "name another folder with -o; the download is never changed".into()
        }
        PrepareError::NotFound { .. } => {
            "point --from at the folder that the archives were unpacked into".into()
        }
        PrepareError::UnknownDataset { .. } => "`zeg data list` lists the data sets".into(),
        _ => return None,
    })
}
