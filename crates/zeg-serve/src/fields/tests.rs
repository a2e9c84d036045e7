//! Tests of the fields of a request.

use serde_json::json;

use super::*;

fn of(value: Value) -> Fields {
    let known: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    Fields::of_json(value.to_string().as_bytes(), &known).unwrap()
}

#[test]
fn texts_of_a_form_and_json_mean_the_same() {
    let form = of(
        json!({"threshold": "0.5", "scales": "0.5, 1", "flip": "true", "python": "True",
        "output": "labels, rle", "points": "1,2; 3,4", "candidates": "3"}),
    );
    let json = of(
        json!({"threshold": 0.5, "scales": [0.5, 1], "flip": true, "python": 1,
        "output": ["labels", "rle"], "points": [[1, 2], [3, 4]], "candidates": 3}),
    );
    for fields in [form, json] {
        assert_eq!(fields.share("threshold").unwrap(), Some(0.5));
        assert_eq!(fields.numbers("scales").unwrap(), [0.5, 1.0]);
        assert!(fields.flag("flip").unwrap());
        assert!(fields.flag("python").unwrap());
        assert_eq!(fields.list("output").unwrap(), ["labels", "rle"]);
        assert_eq!(fields.points("points").unwrap(), [[1, 2], [3, 4]]);
        assert_eq!(fields.count("candidates", 9).unwrap(), Some(3));
    }
}

/// The threads that receive and send are few; a long form must not keep one of them.
#[test]
fn a_form_is_parsed_without_holding_up_others() {
    let state = AppState::new(crate::ServeConfig::default()).unwrap();
    let part = "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n\r\n";
    let content = vec![b'x'; 8 << 20];
    let body = [part.as_bytes(), &content, b"\r\n--b--\r\n"].concat();
    let mut headers = HeaderMap::new();
    let kind = "multipart/form-data; boundary=b";
    headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let (mut fields, was_served) = runtime.unwrap().block_on(async {
        let other = tokio::spawn(async {});
        let fields = Fields::read(&state, headers, body.into(), Vec::new()).await;
        (fields.unwrap(), other.is_finished())
    });
    assert_eq!(fields.take_image().unwrap().0.len(), content.len());
    assert!(was_served);
}

#[test]
fn values_out_of_range_are_refused() {
    let fields = of(
        json!({"a": "NaN", "b": 2, "c": 1.5, "d": [[1]], "e": {"x": 1}, "f": "inf",
        "g": [[-1, 2]], "h": 1e300}),
    );
    assert!(fields.share("a").is_err() && fields.share("b").is_err());
    assert!(fields.count("c", 9).is_err() && fields.count("h", 9).is_err());
    assert!(fields.points("d").is_err() && fields.points("g").is_err());
    assert!(fields.text("e").is_err() && fields.list("e").is_err());
    assert!(fields.flag("e").is_err() && fields.number("f").is_err());
}

#[test]
fn names_are_only_names() {
    for (name, safe) in [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\images\\a.png", "a.png"),
        ("/", "image"),
        ("..", "image"),
        ("", "image"),
        ("a\0b\n.png", "ab.png"),
        (".hidden", "hidden"),
    ] {
        assert_eq!(safe_name(name), safe, "{name:?}");
    }
    assert_eq!(safe_name(&"ä".repeat(500)).chars().count(), MOST_CHARACTERS);
}

#[test]
fn base64_may_be_a_data_address() {
    for text in ["aGVsbG8=", "data:image/png;base64,aGVsbG8="] {
        assert_eq!(of_base64(text).unwrap(), "hello");
    }
    for text in ["data:,hello", "héllo", "a"] {
        assert_eq!(of_base64(text).unwrap_err().code(), Code::BadValue);
    }
}
