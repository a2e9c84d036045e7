//! `zeg models`: which weights can be named, and which are here.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;
use zeg_hub::{Cache, Registry, rows, table};

use crate::Program;

/// Arguments of `zeg models`.
#[derive(Debug, Args)]
#[command(after_help = "\
`zeg pull NAME` downloads a model; those marked `by hand` say where to click instead.
A file zeg/models.toml in the user's folder of configurations, or the file that
ZEG_MODELS names, adds models.

Examples:
  zeg models
  zeg models --json | jq -r '.[] | select(.presence == \"here\") | .path'")]
pub(crate) struct ModelsArgs {
    /// Print JSON: addresses, digests and paths too
    #[arg(long)]
    json: bool,
    /// Folder of downloads [default: ZEG_CACHE, or zeg in the system's folder for caches]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// Which cache is looked at, and how the list is printed.
#[derive(Debug)]
struct ModelsSettings {
    json: bool,
    cache: Option<PathBuf>,
}

impl ModelsArgs {
    fn settings(self) -> ModelsSettings {
        ModelsSettings {
            json: self.json,
            cache: self.cache,
        }
    }
}

pub(crate) fn run(_program: &Program, args: ModelsArgs) -> anyhow::Result<ExitCode> {
    list(&args.settings())?;
    Ok(ExitCode::SUCCESS)
}

fn list(settings: &ModelsSettings) -> anyhow::Result<()> {
    let registry = Registry::load()?;
    let cache = settings
        .cache
        .as_ref()
        .map_or_else(Cache::open, |dir| Ok(Cache::at(dir)))?;
    let rows = rows(&registry, &cache);
    let text = if settings.json {
        serde_json::to_string_pretty(&rows)?
    } else {
        table(&rows)
    };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}
