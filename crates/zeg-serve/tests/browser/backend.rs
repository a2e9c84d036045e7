//! The backend of Label Studio over a socket, with a server in place of Label Studio that hands out an image.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde_json::{Value, json};
use zeg::Segmenter;
use zeg::export::{Connectivity, Grouping, find_regions, label_studio::brush_rle};
use zeg::image::decode_rgb;
use zeg::vocab::classes::parse_class_list;

use crate::served::Served;

pub(crate) const CONFIG: &str = r#"<View><Image name="image" value="$image"/>
    <BrushLabels name="brush" toName="image"><Label value="striped red"/><Label value="Blue" predicted_values="plain blue"/>
    </BrushLabels></View>"#;
const CLASSES: &str = "striped red, plain blue";
const KEY: &str = "token-of-label-studio";

pub(crate) fn image() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/examples/mini-1.png")
}

/// Serves the image at `/data/upload/1/a.png` to those with the token, and redirects `/moved`; returns the address.
fn studio() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let may = headers
                .iter()
                .any(|line| line.eq_ignore_ascii_case(&format!("authorization: Token {KEY}")));
            let (status, body) = if first.starts_with("GET /moved ") {
                (
                    "302 Found\r\nLocation: http://127.0.0.1:9/elsewhere",
                    Vec::new(),
                )
            } else if !may {
                ("401 Unauthorized", Vec::new())
            } else if first.starts_with("GET /data/upload/1/a.png ") {
                ("200 OK", std::fs::read(image()).unwrap())
            } else {
                ("404 Not Found", Vec::new())
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream
                .write_all(head.as_bytes())
                .and_then(|()| stream.write_all(&body));
        }
    });
    address
}

/// Posts JSON and returns the status and the answer.
pub(crate) fn post(address: &str, kind: &str, body: &Value) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .into();
    let request = agent.post(address).content_type(kind);
    let mut response = request.send(body.to_string().as_str()).unwrap();
    let text = response.body_mut().read_to_vec().unwrap();
    (
        response.status().as_u16(),
        serde_json::from_slice(&text).unwrap(),
    )
}

fn get(address: &str) -> Value {
    let mut response = ureq::get(address).call().unwrap();
    serde_json::from_slice(&response.body_mut().read_to_vec().unwrap()).unwrap()
}

pub(crate) fn predict(served: &Served, tasks: Value, config: &str) -> (u16, Value) {
    let body = json!({ "tasks": tasks, "project": "1.17", "label_config": config, "params": { "context": null } });
    post(
        &format!("{}/predict", served.address()),
        "application/json",
        &body,
    )
}

fn setup(served: &Served, host: &str, key: &str) -> (u16, Value) {
    let body = json!({ "project": "1.17", "schema": CONFIG, "hostname": host, "access_token": key, "extra_params": null });
    post(
        &format!("{}/setup", served.address()),
        "application/json",
        &body,
    )
}

/// Checks that a version is the name of the model and eight digits.
pub(crate) fn check_version(version: &Value) {
    let digits = version.as_str().and_then(|text| text.strip_prefix("mini-"));
    let is_digest = |text: &str| text.len() == 8 && text.chars().all(|c| c.is_ascii_hexdigit());
    assert!(digits.is_some_and(is_digest), "{version}");
}

/// Returns the masks that the library finds, by label.
fn expected() -> Vec<(Value, Value)> {
    let mut segmenter = Segmenter::load("mini".as_ref()).unwrap();
    segmenter
        .set_classes(&parse_class_list(CLASSES).unwrap())
        .unwrap();
    let found = segmenter.segment(&decode_rgb(&image()).unwrap()).unwrap();
    let regions =
        find_regions(&found.labels, Grouping::Connected(Connectivity::Eight), 16).unwrap();
    let shown = ["striped red", "Blue"];
    let mask = |region: zeg::export::Region<'_>| {
        (
            json!([shown[usize::from(region.label())]]),
            json!(brush_rle(&region)),
        )
    };
    regions.iter().map(mask).collect()
}

