//! `zeg bench --table`: cost, speed and memory of the three published systems, beside the published figures.
//!
//! Each model is measured in a process of its own, so that its peak of memory is that of no other model.

use std::{
    fmt::Write as _,
    path::Path,
    process::{ExitStatus, Stdio},
};

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use zeg::model::Precision;

use super::systems::{PUBLISHED_ON, PublishedCost, SYSTEMS, System};
use crate::{
    Program,
    commands::{JsonTarget, machine, open_experiment, shared::ComputeSettings, write_result},
    progress::Verbosity,
    timing,
};

/// The one-stage and the two-stage system that the paper compares.
const ONE_STAGE: &str = "zegclip";
const TWO_STAGE: &str = "zegformer";

/// Settings of `zeg bench --table`.
#[derive(Debug)]
pub(super) struct TableSettings {
    /// Methods to measure; empty for all.
    pub(super) only: Vec<String>,
    /// Number of measured runs of each model.
    pub(super) runs: usize,
    pub(super) precision: Precision,
    pub(super) compute: ComputeSettings,
    pub(super) json: Option<JsonTarget>,
    pub(super) verbosity: Verbosity,
}

/// The measured table.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct BenchTable {
    /// Program and version, as `zeg 0.1.0`.
    program: &'static str,
    /// System, architecture and processor.
    machine: String,
    /// Device of the computation, as `--device` names it.
    device: String,
    /// Number of threads.
    threads: usize,
    /// Arithmetic of the encoder: `f32`, `bf16` or `int8`.
    precision: String,
    /// Number of measured runs of each model.
    runs: usize,
    /// What the published figures were measured on.
    published_on: &'static str,
    rows: Vec<TableRow>,
    ratios: Vec<Ratio>,
}

/// One system with the classes of one data set.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct TableRow {
    /// Name of the data set whose number of classes is used.
    dataset: &'static str,
    /// Number of classes.
    classes: usize,
    /// The method, as `ZegCLIP`.
    method: String,
    /// Experiment file that the model is made from.
    experiment: &'static str,
    /// Side of the images in pixels.
    size: usize,
    /// Trained parameters as the reference declares them, its unused modules included; the published figure.
    parameters: u64,
    /// Parameters that receive a gradient.
    trained: u64,
    /// Multiply-accumulates of one image.
    macs: u64,
    /// Number of crops that the encoder gets, in a two-stage model.
    #[serde(skip_serializing_if = "Option::is_none")]
    crops: Option<usize>,
    /// Median time of one image in seconds.
    median_s: f64,
    /// Images in a second.
    images_per_s: f64,
    /// Peak of memory in megabytes of 10⁶ bytes, the weights included; only on Linux.
    peak_mb: Option<f64>,
    /// The published figures, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<PublishedCost>,
}

/// How much faster the one-stage system is than the two-stage one.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Ratio {
    /// Name of the data set whose number of classes is used.
    dataset: &'static str,
    /// The one-stage method.
    one_stage: String,
    /// The two-stage method.
    two_stage: String,
    /// Images in a second of the one-stage system, divided by those of the two-stage one.
    speed: f64,
    /// The same of the published figures.
    published_speed: Option<f64>,
    /// Multiply-accumulates of the two-stage system, divided by those of the one-stage one.
    macs: f64,
}

/// The parts of the report of `zeg bench EXPERIMENT` that the table shows.
#[derive(Debug, Deserialize)]
struct Measured {
    median_s: f64,
    peak_mb: Option<f64>,
}

/// The process that measures a model failed.
#[derive(Debug, thiserror::Error)]
#[error("`zeg bench {experiment}` ended with {status}")]
struct MeasurementFailed {
    experiment: &'static str,
    status: ExitStatus,
}

