//! Every suite is trained for two steps and scored, on generated data of its layout and with a small encoder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use zeg::vocab::classes::ClassSet;

use crate::{
    common::{World, write_class_embeddings, write_deep_tower, write_plain_clip},
    configs, layouts,
};

/// Changes to every run of a benchmark: a step costs milliseconds.
const SHORT: [&str; 11] = [
    "training.steps=2",
    "training.batch=2",
    "training.micro-batch=1",
    "training.checkpoint-every=1",
    "training.keep-checkpoints=9",
    "training.loss-stride=1",
    "training.preprocess={ kind = \"whole\", size = 32, flip = 0.5 }",
    "model.input-resolution=32",
    "inference.short-side=32",
    "inference.crop=32",
    "inference.stride=32",
];
/// The encoder of [`write_deep_tower`], with a head that fits it.
const DEEP: [&str; 3] = [
    "model.encoder={ patch = 8, width = 32, layers = 12, heads = 2, embed-dim = 16 }",
    "model.head.heads=2",
    "model.head.feed-forward=24",
];
/// The encoder of [`write_plain_clip`], whose text encoder makes the class embeddings.
const PLAIN: [&str; 4] = [
    "model.encoder={ patch = 8, width = 64, layers = 2, heads = 2, embed-dim = 16 }",
    "model.head.heads=2",
    "model.head.feed-forward=24",
    "model.prompts.depth={ first = 2 }",
];
/// Changes to every run on the mini world.
const MINI: [&str; 8] = [
    "training.steps=2",
    "training.batch=2",
    "training.checkpoint-every=1",
    "training.keep-checkpoints=9",
    "data.mini-world.train=6",
    "data.mini-world.val=3",
    "data.mini-world.test=3",
    "training.schedule.warmup-steps=1",
];
/// The checkpoint that rows start from, in runs of two steps.
const HALF_WAY: &str = "checkpoint-00000001.safetensors";

fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// The suites whose names start with a prefix; there is at least one.
fn suites(prefix: &str) -> Vec<PathBuf> {
    let found = configs(&format!("/ablations/{prefix}"));
    assert!(!found.is_empty(), "{prefix}");
    found
}

/// Returns a suite with one variant, one candidate and absolute paths, whose rows start from [`HALF_WAY`].
fn shortened(suite: &Path) -> toml::Table {
    let mut table: toml::Table = fs::read_to_string(suite).unwrap().parse().unwrap();
    let folder = suite.parent().unwrap().canonicalize().unwrap();
    let make_absolute = |base: &mut toml::Value| {
        let path = folder.join(base.as_str().unwrap());
        *base = path.to_str().unwrap().into();
    };
    make_absolute(table.get_mut("base").unwrap());
    for row in table.get_mut("rows").unwrap().as_array_mut().unwrap() {
        if let Some(base) = row.get_mut("base") {
            make_absolute(base);
        }
        if let Some(init) = row.get_mut("init") {
            let init = init.as_table_mut().unwrap();
            init.insert("checkpoint".to_owned(), HALF_WAY.into());
        }
    }
    if let Some(variants) = table.get_mut("variants") {
        variants.as_array_mut().unwrap().truncate(1);
    }
    let settings = table
        .get_mut("choose")
        .and_then(|choose| choose.get_mut("settings"));
    if let Some(settings) = settings {
        settings.as_array_mut().unwrap().truncate(1);
    }
    table
}

/// Trains and scores every row of a suite with one seed, and checks its table and its losses.
///
/// - `sources`: arguments that name data, weights and class embeddings
/// - `changes`: settings of all runs
fn train(world: &World, suite: &Path, sources: &[&str], changes: &[&str]) {
    let name = suite.file_stem().unwrap().to_str().unwrap();
    let short = shortened(suite);
    fs::write(world.path("suite.toml"), short.to_string()).unwrap();
    let mut command = world.zeg();
    command.args(["ablate", "suite.toml", "-o", name, "--seeds", "0"]);
    command.args(["--jobs", "2", "--quiet", "--json", "table.json"]);
    command.args(sources);
    for change in changes {
        command.args(["--set", change]);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {stderr}");

    let table: Value =
        serde_json::from_slice(&fs::read(world.path("table.json")).unwrap()).unwrap();
    let written = short["rows"].as_array().unwrap();
    let scored = table["rows"].as_array().unwrap();
    assert_eq!(scored.len(), written.len(), "{name}");
    for (row, scored) in written.iter().zip(scored) {
        let row_name = row["name"].as_str().unwrap();
        assert_eq!(scored["name"], row_name, "{name}");
        assert_eq!(scored["scores"]["runs"], 1, "{name} {row_name}");
        let accuracy = &scored["scores"]["p_acc"]["mean"];
        assert!(accuracy.is_number(), "{name} {row_name}: {scored}");
        // CLIP-RC has no published scores on Context.
        let is_published = row.get("published").is_some()
            && !(name.starts_with("pascal-context") && row_name.starts_with("clip-rc"));
        if is_published && short.contains_key("table") {
            assert!(scored["published"].is_object(), "{name} {row_name}");
        }
    }
    let logs = logs(&world.path(name));
    assert!(logs.len() >= written.len(), "{name}");
    for log in logs {
        for line in fs::read_to_string(&log).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert!(line["loss"].is_number(), "{}: {line}", log.display());
        }
    }
}

