//! `zeg models`: lists the weights that have a name, and which of them are downloaded.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;
use zeg_hub::{Cache, Registry, Row, rows, table};

use super::{JsonTarget, json::JsonArgs, shared::heading, write_result};
use crate::Program;

/// Arguments of `zeg models`.
#[derive(Debug, Args)]
#[command(after_help = "\
`zeg pull NAME` downloads a model. For models marked `by hand` it prints where to download them.
A file zeg/models.toml in the user's configuration folder, or the file in ZEG_MODELS, adds models.

Examples:
  zeg models
  zeg models --json | jq -r '.models[] | select(.presence == \"here\") | .path'")]
pub(crate) struct ModelsArgs {
    #[command(flatten)]
    json: JsonArgs,
    /// Folder of the downloads [default: ZEG_CACHE, or `zeg` in the user's cache folder]
    #[arg(long, value_name = "DIR", help_heading = heading::DATA)]
    cache: Option<PathBuf>,
}

/// Settings of `zeg models`.
#[derive(Debug)]
struct ModelsSettings {
    json: Option<JsonTarget>,
    cache: Option<PathBuf>,
}

impl ModelsArgs {
    /// # Errors
    /// Returns an error if the file of `--json` may not be written.
    fn settings(self) -> anyhow::Result<ModelsSettings> {
        Ok(ModelsSettings {
            json: self.json.target("models")?,
            cache: self.cache,
        })
    }
}

/// The models of the list.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ModelList {
    /// All models, in the order of the list.
    models: Vec<Row>,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<ModelList>("models")
}

pub(crate) fn run(_program: &Program, args: ModelsArgs) -> anyhow::Result<ExitCode> {
    list(&args.settings()?)?;
    Ok(ExitCode::SUCCESS)
}

fn list(settings: &ModelsSettings) -> anyhow::Result<()> {
    let registry = Registry::load()?;
    let cache = settings
        .cache
        .as_ref()
        .map_or_else(Cache::open, |dir| Ok(Cache::at(dir)))?;
    let list = ModelList {
        models: rows(&registry, &cache),
    };
    write_result(settings.json.as_ref(), &list, || {
        print_result!("{}", table(&list.models))
    })
}
