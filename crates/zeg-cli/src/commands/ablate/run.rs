//! Trains and scores the runs of a suite, each in a process of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

use anyhow::Context as _;
use zeg::eval::record::FILE_NAME;
use zeg_train::experiment::Experiment;

use super::{AblateSettings, RunFailed, suite::Row};
use crate::{Program, commands::eval::sweep};

/// Exit code of a run that the user stopped.
const INTERRUPTED: i32 = 130;
/// Name of the folder for the records of a run.
const SCORES: &str = "scores";

/// A run of the suite.
pub(super) struct Run<'a> {
    pub(super) row: &'a Row,
    /// Name for messages.
    pub(super) name: String,
    pub(super) config: PathBuf,
    pub(super) weights: PathBuf,
    pub(super) changes: Vec<String>,
    pub(super) folder: PathBuf,
    pub(super) init: Option<PathBuf>,
    /// Seen offsets to score with; empty for the offset of the experiment.
    pub(super) offsets: Vec<f32>,
}

impl Run<'_> {
    fn model(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }

    /// Returns the folders of the records, one per offset.
    fn records(&self) -> Vec<PathBuf> {
        let scores = self.folder.join(SCORES);
        match &self.offsets[..] {
            [] => vec![scores],
            offsets => offsets
                .iter()
                .map(|&offset| sweep::folder(&scores, offset))
                .collect(),
        }
    }

    /// Returns the folder of the record for an offset; without offsets there is only one.
    pub(super) fn record(&self, offset: f32) -> PathBuf {
        let scores = self.folder.join(SCORES);
        match &self.offsets[..] {
            [] => scores,
            _ => sweep::folder(&scores, offset),
        }
    }

    pub(super) fn is_scored(&self) -> bool {
        let mut records = self.records().into_iter();
        records.all(|record| record.join(FILE_NAME).is_file())
    }

    /// Returns how far the run is: `scored`, `trained`, `begun` or `left`.
    pub(super) fn state(&self) -> &'static str {
        if self.is_scored() {
            "scored"
        } else if self.model().is_file() {
            "trained"
        } else if self.folder.join("run.json").is_file() {
            "begun"
        } else {
            "left"
        }
    }

    /// Checks that the settings are consistent and that an earlier run in the folder had the same ones.
    fn check(&self, program: &Program) -> anyhow::Result<()> {
        let experiment = crate::commands::open_experiment(program, &self.config, &self.changes)?;
        let manifest = self.folder.join("run.json");
        let Ok(text) = std::fs::read_to_string(&manifest) else {
            return Ok(());
        };
        let manifest_json: serde_json::Value =
            serde_json::from_str(&text).with_context(|| manifest.display().to_string())?;
        let before: Experiment = serde_json::from_value(manifest_json["experiment"].clone())
            .with_context(|| manifest.display().to_string())?;
        anyhow::ensure!(
            before == experiment,
            "{} holds a run with other settings; choose another folder with -o",
            self.folder.display()
        );
        Ok(())
    }

    /// Trains the model, or continues its training; returns an exit code if the user stopped it.
    fn train(&self, settings: &AblateSettings) -> anyhow::Result<Option<ExitCode>> {
        let mut command = zeg("train")?;
        command.arg(&self.config);
        for change in &self.changes {
            command.args(["--set", change]);
        }
        if let Some(data) = &settings.data {
            command.arg("--data").arg(data);
        }
        command.arg("--weights").arg(&self.weights);
        if let Some(text) = &settings.text {
            command.arg("--text").arg(text);
        }
        if let Some(init) = &self.init {
            command.arg("--init").arg(init);
        }
        // Rows with the same frozen encoder and seed share the encoded images.
        let features = settings.output.join("features");
        command.arg("--feature-cache").arg(features);
        command.arg("--output").arg(&self.folder).arg("--resume");
        add_common_arguments(&mut command, settings);
        wait("train", &self.folder, command)
    }
}

/// Checks the settings of all runs, so that a mistake shows before the first run starts.
pub(super) fn check_all(program: &Program, runs: &[Run], suite: &Path) -> anyhow::Result<()> {
    for run in runs {
        run.check(program)
            .with_context(|| format!("row {:?} of {}", run.row.name, suite.display()))?;
    }
    Ok(())
}

