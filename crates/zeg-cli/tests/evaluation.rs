//! Evaluations from the command line: records, shards, several models, data sets of the user, reports.
#![allow(clippy::unwrap_used)] // in tests

mod common;

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
fn shards_add_up_to_the_whole() {
    let world = World::new();
    trained(&world, "run", 0);
    eval(&world, &[MODEL], &["-o", "whole", "--json", "whole.json"]);
    for shard in ["1/3", "2/3", "3/3"] {
        let folder = format!("part-{}", &shard[..1]);
        eval(&world, &[MODEL], &["--shard", shard, "-o", &folder]);
    }
    let merge = |parts: &[&str]| {
        let mut command = world.zeg();
        command.args(["eval", "merge"]).args(parts);
        command.args(["-o", "merged", "--json", "merged.json"]);
        command
    };
    let text = failure(&mut merge(&["part-1", "part-3"]));
    assert!(text.contains('2'), "the missing part is named: {text}");
    let text = failure(&mut merge(&["part-1", "part-2", "part-2", "part-3"]));
    assert!(text.contains('2'), "the repeated part is named: {text}");
    // The record of a part is no place for the whole one.
    let mut onto = world.zeg();
    onto.args(["eval", "merge", "part-1", "part-2", "part-3"]);
    let text = failure(onto.args(["-o", "./part-2", "--overwrite"]));
    assert!(text.contains("part-2: -o is the folder"), "{text}");
    merge(&["part-3", "part-1", "part-2"]).assert().success();

    let mut merged = json(&world, "merged.json");
    assert_eq!(merged["command"], "eval merge");
    merged["command"] = "eval".into();
    assert_eq!(merged, json(&world, "whole.json"));
    let (merged, whole) = (
        json(&world, "merged/evaluation.json"),
        json(&world, "whole/evaluation.json"),
    );
    for key in [
        "confusion",
        "images",
        "classes",
        "images",
        "model",
        "protocol",
    ] {
        assert_eq!(merged[key], whole[key], "{key}");
    }
    assert_eq!(whole["images"], 4);
    assert_eq!(whole["protocol"], "inductive");
    assert_eq!(whole["benchmark"]["official_images"], 1464);
    for entry in merged["gallery"].as_array().unwrap() {
        for file in ["image", "truth", "prediction", "error"] {
            let path = world.path("merged").join(entry[file].as_str().unwrap());
            assert!(path.is_file(), "{}", path.display());
        }
    }
    // An existing record is not replaced without --overwrite.
    let text = failure(&mut merge(&["part-3", "part-1", "part-2"]));
    assert!(text.contains("--overwrite"), "{text}");
}

#[test]
fn several_seeds_give_mean_and_deviation() {
    let world = World::new();
    trained(&world, "a", 1);
    trained(&world, "b", 2);
    let models = ["a/model.safetensors", "b/model.safetensors"];
    eval(&world, &models, &["-o", "scores", "--json", "summary.json"]);
    let summary = json(&world, "summary.json");
    assert_eq!(summary["runs"], 2);
    let of = |run: &str| {
        let record = zeg::eval::Evaluation::open(world.path(&format!("scores/{run}"))).unwrap();
        record.report().unwrap().p_acc.unwrap()
    };
    let (a, b) = (of("a"), of("b"));
    let mean = summary["p_acc"]["mean"].as_f64().unwrap();
    let std = summary["p_acc"]["std"].as_f64().unwrap();
    assert!((mean - f64::midpoint(a, b)).abs() < 1e-12);
    assert!((std - (a - b).abs() / 2_f64.sqrt()).abs() < 1e-12);

    world
        .zeg()
        .args(["report", "scores", "-o", "report"])
        .assert()
        .success();
    let page = fs::read_to_string(world.path("report/report.html")).unwrap();
    assert!(!page.contains("src=\"http") && !page.contains("url(http"));
    for name in ["report.md", "report.csv"] {
        assert!(world.path("report").join(name).is_file());
    }
    let text = failure(world.zeg().args(["report", "VOC2012", "-o", "other"]));
    assert!(text.contains("evaluation.json"), "{text}");
}

/// Several models: each prints its scores, a table compares them, and only seeds of one configuration have a mean.
#[test]
fn several_models_are_scored_one_after_the_other_and_only_seeds_are_averaged() {
    let world = World::new();
    trained(&world, "a", 1);
    trained(&world, "b", 2);
    let other = ["--set", "model.head.query=text"];
    world.train("c").args(other).assert().success();
    let models = ["a", "c", "b"].map(|run| format!("{run}/model.safetensors"));
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let mut command = world.zeg();
    command.arg("eval").args(&models);
    command.args(["--data", "VOC2012", "--split", "train", "-o", "scores"]);
    let output = command.args(["--json", "several.json"]).output().unwrap();
    let (out, told) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("warning: no mean over these models: "),
        "{told}"
    );
    let places: Vec<usize> = models
        .iter()
        .map(|model| out.find(model).unwrap())
        .collect();
    assert!(places.is_sorted(), "{out}");
    // A table per model, and one that compares them.
    assert_eq!(out.matches("images").count(), 3, "{out}");
    let (_, comparison) = out.split_at(out.rfind(" model ").unwrap());
    assert!(
        models.iter().all(|model| comparison.contains(model)),
        "{out}"
    );
    assert!(comparison.contains("mean of 2 seeds"), "{out}");

    let several = json(&world, "several.json");
    for (number, run) in ["a", "c", "b"].iter().enumerate() {
        let record = zeg::eval::Evaluation::open(world.path(&format!("scores/{run}"))).unwrap();
        let scores = serde_json::to_value(record.report().unwrap()).unwrap();
        assert_eq!(several["models"][number]["scores"], scores, "{run}");
        assert_eq!(several["models"][number]["model"], models[number]);
    }
    let means = several["means"].as_array().unwrap();
    assert_eq!(means.len(), 1);
    assert_eq!(
        means[0]["models"],
        serde_json::json!([models[0], models[2]])
    );
    assert_eq!(means[0]["scores"]["runs"], 2);
    assert!(several["runs"].is_null(), "no mean over all: {several}");
}

