//! Who may call: tokens, names of the machine, origins of pages.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeg_serve::{Hosts, ServeConfig, Token};

use crate::client::{Form, Request, Server};
use crate::images::png;

const TOKEN: &str = "0123456789abcdef";

#[test]
fn calls_need_the_token_and_pages_do_not() {
    let server = Server::start(ServeConfig {
        token: Some(Token::new(TOKEN).unwrap()),
        hosts: Hosts::Any,
        ..ServeConfig::default()
    });
    for path in [
        "/",
        "/docs",
        "/openapi.json",
        "/healthz",
        "/readyz",
        "/assets/index.html",
    ] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let ask = Request::post("/v1/segment").form(&Form::ask(&png(32, 32, 1), "red, blue"));
    let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("user:{token}")));
    for wrong in [
        "Bearer 0123456789abcdeg",
        "Bearer",
        "0123456789abcdef",
        "Bearer 0123456789abcdef0",
        &basic("wrong-password-here"),
        "\u{fc}",
    ] {
        let answer = server.send(&ask.clone().header("Authorization", wrong));
        answer.assert_problem(401, "unauthorized");
        assert!(answer.header("www-authenticate").is_some());
    }
    for path in [
        "/metrics",
        "/v1/models",
        "/v1/status",
        "/v1/encodings/0",
        "/health",
        "/none",
    ] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    for right in [&format!("Bearer {TOKEN}"), &basic(TOKEN)] {
        let answer = server.send(&ask.clone().header("Authorization", right));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// A page can give its own name the address 127.0.0.1; a browser sends that name as the host.
#[test]
fn only_names_of_this_machine_are_hosts_and_only_own_pages_call() {
    let server = Server::usual();
    let get = || Request::new("GET", "/v1/models");
    for host in ["evil.example", "evil.example:8000", "192.168.1.1"] {
        let answer = server.send(&get().header("Host", host));
        answer.assert_problem(403, "forbidden");
    }
    for host in ["127.0.0.1:8000", "[::1]", "localhost:1"] {
        assert_eq!(server.send(&get().header("Host", host)).status, 200);
    }
    let own = get().header("Host", "localhost:8000");
    let answer = server.send(&own.clone().header("Origin", "http://localhost:8000"));
    assert_eq!(answer.status, 200);
    for origin in ["https://evil.example", "null", "http://localhost:9000"] {
        let answer = server.send(&own.clone().header("Origin", origin));
        answer.assert_problem(403, "forbidden");
    }
}

#[test]
fn allowed_pages_learn_that_they_may_call() {
    let page = "https://label.example";
    let server = Server::start(ServeConfig {
        allow_origins: vec![page.into()],
        token: Some(Token::new(TOKEN).unwrap()),
        hosts: Hosts::Any,
        ..ServeConfig::default()
    });
    let asking = Request::new("OPTIONS", "/v1/segment")
        .header("Origin", page)
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "authorization,content-type",
        );
    let answer = server.send(&asking);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(page));
    let answer = server.send(&asking.header("Origin", "https://other.example"));
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let call = Request::new("GET", "/v1/models")
        .header("Origin", page)
        .header("Authorization", &format!("Bearer {TOKEN}"));
    let answer = server.send(&call);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(page));
}

/// A server for others without a token takes addresses, which no page can give itself, and the names that it is told.
#[test]
fn without_a_token_a_rebound_name_is_no_host() {
    let server = Server::start(ServeConfig {
        hosts: Hosts::Addresses,
        allow_hosts: vec!["zeg.example".into()],
        ..ServeConfig::default()
    });
    let get = |host: &str| server.send(&Request::new("GET", "/v1/models").header("Host", host));
    for host in ["192.168.1.1:8000", "localhost", "zeg.example:8000"] {
        assert_eq!(get(host).status, 200, "{host}");
    }
    for host in [
        "evil.example",
        "localhost:evil.example",
        "[::1]evil.example",
    ] {
        let problem = get(host).assert_problem(403, "forbidden");
        assert!(problem["hint"].as_str().unwrap().contains("--allow-host"));
    }
    for hosts in ["", "Host: localhost\r\nHost: evil.example\r\n"] {
        let request = format!("GET /v1/models HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n");
        server
            .raw(request.as_bytes())
            .assert_problem(400, "bad-request");
    }
}
