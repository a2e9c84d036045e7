//! CAT-Seg from the command line: a run of one step on the mini world, and its class embeddings.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::collections::HashMap;

use assert_cmd::Command;
use common::{World, failure, write_tensors};
use zeg::{
    data::mini_world::{Part, World as MiniWorld, WorldConfig},
    image::write_rgb_png,
    model::embeddings::ClassEmbeddings,
};

const MODEL: &str = "run/model.safetensors";

/// Returns a world with an image of the mini world and a CAT-Seg after one step.
fn trained() -> World {
    let world = World::new();
    let sample = MiniWorld::new(WorldConfig::default())
        .unwrap()
        .sample(Part::Test, 0);
    write_rgb_png(&world.path("a.png"), &sample.image).unwrap();
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../configs/mini-world/cat-seg.toml"
    );
    let mut command = world.zeg();
    command
        .args(["train", config, "--weights", "mini", "-o", "run"])
        .args(["--set", "training.steps=1", "--set", "training.batch=1"]);
    success(&mut command);
    world
}

/// Runs a command that must succeed and returns its standard error.
fn success(command: &mut Command) -> String {
    let output = command.assert().success().get_output().stderr.clone();
    String::from_utf8(output).unwrap()
}

/// Returns `zeg segment` of the image.
fn segment(world: &World, classes: &str, output: &str, more: &[&str]) -> Command {
    let mut command = world.zeg();
    command
        .args(["segment", "a.png", "--model", MODEL, "-o", output])
        .args(["--classes", classes, "--write", "labels"])
        .args(more);
    command
}

#[test]
fn a_table_is_made_of_first_names_as_every_other_command_does() {
    let world = trained();
    let table = |classes: &str, file: &str| {
        let mut command = world.zeg();
        command.args(["embed", "--model", MODEL, "--classes", classes, "-o", file]);
        success(&mut command);
        let table = ClassEmbeddings::open(&world.path(file), &[]).unwrap();
        table.values().to_vec()
    };
    let first = table("striped red, plain green", "first.safetensors");
    let synonyms = "striped red|plain blue, plain green";
    assert_eq!(table(synonyms, "synonyms.safetensors"), first);
    let labels = |output: &str, more: &[&str]| {
        let told = success(&mut segment(&world, synonyms, output, more));
        let labels = std::fs::read(world.path(output).join("a.png")).unwrap();
        (labels, told)
    };
    let (of_tower, told) = labels("tower", &[]);
    assert!(!told.contains("text tower"), "{told}");
    let (of_table, told) = labels("table", &["--text", "synonyms.safetensors"]);
    assert_eq!(of_table, of_tower);
    // Nothing tells which text tower made a table.
    assert!(
        told.contains(
            "synonyms.safetensors: the rows are taken to come from the model's own text tower"
        ),
        "{told}"
    );
}

#[test]
fn weights_that_are_not_recognised_are_an_error_of_embed() {
    let world = World::new();
    let at = "sem_seg_head.predictor.transformer.";
    let tensor = |name: &str, shape: Vec<usize>| {
        let length = shape.iter().product();
        (format!("{at}{name}"), shape, vec![0.5_f32; length])
    };
    let tensors = [
        tensor("conv1.weight", vec![8, 1, 7, 7]),
        tensor("decoder1.conv.double_conv.0.weight", vec![16, 8, 3, 3]),
        tensor("decoder2.conv.double_conv.0.weight", vec![16, 16, 3, 3]),
    ];
    write_tensors(&world.path("first.safetensors"), &tensors, HashMap::new());
    let mut command = world.zeg();
    command
        .args(["embed", "--model", "first.safetensors"])
        .args(["--classes", "dog", "-o", "table.safetensors"]);
    let text = failure(&mut command);
    assert!(text.contains("CAT-Seg of the first version"), "{text}");
}

#[test]
fn sizes_that_have_no_effect_are_refused() {
    let world = trained();
    let refused = [["--scales", "0.5,1"], ["--short-side", "128"]];
    for [flag, value] in refused {
        let mut command = segment(&world, "red, green", "no", &[flag, value]);
        let text = failure(&mut command);
        assert!(
            text.contains("has no effect") && text.contains("canvas"),
            "{text}"
        );
        let mut command = world.zeg();
        command.args(["eval", MODEL, "--limit", "1", flag, value]);
        assert!(failure(&mut command).contains("has no effect"), "{flag}");
        assert!(!world.path("no").join("a.png").exists());
    }
    let more = ["--scales", "1", "--flip"];
    success(&mut segment(&world, "red, green", "flip", &more));
}
