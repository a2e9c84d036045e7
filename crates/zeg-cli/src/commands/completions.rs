//! `zeg completions`: prints the completion script of a shell.

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;
use serde::Serialize;

use super::{JsonTarget, json::JsonArgs, write_result};
use crate::{Program, say};

/// Arguments of `zeg completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg completions bash > ~/.local/share/bash-completion/completions/zeg
  zeg completions fish > ~/.config/fish/completions/zeg.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell that the script is for
    shell: Shell,
    #[command(flatten)]
    json: JsonArgs,
}

/// Settings of `zeg completions`.
#[derive(Debug)]
struct CompletionsSettings {
    shell: Shell,
    json: Option<JsonTarget>,
}

impl CompletionsArgs {
    /// # Errors
    /// Returns an error if the file of `--json` may not be written.
    fn settings(self) -> anyhow::Result<CompletionsSettings> {
        Ok(CompletionsSettings {
            shell: self.shell,
            json: self.json.target("completions")?,
        })
    }
}

/// The completion script of a shell.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct CompletionScript {
    /// Name of the shell.
    shell: String,
    /// Text of the script.
    script: String,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<CompletionScript>("completions")
}

pub(crate) fn run(_program: &Program, args: CompletionsArgs) -> anyhow::Result<ExitCode> {
    print(&args.settings()?)?;
    Ok(ExitCode::SUCCESS)
}

fn print(settings: &CompletionsSettings) -> anyhow::Result<()> {
    let mut text = Vec::new(); // clap panics if the output fails, and memory does not
    clap_complete::generate(settings.shell, &mut crate::command(), "zeg", &mut text);
    let output = CompletionScript {
        shell: settings.shell.to_string(),
        script: String::from_utf8_lossy(&text).into_owned(),
    };
    write_result(settings.json.as_ref(), &output, || {
        say::result_text(output.script.as_bytes())
    })
}
