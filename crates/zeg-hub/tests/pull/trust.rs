//! Tests of the checks on digests, lengths and redirects.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use zeg_hub::{HubError, Presence, Proof, Settings, Token};

use crate::{
    place::{ETAG, Place, content, entry, file_server, settings, sha256},
    server::{Reply, Server, serve_file},
};

#[test]
fn a_download_with_a_wrong_digest_is_deleted() {
    let server = file_server(|_, reply| reply);
    let wrong = sha256(b"something else");
    let place = Place::new();
    let entry = entry(&server.url(), &format!("sha256 = '{wrong}'"));
    let error = place.pull(&entry, &settings()).unwrap_err();
    let HubError::Digest {
        expected, found, ..
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((expected, found), (wrong, sha256(&content())));
    assert!(place.files().is_empty(), "{:?}", place.files());
    assert_eq!(place.cache.presence(&entry), Presence::Absent);
}

#[test]
fn a_wrong_length_is_noticed_before_the_download() {
    let server = file_server(|_, reply| reply);
    let place = Place::new();
    let error = place
        .pull(&entry(&server.url(), "size = 199999"), &settings())
        .unwrap_err();
    assert!(
        matches!(
            error,
            HubError::Length {
                expected: 199_999,
                found: 200_000,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(place.cache.begun(&entry(&server.url(), "")), 0);
}

#[test]
fn chunks_longer_than_the_published_size_are_refused() {
    let server = Server::start(|_| {
        Reply::new(200, &content())
            .with("Transfer-Encoding", "chunked")
            .paced(50_000, Duration::ZERO)
    });
    let place = Place::new();
    let error = place
        .pull(&entry(&server.url(), "size = 150000"), &settings())
        .unwrap_err();
    assert!(
        matches!(
            error,
            HubError::Length {
                expected: 150_000,
                ..
            }
        ),
        "{error}"
    );
    let all = place.pull(&entry(&server.url(), ""), &settings()).unwrap();
    assert_eq!(fs::read(all.path).unwrap(), content());
}

#[test]
fn an_answer_without_any_length_is_refused_unless_the_digest_is_known() {
    let server = Server::start(|_| Reply {
        open_end: true,
        ..Reply::new(200, &content())
    });
    let place = Place::new();
    let error = place
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap_err();
    assert!(
        error.to_string().contains("does not announce the length"),
        "{error}"
    );
    let sha = format!("sha256 = '{}'", sha256(&content()));
    place
        .pull(&entry(&server.url(), &sha), &settings())
        .unwrap();
}

#[test]
fn compressed_content_is_refused() {
    let server = file_server(|_, reply| reply.with("Content-Encoding", "gzip"));
    let error = Place::new()
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap_err();
    assert!(error.to_string().contains("compressed as gzip"), "{error}");
    assert_eq!(
        server.requests()[0].header("accept-encoding"),
        Some("identity")
    );
}

#[test]
fn redirects_are_followed_even_to_another_host() {
    let storage = file_server(|_, reply| reply);
    let target = format!("{}/blob?signature=x", storage.url());
    let server = Server::start(move |request| match request.path.as_str() {
        "/a" => Reply::redirect("/b"),
        "/b" => Reply::redirect("c"),
        _ => Reply::redirect(&target),
    });
    let place = Place::new();
    let entry = entry(&format!("{}/a", server.url()), "");
    let path = place.pull(&entry, &settings()).unwrap().path;
    assert_eq!(fs::read(path).unwrap(), content());
    let paths: Vec<String> = server.requests().into_iter().map(|r| r.path).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
    assert_eq!(storage.requests()[0].path, "/blob?signature=x");
}

#[test]
fn endless_redirects_are_an_error() {
    let server = Server::start(|_| Reply::redirect("/again"));
    let error = Place::new()
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap_err();
    assert!(
        matches!(error, HubError::Redirects { limit: 10, .. }),
        "{error}"
    );
    assert_eq!(server.requests().len(), 11);
}

/// Returns settings with a test server in place of Hugging Face.
fn hugging_face(server: &Server) -> Settings {
    let mut settings = settings();
    settings.hugging_face = url::Url::parse(&server.url()).unwrap();
    settings.token = Some(Token::new("hf_secret"));
    settings
}

/// Starts a server that announces a digest and redirects to a storage server, as Hugging Face does.
fn announcing(storage: &Server, sha: String) -> Server {
    let target = format!("{}/blob", storage.url());
    Server::start(move |_| Reply::redirect(&target).with("X-Linked-Etag", format!("\"{sha}\"")))
}

const HUGGING_FACE: &str = "https://huggingface.co/a/b/resolve/main/model.safetensors";

#[test]
fn the_announced_digest_is_verified_and_the_token_is_not_passed_on() {
    let storage = file_server(|_, reply| reply);
    let server = announcing(&storage, sha256(&content()));
    let place = Place::new();
    let pulled = place
        .pull(&entry(HUGGING_FACE, ""), &hugging_face(&server))
        .unwrap();
    assert_eq!(pulled.files[0].proof, Proof::Server);
    let token = |server: &Server| {
        server.requests()[0]
            .header("authorization")
            .map(str::to_owned)
    };
    assert_eq!(token(&server).as_deref(), Some("Bearer hf_secret"));
    assert_eq!(token(&storage), None);
    assert_eq!(
        server.requests()[0].path,
        "/a/b/resolve/main/model.safetensors"
    );

    let server = announcing(&storage, sha256(b"something else"));
    let place = Place::new();
    let error = place
        .pull(&entry(HUGGING_FACE, ""), &hugging_face(&server))
        .unwrap_err();
    assert!(matches!(error, HubError::Digest { .. }), "{error}");
}

#[test]
fn a_wrong_announced_digest_stops_the_download_before_it_starts() {
    let storage = file_server(|_, reply| reply);
    let server = announcing(&storage, sha256(b"something else"));
    let place = Place::new();
    let entry = entry(HUGGING_FACE, &format!("sha256 = '{}'", sha256(&content())));
    let error = place.pull(&entry, &hugging_face(&server)).unwrap_err();
    assert!(matches!(error, HubError::Changed { .. }), "{error}");
}

#[test]
fn only_hugging_face_can_announce_a_digest() {
    let server =
        file_server(|_, reply| reply.with("X-Linked-Etag", format!("\"{}\"", sha256(b"x"))));
    let place = Place::new();
    let pulled = place.pull(&entry(&server.url(), ""), &settings()).unwrap();
    assert_eq!(pulled.files[0].proof, Proof::None);
}

#[test]
fn the_digest_of_the_first_download_is_recorded() {
    let version = Arc::new(Mutex::new(content()));
    let serving = Arc::clone(&version);
    let server = Server::start(move |request| serve_file(request, &serving.lock().unwrap(), ETAG));
    let place = Place::new();
    let entry = entry(&server.url(), "");
    let pulled = place.pull(&entry, &settings()).unwrap();
    assert_eq!(pulled.files[0].proof, Proof::None);

    fs::remove_file(&pulled.path).unwrap();
    assert_eq!(place.cache.locate("tiny"), None);
    let again = place.pull(&entry, &settings()).unwrap();
    assert_eq!(again.files[0].proof, Proof::FirstUse);

    fs::remove_file(&pulled.path).unwrap();
    *version.lock().unwrap() = b"something else".to_vec();
    let error = place.pull(&entry, &settings()).unwrap_err();
    assert!(matches!(error, HubError::Digest { .. }), "{error}");
    assert!(!pulled.path.exists());
}

#[test]
fn a_huge_announced_length_allocates_nothing() {
    let server = Server::start(|_| Reply {
        open_end: true,
        ..Reply::new(200, b"short").with("Content-Length", u64::MAX / 2)
    });
    let mut settings = settings();
    settings.retries.attempts = 2;
    let error = Place::new()
        .pull(&entry(&server.url(), ""), &settings)
        .unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
}

#[test]
fn a_web_page_is_never_taken_for_weights() {
    let page = b"<html><body>please sign in</body></html>".to_vec();
    let answer = Arc::new(Mutex::new(page.clone()));
    let serving = Arc::clone(&answer);
    let server = Server::start(move |request| serve_file(request, &serving.lock().unwrap(), ETAG));
    let place = Place::new();
    let entry = entry(&server.url(), "");
    let error = place.pull(&entry, &settings()).unwrap_err();
    assert!(
        matches!(
            &error,
            HubError::Content {
                what: "a web page",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(place.files(), [""; 0]);

    // A page that an earlier version kept is downloaded again, and its digest counts for nothing.
    *answer.lock().unwrap() = content();
    let pulled = place.pull(&entry, &settings()).unwrap();
    fs::write(&pulled.path, &page).unwrap();
    let manifest = place.path("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text
        .replace(&sha256(&content()), &sha256(&page))
        .replace(&content().len().to_string(), &page.len().to_string());
    fs::write(&manifest, text).unwrap();
    assert_eq!(place.cache.locate("tiny"), None);
    let again = place.pull(&entry, &settings()).unwrap();
    assert_eq!(again.downloaded, ["model.safetensors"]);
    assert_eq!(fs::read(&again.path).unwrap(), content());
}
