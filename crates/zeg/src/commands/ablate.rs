//! `zeg ablate`: a suite of experiments, each over several seeds, in one table beside the published rows.
//!
//! Every run is a process of its own: it starts with fresh memory, and one that fails takes no other with it. What is
//! done is kept, so that the same command goes on where it was stopped.

mod suite;
mod table;

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context as _;
use clap::Args;
use zeg::{
    eval::{Evaluation, record::FILE_NAME},
    train::{checkpoint::write_atomically, experiment::Experiment},
};

use self::{
    suite::{Row, Suite},
    table::Table,
};
use super::JsonTarget;

/// Exit code of a run that the user stopped.
const INTERRUPTED: i32 = 130;
/// Folder of a run's record.
const SCORES: &str = "scores";

/// Arguments of `zeg ablate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg ablate configs/ablations/voc12-designs-quick.toml --data VOCdevkit/VOC2012 \\
      --weights clip-vit-b16.safetensors --text voc12_single.npy -o runs/designs
  zeg ablate … -o runs/designs --dry-run          # what is done, what is left
  zeg ablate … -o runs/designs --only zegclip --seeds 3,4

The same command goes on where it was stopped. The table is runs/designs/ablation.md, each run a folder beside it.")]
pub(crate) struct AblateArgs {
    /// Suite file (TOML)
    suite: PathBuf,
    /// Data set folder
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// CLIP weights in any published format
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Class embeddings (.npy or .safetensors) [default: computed by the text tower of the weights]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Folder of all runs and the table
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Seeds, separated by commas [default: the suite's]
    #[arg(long, value_name = "SEEDS", value_delimiter = ',')]
    seeds: Vec<u64>,
    /// Only these rows, separated by commas
    #[arg(long, value_name = "ROWS", value_delimiter = ',')]
    only: Vec<String>,
    /// Change a setting of every row; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    changes: Vec<String>,
    /// Say what is done and what is left, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the table as JSON; `-` writes it to standard output instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A run of the suite.
struct Run<'a> {
    row: &'a Row,
    seed: u64,
    config: PathBuf,
    changes: Vec<String>,
    folder: PathBuf,
    init: Option<PathBuf>,
}

/// A process of a suite ended with an error.
#[derive(Debug, thiserror::Error)]
#[error("`zeg {what}` of {} ended with exit code {code}", folder.display())]
pub(crate) struct RunFailed {
    what: &'static str,
    folder: PathBuf,
    code: i32,
}

pub(crate) fn run(args: &AblateArgs) -> anyhow::Result<ExitCode> {
    let suite = Suite::open(&args.suite)?;
    let seeds = if args.seeds.is_empty() {
        &suite.seeds
    } else {
        &args.seeds
    };
    let runs = plan(args, &suite, seeds)?;
    if args.dry_run {
        for run in &runs {
            println!("{:<9} {}", run.state(), run.folder.display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    for (number, run) in runs.iter().enumerate() {
        if run.model().is_file() {
            continue;
        }
        eprintln!(
            "run {} of {}: {}, seed {}",
            number + 1,
            runs.len(),
            run.row.name,
            run.seed
        );
        if let Some(code) = run.train(args)? {
            return Ok(stopped(code));
        }
    }
    let unscored: Vec<&Run> = runs.iter().filter(|run| !run.is_scored()).collect();
    if !unscored.is_empty()
        && let Some(code) = score(args, &unscored)?
    {
        return Ok(stopped(code));
    }
    let scored: Vec<(&Row, PathBuf)> = runs
        .iter()
        .filter(|run| run.is_scored())
        .map(|run| (run.row, run.scores()))
        .collect();
    let table = Table::new(&suite, &scored)?;
    write_atomically(
        &args.output.join("ablation.md"),
        table.to_markdown().as_bytes(),
    )?;
    let target = args.json.as_deref().map(JsonTarget::new);
    if let Some(target) = &target {
        target.write(&table)?;
    }
    if !matches!(target, Some(JsonTarget::Stdout)) {
        println!("{}", table.to_markdown());
    }
    Ok(ExitCode::SUCCESS)
}

/// All runs, rows outermost so that the first rows are complete first; every setting is checked before any work.
fn plan<'a>(args: &AblateArgs, suite: &'a Suite, seeds: &[u64]) -> anyhow::Result<Vec<Run<'a>>> {
    if let Some(unknown) = args.only.iter().find(|name| suite.row(name).is_none()) {
        let known: Vec<&str> = suite.rows.iter().map(|row| row.name.as_str()).collect();
        anyhow::bail!(
            "{}: no row is called {unknown:?}; there are {}",
            args.suite.display(),
            known.join(", ")
        );
    }
    let wanted = |row: &&Row| args.only.is_empty() || args.only.contains(&row.name);
    let mut runs = Vec::new();
    for row in suite.rows.iter().filter(wanted) {
        for &seed in seeds {
            let folder_of = |row: &str| args.output.join(row).join(format!("seed-{seed}"));
            let mut changes = [&suite.set[..], &row.set, &args.changes].concat();
            changes.push(format!("training.seed={seed}"));
            let run = Run {
                config: suite.config(row),
                folder: folder_of(&row.name),
                init: row
                    .init
                    .as_ref()
                    .map(|init| folder_of(&init.row).join(&init.checkpoint)),
                row,
                seed,
                changes,
            };
            run.check()
                .with_context(|| format!("row {:?} of {}", row.name, args.suite.display()))?;
            runs.push(run);
        }
    }
    Ok(runs)
}

impl Run<'_> {
    fn model(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }

    fn scores(&self) -> PathBuf {
        self.folder.join(SCORES)
    }

    fn is_scored(&self) -> bool {
        self.scores().join(FILE_NAME).is_file()
    }

    fn state(&self) -> &'static str {
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

    /// The settings fit each other, and what was done before was done with the same ones.
    fn check(&self) -> anyhow::Result<()> {
        let experiment = Experiment::open(&self.config, &self.changes)?;
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
            "{} was run with other settings; choose another folder with -o",
            self.folder.display()
        );
        Ok(())
    }

