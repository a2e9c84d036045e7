//! The command reference, written from the command line's own description.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::pages::{assert_page, book, escaped};

/// Heading of options that have none of their own.
const OPTIONS: &str = "Options";

#[test]
fn the_command_reference_is_that_of_the_program() {
    let program = program();
    let mut index = String::from(
        "# Command reference\n\nEvery command prints its own help with `--help`; `zeg help COMMAND` does the same. \
         These pages hold the same text.\n\n| command | what it does |\n|---|---|\n",
    );
    let mut names = Vec::new();
    for command in commands(&program) {
        let name = command.get_name();
        writeln!(
            index,
            "| [`zeg {name}`]({name}.md) | {} |",
            cell(&about(command))
        )
        .unwrap();
        assert_page(&format!("reference/commands/{name}.md"), &page(command));
        names.push(format!("{name}.md"));
    }
    if let Some(after) = program.get_after_help() {
        write!(index, "\n```text\n{after}\n```\n").unwrap();
    }
    index.push_str("\nOptions that several commands share can be set in the environment; their pages name the variable.\n");
    assert_page("reference/commands/index.md", &index);
    names.push("index.md".to_owned());
    for file in std::fs::read_dir(book().join("reference/commands")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        assert!(
            names.contains(&file),
            "reference/commands/{file}: there is no such command"
        );
    }
}

/// The program's description with names and usages of all its parts filled in.
fn program() -> Command {
    let mut program = zeg_cli::command().term_width(10_000);
    program.build();
    program
}

/// Subcommands without `help`.
fn commands(command: &Command) -> impl Iterator<Item = &Command> {
    let listed = |sub: &&Command| sub.get_name() != "help" && !sub.is_hide_set();
    command.get_subcommands().filter(listed)
}

fn about(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    about.map(ToString::to_string).unwrap_or_default()
}

fn page(command: &Command) -> String {
    let mut out = String::new();
    section(&mut out, command, 1);
    out
}

/// A command, and after it its subcommands.
fn section(out: &mut String, command: &Command, level: usize) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let usage: Vec<&str> = usage.lines().map(str::trim).collect();
    let marks = "#".repeat(level);
    write!(out, "{marks} `{name}`\n\n{}.\n\n", escaped(&about(command))).unwrap();
    write!(out, "```text\n{}\n```\n\n", usage.join("\n")).unwrap();
    if let Some(after) = command.get_after_help() {
        after_help(out, &after.to_string(), &"#".repeat(level + 1));
    }
    let subcommands: Vec<&Command> = commands(command).collect();
    let heading = |out: &mut String, text: &str| write!(out, "{marks}# {text}\n\n").unwrap();
    let positionals: Vec<&Arg> = command
        .get_positionals()
        .filter(|arg| !arg.is_hide_set())
        .collect();
    if !positionals.is_empty() {
        heading(out, "Arguments");
        for arg in positionals {
            item(out, arg);
        }
        out.push('\n');
    }
    let mut groups: Vec<(&str, Vec<&Arg>)> = Vec::new();
    for arg in command.get_arguments() {
        if arg.is_positional() || arg.is_hide_set() || arg.get_id() == "help" {
            continue;
        }
        let group = arg.get_help_heading().unwrap_or(OPTIONS);
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, args)) => args.push(arg),
            None => groups.push((group, vec![arg])),
        }
    }
    for (name, args) in groups {
        heading(out, name);
        for arg in args {
            item(out, arg);
        }
        out.push('\n');
    }
    for sub in subcommands {
        section(out, sub, level + 1);
    }
}

/// Text behind the options, paragraph by paragraph: examples become a block of commands, lists keep their form.
fn after_help(out: &mut String, text: &str, marks: &str) {
    for paragraph in text.trim_end().split("\n\n") {
        if let Some(examples) = paragraph.strip_prefix("Examples:\n") {
            let lines: Vec<&str> = examples
                .lines()
                .map(|line| line.strip_prefix("  ").unwrap_or(line))
                .collect();
            write!(
                out,
                "{marks} Examples\n\n```sh\n{}\n```\n\n",
                lines.join("\n")
            )
            .unwrap();
        } else if paragraph.lines().any(|line| line.starts_with("  ")) {
            write!(out, "```text\n{paragraph}\n```\n\n").unwrap();
        } else {
            write!(out, "{}\n\n", escaped(paragraph)).unwrap();
        }
    }
}

/// An argument as an entry of a list.
fn item(out: &mut String, arg: &Arg) {
    let values: Vec<String> = arg
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|name| format!("<{name}>"))
        .collect();
    let takes_values = arg.get_action().takes_values();
    let values = if takes_values {
        values.join(" ")
    } else {
        String::new()
    };
    let optional = arg
        .get_num_args()
        .is_some_and(|range| range.min_values() == 0 && takes_values);
    let values = if optional {
        format!("[{values}]")
    } else {
        values
    };
    let mut names: Vec<String> = Vec::new();
    names.extend(arg.get_short().map(|short| format!("-{short}")));
    names.extend(arg.get_long().map(|long| format!("--{long}")));
    let many = if arg.is_positional() && matches!(arg.get_action(), ArgAction::Append) {
        "…"
    } else {
        ""
    };
    let names = [names.join(", "), values + many];
    let names = names.join(" ");
    let help = arg.get_long_help().or(arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let mut sentences = vec![escaped(&help).replace('\n', "\n  ")];
    if !arg.is_hide_default_value_set() && takes_values {
        let defaults = arg.get_default_values().iter();
        let defaults: Vec<_> = defaults
            .map(|value| format!("`{}`", value.to_string_lossy()))
            .collect();
        if !defaults.is_empty() {
            sentences.push(format!("Default: {}", defaults.join(", ")));
        }
    }
    if let Some(variable) = arg.get_env() {
        sentences.push(format!("Environment: `{}`", variable.to_string_lossy()));
    }
    let text = sentences.join(". ");
    writeln!(out, "- `{}`  \n  {text}", names.trim()).unwrap();
    if !takes_values || arg.is_hide_possible_values_set() {
        return;
    }
    for value in arg.get_possible_values() {
        let help = value
            .get_help()
            .map(|help| format!(": {}", escaped(&help.to_string())));
        writeln!(
            out,
            "  - `{}`{}",
            value.get_name(),
            help.unwrap_or_default()
        )
        .unwrap();
    }
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    escaped(text).replace('|', "\\|")
}
