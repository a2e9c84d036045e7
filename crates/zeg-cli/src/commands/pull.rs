//! `zeg pull`: downloads public weights by name.

use std::{path::PathBuf, process::ExitCode, sync::atomic::AtomicBool};

use clap::Args;
use serde::Serialize;
use zeg_base::plural::counted;
use zeg_hub::{
    Cache, Entry, Event, HubError, Missing, Network, Proof, Pulled, Registry, Settings, human_size,
    missing, pull,
};

use super::{
    JsonTarget,
    json::{self, Failure, JsonArgs},
    shared::heading,
    stop_flag,
};
use crate::{
    Program,
    progress::{Progress, Verbosity},
};

/// Arguments of `zeg pull`.
#[derive(Debug, Args)]
#[command(after_help = "\
The command prints the path of each model's weights. Files that are downloaded already are not
downloaded again, and a download that was stopped continues where it ended.

Environment:
  ZEG_CACHE                     folder of the downloads, unless --cache names one
  ZEG_OFFLINE, HF_HUB_OFFLINE   1 has the effect of --offline
  ZEG_BASE_URL                  has the effect of --base-url
  HF_ENDPOINT                   address that replaces huggingface.co
  HF_TOKEN                      access token, which is sent to that address only
  ZEG_MODELS                    file with a list of further models
  HTTPS_PROXY, NO_PROXY         proxy servers
  SSL_CERT_FILE                 certificates to trust instead of the built-in ones

Examples:
  zeg pull clip-vit-b-16
  weights=$(zeg pull clip-vit-b-16)
  zeg pull clip-vit-b-16 clip-vit-l-14 --base-url http://mirror.example/weights")]
pub(crate) struct PullArgs {
    /// Names of models; `zeg models` lists them
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do not use the network; print the paths of downloaded models only
    #[arg(long, help_heading = heading::DATA)]
    offline: bool,
    /// Address that replaces scheme and host of every download, for a mirror
    #[arg(long, value_name = "URL", help_heading = heading::DATA)]
    base_url: Option<String>,
    /// Folder of the downloads [default: ZEG_CACHE, or `zeg` in the user's cache folder]
    #[arg(long, value_name = "DIR", help_heading = heading::DATA)]
    cache: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArgs,
}

/// Settings of `zeg pull`.
#[derive(Debug)]
struct PullSettings {
    names: Vec<String>,
    cache: Option<PathBuf>,
    network: Settings,
    json: Option<JsonTarget>,
    verbosity: Verbosity,
}

impl PullArgs {
    /// # Errors
    /// Returns an error if an environment variable or an address is invalid, or if the file of `--json` may not be
    /// written.
    fn settings(self, verbosity: Verbosity) -> anyhow::Result<PullSettings> {
        let mut network = Settings::from_env()?;
        if self.offline {
            network.network = Network::Offline;
        }
        if let Some(address) = &self.base_url {
            network.set_base_url("--base-url", address)?;
        }
        Ok(PullSettings {
            names: self.names,
            cache: self.cache,
            network,
            json: self.json.target("pull")?,
            verbosity,
        })
    }
}

/// A model with its files that are not downloaded yet.
struct Planned<'a> {
    entry: &'a Entry,
    missing: Vec<Missing>,
}

/// The models that are downloaded now.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct PullOutput {
    /// The models, in the order of their names on the command line.
    models: Vec<Pulled>,
    /// The models that could not be downloaded, with their names as paths.
    failed: Vec<Failure>,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<PullOutput>("pull")
}

pub(crate) fn run(
    _program: &Program,
    args: PullArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    fetch(&args.settings(verbosity)?)
}

fn fetch(settings: &PullSettings) -> anyhow::Result<ExitCode> {
    let registry = Registry::load()?;
    let cache = settings
        .cache
        .as_ref()
        .map_or_else(Cache::open, |dir| Ok(Cache::at(dir)))?;
    let network = &settings.network;
    // Names that are unknown, or cannot be downloaded by a program, are reported before the first download.
    let mut plans: Vec<Planned> = Vec::new();
    for name in &settings.names {
        let entry = registry.find(name)?;
        if plans.iter().all(|planned| planned.entry.name != entry.name) {
            let missing = missing(entry, &cache, network)?;
            plans.push(Planned { entry, missing });
        }
    }
    let verbosity = settings.verbosity;
    let stop = stop_flag();
    let (mut pulled, mut failed) = (Vec::new(), Vec::new());
    let all = plans.len();
    for Planned { entry, missing } in plans {
        if missing.is_empty() {
            verbosity.notice(format_args!("{}: downloaded already", entry.name));
        } else if network.network == Network::Online {
            announce(entry, &missing, verbosity);
        }
        match download(entry, &cache, settings, &stop) {
            Ok(model) => {
                if !settings.json.as_ref().is_some_and(JsonTarget::is_stdout) {
                    print_result!("{}", model.path.display())?;
                }
                pulled.push(model);
            }
            Err(error @ HubError::Cancelled { .. }) => {
                print_notice!("{error}");
                return Ok(json::stopped(settings.json.as_ref()));
            }
            // A single model that fails is an error with a document of its own.
            Err(error) if all == 1 => return Err(error.into()),
            Err(error) => {
                let error = anyhow::Error::from(error);
                crate::hints::print(&error);
                failed.push(Failure::new(entry.name.as_ref(), &error));
            }
        }
    }
    let output = PullOutput {
        models: pulled,
        failed,
    };
    if let Some(json) = &settings.json {
        json.write(&output)?;
    }
    if output.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    print_notice!(
        "error: {} of {} could not be downloaded",
        output.failed.len(),
        counted(all, "model")
    );
    Ok(ExitCode::FAILURE)
}

