//! `zeg-parity`: numbers of the reference implementations, recomputed and compared.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use zeg::DeviceChoice;
use zeg_parity::{Options, run};

/// Recomputes reference numbers and compares.
#[derive(Debug, Parser)]
#[command(name = "zeg-parity", version)]
struct Arguments {
    /// Files of reference numbers, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Folder whose `weights/` and `text/` the files name
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
