//! `zeg quickstart`: zero-shot segmentation from end to end in minutes, from what is in the program alone.
//!
//! It runs the commands that a user would type and shows them: trainings of several methods on masks of the mini
//! world's seen classes from the embedded MiniCLIP, scores on seen and unseen classes, a few images segmented by the
//! best method, and a page that compares the methods.

mod page;
mod plan;
mod runs;

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Mutex,
    time::Instant,
};
use zeg_base::plural::counted;

use anyhow::Context as _;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use self::{
    page::{PageContent, TestImages, percent},
    plan::{PlannedMethod, QuickstartPlan},
    runs::{QuickstartRun, RunScores, run_process},
};
use super::{
    JsonTarget,
    ablate::run::side_by_side,
    children::Children,
    json::{self, JsonArgs},
    place::output_folder,
    run_files::claim_folder,
    shared::{Existing, heading, thread_count},
    write_result,
};
use crate::{
    Program,
    numbers::{count, count_u64, seed},
    progress::Verbosity,
};

/// Folders and files that a quickstart makes in its output folder.
const MADE: [&str; 7] = [
    "runs",
    "scores",
    "images",
    "segmented",
    "reports",
    "page",
    "logs",
];
/// File by which a quickstart recognises its folder.
const MARKER: &str = "quickstart.json";

/// Arguments of `zeg quickstart`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg quickstart
  zeg quickstart -o elsewhere --seed 1 --json scores.json

Everything it does is a command of this program, which it prints before running it.")]
pub(crate) struct QuickstartArgs {
    /// Folder for everything that it makes
    #[arg(short, long, value_name = "DIR", default_value = "quickstart", value_parser = output_folder(),
          help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Seed for initialisation, data order and dropout
    #[arg(long, value_name = "SEED", default_value_t = 0, value_parser = seed)]
    seed: u64,
    /// Steps of each training [default: those of its experiment]
    #[arg(long, value_name = "N", value_parser = count_u64)]
    steps: Option<u64>,
    /// Test images to score [default: 400]
    #[arg(long, value_name = "N", value_parser = count)]
    limit: Option<usize>,
    /// Replace what an earlier quickstart left in the folder
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
    /// Threads for computing [default: all cores]
    #[arg(long, value_name = "N", env = "ZEG_THREADS", value_parser = count, help_heading = heading::PERFORMANCE)]
    threads: Option<usize>,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<QuickstartSummary>("quickstart")
}

/// The result of a quickstart.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct QuickstartSummary {
    /// Seconds for everything.
    seconds: f64,
    /// Number of threads.
    threads: usize,
    /// Seed for initialisation, data order and dropout.
    seed: u64,
    /// Name of the method with the best scores.
    best: String,
    /// Scores of each method on each split.
    runs: Vec<RunScores>,
    /// The page that compares them.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    page: PathBuf,
    /// Detailed reports, one a split.
    #[serde(serialize_with = "zeg_base::paths::serialize_all")]
    reports: Vec<PathBuf>,
}

/// How large the quickstart is, and where it goes.
#[derive(Debug)]
struct QuickstartSettings {
    output: PathBuf,
    seed: u64,
    /// Steps of each training; without, those of its experiment.
    steps: Option<u64>,
    /// Images to score; without, all test images.
    limit: Option<usize>,
    existing: Existing,
    json: Option<JsonTarget>,
    threads: usize,
    verbosity: Verbosity,
}

impl QuickstartArgs {
    /// # Errors
    /// Returns an error if the file of `--json` may not be written.
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<QuickstartSettings> {
        Ok(QuickstartSettings {
            output: self.output,
            seed: self.seed,
            steps: self.steps,
            limit: self.limit,
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("quickstart")?,
            threads: thread_count(self.threads).unwrap_or_else(rayon::current_num_threads),
            verbosity,
        })
    }
}

impl QuickstartSettings {
    /// Returns the place of a method's experiment file.
    fn experiment_file(&self, method: &PlannedMethod) -> PathBuf {
        self.output.join(format!("{}.toml", method.name))
    }
}

pub(crate) fn run(
    _program: &Program,
    args: QuickstartArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    quickstart(&args.settings(verbosity)?)
}