pub(crate) fn masks(prediction: &Value) -> Vec<(Value, Value)> {
    let results = prediction["result"].as_array().unwrap().iter();
    let mask = |result: &Value| {
        (
            result["value"]["brushlabels"].clone(),
            result["value"]["rle"].clone(),
        )
    };
    results.map(mask).collect()
}

#[test]
fn tasks_are_predicted_from_uploads_addresses_and_base64() {
    let studio = studio();
    let served = Served::for_studio(&studio, None);
    assert_eq!(get(&format!("{}/health", served.address()))["status"], "UP");
    assert_eq!(
        get(&format!("{}/versions", served.address())),
        json!({ "versions": ["mini"] })
    );
    let (status, answer) = setup(&served, &studio, KEY);
    assert_eq!(status, 200, "{answer}");
    let version = answer["model_version"].clone();
    check_version(&version);
    let code = base64::engine::general_purpose::STANDARD.encode(std::fs::read(image()).unwrap());
    let tasks = json!([
        { "id": 7, "data": { "image": "/data/upload/1/a.png" } },
        { "id": 8, "data": { "image": format!("{studio}/data/upload/1/a.png") } },
        { "id": 9, "data": { "image": format!("data:image/png;base64,{code}") } },
        { "id": 10, "data": { "image": code } },
    ]);
    let (status, answer) = predict(&served, tasks, CONFIG);
    assert_eq!(status, 200, "{answer}");
    let results = answer["results"].as_array().unwrap();
    assert_eq!((results.len(), &answer["model_version"]), (4, &version));
    let expected = expected();
    assert!(!expected.is_empty());
    for prediction in results {
        assert!(
            masks(prediction) == expected,
            "other masks than the library's"
        );
        let score = prediction["score"].as_f64().unwrap();
        assert!(score > 0.0 && score <= 1.0, "{score}");
        assert_eq!(prediction["model_version"], version);
    }
    let first = &results[0]["result"][0];
    assert_eq!(
        (&first["type"], &first["from_name"], &first["to_name"]),
        (&json!("brushlabels"), &json!("brush"), &json!("image"))
    );
    let ids = results
        .iter()
        .flat_map(|result| result["result"].as_array().unwrap())
        .map(|region| region["id"].to_string());
    let ids: Vec<String> = ids.collect();
    let different: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), different.len());
}

#[test]
fn images_come_from_label_studio_alone() {
    let studio = studio();
    let one = |image: &str| json!([{ "id": 7, "data": { "image": image } }]);
    let detail = |(status, answer): (u16, Value)| {
        assert_eq!(status, 422, "{answer}");
        assert!(!answer["hint"].as_str().unwrap().is_empty());
        answer["detail"].as_str().unwrap().to_owned()
    };
    let served = Served::for_studio(&studio, None);
    setup(&served, &studio, "another-token");
    let said = detail(predict(&served, one("/data/upload/1/a.png"), CONFIG));
    assert!(said.contains("refuses access"), "{said}");
    setup(&served, &studio, KEY);
    for (image, part) in [
        ("http://127.0.0.1:9/a.png", "only"),
        ("/\\evil.test/a.png", "only"),
        ("/moved", "status 302"),
        ("/data/upload/1/b.png", "status 404"),
        ("s3://bucket/a.png", "neither an address nor base64"),
        ("AAAA", ""), // base64 of three bytes, which are no image
    ] {
        let said = match predict(&served, one(image), CONFIG) {
            (422, answer) => answer["detail"].as_str().unwrap().to_owned(),
            (status, answer) => panic!("{image}: {status} {answer}"),
        };
        assert!(said.contains(part), "{image}: {said}");
    }
}

