//! Fetches the image of a task: from the task itself, or from Label Studio.
//!
//! The addresses in a task come from whoever made the project, and those that a caller names from anybody, so this server
//! fetches from one place only: the address of Label Studio that it was started with. Tokens are sent to this address
//! alone. It follows no redirect, since one could lead elsewhere.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use ureq::http::header;
use url::Url;

use super::{Connection, LabelStudioSettings};

/// Time in which a connection must be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Time in which an image must have come.
const WHOLE: Duration = Duration::from_mins(1);
/// Number of images that are fetched, or wait in memory to be segmented, at a time.
const AT_A_TIME: usize = 8;
/// Largest answer to the exchange of a token.
const MAX_TOKEN_ANSWER: u64 = 64 << 10;
/// Number of characters of an address that a message shows.
const SHOWN: usize = 200;

/// An error of fetching an image.
#[derive(Debug, Error)]
pub(super) enum ImageError {
    /// The task has no such field, or no text in it.
    #[error("its data has no text in the field {field:?}")]
    NoField {
        /// The field.
        field: String,
    },
    /// The text is neither an address nor base64.
    #[error("the field {field:?} holds neither an address nor base64: {start:?}")]
    Unreadable {
        /// The field.
        field: String,
        /// Its beginning.
        start: String,
    },
    /// The text begins as a path and is none.
    #[error("its image is at {path:?}, which is no path of Label Studio")]
    NoPath {
        /// The text.
        path: String,
    },
    /// The server was started without the address of Label Studio.
    #[error(
        "its image is {path:?}, and this server was started without the address of Label Studio{named}"
    )]
    NoAddress {
        /// The path of the image.
        path: String,
        /// The address that Label Studio calls itself, as the end of the sentence; empty if it names none.
        named: String,
    },
    /// The image is at another server than Label Studio.
    #[error("its image is at {address}, and images are fetched from Label Studio ({allowed}) only")]
    Elsewhere {
        /// The address of the image.
        address: String,
        /// The address of Label Studio.
        allowed: String,
    },
    /// Label Studio gave no answer.
    #[error("{address} gave no answer: {reason}")]
    NoAnswer {
        /// The address.
        address: String,
        /// The reason.
        reason: String,
    },
    /// Label Studio wants another token, or a login.
    #[error("Label Studio refuses access to {address} (status {status})")]
    Refused {
        /// The address.
        address: String,
        /// Status of the answer.
        status: u16,
    },
    /// Label Studio answers with an error, or with a redirect.
    #[error("{address} answers with status {status}")]
    Status {
        /// The address.
        address: String,
        /// Status of the answer.
        status: u16,
    },
    /// The image is larger than a request may be.
    #[error("{address} is larger than {limit} bytes")]
    TooLarge {
        /// The address.
        address: String,
        /// The limit.
        limit: u64,
    },
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl ImageError {
    /// Returns what to do about it.
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::NoField { .. } | Self::Unreadable { .. } | Self::NoPath { .. } => {
                "the Image tag of the labelling configuration names the field, as in value=\"$image\""
            }
            Self::NoAddress { .. } => {
                "start the server with `--label-studio ADDRESS`, such as http://localhost:8080"
            }
            Self::Elsewhere { .. } => {
                "upload the images to Label Studio, or let it serve them from a local folder"
            }
            Self::NoAnswer { .. } => {
                "start the server with `--label-studio ADDRESS`, an address at which this machine reaches Label Studio"
            }
            Self::Refused { .. } => {
                "start the server with `--label-studio-key FILE`, a file with an access token of Label Studio"
            }
            Self::Status { .. } => "open the image in Label Studio to see whether it still exists",
            Self::TooLarge { .. } => "start the server with a larger `--max-body`",
            Self::Stopping => "try again when it is back",
        }
    }
}

/// Where the image of a task is.
#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// In the task.
    Here(Vec<u8>),
    /// At a path of Label Studio.
    Path(String),
    /// At an address.
    Address(Url),
}

/// An image as it was fetched.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Content of the file.
    pub(super) bytes: Vec<u8>,
    /// The last part of its path.
    pub(super) name: String,
    /// A place among the images that are in memory; `None` for an image that came with the request.
    pub(super) place: Option<OwnedSemaphorePermit>,
}

/// A client that fetches images, a few at a time.
#[derive(Debug, Clone)]
pub(super) struct Fetcher {
    agent: ureq::Agent,
    places: Arc<Semaphore>,
}

