//! `zeg data`: data sets listed, prepared and examined.

mod doctor;
mod list;
mod prepare;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use self::prepare::hint;
use crate::{Program, progress::Verbosity};

/// Arguments of `zeg data`.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

/// What to do with a data set.
#[derive(Debug, Subcommand)]
enum DataCommand {
    /// List the data sets, their splits and class lists
    List(list::ListArgs),
    /// Look for everything that would spoil training or scores
    Doctor(doctor::DoctorArgs),
    /// Make a folder that training and scoring read from a data set's official download
    Prepare(prepare::PrepareArgs),
}

pub(crate) fn run(
    _program: &Program,
    args: DataArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    match args.command {
        DataCommand::List(args) => list::list(&args.settings()?),
        DataCommand::Doctor(args) => doctor::doctor(&args.settings(verbosity)?),
        DataCommand::Prepare(args) => prepare::prepare(&args.settings(verbosity)?),
    }
}
