//! Classes given by example images, and the calibration of the confidence, on the command line.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::{fs, path::Path};

use common::{World, failure, write_plain_clip};
use serde_json::Value;
use zeg::image::{decode_labels, encode_grey_png};

/// Sizes at which the world's tower takes its images.
const SIZES: [&str; 6] = ["--short-side", "32", "--crop", "32", "--stride", "16"];

/// Returns a world with plain CLIP weights and a folder of examples: two classes of one of its images.
fn world() -> (World, [u16; 2]) {
    let world = World::new();
    write_plain_clip(&world.path("clip.safetensors"));
    let labels = decode_labels(&world.labels("2007_000000")).unwrap();
    let mut counts = [0_usize; 21];
    for &label in labels.labels().iter().filter(|&&label| label < 21) {
        counts[usize::from(label)] += 1;
    }
    let mut order: Vec<u16> = (0..21).collect();
    order.sort_by_key(|&label| std::cmp::Reverse(counts[usize::from(label)]));
    let classes = [order[0], order[1]];
    for (name, class) in ["first", "second"].into_iter().zip(classes) {
        let folder = world.path("examples").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(world.image("2007_000000"), folder.join("a.jpg")).unwrap();
        let mask = labels
            .labels()
            .iter()
            .map(|&label| f32::from(u8::from(label == class)));
        write_mask(
            &folder,
            [labels.width(), labels.height()],
            &mask.collect::<Vec<f32>>(),
        );
    }
    (world, classes)
}

fn write_mask(folder: &Path, [width, height]: [usize; 2], values: &[f32]) {
    let path = folder.join("a_mask.png");
    fs::write(
        &path,
        encode_grey_png(&path, width, height, values).unwrap(),
    )
    .unwrap();
}

fn segment(world: &World, output: &str) -> assert_cmd::Command {
    let mut command = world.zeg();
    command
        .args([
            "segment",
            "VOC2012/JPEGImages/2007_000000.jpg",
            "--model",
            "clip.safetensors",
        ])
        .args(["--examples", "examples", "--write", "labels", "-o", output])
        .args(SIZES);
    command
}

#[test]
fn classes_are_found_by_their_examples_alone() {
    let (world, classes) = world();
    let output = segment(&world, "out").arg("--json").assert().success();
    let document: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let found = &document["images"][0]["classes"];
    let names: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"first") && names.contains(&"second"),
        "{document}"
    );
    // The examples are the image itself, so most of its pixels of both classes get the right one.
    let truth = decode_labels(&world.labels("2007_000000")).unwrap();
    let labels = decode_labels(&world.path("out/2007_000000.png")).unwrap();
    let (mut right, mut all) = (0, 0);
    for (&truth, &label) in truth.labels().iter().zip(labels.labels()) {
        if let Some(class) = classes.iter().position(|&class| class == truth) {
            all += 1;
            right += usize::from(usize::from(label) == class);
        }
    }
    assert!(5 * right > 4 * all, "{right} of {all}");
    let kept = || fs::read_dir(world.path("cache/examples")).unwrap().count();
    assert_eq!(kept(), 2);
    segment(&world, "again").assert().success();
    assert_eq!(kept(), 2);
    let read = |folder: &str| fs::read(world.path(folder).join("2007_000000.png")).unwrap();
    assert_eq!(read("out"), read("again"));
}

#[test]
fn names_and_examples_stand_beside_each_other() {
    let (world, _) = world();
    let output = segment(&world, "out")
        .args(["--classes", "first, dog"])
        .assert()
        .success();
    let notices = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(
        notices.contains("examples alone") && notices.contains("second"),
        "{notices}"
    );
    assert!(!notices.contains("first,"), "{notices}");
}

#[test]
fn a_folder_that_is_not_complete_is_refused_and_the_doctor_says_why() {
    let (world, _) = world();
    let doctor = |world: &World| {
        let mut command = world.zeg();
        command.args(["data", "doctor", "--examples", "examples", "--json"]);
        command
    };
    let output = doctor(&world).assert().success();
    let document: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let classes = &document["examples"]["classes"];
    assert_eq!(classes[0]["name"], "first");
    assert_eq!(classes[1]["examples"], 1);
    let second = world.path("examples/second");
    write_mask(&second, [2, 2], &[0.0, 0.0, 0.0, 1.0]);
    let output = doctor(&world).assert().code(1);
    let document: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    let errors = document["examples"]["errors"].to_string();
    assert!(errors.contains("2×2"), "{errors}");
    let error = failure(&mut segment(&world, "out"));
    assert!(error.contains("2×2") && error.contains("hint: "), "{error}");
    fs::remove_file(second.join("a_mask.png")).unwrap();
    let error = failure(&mut segment(&world, "out"));
    assert!(
        error.contains("no mask") && error.contains("a_mask.png"),
        "{error}"
    );
}

fn eval(world: &World, arguments: &[&str]) -> Value {
    let mut command = world.zeg();
    command
        .args([
            "eval",
            "clip.safetensors",
            "--data",
            "VOC2012",
            "--dataset",
            "voc12",
            "--json",
        ])
        .args(["--text", "text.safetensors"])
        .args(SIZES)
        .args(arguments);
    let output = command.assert().success();
    serde_json::from_slice(&output.get_output().stdout).unwrap()
}

/// A random tower's confidence means nothing, so this needs a trained one.
#[test]
fn a_fitted_calibration_lowers_the_error_on_its_images_and_keeps_the_labels() {
    let world = World::new();
    let eval = |arguments: &[&str]| -> Value {
        let mut command = world.zeg();
        command
            .args([
                "eval",
                "mini",
                "--dataset",
                "mini-world",
                "--limit",
                "8",
                "--json",
            ])
            .args(arguments);
        let output = command.assert().success();
        serde_json::from_slice(&output.get_output().stdout).unwrap()
    };
    let before = eval(&["--fit-calibration", "calibration.toml"]);
    let file = fs::read_to_string(world.path("calibration.toml")).unwrap();
    assert!(
        file.contains("[calibration]") && file.contains("[fitted]"),
        "{file}"
    );
    let after = eval(&[
        "--confidence",
        "--calibration",
        "calibration.toml",
        "-o",
        "scores",
    ]);
    assert_eq!(before["miou"], after["miou"]);
    let error = |document: &Value, name: &str| document["confidence"][name].as_f64().unwrap();
    let (first, second) = (
        error(&before, "calibration_error"),
        error(&after, "calibration_error"),
    );
    assert!(second < first, "{first} {second}");
    assert!((error(&after, "uncalibrated_error") - first).abs() < 0.01);
    let record = fs::read_to_string(Path::new(&world.path("scores/evaluation.json"))).unwrap();
    assert!(record.contains("reliability"));
    world
        .zeg()
        .args(["report", "scores", "-o", "page"])
        .assert()
        .success();
    let page = fs::read_to_string(world.path("page/report.html")).unwrap();
    assert!(page.contains("Accuracy by confidence"));
}

#[test]
fn pixels_of_classes_that_are_left_out_are_counted_apart() {
    let (world, classes) = world();
    let all = eval(&world, &["--confidence"]);
    assert!(all["confidence"]["thresholds"][0]["absent"].is_null());
    let list = zeg::vocab::classes::ClassSet::by_name("voc20").unwrap();
    // Labels of VOC begin with the background.
    let name = list.classes[usize::from(classes[0].max(1)) - 1].clone();
    let left = eval(&world, &["--leave-out", &name]);
    assert!(
        left["confidence"]["thresholds"][0]["absent"].is_number(),
        "{left}"
    );
    assert!(left["pixels"].as_u64() < all["pixels"].as_u64());
}
