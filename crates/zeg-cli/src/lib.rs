//! The program `zeg` as a library: it takes arguments and returns an exit code.
//!
//! `main.rs` is one call of [`main`]. This crate holds what belongs to the command line; everything else lives in the
//! crates below it. Every command has a struct of arguments, as the user types them, and a struct of settings, which
//! say what the arguments mean; only the command's `run` function knows both.
//!
//! ```
//! let command = zeg_cli::command();
//! assert!(command.find_subcommand("segment").is_some());
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic; `say` has what takes their place

#[macro_use]
mod say;

mod allocator;
mod cli;
mod commands;
mod environment;
mod hints;
pub mod host;
mod numbers;
mod program;
mod progress;
mod ranks;
mod renamed_flags;
#[cfg(feature = "schema")]
pub mod schema;
pub mod timing;

use std::{ffi::OsString, process::ExitCode, time::Instant};

use clap::FromArgMatches as _;

use cli::{Cli, Command};
use commands::json;
pub use program::Program;
use progress::Verbosity;
use zeg_base::ranks::Ranks;

/// Returns the command line as clap describes it. The command reference of the book is written from it.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    allocator::keep_memory();
    main_with(&Program::default(), std::env::args_os())
}

/// Runs the command that the arguments name, and prints an error with a hint if it fails; with `--json` as a document,
/// too.
///
/// - `program`: the methods and recipes that the program knows
/// - `arguments`: the first one is the name of the program
///
/// Returns exit code 0 for success, 1 if the work failed, 2 if the command line is wrong, and 129, 130 or 143 if it was
/// stopped by a hangup, by Ctrl-C or by a request to terminate.
pub fn main_with<I, T>(program: &Program, arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString>,
{
    if !host::is_called() {
        commands::interrupt::begin();
    }
    ranks::mute_others();
    let modern = renamed_flags::modernize(arguments.into_iter().map(Into::into));
    for notice in &modern.notices {
        print_notice!("warning: {notice}");
    }
    let json = json::asked_for(&command(), &modern.arguments);
    let command = numbers::accept_negative_numbers(Cli::grouped_command());
    let command = environment::ignore_empty_variables(command);
    let given = modern.arguments;
    let parsed = command.try_get_matches_from(&given);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        // Help and version arrive here as well. A closed pipe is not reported.
        Err(mut error) => {
            environment::name_variable(&mut error, &self::command(), &given);
            if !say::is_mute() && !host::is_called() {
                let _ = error.print();
            }
            let code = u8::try_from(error.exit_code()).unwrap_or(1);
            if code != 0 {
                json::report_usage(json.as_ref(), &error, code);
            }
            return ExitCode::from(code);
        }
    };
    let verbosity = Verbosity::of_flags(cli.quiet, cli.verbose);
    let started = Instant::now();
    verbosity.detail(format_args!(
        "zeg {} on {}, {} threads",
        env!("CARGO_PKG_VERSION"),
        commands::machine::name(),
        std::thread::available_parallelism().map_or(1, usize::from)
    ));
    let ranks = match ranks::open(&cli.command, json.as_ref()) {
        Ok(ranks) => ranks,
        Err(error) => {
            if !host::is_called() {
                hints::print(&error);
            }
            let code = hints::exit_code(&error);
            json::report(json.as_ref(), &error, code);
            return ExitCode::from(code);
        }
    };
    // The first rank prints for all.
    let verbosity = if ranks.is_first() {
        verbosity
    } else {
        Verbosity::Quiet
    };
    let result = run(program, cli.command, verbosity, &ranks);
    let code = ranks::finish(&ranks, result, json.as_ref(), |error| {
        for cause in error.chain().skip(1) {
            verbosity.detail(format_args!("cause: {cause}"));
        }
    });
    verbosity.detail(timing::used_text(started.elapsed()));
    code
}

fn run(
    program: &Program,
    command: Command,
    verbosity: Verbosity,
    ranks: &Ranks,
) -> anyhow::Result<ExitCode> {
    environment::choose_cpu_level()?;
    match command {
        Command::Quickstart(args) => commands::quickstart::run(program, args, verbosity),
        Command::Pretrain(args) => commands::pretrain::run(program, args, verbosity),
        Command::Visualize(args) => commands::visualize::run(program, args, verbosity),
        Command::Train(args) => commands::train::run(program, args, verbosity, ranks),
        Command::Ablate(args) => commands::ablate::run(program, args, verbosity),
        Command::Eval(args) => commands::eval::run(program, args, verbosity, ranks),
        Command::Report(args) => commands::report::run(program, args),
        Command::Data(args) => commands::data::run(program, args, verbosity),
        Command::Segment(args) => commands::segment::run(program, args, verbosity, ranks),
        Command::Serve(args) => commands::serve::run(program, args, verbosity),
        Command::Models(args) => commands::models::run(program, args),
        Command::Pull(args) => commands::pull::run(program, args, verbosity),
        Command::Import(args) => commands::import::run(program, args, verbosity),
        Command::Embed(args) => commands::embed::run(program, args, verbosity),
        Command::Export(args) => commands::export::run(program, args, verbosity),
        Command::Info(args) => commands::info::run(program, args),
        Command::Bench(args) => commands::bench::run(program, args, verbosity),
        Command::Check(args) => commands::check::run(program, args, verbosity),
        Command::Completions(args) => commands::completions::run(program, args),
    }
}
