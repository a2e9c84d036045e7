//! What a labelling configuration of Label Studio means to the server, and the version that its predictions get.

use base64::Engine as _;
use serde_json::{Value, json};
use zeg::Segmenter;
use zeg::export::{Connectivity, Grouping, find_regions, label_studio::brush_rle};
use zeg::image::decode_rgb;
use zeg::vocab::classes::{ClassQuery, Role};
use zeg_serve::ServeConfig;

use crate::backend::{CONFIG, check_version, image, masks, post, predict};
use crate::served::Served;

/// Returns the status and the answer of a connection with a configuration.
fn setup(served: &Served, config: &str) -> (u16, Value) {
    let address = format!("{}/setup", served.address());
    let body = json!({ "project": "1.17", "schema": config });
    post(&address, "application/json", &body)
}

fn version(served: &Served, config: &str) -> Value {
    let (status, answer) = setup(served, config);
    assert_eq!(status, 200, "{answer}");
    check_version(&answer["model_version"]);
    answer["model_version"].clone()
}

fn task() -> Value {
    let code = base64::engine::general_purpose::STANDARD.encode(std::fs::read(image()).unwrap());
    json!({ "id": 1, "data": { "image": code } })
}

/// Label Studio never asks again for a task that has a prediction of the present version.
#[test]
fn the_version_changes_with_what_changes_predictions() {
    let served = Served::start();
    let first = version(&served, CONFIG);
    assert_eq!(version(&served, CONFIG), first);
    // Colours and comments change nothing.
    let coloured = CONFIG
        .replace("<Label value", "<Label background=\"#f00\" value")
        .replace("<View>", "<View><!-- rooms -->");
    assert_eq!(version(&served, &coloured), first);
    for (from, to) in [
        ("plain blue", "plain cyan"),
        ("value=\"Blue\"", "value=\"Azure\""),
        ("name=\"brush\"", "name=\"other\""),
        ("BrushLabels", "PolygonLabels"),
        ("name=\"brush\"", "name=\"brush\" zeg_threshold=\"0.5\""),
        ("name=\"brush\"", "name=\"brush\" zeg_min_area=\"99\""),
        (
            "name=\"brush\"",
            "name=\"brush\" zeg_background=\"plain green\"",
        ),
    ] {
        let changed = CONFIG.replace(from, to);
        assert_ne!(version(&served, &changed), first, "{to}");
    }
    let (_, answer) = predict(&served, json!([task()]), CONFIG);
    assert_eq!(answer["model_version"], first);
    assert_eq!(answer["results"][0]["model_version"], first);
    let other = Served::with_settings(ServeConfig::default(), |inference| {
        inference.short_side = 256;
    });
    assert_ne!(version(&other, CONFIG), first);
}

#[test]
fn attributes_without_effect_are_named() {
    let served = Served::start();
    let refused = |tags: &str, parts: &[&str]| {
        let config = format!(
            "<View><Image name='image' value='$image'/>
             <BrushLabels name='brush' toName='image'><Label value='plain blue'/></BrushLabels>{tags}</View>"
        );
        let (status, answer) = setup(&served, &config);
        assert_eq!(
            (status, &answer["code"]),
            (422, &json!("bad-classes")),
            "{answer}"
        );
        let said = answer["detail"].as_str().unwrap();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    };
    let outline = |attributes: &str, labels: &str| {
        format!(
            "<PolygonLabels name='outline' toName='image' {attributes}>{labels}</PolygonLabels>"
        )
    };
    refused(
        "<KeyPointLabels name='a' toName='image'><Label value='eye' zeg_threshold='0.5'/></KeyPointLabels>",
        &["zeg_threshold", "\"eye\"", "no effect"],
    );
    refused(
        &outline("zeg_threshold='0.5'", ""),
        &["zeg_threshold", "\"outline\"", "no effect"],
    );
    let again = "<Label value='plain blue' predicted_values='plain cyan'/>";
    refused(&outline("", again), &["predicted_values", "\"plain blue\""]);
    let again = "<Label value='plain blue' zeg_threshold='0.5'/>";
    refused(&outline("", again), &["zeg_threshold", "\"plain blue\""]);
    refused(
        &outline("value='$labels'", ""),
        &["PolygonLabels", "$labels"],
    );
    refused(
        &outline("", "<Label value='$label'/>"),
        &["Label", "$label"],
    );
    // A label that is only repeated is drawn by its first tag.
    let config = CONFIG.replace(
        "</View>",
        &format!("{}</View>", outline("", "<Label value='Blue'/>")),
    );
    assert_eq!(setup(&served, &config).0, 200);
}

/// A bar separates the names of one background class, as it does in `background` of a request.
#[test]
fn background_classes_have_synonyms() {
    let served = Served::start();
    let config = CONFIG.replace(
        "name=\"brush\"",
        "name=\"brush\" zeg_background=\"plain green|dotted green, plain purple\"",
    );
    let (status, answer) = predict(&served, json!([task()]), &config);
    assert_eq!(status, 200, "{answer}");
    let background = |name: &str, synonyms: &[&str]| ClassQuery {
        role: Role::Background,
        synonyms: synonyms.iter().map(ToString::to_string).collect(),
        ..ClassQuery::new(name)
    };
    let classes = [
        ClassQuery::new("striped red"),
        ClassQuery::new("plain blue"),
        background("plain green", &["dotted green"]),
        background("plain purple", &[]),
    ];
    let mut segmenter = Segmenter::load("mini".as_ref()).unwrap();
    segmenter.set_classes(&classes).unwrap();
    let found = segmenter.segment(&decode_rgb(&image()).unwrap()).unwrap();
    let regions = find_regions(&found.labels, Grouping::Connected(Connectivity::Eight), 16);
    let shown = ["striped red", "Blue"];
    let expected: Vec<(Value, Value)> = regions
        .unwrap()
        .iter()
        .filter_map(|region| {
            let label = shown.get(usize::from(region.label()))?;
            Some((json!([label]), json!(brush_rle(&region))))
        })
        .collect();
    assert!(!expected.is_empty());
    assert!(masks(&answer["results"][0]) == expected);
}
