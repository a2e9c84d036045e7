//! Arguments and settings of `zeg serve`.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use url::Url;
use zeg_serve::{Hosts, LabelStudioSettings, ServeConfig, Token};

use super::ServeError;
use crate::{
    commands::{
        JsonTarget,
        json::JsonArgs,
        model_file::resolve_model,
        shared::{
            ComputeArgs, ComputeSettings, ExamplesArgs, InferenceArgs, InferenceChanges,
            MethodArgs, ModelArgs, ModelSettings, PrecisionArgs, heading,
        },
    },
    numbers::{WrongArgument, count, count_or_zero, count_u64},
    progress::Verbosity,
};

/// Heading of the options for who may call the server.
const ACCESS: &str = "Access";
/// Heading of the options for what requests may take.
const LIMITS: &str = "Limits";
/// Largest file with a token, in bytes.
const MOST_TOKEN_BYTES: u64 = 64 << 10;

/// Arguments of `zeg serve`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg serve --model mini --open
  zeg serve --model clip-vit-b-16 --precision int8
  zeg serve --model quick=runs/quick/model.safetensors --model clip=clip-vit-b-16
  zeg serve --model clip-vit-b-16 --host 0.0.0.0 --token-file token.txt

Then, with the address that is printed:
  curl -F image=@photo.jpg -F 'classes=dog, sofa|couch' -F output=labels \\
      -o labels.png http://127.0.0.1:8000/v1/segment

The address itself is a web page, /docs describes the API, and Label Studio connects to it as a machine-learning
backend.")]
pub(crate) struct ServeArgs {
    /// Model to serve: checkpoint, CLIP weights in any published format, a name from `zeg models`, or `mini` (MiniCLIP,
    /// which is part of the program); with NAME= in front under this name; may be given several times, the first is the
    /// default
    #[arg(long = "model", value_name = "[NAME=]FILE|NAME", required = true, help_heading = heading::MODEL)]
    models: Vec<String>,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Prompt templates: single, multi, imagenet-80, …, or a file with one template per line [default: the model's]
    #[arg(long, value_name = "NAME|FILE", help_heading = heading::CLASSES)]
    templates: Option<String>,
    #[command(flatten)]
    examples: ExamplesArgs,
    #[command(flatten)]
    inference: InferenceArgs,
    /// Address or name to listen at; 0.0.0.0 for all networks
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1", help_heading = ACCESS)]
    host: String,
    /// Port to listen at; 0 for a free one
    #[arg(long, value_name = "PORT", default_value_t = 8000, help_heading = ACCESS)]
    port: u16,
    /// File with the token that every call must carry
    #[arg(long, value_name = "FILE", conflicts_with = "no_auth", help_heading = ACCESS)]
    token_file: Option<PathBuf>,
    /// Serve other machines without a token
    #[arg(long, help_heading = ACCESS)]
    no_auth: bool,
    /// Origin of web pages that may call the server besides its own, such as https://example.org, or * for all; may be
    /// given several times
    #[arg(long, value_name = "ORIGIN", help_heading = ACCESS)]
    allow_origin: Vec<String>,
    /// Name under which the server may be called without a token, besides addresses and localhost; may be given several
    /// times
    #[arg(long, value_name = "NAME", help_heading = ACCESS)]
    allow_host: Vec<String>,
    /// Open the page in the browser
    #[arg(long, help_heading = ACCESS)]
    open: bool,
    /// Address of Label Studio; images are fetched from it alone [default: none, so that tasks must hold their images]
    #[arg(long, value_name = "URL", value_parser = address, help_heading = ACCESS)]
    label_studio: Option<Url>,
    /// File with an access token of Label Studio, for uploads that need one [default: the token that it sends]
    #[arg(long, value_name = "FILE", requires = "label_studio", help_heading = ACCESS)]
    label_studio_key: Option<PathBuf>,
    /// Most pixels of an image, and of one at all its scales and mirrored, such as 50M
    #[arg(long, value_name = "PIXELS", default_value = "50M", value_parser = pixels, help_heading = LIMITS)]
    max_pixels: u64,
    /// Most bytes of a request, such as 64M
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes, help_heading = LIMITS)]
    max_body: u64,
    /// Most requests that wait; others are answered with 429 and a time to wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count_or_zero, help_heading = LIMITS)]
    queue: usize,
    /// Most bytes of encoded images that are kept, such as 1G
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = bytes, help_heading = LIMITS)]
    cache_memory: u64,
    /// Longest time until an answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = count_u64, help_heading = LIMITS)]
    timeout: u64,
    /// Number of images that are worked on at the same time [default: the number of threads, at most 8]
    #[arg(long, value_name = "N", value_parser = count, help_heading = heading::PERFORMANCE)]
    workers: Option<usize>,
    #[command(flatten)]
    json: JsonArgs,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// A model to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedModel {
    /// Name that requests call it by.
    pub(super) name: String,
    /// A file, or the name of downloaded weights.
    pub(super) model: PathBuf,
}

