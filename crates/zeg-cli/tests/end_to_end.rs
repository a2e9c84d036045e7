//! The program from an empty run folder to label maps: train, resume, score, segment.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use common::World;

fn file(world: &World, name: &str) -> Vec<u8> {
    std::fs::read(world.path(name)).unwrap()
}

/// Returns the lines of a log without the times of the steps.
fn losses(world: &World, run: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(world.path(&format!("{run}/log.jsonl"))).unwrap();
    text.lines()
        .map(|line| {
            let mut value: serde_json::Value = serde_json::from_str(line).unwrap();
            value.as_object_mut().unwrap().remove("seconds");
            value
        })
        .collect()
}

#[test]
fn a_model_is_trained_scored_and_used() {
    let world = World::new();
    let output = world
        .train("run")
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    assert_eq!(
        String::from_utf8(output).unwrap().trim(),
        "run/model.safetensors"
    );
    let losses = losses(&world, "run");
    assert_eq!(losses.len(), 6);
    let loss = |step: usize| losses[step]["loss"].as_f64().unwrap();
    assert!(loss(5) < loss(0), "{losses:?}");
    let manifest: serde_json::Value =
        serde_json::from_slice(&file(&world, "run/run.json")).unwrap();
    assert_eq!(manifest["data"]["images"], 4);

    // Two checkpoints are kept; neither file holds the frozen encoder.
    assert!(!world.path("run/checkpoint-00000002.safetensors").exists());
    assert!(world.path("run/checkpoint-00000004.safetensors").exists());
    let header =
        String::from_utf8_lossy(&file(&world, "run/model.safetensors")[..4000]).into_owned();
    assert!(header.contains("backbone.prompt_embeddings") && !header.contains("backbone.conv1"));

    world
        .zeg()
        .args([
            "eval",
            "run/model.safetensors",
            "--data",
            "VOC2012",
            "--json",
            "scores.json",
        ])
        .assert()
        .success();
    let scores: serde_json::Value = serde_json::from_slice(&file(&world, "scores.json")).unwrap();
    assert_eq!(scores["images"], 2);
    for key in ["p_acc", "miou", "miou_seen"] {
        assert!(
            (0.0..=1.0).contains(&scores[key].as_f64().unwrap()),
            "{key}: {scores}"
        );
    }
    assert_eq!(scores["classes"].as_array().unwrap().len(), 20);
    assert_eq!(scores["classes"][15]["split"], "unseen");
    // The two images hold the classes 0, 1, 5 and 6, and no others have an accuracy.
    for (number, class) in scores["classes"].as_array().unwrap().iter().enumerate() {
        assert_eq!(
            class["acc"].is_number(),
            [0, 1, 5, 6].contains(&number),
            "{class}"
        );
    }

    world
        .zeg()
        .args([
            "segment",
            "VOC2012/JPEGImages/2007_000004.jpg",
            "--model",
            "run/model.safetensors",
        ])
        .args([
            "--classes",
            "bird|boat, sofa",
            "-o",
            "out",
            "--json",
            "-",
            "--threshold",
            "0",
        ])
        .assert()
        .success();
    let labels = zeg::image::decode_labels(&world.path("out/2007_000004.png")).unwrap();
    assert_eq!((labels.width(), labels.height()), (48, 40));
    assert!(labels.labels().iter().all(|&label| label < 2));
    assert!(world.path("out/2007_000004.overlay.png").exists());
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let world = World::new();
    world.train("straight").assert().success();
    // Make a run that was stopped after its checkpoint at step 4.
    world.train("stopped").assert().success();
    for name in ["model.safetensors", "checkpoint-00000006.safetensors"] {
        std::fs::remove_file(world.path("stopped").join(name)).unwrap();
    }
    let refused = common::failure(&mut world.train("stopped"));
    assert!(refused.contains("--resume"), "{refused}");
    world.train("stopped").arg("--resume").assert().success();
    assert_eq!(
        file(&world, "straight/model.safetensors"),
        file(&world, "stopped/model.safetensors")
    );
    assert_eq!(
        file(&world, "straight/checkpoint-00000006.safetensors"),
        file(&world, "stopped/checkpoint-00000006.safetensors")
    );
    // The log has one line for a step that was done twice.
    assert_eq!(losses(&world, "straight"), losses(&world, "stopped"));
}

#[test]
fn a_frozen_encoder_trains_on_cached_copies_and_micro_batches_do_not_change_the_result() {
    let world = World::new();
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("prompts =", "# prompts =")).unwrap();
    let settings = [
        "--set",
        "training.cached-copies=2",
        "--set",
        "model.head.dropout=0",
    ];
    world
        .train("whole")
        .args(settings)
        .args(["--set", "training.micro-batch=3"])
        .assert()
        .success();
    world
        .train("parts")
        .args(settings)
        .args(["--set", "training.micro-batch=1"])
        .assert()
        .success();
    for (whole, parts) in losses(&world, "whole").iter().zip(losses(&world, "parts")) {
        let (a, b) = (
            whole["loss"].as_f64().unwrap(),
            parts["loss"].as_f64().unwrap(),
        );
        assert!((a / b - 1.0).abs() < 1e-4, "{whole} {parts}");
    }
}

#[test]
fn encoded_copies_from_a_file_give_the_same_run() {
    let world = World::new();
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("prompts =", "# prompts =")).unwrap();
    let train = |run: &str, more: &[&str]| {
        let output = world
            .train(run)
            .args(["--set", "training.cached-copies=2"])
            .args(more)
            .assert()
            .success();
        String::from_utf8_lossy(&output.get_output().stderr).into_owned()
    };
    train("plain", &[]);
    let cache = ["--feature-cache", "features"];
    assert!(!train("first", &cache).contains("encoded augmented copies read from"));
    assert!(train("second", &cache).contains("encoded augmented copies read from"));
    for run in ["first", "second"] {
        assert_eq!(
            file(&world, "plain/model.safetensors"),
            file(&world, &format!("{run}/model.safetensors")),
            "{run}"
        );
    }
    // Another seed has other augmented copies, and changed images are encoded again.
    let seed = ["--feature-cache", "features", "--set", "training.seed=5"];
    assert!(!train("other", &seed).contains("encoded augmented copies read from"));
    let image = world.image("2007_000000");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, bytes).unwrap();
    assert!(!train("changed", &cache).contains("encoded augmented copies read from"));
}
