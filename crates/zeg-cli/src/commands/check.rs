//! `zeg check`: checks that this machine computes every method correctly, and measures how fast.

use std::process::ExitCode;

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use zeg::{
    check::{CaseReport, Machine, Trial, cases},
    model::method::ExampleSize,
};

use super::{
    JsonTarget,
    json::JsonArgs,
    machine,
    shared::{ComputeArgs, ComputeSettings, PrecisionArgs, heading},
    write_result,
};
use crate::{Program, progress::Verbosity, say::StdoutError};

/// Arguments of `zeg check`.
#[derive(Debug, Args)]
#[command(after_help = "\
The check needs no files: weights, image and class embeddings are generated. Every method is
computed in a small and in its published size, on the chosen device and by a reference path
without the program's own kernels. The deviation is the largest difference between the two,
relative to the root mean square. The exit code is 1 if a deviation exceeds its limit, or if a
second computation gives other bits. With --quiet only the verdict is printed.

Examples:
  zeg check
  zeg check --precision int8
  zeg check --device cuda:0 --json | jq .passed")]
pub(crate) struct CheckArgs {
    /// Size of the models [default: both sizes]
    #[arg(long, value_enum, help_heading = heading::MODEL)]
    size: Option<SizeArg>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// An [`ExampleSize`] as a value of `--size`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum SizeArg {
    /// Small models, milliseconds each
    Small,
    /// Models as published, seconds each
    Published,
}

/// Settings of `zeg check`.
#[derive(Debug)]
struct CheckSettings {
    sizes: Vec<ExampleSize>,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
    precision: zeg::model::Precision,
    compute: ComputeSettings,
}

impl CheckArgs {
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<CheckSettings> {
        Ok(CheckSettings {
            sizes: match self.size {
                Some(SizeArg::Small) => vec![ExampleSize::Small],
                Some(SizeArg::Published) => vec![ExampleSize::Published],
                None => ExampleSize::ALL.to_vec(),
            },
            json: self.json.target("check")?,
            verbosity,
            precision: self.precision.value(),
            compute: self.compute.settings(),
        })
    }
}

/// The result: the machine and the deviation of every case.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct CheckReport {
    /// Program and version, as `zeg 0.1.0`.
    program: &'static str,
    /// System, architecture and processor.
    machine: String,
    #[serde(flatten)]
    found: Machine,
    /// Device of the computation, as `--device` names it.
    device: String,
    /// Arithmetic of the encoder: `f32`, `bf16` or `int8`.
    precision: String,
    /// Every method at every size.
    cases: Vec<CaseReport>,
    /// Whether every case passed.
    passed: bool,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<CheckReport>("check")
}

pub(crate) fn run(
    program: &Program,
    args: CheckArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    let settings = args.settings(verbosity)?;
    let report = check(program, &settings)?;
    write_result(settings.json.as_ref(), &report, || match verbosity {
        Verbosity::Normal | Verbosity::Verbose => print(&report),
        Verbosity::Quiet => print_result!("{}", verdict(&report)),
    })?;
    Ok(exit_code(&report))
}