/// Settings of `zeg serve`.
#[derive(Debug)]
pub(super) struct ServeSettings {
    pub(super) models: Vec<NamedModel>,
    pub(super) model_settings: ModelSettings,
    /// Name or file of the prompt templates; `None` for the model's own.
    pub(super) templates: Option<String>,
    /// Folder of example images with masks.
    pub(super) examples: Option<PathBuf>,
    pub(super) inference: InferenceChanges,
    /// Addresses to listen at; the first that is free is taken.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) config: ServeConfig,
    /// Number of images at the same time; `None` for the number of threads.
    pub(super) workers: Option<usize>,
    pub(super) opening: Opening,
    pub(super) json: Option<JsonTarget>,
    pub(super) compute: ComputeSettings,
    pub(super) verbosity: Verbosity,
}

/// Whether the page is opened in the browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    Leave,
    Open,
}

impl ServeArgs {
    /// # Errors
    /// Returns an error if a file cannot be read, an address is none, or other machines could call without a token.
    pub(super) fn settings(self, verbosity: Verbosity) -> anyhow::Result<ServeSettings> {
        let models = named(&self.models)?;
        let json = self.json.target("serve")?;
        let addresses = addresses(&self.host, self.port)?;
        let token = self.token_file.as_deref().map(token).transpose()?;
        let is_loopback = addresses.iter().all(|address| address.ip().is_loopback());
        if !is_loopback && token.is_none() && !self.no_auth {
            return Err(WrongArgument(format!(
                "--host {}: other machines could call the server without a token; name a file with a token with \
                 --token-file, or say --no-auth if that is meant",
                self.host
            ))
            .into());
        }
        if models.len() > 1 && self.model.has_table() {
            let reason = "--text: a table belongs to one model, but several are served";
            return Err(WrongArgument(reason.to_owned()).into());
        }
        let origins = self.allow_origin.iter().map(|text| origin(text));
        let allow_origins = origins.collect::<anyhow::Result<_>>()?;
        for name in &self.allow_host {
            check_host(name)?;
        }
        let key = self.label_studio_key.as_deref().map(secret).transpose()?;
        let config = ServeConfig {
            max_pixels: self.max_pixels,
            max_body: usize::try_from(self.max_body).unwrap_or(usize::MAX),
            queue: self.queue,
            cache_memory: self.cache_memory,
            request_time: Duration::from_secs(self.timeout),
            allow_origins,
            hosts: match (&token, is_loopback) {
                (Some(_), _) => Hosts::Any,
                (None, true) => Hosts::Local,
                (None, false) => Hosts::Addresses,
            },
            allow_hosts: self.allow_host,
            token,
            label_studio: LabelStudioSettings {
                address: self.label_studio,
                key,
            },
            ..ServeConfig::default()
        };
        Ok(ServeSettings {
            models,
            model_settings: self.model.settings(&self.method, &self.precision)?,
            templates: self.templates,
            examples: self.examples.folder(),
            inference: self.inference.settings(),
            addresses,
            config,
            workers: self.workers,
            opening: if self.open {
                Opening::Open
            } else {
                Opening::Leave
            },
            json,
            compute: self.compute.settings(),
            verbosity,
        })
    }
}

/// Returns the models with their names.
fn named(arguments: &[String]) -> anyhow::Result<Vec<NamedModel>> {
    let mut models: Vec<NamedModel> = Vec::new();
    for argument in arguments {
        let (name, model) = match argument.split_once('=') {
            // A file may have this sign in its name.
            Some((name, model)) if !Path::new(argument).exists() => (name.to_owned(), model),
            _ => (usual_name(Path::new(argument)), argument.as_str()),
        };
        let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || !name.chars().all(is_legal) {
            let reason = format!(
                "--model {argument}: the name {name:?} must be letters, digits, dots, hyphens or underscores; put one \
                 in front: --model NAME={model}"
            );
            return Err(WrongArgument(reason).into());
        }
        if models.iter().any(|other| other.name == name) {
            let reason = format!(
                "--model {argument}: another model has the name {name:?}; name one: --model NAME={model}"
            );
            return Err(WrongArgument(reason).into());
        }
        models.push(NamedModel {
            name,
            model: resolve_model(Path::new(model))?,
        });
    }
    Ok(models)
}

/// Returns the name of a model without one: that of its file, or of its folder where the file's says nothing.
fn usual_name(model: &Path) -> String {
    let stem = model.file_stem().unwrap_or_default().to_string_lossy();
    let folder = model.parent().and_then(Path::file_name);
    match folder {
        Some(folder) if stem == "model" || stem == "model.best" => {
            folder.to_string_lossy().into_owned()
        }
        _ => stem.into_owned(),
    }
}

/// Returns the addresses that a host stands for.
fn addresses(host: &str, port: u16) -> anyhow::Result<Vec<SocketAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let unknown = |reason: String| {
        WrongArgument(format!(
            "--host {host}: {reason}; write an address such as 127.0.0.1, or a name of this machine"
        ))
    };
    let found = (host, port).to_socket_addrs();
    let found = found.map_err(|error| unknown(error.to_string()))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() {
        return Err(unknown("no address has this name".to_owned()).into());
    }
    Ok(found)
}

