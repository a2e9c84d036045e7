//! The example images of the page; `reference/page_examples.py` draws those for MiniCLIP.

use std::path::PathBuf;

use zeg::image::decode_rgb;
use zeg::vocab::classes::parse_class_list;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("assets/examples")
}

/// Every example is small, can be read, has classes that can be asked for, and says where it comes from.
#[test]
fn examples_are_complete() {
    let list = std::fs::read(folder().join("examples.json")).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
    let mut kinds = std::collections::BTreeMap::new();
    for example in list.as_array().unwrap() {
        let text = |key: &str| example[key].as_str().unwrap().to_owned();
        *kinds.entry(text("for")).or_insert(0) += 1;
        let file = folder().join(text("file"));
        let bytes = std::fs::metadata(&file).unwrap().len();
        assert!(bytes < 150_000, "{}: {bytes} bytes", text("file"));
        let image = decode_rgb(&file).unwrap();
        assert!(image.width() >= 200 && image.height() >= 200);
        for key in ["title", "alt", "source"] {
            assert!(!text(key).is_empty());
        }
        let names = |key: &str| {
            let names = example[key].as_array().unwrap().iter();
            names
                .map(|name| name.as_str().unwrap())
                .collect::<Vec<_>>()
                .join(", ")
        };
        assert!(!parse_class_list(&names("classes")).unwrap().is_empty());
        if !names("background").is_empty() {
            parse_class_list(&format!("{}, {}", names("classes"), names("background"))).unwrap();
        }
    }
    assert_eq!(
        kinds,
        [("mini".to_owned(), 3), ("photos".to_owned(), 3)].into()
    );
}
