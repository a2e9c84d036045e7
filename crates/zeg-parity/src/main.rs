//! Runs `zeg-parity`, which recomputes numbers of the reference implementations and compares them.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use zeg::DeviceChoice;
use zeg_parity::{Options, run};

/// Recomputes numbers of the reference implementations and compares them
#[derive(Debug, Parser)]
#[command(name = "zeg-parity", version)]
struct Arguments {
    /// Files of reference numbers, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Folder that contains the `weights/` and `text/` that the files name [default: the folders above each file]
    #[arg(long, value_name = "DIR")]
    assets: Option<PathBuf>,
    /// Device: cpu, cuda:N (build feature `cuda`) or webgpu (build feature `webgpu`)
    #[arg(long, value_name = "DEVICE", default_value_t, env = "ZEG_DEVICE")]
    device: DeviceChoice,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let device = match arguments.device.open() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let options = Options {
        device,
        assets: arguments.assets,
        planted: None,
    };
    match run(&arguments.paths, &options, &mut std::io::stdout()) {
        Ok(summary) if summary.passed() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
