//! The web page: files that are embedded in the program.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};

use crate::{
    outputs::media_type,
    problem::{Code, Problem},
};

static ASSETS: Dir = include_dir!("$CARGO_MANIFEST_DIR/assets");

/// What pages may load: only what this server sends, and images that the page made itself.
pub(crate) const CONTENT_POLICY: &str = "default-src 'self'; img-src 'self' blob: data:; connect-src 'self'; style-src \
     'self'; script-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

/// Tag of all files together, by which a browser knows whether its copy is current.
static TAG: LazyLock<String> = LazyLock::new(|| {
    fn add(folder: &Dir, digest: &mut Sha256) {
        for file in folder.files() {
            digest.update(file.path().as_os_str().as_encoded_bytes());
            digest.update(file.contents());
        }
        for inner in folder.dirs() {
            add(inner, digest);
        }
    }
    let mut digest = Sha256::new();
    add(&ASSETS, &mut digest);
    let hex = zeg_base::hex::encode(digest.finalize());
    format!("\"{}\"", hex.get(..16).unwrap_or_default())
});

/// Answers `/`.
pub(crate) async fn index(headers: HeaderMap) -> Result<Response, Problem> {
    file("index.html", &headers)
}

/// Answers `/assets/…`.
pub(crate) async fn asset(
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    file(&path, &headers)
}

fn file(path: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let Some(file) = ASSETS.get_file(path) else {
        return Err(missing(&format!("/assets/{path}")));
    };
    let known = headers.get(header::IF_NONE_MATCH);
    let mut response = if known.is_some_and(|tag| tag.as_bytes() == TAG.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        file.contents().into_response()
    };
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static(media_type(path));
    headers.insert(header::CONTENT_TYPE, kind);
    let policy = HeaderValue::from_static(CONTENT_POLICY);
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let no_cache = HeaderValue::from_static("no-cache");
    headers.insert(header::CACHE_CONTROL, no_cache);
    if let Ok(tag) = HeaderValue::from_str(&TAG) {
        headers.insert(header::ETAG, tag);
    }
    Ok(response)
}

/// Returns the problem of an address at which there is nothing.
pub(crate) fn missing(path: &str) -> Problem {
    let shown: String = path.chars().take(100).collect();
    Problem::new(Code::NotFound, format!("there is nothing at {shown}"))
        .with_hint("/docs lists all addresses")
}
