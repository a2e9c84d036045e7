//! One path for inference: the same image, model and settings give the same labels from every command and the library.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::{collections::HashMap, fs};

use common::World;
use serde_json::Value;
use zeg::{
    Segmenter,
    eval::{ConfusionMatrix, Evaluation},
    image::{IGNORE_LABEL, LabelMap, decode_labels, decode_rgb},
    model::inference::TestTime,
    vocab::classes::parse_classes_argument,
};

const MODEL: &str = "run/model.safetensors";
const IDS: [&str; 2] = ["2007_000004", "2007_000005"];

/// One test-time augmentation as an experiment, a command line and the library express it.
struct Augmentation {
    experiment: &'static str,
    arguments: &'static [&'static str],
    scales: &'static [f64],
    flip: bool,
}

fn labels_of(world: &World, folder: &str) -> Vec<LabelMap> {
    let read = |id: &&str| decode_labels(&world.path(folder).join(format!("{id}.png"))).unwrap();
    IDS.iter().map(read).collect()
}

fn check_one_path(augmentation: &Augmentation) -> Vec<LabelMap> {
    let world = World::new();
    let validation = format!(
        "training.evaluation={{ every = 3{} }}",
        augmentation.experiment
    );
    world
        .train("run")
        .args(["--set", &validation])
        .assert()
        .success();

    let mut eval = world.zeg();
    eval.args(["eval", MODEL, "--data", "VOC2012", "-o", "scores"]);
    eval.args(["--write-labels", "evaluated", "--json", "scores.json"]);
    eval.args(augmentation.arguments).assert().success();
    let evaluated = labels_of(&world, "evaluated");

    // By default, `zeg segment` leaves pixels below a threshold unlabelled.
    let mut segment = world.zeg();
    segment.args([
        "segment",
        "--model",
        MODEL,
        "--classes",
        "voc20",
        "-o",
        "segmented",
    ]);
    segment.args(["--threshold", "0", "--write", "labels"]);
    segment.args(IDS.map(|id| format!("VOC2012/JPEGImages/{id}.jpg")));
    segment.args(augmentation.arguments).assert().success();
    assert_eq!(labels_of(&world, "segmented"), evaluated);

    // In the library: in one call, and from an image that was encoded before.
    let mut segmenter = Segmenter::load(&world.path(MODEL)).unwrap();
    *segmenter.test_time_mut() = TestTime {
        scales: augmentation.scales.to_vec(),
        flip: augmentation.flip,
    };
    let classes = segmenter
        .encode_classes(&parse_classes_argument("voc20").unwrap())
        .unwrap();
    for (id, expected) in IDS.iter().zip(&evaluated) {
        let image = decode_rgb(&world.image(id)).unwrap();
        let direct = segmenter
            .segment_classes(&image, &classes, &mut [])
            .unwrap();
        assert_eq!(direct.labels, *expected, "{id}");
        let encoded = segmenter.encode(&image).unwrap();
        assert_eq!(
            segmenter.ask(&encoded, &classes, &mut []).unwrap(),
            direct,
            "{id}"
        );
    }

    // The record counts exactly these labels, and the validation of the last step has the same counts.
    let record = Evaluation::open(world.path("scores")).unwrap();
    let mut counted = ConfusionMatrix::new(20);
    for (id, labels) in IDS.iter().zip(&evaluated) {
        // The classes in VOC's label files count from 1; 0 is the background.
        let mut truth = decode_labels(&world.labels(id)).unwrap();
        for label in truth.labels_mut() {
            *label = label.checked_sub(1).unwrap_or(IGNORE_LABEL);
        }
        counted
            .add(truth.labels(), labels.labels(), IGNORE_LABEL)
            .unwrap();
    }
    assert_eq!(record.confusion, counted);
    let lines = fs::read_to_string(world.path("run/scores.jsonl")).unwrap();
    let validated: HashMap<String, Value> =
        serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(validated["step"], 6);
    let report: Value =
        serde_json::from_slice(&fs::read(world.path("scores.json")).unwrap()).unwrap();
    for (validated_score, score) in [
        ("pAcc", "p_acc"),
        ("mIoU", "miou"),
        ("mIoU_seen", "miou_seen"),
        ("mIoU_unseen", "miou_unseen"),
        ("hIoU", "hiou"),
        ("images", "images"),
    ] {
        assert_eq!(validated[validated_score], report[score], "{score}");
    }
    assert!(report["p_acc"].is_number());
    evaluated
}

#[test]
fn every_command_gives_the_same_labels() {
    let plain = check_one_path(&Augmentation {
        experiment: "",
        arguments: &[],
        scales: &[1.0],
        flip: false,
    });
    let augmented = check_one_path(&Augmentation {
        experiment: ", test-time = { scales = [0.75, 1.5], flip = true }",
        arguments: &["--scales", "0.75,1.5", "--flip"],
        scales: &[0.75, 1.5],
        flip: true,
    });
    // Otherwise the second half of this test would only repeat the first.
    assert_ne!(plain, augmented);
}