impl Fetcher {
    /// Creates a client.
    pub(super) fn new() -> Self {
        let config = ureq::Agent::config_builder()
            .user_agent(concat!("zeg/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(WHOLE))
            .build();
        Self {
            agent: config.into(),
            places: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }

    /// Returns the image of a task.
    ///
    /// - `limit`: largest number of bytes
    pub(super) async fn fetch(
        &self,
        place: Place,
        connection: &Connection,
        settings: &LabelStudioSettings,
        limit: u64,
    ) -> Result<Fetched, ImageError> {
        let (address, host) = match place {
            Place::Here(bytes) => {
                return Ok(Fetched {
                    bytes,
                    name: "image".to_owned(),
                    place: None,
                });
            }
            Place::Path(path) => {
                let host = host(connection, settings, &path)?;
                let joined = host.join(&path);
                let address = joined.map_err(|_| ImageError::NoPath {
                    path: shortened(&path),
                })?;
                (address, host)
            }
            Place::Address(address) => {
                let host = host(connection, settings, address.as_str())?;
                (address, host)
            }
        };
        if address.origin() != host.origin() {
            return Err(ImageError::Elsewhere {
                address: shortened(address.as_str()),
                allowed: host.to_string(),
            });
        }
        let token = settings.key.clone().or_else(|| connection.token.clone());
        let agent = self.agent.clone();
        let place = self.places.clone().acquire_owned().await;
        let place = place.map_err(|_| ImageError::Stopping)?;
        let work = move || {
            // The place is held until the image has come, even if nobody waits for it any more.
            let (bytes, name) = download(&agent, &host, &address, token.as_deref(), limit)?;
            Ok(Fetched {
                bytes,
                name,
                place: Some(place),
            })
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or(Err(ImageError::Stopping))
    }
}

/// Returns the address of Label Studio that the server was started with.
fn host(
    connection: &Connection,
    settings: &LabelStudioSettings,
    wanted: &str,
) -> Result<Url, ImageError> {
    settings
        .address
        .clone()
        .ok_or_else(|| ImageError::NoAddress {
            path: shortened(wanted),
            named: connection.host.as_ref().map_or_else(String::new, |named| {
                format!("; it calls itself {}", shortened(named.as_str()))
            }),
        })
}

/// Returns where an image is that a task names.
///
/// - `text`: the text in the task's field; `None` if there is none
/// - `field`: the field
pub(super) fn place_of(text: Option<&str>, field: &str) -> Result<Place, ImageError> {
    let Some(text) = text.map(str::trim) else {
        return Err(ImageError::NoField {
            field: field.to_owned(),
        });
    };
    let unreadable = || ImageError::Unreadable {
        field: field.to_owned(),
        start: shortened(text),
    };
    if let Some(rest) = text.strip_prefix("data:") {
        let (_, code) = rest.split_once(";base64,").ok_or_else(unreadable)?;
        return Ok(Place::Here(decode(code).ok_or_else(unreadable)?));
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Place::Address(Url::parse(text).map_err(|_| unreadable())?));
    }
    // JPEG files in base64 begin with "/9j/", which is no folder that Label Studio serves.
    if text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/9j/") {
        return Ok(Place::Path(text.to_owned()));
    }
    match decode(text) {
        Some(bytes) if !bytes.is_empty() => Ok(Place::Here(bytes)),
        _ => Err(unreadable()),
    }
}

/// Decodes base64, with or without line breaks.
fn decode(code: &str) -> Option<Vec<u8>> {
    if code.bytes().any(|byte| byte.is_ascii_whitespace()) {
        let code: String = code.split_ascii_whitespace().collect();
        return STANDARD.decode(code).ok();
    }
    STANDARD.decode(code).ok()
}

/// Gets an image from Label Studio; returns its bytes and the last part of its path.
fn download(
    agent: &ureq::Agent,
    host: &Url,
    address: &Url,
    token: Option<&str>,
    limit: u64,
) -> Result<(Vec<u8>, String), ImageError> {
    let shown = shortened(address.as_str());
    let name = address.path().rsplit('/').find(|part| !part.is_empty());
    let name = name.unwrap_or("image").to_owned();
    let mut request = agent.get(address.as_str());
    if let Some(token) = token {
        let value = authorization(agent, host, token)?;
        request = request.header(header::AUTHORIZATION, value);
    }
    let response = request.call().map_err(|error| no_answer(&shown, &error))?;
    let address = shown;
    let status = response.status().as_u16();
    match status {
        200 => {}
        // A redirect leads to the login.
        301..=303 | 307 | 308 | 401 | 403 => return Err(ImageError::Refused { address, status }),
        _ => return Err(ImageError::Status { address, status }),
    }
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader();
    if let Err(error) = body.take(limit.saturating_add(1)).read_to_end(&mut bytes) {
        let reason = error.to_string();
        return Err(ImageError::NoAnswer { address, reason });
    }
    if bytes.len() as u64 > limit {
        return Err(ImageError::TooLarge { address, limit });
    }
    Ok((bytes, name))
}

fn no_answer(address: &str, error: &ureq::Error) -> ImageError {
    ImageError::NoAnswer {
        address: address.to_owned(),
        reason: match error {
            ureq::Error::HostNotFound => "its name could not be resolved".into(),
            ureq::Error::Timeout(_) => "it took too long".into(),
            other => other.to_string(),
        },
    }
}

/// Returns the value of the header that a token is sent in.
///
/// Label Studio has two kinds of tokens: legacy ones, which are sent as they are, and personal access tokens. The latter
/// are JSON web tokens, which are exchanged for one that is valid for a few minutes.
fn authorization(agent: &ureq::Agent, host: &Url, token: &str) -> Result<String, ImageError> {
    let is_personal = token.split('.').count() == 3;
    if !is_personal {
        return Ok(format!("Token {token}"));
    }
    let address = host
        .join("/api/token/refresh")
        .map_err(|_| ImageError::NoPath {
            path: "/api/token/refresh".to_owned(),
        })?;
    let shown = address.to_string();
    let question = serde_json::json!({ "refresh": token }).to_string();
    let request = agent
        .post(address.as_str())
        .content_type("application/json");
    let mut response = request
        .send(question.as_str())
        .map_err(|error| no_answer(&shown, &error))?;
    let status = response.status().as_u16();
    if status != 200 {
        let address = shown;
        return Err(ImageError::Refused { address, status });
    }
    let body = response.body_mut().with_config().limit(MAX_TOKEN_ANSWER);
    let answer: Value = body
        .read_to_vec()
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    match answer.get("access").and_then(Value::as_str) {
        Some(access) => Ok(format!("Bearer {access}")),
        None => Err(ImageError::NoAnswer {
            address: shown,
            reason: "there is no access token in it".into(),
        }),
    }
}

/// Returns the beginning of a text, for messages.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Result<Place, ImageError> {
        place_of(Some(text), "image")
    }

