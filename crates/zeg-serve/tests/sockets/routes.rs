//! The addresses that take no image.

use crate::client::{Request, Server};

#[test]
fn pages_and_facts_are_served() {
    let server = Server::usual();
    let page = server.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert!(
        page.header("content-security-policy")
            .unwrap()
            .contains("default-src 'self'")
    );
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let tag = page.header("etag").unwrap();
    let again = server.send(&Request::new("GET", "/").header("If-None-Match", tag));
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(server.get("/assets/index.html").body, page.body);
    for path in [
        "/assets/none.js",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e/Cargo.toml",
    ] {
        server.get(path).assert_problem(404, "not-found");
    }

    let docs = server.get("/docs");
    assert_eq!(docs.status, 200);
    assert!(docs.text().contains("/v1/segment"));
    assert_eq!(server.get("/docs/style.css").status, 200);
    let api = server.get("/openapi.json").json();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(server.get("/healthz").json()["status"], "alive");
    assert_eq!(server.get("/readyz").json()["status"], "ready");

    let models = server.get("/v1/models").json();
    assert_eq!(models["models"][0]["name"], "mini");
    assert_eq!(models["models"][0]["default"], true);
    assert_eq!(models["limits"]["queue"], 64);
    let formats = models["formats"].as_array().unwrap();
    assert!(
        formats
            .iter()
            .any(|format| format["name"] == "coco" && format["file"] == true)
    );
    assert!(
        formats
            .iter()
            .all(|format| !format["about"].as_str().unwrap().is_empty())
    );

    let lists = server.get("/v1/class-lists").json();
    assert_eq!(lists["lists"][0]["name"], "voc20");
    let list = server.get("/v1/class-lists/ade20k-150").json();
    assert_eq!(list["classes"].as_array().unwrap().len(), 150);
    server
        .get("/v1/class-lists/voc19")
        .assert_problem(404, "not-found");
    assert_eq!(server.depth(), [0, 0]);
}

#[test]
fn wrong_addresses_and_methods_are_problems() {
    let server = Server::usual();
    server.get("/v2").assert_problem(404, "not-found");
    server
        .get("/v1/segment")
        .assert_problem(405, "method-not-allowed");
    server
        .send(&Request::new("PUT", "/v1/encodings"))
        .assert_problem(405, "method-not-allowed");
    server
        .get("/v1/encodings/%ff")
        .assert_problem(400, "bad-request");
    assert_eq!(server.send(&Request::new("HEAD", "/healthz")).status, 200);
}

#[test]
fn answers_are_counted_by_route() {
    let server = Server::usual();
    server.get("/healthz");
    server.get("/nothing/here");
    server.send(&Request::new("MADE-UP", "/healthz"));
    server.get("/v1/encodings/0123");
    let text = server.get("/metrics").text();
    for line in [
        "zeg_requests_total{route=\"/healthz\",method=\"GET\",code=\"200\"} 1",
        "zeg_requests_total{route=\"unknown\",method=\"GET\",code=\"404\"} 1",
        "zeg_requests_total{route=\"/healthz\",method=\"other\",code=\"405\"} 1",
        "zeg_requests_total{route=\"/v1/encodings/{id}\",method=\"GET\",code=\"404\"} 1",
        "zeg_encoding_bytes 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
