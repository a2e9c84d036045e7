//! `zeg ablate`: runs a suite of experiments over several seeds and writes one table with the published rows beside it.
//!
//! Every run is a process of its own: it starts with fresh memory, and its failure does not end the others. Finished
//! runs are kept, so the same command continues a suite that was stopped.

mod choose;
mod facts;
pub(super) mod run;
mod suite;
mod table;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;
use zeg_base::{file, fingerprint::Fingerprint, paths::path_text};
use zeg_train::checkpoint::write_atomically;

use self::{
    choose::{Choice, candidates, choices},
    run::{Run, check_all, score_all, settle, train_all},
    suite::{Row, Suite, Variant, first_repeated},
    table::{Scored, Table},
};
use super::{
    JsonTarget,
    children::Children,
    json::{self, JsonArgs},
    model_file::resolve_model,
    place::output_folder,
    run_files::claim_folder,
    shared::{StatedArgs, TextClassesArgs, heading},
    write_result,
};
use crate::{
    Program,
    numbers::{self, WrongArgument},
    progress::Verbosity,
};

/// Arguments of `zeg ablate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg ablate configs/ablations/voc12-designs-small.toml --data VOCdevkit/VOC2012 \\
      --weights clip-vit-b16.safetensors --text voc12_single.npy --text-classes voc20 -o runs/designs
  zeg ablate … -o runs/designs --dry-run
  zeg ablate … -o runs/designs --only dpt+rd --seeds 3,4

The same command continues a suite that was stopped or killed. The table is
runs/designs/ablation.md; each run has a folder beside it.")]
pub(crate) struct AblateArgs {
    /// Suite file (TOML)
    suite: PathBuf,
    /// Seeds of the runs, separated by commas [default: the suite's]
    #[arg(long, value_name = "SEEDS", value_delimiter = ',', value_parser = numbers::seed, help_heading = heading::TRAINING)]
    seeds: Vec<u64>,
    /// Rows of the suite to run, separated by commas [default: all]
    #[arg(long, value_name = "ROWS", value_delimiter = ',', help_heading = heading::TRAINING)]
    only: Vec<String>,
    /// Setting to change in every row; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = numbers::change, help_heading = heading::TRAINING)]
    changes: Vec<String>,
    /// List the runs with their states, and run nothing
    #[arg(long, help_heading = heading::TRAINING)]
    dry_run: bool,
    /// Folder of the data set; the mini world needs none
    #[arg(long, value_name = "DIR", help_heading = heading::DATA)]
    data: Option<PathBuf>,
    /// CLIP weights in any published format; if given several times, every row is run with each
    #[arg(long, value_name = "FILE", required = true, help_heading = heading::MODEL)]
    weights: Vec<PathBuf>,
    /// Class embeddings (.npy or .safetensors) [default: computed by the text encoder of the weights]
    #[arg(long, value_name = "FILE", help_heading = heading::MODEL)]
    text: Option<PathBuf>,
    #[command(flatten)]
    text_classes: TextClassesArgs,
    #[command(flatten)]
    stated: StatedArgs,
    /// Folder for the runs and the table
    #[arg(short, long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    #[command(flatten)]
    json: JsonArgs,
    /// Number of runs at the same time; each uses one thread if there are several
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = numbers::count, help_heading = heading::PERFORMANCE)]
    jobs: usize,
}

/// Settings of `zeg ablate`.
#[derive(Debug)]
struct AblateSettings {
    suite: PathBuf,
    /// Folder of the data set.
    data: Option<PathBuf>,
    /// Weights of the runs, at least one file.
    weights: Vec<PathBuf>,
    /// Table of class embeddings.
    text: Option<PathBuf>,
    /// Further arguments of every training: the classes of the table's rows, the activation and heads of the weights.
    train_arguments: Vec<String>,
    output: PathBuf,
    /// Seeds of the runs; empty for the suite's.
    seeds: Vec<u64>,
    /// Names of the rows to run; empty for all.
    only: Vec<String>,
    /// Changes to the settings of every row, `key=value`.
    changes: Vec<String>,
    /// Number of runs at the same time.
    jobs: usize,
    /// Whether to list the runs instead of running them.
    dry_run: bool,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
}

impl AblateArgs {
    /// # Errors
    /// Returns an error if the file of `--json` may not be written, or the classes of `--text` cannot be read.
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<AblateSettings> {
        // Every training reads the list again; a mistake in it shows before the first one.
        self.text_classes.value()?;
        let weights = self.weights.iter().map(|file| resolve_model(file));
        let mut train_arguments = self.stated.arguments();
        if let Some(classes) = self.text_classes.text() {
            train_arguments.push(format!("--text-classes={classes}"));
        }
        Ok(AblateSettings {
            suite: self.suite,
            data: self.data,
            weights: weights.collect::<anyhow::Result<_>>()?,
            text: self.text,
            train_arguments,
            output: self.output,
            seeds: self.seeds,
            only: self.only,
            changes: self.changes,
            jobs: numbers::capped("--jobs", self.jobs),
            dry_run: self.dry_run,
            json: self.json.target("ablate")?,
            verbosity,
        })
    }
}

impl AblateSettings {
    /// Returns the folder of the encoded images that the runs share.
    fn features(&self) -> PathBuf {
        self.output.join("features")
    }

    /// Returns the weights that the candidates of `[choose]` are run with.
    fn first_weights(&self) -> PathBuf {
        self.weights.first().cloned().unwrap_or_default()
    }
}

