//! The commands of README: every one is a valid command line, and those that need no download are run.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use assert_cmd::Command;

/// Commands that need neither a download nor data and are done within seconds.
const RUN: [&str; 1] = ["info"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Returns the `zeg` commands in the shell blocks of a page, split into arguments.
fn commands(page: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut is_shell = false;
    for line in page.lines() {
        match line.trim() {
            "```sh" => is_shell = true,
            "```" => is_shell = false,
            text if is_shell => lines.push(text.to_owned()),
            _ => {}
        }
    }
    let joined = lines.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .map(|line| split(line.split(" #").next().unwrap_or_default()))
        .filter_map(|words| match words.first()?.as_str() {
            "zeg" => Some(words),
            // `cargo run --release -- quickstart` runs `zeg quickstart`.
            "cargo" => {
                let start = words.iter().position(|word| word == "--")?;
                let arguments = words[start + 1..].iter().cloned();
                Some(std::iter::once("zeg".to_owned()).chain(arguments).collect())
            }
            _ => None,
        })
        .collect()
}

/// Splits a line at spaces outside double quotes.
fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(letter),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn every_command_of_readme_is_valid_and_names_experiments_that_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let commands = commands(&readme);
    assert!(commands.len() >= 9, "{commands:?}");
    for words in &commands {
        if let Err(error) = zeg_cli::command().try_get_matches_from(words) {
            panic!("{}: {error}", words.join(" "));
        }
        for file in words.iter().filter(|word| word.starts_with("configs/")) {
            assert!(root().join(file).is_file(), "{file}");
        }
    }
}

#[test]
fn the_commands_of_readme_that_need_no_download_run() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let commands = commands(&readme);
    let mut ran = 0;
    for words in commands
        .iter()
        .filter(|words| RUN.contains(&words[1].as_str()))
    {
        let mut zeg = Command::cargo_bin("zeg").unwrap();
        zeg.current_dir(root()).args(&words[1..]).assert().success();
        ran += 1;
    }
    assert!(ran >= 1);
    // The quickstart is run by a test of its own, with fewer steps.
    assert!(commands.iter().any(|words| words[1] == "quickstart"));
}

#[test]
fn readme_is_short() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 200);
}