/// Measures the systems and prints their table.
///
/// # Errors
/// Returns an error if `--only` names an unknown method, or if a measurement fails.
pub(super) fn run(program: &Program, settings: &TableSettings) -> anyhow::Result<()> {
    let systems = chosen(&settings.only)?;
    let folder = tempfile::tempdir().context("creating a temporary folder")?;
    let threads = settings.compute.threads;
    let threads = threads.unwrap_or_else(rayon::current_num_threads);
    let mut rows = Vec::new();
    for (number, system) in systems.iter().enumerate() {
        let System {
            experiment,
            dataset,
            ..
        } = **system;
        settings.verbosity.notice(format_args!(
            "measuring {} of {}: {experiment}",
            number + 1,
            systems.len()
        ));
        let path = folder.path().join(format!("{dataset}-{number}.toml"));
        std::fs::write(&path, system.text).with_context(|| path.display().to_string())?;
        let mut row = described(program, system, &path)?;
        let mut command = crate::host::this_program().context("finding this program")?;
        command.arg("bench").arg(&path);
        command.args(["--runs", &settings.runs.to_string(), "--json", "-"]);
        command.args(["--threads", &threads.to_string()]);
        command.args(["--device", &settings.compute.device.to_string()]);
        command.args(["--precision", &settings.precision.to_string()]);
        let output = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("starting a process of this program")?;
        if !output.status.success() {
            let status = output.status;
            return Err(MeasurementFailed { experiment, status }.into());
        }
        let measured: Measured = serde_json::from_slice(&output.stdout).context(experiment)?;
        row.median_s = measured.median_s;
        row.images_per_s = 1.0 / measured.median_s;
        row.peak_mb = measured.peak_mb;
        rows.push(row);
    }
    let table = BenchTable {
        program: concat!("zeg ", env!("CARGO_PKG_VERSION")),
        machine: machine::name(),
        device: settings.compute.device.to_string(),
        threads,
        precision: settings.precision.to_string(),
        runs: settings.runs,
        published_on: PUBLISHED_ON,
        ratios: ratios(&systems, &rows),
        rows,
    };
    write_result(settings.json.as_ref(), &table, || {
        print_result!("{}", table.to_text())
    })
}

/// Returns the systems of the chosen methods.
fn chosen(only: &[String]) -> anyhow::Result<Vec<&'static System>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| SYSTEMS.iter().all(|system| system.method != **name))
    {
        let mut known: Vec<&str> = SYSTEMS.iter().map(|system| system.method).collect();
        known.sort_unstable();
        known.dedup();
        anyhow::bail!(
            "--only {unknown}: the table has no such method; its methods are {}",
            known.join(", ")
        );
    }
    let is_chosen =
        |system: &&System| only.is_empty() || only.iter().any(|name| name == system.method);
    Ok(SYSTEMS.iter().filter(is_chosen).collect())
}

/// Returns the row of a system that is not measured yet.
///
/// - `path`: a file with the system's experiment
fn described(program: &Program, system: &System, path: &Path) -> anyhow::Result<TableRow> {
    let experiment = open_experiment(program, path, &[]).context(system.experiment)?;
    let config = experiment.architecture(&program.methods)?;
    let classes = timing::classes(&experiment)?.len();
    let cost = config.cost(classes)?;
    Ok(TableRow {
        dataset: system.dataset,
        classes,
        method: config.title().to_owned(),
        experiment: system.experiment,
        size: config.resolution(),
        parameters: cost.params.declared_by_reference,
        trained: cost.params.trained,
        macs: cost.total(),
        crops: cost.crops,
        median_s: 0.0,
        images_per_s: 0.0,
        peak_mb: None,
        published: system.published,
    })
}

/// Compares the one-stage with the two-stage system on every data set that has both.
///
/// - `rows`: those of `systems`, in the same order
fn ratios(systems: &[&System], rows: &[TableRow]) -> Vec<Ratio> {
    let pairs = || systems.iter().zip(rows);
    let of = |method: &str, dataset: &str| {
        pairs()
            .find(|(system, _)| system.method == method && system.dataset == dataset)
            .map(|(_, row)| row)
    };
    let ratio = |one: &TableRow| {
        let two = of(TWO_STAGE, one.dataset)?;
        let published = one.published.zip(two.published);
        Some(Ratio {
            dataset: one.dataset,
            one_stage: one.method.clone(),
            two_stage: two.method.clone(),
            speed: one.images_per_s / two.images_per_s,
            published_speed: published.map(|(one, two)| one.images_per_s / two.images_per_s),
            macs: two.macs as f64 / one.macs as f64,
        })
    };
    let one_stage = pairs().filter(|(system, _)| system.method == ONE_STAGE);
    one_stage.filter_map(|(_, row)| ratio(row)).collect()
}

