//! MiniCLIP and the mini world from end to end: pre-training, the embedded model, the quickstart.
#![allow(clippy::unwrap_used)]

#[path = "mini/quickstart.rs"]
mod quickstart;
#[path = "json/validate.rs"]
mod validate;

use std::path::Path;

use assert_cmd::Command;
use burn::tensor::Device;
use tempfile::TempDir;
use zeg::{
    data::mini_world::{Part, World, WorldConfig},
    image::write_rgb_png,
};
use zeg_train::pretrain::PretrainConfig;
use zeg_train::pretraining::Pretraining;

/// Returns `zeg` in a folder.
fn zeg(folder: &Path) -> Command {
    let mut command = Command::cargo_bin("zeg").unwrap();
    command
        .current_dir(folder)
        .env_remove("ZEG_DEVICE")
        .env_remove("ZEG_THREADS")
        .env("ZEG_CACHE", folder.join("cache"))
        .env("ZEG_OFFLINE", "1");
    command
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The accuracy of chance is 1 in 32.
#[test]
fn a_short_pre_training_is_far_better_than_chance() {
    let config = PretrainConfig {
        steps: 80,
        batch: 64,
        warmup_steps: 8,
        ..PretrainConfig::default()
    };
    let pretraining = Pretraining::new(config, &Device::flex()).unwrap();
    let mut losses = Vec::new();
    let trainer = pretraining
        .run::<zeg_train::TrainError>(|_, report| {
            losses.push(report.loss);
            Ok(())
        })
        .unwrap();
    assert!(losses[0] > 3.5, "starts at about ln 64: {}", losses[0]);
    let model = trainer.inference_model();
    let accuracy = pretraining.zero_shot_accuracy(&model, 256).unwrap();
    assert!(accuracy > 0.12, "{accuracy}, losses {losses:?}");
}

/// Returns `zeg pretrain` with a few small steps.
fn pretrain(folder: &Path, output: &str, more: &[&str]) -> Command {
    let mut command = zeg(folder);
    command.args(["pretrain", "-o", output, "--steps", "4", "--batch", "4"]);
    command.args(["--checkpoint-every", "1", "--threads", "1"]);
    command.args(more);
    command
}

#[test]
fn a_pre_training_that_is_killed_continues_to_the_same_bytes() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bytes = |name: &str| std::fs::read(path(name)).unwrap();
    let losses = |name: &str| -> Vec<f64> {
        let text = std::fs::read_to_string(path(name)).unwrap();
        let lines = text.lines().map(serde_json::from_str::<serde_json::Value>);
        lines
            .map(|line| line.unwrap()["loss"].as_f64().unwrap())
            .collect()
    };
    pretrain(folder.path(), "whole.safetensors", &[])
        .assert()
        .success();

    let command = pretrain(folder.path(), "killed.safetensors", &[]);
    let mut child = std::process::Command::new(command.get_program())
        .current_dir(folder.path())
        .args(command.get_args())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let checkpoint = path("killed.checkpoint.safetensors");
    while !checkpoint.exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!path("killed.safetensors").exists());
    let refused = pretrain(folder.path(), "killed.safetensors", &[])
        .output()
        .unwrap();
    assert!(
        stderr(&refused).contains("--resume"),
        "{}",
        stderr(&refused)
    );
    let resume = ["--resume"];
    let resumed = pretrain(folder.path(), "killed.safetensors", &resume)
        .output()
        .unwrap();
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(stderr(&resumed).contains("resuming at step"));
    assert!(bytes("whole.safetensors") == bytes("killed.safetensors"));
    assert_eq!(losses("whole.jsonl"), losses("killed.jsonl"));
    assert_eq!(losses("killed.jsonl").len(), 4);
    for temporary in ["killed.checkpoint.safetensors", "killed.safetensors.lock"] {
        assert!(!path(temporary).exists(), "{temporary}");
    }

    // Nothing is left to continue, and the finished weights stay.
    for (flags, said) in [
        (&resume[..], "no checkpoint to continue from"),
        (&[], "holds a run already"),
    ] {
        let output = pretrain(folder.path(), "killed.safetensors", flags)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[test]
fn the_embedded_model_segments_an_image_of_its_world() {
    let folder = TempDir::new().unwrap();
    let world = World::new(WorldConfig::default()).unwrap();
    let sample = world.sample(Part::Test, 0);
    write_rgb_png(&folder.path().join("a.png"), &sample.image).unwrap();
    let named = sample.objects[0].name.to_string();
    let output = zeg(folder.path())
        .args(["segment", "a.png", "--model", "mini", "--classes", &named])
        .args(["-o", "out", "--json", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(folder.path().join("out/a.png").is_file());
}

#[cfg(unix)]
#[test]
fn a_name_that_is_not_utf8_is_escaped_and_does_not_lose_the_json() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let folder = TempDir::new().unwrap();
    let images = folder.path().join("in");
    std::fs::create_dir(&images).unwrap();
    let world = World::new(WorldConfig::default()).unwrap();
    let sample = world.sample(Part::Test, 0);
    write_rgb_png(&images.join("a.png"), &sample.image).unwrap();
    let odd = images.join(OsStr::from_bytes(b"latin1_\xE9.png"));
    std::fs::copy(images.join("a.png"), odd).unwrap();
    let output = zeg(folder.path())
        .args(["segment", "in", "--model", "mini", "--classes", "red,blue"])
        .args(["-o", "out", "--write", "labels,coco", "--json", "out.json"])
        .output()
        .unwrap();
    let errors = stderr(&output);
    assert!(output.status.success(), "{errors}");
    assert!(
        errors.contains("warning: ") && errors.contains("latin1_\\xE9.png"),
        "{errors}"
    );
    let json = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(folder.path().join(path)).unwrap()).unwrap()
    };
    let results = json("out.json");
    assert_eq!(results["images"][1]["image"], "latin1_\\xE9.png");
    assert_eq!(results["images"][1]["files"][0], "out/latin1_\\xE9.png");
    let coco = json("out/coco.json");
    assert_eq!(coco["images"][1]["file_name"], "latin1_\\xE9.png");
}