/// A model that cannot be opened is named, and the others keep their scores and records.
#[test]
fn one_model_that_cannot_be_opened_does_not_lose_the_scores_of_others() {
    let world = World::new();
    trained(&world, "a", 1);
    trained(&world, "b", 2);
    fs::write(world.path("broken.safetensors"), "no weights").unwrap();
    let models = [
        "a/model.safetensors",
        "broken.safetensors",
        "no-such-file.safetensors",
        "b/model.safetensors",
    ];
    let eval = |models: &[&str]| {
        let mut command = world.zeg();
        command.arg("eval").args(models);
        command.args(["--data", "VOC2012", "--split", "train", "--overwrite"]);
        command.args(["-o", "scores", "--json", "scores.json"]);
        command
    };
    let text = failure(&mut eval(&models));
    assert!(
        text.contains("error: broken.safetensors is not scored: "),
        "{text}"
    );
    assert!(
        text.contains("error: 2 of 4 models could not be scored"),
        "{text}"
    );
    let scores = json(&world, "scores.json");
    assert_eq!(scores["models"].as_array().unwrap().len(), 2);
    assert_eq!(scores["failed"].as_array().unwrap().len(), 2);
    assert_eq!(scores["failed"][1]["path"], "no-such-file.safetensors");
    assert_eq!(scores["runs"], 2);
    for run in ["a", "b"] {
        assert!(world.path("scores").join(run).is_dir(), "{run}");
    }
    // If none is left, there is an error in place of scores.
    let text = failure(&mut eval(&models[1..3]));
    assert!(
        text.contains("error: none of the 2 models could be scored"),
        "{text}"
    );
    let scores = json(&world, "scores.json");
    assert_eq!(scores["error"]["exit_code"], 1);
}

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

/// The labels of one shard are read with another rule than those of the other.
#[test]
fn shards_that_were_read_differently_are_not_merged() {
    let world = World::new();
    trained(&world, "run", 0);
    let rule = |ignore: &str| {
        let text = OWN.replace("ignore = [255]", &format!("ignore = {ignore}"));
        fs::write(world.path("own.toml"), text).unwrap();
    };
    let score = |shard: &str, folder: &str, more: &[&str]| {
        let mut command = world.zeg();
        command.args(["eval", MODEL, "--dataset", "own.toml", "--data", "VOC2012"]);
        command.args(["--split", "all", "--shard", shard, "-o", folder]);
        command.args(more).assert().success();
    };
    let merge = |parts: [&str; 2], whole: &str| {
        let mut command = world.zeg();
        command.args(["eval", "merge"]).args(parts);
        command.args(["-o", whole]);
        command
    };
    rule("[255]");
    score("1/2", "first", &[]);
    score("2/2", "second", &[]);
    score("2/2", "limited", &["--limit", "5"]);
    merge(["first", "second"], "whole").assert().success();
    let text = failure(&mut merge(["first", "limited"], "wrong"));
    assert!(text.contains("differ in images: 6"), "{text}");
    rule("[254, 255]");
    score("2/2", "other", &[]);
    let text = failure(&mut merge(["first", "other"], "wrong"));
    assert!(
        text.contains("differ in label rule ignore: 255 and 254 255") && text.contains("hint:"),
        "{text}"
    );
    // A record of an earlier version has no fingerprint; it is merged with a warning.
    let path = world.path("other/evaluation.json");
    let mut old = json(&world, "other/evaluation.json");
    old.as_object_mut().unwrap().remove("fingerprint");
    fs::write(path, old.to_string()).unwrap();
    let output = merge(["first", "other"], "old").assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("could not be verified"), "{text}");
}

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

#[test]
fn models_of_one_frozen_encoder_are_scored_together_with_the_same_result() {
    let world = World::new();
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), text.replace("prompts =", "# prompts =")).unwrap();
    trained(&world, "a", 1);
    trained(&world, "b", 2);
    let models = ["a/model.safetensors", "b/model.safetensors"];
    let output = world
        .zeg()
        .arg("eval")
        .args(models)
        .args([
            "--data",
            "VOC2012",
            "--split",
            "train",
            "--in-runs",
            "together",
        ])
        .assert()
        .success();
    let told = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(told.contains("2 models with one encoder"), "{told}");
    for run in ["a", "b"] {
        let model = format!("{run}/model.safetensors");
        eval(&world, &[&model], &["-o", "alone", "--overwrite"]);
        let alone = json(&world, "alone/evaluation.json");
        let together = json(&world, &format!("{run}/together/evaluation.json"));
        for key in ["confusion", "images", "model"] {
            assert_eq!(together[key], alone[key], "{run}: {key}");
        }
    }
    assert_ne!(
        json(&world, "a/together/evaluation.json")["confusion"],
        json(&world, "b/together/evaluation.json")["confusion"]
    );
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
