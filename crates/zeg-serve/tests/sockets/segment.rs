//! `POST /v1/segment`.

use std::thread;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    client::{Form, Request, Server},
    images::{blocks, labels_png, png, segmented},
};

fn post(form: &Form) -> Request {
    Request::post("/v1/segment").form(form)
}

#[test]
fn the_smallest_call_answers_with_the_label_map_of_the_library() {
    let server = Server::usual();
    let (image, file) = (blocks(160, 120, 1), png(160, 120, 1));
    let wanted = labels_png(&image, "red, blue");
    let form = Form::ask(&file, "red, blue").text("output", "labels");
    let answer = server.send(&post(&form));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("image/png"));
    let disposition = answer.header("content-disposition").unwrap();
    assert!(disposition.contains("filename=\"a.png\""), "{disposition}");
    assert_eq!(answer.body, wanted);

    let encoded = STANDARD.encode(&file);
    for image in [encoded.clone(), format!("data:image/png;base64,{encoded}")] {
        let body = json!({"image": image, "classes": ["red", "blue"], "output": ["labels"]});
        let answer = server.send(&Request::post("/v1/segment").json(&body));
        assert_eq!(answer.body, wanted, "{}", answer.text());
    }
}

#[test]
fn the_document_holds_every_result() {
    let server = Server::usual();
    let found = segmented(&blocks(120, 96, 2), "red|striped red, blue, green");
    let form = Form::ask(&png(120, 96, 2), "red|striped red, blue, green")
        .text(
            "output",
            "labels,overlay,confidence,runs,rle,polygons,regions",
        )
        .text("points", "3,4; 100,90")
        .text("candidates", "2");
    let answer = server.send(&post(&form));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let document = answer.json();
    assert_eq!(document["width"], 120);
    assert_eq!(document["classes"][0]["synonyms"], json!(["striped red"]));
    for output in ["labels", "overlay", "confidence"] {
        let file = &document["outputs"][output];
        assert_eq!(file["media_type"], "image/png");
        let bytes = STANDARD.decode(file["base64"].as_str().unwrap()).unwrap();
        assert!(bytes.starts_with(b"\x89PNG"), "{output}");
    }
    let runs = document["runs"]["runs"].as_array().unwrap();
    let mut labels = Vec::new();
    for run in runs.chunks(2) {
        let (label, length) = (run[0].as_u64().unwrap(), run[1].as_u64().unwrap());
        labels.extend(std::iter::repeat_n(label as u16, length as usize));
    }
    assert_eq!(labels, found.labels.labels());
    let shares: f64 = document["areas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|area| area["share"].as_f64().unwrap())
        .sum();
    let unlabelled = document["unlabelled"].as_f64().unwrap();
    assert!((shares + unlabelled - 1.0).abs() < 1e-6);
    let points = document["points"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    let label = found.labels.get(3, 4).unwrap();
    assert_eq!(points[0]["label"], label);
    assert_eq!(points[0]["candidates"].as_array().unwrap().len(), 2);
    assert_eq!(points[0]["candidates"][0]["label"], label);
    assert!(!document["regions"].as_array().unwrap().is_empty());
    let annotations = &document["annotations"];
    let areas = |kind: &str| -> Vec<u64> {
        let all = annotations[kind].as_array().unwrap().iter();
        all.map(|one| one["area"].as_u64().unwrap()).collect()
    };
    assert_eq!(areas("rle"), areas("polygons"));
    assert!(annotations["rle"][0]["segmentation"]["counts"].is_string());
    assert!(document["time"]["encode_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_export_is_a_file() {
    let server = Server::usual();
    let formats = server.get("/v1/models").json()["formats"].clone();
    let image = png(64, 48, 3);
    for format in formats.as_array().unwrap() {
        let name = format["name"].as_str().unwrap();
        if format["file"] != true {
            continue;
        }
        let form = Form::ask(&image, "red, blue").text("output", name);
        let answer = server.send(&post(&form));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        assert!(!answer.body.is_empty(), "{name}");
        let disposition = answer.header("content-disposition").unwrap();
        assert!(disposition.starts_with("attachment"), "{name}");
        if answer.header("content-type") == Some("application/json") {
            answer.json();
        }
        if answer.header("content-type") == Some("application/zip") {
            assert!(answer.body.starts_with(b"PK"), "{name}");
        }
    }
}

#[test]
fn background_threshold_and_areas_are_those_of_the_library() {
    let server = Server::usual();
    let image = png(96, 96, 4);
    let ask_of = |image: &[u8], more: &[(&str, &str)]| {
        let mut form = Form::ask(image, "red, blue").text("output", "runs");
        for (name, value) in more {
            form = form.text(name, value);
        }
        let answer = server.send(&post(&form));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let ask = |more: &[(&str, &str)]| ask_of(&image, more);
    let plain = ask(&[]);
    let background = ask(&[("background", "green, yellow")]);
    assert_eq!(background["classes"][3]["background"], true);
    assert!(background["unlabelled"].as_f64() > plain["unlabelled"].as_f64());
    // MiniCLIP is sure of the blocks above; of an image of its own world it is less so.
    let shapes = include_bytes!("../../assets/examples/mini-1.png");
    let strict = ask_of(shapes, &[("threshold", "0.99")]);
    let lenient = ask_of(shapes, &[]);
    assert!(strict["unlabelled"].as_f64() > lenient["unlabelled"].as_f64());
    let calm = ask(&[("min_area", "2000")]);
    let runs = |document: &serde_json::Value| document["runs"]["runs"].as_array().unwrap().len();
    assert!(runs(&calm) <= runs(&plain));
    let mirrored = ask(&[("flip", "true"), ("scales", "0.5,1")]);
    assert_eq!(mirrored["width"], 96);
}

/// Answers of many clients at the same time are not mixed up.
#[test]
fn every_client_gets_the_answer_for_its_own_image() {
    let server = Server::usual();
    let clients = 12;
    let cases: Vec<(Vec<u8>, Vec<u8>)> = (0..clients)
        .map(|number| {
            let (width, height) = (72 + 8 * number, 64);
            let wanted = labels_png(&blocks(width, height, number), "red, blue, green");
            (png(width, height, number), wanted)
        })
        .collect();
    thread::scope(|scope| {
        for (image, wanted) in &cases {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..6 {
                    let form = Form::ask(image, "red, blue, green").text("output", "labels");
                    let answer = server.send(&post(&form));
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    assert_eq!(answer.body, *wanted);
                }
            });
        }
    });
}
