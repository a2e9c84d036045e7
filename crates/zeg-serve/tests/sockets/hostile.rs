//! Clients that mean no good, or are broken: each gets the right answer, and the server goes on as before.

use std::{
    fs,
    io::{Read as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use zeg_serve::ServeConfig;

use crate::{
    client::{Answer, BOUNDARY, Form, Request, Server, end_sending},
    images::{blocks, bomb, labels_png, png},
};

fn segment() -> Request {
    Request::post("/v1/segment")
}

/// Checks that an honest client is served.
fn assert_alive(server: &Server) {
    let form = Form::ask(&png(40, 40, 9), "red, blue").text("output", "labels");
    let answer = server.send(&segment().form(&form));
    assert_eq!(answer.body, labels_png(&blocks(40, 40, 9), "red, blue"));
}

#[test]
fn malformed_forms_are_named() {
    let server = Server::usual();
    let form = Form::ask(&png(32, 32, 1), "red, blue").bytes();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("multipart/form-data", form.clone()),
        ("multipart/form-data; boundary=", form.clone()),
        ("multipart/form-data; boundary=another", form.clone()),
        (kind.as_str(), form[..form.len() / 2].to_vec()),
        (kind.as_str(), form[..form.len() - 8].to_vec()),
        (kind.as_str(), b"no form".to_vec()),
        (kind.as_str(), Vec::new()),
        (kind.as_str(), format!("--{BOUNDARY}--\r\n").into_bytes()),
        (
            kind.as_str(),
            format!("--{BOUNDARY}\r\n\r\n\r\n--{BOUNDARY}--\r\n").into_bytes(),
        ),
        (kind.as_str(), vec![b'-'; 100_000]),
    ];
    for (kind, body) in cases {
        let answer = server.send(&segment().body(kind, body.clone()));
        assert_eq!(answer.status, 400, "{kind}: {}", answer.text());
        answer.assert_problem(400, "bad-request");
    }
    let twice = Form::ask(&png(32, 32, 1), "red").file("b.png", &png(32, 32, 1));
    server
        .send(&segment().form(&twice))
        .assert_problem(400, "bad-request");
    let mut latin = Form::new().file("a.png", &png(32, 32, 1)).bytes();
    latin.truncate(latin.len() - BOUNDARY.len() - 6);
    latin.extend(
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"classes\"\r\n\r\n").bytes(),
    );
    latin.extend(b"caf\xe9\r\n");
    latin.extend(format!("--{BOUNDARY}--\r\n").bytes());
    server
        .send(&segment().body(kind.as_str(), latin))
        .assert_problem(400, "bad-request");
    assert_alive(&server);
}

#[test]
fn wrong_values_are_named() {
    let server = Server::usual();
    let ask = || Form::ask(&png(32, 32, 1), "red, blue");
    for (name, value, code) in [
        ("threshold", "2", "bad-value"),
        ("threshold", "NaN", "bad-value"),
        ("opacity", "-1", "bad-value"),
        ("output", "lables", "bad-value"),
        ("response", "xml", "bad-value"),
        ("scales", "0", "bad-value"),
        ("scales", "1,1,1,1,1,1,1,1,1", "bad-value"),
        ("scales", "1e9", "bad-value"),
        ("flip", "maybe", "bad-value"),
        ("points", "99,0", "bad-value"),
        ("points", "1", "bad-value"),
        ("min_area", "1.5", "bad-value"),
        ("candidates", "-3", "bad-value"),
        ("clases", "red", "bad-value"),
        ("background", "red", "bad-classes"),
    ] {
        let answer = server.send(&segment().form(&ask().text(name, value)));
        let problem = answer.assert_problem(422, code);
        assert!(problem["detail"].as_str().unwrap().len() < 400, "{problem}");
    }
    let answer = server.send(&segment().form(&ask().text("model", "minni")));
    let problem = answer.assert_problem(404, "unknown-model");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean \"mini\"")
    );
    for classes in [
        "",
        "red,,blue",
        "red,red",
        &"x".repeat(2000),
        &"word ".repeat(90),
        "\u{1}",
    ] {
        let form = Form::ask(&png(32, 32, 1), classes);
        server
            .send(&segment().form(&form))
            .assert_problem(422, "bad-classes");
    }
    let many: Vec<String> = (0..1001).map(|number| format!("class{number}")).collect();
    let form = Form::ask(&png(32, 32, 1), &many.join(","));
    server
        .send(&segment().form(&form))
        .assert_problem(422, "bad-classes");
    for (body, status, code) in [
        (json!([1]), 400, "bad-request"),
        (json!({"classes": "red"}), 400, "bad-request"),
        (json!({"image": 7, "classes": "red"}), 422, "bad-value"),
        (json!({"image": "§", "classes": "red"}), 422, "bad-value"),
        (
            json!({"image": "", "classes": "red"}),
            422,
            "unreadable-image",
        ),
        (json!({"image": "AAAA"}), 400, "bad-request"),
        (
            json!({"image": "AAAA", "classes": {"a": 1}}),
            422,
            "bad-classes",
        ),
    ] {
        server
            .send(&segment().json(&body))
            .assert_problem(status, code);
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = server.send(&segment().body("application/json", deep));
    answer.assert_problem(400, "bad-request");
    assert_alive(&server);
}