/// Reads the file of a token.
fn token(path: &Path) -> anyhow::Result<Token> {
    let text = secret(path)?;
    Token::new(&text).map_err(|reason| {
        ServeError::Token {
            path: path.to_owned(),
            reason,
        }
        .into()
    })
}

/// Reads a short text file, without white space around its content.
fn secret(path: &Path) -> anyhow::Result<String> {
    let name = || path.display().to_string();
    let length = fs::metadata(path).with_context(name)?.len();
    anyhow::ensure!(
        length <= MOST_TOKEN_BYTES,
        "{}: {length} bytes are no token",
        name()
    );
    let text = fs::read_to_string(path).with_context(name)?;
    Ok(text.trim().to_owned())
}

/// Returns the origin that a text names, as browsers send it, or `*`.
fn origin(text: &str) -> anyhow::Result<String> {
    let sent = Url::parse(text).map(|url| url.origin().ascii_serialization());
    match sent {
        _ if text == "*" => return Ok(text.to_owned()),
        // What stands behind the host would be lost without a word.
        Ok(origin) if origin == text.to_lowercase() => return Ok(origin),
        _ => {}
    }
    let reason = format!(
        "--allow-origin {text}: not an origin; write scheme, host and port only, such as https://example.org"
    );
    Err(WrongArgument(reason).into())
}

/// Checks that a text is the name of a host, without scheme and port.
fn check_host(name: &str) -> anyhow::Result<()> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.chars().all(is_legal) {
        return Ok(());
    }
    let reason = format!(
        "--allow-host {name}: not a name; write it without scheme and port, such as zeg.example.org"
    );
    Err(WrongArgument(reason).into())
}

/// Parses the address of a web server.
fn address(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) && url.has_host() => Ok(url),
        Ok(_) => Err("must begin with http:// or https://".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a number of pixels; K, M and G stand for thousands, millions and billions.
fn pixels(text: &str) -> Result<u64, String> {
    scaled(text, 1000)
}

/// Parses a number of bytes; K, M and G stand for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    scaled(text, 1024)
}

fn scaled(text: &str, step: u64) -> Result<u64, String> {
    let text = text.trim();
    let wrong =
        || "must be a whole number of at least 1, or one with K, M or G behind it".to_owned();
    let last = text.chars().next_back().unwrap_or_default();
    let power = match last.to_ascii_uppercase() {
        'K' => 1,
        'M' => 2,
        'G' => 3,
        _ => 0,
    };
    let digits = if power > 0 {
        text.get(..text.len() - 1).unwrap_or_default()
    } else {
        text
    };
    let number: u64 = digits.trim().parse().map_err(|_| wrong())?;
    match number.checked_mul(step.pow(power)) {
        Some(0) => Err(wrong()),
        Some(number) if i64::try_from(number).is_ok() => Ok(number),
        _ => Err("the number is too large".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_letters_for_their_powers() {
        assert_eq!(pixels("50M"), Ok(50_000_000));
        assert_eq!(bytes("64m"), Ok(64 << 20));
        assert_eq!(bytes(" 1 G "), Ok(1 << 30));
        assert_eq!(bytes("1000"), Ok(1000));
        for wrong in ["", "0", "M", "-1", "1.5G", "99999999999G", "1T", "1é"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn models_have_the_names_of_their_files() {
        for (path, name) in [
            ("mini", "mini"),
            ("ViT-B-16.pt", "ViT-B-16"),
            ("runs/quick/model.safetensors", "quick"),
            ("model.safetensors", "model"),
        ] {
            assert_eq!(usual_name(Path::new(path)), name);
        }
        let given = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            named(&arguments)
        };
        let models = given(&["a=mini", "mini"]).unwrap();
        assert_eq!(models[0].name, "a");
        assert_eq!(models[1].model, Path::new("mini"));
        for wrong in [&["mini", "mini"][..], &["=mini"], &["a b=mini"]] {
            assert!(given(wrong).unwrap_err().is::<WrongArgument>(), "{wrong:?}");
        }
    }

    #[test]
    fn origins_have_no_path() {
        for sound in ["https://example.org", "http://localhost:3000", "*"] {
            assert_eq!(origin(sound).unwrap(), sound);
        }
        // Browsers send it in lower case, and the answer must name it as they do.
        let odd = origin("HTTPS://Example.ORG:8443").unwrap();
        assert_eq!(odd, "https://example.org:8443");
        for wrong in [
            "example.org",
            "https://example.org/",
            "https://a.org/b",
            "null",
            "",
        ] {
            assert!(origin(wrong).is_err(), "{wrong}");
        }
        assert!(address("http://127.0.0.1:8080").is_ok());
        assert!(address("ftp://a").is_err() && address("8080").is_err());
    }
}
