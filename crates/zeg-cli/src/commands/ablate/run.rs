//! Trains and scores the runs of a suite, each in a process of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
};

use anyhow::Context as _;
use zeg::eval::{Evaluation, record::FILE_NAME};
use zeg_base::fingerprint::{Fingerprint, Mismatch};
use zeg_base::plural::counted;

use super::{
    AblateSettings, RunFailed,
    facts::Facts,
    suite::{Row, Variant},
};
use crate::{
    Program,
    commands::{
        children::{Children, Ended},
        eval::sweep,
        interrupt,
        train::{BegunRun, is_begun},
    },
};

/// Name of the folder for the records of a run.
const SCORES: &str = "scores";

/// A run of the suite.
pub(super) struct Run<'a> {
    pub(super) row: &'a Row,
    /// Variant of the suite; `None` if it has none.
    pub(super) variant: Option<&'a Variant>,
    /// Name for messages.
    pub(super) name: String,
    pub(super) config: PathBuf,
    pub(super) weights: PathBuf,
    pub(super) changes: Vec<String>,
    pub(super) folder: PathBuf,
    pub(super) init: Option<PathBuf>,
    /// Seen offsets to score with; empty for the offset of the experiment.
    pub(super) offsets: Vec<f32>,
    /// What the images that are scored follow from now, found by [`check_all`]; empty if it is not known.
    pub(super) scored_on: Fingerprint,
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

    /// Whether there are scores, perhaps of an earlier state of the data set.
    pub(super) fn has_scores(&self) -> bool {
        let mut records = self.records().into_iter();
        records.all(|record| record.join(FILE_NAME).is_file())
    }

    /// Whether there are scores of the images and labels that are there now.
    pub(super) fn is_scored(&self) -> bool {
        self.has_scores() && self.check_scores().is_ok()
    }

    /// Checks that the scores are of the images and labels that are there now, as far as the records state it.
    fn check_scores(&self) -> anyhow::Result<()> {
        for record in self.records() {
            Evaluation::open(record)?
                .fingerprint
                .check(&self.scored_on)?;
        }
        Ok(())
    }

    /// Returns how far the run is: `scored`, `trained`, `begun` or `left`.
    pub(super) fn state(&self) -> &'static str {
        if self.is_scored() {
            "scored"
        } else if self.model().is_file() {
            "trained"
        } else if is_begun(&self.folder) {
            "begun"
        } else {
            "left"
        }
    }

    /// Checks that the settings are consistent and that an earlier run in the folder had the same ones, the same labels
    /// and the same weights.
    fn check(&mut self, program: &Program, facts: &mut Facts) -> anyhow::Result<()> {
        let experiment = crate::commands::open_experiment(program, &self.config, &self.changes)?;
        if self.has_scores() {
            self.scored_on = facts.of_scores(&experiment);
            if let Err(error) = self.check_scores() {
                print_notice!(
                    "warning: {}: its scores are of other images, labels or classes, so it is scored again: {error}",
                    self.folder.display()
                );
            }
        }
        let folder = self.folder.display();
        let Some(before) = BegunRun::open(&self.folder)? else {
            anyhow::ensure!(
                !self.model().exists(),
                "{folder} holds a model without the run.json of its run; choose another folder with -o"
            );
            return Ok(());
        };
        anyhow::ensure!(
            before.is_of(&experiment),
            "{folder} holds a run with other settings; choose another folder with -o"
        );
        // Earlier versions wrote no fingerprint, but the digest of the weights.
        let mut then = before.fingerprint;
        if let Some(weights) = before.weights.filter(|_| then.is_empty()) {
            then = then.with("weights: SHA-256", weights.sha256);
        }
        if then.is_empty() {
            return Ok(());
        }
        let now = facts.of(&experiment, &self.weights);
        then.check(&now).map_err(|mismatch| {
            OtherRun {
                folder: self.folder.clone(),
                mismatch,
            }
            .into()
        })
    }

    /// Trains the model, or continues its training; returns an exit code if the user stopped it.
    fn train(
        &self,
        settings: &AblateSettings,
        children: &Children,
    ) -> anyhow::Result<Option<ExitCode>> {
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
        command.args(&settings.train_arguments);
        if let Some(init) = &self.init {
            command.arg("--init").arg(init);
        }
        // Rows with the same frozen encoder and seed share the encoded images.
        command.arg("--feature-cache").arg(settings.features());
        command.arg("--output").arg(&self.folder);
        if is_begun(&self.folder) {
            command.arg("--resume");
        }
        add_common_arguments(&mut command, settings);
        wait(children, "train", &self.folder, command)
    }
}

