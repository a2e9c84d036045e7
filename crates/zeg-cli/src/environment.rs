//! Environment variables that stand for options: an empty one counts as unset, and errors name the variable.

use std::{env, ffi::OsString};

use zeg_kernels::{Level, UnknownLevel};

use clap::{
    Command,
    error::{ContextKind, ContextValue},
};

use crate::numbers::WrongArgument;

/// Lets options ignore their environment variables where these are set to an empty value.
pub(crate) fn ignore_empty_variables(command: Command) -> Command {
    command
        .mut_args(|arg| {
            let value = arg.get_env().and_then(env::var_os);
            if value.is_some_and(|value| value.is_empty()) {
                arg.env(None::<&'static str>)
            } else {
                arg
            }
        })
        .mut_subcommands(ignore_empty_variables)
}

/// Variable that names the vector instructions to use.
const CPU_LEVEL: &str = "ZEG_CPU_LEVEL";

/// Uses the vector instructions that the environment names, instead of the fastest of this machine.
///
/// # Errors
/// Returns an error if the machine does not have them.
pub(crate) fn choose_cpu_level() -> Result<(), WrongArgument> {
    let Some(name) = env::var_os(CPU_LEVEL).filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let level: Result<Level, UnknownLevel> = name.to_string_lossy().parse();
    let level = level.map_err(|error| WrongArgument(format!("{CPU_LEVEL}: {error}")))?;
    if !level.use_everywhere() {
        print_notice!(
            "warning: {CPU_LEVEL} = {} has no effect: this process computes at the level {} already",
            level.name(),
            Level::current().name()
        );
    }
    Ok(())
}

/// Adds the environment variable to an error about the value of an option that is not among the arguments.
pub(crate) fn name_variable(error: &mut clap::Error, command: &Command, arguments: &[OsString]) {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return;
    };
    // The option is described with its value, such as `--threads <N>`.
    let flag = option.split(' ').next().unwrap_or_default().to_owned();
    let is_given = arguments.iter().any(|argument| {
        let rest = argument.to_str().and_then(|text| text.strip_prefix(&flag));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    let Some(name) = flag
        .strip_prefix("--")
        .filter(|_| !is_given)
        .and_then(|long| variable_of(command, long))
    else {
        return;
    };
    let described = format!("{option} (from {name})");
    error.insert(ContextKind::InvalidArg, ContextValue::String(described));
}

/// Returns the environment variable of an option that is set, by the option's name without `--`.
fn variable_of(command: &Command, long: &str) -> Option<String> {
    let mut arguments = command.get_arguments();
    let own = arguments.find_map(|arg| {
        let name = arg.get_env().filter(|_| arg.get_long() == Some(long))?;
        env::var_os(name)?;
        Some(name.to_string_lossy().into_owned())
    });
    let mut commands = command.get_subcommands();
    own.or_else(|| commands.find_map(|command| variable_of(command, long)))
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;
    use crate::numbers::count;

    #[test]
    fn an_error_about_a_value_of_the_environment_names_the_variable() {
        // PATH is set everywhere, and no number.
        let threads = Arg::new("threads").long("threads").value_name("N");
        let threads = threads.env("PATH").value_parser(count);
        let command = Command::new("zeg").subcommand(Command::new("run").arg(threads));
        let message = |arguments: &[&str]| {
            let parsed = command.clone().try_get_matches_from(arguments);
            let mut error = parsed.unwrap_err();
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            name_variable(&mut error, &command, &arguments);
            error.to_string()
        };
        let text = message(&["zeg", "run"]);
        assert!(text.contains("'--threads <N> (from PATH)'"), "{text}");
        for given in [&["--threads", "x"][..], &["--threads=x"]] {
            let text = message(&[&["zeg", "run"][..], given].concat());
            assert!(text.contains("'--threads <N>'"), "{text}");
        }
    }
}
