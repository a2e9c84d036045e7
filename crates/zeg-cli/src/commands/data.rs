//! `zeg data`: lists, checks and prepares data sets.

mod doctor;
mod examples;
mod list;
mod prepare;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use self::prepare::hint;
#[cfg(feature = "schema")]
pub(crate) use self::{
    doctor::output_schema as doctor_output_schema, list::output_schema as list_output_schema,
    prepare::output_schema as prepare_output_schema,
};
use crate::{Program, progress::Verbosity};

/// Arguments of `zeg data`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg data list
  zeg data prepare voc12 --from downloads -o data/voc12
  zeg data doctor voc12 --data data/voc12")]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

/// The subcommands of `zeg data`.
#[derive(Debug, Subcommand)]
enum DataCommand {
    /// List the known data sets with their splits and class lists
    List(list::ListArgs),
    /// Check a data set for problems that would spoil training or scores
    Doctor(doctor::DoctorArgs),
    /// Convert the official download of a data set to the folder that training and scoring read
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
