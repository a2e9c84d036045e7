//! Limits of length, pixels, places and time.

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use zeg_serve::ServeConfig;

use crate::{
    client::{Answer, Form, Request, Server},
    images::{blocks, labels_png, png},
};

/// A request whose image takes a while.
pub(crate) fn slow(output: &str) -> Request {
    let form = Form::ask(&png(1024, 1024, 7), "red, blue, green")
        .text("scales", "2,2,2,2,2,2,2,2")
        .text("flip", "true")
        .text("output", output);
    Request::post("/v1/segment").form(&form)
}

/// A server with one thread and a few places.
pub(crate) fn narrow(queue: usize) -> Server {
    Server::start(ServeConfig {
        workers: 1,
        queue,
        ..ServeConfig::default()
    })
}

#[test]
fn long_bodies_and_large_images_are_refused() {
    let server = Server::start(ServeConfig {
        max_body: 10_000,
        max_pixels: 5_000,
        ..ServeConfig::default()
    });
    let post = |form: &Form| Request::post("/v1/segment").form(form);
    let long = Form::ask(&vec![7; 20_000], "red, blue");
    server
        .send(&post(&long))
        .assert_problem(413, "payload-too-large");
    // Without a stated length, the limit holds where it is reached.
    let mut chunked = Request::post("/v1/segment")
        .header("Transfer-Encoding", "chunked")
        .header("Content-Type", "application/json")
        .head()
        .into_bytes();
    for _ in 0..20 {
        chunked.extend(b"3e8\r\n");
        chunked.extend([b' '; 1000]);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    server
        .raw(&chunked)
        .assert_problem(413, "payload-too-large");
    // Other addresses have a smaller limit.
    let delete = Request::new("DELETE", "/v1/encodings/0").body("text/plain", vec![b' '; 2000]);
    server
        .send(&delete)
        .assert_problem(413, "payload-too-large");

    let answer = server.send(&post(&Form::ask(&png(100, 51, 1), "red, blue")));
    let problem = answer.assert_problem(413, "image-too-large");
    assert!(
        problem["detail"].as_str().unwrap().contains("100×51"),
        "{problem}"
    );
    let answer = server.send(&post(&Form::ask(&png(100, 50, 1), "red, blue")));
    assert_eq!(answer.status, 200);
    let encoding = Request::post("/v1/encodings").form(&Form::new().file("a", &png(80, 80, 1)));
    server
        .send(&encoding)
        .assert_problem(413, "image-too-large");
}

#[test]
fn a_client_that_asks_before_it_sends_gets_the_refusal() {
    let server = Server::start(ServeConfig {
        max_body: 10_000,
        ..ServeConfig::default()
    });
    let head = Request::post("/v1/segment")
        .header("Content-Length", "1000000")
        .header("Content-Type", "application/json")
        .header("Expect", "100-continue")
        .head();
    let started = Instant::now();
    server
        .raw(head.as_bytes())
        .assert_problem(413, "payload-too-large");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_full_queue_answers_429_with_a_time_and_loses_nothing() {
    let server = narrow(2);
    let answers: Vec<Answer> = thread::scope(|scope| {
        let first = scope.spawn(|| server.send(&slow("labels")));
        server.wait_for(|[_, running]| running == 1);
        let more: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| server.send(&slow("labels"))))
            .collect();
        server.wait_for(|[waiting, _]| waiting == 2);
        // Asking how the server is needs no place.
        server.get("/readyz").assert_problem(503, "not-ready");
        assert_eq!(server.get("/healthz").status, 200);
        let all = std::iter::once(first).chain(more);
        all.map(|thread| thread.join().unwrap()).collect()
    });
    let refused: Vec<_> = answers.iter().filter(|it| it.status == 429).collect();
    let served: Vec<_> = answers.iter().filter(|it| it.status == 200).collect();
    assert_eq!(refused.len() + served.len(), 7);
    assert!(served.len() >= 3 && !refused.is_empty());
    for answer in refused {
        answer.assert_problem(429, "queue-full");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds));
    }
    assert!(served.iter().all(|answer| answer.body == served[0].body));
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn a_client_that_goes_away_gives_its_place_back() {
    let server = narrow(4);
    thread::scope(|scope| {
        let first = scope.spawn(|| server.send(&slow("labels")));
        server.wait_for(|[_, running]| running == 1);
        let mut left = server.connect();
        left.write_all(&slow("labels").bytes()).unwrap();
        server.wait_for(|[waiting, _]| waiting == 1);
        drop(left);
        let started = Instant::now();
        server.wait_for(|[waiting, _]| waiting == 0);
        assert!(started.elapsed() < Duration::from_secs(2));
        assert_eq!(first.join().unwrap().status, 200);
    });
}

#[test]
fn a_request_that_takes_too_long_is_answered() {
    let server = Server::start(ServeConfig {
        workers: 1,
        request_time: Duration::from_millis(150),
        ..ServeConfig::default()
    });
    server.send(&slow("labels")).assert_problem(503, "timeout");
    server.wait_for(|depth| depth == [0, 0]);
    let image = png(48, 48, 1);
    let quick =
        Request::post("/v1/segment").form(&Form::ask(&image, "red, blue").text("output", "labels"));
    // On a busy machine even this may take longer than a request may.
    let mut answer = server.send(&quick);
    for _ in 0..100 {
        if answer.status == 200 {
            break;
        }
        answer.assert_problem(503, "timeout");
        answer = server.send(&quick);
    }
    assert_eq!(answer.body, labels_png(&blocks(48, 48, 1), "red, blue"));
}

#[test]
fn memory_for_uploads_is_bounded() {
    let server = Server::start(ServeConfig {
        max_body: 1 << 20,
        upload_memory: 1 << 20,
        pause: Duration::from_secs(5),
        ..ServeConfig::default()
    });
    let head = |length: usize| {
        Request::post("/v1/segment")
            .header("Content-Type", "application/json")
            .header("Content-Length", &length.to_string())
            .head()
    };
    // Memory is taken for what has come, so this one sends all but its last bytes.
    let mut holder = server.connect();
    let start = [head(901 << 10).into_bytes(), vec![b' '; 900 << 10]].concat();
    holder.write_all(&start).unwrap();
    wait_for_metric(&server, &format!("zeg_upload_bytes {}\n", 901 << 10));
    let answer = server.raw(
        [head(500 << 10).into_bytes(), vec![b' '; 500 << 10]]
            .concat()
            .as_slice(),
    );
    answer.assert_problem(429, "queue-full");
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(holder);
    wait_for_metric(&server, "zeg_upload_bytes 0\n");
}

/// Waits until the server's metrics hold a line; bytes arrive when the machine has time for them.
fn wait_for_metric(server: &Server, line: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = server.get("/metrics").text();
        if text.contains(line) {
            return;
        }
        assert!(Instant::now() < deadline, "no {line:?} in {text}");
        thread::sleep(Duration::from_millis(50));
    }
}