/// The error for a run that was trained on other labels, images or weights than those that the suite has now.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} holds a run that was trained on other data or weights: {mismatch}; choose another folder with -o",
    folder.display()
)]
struct OtherRun {
    folder: PathBuf,
    mismatch: Mismatch,
}

/// Checks the settings of all runs, so that a mistake shows before the first run starts, and finds out which of them
/// have scores of the images and labels that are there now.
pub(super) fn check_all(
    program: &Program,
    runs: &mut [Run],
    settings: &AblateSettings,
) -> anyhow::Result<()> {
    let mut facts = Facts::new(settings);
    for run in runs {
        run.check(program, &mut facts)
            .with_context(|| format!("row {:?} of {}", run.row.name, settings.suite.display()))?;
    }
    Ok(())
}

/// Waits until no process of a suite that was killed uses the folders, and removes what was left in them.
pub(super) fn settle(runs: &[Run], children: &Children) -> anyhow::Result<()> {
    for run in runs {
        children.wait_for_folder(&run.folder)?;
        children.wait_for_folder(&run.folder.join(SCORES))?;
    }
    Ok(())
}

/// Trains the runs that have no model; returns an exit code if the user stopped it.
pub(super) fn train_all(
    runs: &[Run],
    settings: &AblateSettings,
    children: &Children,
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
            run.train(settings, children)
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
/// Models of a variant with the same offsets and weights are scored in one process, which encodes each image once for
/// all models with the same frozen encoder. Variants may differ in data and classes, and then their scores cannot be
/// compared with each other.
pub(super) fn score_all(
    runs: &[Run],
    settings: &AblateSettings,
    children: &Children,
) -> anyhow::Result<Option<ExitCode>> {
    let mut left: Vec<&Run> = runs.iter().filter(|run| !run.is_scored()).collect();
    let mut groups: Vec<Vec<&Run>> = Vec::new();
    while let Some(first) = left.first().copied() {
        let variant = |run: &Run| run.variant.map(|variant| variant.name.clone());
        let alike = |run: &&Run| {
            run.offsets == first.offsets
                && run.weights == first.weights
                && variant(run) == variant(first)
        };
        let (now, later): (Vec<&Run>, Vec<&Run>) = left.into_iter().partition(alike);
        let part = now.len().div_ceil(settings.jobs.max(1));
        groups.extend(now.chunks(part).map(<[&Run]>::to_vec));
        left = later;
    }
    let code = side_by_side(settings.jobs, &groups, |runs| {
        score(settings, children, runs)
    })?;
    Ok(code.inspect(|_| stopped(settings)))
}

fn score(
    settings: &AblateSettings,
    children: &Children,
    runs: &[&Run],
) -> anyhow::Result<Option<ExitCode>> {
    let Some(first) = runs.first() else {
        return Ok(None);
    };
    settings
        .verbosity
        .notice(format_args!("scoring {}", counted(runs.len(), "model")));
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
    wait(children, "eval", &settings.output, command)
}

/// Runs a process to its end; returns an exit code if the user stopped it.
fn wait(
    children: &Children,
    what: &'static str,
    folder: &Path,
    mut command: Command,
) -> anyhow::Result<Option<ExitCode>> {
    command.stdout(Stdio::null());
    match children.run(command)? {
        Ended::Well => Ok(None),
        Ended::Stopped => Ok(Some(interrupt::exit_code())),
        Ended::Badly(how) => Err(RunFailed {
            what,
            folder: folder.to_owned(),
            how,
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
    let mut process = crate::host::this_program().context("finding this program")?;
    process.arg(command);
    Ok(process)
}