/// Prints which files will be downloaded, their sizes and their addresses.
fn announce(entry: &Entry, missing: &[Missing], verbosity: Verbosity) {
    verbosity.notice(format_args!(
        "{}: {}; licence: {}",
        entry.name, entry.about, entry.licence
    ));
    for file in missing {
        let size = file.size.map_or_else(|| "size unknown".into(), human_size);
        let begun = match file.begun {
            0 => String::new(),
            bytes => format!(", of which {} is downloaded already", human_size(bytes)),
        };
        verbosity.notice(format_args!(
            "  {} ({size}{begun}) from {}",
            file.file, file.address
        ));
    }
}

/// Downloads the missing files of a model.
fn download(
    entry: &Entry,
    cache: &Cache,
    settings: &PullSettings,
    stop: &AtomicBool,
) -> Result<Pulled, HubError> {
    let progress = settings.verbosity.byte_progress("pulling");
    let result = pull(entry, cache, &settings.network, stop, &mut |event| {
        show(&progress, settings.verbosity, event);
    });
    progress.finish();
    result
}

/// Shows an event of a download.
fn show(progress: &Progress, verbosity: Verbosity, event: &Event<'_>) {
    let notice = |text: String| progress.suspend(|| verbosity.notice(text));
    match *event {
        Event::Waiting => {
            notice("waiting for another process that downloads this model".into());
        }
        Event::Started { done, total, .. } => progress.restart(done, total),
        Event::Progress { done, total, .. } => {
            if let Some(total) = total {
                progress.set_length(total);
            }
            progress.set_position(done);
        }
        Event::Retrying {
            file,
            reason,
            pause,
        } => notice(format!(
            "  {file}: {reason}; trying again in {:.1} s",
            pause.as_secs_f64()
        )),
        Event::Finished { record } => {
            let proof = match record.proof {
                Proof::Published => "the published one",
                Proof::Server => "the one that Hugging Face announced",
                Proof::FirstUse => "that of the first download",
                Proof::None => "none is published; recorded from now on",
            };
            notice(format!(
                "  {} ({}), SHA-256 {} ({proof})",
                record.name,
                human_size(record.size),
                record.sha256
            ));
        }
        _ => {}
    }
}

/// Returns the hint for an error of the registry or of a download.
pub(crate) fn hint(error: &HubError) -> Option<String> {
    Some(match error {
        HubError::UnknownModel {
            closest: Some(closest),
            ..
        } => format!("did you mean {closest}?"),
        HubError::UnknownModel { .. } => "`zeg models` lists the names".into(),
        HubError::Manual { steps, .. } => steps.clone(),
        HubError::NoFolder => "name one with --cache or ZEG_CACHE".into(),
        HubError::Offline { .. } => {
            "run without --offline, ZEG_OFFLINE and HF_HUB_OFFLINE, or copy the model's folder from another machine"
                .into()
        }
        HubError::Status {
            status: 401 | 403, ..
        } => "set HF_TOKEN if the owner asks for a token, or put the password of the proxy into HTTPS_PROXY".into(),
        HubError::Status { status: 404, .. } => {
            "the file has moved; name a mirror with --base-url, or its new address in a model list of your own (ZEG_MODELS)"
                .into()
        }
        HubError::Content { .. } => {
            "a proxy or mirror answers in place of the server; sign in to it, or name a mirror with --base-url".into()
        }
        HubError::Busy { .. } => "try again later; the download continues where it ended".into(),
        HubError::Status { .. } | HubError::Unreachable { .. } => {
            "check the connection, HTTPS_PROXY and SSL_CERT_FILE, or name a mirror with --base-url; the download continues \
             where it ended"
                .into()
        }
        HubError::Length { .. } | HubError::Digest { .. } | HubError::Changed { .. } => {
            "the file differs from the one in the model list; a mirror or proxy may have changed it. To accept a new \
             version, delete the folder of the model and put the new digest into a model list of your own (ZEG_MODELS)"
                .into()
        }
        HubError::DiskFull { .. } => "free some disk space, or name another folder with --cache; the download continues where it ended".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_hinted_at() {
        let registry = Registry::built_in().unwrap();
        let hint_for = |name: &str| hint(&registry.find(name).unwrap_err());
        assert_eq!(
            hint_for("clip-vit-b16").as_deref(),
            Some("did you mean clip-vit-b-16?")
        );
        assert_eq!(
            hint_for("a photograph of a dog").as_deref(),
            Some("`zeg models` lists the names")
        );
    }
}
