//! The program `zeg` as a library: arguments in, exit code out.
//!
//! `main.rs` is one call of [`main`]. Everything that is not the command line's own lives in the crates below.

mod allocator;
mod cli;
mod commands;
mod hints;
mod progress;
pub mod timing;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// Runs the program: parses its arguments, does what they say, prints errors with a hint.
pub fn main() -> ExitCode {
    allocator::keep_memory();
    let result = match Cli::parse().command {
        Command::Quickstart(args) => commands::quickstart::run(&args),
        Command::Pretrain(args) => commands::pretrain::run(&args),
        Command::Train(args) => commands::train::run(&args),
        Command::Ablate(args) => commands::ablate::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Data(args) => commands::data::run(&args),
        Command::Segment(args) => commands::segment::run(&args),
        Command::Models(args) => commands::models::run(&args),
        Command::Pull(args) => commands::pull::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Info(args) => commands::info::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Completions { shell } => {
            commands::completions(shell);
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        if is_broken_pipe(&error) {
            return ExitCode::SUCCESS; // the reader of a pipe had enough
        }
        eprintln!("error: {}", hints::describe(&error));
        if let Some(hint) = hints::hint(&error) {
            eprintln!("hint: {hint}");
        }
        ExitCode::FAILURE
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}
