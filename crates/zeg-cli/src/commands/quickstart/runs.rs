//! The trainings of the quickstart: each is trained and scored by processes of this program, several at a time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::Context as _;
use serde::Serialize;
use zeg::{eval::Evaluation, mini};

use super::{QuickstartSettings, plan::PlannedMethod};
use crate::commands::{
    children::{Children, Ended},
    interrupt,
};

/// Lines of a failed process's output that are shown.
const SHOWN_LINES: usize = 12;

/// One training of one method on one split.
pub(super) struct QuickstartRun<'a> {
    pub(super) settings: &'a QuickstartSettings,
    pub(super) children: &'a Children,
    pub(super) method: &'a PlannedMethod,
    pub(super) split: u64,
    /// Threads of its processes.
    pub(super) threads: usize,
}

/// The scores of one run on the test images, fractions of 1.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct RunScores {
    /// Name of the method's folders.
    pub(super) method: String,
    /// Name of the method for people.
    pub(super) title: String,
    /// Seed of the choice of unseen classes.
    pub(super) split: u64,
    /// Share of pixels with the right class.
    pub(super) p_acc: Option<f64>,
    /// Mean IoU of the classes with masks in training.
    pub(super) miou_seen: Option<f64>,
    /// Mean IoU of the classes without.
    pub(super) miou_unseen: Option<f64>,
    /// Harmonic mean of the two.
    pub(super) hiou: Option<f64>,
    /// Wall seconds of the training, beside the other runs.
    pub(super) train_seconds: f64,
    /// Folder of the evaluation's record.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    pub(super) scores: PathBuf,
    /// The trained model.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    pub(super) model: PathBuf,
}

impl QuickstartRun<'_> {
    /// Returns the name of the run's folders.
    fn name(&self) -> String {
        format!("{}-split-{}", self.method.name, self.split)
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.settings.output.join("runs").join(self.name())
    }

    pub(super) fn model(&self) -> PathBuf {
        self.folder().join("model.safetensors")
    }

    pub(super) fn record(&self) -> PathBuf {
        self.settings.output.join("scores").join(self.name())
    }

    /// Trains and scores; returns the scores, or the exit code if the user interrupted a process.
    pub(super) fn carry_out(&self) -> anyhow::Result<Result<RunScores, ExitCode>> {
        let started = Instant::now();
        if let Some(code) = self.run_process(self.training())? {
            return Ok(Err(code));
        }
        let train_seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        if let Some(code) = self.run_process(self.scoring())? {
            return Ok(Err(code));
        }
        let report = Evaluation::open(self.record())?.report()?;
        Ok(Ok(RunScores {
            method: self.method.name.clone(),
            title: self.method.title.clone(),
            split: self.split,
            p_acc: report.p_acc,
            miou_seen: report.miou_seen,
            miou_unseen: report.miou_unseen,
            hiou: report.hiou,
            train_seconds,
            scores: self.record(),
            model: self.model(),
        }))
    }

    fn training(&self) -> Command {
        let settings = self.settings;
        let mut command = Command::new("zeg");
        command.arg("train");
        command.arg(settings.experiment_file(self.method));
        command.args(["--weights", mini::NAME, "-o"]);
        command.arg(self.folder());
        let mut changes = self.method.set.clone();
        changes.push(format!("data.mini-world.world.split-seed={}", self.split));
        changes.push(format!("training.seed={}", settings.seed));
        if let Some(steps) = settings.steps {
            changes.push(format!("training.steps={steps}"));
        }
        for change in changes {
            command.args(["--set", &change]);
        }
        command.args(["--threads", &self.threads.to_string()]);
        command
    }

    fn scoring(&self) -> Command {
        let mut command = Command::new("zeg");
        command.arg("eval").arg(self.model());
        command.args(["--split", "test", "--seen-offset", "0", "--gallery", "2"]);
        if let Some(limit) = self.settings.limit {
            command.args(["--limit", &limit.to_string()]);
        }
        command.arg("-o").arg(self.record());
        command.args(["--threads", &self.threads.to_string()]);
        command
    }

    fn run_process(&self, command: Command) -> anyhow::Result<Option<ExitCode>> {
        run_process(command, self.settings, self.children, &self.name())
    }
}

/// Runs a command of this program and shows it first; its output goes to `logs/NAME.txt` in the quickstart's folder.
///
/// Returns the exit code if the user interrupted it.
pub(super) fn run_process(
    command: Command,
    settings: &QuickstartSettings,
    children: &Children,
    name: &str,
) -> anyhow::Result<Option<ExitCode>> {
    let shown: Vec<String> = command
        .get_args()
        .map(|argument| quoted(&argument.to_string_lossy()))
        .collect();
    let shown = format!("zeg {}", shown.join(" "));
    settings.verbosity.notice(format_args!("$ {shown}"));
    let log = settings.output.join("logs").join(format!("{name}.txt"));
    let written = || log.display().to_string();
    let output = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(written)?;
    let errors = output.try_clone().with_context(written)?;
    let mut process = crate::host::this_program().context("finding this program")?;
    process
        .args(command.get_args())
        .stdout(output)
        .stderr(errors);
    match children.run(process)? {
        Ended::Well => Ok(None),
        Ended::Stopped => Ok(Some(interrupt::exit_code())),
        Ended::Badly(how) => anyhow::bail!(
            "`{shown}` {how}; the end of {}:\n{}",
            log.display(),
            last_lines(&log)
        ),
    }
}

fn last_lines(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// Quotes an argument for a shell where it needs it.
fn quoted(argument: &str) -> String {
    if argument.contains([' ', '"', '\'']) {
        format!("{argument:?}")
    } else {
        argument.to_owned()
    }
}