#[test]
fn other_content_types_and_codings_are_refused() {
    let server = Server::usual();
    for kind in [
        "text/plain",
        "image/png",
        "application/x-www-form-urlencoded",
        "\u{fc}",
        "a/b/c",
    ] {
        let answer = server.send(&segment().body(kind, png(32, 32, 1)));
        answer.assert_problem(415, "unsupported-media-type");
    }
    let bare = segment().header("Content-Length", "0");
    server
        .send(&bare)
        .assert_problem(415, "unsupported-media-type");
    for coding in ["gzip", "br", "deflate, gzip"] {
        let form = Form::ask(&png(32, 32, 1), "red, blue");
        let answer = server.send(&segment().form(&form).header("Content-Encoding", coding));
        answer.assert_problem(415, "unsupported-media-type");
    }
    assert_alive(&server);
}

#[test]
fn bombs_and_broken_images_are_refused() {
    let server = Server::usual();
    let before = memory();
    let bomb = bomb();
    assert!(bomb.len() < 250);
    let answer = server.send(&segment().form(&Form::ask(&bomb, "red, blue")));
    let problem = answer.assert_problem(413, "image-too-large");
    assert!(
        problem["detail"].as_str().unwrap().contains("60000"),
        "{problem}"
    );
    let whole = png(200, 200, 1);
    for broken in [
        &whole[..whole.len() / 2],
        &whole[..40],
        &whole[..8],
        b"GIF89a",
        b"%PDF-1.7",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\0\0\0\x18ftypheic\0\0\0\0",
        b"P6 99999 99999 255 ",
        b"qoif\xff\xff\xff\xff\xff\xff\xff\xff\x03\x00",
        b"BM",
        &[0; 1000],
    ] {
        let answer = server.send(&segment().form(&Form::ask(broken, "red, blue")));
        assert!([413, 422].contains(&answer.status), "{}", answer.text());
        let encoding = Request::post("/v1/encodings").form(&Form::new().file("a", broken));
        let answer = server.send(&encoding);
        assert!([413, 422].contains(&answer.status), "{}", answer.text());
    }
    assert_alive(&server);
    for _ in 0..200 {
        server.send(&segment().form(&Form::ask(&bomb, "red, blue")));
    }
    let grown = memory().saturating_sub(before);
    assert!(grown < 96 << 20, "memory grew by {grown} bytes");
}

#[test]
fn truncated_uploads_are_bad_requests() {
    let server = Server::usual();
    let whole = segment()
        .form(&Form::ask(&png(200, 200, 1), "red, blue"))
        .bytes();
    for part in [whole.len() - 1, whole.len() / 2, whole.len() / 4] {
        let mut stream = server.connect();
        stream.write_all(&whole[..part]).unwrap();
        end_sending(&stream);
        let answer = Answer::read(&mut stream);
        // A client that closes its half may get no answer, but never another one.
        assert!([0, 400].contains(&answer.status), "{}", answer.text());
    }
    // A connection that is dropped in the middle leaves nothing behind.
    for _ in 0..20 {
        let mut stream = server.connect();
        stream.write_all(&whole[..whole.len() / 2]).unwrap();
    }
    thread::sleep(Duration::from_millis(300));
    assert!(server.get("/metrics").text().contains("zeg_upload_bytes 0"));
    assert_alive(&server);
}

