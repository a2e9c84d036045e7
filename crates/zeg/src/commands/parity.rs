//! `zeg parity`: reference numbers, recomputed and compared.

use std::process::ExitCode;

use zeg::parity::{Options, run as compare};

use super::open_device;
use crate::cli::ParityArgs;

pub(crate) fn run(args: &ParityArgs) -> anyhow::Result<ExitCode> {
    let options = Options {
        device: open_device(&args.compute)?,
        assets: args.assets.clone(),
    };
    let summary = compare(&args.paths, &options, &mut std::io::stdout())?;
    Ok(if summary.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
