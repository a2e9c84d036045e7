//! The document of a command that failed, written by one rule for all commands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::{JsonPlace, JsonRefused, JsonTarget, check_place};
use crate::{commands::interrupt, hints, say::StdoutError};

/// The document of a command that failed; the error stands on standard error as well.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct ErrorDocument {
    /// What went wrong.
    error: ErrorReport,
}

/// An error with its causes and the action to take.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ErrorReport {
    /// What went wrong.
    message: String,
    /// The causes, the nearest first; empty if the message says all.
    causes: Vec<String>,
    /// The action to take; null if there is none to suggest.
    hint: Option<String>,
    /// Exit code of the program: 1 if the work failed, 2 if the command line is wrong, 129, 130 or 143
    /// if a hangup, Ctrl-C or a request to terminate stopped it.
    exit_code: u8,
}

/// One of several things that failed, while the others did not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(crate) struct Failure {
    /// The file that failed.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    path: PathBuf,
    /// What went wrong, with the causes.
    message: String,
    /// The action to take; null if there is none to suggest.
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(path: &Path, error: &anyhow::Error) -> Self {
        Self {
            path: path.to_owned(),
            message: hints::describe(error),
            hint: hints::hint(error),
        }
    }

    /// Prints it as the program prints an error.
    pub(crate) fn print(&self) {
        print_notice!("error: {}", self.message);
        if let Some(hint) = &self.hint {
            print_notice!("hint: {hint}");
        }
    }
}

/// Returns the target that the arguments ask for with `--json`, even if they are wrong otherwise.
///
/// - `program`: the whole command line, for the names of the commands
/// - `arguments`: as typed; the first one is the name of the program
pub(crate) fn asked_for(program: &clap::Command, arguments: &[OsString]) -> Option<JsonTarget> {
    let typed: Vec<&OsString> = arguments
        .iter()
        .skip(1)
        .take_while(|argument| *argument != "--")
        .collect();
    let mut place = None;
    for (position, argument) in typed.iter().enumerate() {
        let Some(text) = argument.to_str() else {
            continue;
        };
        if text == "--json" {
            let is_value =
                |next: &&&OsString| **next == "-" || !next.to_string_lossy().starts_with('-');
            let value = typed.get(position + 1).filter(is_value);
            place = Some(value.map_or_else(|| PathBuf::from("-"), PathBuf::from));
        } else if let Some(value) = text.strip_prefix("--json=") {
            place = Some(PathBuf::from(value));
        }
    }
    let mut names = Vec::new();
    let mut command = program;
    let words = typed.iter().filter_map(|argument| argument.to_str());
    for word in words.filter(|word| !word.starts_with('-')) {
        let Some(found) = command.find_subcommand(word) else {
            break;
        };
        names.push(found.get_name());
        command = found;
    }
    Some(JsonTarget::new(names.join(" "), place?))
}

/// Writes the document of a command that failed, if JSON is asked for.
///
/// If the document cannot be written either, a warning says so: the error itself stands on standard error already.
pub(crate) fn report(json: Option<&JsonTarget>, error: &anyhow::Error, exit_code: u8) {
    // What was to be written is no longer readable, or must not be replaced.
    if error.is::<StdoutError>() || error.is::<JsonRefused>() {
        return;
    }
    write(
        json,
        ErrorReport {
            message: error.to_string(),
            causes: error.chain().skip(1).map(ToString::to_string).collect(),
            hint: hints::hint(error),
            exit_code,
        },
    );
}

/// Writes the document of a wrong command line, if JSON is asked for.
///
/// With a wrong command line, `--json` may have taken an input for its value; an input is no document, so it stays.
pub(crate) fn report_usage(json: Option<&JsonTarget>, error: &clap::Error, exit_code: u8) {
    let may_be_written = |json: &&JsonTarget| match &json.place {
        JsonPlace::Stdout | JsonPlace::Host => true,
        JsonPlace::File(path) => check_place(path, &json.command).is_ok(),
    };
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n").map(one_line);
    let message = paragraphs.next().unwrap_or_default();
    let hint = paragraphs.find_map(|paragraph| Some(paragraph.strip_prefix("tip: ")?.to_owned()));
    write(
        json.filter(may_be_written),
        ErrorReport {
            message: message.trim_start_matches("error: ").to_owned(),
            causes: Vec::new(),
            hint,
            exit_code,
        },
    );
}

