//! A single HTTP request, with every redirect checked.
//!
//! The HTTP library could follow redirects itself. This module follows them one by one for three reasons: the token
//! must go to its own server only, no redirect may lead from an encrypted address to an unencrypted one, and Hugging
//! Face announces a file's SHA-256 on the answer that redirects to its storage.

use std::fs;

use ureq::{
    Agent, Proxy,
    http::{HeaderMap, Response, header},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};
use url::Url;

use crate::{
    HubError,
    list::is_sha256,
    retry::may_pass,
    settings::{Proxies, Settings},
};

/// An answer that is not a redirect.
pub(crate) struct Answer {
    pub(crate) response: Response<ureq::Body>,
    /// SHA-256 of the whole file, if Hugging Face announced it.
    pub(crate) announced: Option<String>,
}

/// Reason why a request got no answer.
pub(crate) enum Failure {
    /// A temporary failure: the next attempt may succeed.
    Passing(String),
    /// A permanent failure.
    Lasting(HubError),
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Lasting(error)
    }
}

/// Builds an HTTP client according to the settings.
pub(crate) fn client(settings: &Settings) -> Result<Agent, HubError> {
    let timeouts = &settings.timeouts;
    let mut config = Agent::config_builder()
        .user_agent(concat!("zeg/", env!("CARGO_PKG_VERSION")))
        // Compressed content would have a different length and digest.
        .accept_encoding("identity")
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_resolve(Some(timeouts.connect))
        .timeout_connect(Some(timeouts.connect))
        .timeout_recv_response(Some(timeouts.answer))
        .timeout_per_read(Some(timeouts.read))
        .proxy(match settings.proxies {
            Proxies::Environment => Proxy::try_from_env(),
            Proxies::Direct => None,
        });
    if let Some(path) = &settings.certificates {
        let pem = fs::read(path).map_err(|source| HubError::Read {
            path: path.clone(),
            source,
        })?;
        // A system's file has a hundred certificates or more; a broken one must not make the others unusable.
        let certificates = parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let roots = RootCerts::from(certificates);
        config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
    }
    Ok(config.build().into())
}

/// Requests a file from byte `from` on; `etag` is the version that the bytes before `from` belong to.
pub(crate) fn ask(
    agent: &Agent,
    settings: &Settings,
    address: &Url,
    from: u64,
    etag: Option<&str>,
) -> Result<Answer, Failure> {
    let mut announced = None;
    let mut here = address.clone();
    for _ in 0..=settings.redirects {
        let mut request = agent.get(here.as_str());
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
            if let Some(etag) = etag {
                request = request.header(header::IF_RANGE, etag);
            }
        }
        if let Some(token) = settings.token_for(&here) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.0));
        }
        let response = request.call().map_err(|error| failure(&here, &error))?;
        if announced.is_none() && here.origin() == settings.hugging_face.origin() {
            announced = announced_sha256(response.headers());
        }
        match response.status().as_u16() {
            301 | 302 | 303 | 307 | 308 => here = next(&here, response.headers())?,
            _ => {
                return Ok(Answer {
                    response,
                    announced,
                });
            }
        }
    }
    Err(Failure::Lasting(HubError::Redirects {
        address: address.to_string(),
        limit: settings.redirects,
    }))
}

/// Returns the target of a redirect.
fn next(here: &Url, headers: &HeaderMap) -> Result<Url, HubError> {
    let unusable = |reason: String| HubError::Answer {
        address: here.to_string(),
        reason,
    };
    let location = text(headers, "location");
    let location =
        location.ok_or_else(|| unusable("the server redirects without an address".into()))?;
    let target = here
        .join(location)
        .map_err(|error| unusable(format!("the server redirects to {location:?}: {error}")))?;
    match (here.scheme(), target.scheme()) {
        ("https", "http") => Err(HubError::Downgrade {
            address: here.to_string(),
            target: target.to_string(),
        }),
        (_, "http" | "https") => Ok(target),
        _ => Err(unusable(format!(
            "the server redirects to {location:?}, which is not an http or https address"
        ))),
    }
}

/// Returns the SHA-256 that Hugging Face announces for large files; for small ones it announces another kind of digest.
fn announced_sha256(headers: &HeaderMap) -> Option<String> {
    let etag = text(headers, "x-linked-etag")?;
    let digest = etag.trim_start_matches("W/").trim_matches('"');
    is_sha256(digest).then(|| digest.to_owned())
}

/// Returns the value of a header, if it is present and is text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn failure(address: &Url, error: &ureq::Error) -> Failure {
    let reason = reason(error);
    if may_pass(error) {
        return Failure::Passing(reason);
    }
    Failure::Lasting(HubError::Unreachable {
        address: address.to_string(),
        attempts: 1,
        reason,
    })
}

/// Describes why a request failed.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::HostNotFound => "the host name could not be resolved".into(),
        ureq::Error::Timeout(_) => "the server did not answer in time".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ureq::http::HeaderValue;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    fn target(here: &str, location: &str) -> Result<String, HubError> {
        let here = Url::parse(here).unwrap();
        next(&here, &headers("location", location)).map(String::from)
    }

    #[test]
    fn redirects_are_relative_to_the_redirecting_address() {
        let here = "https://host.test/a/b";
        assert_eq!(target(here, "c").unwrap(), "https://host.test/a/c");
        assert_eq!(target(here, "/c?d").unwrap(), "https://host.test/c?d");
        assert_eq!(
            target(here, "https://cdn.test/x").unwrap(),
            "https://cdn.test/x"
        );
        assert_eq!(
            target("http://host.test", "https://cdn.test/x").unwrap(),
            "https://cdn.test/x"
        );
    }

    #[test]
    fn redirects_to_unencrypted_or_other_addresses_are_refused() {
        let here = "https://host.test/a";
        let error = target(here, "http://host.test/a").unwrap_err();
        assert!(matches!(error, HubError::Downgrade { .. }), "{error}");
        for location in [
            "file:///etc/passwd",
            "ftp://host.test/a",
            "https://",
            "data:,x",
        ] {
            let error = target(here, location).unwrap_err();
            assert!(matches!(error, HubError::Answer { .. }), "{error}");
        }
        let error = next(&Url::parse(here).unwrap(), &HeaderMap::new()).unwrap_err();
        assert!(error.to_string().contains("without an address"), "{error}");
    }

    #[test]
    fn only_a_sha256_is_accepted_as_announced_digest() {
        let sha = "0123456789abcdef".repeat(4);
        let read = |value: &str| announced_sha256(&headers("x-linked-etag", value));
        assert_eq!(read(&format!("\"{sha}\"")), Some(sha.clone()));
        assert_eq!(read(&format!("W/\"{sha}\"")), Some(sha.clone()));
        assert_eq!(read(&sha), Some(sha.clone()));
        // A small file has git's digest, which is shorter.
        assert_eq!(read(&format!("\"{}\"", &sha[..40])), None);
        assert_eq!(read(&sha.to_uppercase()), None);
        assert_eq!(announced_sha256(&HeaderMap::new()), None);
    }
}