/// Whoever may call could otherwise look for servers on this machine, and have tokens sent to them.
#[test]
fn nothing_is_fetched_and_no_token_sent_to_where_a_caller_wants() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let stranger = format!("http://{}", listener.local_addr().unwrap());
    let named = |served: &Served, image: &str| {
        setup(served, &stranger, "token-of-a-stranger");
        let body = json!({ "tasks": [{ "id": 7, "data": { "image": image } }], "project": "1.17",
            "label_config": CONFIG, "params": { "hostname": stranger } });
        let address = format!("{}/predict", served.address());
        let (status, answer) = post(&address, "application/json", &body);
        (
            status,
            answer["detail"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let served = Served::start();
    for image in ["/data/upload/1/a.png", &format!("{stranger}/a.png")] {
        let (status, said) = named(&served, image);
        assert_eq!(status, 422, "{said}");
        assert!(
            said.contains("without the address") && said.contains(&stranger),
            "{said}"
        );
    }
    // With an address and a key, the image comes from there and the key goes nowhere else.
    let served = Served::for_studio(&studio(), Some(KEY));
    let (status, said) = named(&served, "/data/upload/1/a.png");
    assert_eq!((status, said.as_str()), (200, ""));
    assert_eq!(named(&served, &format!("{stranger}/a.png")).0, 422);
    assert!(listener.accept().is_err(), "the stranger was called");
}

/// Label Studio takes one result for several tasks as a reason to ask for them one by one.
#[test]
fn a_bad_image_of_a_batch_does_not_spoil_the_others() {
    let studio = studio();
    let served = Served::for_studio(&studio, None);
    setup(&served, &studio, KEY);
    let [good, bad] = ["a", "b"].map(
        |name| json!({ "id": name, "data": { "image": format!("/data/upload/1/{name}.png") } }),
    );
    let (status, answer) = predict(&served, json!([good, bad]), CONFIG);
    assert_eq!(
        (status, answer["results"].as_array().unwrap().len()),
        (200, 1)
    );
    assert_eq!(answer["failed"]["task"], "b", "{answer}");
    assert!(
        answer["failed"]["detail"]
            .as_str()
            .unwrap()
            .contains("status 404"),
        "{answer}"
    );
    let (status, answer) = predict(&served, json!([good]), CONFIG);
    assert_eq!((status, masks(&answer["results"][0])), (200, expected()));
}

#[test]
fn malformed_calls_are_refused_in_plain_words() {
    let served = Served::start();
    let (status, answer) = predict(&served, json!([{ "data": { "image": "§" } }]), CONFIG);
    assert_eq!(status, 422);
    assert!(answer["detail"].as_str().unwrap().starts_with("task 1: "));
    let (status, answer) = predict(&served, json!([]), "<View/>");
    assert_eq!(
        (status, &answer["code"]),
        (422, &json!("bad-classes")),
        "{answer}"
    );
    let (status, answer) = predict(&served, json!([]), CONFIG);
    check_version(&answer["model_version"]);
    assert_eq!((status, &answer["results"]), (200, &json!([])));
    let (status, answer) = predict(
        &served,
        json!([]),
        &CONFIG.replace("toName", "zeg_model=\"none\" toName"),
    );
    assert_eq!(
        (status, &answer["code"]),
        (404, &json!("unknown-model")),
        "{answer}"
    );
    for route in ["setup", "predict", "webhook"] {
        let address = format!("{}/{route}", served.address());
        // A page of a stranger can send this without asking first.
        let (status, answer) = post(&address, "text/plain", &json!({ "tasks": [] }));
        assert_eq!(
            (status, &answer["code"]),
            (415, &json!("unsupported-media-type")),
            "{route}: {answer}"
        );
        let (status, answer) = post(&address, "application/json", &json!([3]));
        assert_eq!(
            (status, &answer["code"]),
            (400, &json!("bad-request")),
            "{route}: {answer}"
        );
    }
    let address = format!("{}/webhook", served.address());
    let (status, _) = post(
        &address,
        "application/json",
        &json!({ "action": "ANNOTATION_CREATED", "task": {} }),
    );
    assert_eq!(status, 201);
    let (status, answer) = post(
        &address,
        "application/json",
        &json!({ "action": "START_TRAINING" }),
    );
    assert_eq!(status, 400);
    assert!(
        answer["hint"].as_str().unwrap().contains("zeg train"),
        "{answer}"
    );
}
