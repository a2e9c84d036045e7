//! `zeg serve`: an HTTP API, a web page and a backend for annotation tools.

mod args;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;
use zeg::{Segmenter, model::embeddings::EmbeddingTable, vocab::classes::ClassQuery};
use zeg_base::{paths, plural::counted};
use zeg_serve::{Ending, Models, ServedModel, Stop, TokenError, remove_left_behind, serve};

pub(crate) use self::args::ServeArgs;
use self::args::{NamedModel, Opening, ServeSettings};
use super::{
    interrupt,
    model_file::{SegmenterSettings, open_segmenter},
    shared::{CacheUse, ModelSettings, encode_examples},
    write_result,
};
use crate::{Program, progress::Verbosity};

/// Most images that are worked on at the same time, unless more are asked for: each may have `--max-pixels`.
const MOST_WORKERS: usize = 8;

/// A problem of starting the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The port is taken, or may not be used.
    #[error("{address}: the server cannot listen there: {source}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The file holds no token.
    #[error("{}: {reason}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: TokenError,
    },
}

impl ServeError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "choose another port with --port; 0 takes a free one",
            Self::Token { .. } => "`openssl rand -hex 32 > FILE` writes a good one",
        }
    }
}

/// The server as `--json` describes it, when it is ready.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct Served {
    /// Address of the page; that of the API begins with it.
    address: String,
    /// The models, the default first.
    models: Vec<ServedFile>,
    /// Whether calls must carry the token.
    needs_token: bool,
}

/// A served model.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ServedFile {
    /// Name that requests call it by.
    name: String,
    /// Its file, or `mini`.
    #[serde(serialize_with = "paths::serialize")]
    file: PathBuf,
    /// Name of its method.
    method: String,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    super::json::schema_of::<Served>("serve")
}

pub(crate) fn run(
    program: &Program,
    args: ServeArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    serve_models(program, args.settings(verbosity)?)
}

fn serve_models(program: &Program, settings: ServeSettings) -> anyhow::Result<ExitCode> {
    settings.compute.open_device()?;
    let verbosity = settings.verbosity;
    let listener = listen(&settings.addresses)?;
    let mut config = settings.config.clone();
    let usual = rayon::current_num_threads().min(MOST_WORKERS);
    config.workers = settings.workers.unwrap_or(usual);
    remove_left_behind();
    let stop = Stop::default();
    let stopping = stop.clone();
    interrupt::on_request(move || {
        stopping.request();
        verbosity.notice(
            "stopping when the requests in progress are answered; press Ctrl-C again to stop at once",
        );
    });
    let program = program.clone();
    let needs_token = config.token.is_some();
    let loaded = settings.models.clone();
    let (json, opening) = (settings.json.clone(), settings.opening);
    let load = move || {
        let models = settings.models.iter();
        let served = models.map(|model| {
            let segmenter = open(&program, &settings, model)?;
            anyhow::Ok(ServedModel::new(model.name.clone(), segmenter))
        });
        anyhow::Ok(Models::new(served.collect::<anyhow::Result<_>>()?)?)
    };
    let ready = move |address: SocketAddr, models: &Models| {
        let page = format!("http://{}", reachable(address));
        let files = models.iter().zip(loaded);
        let served = Served {
            address: page.clone(),
            models: files
                .map(|(model, named)| ServedFile {
                    name: model.name().to_owned(),
                    file: named.model,
                    method: model.segmenter().model().method.clone(),
                })
                .collect(),
            needs_token,
        };
        write_result(json.as_ref(), &served, || print_result!("{page}"))?;
        verbosity.notice("ready; press Ctrl-C to stop");
        if opening == Opening::Open
            && let Err(error) = open::that_detached(&page)
        {
            print_notice!("warning: no browser could be started ({error}); open {page}");
        }
        anyhow::Ok(())
    };
    match serve(config, listener, load, ready, &stop)? {
        Ending::Finished => {}
        Ending::CutOff(open) => print_notice!(
            "warning: {} did not end in time and were cut off",
            counted(open, "connection")
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens a model and applies the settings for inference.
fn open(
    program: &Program,
    settings: &ServeSettings,
    model: &NamedModel,
) -> anyhow::Result<Segmenter> {
    let mut segmenter = open_segmenter(
        program,
        &SegmenterSettings {
            model: &model.model,
            templates: settings.templates.as_deref(),
            model_settings: &settings.model_settings,
            compute: &settings.compute,
            // A folder would grow with every name of every request; the server keeps embeddings in memory.
            cache: CacheUse::Skip,
        },
    )?;
    settings.inference.check(&*segmenter.model().model)?;
    segmenter.change_inference(|inference| settings.inference.apply(inference))?;
    if let Some(folder) = &settings.examples {
        encode_examples(&mut segmenter, folder, CacheUse::Use, settings.verbosity)?;
    }
    if let Some(table) = &settings.model_settings.text {
        check_table(&segmenter, table, &settings.model_settings)?;
    }
    Ok(segmenter)
}

/// Checks that classes can be looked up in a table, so that a wrong one is an error of the start and not of every request.
fn check_table(segmenter: &Segmenter, path: &Path, settings: &ModelSettings) -> anyhow::Result<()> {
    let table = EmbeddingTable::open(path)?;
    let first = |name: &String| ClassQuery::new(name.split(',').next().unwrap_or_default().trim());
    let classes: Vec<ClassQuery> = match (&settings.text_classes, table.names()) {
        (Some(rows), _) => rows.first().cloned().into_iter().collect(),
        (None, Some(names)) => names.first().map(first).into_iter().collect(),
        // Such a table has a row for every class.
        (None, None) => (1..=table.rows())
            .map(|row| ClassQuery::new(format!("class {row}")))
            .collect(),
    };
    segmenter.encode_classes(&classes)?;
    Ok(())
}

/// Listens at the first address at which that is possible.
fn listen(addresses: &[SocketAddr]) -> anyhow::Result<TcpListener> {
    let mut failed = None;
    for &address in addresses {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(source) => failed = failed.or(Some(ServeError::Listen { address, source })),
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => anyhow::bail!("there is no address to listen at"),
    }
}

/// Returns an address at which this machine reaches the server.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        other => other.ip(),
    };
    SocketAddr::new(ip, address.port())
}
