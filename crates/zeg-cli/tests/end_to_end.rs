//! The program from an empty run folder to label maps: train, resume, score, segment.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::path::Path;

use common::{World, failure};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;

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
    let fresh = manifest["started_fresh"].as_array().unwrap();
    assert!(
        fresh.contains(&"decode_head.q_proj.weight".into()),
        "{fresh:?}"
    );
    assert!(
        fresh
            .iter()
            .all(|name| !name.as_str().unwrap().contains("resblocks"))
    );

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
fn a_model_that_lacks_a_parameter_is_refused_by_name() {
    const LOST: &str = "decode_head.q_proj.weight";
    let world = World::new();
    let trained = world.train("run").assert().success();
    let text = String::from_utf8_lossy(&trained.get_output().stderr).into_owned();
    assert!(
        text.contains("parameters start from initial values: "),
        "{text}"
    );
    let bytes = file(&world, "run/model.safetensors");
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let rest = tensors
        .tensors()
        .into_iter()
        .filter(|(name, _)| name != LOST);
    let damaged = safetensors::serialize(rest, header.metadata().clone()).unwrap();
    std::fs::write(world.path("run/damaged.safetensors"), damaged).unwrap();

    let image = "VOC2012/JPEGImages/2007_000004.jpg";
    let model = "run/damaged.safetensors";
    for command in [
        &[
            "segment",
            image,
            "--model",
            model,
            "--classes",
            "bird, sofa",
            "-o",
            "out",
        ][..],
        &["eval", model, "--data", "VOC2012"],
        &["bench", model, "--size", "32", "--runs", "1"],
    ] {
        let text = common::failure(world.zeg().args(command));
        assert!(text.contains(LOST), "{command:?}: {text}");
    }
    let text = common::failure(world.train("again").args(["--init", model]));
    assert!(text.contains(LOST), "{text}");
    let info = world.zeg().args(["info", model]).assert().success();
    let text = String::from_utf8_lossy(&info.get_output().stderr).into_owned();
    assert!(text.contains("not whole") && text.contains(LOST), "{text}");
    let text = String::from_utf8_lossy(&info.get_output().stdout).into_owned();
    assert!(text.contains(&format!("missing      {LOST}")), "{text}");
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
    let refused = failure(&mut world.train("stopped"));
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

/// Training in bf16 is nearly training in floats, and the same whatever the number of threads.
#[test]
fn training_in_bf16_follows_training_in_floats() {
    let world = World::new();
    let train = |run: &str, more: &[&str]| {
        world.train(run).args(more).assert().success();
        let losses = losses(&world, run);
        let losses = losses.iter().map(|line| line["loss"].as_f64().unwrap());
        losses.collect::<Vec<_>>()
    };
    let bf16 = ["--set", "training.precision=bf16"];
    let floats = train("floats", &[]);
    let rounded = train("rounded", &bf16);
    assert_ne!(floats, rounded, "nothing was rounded");
    for (step, (float, rounded)) in floats.iter().zip(&rounded).enumerate() {
        assert!(
            (float - rounded).abs() <= 0.02 * float,
            "step {step}: {rounded} is not {float}"
        );
    }
    let one = train("one-thread", &[&bf16[..], &["--threads", "1"]].concat());
    assert_eq!(rounded, one);
    let model = |run: &str| file(&world, &format!("{run}/model.safetensors"));
    assert!(model("rounded") == model("one-thread"), "the bytes differ");
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

/// `training.on-bad-sample` holds for encoded copies as for images that are read in every step.
#[test]
fn a_bad_image_is_skipped_when_copies_are_encoded() {
    let world = World::new();
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("prompts =", "# prompts =")).unwrap();
    let image = world.image("2007_000001");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::write(&image, &bytes[..bytes.len() / 4]).unwrap();
    let train = || {
        let mut command = world.train("run");
        command.args(["--set", "training.cached-copies=2"]);
        command
    };
    let text = failure(&mut train());
    assert!(text.contains("2007_000001.jpg"), "{text}");
    let mut skipping = train();
    skipping.args(["--overwrite", "--set", "training.on-bad-sample=skip"]);
    let output = skipping.assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    let told = text.matches("image 2007_000001 is skipped").count();
    assert_eq!(told, 1, "{text}");
}

/// The classes of the world's labels in a data set file; `RULE` stands for how label files are read.
const OWN: &str = r#"
name = "own"
images = "JPEGImages/{id}.jpg"
labels = "SegmentationClass/{id}.png"
kind = "index"
RULE
classes = [
  "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
  "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]

[splits]
train = "all"
val = "all"
"#;

/// Returns a world whose experiment has a frozen encoder and trains on the data set `own.toml`.
fn world_with_own_data() -> World {
    let world = World::new();
    let text = std::fs::read_to_string(world.config()).unwrap();
    let text = text.replace("prompts =", "# prompts =");
    std::fs::write(world.config(), text.replace("\"voc12\"", "\"own.toml\"")).unwrap();
    label_rule(&world, "zero-is = \"ignore\"\nignore = [255]");
    world
}

fn label_rule(world: &World, rule: &str) {
    std::fs::write(world.path("own.toml"), OWN.replace("RULE", rule)).unwrap();
}

/// Changes the JSON in the metadata of a checkpoint.
fn rewrite_info(path: &Path, change: impl Fn(&mut Value)) {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut metadata = header.metadata().clone().unwrap();
    let mut info: Value = serde_json::from_str(&metadata["zeg"]).unwrap();
    change(&mut info);
    metadata.insert("zeg".into(), info.to_string());
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    std::fs::write(
        path,
        safetensors::serialize(tensors, Some(metadata)).unwrap(),
    )
    .unwrap();
}

#[test]
fn cached_copies_have_the_labels_as_they_are_read_now() {
    let world = world_with_own_data();
    let train = |run: &str, cache: &str| {
        let mut command = world.train(run);
        command.args([
            "--set",
            "training.cached-copies=2",
            "--feature-cache",
            cache,
        ]);
        let output = command.assert().success();
        let told = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        told.contains("encoded augmented copies read from")
    };
    assert!(!train("first", "features"));
    assert!(train("again", "features"));
    label_rule(&world, "zero-is = \"class\"\nignore = [255]");
    assert!(!train("corrected", "features"));
    assert!(!train("fresh", "other"));
    let model = |run: &str| file(&world, &format!("{run}/model.safetensors"));
    assert_eq!(model("corrected"), model("fresh"));
    assert_eq!(model("again"), model("first"));
    assert_ne!(model("corrected"), model("first"));
}

#[test]
fn a_run_is_not_resumed_with_another_reading_of_labels() {
    let world = world_with_own_data();
    world.train("run").assert().success();
    for name in ["model.safetensors", "checkpoint-00000006.safetensors"] {
        std::fs::remove_file(world.path("run").join(name)).unwrap();
    }
    let resume = || {
        let mut command = world.train("run");
        command.arg("--resume");
        command
    };
    label_rule(&world, "zero-is = \"ignore\"\nignore = [254, 255]");
    let text = failure(&mut resume());
    assert!(
        text.contains("label rule: ignore 255 then, 254 255 now") && text.contains("hint:"),
        "{text}"
    );
    assert!(!world.path("run/model.safetensors").exists());
    // A checkpoint of an earlier version recorded no label rule.
    let checkpoint = world.path("run/checkpoint-00000004.safetensors");
    rewrite_info(&checkpoint, |info| {
        info.as_object_mut().unwrap().remove("fingerprint");
    });
    let output = resume().assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(
        text.contains("could not be verified") && text.contains("label rule"),
        "{text}"
    );
}

/// Writes the frozen weights of the world as two files with an index.
fn write_shards(world: &World, folder: &str) {
    let bytes = std::fs::read(world.weights()).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    let folder = world.path(folder);
    std::fs::create_dir_all(&folder).unwrap();
    let mut names = serde_json::Map::new();
    let middle = tensors.len() / 2;
    for (number, part) in [&tensors[..middle], &tensors[middle..]].iter().enumerate() {
        let name = format!("model-{number}.safetensors");
        let named: Vec<(&str, &TensorView)> = part
            .iter()
            .map(|(key, view)| (key.as_str(), view))
            .collect();
        let file = safetensors::serialize(named, None).unwrap();
        std::fs::write(folder.join(&name), file).unwrap();
        names.extend(
            part.iter()
                .map(|(key, _)| (key.clone(), name.clone().into())),
        );
    }
    let index = serde_json::json!({ "weight_map": names }).to_string();
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
}

/// The index of other weights can be the same text, so the digest of the weights is that of all files.
#[test]
fn a_model_that_was_trained_on_a_folder_of_shards_is_bound_to_all_of_them() {
    let world = World::new();
    write_shards(&world, "clip");
    let mut train = world.zeg();
    train.args(["train", "experiment.toml", "--data", "VOC2012", "-o", "run"]);
    train.args(["--weights", "clip", "--text", "text.safetensors"]);
    train.assert().success();
    let eval = || {
        let mut command = world.zeg();
        command.args(["eval", "run/model.safetensors", "--data", "VOC2012"]);
        command
    };
    eval().assert().success();

    // Another number in the last shard, whose index stays the same.
    let shard = world.path("clip/model-1.safetensors");
    let good = std::fs::read(&shard).unwrap();
    let mut other = good.clone();
    let last = other.len() - 2;
    other[last] ^= 1;
    std::fs::write(&shard, &other).unwrap();
    let text = failure(&mut eval());
    assert!(text.contains("SHA-256") && text.contains("hint:"), "{text}");

    // An earlier version recorded the digest of the index alone.
    let index = world.path("clip/model.safetensors.index.json");
    let of_index = zeg::model::weights::file_sha256(&index).unwrap();
    rewrite_info(&world.path("run/model.safetensors"), |info| {
        info["base"]["sha256"] = of_index.clone().into();
        info["base"]["path"] = index.display().to_string().into();
        info.as_object_mut().unwrap().remove("fingerprint");
    });
    let output = eval().assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("could not be verified"), "{text}");
}