impl BenchTable {
    /// Returns the table for people.
    fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "classes",
            "method",
            "pixels",
            "parameters, M",
            "published",
            "multiply-accumulates, G",
            "published",
            "images/s",
            "published",
            "most memory, MB",
        ]);
        for row in &self.rows {
            let published = |figure: fn(PublishedCost) -> f64| {
                let shown = |published| format!("{:.1}", figure(published));
                row.published.map(shown).unwrap_or_default()
            };
            table.add_row([
                format!("{} ({})", row.classes, row.dataset),
                row.method.clone(),
                format!("{0}×{0}", row.size),
                format!("{:.1}", row.parameters as f64 / 1e6),
                published(|cost| cost.parameters_m),
                format!("{:.1}", row.macs as f64 / 1e9),
                published(|cost| cost.macs_g),
                format!("{:.3}", row.images_per_s),
                published(|cost| cost.images_per_s),
                row.peak_mb
                    .map(|peak| format!("{peak:.0}"))
                    .unwrap_or_default(),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = format!(
            "{table}\n{}, {} threads, {}, {}: medians of {} runs, each model in a process of its own\npublished: {}\n",
            self.machine, self.threads, self.device, self.precision, self.runs, self.published_on
        );
        for ratio in &self.ratios {
            let published = ratio.published_speed;
            let published = published.map_or_else(String::new, |speed| {
                format!(" (published: {speed:.1} times)")
            });
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{}: {} is {:.1} times as fast as {}{published}; multiply-accumulates: 1 to {:.1}",
                ratio.dataset, ratio.one_stage, ratio.speed, ratio.two_stage, ratio.macs
            );
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<TableRow> {
        let program = Program::default();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("experiment.toml");
        let row = |system: &System| {
            std::fs::write(&path, system.text).unwrap();
            described(&program, system, &path).unwrap()
        };
        SYSTEMS.iter().map(row).collect()
    }

    /// The two-stage figures count other operations too, which adds up to 0.5 %.
    #[test]
    fn computed_costs_are_the_published_ones() {
        let rows = rows();
        assert_eq!(rows.len(), 6);
        let published = rows.iter().filter_map(|row| Some((row, row.published?)));
        for (row, published) in published {
            let millions = row.parameters as f64 / 1e6;
            assert!((millions - published.parameters_m).abs() < 0.06, "{row:?}");
            let giga = row.macs as f64 / 1e9;
            assert!((giga / published.macs_g - 1.0).abs() < 0.006, "{row:?}");
        }
        let classes: Vec<usize> = rows.iter().map(|row| row.classes).collect();
        assert_eq!(classes, [20, 20, 20, 171, 171, 171]);
    }

    #[test]
    fn the_ratio_is_that_of_one_stage_to_two_stages() {
        let mut rows = rows();
        for row in &mut rows {
            row.images_per_s = if row.method == "ZegFormer" { 0.5 } else { 4.0 };
        }
        let systems: Vec<&System> = SYSTEMS.iter().collect();
        let ratios = ratios(&systems, &rows);
        assert_eq!(ratios.len(), 2);
        for (ratio, published) in ratios.iter().zip([9.0 / 1.7, 6.7 / 1.5]) {
            assert!((ratio.speed - 8.0).abs() < 1e-12, "{ratio:?}");
            assert!((ratio.published_speed.unwrap() - published).abs() < 1e-12);
            assert!(ratio.macs > 15.0, "{ratio:?}");
        }
    }

    #[test]
    fn an_unknown_method_is_named_with_those_there_are() {
        let error = chosen(&["zegclp".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("zegclp"), "{error}");
        assert!(error.contains("clip-rc, zegclip, zegformer"), "{error}");
        assert_eq!(chosen(&["zegclip".to_owned()]).unwrap().len(), 2);
        assert_eq!(chosen(&[]).unwrap().len(), 6);
    }
}