fn quickstart(settings: &QuickstartSettings) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let plan = QuickstartPlan::load()?;
    let children = Children::new();
    let _lock = claim_folder(&settings.output)?;
    for run in planned_runs(settings, &children, &plan) {
        children.wait_for_folder(&run.folder())?;
    }
    clear(settings, &plan)?;
    for folder in ["logs", "runs", "scores"] {
        let folder = settings.output.join(folder);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    for method in &plan.methods {
        Existing::Replace.write(&settings.experiment_file(method), method.experiment()?)?;
    }
    let titles: Vec<&str> = plan.methods.iter().map(|m| m.title.as_str()).collect();
    settings.verbosity.notice(format_args!(
        "MiniCLIP, a part of this program, was pre-trained on captions of all colours and textures. Each training now\n\
         sees masks of 15 classes and is scored on these and on 5 that it never sees a mask of.\n\
         Methods: {}; {} choices of the 5 classes.",
        titles.join(", "),
        plan.splits.len()
    ));
    let runs = planned_runs(settings, &children, &plan);
    let scores = Mutex::new(Vec::new());
    let jobs = settings.threads.clamp(1, runs.len());
    let code = side_by_side(jobs, &runs, |run| {
        Ok(match run.carry_out()? {
            Ok(done) => {
                settings.verbosity.notice(done_line(&done));
                scores
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .push(done);
                None
            }
            Err(code) => Some(code),
        })
    })?;
    if code.is_some() {
        settings
            .verbosity
            .notice("stopped; with --overwrite the same command starts anew");
        return Ok(json::stopped(settings.json.as_ref()));
    }
    let mut scores = scores
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let position = |score: &RunScores| {
        let method = plan.methods.iter().position(|m| m.name == score.method);
        (method, score.split)
    };
    scores.sort_by_key(position);
    let Ok(summary) = show(settings, &children, &plan, scores, started)? else {
        return Ok(json::stopped(settings.json.as_ref()));
    };
    write_result(settings.json.as_ref(), &summary, || {
        print_result!("{}", summary.to_text())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Removes what an earlier quickstart left, if that is allowed, and marks the folder as a quickstart's.
///
/// Nothing is removed or replaced in a folder without the marker: it was not made by a quickstart.
fn clear(settings: &QuickstartSettings, plan: &QuickstartPlan) -> anyhow::Result<()> {
    let marker = settings.output.join(MARKER);
    let folders = MADE.map(|name| settings.output.join(name));
    let experiments = plan.methods.iter().map(|m| settings.experiment_file(m));
    let files = experiments.chain([settings.output.join(page::FILE_NAME)]);
    let files: Vec<PathBuf> = files.chain([marker.clone()]).collect();
    let mut made = folders.iter().chain(&files);
    if let Some(path) = made.find(|path| path.symlink_metadata().is_ok()) {
        anyhow::ensure!(
            marker.is_file(),
            "{} was not made by a quickstart ({} does not exist); choose another folder with -o",
            path.display(),
            marker.display()
        );
    }
    for folder in &folders {
        settings.existing.check_removal(folder)?;
    }
    for file in &files {
        settings.existing.place(file)?;
    }
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    fs::create_dir_all(&settings.output).with_context(|| settings.output.display().to_string())?;
    let about = serde_json::json!({
        "made_by": concat!("zeg quickstart ", env!("CARGO_PKG_VERSION")),
        "note": "zeg quickstart --overwrite removes the folders beside this file",
        "folders": MADE,
    });
    Existing::Replace.write(&marker, format!("{about:#}\n"))
}

/// Returns the trainings, the longest first, with the threads shared among those that run at a time.
fn planned_runs<'a>(
    settings: &'a QuickstartSettings,
    children: &'a Children,
    plan: &'a QuickstartPlan,
) -> Vec<QuickstartRun<'a>> {
    let count = plan.methods.len() * plan.splits.len();
    let threads = (settings.threads / settings.threads.clamp(1, count)).max(1);
    let run = |method, split| QuickstartRun {
        settings,
        children,
        method,
        split,
        threads,
    };
    let methods = plan.methods.iter();
    methods
        .flat_map(|method| plan.splits.iter().map(move |&split| run(method, split)))
        .collect()
}

fn done_line(done: &RunScores) -> String {
    format!(
        "{}, split {}: mIoU(U) {}, mIoU(S) {}, hIoU {}; trained in {:.0} s",
        done.title,
        done.split,
        percent(done.miou_unseen),
        percent(done.miou_seen),
        percent(done.hiou),
        done.train_seconds
    )
}

/// Segments images with the best method and writes the pages; returns the exit code if the user interrupted it.
fn show(
    settings: &QuickstartSettings,
    children: &Children,
    plan: &QuickstartPlan,
    scores: Vec<RunScores>,
    started: Instant,
) -> anyhow::Result<Result<QuickstartSummary, ExitCode>> {
    let best = best_method(plan, &scores)?;
    let split = plan.splits.first().copied().unwrap_or(0);
    let images = TestImages::write(settings.output.join("images"), split)?;
    let predictions = settings.output.join("segmented");
    let model = scores
        .iter()
        .find(|score| score.method == best.name && score.split == split)
        .map(|score| score.model.clone())
        .unwrap_or_default();
    let mut command = Command::new("zeg");
    command.arg("segment").arg(&images.folder);
    command.arg("--model").arg(model);
    command.args(["--classes", &images.class_names().join(", ")]);
    // Every pixel gets a class, as in the scores.
    command.args(["--threshold", "0", "--write", "labels,overlay,html"]);
    command.arg("-o").arg(&predictions);
    command.args(["--threads", &settings.threads.to_string()]);
    if let Some(code) = run_process(command, settings, children, "segment")? {
        return Ok(Err(code));
    }
    let mut reports = Vec::new();
    for &split in &plan.splits {
        let folder = settings
            .output
            .join("reports")
            .join(format!("split-{split}"));
        let mut command = Command::new("zeg");
        command.arg("report");
        command.args(
            scores
                .iter()
                .filter(|s| s.split == split)
                .map(|s| &s.scores),
        );
        let title = format!(
            "Quickstart, split {split}: {} methods compared",
            plan.methods.len()
        );
        command.args(["--title", &title, "-o"]).arg(&folder);
        if let Some(code) = run_process(
            command,
            settings,
            children,
            &format!("report-split-{split}"),
        )? {
            return Ok(Err(code));
        }
        reports.push(folder.join("report.html"));
    }
    let seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    let page = page::write(
        &settings.output,
        &PageContent {
            best,
            methods: &plan.methods,
            splits: &plan.splits,
            scores: &scores,
            images: &images,
            predictions: &predictions,
            reports: &reports,
            seconds,
            threads: settings.threads,
        },
    )?;
    Ok(Ok(QuickstartSummary {
        seconds,
        threads: settings.threads,
        seed: settings.seed,
        best: best.title.clone(),
        runs: scores,
        page,
        reports,
    }))
}

/// Returns the method with the highest hIoU on its worst split.
fn best_method<'a>(
    plan: &'a QuickstartPlan,
    scores: &[RunScores],
) -> anyhow::Result<&'a PlannedMethod> {
    let worst = |method: &PlannedMethod| {
        let of = scores.iter().filter(|score| score.method == method.name);
        of.map(|score| score.hiou.unwrap_or(0.0))
            .fold(f64::INFINITY, f64::min)
    };
    plan.methods
        .iter()
        .max_by(|a, b| worst(a).total_cmp(&worst(b)))
        .context("the plan names no method")
}

impl QuickstartSummary {
    /// Returns the scores as a table, and where to look.
    fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "split", "mIoU(U)", "mIoU(S)", "hIoU", "training"]);
        for score in &self.runs {
            table.add_row([
                score.title.clone(),
                score.split.to_string(),
                percent(score.miou_unseen),
                percent(score.miou_seen),
                percent(score.hiou),
                format!("{:.0} s", score.train_seconds),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!(
            "\n{table}\nmIoU in percent: (U) of 5 classes without a mask in training, (S) of 15 with masks; hIoU is their \
             harmonic mean.\nBest: {}. Everything took {:.0} s on {}. Open {}.",
            self.best,
            self.seconds,
            counted(self.threads, "thread"),
            self.page.display(),
        )
    }
}
