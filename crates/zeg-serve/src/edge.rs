//! What every request passes before its route: who may call, how long its body may be and take, and the count.
//!
//! The whole body is received here, within limits of length, time and memory, so that routes work on bytes.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, Version, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout, timeout_at},
};
use zeg_base::memory::amount;

use crate::{
    config::{Hosts, ServeConfig},
    problem::{Code, Problem},
    sending::{Sending, held},
    state::{AppState, UPLOAD_UNIT},
};

/// Most bytes of a request without an image.
const SMALL_BODY: usize = 1 << 20;
/// Most bytes of a request's body that are read away, so that the sender reads the answer.
const MOST_DRAINED: usize = 32 << 20;
/// Longest time for that.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Longest pause of the sender meanwhile.
const DRAIN_PAUSE: Duration = Duration::from_millis(300);
/// Longest text of an error of the framework, in bytes.
const MOST_TEXT: usize = 4096;
/// Memory is taken in steps while a body arrives.
const STEP: usize = 256 << 10;

/// Paths that need no token: what a browser opens before a token is typed, and the checks of a supervisor.
const OPEN: [&str; 7] = [
    "/",
    "/assets/{*path}",
    "/docs",
    "/docs/style.css",
    "/openapi.json",
    "/healthz",
    "/readyz",
];
/// Paths whose requests hold images.
const WITH_IMAGE: [&str; 3] = ["/v1/segment", "/v1/encodings", "/predict"];

/// Checks a request, receives its body, passes it on, and counts the answer.
pub(crate) async fn edge(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("unknown", MatchedPath::as_str).to_owned();
    let method = method_name(request.method());
    let sending = request.extensions().get::<Sending>().cloned();
    let mut response = match receive(&state, request, &route).await {
        Ok((request, memory)) => {
            let response = next.run(request).await;
            drop(memory);
            let response = as_problem(response).await;
            held(&state, response, sending).await
        }
        Err(problem) => problem.into_response(),
    };
    state
        .metrics()
        .count(&route, method, response.status().as_u16());
    let headers = response.headers_mut();
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    let no_referrer = HeaderValue::from_static("no-referrer");
    headers.insert(header::REFERRER_POLICY, no_referrer);
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    response
}

/// Returns an error of the framework, which is a plain text, as a problem; other answers stay as they are.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_text = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let code = match status.as_u16() {
        400 => Code::BadRequest,
        413 => Code::PayloadTooLarge,
        415 => Code::UnsupportedMediaType,
        422 => Code::BadValue,
        500 => Code::Internal,
        _ => return response,
    };
    if !is_text {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), MOST_TEXT).await;
    let text = text.unwrap_or_default();
    Problem::new(code, String::from_utf8_lossy(&text)).into_response()
}

/// Returns the method's name for counting; a client can make up any number of others.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Checks a request and receives its body.
///
/// Returns it with the memory that its body takes, which is free again when the request is answered.
async fn receive(
    state: &AppState,
    request: Request,
    route: &str,
) -> Result<(Request, Option<OwnedSemaphorePermit>), Problem> {
    let config = state.config();
    let (parts, body) = request.into_parts();
    let limit = match parts.method {
        Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS => UPLOAD_UNIT,
        _ if WITH_IMAGE.contains(&route) => config.max_body,
        _ => SMALL_BODY.min(config.max_body),
    };
    let length = length_of(&parts.headers);
    let checked = check(config, parts.version, &parts.headers, route)
        .and_then(|()| check_length(length, limit));
    if let Err(problem) = checked {
        // A sender that waits for `100 Continue` has sent nothing.
        if !parts.headers.contains_key(header::EXPECT) {
            drain(body).await;
        }
        return Err(problem);
    }
    let (bytes, memory) = read(state, body, limit, length).await?;
    let mut request = Request::from_parts(parts, Body::from(bytes));
    DefaultBodyLimit::disable().apply(&mut request);
    Ok((request, memory))
}

