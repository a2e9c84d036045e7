//! Tests of downloads that are interrupted and resumed.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use zeg_hub::{Event, HubError, Presence, missing, pull};

use crate::{
    place::{ETAG, Place, content, entry, file_server, other_content, settings, sha256},
    server::{Reply, Request, Server, serve_file},
};

#[test]
fn dropped_connections_are_resumed() {
    // There are more drops than allowed attempts, but each one brings enough bytes to count as progress.
    let server = file_server(|request, reply| match request.number {
        0..8 => reply.cut(17_000),
        _ => reply,
    });
    let place = Place::new();
    let pulled = place.pull(&entry(&server.url(), ""), &settings()).unwrap();
    assert_eq!(fs::read(pulled.path).unwrap(), content());
    let requests = server.requests();
    assert_eq!(requests.len(), 9);
    for (number, request) in requests.iter().enumerate().skip(1) {
        assert_eq!(request.from(), Some(17_000 * number));
        assert_eq!(request.header("if-range"), Some(ETAG));
    }
}

#[test]
fn drops_without_progress_are_an_error() {
    let server = file_server(|_, reply| reply.cut(0));
    let error = Place::new()
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap_err();
    assert!(
        matches!(error, HubError::Unreachable { attempts: 5, .. }),
        "{error}"
    );
    assert_eq!(server.requests().len(), 5);
}

#[test]
fn a_server_without_range_requests_sends_everything_again() {
    let server = Server::start(|request| {
        let reply = Reply::new(200, &content()).with("ETag", ETAG);
        if request.number < 2 {
            reply.cut(50_000)
        } else {
            reply
        }
    });
    let pulled = Place::new();
    let path = pulled
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), content());
    assert_eq!(server.requests()[2].from(), Some(50_000));
}

#[test]
fn a_server_that_sends_another_range_is_asked_for_the_whole_file() {
    // The server sends the bytes from 10 on, whatever the request asks for.
    let server = file_server(|request, reply| match request.from() {
        None if request.number == 0 => reply.cut(50_000),
        None => reply,
        Some(_) => Reply::new(206, &content()[10..])
            .with("ETag", ETAG)
            .with("Content-Range", "bytes 10-199999/200000"),
    });
    let place = Place::new();
    let path = place
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), content());
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn an_early_end_without_a_length_is_noticed_from_the_published_size() {
    let server = file_server(|request, reply| {
        let open = Reply {
            open_end: true,
            ..reply
        };
        if request.number == 0 {
            open.cut(50_000)
        } else {
            open
        }
    });
    let place = Place::new();
    let entry = entry(&server.url(), "size = 200000");
    let path = place.pull(&entry, &settings()).unwrap().path;
    assert_eq!(fs::read(path).unwrap(), content());
    assert_eq!(server.requests()[1].from(), Some(50_000));
}

#[test]
fn a_new_version_during_the_download_starts_over() {
    let new = other_content();
    let expected = new.clone();
    let server = file_server(move |request, reply| match request.number {
        0 => reply.cut(90_000),
        _ => serve_file(request, &new, "\"version-2\""),
    });
    let place = Place::new();
    let path = place
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), expected);
    let requests = server.requests();
    assert_eq!(
        requests.len(),
        2,
        "one request is enough, thanks to If-Range"
    );
    assert_eq!(requests[1].header("if-range"), Some(ETAG));
}

#[test]
fn a_new_version_is_noticed_even_if_the_server_ignores_if_range() {
    let new = other_content();
    let expected = new.clone();
    let server = file_server(move |request, reply| {
        let mut request = request.clone();
        if request.number == 0 {
            return reply.cut(90_000);
        }
        request.headers.remove("if-range");
        serve_file(&request, &new, "\"version-2\"")
    });
    let place = Place::new();
    let path = place
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), expected);
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_cancelled_download_is_resumed_by_the_next_run() {
    let server = file_server(|_, reply| reply.paced(20_000, Duration::from_millis(5)));
    let place = Place::new();
    let entry = entry(&server.url(), "");
    let cancel = AtomicBool::new(false);
    let error = pull(&entry, &place.cache, &settings(), &cancel, &mut |event| {
        if matches!(event, Event::Progress { done, .. } if *done >= 40_000) {
            cancel.store(true, Ordering::Relaxed);
        }
    })
    .unwrap_err();
    let HubError::Cancelled { done, .. } = error else {
        panic!("{error}");
    };
    assert!((40_000..200_000).contains(&done), "{done}");
    assert_eq!(place.cache.begun(&entry), done);
    assert_eq!(place.cache.presence(&entry), Presence::Partial);
    assert_eq!(
        missing(&entry, &place.cache, &settings()).unwrap()[0].begun,
        done
    );
    assert_eq!(place.cache.locate("tiny"), None);

    let path = place.pull(&entry, &settings()).unwrap().path;
    assert_eq!(fs::read(path).unwrap(), content());
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].from(), Some(done as usize));
    assert_eq!(place.files(), ["manifest.json", "model.safetensors"]);
}

#[test]
fn a_damaged_part_is_downloaded_again_in_full() {
    let server = file_server(|_, reply| reply);
    let place = Place::new();
    let entry = entry(&server.url(), &format!("sha256 = '{}'", sha256(&content())));
    fs::create_dir_all(place.cache.folder("tiny")).unwrap();
    fs::write(place.path("model.safetensors.part"), vec![7; 30_000]).unwrap();
    let path = place.pull(&entry, &settings()).unwrap().path;
    assert_eq!(fs::read(path).unwrap(), content());
    let froms: Vec<_> = server.requests().iter().map(Request::from).collect();
    assert_eq!(froms, [Some(30_000), None]);
}

#[test]
fn a_part_of_unknown_origin_is_not_resumed_without_a_digest() {
    let server = file_server(|_, reply| reply);
    let place = Place::new();
    fs::create_dir_all(place.cache.folder("tiny")).unwrap();
    fs::write(place.path("model.safetensors.part"), vec![7; 30_000]).unwrap();
    let path = place
        .pull(&entry(&server.url(), ""), &settings())
        .unwrap()
        .path;
    assert_eq!(fs::read(path).unwrap(), content());
    assert_eq!(server.requests()[0].from(), None);
}

#[test]
fn a_part_that_is_complete_is_only_renamed() {
    let server = file_server(|_, reply| reply);
    let place = Place::new();
    let entry = entry(&server.url(), &format!("sha256 = '{}'", sha256(&content())));
    fs::create_dir_all(place.cache.folder("tiny")).unwrap();
    fs::write(place.path("model.safetensors.part"), content()).unwrap();
    let path = place.pull(&entry, &settings()).unwrap().path;
    assert_eq!(fs::read(path).unwrap(), content());
    assert_eq!(server.requests().len(), 1);
}