    /// Trains, or goes on; `Some` when the user stopped it.
    fn train(&self, args: &AblateArgs) -> anyhow::Result<Option<ExitCode>> {
        if self.model().is_file() {
            return Ok(None);
        }
        let mut command = zeg("train")?;
        command.arg(&self.config);
        for change in &self.changes {
            command.args(["--set", change]);
        }
        command.arg("--data").arg(&args.data);
        command.arg("--weights").arg(&args.weights);
        if let Some(text) = &args.text {
            command.arg("--text").arg(text);
        }
        if let Some(init) = &self.init {
            command.arg("--init").arg(init);
        }
        // Rows of one encoder and seed share what a frozen encoder made of the pictures.
        let features = args.output.join("features");
        command.arg("--feature-cache").arg(features);
        command.arg("--output").arg(&self.folder).arg("--resume");
        wait("train", &self.folder, command)
    }
}

/// Scores trained models in one process, which encodes pictures once for models of one frozen encoder; `Some` when the
/// user stopped it.
fn score(args: &AblateArgs, runs: &[&Run]) -> anyhow::Result<Option<ExitCode>> {
    eprintln!("scoring {} models", runs.len());
    let mut command = zeg("eval")?;
    command.args(runs.iter().map(|run| run.model()));
    command.arg("--data").arg(&args.data);
    command.arg("--weights").arg(&args.weights);
    command.args(["--in-runs", SCORES, "--gallery", "0"]);
    wait("eval", &args.output, command)
}

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

fn stopped(code: ExitCode) -> ExitCode {
    eprintln!("stopped; the same command goes on");
    code
}

/// A process of this very program.
fn zeg(command: &str) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut process = Command::new(program);
    process.arg(command);
    Ok(process)
}

/// Opens a run's record.
fn record(folder: &Path) -> anyhow::Result<Evaluation> {
    Ok(Evaluation::open(folder)?)
}
