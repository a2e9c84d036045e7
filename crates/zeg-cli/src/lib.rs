//! The program `zeg` as a library: arguments in, exit code out.
//!
//! `main.rs` is one call of [`main`]. Everything that is not the command line's own lives in the crates below. Every
//! command has its arguments, as typed, and its settings, as meant; only its `run` knows both.

mod allocator;
mod cli;
mod commands;
mod hints;
mod program;
mod progress;
mod renamed_flags;
#[cfg(feature = "schema")]
pub mod schema;
pub mod timing;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;

use cli::{Cli, Command};
pub use program::Program;

/// Returns the command line as clap describes it. The command reference of the book is written from it.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program as the process's own: its arguments are those of the process.
pub fn main() -> ExitCode {
    allocator::keep_memory();
    main_with(&Program::default(), std::env::args_os())
}

/// Runs the program: parses its arguments, does what they say, prints errors with a hint.
///
/// - `arguments`: the first is the program's name
pub fn main_with<I, T>(program: &Program, arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    let modern = renamed_flags::modernize(arguments.into_iter().map(Into::into));
    for notice in &modern.notices {
        eprintln!("warning: {notice}");
    }
    let cli = match Cli::try_parse_from(modern.arguments) {
        Ok(cli) => cli,
        // Help and version come this way, too. A closed pipe is no reason to complain.
        Err(error) => {
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let result = match cli.command {
        Command::Quickstart(args) => commands::quickstart::run(program, args),
        Command::Pretrain(args) => commands::pretrain::run(program, args),
        Command::Train(args) => commands::train::run(program, args),
        Command::Ablate(args) => commands::ablate::run(program, args),
        Command::Eval(args) => commands::eval::run(program, args),
        Command::Report(args) => commands::report::run(program, args),
        Command::Data(args) => commands::data::run(program, args),
        Command::Segment(args) => commands::segment::run(program, args),
        Command::Models(args) => commands::models::run(program, args),
        Command::Pull(args) => commands::pull::run(program, args),
        Command::Import(args) => commands::import::run(program, args),
        Command::Info(args) => commands::info::run(program, args),
        Command::Bench(args) => commands::bench::run(program, args),
        Command::Check(args) => commands::check::run(program, args),
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