/// Returns exit code 1 if a case failed.
fn exit_code(report: &CheckReport) -> ExitCode {
    if report.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn check(program: &Program, settings: &CheckSettings) -> anyhow::Result<CheckReport> {
    let device = settings.compute.open_device()?;
    let found = Machine::found(&device);
    let trial = Trial {
        device,
        precision: settings.precision,
    };
    let list = cases(&program.methods, &settings.sizes)?;
    let bar = settings
        .verbosity
        .progress("checking", "models", list.len() as u64);
    let mut cases = Vec::with_capacity(list.len());
    for case in &list {
        bar.set_message(format!("{}, {}", case.method, case.size.name()));
        cases.push(trial.run(case)?);
        bar.inc();
    }
    bar.finish();
    Ok(CheckReport::new(settings, found, cases))
}

impl CheckReport {
    fn new(settings: &CheckSettings, found: Machine, cases: Vec<CaseReport>) -> Self {
        Self {
            program: concat!("zeg ", env!("CARGO_PKG_VERSION")),
            machine: machine::name(),
            found,
            device: settings.compute.device.to_string(),
            precision: settings.precision.to_string(),
            passed: !cases.is_empty() && cases.iter().all(|case| case.passed),
            cases,
        }
    }
}

/// Returns the last line of the text: the verdict.
fn verdict(report: &CheckReport) -> String {
    let failed = report.cases.iter().filter(|case| !case.passed).count();
    if report.passed {
        format!("check: PASS {} cases", report.cases.len())
    } else {
        format!("check: FAIL {failed} of {} cases", report.cases.len())
    }
}

fn print(report: &CheckReport) -> Result<(), StdoutError> {
    let found = &report.found;
    print_result!("{} on {}", report.program, report.machine)?;
    print_result!("instructions  {}", found.features.join(", "))?;
    print_result!("threads       {} on {} cores", found.threads, found.cores)?;
    print_result!(
        "devices       {}; computing on {}",
        found.devices.join(", "),
        report.device
    )?;
    print_result!(
        "kernels       {} (of {})",
        found.kernels,
        found.levels.join(", ")
    )?;
    if let Some(integers) = &found.integers {
        print_result!("8-bit         {integers}")?;
    }
    print_result!("precision     {}", report.precision)?;
    print_result!("")?;
    print_result!("{}", table(&report.cases))?;
    print_result!("{}", verdict(report))?;
    Ok(())
}

fn table(cases: &[CaseReport]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header([
        "method",
        "size",
        "pixels",
        "deviation",
        "limit",
        "seconds",
        "reference",
        "speed-up",
        "",
    ]);
    for case in cases {
        let deviation = case.deviation.map_or_else(
            || "not finite".to_owned(),
            |deviation| format!("{deviation:.1e}"),
        );
        let verdict = match (case.passed, case.repeats) {
            (true, _) => "ok",
            (false, true) => "DEVIATES",
            (false, false) => "CHANGES",
        };
        table.add_row([
            case.method.to_owned(),
            case.size.to_owned(),
            format!("{0}×{0}", case.side),
            deviation,
            format!("{:.0e}", case.limit),
            format!("{:.3}", case.seconds),
            format!("{:.3}", case.plain_seconds),
            format!("{:.1}×", case.plain_seconds / case.seconds),
            verdict.to_owned(),
        ]);
    }
    for column in 2..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use zeg::{DeviceChoice, model::Precision};

    use super::*;

    fn report(cases: Vec<CaseReport>) -> CheckReport {
        let settings = CheckSettings {
            sizes: Vec::new(),
            json: None,
            verbosity: Verbosity::Normal,
            precision: Precision::Float,
            compute: ComputeSettings {
                device: DeviceChoice::Cpu,
                threads: None,
            },
        };
        CheckReport::new(&settings, Machine::found(&Device::flex()), cases)
    }

    #[test]
    fn a_deviation_a_result_that_changes_and_no_case_at_all_fail() {
        let case = |deviation, repeats, passed| CaseReport {
            method: "a-method",
            size: "small",
            side: 64,
            classes: 20,
            deviation,
            limit: 1e-4,
            repeats,
            seconds: 1.0,
            plain_seconds: 2.0,
            passed,
        };
        let good = || case(Some(1e-6), true, true);
        let passed = report(vec![good()]);
        assert_eq!(exit_code(&passed), ExitCode::SUCCESS);
        assert_eq!(verdict(&passed), "check: PASS 1 cases");
        for (bad, word) in [
            (case(Some(0.1), true, false), "DEVIATES"),
            (case(None, true, false), "not finite"),
            (case(Some(1e-6), false, false), "CHANGES"),
        ] {
            let failed = report(vec![good(), bad]);
            assert_eq!(exit_code(&failed), ExitCode::FAILURE);
            assert_eq!(verdict(&failed), "check: FAIL 1 of 2 cases");
            assert!(table(&failed.cases).to_string().contains(word));
        }
        assert_eq!(exit_code(&report(Vec::new())), ExitCode::FAILURE);
    }
}
