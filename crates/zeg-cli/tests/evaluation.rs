//! Evaluations from the command line: records, shards, several models, data sets of the user, reports.
#![allow(clippy::unwrap_used)] // in tests

mod common;
#[path = "evaluation/models.rs"]
mod models;
#[path = "evaluation/shards.rs"]
mod shards;

use std::fs;

use common::{World, failure, failure_with};
use serde_json::Value;

fn json(world: &World, name: &str) -> Value {
    serde_json::from_slice(&fs::read(world.path(name)).unwrap()).unwrap()
}

fn trained(world: &World, run: &str, seed: u64) {
    world
        .train(run)
        .args(["--set", &format!("training.seed={seed}")])
        .assert()
        .success();
}

fn eval(world: &World, models: &[&str], more: &[&str]) {
    let mut command = world.zeg();
    command.arg("eval").args(models);
    command.args(["--data", "VOC2012", "--split", "train"]);
    command.args(more).assert().success();
}

const MODEL: &str = "run/model.safetensors";

#[test]
fn another_data_set_is_scored_without_seen_and_unseen() {
    let world = World::new();
    trained(&world, "run", 0);
    // The same images as a data set of the user, with class names that the table holds.
    fs::write(world.path("own.toml"), OWN).unwrap();
    world
        .zeg()
        .args([
            "eval",
            MODEL,
            "--dataset",
            "own.toml",
            "--data",
            "VOC2012",
            "--split",
            "all",
        ])
        .args(["-o", "own", "--json", "own.json"])
        .assert()
        .success();
    let record = json(&world, "own/evaluation.json");
    assert_eq!(record["protocol"], "cross-dataset");
    assert_eq!(record["trained_on"], "voc12");
    assert_eq!(record["images"], 6);
    let scores = json(&world, "own.json");
    assert!(
        scores["miou"].is_number() && scores["hiou"].is_null(),
        "{scores}"
    );
    assert_eq!(scores["classes"].as_array().unwrap().len(), 20);
}