#[test]
fn names_that_look_like_paths_are_names() {
    let server = Server::usual();
    for (name, stored) in [
        ("../../etc/passwd", "passwd.png"),
        ("C:\\\\windows\\\\a.jpg", "a.png"),
        ("/", "image.png"),
        ("..", "image.png"),
        ("ä ö.jpg", "_ _.png"),
    ] {
        let form = Form::new()
            .file(name, &png(32, 32, 1))
            .text("classes", "red, blue")
            .text("output", "labels");
        let answer = server.send(&segment().form(&form));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let disposition = answer.header("content-disposition").unwrap();
        assert!(
            disposition.contains(&format!("filename=\"{stored}\"")),
            "{disposition}"
        );
        // Exports write files, whose names follow from that of the image.
        for output in ["yolo", "summary", "coco", "html"] {
            let form = Form::new()
                .file(name, &png(32, 32, 1))
                .text("classes", "red, blue")
                .text("output", output);
            let answer = server.send(&segment().form(&form));
            assert_eq!(answer.status, 200, "{name}, {output}: {}", answer.text());
        }
    }
}

#[test]
fn floods_of_headers_and_wrong_protocols_are_refused() {
    let server = Server::usual();
    let many: Vec<String> = (0..500).map(|n| format!("X-{n}: a\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "a".repeat(200_000));
    for headers in [many.concat(), long] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        let answer = server.raw(request.as_bytes());
        assert!([0, 431].contains(&answer.status), "{}", answer.text());
    }
    let path = format!(
        "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "a".repeat(100_000)
    );
    let answer = server.raw(path.as_bytes());
    assert!([0, 414, 431].contains(&answer.status), "{}", answer.status);
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\0\0\0\0",
    ] {
        let mut stream = server.connect();
        stream.write_all(nonsense).unwrap();
        end_sending(&stream);
        let answer = Answer::read(&mut stream);
        assert!(answer.status == 0 || answer.status >= 400, "{}", answer.status);
    }
    assert_alive(&server);
}

#[test]
fn slow_senders_are_cut_off() {
    let server = Server::start(ServeConfig {
        header_time: Duration::from_millis(600),
        pause: Duration::from_millis(600),
        body_time: Duration::from_secs(2),
        ..ServeConfig::default()
    });
    // Headers that never end.
    let mut stream = server.connect();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: ")
        .unwrap();
    assert_ends(&mut stream, Duration::from_secs(4));
    // A body that stops.
    let head = segment()
        .header("Content-Type", "application/json")
        .header("Content-Length", "1000")
        .head();
    let started = Instant::now();
    let answer = server.raw(head.as_bytes());
    answer.assert_problem(408, "request-timeout");
    assert!(started.elapsed() < Duration::from_secs(4));
    // A body that trickles.
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) && stream.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(200));
    }
    assert!(started.elapsed() < Duration::from_secs(6));
    // A kept connection that asks nothing more.
    let mut stream = server.connect();
    let request = Request::new("GET", "/healthz").header("Connection", "keep-alive");
    stream.write_all(&request.bytes()).unwrap();
    assert_ends(&mut stream, Duration::from_secs(4));
    assert_alive(&server);
}

/// A client that asks and never reads holds its answer for a while only.
#[test]
fn slow_receivers_are_cut_off() {
    let server = Server::start(ServeConfig {
        pause: Duration::from_millis(600),
        stop_time: Duration::from_secs(10),
        ..ServeConfig::default()
    });
    let image = png(700, 700, 3);
    let form = Form::ask(&image, "red, blue").text("output", "labels,overlay,confidence,runs");
    let request = segment()
        .form(&form)
        .header("Connection", "keep-alive")
        .bytes();
    let mut stream = server.connect();
    stream
        .set_write_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // More answers than the buffers of a connection hold.
    for _ in 0..40 {
        if stream.write_all(&request).is_err() {
            break;
        }
    }
    server.wait_for(|depth| depth == [0, 0]);
    let started = Instant::now();
    server.ask_to_stop();
    server.ended();
    assert!(started.elapsed() < Duration::from_secs(8));
}

/// Checks that the server ends a connection within a time.
#[track_caller]
fn assert_ends(stream: &mut std::net::TcpStream, within: Duration) {
    let started = Instant::now();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(started.elapsed() < within, "{:?}", started.elapsed());
}

/// Returns the memory of this process in bytes; 0 where the system does not tell.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
