//! Tests of downloads from a local server that misbehaves in many ways.

// Clippy does not count helper functions as tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod place;
mod resume;
mod server;
mod trust;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use place::{ETAG, Place, content, entry, file_server, settings, sha256};
use server::{Reply, Server, serve_file};
use zeg_hub::{Cache, Event, HubError, Network, Presence, Proof, Registry, missing, pull};

#[test]
fn a_model_is_downloaded_once_and_then_found_in_the_cache() {
    let server = file_server(|_, reply| reply);
    let sha = sha256(&content());
    let entry = entry(&server.url(), &format!("sha256 = '{sha}'\nsize = 200000"));
    let place = Place::new();
    assert_eq!(place.cache.locate("tiny"), None);
    let plan = missing(&entry, &place.cache, &settings()).unwrap();
    assert_eq!((plan[0].size, plan[0].begun), (Some(200_000), 0));

    let mut seen = Vec::new();
    let pulled = pull(
        &entry,
        &place.cache,
        &settings(),
        &AtomicBool::new(false),
        &mut |event| {
            if let Event::Progress { done, total, .. } = event {
                assert_eq!(*total, Some(200_000));
                seen.push(*done);
            }
        },
    )
    .unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&200_000));
    assert_eq!(pulled.downloaded, ["model.safetensors"]);
    assert_eq!(fs::read(&pulled.path).unwrap(), content());
    assert_eq!(place.cache.locate("tiny"), Some(pulled.path.clone()));
    let record = &pulled.files[0];
    assert_eq!(
        (record.sha256.as_str(), record.proof),
        (sha.as_str(), Proof::Published)
    );
    assert_eq!(place.files(), ["manifest.json", "model.safetensors"]);

    let again = place.pull(&entry, &settings()).unwrap();
    assert_eq!(again.path, pulled.path);
    assert!(again.downloaded.is_empty());
    assert_eq!(server.requests().len(), 1);
    assert!(
        missing(&entry, &place.cache, &settings())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_client_error_is_not_retried() {
    for status in [400, 401, 403, 404, 410] {
        let server = Server::start(move |_| Reply::new(status, b"no"));
        let error = Place::new()
            .pull(&entry(&server.url(), ""), &settings())
            .unwrap_err();
        assert!(
            matches!(error, HubError::Status { status: s, .. } if s == status),
            "{error}"
        );
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn a_server_error_is_retried() {
    let server = file_server(|request, reply| match request.number {
        0 => Reply::new(500, b"oops"),
        1 => Reply::new(503, b"oops"),
        _ => reply,
    });
    let place = Place::new();
    place.pull(&entry(&server.url(), ""), &settings()).unwrap();
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn retry_after_is_respected_up_to_the_longest_pause() {
    let server = file_server(|request, reply| match request.number {
        0 => Reply::new(429, b"slow down").with("Retry-After", 1),
        _ => reply,
    });
    let start = Instant::now();
    Place::new()
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));

    let server = Server::start(|_| Reply::new(429, b"go away").with("Retry-After", 3600));
    let error = Place::new()
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap_err();
    assert!(
        matches!(error, HubError::Busy { seconds: 3600, .. }),
        "{error}"
    );
}

#[test]
fn a_server_that_stops_sending_runs_into_the_timeout_and_is_retried() {
    let server = file_server(|request, reply| match request.number {
        0 => reply.paced(60_000, Duration::from_secs(2)),
        _ => reply,
    });
    let mut settings = settings();
    settings.timeouts.read = Duration::from_millis(200);
    let place = Place::new();
    let mut reasons = Vec::new();
    let pulled = pull(
        &entry(&server.url(), ""),
        &place.cache,
        &settings,
        &AtomicBool::new(false),
        &mut |event| {
            if let Event::Retrying { reason, .. } = event {
                reasons.push((*reason).to_owned());
            }
        },
    )
    .unwrap();
    assert_eq!(reasons, ["the server stopped sending data"]);
    assert_eq!(fs::read(pulled.path).unwrap(), content());
    assert_eq!(server.requests()[1].from(), Some(60_000));
}

#[test]
fn a_server_that_never_answers_is_an_error() {
    let server = Server::start(|_| {
        thread::sleep(Duration::from_millis(700));
        Reply::new(200, b"late")
    });
    let mut settings = settings();
    settings.timeouts.answer = Duration::from_millis(100);
    settings.retries.attempts = 2;
    let error = Place::new()
        .pull(&entry(&server.url(), ""), &settings)
        .unwrap_err();
    assert!(
        matches!(error, HubError::Unreachable { attempts: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("in time"), "{error}");
}

#[test]
fn two_programs_download_a_model_only_once() {
    let server = file_server(|_, reply| reply.paced(50_000, Duration::from_millis(30)));
    let place = Place::new();
    let entry = entry(&server.url(), "");
    let waited = AtomicUsize::new(0);
    let downloads: Vec<usize> = thread::scope(|scope| {
        let run = || {
            pull(
                &entry,
                &place.cache,
                &settings(),
                &AtomicBool::new(false),
                &mut |event| {
                    if matches!(event, Event::Waiting) {
                        waited.fetch_add(1, Ordering::SeqCst);
                    }
                },
            )
        };
        let both = [scope.spawn(run), scope.spawn(run)];
        both.map(|one| one.join().unwrap().unwrap().downloaded.len())
            .to_vec()
    });
    assert_eq!(downloads.iter().sum::<usize>(), 1);
    assert_eq!(waited.load(Ordering::SeqCst), 1);
    assert_eq!(server.requests().len(), 1);
    assert_eq!(
        fs::read(place.cache.locate("tiny").unwrap()).unwrap(),
        content()
    );
}

#[test]
fn offline_uses_the_cache_and_no_network() {
    let server = file_server(|_, reply| reply);
    let place = Place::new();
    let entry = entry(&server.url(), "");
    let mut offline = settings();
    offline.network = Network::Offline;
    let error = place.pull(&entry, &offline).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert!(server.requests().is_empty());
    place.pull(&entry, &settings()).unwrap();
    place.pull(&entry, &offline).unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_base_url_replaces_every_host() {
    let server = file_server(|_, reply| reply);
    let mut settings = settings();
    settings
        .set_base_url("--base-url", &format!("{}/mirror/", server.url()))
        .unwrap();
    let place = Place::new();
    let entry = entry("https://host.invalid/clip/a.pt", "");
    let pulled = place.pull(&entry, &settings).unwrap();
    assert_eq!(server.requests()[0].path, "/mirror/clip/a.pt");
    assert!(pulled.files[0].source.starts_with(&server.url()));
}

#[test]
fn the_next_source_is_used_if_one_fails() {
    let gone = Server::start(|_| Reply::new(404, b"gone"));
    let server = file_server(|_, reply| reply);
    let place = Place::new();
    let sources = format!("{}', '{}", gone.url(), server.url());
    let pulled = place.pull(&entry(&sources, ""), &settings()).unwrap();
    assert!(pulled.files[0].source.starts_with(&server.url()));

    let error = Place::new()
        .pull(&entry(&gone.url(), ""), &settings())
        .unwrap_err();
    assert!(
        matches!(error, HubError::Status { status: 404, .. }),
        "{error}"
    );
}

#[test]
fn complete_files_are_kept_when_a_later_one_fails() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let broken = Arc::clone(&is_broken);
    let server = Server::start(move |request| match request.path.as_str() {
        "/config.json" if broken.load(Ordering::SeqCst) => Reply::new(404, b"not yet"),
        "/config.json" => serve_file(request, b"{}", ETAG),
        _ => serve_file(request, &content(), ETAG),
    });
    let place = Place::new();
    let extra = format!(
        "[[model.file]]\nname = 'config.json'\nsources = ['{}/config.json']",
        server.url()
    );
    let entry = entry(&server.url(), &extra);
    place.pull(&entry, &settings()).unwrap_err();
    assert_eq!(place.cache.locate("tiny"), None);
    assert_eq!(place.cache.presence(&entry), Presence::Partial);
    is_broken.store(false, Ordering::SeqCst);
    let pulled = place.pull(&entry, &settings()).unwrap();
    assert_eq!(pulled.downloaded, ["config.json"]);
    assert_eq!(pulled.path, place.path("model.safetensors"));
    assert_eq!(place.cache.locate("tiny"), Some(pulled.path));
}

#[test]
fn a_model_to_be_downloaded_by_hand_explains_how() {
    let registry = Registry::built_in().unwrap();
    let entry = registry.find("zegclip").unwrap();
    let error = Place::new().pull(entry, &settings()).unwrap_err();
    let HubError::Manual { page, steps, .. } = error else {
        panic!("{error}");
    };
    assert!(page.contains("ZegCLIP") && steps.contains("zeg import"));
}

#[test]
fn an_unreachable_server_is_an_error_with_its_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    drop(listener);
    let error = Place::new()
        .pull(&entry(&url, ""), &settings())
        .unwrap_err();
    assert!(
        matches!(error, HubError::Unreachable { attempts: 5, .. }),
        "{error}"
    );
    assert!(error.to_string().starts_with(&url), "{error}");
}

#[test]
fn garbage_instead_of_http_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::Write as _;
            let _ = stream.unwrap().write_all(&[0xff; 5000]);
        }
    });
    let error = Place::new()
        .pull(&entry(&url, ""), &settings())
        .unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
}

/// `/dev/full` stands in for a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported_as_such() {
    let server = file_server(|_, reply| reply);
    let place = Place::new();
    fs::create_dir_all(place.cache.folder("tiny")).unwrap();
    std::os::unix::fs::symlink("/dev/full", place.path("model.safetensors.part")).unwrap();
    let error = place
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap_err();
    assert!(
        matches!(
            error,
            HubError::DiskFull {
                missing: 200_000,
                ..
            }
        ),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn the_error_for_an_unwritable_folder_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let server = file_server(|_, reply| reply);
    let cache = Cache::at(&file);
    let entry = entry(&server.url(), "");
    let error = pull(
        &entry,
        &cache,
        &settings(),
        &AtomicBool::new(false),
        &mut |_| {},
    )
    .unwrap_err();
    assert!(matches!(error, HubError::Write { .. }), "{error}");
    assert!(error.to_string().contains("file"), "{error}");
}
