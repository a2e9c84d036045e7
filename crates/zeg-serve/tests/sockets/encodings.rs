//! `/v1/encodings`.

use std::{thread, time::Duration};

use serde_json::json;
use zeg_serve::ServeConfig;

use crate::{
    client::{Form, Request, Server},
    images::{blocks, labels_png, png},
};

fn encode(server: &Server, image: &[u8]) -> serde_json::Value {
    let form = Form::new().file("scene.png", image);
    let answer = server.send(&Request::post("/v1/encodings").form(&form));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let document = answer.json();
    let location = format!("/v1/encodings/{}", document["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    document
}

#[test]
fn an_image_is_encoded_once_and_asked_many_times() {
    let server = Server::usual();
    let encoded = encode(&server, &png(128, 96, 5));
    assert!(encoded["bytes"].as_u64().unwrap() > 1000);
    assert_eq!(encoded["expires_in_s"], 900);
    assert!(encoded["time"]["encode_ms"].as_f64().unwrap() > 0.0);
    let path = format!("/v1/encodings/{}", encoded["id"].as_str().unwrap());
    for classes in ["red, blue", "red, blue, green", "striped red, plain blue"] {
        let body = json!({"classes": classes, "output": "labels"});
        let answer = server.send(&Request::post(&format!("{path}/segment")).json(&body));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.body, labels_png(&blocks(128, 96, 5), classes));
    }
    let body = json!({"classes": ["red"], "background": ["blue"], "output": ["overlay", "coco"]});
    let answer = server.send(&Request::post(&format!("{path}/segment")).json(&body));
    let document = answer.json();
    assert_eq!(document["image"], "scene.png");
    assert_eq!(document["outputs"]["coco"]["file_name"], "coco.json");
    let shown = server.get(&path).json();
    assert_eq!(shown["width"], 128);
    let form = Form::ask(b"x", "red");
    let answer = server.send(&Request::post(&format!("{path}/segment")).form(&form));
    answer.assert_problem(400, "bad-request");

    let removed = server.send(&Request::new("DELETE", &path));
    assert_eq!((removed.status, removed.body.len()), (204, 0));
    server.get(&path).assert_problem(404, "unknown-encoding");
    let body = json!({"classes": "red, blue"});
    let answer = server.send(&Request::post(&format!("{path}/segment")).json(&body));
    answer.assert_problem(404, "unknown-encoding");
    assert_eq!(server.get("/v1/status").json()["encodings"]["bytes"], 0);
}

#[test]
fn encodings_make_room_and_expire() {
    let image = png(128, 128, 6);
    let config = ServeConfig {
        encoding_time: Duration::from_millis(1500),
        ..ServeConfig::default()
    };
    let server = Server::start(config);
    let first = encode(&server, &image);
    thread::sleep(Duration::from_millis(1700));
    let path = format!("/v1/encodings/{}", first["id"].as_str().unwrap());
    server.get(&path).assert_problem(404, "unknown-encoding");
    drop(server);

    let bytes = first["bytes"].as_u64().unwrap();
    let server = Server::start(ServeConfig {
        cache_memory: 2 * bytes + bytes / 2,
        ..ServeConfig::default()
    });
    for _ in 0..8 {
        encode(&server, &image);
        let usage = server.get("/v1/status").json()["encodings"].clone();
        assert!(
            usage["bytes"].as_u64() <= usage["limit"].as_u64(),
            "{usage}"
        );
    }
    assert_eq!(server.get("/v1/status").json()["encodings"]["count"], 2);
    drop(server);

    let server = Server::start(ServeConfig {
        cache_memory: bytes / 2,
        ..ServeConfig::default()
    });
    let form = Form::new().file("a.png", &image);
    let answer = server.send(&Request::post("/v1/encodings").form(&form));
    answer.assert_problem(413, "encoding-too-large");
}
