//! Checkpoints of format 1, whose experiments mixed the keys of one method with those of all, keep their meaning.
//!
//! The README in `tests/golden/format-1` describes the golden files.
#![allow(clippy::unwrap_used)] // in tests

use std::path::{Path, PathBuf};

use assert_cmd::Command;
use zeg::{
    eval::Evaluation,
    model::{checkpoint::Checkpoint, methods::Methods},
};
use zeg_train::experiment::Experiment;

fn zeg() -> Command {
    Command::cargo_bin("zeg").unwrap()
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/format-1")
        .join(name)
}

/// Scores a checkpoint and compares the confusion matrix with that of the program that wrote the checkpoint.
fn scores_as_before(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record");
    zeg()
        .arg("eval")
        .arg(golden(&format!("{name}.safetensors")))
        .args(["--limit", "12", "-o"])
        .arg(&record)
        .assert()
        .success();
    let evaluation = Evaluation::open(&record).unwrap();
    let found = serde_json::to_value(&evaluation.confusion).unwrap();
    let text = std::fs::read_to_string(golden(&format!("{name}.json"))).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found, expected["confusion"], "{name}");
}

#[test]
fn a_model_with_class_masks_scores_as_before() {
    scores_as_before("zegclip-inductive");
}

#[test]
fn a_model_with_region_tokens_scores_as_before() {
    scores_as_before("clip-rc-inductive");
}

#[test]
fn a_two_stage_model_scores_as_before() {
    scores_as_before("zegformer");
}

#[test]
fn the_experiment_of_an_old_checkpoint_has_the_current_keys() {
    let methods = Methods::default();
    let checkpoint = Checkpoint::open(&golden("zegformer.safetensors"), &methods).unwrap();
    let experiment = Experiment::of_checkpoint(&checkpoint).unwrap();
    let crops = experiment.inference.method.get("crops").unwrap();
    assert_eq!(crops, "crop");
    assert!(experiment.training.loss.is_empty());
    assert_eq!(
        checkpoint.architecture(&methods).unwrap().method(),
        "zegformer"
    );
}

#[test]
fn an_old_key_of_an_experiment_file_is_read_and_reported_with_its_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../configs/mini-world/zegformer.toml"
    );
    let text = std::fs::read_to_string(config).unwrap();
    let old = folder.path().join("old.toml");
    std::fs::write(&old, text.replace("[inference.method]\n", "")).unwrap();
    let output = zeg().arg("info").arg(&old).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("`inference.crops` is now called `inference.method.crops`"),
        "{said}"
    );
}

/// Writes a copy of a golden checkpoint with more settings in its experiment.
fn with_setting(folder: &Path, name: &str, table: &str, key: &str, value: f64) -> PathBuf {
    let bytes = std::fs::read(golden(name)).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut extra = metadata.metadata().clone().unwrap();
    let mut info: serde_json::Value = serde_json::from_str(&extra["zeg"]).unwrap();
    info["experiment"][table][key] = value.into();
    extra.insert("zeg".to_owned(), info.to_string());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let changed = safetensors::serialize(file.tensors(), Some(extra)).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, changed).unwrap();
    path
}

#[test]
fn a_setting_that_has_no_effect_any_more_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let name = "zegformer.safetensors";
    let model = with_setting(folder.path(), name, "inference", "least-share", 0.2);
    let said = |model: &Path| {
        let output = zeg()
            .arg("eval")
            .arg(model)
            .args(["--limit", "1"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    let warned = said(&model);
    assert!(
        warned.contains("`inference.least-share = 0.2` has no effect any more"),
        "{warned}"
    );
    assert!(!said(&golden(name)).contains("no effect any more"));
}

#[test]
fn a_tensor_inside_a_layer_that_the_model_does_not_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(golden("zegclip-inductive.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let adapter = "decode_head.q_proj.lora_A.weight";
    let values = file.tensor("decode_head.q_proj.weight").unwrap();
    let tensors = file.tensors().into_iter();
    let tensors = tensors.chain([(adapter.to_owned(), values)]);
    let changed = safetensors::serialize(tensors, metadata.metadata().clone()).unwrap();
    let model = folder.path().join("adapted.safetensors");
    std::fs::write(&model, changed).unwrap();
    let output = zeg()
        .arg("eval")
        .arg(&model)
        .args(["--limit", "1"])
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(adapter) && said.contains("hint: merge"),
        "{said}"
    );
}

/// The checkpoint states every default; the experiment file does not.
#[test]
fn a_run_starts_from_the_weights_of_an_old_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../configs/mini-world/zegclip-inductive.toml"
    );
    let train = |feed_forward: &str| {
        let mut command = zeg();
        command
            .args(["train", config, "--weights", "mini", "--init"])
            .arg(golden("zegclip-inductive.safetensors"))
            .arg("-o")
            .arg(folder.path().join("run"))
            .args(["--set", "training.steps=1", "--set", "training.batch=1"])
            .args(["--set", "model.head.layers=2", "--set"])
            .arg(format!("model.head.feed-forward={feed_forward}"));
        command.output().unwrap()
    };
    let other = train("32");
    assert_eq!(other.status.code(), Some(1));
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(said.contains("holds another model"), "{said}");
    let same = train("64");
    assert_eq!(
        same.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&same.stderr)
    );
}
