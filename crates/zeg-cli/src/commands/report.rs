//! `zeg report`: writes a page about evaluations with the published scores beside them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use zeg::eval::{
    Evaluation,
    page::{Format, ReportInput, RunInput, read_log, write_report},
    record::FILE_NAME,
};

use super::{
    JsonTarget,
    json::JsonArgs,
    place::output_folder,
    shared::{Existing, heading},
    write_result,
};
use crate::Program;

/// Arguments of `zeg report`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg report scores/quick -o report
  zeg report runs/s0/scores runs/s1/scores runs/s2/scores -o report --format html,md,csv
  zeg report scores/baseline scores/zegclip -o report --images 2007_000033,2007_000061")]
pub(crate) struct ReportArgs {
    /// Folders that `zeg eval -o` wrote, or folders that hold such folders
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder for report.html, report.md and report.csv
    #[arg(short, long, value_name = "DIR", value_parser = output_folder(), help_heading = heading::OUTPUT)]
    output: PathBuf,
    /// Formats to write, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["html", "md", "csv"], value_name = "FORMATS",
          help_heading = heading::OUTPUT)]
    format: Vec<FormatArg>,
    /// Heading of the page [default: the method and the data set]
    #[arg(long, help_heading = heading::OUTPUT)]
    title: Option<String>,
    /// Ids of the images to show with the predictions of all models side by side, separated by commas
    /// [default: the first twelve that several galleries have]
    #[arg(long, value_delimiter = ',', value_name = "IDS", help_heading = heading::OUTPUT)]
    images: Vec<String>,
    /// Replace a report that exists
    #[arg(long, help_heading = heading::OUTPUT)]
    overwrite: bool,
    #[command(flatten)]
    json: JsonArgs,
}

/// A [`Format`] as a value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FormatArg {
    Html,
    Md,
    Csv,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Html => Self::Html,
            FormatArg::Md => Self::Markdown,
            FormatArg::Csv => Self::Csv,
        }
    }
}

/// The error for a folder without an evaluation.
#[derive(Debug, thiserror::Error)]
#[error("{}: neither the folder nor a folder in it holds {}", .0.display(), FILE_NAME)]
pub(crate) struct NoEvaluation(PathBuf);

/// Settings of `zeg report`.
#[derive(Debug)]
struct ReportSettings {
    runs: Vec<PathBuf>,
    output: PathBuf,
    formats: Vec<Format>,
    title: Option<String>,
    images: Vec<String>,
    existing: Existing,
    json: Option<JsonTarget>,
}

impl ReportArgs {
    /// # Errors
    /// Returns an error if the file of `--json` may not be written.
    fn settings(self) -> anyhow::Result<ReportSettings> {
        Ok(ReportSettings {
            runs: self.runs,
            output: self.output,
            formats: self.format.into_iter().map(Into::into).collect(),
            title: self.title,
            images: self.images,
            existing: Existing::of_flag(self.overwrite),
            json: self.json.target("report")?,
        })
    }
}

/// The report that was written.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ReportOutput {
    /// Heading of the page.
    title: String,
    /// The written files.
    #[serde(serialize_with = "zeg_base::paths::serialize_all")]
    files: Vec<PathBuf>,
    /// The evaluations on the page, in its order.
    evaluations: Vec<ReportedEvaluation>,
}

/// An evaluation on the page.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ReportedEvaluation {
    /// Folder of its record.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    folder: PathBuf,
    /// The method, as `ZegCLIP`.
    method: String,
    /// File of the model.
    model: String,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<ReportOutput>("report")
}

pub(crate) fn run(_program: &Program, args: ReportArgs) -> anyhow::Result<ExitCode> {
    report(&args.settings()?)?;
    Ok(ExitCode::SUCCESS)
}

fn report(settings: &ReportSettings) -> anyhow::Result<()> {
    let output = &settings.output;
    for format in &settings.formats {
        settings.existing.check(&output.join(format.file_name()))?;
    }
    let mut runs = Vec::new();
    for path in &settings.runs {
        for folder in evaluations(path)? {
            runs.push(run_input(&folder)?);
        }
    }
    let evaluations = runs.iter().map(|run| ReportedEvaluation {
        folder: run.folder.clone(),
        method: run.evaluation.method.clone(),
        model: run.evaluation.model.path.clone(),
    });
    let evaluations = evaluations.collect();
    let input = ReportInput {
        title: settings.title.clone().unwrap_or_else(|| title(&runs)),
        runs,
        images: settings.images.clone(),
    };
    fs::create_dir_all(output).with_context(|| output.display().to_string())?;
    let written = ReportOutput {
        files: write_report(&input, output, &settings.formats)?,
        title: input.title,
        evaluations,
    };
    write_result(settings.json.as_ref(), &written, || {
        for file in &written.files {
            print_result!("{}", file.display())?;
        }
        Ok(())
    })
}

/// Returns the folders with records that a path stands for: the folder itself, or those in it, sorted by name.
fn evaluations(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.parent().unwrap_or(Path::new("")).to_owned()]);
    }
    if path.join(FILE_NAME).is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).with_context(|| path.display().to_string())?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|folder| folder.join(FILE_NAME).is_file())
        .collect();
    found.sort();
    if found.is_empty() {
        return Err(NoEvaluation(path.to_owned()).into());
    }
    Ok(found)
}

fn run_input(folder: &Path) -> anyhow::Result<RunInput> {
    let evaluation = Evaluation::open(folder)?;
    // The folder of the model is that of its run, which holds the log of the training.
    let beside = |name: &str| {
        let file = Path::new(&evaluation.model.path).parent()?.join(name);
        file.is_file().then_some(file)
    };
    let curves = beside("log.jsonl").map(read_log).transpose()?;
    let manifest = beside("run.json").and_then(|file| fs::read_to_string(file).ok());
    Ok(RunInput {
        curves: curves.unwrap_or_default(),
        experiment: manifest.as_deref().and_then(experiment),
        folder: folder.to_owned(),
        evaluation,
    })
}

/// Returns the methods and the data set as a title, such as `ZegCLIP and CLIP-RC on PASCAL VOC 2012`.
fn title(runs: &[RunInput]) -> String {
    let mut methods: Vec<&str> = Vec::new();
    for run in runs {
        if !methods.contains(&run.evaluation.method.as_str()) {
            methods.push(&run.evaluation.method);
        }
    }
    runs.first().map_or_else(String::new, |run| {
        format!(
            "{} on {}",
            methods.join(" and "),
            run.evaluation.benchmark.title
        )
    })
}

/// Returns the experiment in the manifest of a run, as TOML.
fn experiment(manifest: &str) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_str(manifest).ok()?;
    let experiment: zeg_train::experiment::Experiment =
        serde_json::from_value(manifest.get("experiment")?.clone()).ok()?;
    toml::to_string(&experiment).ok()
}