    #[test]
    fn images_are_in_the_task_or_at_an_address() {
        assert_eq!(
            place("data:image/png;base64,AAEC").unwrap(),
            Place::Here(vec![0, 1, 2])
        );
        assert_eq!(place(" AA\nEC ").unwrap(), Place::Here(vec![0, 1, 2]));
        assert_eq!(
            place("/9j/4AAQ").unwrap(),
            Place::Here(vec![255, 216, 255, 224, 0, 16])
        );
        let path = "/data/upload/1/a b.jpg".to_owned();
        assert_eq!(place(&path).unwrap(), Place::Path(path));
        assert!(matches!(
            place("http://localhost:8080/a.jpg").unwrap(),
            Place::Address(_)
        ));
        for strange in [
            "",
            "//evil.test/a.jpg",
            "s3://bucket/a.jpg",
            "data:image/png,xyz",
            "é",
        ] {
            let error = place(strange).unwrap_err();
            assert!(
                matches!(error, ImageError::Unreadable { .. }),
                "{strange}: {error}"
            );
        }
        let error = place_of(None, "image").unwrap_err();
        assert!(matches!(error, ImageError::NoField { .. }));
    }

    #[test]
    fn the_address_is_that_of_the_settings_alone() {
        let at = |text: &str| Connection {
            host: Url::parse(text).ok(),
            token: None,
        };
        let none = LabelStudioSettings::default();
        for named in ["http://localhost:8080", "http://10.0.0.1"] {
            let error = host(&at(named), &none, "/a").unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        assert!(host(&Connection::default(), &none, "/a").is_err());
        let given = LabelStudioSettings {
            address: Url::parse("http://studio.test").ok(),
            key: None,
        };
        let found = host(&at("http://evil.test"), &given, "/a").unwrap();
        assert_eq!(found.as_str(), "http://studio.test/");
    }

    #[test]
    fn messages_are_short() {
        assert!(shortened(&"ä".repeat(5000)).chars().count() <= SHOWN + 1);
    }
}
