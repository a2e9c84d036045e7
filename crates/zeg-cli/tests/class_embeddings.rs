//! Class embeddings, prompt templates and the activation mean the same in every command.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::{collections::HashMap, path::Path};

use assert_cmd::Command;
use common::{DIM, World, failure, write_image_tower, write_plain_clip, write_tensors};
use serde_json::Value;
use zeg::{
    data::mini_world::{Part, World as MiniWorld, WorldConfig},
    image::write_rgb_png,
    model::embeddings::ClassEmbeddings,
};

/// Runs a command that must succeed and returns its standard error.
fn success(command: &mut Command) -> String {
    let output = command.assert().success().get_output().stderr.clone();
    String::from_utf8(output).unwrap()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Writes a table; without names, the metadata are empty.
fn write_table(path: &Path, names: Option<&[String]>, rows: &[Vec<f32>]) {
    let metadata = names.map(|names| serde_json::to_string(names).unwrap());
    let metadata = metadata.map(|names| ("classes".to_owned(), names));
    let tensor = ("embeddings".into(), vec![rows.len(), DIM], rows.concat());
    write_tensors(
        path,
        &[tensor],
        metadata.into_iter().collect::<HashMap<_, _>>(),
    );
}

/// Returns a world with the tables `same`, `reversed` and `more`, all with names, `unnamed`, and a plain image tower.
fn world_with_tables() -> World {
    let world = World::new();
    write_image_tower(&world.path("clip.safetensors"));
    let table = ClassEmbeddings::open(&world.text(), &[]).unwrap();
    let mut names = table.names().to_vec();
    let mut rows: Vec<Vec<f32>> = table.values().chunks(DIM).map(<[f32]>::to_vec).collect();
    write_table(&world.path("unnamed.safetensors"), None, &rows);
    write_table(&world.path("same.safetensors"), Some(&names), &rows);
    names.reverse();
    rows.reverse();
    write_table(&world.path("reversed.safetensors"), Some(&names), &rows);
    names.insert(3, "tree".into());
    rows.insert(3, vec![0.25; DIM]);
    write_table(&world.path("more.safetensors"), Some(&names), &rows);
    world
}

fn eval(world: &World, table: &str) -> Command {
    let mut command = world.zeg();
    command
        .args([
            "eval",
            "clip.safetensors",
            "--data",
            "VOC2012",
            "--dataset",
            "voc12",
        ])
        .args([
            "--short-side",
            "32",
            "--crop",
            "32",
            "--stride",
            "16",
            "--text",
            table,
        ])
        .args(["-o", "scores", "--overwrite", "--json", "scores.json"]);
    command
}

fn segment(world: &World, table: &str, classes: &str) -> Command {
    let mut command = world.zeg();
    command
        .args([
            "segment",
            "VOC2012/JPEGImages/2007_000000.jpg",
            "--model",
            "clip.safetensors",
        ])
        .args([
            "--short-side",
            "32",
            "--crop",
            "32",
            "--stride",
            "16",
            "--overwrite",
        ])
        .args([
            "--text",
            table,
            "--classes",
            classes,
            "-o",
            "out",
            "--write",
            "labels",
        ]);
    command
}

/// Returns `zeg train` with a table of class embeddings, for two steps.
fn train(world: &World, weights: &str, table: &str, run: &str) -> Command {
    let mut command = world.zeg();
    command
        .args([
            "train",
            "experiment.toml",
            "--data",
            "VOC2012",
            "--weights",
            weights,
        ])
        .args(["--text", table, "-o", run, "--set", "training.steps=2"]);
    command
}

/// Returns the bits of the loss of the last step of a run.
fn last_loss(world: &World, run: &str) -> u64 {
    let log = std::fs::read_to_string(world.path(run).join("log.jsonl")).unwrap();
    let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    line["loss"].as_f64().unwrap().to_bits()
}

#[test]
fn names_in_a_table_count_in_every_command() {
    let world = world_with_tables();
    let results = ["same", "reversed", "more"].map(|name| {
        let table = format!("{name}.safetensors");
        success(&mut eval(&world, &table));
        let record = json(&world.path("scores/evaluation.json"));
        assert_eq!(record["templates"], format!("table {table}"));
        success(&mut segment(&world, &table, "voc20"));
        let labels = std::fs::read(world.path("out/2007_000000.png")).unwrap();
        success(&mut train(&world, "tower.safetensors", &table, name));
        (record["confusion"].clone(), labels, last_loss(&world, name))
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

#[test]
fn a_table_without_names_is_read_in_a_stated_order_only() {
    let world = world_with_tables();
    success(&mut eval(&world, "same.safetensors"));
    let named = json(&world.path("scores/evaluation.json"));
    let text = success(&mut eval(&world, "unnamed.safetensors"));
    assert!(
        text.contains("warning: unnamed.safetensors: holds no class names")
            && text.contains("aeroplane, bicycle, bird, …; --text-classes"),
        "{text}"
    );
    let unnamed = json(&world.path("scores/evaluation.json"));
    assert_eq!(named["confusion"], unnamed["confusion"]);

    let text = failure(&mut segment(&world, "unnamed.safetensors", "cat, dog"));
    assert!(
        text.contains("its 20 rows are not one for each of the 2 classes")
            && text.contains("--text-classes"),
        "{text}"
    );
    let labels = || std::fs::read(world.path("out/2007_000000.png")).unwrap();
    let text = success(
        segment(&world, "unnamed.safetensors", "cat, dog").args(["--text-classes", "voc20"]),
    );
    assert!(!text.contains("class names"), "{text}");
    let stated = labels();
    success(&mut segment(&world, "reversed.safetensors", "cat, dog"));
    assert_eq!(stated, labels());
    let text =
        failure(segment(&world, "same.safetensors", "cat, dog").args(["--text-classes", "voc20"]));
    assert!(text.contains("holds the class names"), "{text}");
}

#[test]
fn training_has_the_activation_of_the_weights() {
    let world = World::new();
    let steps = ["--set", "training.steps=2"];
    let text = success(world.train("assumed").args(steps));
    assert!(
        text.contains("QuickGELU is assumed") && text.contains("--activation gelu"),
        "{text}"
    );
    success(
        world
            .train("option")
            .args(steps)
            .args(["--activation", "gelu"]),
    );
    let config = world.path("open_clip_config.json");
    let stated = r#"{"model_cfg": {"embed_dim": 16, "vision_cfg": {"patch_size": 8}}}"#;
    std::fs::write(&config, stated).unwrap();
    let text = success(world.train("stated").args(steps));
    assert!(!text.contains("QuickGELU"), "{text}");
    assert_ne!(last_loss(&world, "assumed"), last_loss(&world, "stated"));
    assert_eq!(last_loss(&world, "option"), last_loss(&world, "stated"));

    // The model keeps its activation, wherever the configuration is.
    let scores = |output: &str| {
        let mut command = world.zeg();
        command.args([
            "eval",
            "stated/model.safetensors",
            "--data",
            "VOC2012",
            "-o",
            output,
        ]);
        success(&mut command);
        json(&world.path(output).join("evaluation.json"))["confusion"].clone()
    };
    let with_config = scores("with");
    let other = ["--data", "VOC2012", "--activation", "quick-gelu"];
    let text = failure(
        world
            .zeg()
            .args(["eval", "stated/model.safetensors"])
            .args(other),
    );
    assert!(text.contains("activation gelu, not quick-gelu"), "{text}");
    // A trained model has nothing to convert.
    let import = ["import", "stated/model.safetensors", "-o", "ck.safetensors"];
    let text = failure(world.zeg().args(import));
    assert!(text.contains("takes the file as it is"), "{text}");
    assert!(!world.path("ck.safetensors").exists());
    std::fs::remove_file(&config).unwrap();
    assert_eq!(with_config, scores("without"));
    let text = failure(world.train("stated").arg("--resume").args(steps));
    assert!(text.contains("--activation"), "{text}");
}

#[test]
fn architecture_is_read_never_guessed_silently() {
    let world = World::new();
    write_plain_clip(&world.path("plain.safetensors"));
    let segment: &[&str] = &[
        "segment",
        "VOC2012/JPEGImages/2007_000000.jpg",
        "--model",
        "plain.safetensors",
        "--classes",
        "dog, cat",
        "-o",
        "out",
        "--overwrite",
        "--no-cache",
        "--short-side",
        "32",
        "--crop",
        "32",
        "--stride",
        "16",
    ];
    let bench: &[&str] = &["bench", "plain.safetensors", "--size", "32", "--runs", "1"];
    let output = ["-o", "ours.safetensors", "--overwrite"];
    let import: &[&str] = &[&["import", "plain.safetensors"][..], &output].concat();
    for command in [segment, bench, import] {
        let run = |more: &[&str]| success(world.zeg().args(command).args(more));
        let text = run(&[]);
        let warnings: Vec<&str> = text
            .lines()
            .filter(|l| l.contains("no file states"))
            .collect();
        let [warning] = warnings[..] else {
            panic!("{command:?}: one warning, not {warnings:?}");
        };
        for part in [
            "warning: plain.safetensors",
            "QuickGELU is assumed",
            "--activation gelu",
            "1 in the image tower and 1 in the text tower",
            "--heads",
        ] {
            assert!(warning.contains(part), "{command:?}: {warning}");
        }
        let text = run(&["--activation", "gelu", "--heads", "2,4"]);
        assert!(!text.contains("no file states"), "{command:?}: {text}");
    }
    let info = |file: &str| {
        let mut command = world.zeg();
        command.args(["info", file]);
        let output = command.assert().success().get_output().stdout.clone();
        String::from_utf8(output).unwrap()
    };
    let text = info("plain.safetensors");
    assert_eq!(text.matches("1 heads (assumed)").count(), 2, "{text}");
    assert!(text.contains("QuickGELU, assumed"), "{text}");
    // What the options stated stands in the imported file.
    let text = info("ours.safetensors");
    assert!(
        text.contains("2 heads, trained") && text.contains("4 heads, 77 tokens"),
        "{text}"
    );
    assert!(text.contains("GELU") && !text.contains("assumed"), "{text}");
    // Without them, the guess stays a guess.
    success(world.zeg().args(import));
    assert!(info("ours.safetensors").contains("1 heads (assumed)"));
    let text = failure(world.train("run").args(["--heads", "4"]));
    assert!(
        text.contains("2 attention heads") && text.contains("has 4"),
        "{text}"
    );
}

/// The Hugging Face cache has links, and a configuration lies beside the link only.
#[cfg(unix)]
#[test]
fn weights_named_by_a_link_stay_beside_their_configuration() {
    let world = World::new();
    std::fs::create_dir_all(world.path("snapshot")).unwrap();
    let link = world.path("snapshot/model.safetensors");
    std::os::unix::fs::symlink(world.weights(), &link).unwrap();
    let mut command = train(
        &world,
        "snapshot/model.safetensors",
        "text.safetensors",
        "run",
    );
    success(&mut command);
    let manifest = json(&world.path("run/run.json"));
    let path = manifest["weights"]["path"].as_str().unwrap();
    assert!(path.ends_with("snapshot/model.safetensors"), "{path}");
}

/// Returns a folder with an image and a model trained for one step on MiniCLIP.
fn mini_model() -> World {
    let world = World::new();
    let sample = MiniWorld::new(WorldConfig::default())
        .unwrap()
        .sample(Part::Test, 0);
    write_rgb_png(&world.path("a.png"), &sample.image).unwrap();
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../configs/mini-world/zegclip-inductive.toml"
    );
    let mut command = world.zeg();
    command
        .args(["train", config, "--weights", "mini", "-o", "run"])
        .args(["--set", "training.steps=1", "--set", "training.batch=1"]);
    success(&mut command);
    world
}

#[test]
fn templates_that_are_asked_for_take_effect_and_are_recorded() {
    let world = mini_model();
    let probabilities = |templates: &[&str], output: &str| {
        let mut command = world.zeg();
        command
            .args([
                "segment",
                "a.png",
                "--model",
                "run/model.safetensors",
                "-o",
                output,
            ])
            .args([
                "--classes",
                "striped red, plain blue",
                "--write",
                "probabilities-npy",
            ])
            .args(templates);
        success(&mut command);
        std::fs::read(world.path(output).join("a.probability.npy")).unwrap()
    };
    let stored = probabilities(&[], "stored");
    let single = probabilities(&["--templates", "single"], "single");
    let name_only = probabilities(&["--templates", "name-only"], "name-only");
    assert_eq!(stored.len(), single.len());
    assert_ne!(single, name_only);
    assert_ne!(stored, name_only);

    let recorded = |templates: &[&str], output: &str| {
        let mut command = world.zeg();
        command
            .args([
                "eval",
                "run/model.safetensors",
                "--limit",
                "1",
                "-o",
                output,
            ])
            .args(templates);
        success(&mut command);
        json(&world.path(output).join("evaluation.json"))["templates"].clone()
    };
    assert_eq!(recorded(&[], "a"), "single (stored in the checkpoint)");
    assert_eq!(recorded(&["--templates", "name-only"], "b"), "name-only");
}

#[test]
fn a_written_table_gives_the_labels_of_the_text_tower() {
    let world = mini_model();
    let classes = "striped red, plain blue, plain green";
    let labels = |more: &[&str], output: &str| {
        let mut command = world.zeg();
        command
            .args(["segment", "a.png", "--model", "mini", "-o", output])
            .args(["--classes", classes, "--write", "labels"])
            .args(more);
        let text = success(&mut command);
        assert!(!text.contains("warning"), "{text}");
        std::fs::read(world.path(output).join("a.png")).unwrap()
    };
    let embed = |more: &[&str]| {
        let mut command = world.zeg();
        command
            .args(["embed", "--weights", "mini", "--classes", classes])
            .args(["-o", "table.safetensors"])
            .args(more);
        command
    };
    success(&mut embed(&[]));
    assert!(failure(&mut embed(&[])).contains("exists already"));
    success(&mut embed(&["--overwrite"]));
    let table = labels(&["--text", "table.safetensors"], "table");
    assert_eq!(table, labels(&[], "tower"));

    let mut info = world.zeg();
    info.args(["info", "table.safetensors"]);
    let output = info.assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(
        text.contains("table of class embeddings")
            && text.contains("3 of ")
            && text.contains("striped red; plain blue; plain green"),
        "{text}"
    );

    // A checkpoint is no table.
    let mut command = world.zeg();
    command
        .args(["segment", "a.png", "--model", "mini", "-o", "no"])
        .args(["--classes", classes, "--text", "run/model.safetensors"]);
    let text = failure(&mut command);
    assert!(
        text.contains("is a checkpoint, not a table") && !text.contains("damaged"),
        "{text}"
    );
}

#[test]
fn a_single_class_under_a_softmax_gives_a_warning() {
    let world = World::new();
    let sample = MiniWorld::new(WorldConfig::default())
        .unwrap()
        .sample(Part::Test, 0);
    write_rgb_png(&world.path("a.png"), &sample.image).unwrap();
    let segment = |output: &str, more: &[&str]| {
        let mut command = world.zeg();
        command
            .args([
                "segment",
                "a.png",
                "--model",
                "mini",
                "--classes",
                "green",
                "-o",
                output,
            ])
            .args(more);
        success(&mut command)
    };
    let text = segment("one", &[]);
    assert!(
        text.contains("warning: there is only one class") && text.contains("--background"),
        "{text}"
    );
    let text = segment("two", &["--background", "red"]);
    assert!(!text.contains("warning"), "{text}");
}
