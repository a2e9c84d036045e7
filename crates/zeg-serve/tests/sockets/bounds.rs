//! Requests that are small and would take much: memory, time, connections.

use std::{
    io::Write as _,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use zeg_serve::ServeConfig;

use crate::{
    client::{Form, Request, Server},
    images::png,
    limits::narrow,
};

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Returns a JSON body of about 16 MiB.
fn long(start: &str, entry: &str, end: &str) -> String {
    let entries = entry.repeat((16 << 20) / entry.len());
    format!("{start}{entries}{end}")
}

/// A value in memory takes up to a hundred times the two bytes of its text.
#[test]
fn millions_of_small_values_are_refused_before_they_take_memory() {
    let server = Server::usual();
    let post =
        |path: &str, body: String| server.send(&Request::post(path).body("application/json", body));
    // An unknown field is refused where it stands; that the rest is no JSON is not looked at.
    let unknown = post("/v1/segment", long("{\"x\": [1", ",1", "]"));
    unknown.assert_problem(422, "bad-value");
    for entry in [",1", ",[]", ",{}"] {
        for (path, start) in [
            ("/v1/segment", "{\"classes\": [1"),
            ("/v1/encodings", "{\"scales\": [1"),
        ] {
            let answer = post(path, long(start, entry, "]}"));
            answer.assert_problem(413, "payload-too-large");
        }
        // Label Studio is asked to send them one by one.
        let configuration = "<View><Image name='image' value='$image'/><BrushLabels name='a' toName='image'>\
                             <Label value='plain blue'/></BrushLabels></View>";
        let start = format!("{{\"label_config\": {configuration:?}, \"tasks\": [1");
        let answer = post("/predict", long(&start, entry, "]}"));
        assert_eq!(answer.status, 200);
        let answer = answer.json();
        assert_eq!(answer["results"].as_array().unwrap().len(), 1);
        let failed = answer["failed"]["detail"].as_str().unwrap();
        assert!(failed.contains("at most 1000"), "{failed}");
    }
    let many = format!("[{}1]", "1,".repeat(60_000));
    let answer = post("/v1/segment", format!("{{\"classes\": {many}}}"));
    answer.assert_problem(413, "payload-too-large");
    let form = Form::ask(&png(32, 32, 1), &"x".repeat(300 << 10));
    let answer = server.send(&Request::post("/v1/segment").form(&form));
    answer.assert_problem(413, "payload-too-large");
}

#[test]
fn json_fields_are_given_once_and_have_their_types() {
    let server = Server::usual();
    let image = base64(&png(32, 32, 1));
    let ask = |more: &str| {
        let body = format!("{{\"image\": \"{image}\", \"classes\": [\"red\", \"blue\"]{more}}}");
        server.send(&Request::post("/v1/segment").body("application/json", body))
    };
    let answer = ask(", \"image_name\": \"a/b.jpg\", \"flip\": 1");
    assert_eq!(answer.json()["image"], "b.jpg", "{}", answer.text());
    ask(", \"threshold\": 0.1, \"threshold\": 0.9").assert_problem(400, "bad-request");
    ask(", \"image_name\": 5").assert_problem(422, "bad-value");
    let body = json!({"image": image});
    let encoding = server
        .send(&Request::post("/v1/encodings").json(&body))
        .json();
    let path = format!("/v1/encodings/{}/segment", encoding["id"].as_str().unwrap());
    let body = json!({"classes": "red, blue", "image_name": "a"});
    let answer = server.send(&Request::post(&path).json(&body));
    answer.assert_problem(422, "bad-value");
    // Some programs write a slash of base64 with a backslash in front.
    let escaped = image.replace('/', "\\/");
    let body = format!("{{\"image\": \"{escaped}\", \"classes\": \"red, blue\"}}");
    let answer = server.send(&Request::post("/v1/segment").body("application/json", body));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Eight scales of 20 are the work of 3200 images.
#[test]
fn scales_and_flip_are_bounded_by_the_pixels_that_they_make() {
    let server = Server::start(ServeConfig {
        max_pixels: 1_000_000,
        ..ServeConfig::default()
    });
    let form = Form::ask(&png(600, 400, 1), "red, blue, green")
        .text("scales", "20,19,18,17,16,15,14,13")
        .text("flip", "true");
    let problem = server
        .send(&Request::post("/v1/segment").form(&form))
        .assert_problem(422, "bad-value");
    let said = problem["detail"].as_str().unwrap();
    assert!(
        said.contains("--max-pixels") && said.contains("1000000"),
        "{said}"
    );
    let form = Form::new()
        .file("a.png", &png(600, 400, 1))
        .text("scales", "20,20,20,20,20,20,20,20");
    server
        .send(&Request::post("/v1/encodings").form(&form))
        .assert_problem(422, "bad-value");
}

/// A request that timed out, or whose client left, frees its thread within moments and not after its work.
#[test]
fn work_that_nobody_waits_for_ends_between_windows() {
    let server = Server::start(ServeConfig {
        workers: 1,
        request_time: Duration::from_millis(400),
        max_pixels: 1 << 40,
        ..ServeConfig::default()
    });
    let scales = "12,12,12,12,12,12,12,12";
    for path in ["/v1/segment", "/v1/encodings"] {
        let mut form = Form::new()
            .file("a.png", &png(512, 512, 1))
            .text("scales", scales);
        if path == "/v1/segment" {
            form = form.text("classes", "red, blue, green");
        }
        let answer = server.send(&Request::post(path).form(&form));
        answer.assert_problem(503, "timeout");
        let started = Instant::now();
        server.wait_for(|depth| depth == [0, 0]);
        let taken = started.elapsed();
        assert!(taken < Duration::from_secs(4), "{path}: {taken:?}");
        assert_eq!(server.get("/readyz").status, 200);
    }
}

/// Memory is taken for bytes that came, not for those that are announced.
#[test]
fn uploads_that_are_announced_and_not_sent_hold_no_memory() {
    let server = Server::usual();
    let head = Request::post("/v1/segment")
        .header("Content-Type", "application/json")
        .header("Content-Length", &(64 << 20).to_string())
        .head();
    let holders: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(300));
    assert!(server.get("/metrics").text().contains("zeg_upload_bytes 0"));
    let form = Form::ask(&png(32, 32, 1), "red, blue");
    assert_eq!(
        server
            .send(&Request::post("/v1/segment").form(&form))
            .status,
        200
    );
    drop(holders);
}

#[test]
fn silent_connections_make_room() {
    let server = Server::start(ServeConfig {
        connections: 4,
        ..ServeConfig::default()
    });
    let silent: Vec<TcpStream> = (0..12).map(|_| server.connect()).collect();
    thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    assert_eq!(server.get("/healthz").status, 200);
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    drop(silent);
}

#[test]
fn a_body_that_trickles_is_told_of_the_whole_time() {
    let server = Server::start(ServeConfig {
        pause: Duration::from_secs(2),
        body_time: Duration::from_secs(1),
        ..ServeConfig::default()
    });
    let head = Request::post("/v1/segment")
        .header("Content-Type", "application/json")
        .header("Content-Length", "1000")
        .head();
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(900) {
        stream.write_all(b" ").unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    let problem = crate::client::Answer::read(&mut stream).assert_problem(408, "request-timeout");
    let said = problem["detail"].as_str().unwrap();
    assert!(said.contains("within 1 s"), "{said}");
}

/// Names of labels reach the text encoder like those of the API, so they have the same bound.
#[test]
fn labelling_configurations_have_bounds() {
    let server = narrow(4);
    let predict = |labels: &str, attributes: &str| {
        let config = format!(
            "<View><Image name=\"i\" value=\"$image\"/><BrushLabels name=\"b\" toName=\"i\" {attributes}>{labels}\
             </BrushLabels></View>"
        );
        let body = json!({"tasks": [], "project": "1.1", "label_config": config});
        server.send(&Request::post("/predict").json(&body))
    };
    let many: Vec<String> = (0..1001)
        .map(|n| format!("<Label value=\"class {n}\"/>"))
        .collect();
    let problem = predict(&many.concat(), "").assert_problem(422, "bad-classes");
    assert!(problem["detail"].as_str().unwrap().contains("1001 classes"));
    let one = "<Label value=\"red\"/>";
    assert_eq!(predict(one, "zeg_threshold=\"0.4\"").status, 200);
    let problem = predict(one, "zeg_treshold=\"0.4\"").assert_problem(422, "bad-classes");
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("did you mean \"zeg_threshold\"")
    );
    predict("<Label value=\"red\" zeg_background=\"x\"/>", "").assert_problem(422, "bad-classes");
}