/// Checks who calls, and how the body is coded.
fn check(
    config: &ServeConfig,
    version: Version,
    headers: &HeaderMap,
    route: &str,
) -> Result<(), Problem> {
    let host = host(version, headers)?;
    if let Some(host) = host
        && !may_be_called(host, config)
    {
        let shown: String = host.chars().take(100).collect();
        return Err(Problem::new(
            Code::Forbidden,
            format!("the host {shown:?} is no name under which this server may be called"),
        )
        .with_hint(
            "call 127.0.0.1 or localhost, or start the server with --allow-host and this name, or with a token",
        ));
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        if !is_allowed(origin, host, &config.allow_origins) {
            return Err(Problem::new(
                Code::Forbidden,
                format!("pages of {origin:?} may not call this server"),
            )
            .with_hint("start the server with --allow-origin and this origin"));
        }
    }
    if let Some(token) = &config.token
        && !OPEN.contains(&route)
        && !token.is_in(headers)
    {
        return Err(Problem::new(
            Code::Unauthorized,
            "the request has no token, or a wrong one",
        )
        .with_hint("send the header `Authorization: Bearer TOKEN`"));
    }
    if let Some(coding) = headers.get(header::CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let coding = coding.to_str().unwrap_or("unknown");
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            format!("the body has the content coding {coding:?}"),
        )
        .with_hint("send the body as it is; images are compressed already"));
    }
    Ok(())
}

/// Returns the host that a request names.
fn host(version: Version, headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let wrong = |detail: &str| {
        Problem::new(Code::BadRequest, detail)
            .with_hint("send one header `Host` with the server's name or address")
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => {
            let host = host.to_str();
            host.map(Some).map_err(|_| wrong("the host is no text"))
        }
        (Some(_), Some(_)) => Err(wrong("the request names two hosts")),
        // HTTP/1.0 has no hosts.
        (None, _) if version < Version::HTTP_11 => Ok(None),
        (None, _) => Err(wrong("the request names no host")),
    }
}

/// Whether a request may name this host.
fn may_be_called(host: &str, config: &ServeConfig) -> bool {
    let Some(name) = name_of(host) else {
        return config.hosts == Hosts::Any;
    };
    let is_allowed = |allowed: &String| allowed.eq_ignore_ascii_case(name);
    match config.hosts {
        Hosts::Any => true,
        _ if is_local(name) || config.allow_hosts.iter().any(is_allowed) => true,
        Hosts::Addresses => name.parse::<IpAddr>().is_ok(),
        Hosts::Local => false,
    }
}

/// Returns the name or address of a host, without a port; `None` if it is malformed.
fn name_of(host: &str) -> Option<&str> {
    let (name, rest) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let is_sound = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
    // The dot says that the name is complete.
    is_sound.then(|| name.strip_suffix('.').unwrap_or(name))
}