/// Trains the runs that have no model; returns an exit code if the user stopped it.
pub(super) fn train_all(
    runs: &[Run],
    settings: &AblateSettings,
) -> anyhow::Result<Option<ExitCode>> {
    let mut left: Vec<&Run> = runs.iter().filter(|run| !run.model().is_file()).collect();
    let count = left.len();
    let started = AtomicUsize::new(0);
    while !left.is_empty() {
        // A run that starts from the weights of another row waits for that row, which stands above it in the suite.
        let folders: Vec<&PathBuf> = left.iter().map(|run| &run.folder).collect();
        let waits = |run: &&Run| {
            let init = run.init.as_ref();
            init.is_some_and(|init| folders.iter().any(|folder| init.starts_with(folder)))
        };
        let (waiting, ready): (Vec<&Run>, Vec<&Run>) = left.iter().partition(|run| waits(run));
        left = waiting;
        let code = side_by_side(settings.jobs, &ready, |run| {
            let number = started.fetch_add(1, Ordering::Relaxed) + 1;
            settings
                .verbosity
                .notice(format_args!("run {number} of {count}: {}", run.name));
            run.train(settings)
        })?;
        if code.is_some() {
            return Ok(code.inspect(|_| stopped(settings)));
        }
    }
    Ok(None)
}

/// Calls `work` for every item, several at the same time; an error or an exit code ends it.
///
/// - `jobs`: number of items at the same time
pub(in crate::commands) fn side_by_side<T: Sync>(
    jobs: usize,
    items: &[T],
    work: impl Fn(&T) -> anyhow::Result<Option<ExitCode>> + Sync,
) -> anyhow::Result<Option<ExitCode>> {
    let next = AtomicUsize::new(0);
    let (sender, results) = channel();
    let worker = |sender: Sender<anyhow::Result<Option<ExitCode>>>| {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = work(item);
            let is_last = !matches!(result, Ok(None));
            if is_last {
                next.fetch_add(items.len(), Ordering::Relaxed); // the other workers start no further item
            }
            // Sending cannot fail: the receiver lives until all workers have ended.
            let _ = sender.send(result);
            if is_last {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, items.len().max(1)) {
            let sender = sender.clone();
            scope.spawn(|| worker(sender));
        }
    });
    drop(sender);
    let mut code = None;
    for result in results {
        code = result?.or(code);
    }
    Ok(code)
}

/// Adds the arguments that every process of a suite gets: one thread each if several run at once.
fn add_common_arguments(command: &mut Command, settings: &AblateSettings) {
    if settings.jobs > 1 {
        command.args(["--threads", "1"]);
    }
    command.args(settings.verbosity.flag());
}

/// Scores the runs that have no scores; returns an exit code if the user stopped it.
///
/// Models with the same offsets and weights are scored in one process, which encodes each image once for all models
/// with the same frozen encoder.
pub(super) fn score_all(
    runs: &[Run],
    settings: &AblateSettings,
) -> anyhow::Result<Option<ExitCode>> {
    let mut left: Vec<&Run> = runs.iter().filter(|run| !run.is_scored()).collect();
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    while let Some(first) = left.first().copied() {
        let alike = |run: &&Run| run.offsets == first.offsets && run.weights == first.weights;
        let (now, later): (Vec<&Run>, Vec<&Run>) = left.into_iter().partition(alike);
        let part = now.len().div_ceil(settings.jobs.max(1));
        groups.extend(now.chunks(part).map(<[&Run]>::to_vec));
        left = later;
    }
    let code = side_by_side(settings.jobs, &groups, |runs| score(settings, runs))?;
    Ok(code.inspect(|_| stopped(settings)))
}

fn score(settings: &AblateSettings, runs: &[&Run]) -> anyhow::Result<Option<ExitCode>> {
    let Some(first) = runs.first() else {
        return Ok(None);
    };
    settings
        .verbosity
        .notice(format_args!("scoring {} models", runs.len()));
    let mut command = zeg("eval")?;
    command.args(runs.iter().map(|run| run.model()));
    if let Some(data) = &settings.data {
        command.arg("--data").arg(data);
    }
    command.arg("--weights").arg(&first.weights);
    command.args(["--in-runs", SCORES, "--gallery", "0", "--overwrite"]);
    if !first.offsets.is_empty() {
        let offsets: Vec<String> = first.offsets.iter().map(ToString::to_string).collect();
        command.arg(format!("--seen-offsets={}", offsets.join(",")));
    }
    add_common_arguments(&mut command, settings);
    wait("eval", &settings.output, command)
}

/// Waits for a process; returns an exit code if the user stopped it.
fn wait(
    what: &'static str,
    folder: &Path,
    mut command: Command,
) -> anyhow::Result<Option<ExitCode>> {
    let status = command
        .stdout(std::process::Stdio::null())
        .status()
        .context("starting a process of this program")?;
    match status.code() {
        Some(0) => Ok(None),
        Some(INTERRUPTED) | None => Ok(Some(ExitCode::from(INTERRUPTED as u8))),
        Some(code) => Err(RunFailed {
            what,
            folder: folder.to_owned(),
            code,
        }
        .into()),
    }
}

/// Says how to go on after the user stopped the suite.
fn stopped(settings: &AblateSettings) {
    settings
        .verbosity
        .notice("stopped; the same command continues the suite");
}

/// Returns a process of this program with the name of a command.
fn zeg(command: &str) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut process = Command::new(program);
    process.arg(command);
    Ok(process)
}