#[test]
fn a_word_that_the_embedded_model_does_not_know_is_named_with_those_it_knows() {
    let folder = TempDir::new().unwrap();
    let world = World::new(WorldConfig::default()).unwrap();
    write_rgb_png(
        &folder.path().join("a.png"),
        &world.sample(Part::Test, 0).image,
    )
    .unwrap();
    let output = zeg(folder.path())
        .args(["segment", "a.png", "--model", "mini", "-o", "out"])
        .args(["--classes", "striped red, zebra"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = stderr(&output);
    assert!(text.contains("does not know the word \"zebra\""), "{text}");
    assert!(text.contains("striped") && text.contains("cyan"), "{text}");
}

#[test]
fn the_mini_world_needs_no_folder_and_other_data_sets_do() {
    let folder = TempDir::new().unwrap();
    let experiment = include_str!("../../../configs/mini-world/baseline-frozen.toml");
    std::fs::write(folder.path().join("a.toml"), experiment).unwrap();
    let train = [
        "train",
        "a.toml",
        "--weights",
        "mini",
        "-o",
        "run",
        "--set",
        "training.steps=2",
    ];
    let few = [
        "--set",
        "data.mini-world.train=6",
        "--set",
        "data.mini-world.test=3",
    ];
    let output = zeg(folder.path()).args(train).args(few).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let eval = ["eval", "run/model.safetensors", "--json", "-"];
    let output = zeg(folder.path()).args(eval).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["images"], 3);

    // Nothing that would change its classes or images is ignored.
    for (more, named) in [
        (["--class-list", "voc20"], "takes no class list (`voc20`)"),
        (
            ["--unseen", "red circle"],
            "takes no list of unseen classes",
        ),
        (["--data", "nowhere"], "takes no folder (--data nowhere)"),
    ] {
        let eval = ["eval", "run/model.safetensors"];
        let output = zeg(folder.path()).args(eval).args(more).output().unwrap();
        assert!(!output.status.success());
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }

    let other = ["eval", "run/model.safetensors", "--dataset", "voc12"];
    let output = zeg(folder.path()).args(other).output().unwrap();
    assert!(
        stderr(&output).contains("name it with --data"),
        "{}",
        stderr(&output)
    );
}

/// Variants have other unseen classes here, and the scores of one were compared with those of another.
#[test]
fn a_suite_does_not_compare_the_scores_of_its_variants() {
    let folder = TempDir::new().unwrap();
    let experiment = include_str!("../../../configs/mini-world/baseline-frozen.toml");
    std::fs::write(folder.path().join("a.toml"), experiment).unwrap();
    let suite = r#"
title = "Two splits"
base = "a.toml"
table = "benchmarks"
seeds = [0]
set = ["training.steps=1", "data.mini-world.train=6", "data.mini-world.test=3"]

[[variants]]
name = "split-0"
set = ["data.mini-world.world.split-seed=0"]

[[variants]]
name = "split-1"
set = ["data.mini-world.world.split-seed=1"]

[[rows]]
name = "one"
"#;
    std::fs::write(folder.path().join("suite.toml"), suite).unwrap();
    let ablate = ["ablate", "suite.toml", "--weights", "mini", "-o", "suite"];
    let output = zeg(folder.path()).args(ablate).output().unwrap();
    let told = stderr(&output);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("cannot be compared"), "{told}");
    let table = std::fs::read_to_string(folder.path().join("suite/ablation.md")).unwrap();
    assert!(table.contains("| one | 2 |"), "{table}");
}

