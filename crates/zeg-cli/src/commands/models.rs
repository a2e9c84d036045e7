//! `zeg models`: lists the weights that have a name, and which of them are downloaded.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use zeg_hub::{Cache, Registry, rows, table};

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
    let rows = rows(&registry, &cache);
    let document = serde_json::json!({ "models": rows });
    write_result(settings.json.as_ref(), &document, || {
        print_result!("{}", table(&rows))
    })
}