#[test]
fn the_rule_of_a_plan_is_recorded_and_changes_the_mean() {
    let world = World::new();
    trained(&world, "run", 0);
    fs::write(world.path("own.toml"), OWN).unwrap();
    let scored = |rule: &str, name: &str| {
        let data = "[data]\ndataset = 'own.toml'\neval-split = 'all'\ntemplates = 'single'\n";
        fs::write(world.path("plan.toml"), format!("{rule}{data}")).unwrap();
        let document = format!("{name}.json");
        let mut command = world.zeg();
        command.args(["eval", MODEL, "--plan", "plan.toml", "--data", "VOC2012"]);
        command.args(["-o", name, "--json", &document]);
        command.assert().success();
        let record = json(&world, &format!("{name}/evaluation.json"));
        (record["nan_rule"].clone(), json(&world, &document))
    };
    let (rule, usual) = scored("", "usual");
    assert_eq!((rule, &usual["nan_rule"]), (Value::Null, &"mmseg".into()));
    let (rule, truth) = scored("nan-rule = 'truth-mean'\n", "truth");
    assert_eq!(rule, "truth-mean");
    assert_eq!(truth["nan_rule"], "truth-mean");
    // The mean over the classes that occur in the ground truth.
    let classes = truth["classes"].as_array().unwrap().iter();
    let there = classes.filter(|class| class["pixels"].as_u64() > Some(0));
    let ious: Vec<f64> = there.map(|class| class["iou"].as_f64().unwrap()).collect();
    let mean = ious.iter().sum::<f64>() / ious.len() as f64;
    assert!((truth["miou"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert!(truth["miou"].as_f64() >= usual["miou"].as_f64());
}

#[test]
fn several_offsets_are_scored_as_each_alone() {
    let world = World::new();
    trained(&world, "run", 0);
    let offsets = ["--seen-offsets", "0,0.1,0.3", "-o", "sweep"];
    eval(
        &world,
        &[MODEL],
        &[&offsets[..], &["--json", "sweep.json"]].concat(),
    );
    let sweep = json(&world, "sweep.json");
    for (number, offset) in ["0", "0.1", "0.3"].iter().enumerate() {
        let name = format!("alone-{offset}");
        eval(&world, &[MODEL], &["--seen-offset", offset, "-o", &name]);
        let record = |folder: &str| json(&world, &format!("{folder}/evaluation.json"));
        let (alone, among) = (record(&name), record(&format!("sweep/offset-{offset}")));
        for key in ["confusion", "inference", "images"] {
            assert_eq!(alone[key], among[key], "{offset}: {key}");
        }
        let wanted: f64 = offset.parse().unwrap();
        assert_eq!(
            sweep["offsets"][number]["seen_offset"].as_f64(),
            Some(wanted)
        );
    }
    let confusion = |offset| json(&world, &format!("sweep/offset-{offset}/evaluation.json"));
    assert_ne!(confusion("0")["confusion"], confusion("0.3")["confusion"]);
    let mut bad = world.zeg();
    bad.args(["eval", MODEL, "--data", "VOC2012", "--seen-offsets", "0,x"]);
    bad.assert().code(2);
}

#[test]
fn a_part_of_a_split_is_scored() {
    let world = World::new();
    trained(&world, "run", 0);
    let mut command = world.zeg();
    command.args([
        "eval",
        MODEL,
        "--data",
        "VOC2012",
        "--split",
        "train:2/3",
        "-o",
        "part",
    ]);
    command.assert().success();
    let record = json(&world, "part/evaluation.json");
    assert_eq!(record["images"], 1);
    assert_eq!(record["image_scores"][0]["id"], "2007_000001");
}

const OWN: &str = r#"
name = "own"
title = "Own images"
images = "JPEGImages/{id}.jpg"
labels = "SegmentationClass/{id}.png"
kind = "index"
zero-is = "ignore"
ignore = [255]
classes = [
  "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
  "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]

[splits]
all = "all"
"#;

#[test]
fn test_time_augmentation_is_recorded_and_changes_scores() {
    let world = World::new();
    trained(&world, "run", 0);
    eval(&world, &[MODEL], &["-o", "plain"]);
    eval(
        &world,
        &[MODEL],
        &["-o", "augmented", "--scales", "0.75,1,1.5", "--flip"],
    );
    let (plain, augmented) = (
        json(&world, "plain/evaluation.json"),
        json(&world, "augmented/evaluation.json"),
    );
    assert_eq!(augmented["scales"], serde_json::json!([0.75, 1.0, 1.5]));
    assert_eq!(augmented["flip"], true);
    assert_ne!(plain["confusion"], augmented["confusion"]);
    let wrong = |scale: &str, code: i32| {
        let mut command = world.zeg();
        failure_with(
            code,
            command.args(["eval", MODEL, "--data", "VOC2012", "--scales", scale]),
        )
    };
    assert!(wrong("0", 2).contains("above 0"));
    assert!(wrong("0.01", 1).contains("0.05"));
}

#[test]
fn a_custom_split_changes_the_unseen_classes() {
    let world = World::new();
    trained(&world, "run", 0);
    eval(
        &world,
        &[MODEL],
        &["--unseen", "bird, boat", "--json", "own.json"],
    );
    let scores = json(&world, "own.json");
    let unseen: Vec<&str> = scores["classes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|class| class["split"] == "unseen")
        .map(|class| class["name"].as_str().unwrap())
        .collect();
    assert_eq!(unseen, ["bird", "boat"]);
    let text = failure(
        world
            .zeg()
            .args(["eval", MODEL, "--data", "VOC2012", "--unseen", "brid"]),
    );
    assert!(text.contains("bird"), "{text}");
}

/// A recipe of VOC is used for an own data set, with synonyms that the table of class embeddings lacks, and the model is
/// scored from another folder.
#[test]
fn a_model_of_an_own_data_set_finds_its_description_and_brings_its_classes() {
    let world = World::new();
    let names = zeg::vocab::classes::ClassSet::by_name("voc20")
        .unwrap()
        .classes;
    let class = |name: &String| match name.as_str() {
        "sofa" => "{ name = 'sofa', synonyms = ['couch'] }".to_owned(),
        name => format!("'{name}'"),
    };
    let classes: Vec<String> = names.iter().map(class).collect();
    let text = format!(
        "name = 'blocks'\nroot = 'VOC2012'\nimages = 'JPEGImages/{{id}}.jpg'\nlabels = 'SegmentationClass/{{id}}.png'\n\
         kind = 'index'\nzero-is = 'ignore'\nclasses = [{}]\nunseen = ['sofa']\n[splits]\n\
         train = 'ImageSets/Segmentation/train.txt'\ntest = 'ImageSets/Segmentation/val.txt'\n",
        classes.join(", ")
    );
    fs::write(world.path("blocks.toml"), text).unwrap();
    let output = world
        .train("run")
        .args(["--set", "data.dataset=blocks.toml"])
        .args(["--set", "training.evaluation={every=6}"])
        .assert()
        .success();
    let told = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(
        told.contains("`data.classes` = \"voc20\" belongs to voc12"),
        "{told}"
    );
    assert!(told.contains("1 unseen class;"), "{told}");

    fs::create_dir(world.path("elsewhere")).unwrap();
    let score = |more: &[&str]| {
        let mut command = world.zeg();
        command.current_dir(world.path("elsewhere"));
        command.args([
            "eval",
            "../run/model.safetensors",
            "-o",
            "scores",
            "--overwrite",
        ]);
        command.args(more);
        command
    };
    let record = || json(&world, "elsewhere/scores/evaluation.json");
    score(&[]).assert().success();
    let first = record();
    assert_eq!(first["benchmark"]["dataset"], "blocks");
    assert_eq!(first["benchmark"]["class_list"], "blocks");
    assert_eq!(first["benchmark"]["split"], "test");
    assert_eq!(first["protocol"], "inductive");
    let unseen = first["classes"].as_array().unwrap().iter();
    assert_eq!(unseen.filter(|class| class["unseen"] == true).count(), 1);

    fs::create_dir(world.path("moved")).unwrap();
    fs::rename(world.path("blocks.toml"), world.path("moved/blocks.toml")).unwrap();
    let text = failure(&mut score(&[]));
    assert!(text.contains("blocks.toml, does not exist"), "{text}");
    assert!(
        text.contains("hint: name the file with --dataset"),
        "{text}"
    );
    score(&["--dataset", "../moved/blocks.toml", "--data", "../VOC2012"])
        .assert()
        .success();
    for key in ["confusion", "protocol", "trained_on"] {
        assert_eq!(record()[key], first[key], "{key}");
    }

    // A renamed copy is the same data set, and a file of the same name with another `name` is not.
    let moved = world.path("moved/blocks.toml");
    fs::copy(&moved, world.path("blocks.toml")).unwrap();
    fs::copy(&moved, world.path("moved/renamed.toml")).unwrap();
    score(&["--dataset", "../moved/renamed.toml", "--data", "../VOC2012"])
        .assert()
        .success();
    assert_eq!(record()["protocol"], first["protocol"]);
    let text = fs::read_to_string(&moved).unwrap();
    fs::write(&moved, text.replace("name = 'blocks'", "name = 'other'")).unwrap();
    let output = score(&["--dataset", "../moved/blocks.toml", "--data", "../VOC2012"])
        .assert()
        .success();
    let told = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(
        told.contains("is taken for another data set than"),
        "{told}"
    );
    assert_eq!(record()["protocol"], "cross-dataset");
}