/// The error for a process of the suite that failed.
#[derive(Debug, thiserror::Error)]
#[error("`zeg {what}` of {} {how}", folder.display())]
pub(crate) struct RunFailed {
    what: &'static str,
    folder: PathBuf,
    /// How it ended, such as `ended with exit code 1`.
    how: String,
}

/// The table of a suite, or with `--dry-run` its runs.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum AblateOutput<'a> {
    /// The scores of all rows.
    Table(&'a Table),
    /// With `--dry-run`: all runs with their states.
    Runs(RunList),
}

/// The runs of a suite.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct RunList {
    /// All runs, in the order in which they are carried out.
    runs: Vec<ListedRun>,
}

/// A run of a suite.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ListedRun {
    /// How far it is: `scored`, `trained`, `begun` or `left`.
    state: &'static str,
    /// Its folder.
    folder: String,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<AblateOutput<'_>>("ablate")
}

pub(crate) fn run(
    program: &Program,
    args: AblateArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    ablate(program, &args.settings(verbosity)?)
}

fn ablate(program: &Program, settings: &AblateSettings) -> anyhow::Result<ExitCode> {
    let suite = Suite::open(&settings.suite)?;
    check_different(settings)?;
    let rows = chosen_rows(settings, &suite)?;
    let mut candidates = candidates(settings, &suite, &rows);
    check_all(program, &mut candidates, settings)?;
    if settings.dry_run {
        return dry_run(program, settings, &suite, &rows, &candidates);
    }
    let children = Children::new();
    let _lock = claim_folder(&settings.output)?;
    let table_file = table::place(&settings.output)?;
    file::remove_leftovers(&settings.features());
    if carry_out(settings, &children, &candidates)?.is_some() {
        return Ok(json::stopped(settings.json.as_ref()));
    }
    let choices = choices(&suite, &candidates)?;
    let mut runs = plan(settings, &suite, &rows, &choices);
    check_all(program, &mut runs, settings)?;
    if carry_out(settings, &children, &runs)?.is_some() {
        return Ok(json::stopped(settings.json.as_ref()));
    }
    let scored = runs.iter().filter_map(|run| Scored::of(run, &choices));
    let scored = scored.collect::<anyhow::Result<Vec<_>>>()?;
    let table = Table::new(&suite, &scored, &choices)?;
    write_atomically(&table_file, table.to_markdown().as_bytes())?;
    write_result(settings.json.as_ref(), &AblateOutput::Table(&table), || {
        print_result!("{}", table.to_markdown())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the JSON schema of a suite.
#[cfg(feature = "schema")]
pub(crate) fn suite_schema() -> schemars::Schema {
    schemars::schema_for!(suite::Suite)
}

/// Trains and scores the runs; returns an exit code if the user stopped it.
fn carry_out(
    settings: &AblateSettings,
    children: &Children,
    runs: &[Run],
) -> anyhow::Result<Option<ExitCode>> {
    settle(runs, children)?;
    match train_all(runs, settings, children)? {
        Some(code) => Ok(Some(code)),
        None => score_all(runs, settings, children),
    }
}

/// Lists the runs with their states.
///
/// Runs whose settings are not chosen yet are listed without a check of their settings.
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
    let mut runs = plan(settings, suite, rows, &choices);
    if ready {
        check_all(program, &mut runs, settings)?;
    }
    let all = || candidates.iter().chain(&runs);
    let list = all().map(|run| ListedRun {
        state: run.state(),
        folder: path_text(&run.folder),
    });
    let output = AblateOutput::Runs(RunList {
        runs: list.collect(),
    });
    write_result(settings.json.as_ref(), &output, || {
        for run in all() {
            print_result!("{:<9} {}", run.state(), run.folder.display())?;
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that no seed and no weights are named twice; their runs would have one folder, or count twice.
fn check_different(settings: &AblateSettings) -> anyhow::Result<()> {
    let is_twice = |argument: &str| WrongArgument(format!("{argument} is named twice"));
    if let Some(seed) = first_repeated(&settings.seeds) {
        return Err(is_twice(&format!("--seeds: seed {seed}")).into());
    }
    let files = settings.weights.iter();
    let files: Vec<PathBuf> = files
        .map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()))
        .collect();
    if let Some(file) = first_repeated(&files) {
        return Err(is_twice(&format!("--weights: {}", file.display())).into());
    }
    Ok(())
}

/// Returns the chosen rows.
///
/// # Errors
/// Returns an error if `--only` names a row that the suite does not have.
fn chosen_rows<'a>(settings: &AblateSettings, suite: &'a Suite) -> anyhow::Result<Vec<&'a Row>> {
    if let Some(unknown) = settings.only.iter().find(|name| suite.row(name).is_none()) {
        let known: Vec<&str> = suite.rows.iter().map(|row| row.name.as_str()).collect();
        anyhow::bail!(
            "{}: there is no row {unknown:?}; the rows are {}",
            settings.suite.display(),
            known.join(", ")
        );
    }
    let is_chosen = |row: &&Row| settings.only.is_empty() || settings.only.contains(&row.name);
    Ok(suite.rows.iter().filter(is_chosen).collect())
}

/// Returns all runs, row by row, so that the first rows are complete first.
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
                scored_on: Fingerprint::new(),
                row,
                variant,
                changes,
            });
        }
    }
    runs
}

/// The weights, variant and seed of a run, in which the runs of a row differ.
struct RunKey<'a> {
    /// Number of the weights, counted from 1.
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