/// Whether a name or address is one of this machine that no other machine has.
fn is_local(name: &str) -> bool {
    let address = name.parse::<IpAddr>();
    address.is_ok_and(|address| address.is_loopback())
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether pages of an origin may call: those of the server itself, and those that are allowed.
fn is_allowed(origin: &str, host: Option<&str>, allowed: &[String]) -> bool {
    let own = origin
        .split_once("://")
        .is_some_and(|(_, place)| host.is_some_and(|host| place.eq_ignore_ascii_case(host)));
    own || allowed
        .iter()
        .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
}

fn length_of(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn check_length(length: Option<usize>, limit: usize) -> Result<(), Problem> {
    match length {
        Some(length) if length > limit => Err(too_long(Some(length), limit)),
        _ => Ok(()),
    }
}

fn too_long(length: Option<usize>, limit: usize) -> Problem {
    let (bytes, limit) = (limit, amount(limit as u64));
    let detail = match length {
        // A few bytes too many would read as the limit itself.
        Some(length) if amount(length as u64) == limit => {
            format!("the request has {length} bytes; this address takes at most {bytes}")
        }
        Some(length) => format!(
            "the request has {}; this address takes at most {limit}",
            amount(length as u64)
        ),
        None => format!("the request is longer than {limit}, the most that this address takes"),
    };
    Problem::new(Code::PayloadTooLarge, detail)
        .with_hint("send a smaller file, or start the server with a larger --max-body")
}

/// Takes memory for a body; none for a body of no length.
fn reserve(state: &AppState, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Problem> {
    if bytes == 0 {
        return Ok(None);
    }
    let units = u32::try_from(bytes.div_ceil(UPLOAD_UNIT)).unwrap_or(u32::MAX);
    let uploads = state.uploads().clone();
    let taken = uploads.try_acquire_many_owned(units);
    taken.map(Some).map_err(|_| {
        Problem::new(
            Code::QueueFull,
            format!(
                "requests of {} are being received or wait; there is no memory for {} more",
                amount(state.upload_bytes() as u64),
                amount(bytes as u64)
            ),
        )
        .with_hint("send the request again after the time in Retry-After")
        .with_retry_after(Duration::from_secs(1))
    })
}

/// Reads the body, within its limit of length and its times.
async fn read(
    state: &AppState,
    mut body: Body,
    limit: usize,
    length: Option<usize>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Problem> {
    let config = state.config();
    let end = Instant::now() + config.body_time;
    // Memory is taken for what has come and not for what is announced: whoever announces much and sends nothing would
    // keep it from all others.
    let mut memory: Option<OwnedSemaphorePermit> = None;
    let mut reserved = 0;
    let mut bytes = BytesMut::new();
    loop {
        let pause = (Instant::now() + config.pause).min(end);
        let Ok(frame) = timeout_at(pause, body.frame()).await else {
            return Err(too_slow(bytes.len(), Instant::now() >= end, config));
        };
        let Some(frame) = frame else {
            return Ok((bytes.freeze(), memory));
        };
        let frame = frame.map_err(|error| {
            Problem::new(
                Code::BadRequest,
                format!("the body ended early or is malformed: {error}"),
            )
        })?;
        let Ok(data) = frame.into_data() else {
            continue; // trailers
        };
        if bytes.len() + data.len() > limit {
            drain(body).await;
            return Err(too_long(None, limit));
        }
        let needed = bytes.len() + data.len();
        if needed > reserved {
            // A step at a time, but no more than the rest of a body whose length is known.
            let rest = length.unwrap_or(limit).saturating_sub(reserved);
            let step = (needed - reserved).max(STEP.min(rest));
            let more = match reserve(state, step) {
                Ok(more) => more,
                Err(problem) => {
                    drain(body).await;
                    return Err(problem);
                }
            };
            reserved += step;
            match (&mut memory, more) {
                (Some(memory), Some(more)) => memory.merge(more),
                (memory, more) => *memory = more,
            }
        }
        bytes.extend_from_slice(&data);
    }
}

/// Returns the problem of a body that arrives too slowly.
fn too_slow(arrived: usize, is_over: bool, config: &ServeConfig) -> Problem {
    let arrived = amount(arrived as u64);
    let detail = if is_over {
        format!(
            "the request did not arrive within {} s; {arrived} of it came",
            config.body_time.as_secs()
        )
    } else {
        format!(
            "{arrived} arrived, and then nothing for {} s",
            config.pause.as_secs()
        )
    };
    Problem::new(Code::RequestTimeout, detail)
        .with_hint("send a smaller file, or from a faster connection")
}

/// Reads a body away for a moment: a sender that still writes when the connection closes may lose the answer.
async fn drain(mut body: Body) {
    let mut left = MOST_DRAINED;
    let reading = async {
        while let Ok(Some(Ok(frame))) = timeout(DRAIN_PAUSE, body.frame()).await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    // What is not read by then stays unread.
    let _ = timeout(DRAIN_TIME, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_that_cannot_be_rebound() {
        let with = |hosts, allow: &[&str]| ServeConfig {
            hosts,
            allow_hosts: allow.iter().map(ToString::to_string).collect(),
            ..ServeConfig::default()
        };
        let (local, addresses) = (with(Hosts::Local, &[]), with(Hosts::Addresses, &["zeg"]));
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "localhost.:8000",
            "127.0.0.1:8000",
            "127.1.2.3",
            "[::1]:8000",
            "zeg.localhost:1",
        ] {
            assert!(may_be_called(host, &local), "{host}");
            assert!(may_be_called(host, &addresses), "{host}");
        }
        for host in ["10.0.0.1:80", "[::2]", "ZEG:8000"] {
            assert!(!may_be_called(host, &local), "{host}");
            assert!(may_be_called(host, &addresses), "{host}");
        }
        for host in [
            "example.org",
            "localhost.example.org",
            "",
            "127.0.0.1.nip.io",
            "localhost:evil.com",
            "[::1]evil.com",
            "[::1",
        ] {
            assert!(!may_be_called(host, &local), "{host}");
            assert!(!may_be_called(host, &addresses), "{host}");
            assert!(may_be_called(host, &with(Hosts::Any, &[])), "{host}");
        }
    }

    #[test]
    fn pages_of_the_server_and_of_allowed_origins_may_call() {
        let host = Some("127.0.0.1:8000");
        assert!(is_allowed("http://127.0.0.1:8000", host, &[]));
        assert!(!is_allowed("http://127.0.0.1:9000", host, &[]));
        assert!(!is_allowed("null", host, &[]));
        assert!(!is_allowed("https://example.org", None, &[]));
        let allowed = ["https://example.org".to_owned()];
        assert!(is_allowed("https://example.org", host, &allowed));
        assert!(!is_allowed("https://example.org.evil", host, &allowed));
        assert!(is_allowed("null", host, &["*".to_owned()]));
    }
}