#[test]
fn every_method_is_timed_with_generated_weights() {
    let folder = TempDir::new().unwrap();
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/mini-world");
    for config in [
        "zegclip-inductive",
        "clip-rc-inductive",
        "zegformer",
        "zsseg",
        "cat-seg",
        "maskclip-plus",
    ] {
        for training in [false, true] {
            let mut command = zeg(folder.path());
            command.args(["bench", &format!("{configs}/{config}.toml")]);
            command.args(["--runs", "1", "--json", "-"]);
            if training {
                command.args(["--training", "--batch", "2"]);
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{config}: {}", stderr(&output));
            let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(found["median_s"].as_f64().unwrap() > 0.0, "{config}");
        }
    }
}

/// The vectors are learned alone, then the segmenter starts from them, then it trains itself further.
#[test]
fn zsseg_is_trained_in_stages() {
    let folder = TempDir::new().unwrap();
    let configs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/mini-world");
    let train = |config: &str, init: Option<&str>, output: &str, more: &[&str]| {
        let mut command = zeg(folder.path());
        command.args(["train", &format!("{configs}/{config}.toml")]);
        command.args(["--weights", "mini", "-o", output]);
        command.args(["--set", "training.steps=2", "--set", "training.batch=2"]);
        if let Some(init) = init {
            command.args(["--init", &format!("{init}/model.safetensors")]);
        }
        command.args(more).output().unwrap()
    };
    let without = train("zsseg", None, "without", &[]);
    assert!(!without.status.success());
    let text = stderr(&without);
    assert!(
        text.contains("no learned vectors") && text.contains("hint:"),
        "{text}"
    );

    let prompts = train("zsseg-prompts", None, "prompts", &[]);
    assert!(prompts.status.success(), "{}", stderr(&prompts));
    let eval = |run: &str| {
        let mut command = zeg(folder.path());
        command.args(["eval", &format!("{run}/model.safetensors"), "--limit", "2"]);
        command.args(["--json", "-"]).output().unwrap()
    };
    let refused = eval("prompts");
    assert!(!refused.status.success());
    let text = stderr(&refused);
    assert!(text.contains("holds learned prompts"), "{text}");

    let segmenter = train("zsseg", Some("prompts"), "run", &[]);
    assert!(segmenter.status.success(), "{}", stderr(&segmenter));
    let scored = eval("run");
    assert!(scored.status.success(), "{}", stderr(&scored));

    let transductive = ["--set", "training.setting=transductive"];
    let more = ["--set", "training.pseudo-labels=unlabelled-pixels"];
    let further = train("zsseg", Some("run"), "st", &[transductive, more].concat());
    assert!(further.status.success(), "{}", stderr(&further));
    assert!(eval("st").status.success());
}

#[test]
fn the_table_of_systems_has_measured_and_published_figures() {
    let folder = TempDir::new().unwrap();
    let table = ["bench", "--table", "--only", "zegclip", "--runs", "1"];
    let output = zeg(folder.path())
        .args(table)
        .args(["--json", "-"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["command"], "bench");
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for (row, (classes, parameters, macs)) in
        rows.iter().zip([(20, 13.8, 110.4), (171, 14.6, 123.9)])
    {
        assert_eq!(row["classes"], classes, "{row}");
        assert_eq!(row["published"]["parameters_m"], parameters, "{row}");
        assert_eq!(row["published"]["macs_g"], macs, "{row}");
        assert!(row["images_per_s"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(found["ratios"].as_array().unwrap().is_empty(), "{found}");

    let with_file = zeg(folder.path()).args(table).arg("a.toml").output();
    assert_eq!(with_file.unwrap().status.code(), Some(2));
    let unknown = zeg(folder.path())
        .args(["bench", "--table", "--only", "zegclp"])
        .output()
        .unwrap();
    assert!(!unknown.status.success());
    assert!(
        stderr(&unknown).contains("clip-rc, zegclip, zegformer"),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn what_the_model_computes_is_drawn() {
    let folder = TempDir::new().unwrap();
    let world = World::new(WorldConfig::default()).unwrap();
    let sample = world.sample(Part::Test, 0);
    write_rgb_png(&folder.path().join("a.png"), &sample.image).unwrap();
    let draw = |more: &[&str]| {
        zeg(folder.path())
            .args(["visualize", "a.png", "--model", "mini", "-o", "maps"])
            .args(["--classes", "striped red, plain blue", "--json", "-"])
            .args(more)
            .output()
            .unwrap()
    };
    let output = draw(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let maps: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let classes = maps["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 2);
    assert_eq!(classes[1]["class"], "plain blue");
    let mut files = vec![maps["components"].as_str().unwrap()];
    for class in classes {
        for map in ["mask", "similarity"] {
            let map = &class[map];
            let (least, most) = (map["least"].as_f64(), map["most"].as_f64());
            assert!(least.unwrap() < most.unwrap(), "{class}");
            files.push(map["file"].as_str().unwrap());
        }
        assert!(class["similarity"]["most"].as_f64().unwrap() <= 1.001);
    }
    for file in files {
        let drawn = zeg::image::decode_rgb(&folder.path().join(file)).unwrap();
        assert_eq!(drawn.dimensions(), sample.image.dimensions(), "{file}");
    }
    // Files that exist are replaced only if that is asked for.
    assert!(stderr(&draw(&[])).contains("exists"));
    assert!(draw(&["--overwrite"]).status.success());
}