/// Writes the document of a command that the user interrupted, if JSON is asked for, and returns its exit code.
pub(crate) fn stopped(json: Option<&JsonTarget>) -> ExitCode {
    write(
        json,
        ErrorReport {
            message: "interrupted".to_owned(),
            causes: Vec::new(),
            hint: None,
            exit_code: interrupt::code(),
        },
    );
    interrupt::exit_code()
}

fn write(json: Option<&JsonTarget>, error: ErrorReport) {
    let Some(json) = json else { return };
    if let Err(error) = json.write(&ErrorDocument { error }) {
        print_notice!(
            "warning: the error is not written as JSON: {}",
            hints::describe(&error)
        );
    }
}

/// Returns a text with its lines joined by spaces.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn target(typed: &[&str]) -> Option<JsonTarget> {
        let arguments: Vec<OsString> = ["zeg"].iter().chain(typed).map(OsString::from).collect();
        asked_for(&crate::command(), &arguments)
    }

    #[test]
    fn the_place_for_an_error_is_found_in_wrong_command_lines_too() {
        let at = |command: &str, path: &str| Some(JsonTarget::new(command.into(), path.into()));
        assert_eq!(target(&["info", "x.toml", "--json"]), at("info", "-"));
        assert_eq!(target(&["info", "--json", "--sett"]), at("info", "-"));
        assert_eq!(
            target(&["-q", "data", "list", "--json", "a.json"]),
            at("data list", "a.json")
        );
        assert_eq!(
            target(&["eval", "x", "--json=b.json"]),
            at("eval", "b.json")
        );
        assert_eq!(
            target(&["eval", "merge", "--json", "-", "x"]),
            at("eval merge", "-")
        );
        assert_eq!(target(&["segment", "--", "--json"]), None);
        assert_eq!(target(&["segment", "a.png"]), None);
    }

    #[test]
    fn an_error_document_holds_message_causes_and_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("error.json");
        let json = JsonTarget::new("info".to_owned(), path.clone());
        let error = Err::<(), _>(std::io::Error::other("no space"))
            .context("a.toml")
            .unwrap_err();
        report(Some(&json), &error, 1);
        let text = std::fs::read_to_string(&path).unwrap();
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "schema_version": 1,
            "command": "info",
            "error": { "message": "a.toml", "causes": ["no space"], "hint": null, "exit_code": 1 },
        });
        assert_eq!(document, expected);
    }

    /// In `zeg report --json scores/evaluation.json` the record is the value of `--json`.
    #[test]
    fn a_wrong_command_line_replaces_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("evaluation.json");
        std::fs::write(&path, "{}").unwrap();
        let error = crate::command()
            .try_get_matches_from(["zeg", "report"])
            .unwrap_err();
        let json = |path: &Path| JsonTarget::new("report".to_owned(), path.to_owned());
        report_usage(Some(&json(&path)), &error, 2);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}");
        // The result of an earlier run must not be taken for that of this one.
        let earlier = folder.path().join("earlier.json");
        let old = r#"{"schema_version": 1, "command": "report", "files": []}"#;
        std::fs::write(&earlier, old).unwrap();
        report_usage(Some(&json(&earlier)), &error, 2);
        let text = std::fs::read_to_string(&earlier).unwrap();
        assert!(text.contains("\"exit_code\": 2"), "{text}");
        let free = folder.path().join("free.json");
        report_usage(Some(&json(&free)), &error, 2);
        let text = std::fs::read_to_string(&free).unwrap();
        assert!(text.contains("\"exit_code\": 2"), "{text}");
        assert!(
            text.contains("\"message\": \"the following required"),
            "{text}"
        );
    }
}
