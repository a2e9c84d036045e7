//! `zeg ablate`: a suite of experiments, each over several seeds, in one table beside the published rows.
//!
//! Every run is a process of its own: it starts with fresh memory, and one that fails takes no other with it. What is
//! done is kept, so that the same command goes on where it was stopped.

mod choose;
mod run;
mod suite;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use zeg_train::checkpoint::write_atomically;

use self::{
    choose::{Choice, candidates, choices},
    run::{Run, check_all, score_all, train_all},
    suite::{Row, Suite, Variant},
    table::{Scored, Table},
};
use super::{JsonTarget, write_result};
use crate::Program;

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
    /// Data set folder; the mini world needs none
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// CLIP weights in any published format; given several times, every row is run with each
    #[arg(long, value_name = "FILE", required = true)]
    weights: Vec<PathBuf>,
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
    /// Runs at work at once, each on one thread if there are several
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Say what is done and what is left, and run nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the table as JSON; `-` writes it to standard output instead of the text
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Which runs of a suite are carried out, and with what.
#[derive(Debug)]
struct AblateSettings {
    suite: PathBuf,
    /// The data set's folder.
    data: Option<PathBuf>,
    /// At least one file.
    weights: Vec<PathBuf>,
    /// A table of class embeddings.
    text: Option<PathBuf>,
    output: PathBuf,
    /// Empty: the suite's.
    seeds: Vec<u64>,
    /// Empty: all rows.
    only: Vec<String>,
    /// Changes to every row, `key=value`.
    changes: Vec<String>,
    /// Runs at work at once.
    jobs: usize,
    /// Say what is left, and run nothing.
    dry_run: bool,
    json: Option<JsonTarget>,
}

impl AblateArgs {
    fn settings(self) -> AblateSettings {
        AblateSettings {
            suite: self.suite,
            data: self.data,
            weights: self.weights,
            text: self.text,
            output: self.output,
            seeds: self.seeds,
            only: self.only,
            changes: self.changes,
            jobs: self.jobs,
            dry_run: self.dry_run,
            json: self.json.map(JsonTarget::of_path),
        }
    }
}

impl AblateSettings {
    /// The weights that settings are chosen with.
    fn first_weights(&self) -> PathBuf {
        self.weights.first().cloned().unwrap_or_default()
    }
}

/// A process of a suite ended with an error.
#[derive(Debug, thiserror::Error)]
#[error("`zeg {what}` of {} ended with exit code {code}", folder.display())]
pub(crate) struct RunFailed {
    what: &'static str,
    folder: PathBuf,
    code: i32,
}

pub(crate) fn run(program: &Program, args: AblateArgs) -> anyhow::Result<ExitCode> {
    ablate(program, &args.settings())
}