/// The logs of all runs below a folder.
fn logs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(logs(&path));
        } else if path.ends_with("log.jsonl") {
            found.push(path);
        }
    }
    found
}

/// A world with the deep encoder and a table of the class embeddings of a list.
fn deep_world(classes: &str) -> World {
    let world = World::new();
    write_deep_tower(&world.path("deep.safetensors"));
    let names = ClassSet::by_name(classes).unwrap().classes;
    write_class_embeddings(&world.path("table.safetensors"), &names);
    world
}

/// Trains the suites of a benchmark; those that compare templates, with a text encoder.
fn train_all(world: &World, prefix: &str, data: &str, changes: &[&str]) {
    for suite in suites(prefix) {
        let templates = suite.to_string_lossy().contains("-templates");
        let (weights, encoder) = if templates {
            write_plain_clip(&world.path("clip.safetensors"));
            ("clip.safetensors", &PLAIN[..])
        } else {
            ("deep.safetensors", &DEEP[..])
        };
        let mut sources = vec!["--data", data, "--weights", weights];
        if !templates {
            sources.extend(["--text", "table.safetensors"]);
        }
        train(
            world,
            &suite,
            &sources,
            &[&SHORT[..], encoder, changes].concat(),
        );
    }
}

#[test]
fn every_suite_on_voc_is_trained() {
    let world = deep_world("voc20");
    train_all(&world, "voc12-", "VOC2012", &["data.train-split=train"]);
}

#[test]
fn every_suite_on_coco_stuff_is_trained() {
    let world = deep_world("coco-stuff171");
    layouts::write_coco_stuff(&world.path("coco"));
    train_all(&world, "coco-stuff164k-", "coco", &[]);
}

#[test]
fn every_suite_on_context_is_trained() {
    let world = deep_world("pascal-context60");
    layouts::write_pascal_context(&world.path("context"));
    train_all(&world, "pascal-context-", "context", &[]);
}

#[test]
fn every_suite_on_the_mini_world_is_trained() {
    let world = World::new();
    for suite in suites("mini-world-") {
        train(&world, &suite, &["--weights", "mini"], &MINI);
    }
}

/// A suite on another data set needs a test of its own.
#[test]
fn every_suite_belongs_to_a_data_set_with_a_test() {
    let tested = [
        "voc12-",
        "coco-stuff164k-",
        "pascal-context-",
        "mini-world-",
    ];
    let count: usize = tested.iter().map(|prefix| suites(prefix).len()).sum();
    assert_eq!(count, configs("/ablations/").len());
}

/// The medical experiment is trained on each medical data set and scored by Dice.
#[test]
fn every_medical_data_set_is_trained_on_and_scored_by_dice() {
    let world = World::new();
    write_deep_tower(&world.path("deep.safetensors"));
    let experiment = root().join("configs/medical/fine-tuned-zegclip.toml");
    for set in &layouts::MEDICAL {
        let description = root().join(format!("configs/datasets/{}.toml", set.name));
        let description = description.to_str().unwrap();
        let classes = zeg::data::classes(description, None, None).unwrap();
        write_class_embeddings(&world.path("table.safetensors"), &classes.classes);
        set.write(&world.path(set.name));
        let run = format!("run-{}", set.name);
        let mut command = world.zeg();
        command.arg("train").arg(&experiment);
        command.args(["--data", set.name, "--weights", "deep.safetensors"]);
        command.args(["--text", "table.safetensors", "-o", &run]);
        let own = [
            format!("data.dataset={description}"),
            format!("data.train-split={}", set.train),
            format!("data.eval-split={}", set.eval),
        ];
        let common = SHORT.iter().chain(&DEEP).map(|change| (*change).to_owned());
        for change in common.chain(own) {
            command.args(["--set", &change]);
        }
        command.assert().success();
        let model = format!("{run}/model.safetensors");
        let mut command = world.zeg();
        command.args(["eval", &model, "--data", set.name, "--json", "scores.json"]);
        command.args(["-o", &format!("{run}/scores")]);
        command.assert().success();
        let scores: Value =
            serde_json::from_slice(&fs::read(world.path("scores.json")).unwrap()).unwrap();
        let dice = scores["mdice"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&dice), "{}: {scores}", set.name);
        let record = zeg::eval::Evaluation::open(world.path(&format!("{run}/scores"))).unwrap();
        assert_eq!(record.protocol.name(), "fully-supervised", "{}", set.name);
        assert_eq!(record.metric, zeg::eval::Metric::Dice, "{}", set.name);
    }
}