fn ablate(program: &Program, settings: &AblateSettings) -> anyhow::Result<ExitCode> {
    let suite = Suite::open(&settings.suite)?;
    let rows = wanted(settings, &suite)?;
    let candidates = candidates(settings, &suite, &rows);
    check_all(program, &candidates, &settings.suite)?;
    if settings.dry_run {
        return dry_run(program, settings, &suite, &rows, &candidates);
    }
    if let Some(code) = carry_out(settings, &candidates)? {
        return Ok(code);
    }
    let choices = choices(&suite, &candidates)?;
    let runs = plan(settings, &suite, &rows, &choices);
    check_all(program, &runs, &settings.suite)?;
    if let Some(code) = carry_out(settings, &runs)? {
        return Ok(code);
    }
    let scored = runs.iter().filter_map(|run| Scored::of(run, &choices));
    let scored = scored.collect::<anyhow::Result<Vec<_>>>()?;
    let table = Table::new(&suite, &scored, &choices)?;
    write_atomically(
        &settings.output.join("ablation.md"),
        table.to_markdown().as_bytes(),
    )?;
    write_result(settings.json.as_ref(), &table, || {
        println!("{}", table.to_markdown());
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the JSON schema of a suite.
#[cfg(feature = "schema")]
pub(crate) fn suite_schema() -> schemars::Schema {
    schemars::schema_for!(suite::Suite)
}

/// Trains and scores; `Some` when the user stopped it.
fn carry_out(settings: &AblateSettings, runs: &[Run]) -> anyhow::Result<Option<ExitCode>> {
    match train_all(runs, settings)? {
        Some(code) => Ok(Some(code)),
        None => score_all(runs, settings),
    }
}

/// What is done and what is left. Runs whose settings are still to be chosen are named without a check.
fn dry_run(
    program: &Program,
    settings: &AblateSettings,
    suite: &Suite,
    rows: &[&Row],
    candidates: &[Run],
) -> anyhow::Result<ExitCode> {
    let ready = candidates.iter().all(Run::is_scored);
    let choices = if ready {
        choices(suite, candidates)?
    } else {
        Vec::new()
    };
    let runs = plan(settings, suite, rows, &choices);
    if ready {
        check_all(program, &runs, &settings.suite)?;
    }
    for run in candidates.iter().chain(&runs) {
        println!("{:<9} {}", run.state(), run.folder.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The rows that were asked for.
fn wanted<'a>(settings: &AblateSettings, suite: &'a Suite) -> anyhow::Result<Vec<&'a Row>> {
    if let Some(unknown) = settings.only.iter().find(|name| suite.row(name).is_none()) {
        let known: Vec<&str> = suite.rows.iter().map(|row| row.name.as_str()).collect();
        anyhow::bail!(
            "{}: no row is called {unknown:?}; there are {}",
            settings.suite.display(),
            known.join(", ")
        );
    }
    let wanted = |row: &&Row| settings.only.is_empty() || settings.only.contains(&row.name);
    Ok(suite.rows.iter().filter(wanted).collect())
}

/// All runs, rows outermost so that the first rows are complete first.
fn plan<'a>(
    settings: &AblateSettings,
    suite: &'a Suite,
    rows: &[&'a Row],
    choices: &[Choice],
) -> Vec<Run<'a>> {
    let seeds = if settings.seeds.is_empty() {
        &suite.seeds
    } else {
        &settings.seeds
    };
    let mut runs = Vec::new();
    for row in rows.iter().copied() {
        for RunKey {
            weights,
            variant,
            seed,
        } in run_keys(settings, suite, seeds)
        {
            let folder_of = |row: &str| {
                let mut folder = settings.output.join(row);
                if settings.weights.len() > 1 {
                    folder.push(format!("weights-{weights}"));
                }
                folder.extend(variant.map(|variant| &variant.name));
                folder.join(format!("seed-{seed}"))
            };
            let mut changes = [&suite.set[..], &row.set].concat();
            changes.extend(variant.iter().flat_map(|variant| variant.set.clone()));
            if let Some(choice) = choices.iter().find(|choice| choice.row == row.name) {
                changes.extend(choice.settings.clone());
                changes.push(format!("inference.seen-offset={:?}", choice.offset));
            }
            changes.extend(settings.changes.clone());
            changes.push(format!("training.seed={seed}"));
            let init = row.init.as_ref();
            runs.push(Run {
                name: folder_of(&row.name).display().to_string(),
                weights: settings
                    .weights
                    .get(weights - 1)
                    .cloned()
                    .unwrap_or_default(),
                config: suite.config(row),
                folder: folder_of(&row.name),
                init: init.map(|init| folder_of(&init.row).join(&init.checkpoint)),
                offsets: suite.offsets(row),
                row,
                changes,
            });
        }
    }
    runs
}

/// What the runs of a row differ in.
struct RunKey<'a> {
    /// Number of the weights, from 1.
    weights: usize,
    variant: Option<&'a Variant>,
    seed: u64,
}

fn run_keys<'a>(settings: &AblateSettings, suite: &'a Suite, seeds: &[u64]) -> Vec<RunKey<'a>> {
    let variants: Vec<Option<&Variant>> = match &suite.variants[..] {
        [] => vec![None],
        variants => variants.iter().map(Some).collect(),
    };
    let mut keys = Vec::new();
    for weights in 1..=settings.weights.len() {
        for &variant in &variants {
            keys.extend(seeds.iter().map(|&seed| RunKey {
                weights,
                variant,
                seed,
            }));
        }
    }
    keys
}
