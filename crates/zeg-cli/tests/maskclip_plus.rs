//! MaskCLIP+ from the command line: train in the transductive setting with either kind of guide, resume, score, segment.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::collections::HashMap;

use common::{DIM, World, failure, write_tensors};

const CONFIG: &str = r#"
[data]
dataset = "voc12"
classes = "voc20"
unseen = "bicycle, bird"
train-split = "train"
eval-split = "val"

[model]
method = "maskclip-plus"
encoder = { patch = 8, width = 32, layers = 2, heads = 2, embed-dim = 16 }
input-resolution = 32
head = "deeplab-v3-plus"
low-level = 4

[model.student]
blocks = [1, 1, 1, 1]
stem = 8
output = 16
bottleneck = 4

[training]
setting = "transductive"
steps = 6
batch = 3
checkpoint-every = 2
preprocess = { kind = "random-crop", base-scale = [64, 40], crop = 32 }
schedule = { base = 1e-2, minimum = 1e-4, warmup-steps = 0 }
optimizer = { momentum = 0.9, weight-decay = 5e-4 }
loss = { guided-steps = 3, key-smoothing = 1.0, prompt-denoising = 0.5 }

[inference]
short-side = 32
mode = "whole"
"#;

fn world() -> World {
    let world = World::new();
    std::fs::write(world.config(), CONFIG).unwrap();
    world
}

/// Writes a residual image tower in CLIP's names; all kernels have one value.
fn write_residual_tower(world: &World) {
    let mut tensors = Vec::new();
    let mut add = |name: &str, shape: Vec<usize>, value: f32| {
        let count = shape.iter().product();
        tensors.push((format!("visual.{name}"), shape, vec![value; count]));
    };
    let mut convolution = |name: &str, norm: &str, [output, input, side]: [usize; 3]| {
        add(
            &format!("{name}.weight"),
            vec![output, input, side, side],
            0.05,
        );
        for (part, value) in [
            ("weight", 1.0),
            ("bias", 0.1),
            ("running_mean", 0.0),
            ("running_var", 1.0),
        ] {
            add(&format!("{norm}.{part}"), vec![output], value);
        }
    };
    for (number, [output, input]) in [[2, 3], [2, 2], [4, 2]].into_iter().enumerate() {
        let (name, norm) = (format!("conv{}", number + 1), format!("bn{}", number + 1));
        convolution(&name, &norm, [output, input, 3]);
    }
    let mut input = 4;
    for stage in 0..4 {
        let (inner, output) = (4 << stage, 16 << stage);
        let at = |part: &str| format!("layer{}.0.{part}", stage + 1);
        convolution(&at("conv1"), &at("bn1"), [inner, input, 1]);
        convolution(&at("conv2"), &at("bn2"), [inner, inner, 3]);
        convolution(&at("conv3"), &at("bn3"), [output, inner, 1]);
        convolution(&at("downsample.0"), &at("downsample.1"), [output, input, 1]);
        input = output;
    }
    add("attnpool.positional_embedding", vec![2, input], 0.0);
    for (name, output) in [("q", input), ("k", input), ("v", input), ("c", DIM)] {
        add(
            &format!("attnpool.{name}_proj.weight"),
            vec![output, input],
            0.1,
        );
        add(&format!("attnpool.{name}_proj.bias"), vec![output], 0.1);
    }
    write_tensors(
        &world.path("residual.safetensors"),
        &tensors,
        HashMap::new(),
    );
}

fn file(world: &World, name: &str) -> Vec<u8> {
    std::fs::read(world.path(name)).unwrap()
}

#[test]
fn a_student_is_trained_resumed_scored_and_used() {
    let world = world();
    world.train("run").assert().success();
    let model = "run/model.safetensors";
    let bytes = file(&world, model);
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    // The model holds the student with its running means, and no guide.
    assert!(tensors.names().iter().all(|name| !name.contains(".clip.")));
    let mean = tensors.tensor("student.stem.1.running_mean").unwrap();
    assert!(mean.data().iter().any(|byte| *byte != 0));

    // A run that is stopped in the second phase and resumed gives the same model.
    world.train("again").assert().success();
    for name in ["checkpoint-00000006.safetensors", "model.safetensors"] {
        std::fs::remove_file(world.path("again").join(name)).unwrap();
    }
    world.train("again").arg("--resume").assert().success();
    let again = file(&world, "again/model.safetensors");
    let again = safetensors::SafeTensors::deserialize(&again).unwrap();
    for (name, tensor) in tensors.iter() {
        assert_eq!(tensor.data(), again.tensor(name).unwrap().data(), "{name}");
    }

    let mut eval = world.zeg();
    eval.args(["eval", model, "--data", "VOC2012", "--json", "scores.json"]);
    eval.assert().success();
    let scores: serde_json::Value = serde_json::from_slice(&file(&world, "scores.json")).unwrap();
    assert_eq!(scores["images"], 2);
    let mut segment = world.zeg();
    segment
        .args([
            "segment",
            "VOC2012/JPEGImages/2007_000004.jpg",
            "--model",
            model,
        ])
        .args(["--classes", "aeroplane, bicycle", "-o", "out"])
        .assert()
        .success();
    assert!(world.path("out/2007_000004.png").exists());
}

#[test]
fn a_residual_tower_guides_but_does_not_segment() {
    let world = world();
    write_residual_tower(&world);
    let residual = "model.encoder={ blocks = [1, 1, 1, 1], width = 4, embed-dim = 16 }";
    let train = |run: &str| {
        let mut train = world.zeg();
        train
            .args([
                "train",
                "experiment.toml",
                "--data",
                "VOC2012",
                "--text",
                "text.safetensors",
            ])
            .args([
                "--weights",
                "residual.safetensors",
                "--set",
                "training.steps=2",
                "-o",
                run,
            ]);
        train
    };
    train("run").args(["--set", residual]).assert().success();
    // The experiment names a transformer.
    let text = failure(&mut train("other"));
    assert!(text.contains("hold no image tower of the kind"), "{text}");
    let mut segment = world.zeg();
    segment
        .args([
            "segment",
            "VOC2012/JPEGImages/2007_000004.jpg",
            "--model",
            "residual.safetensors",
        ])
        .args([
            "--text",
            "text.safetensors",
            "--classes",
            "bird",
            "-o",
            "out",
        ]);
    let text = failure(&mut segment);
    assert!(text.contains("it can only guide a training"), "{text}");
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let world = world();
    let refused = |change: &str| {
        let mut train = world.train("run");
        failure(train.args(["--set", change]))
    };
    for (change, message) in [
        (
            "training.loss.key-smoothing=2",
            "must be a number from 0 to 1",
        ),
        ("training.micro-batch=1", "there must be at least 2"),
        (
            "training.pseudo-labels=unlabelled-pixels",
            "the pixels of unseen classes only",
        ),
        (
            "training.self-training.seen-offset=0.1",
            "always takes the best unseen class",
        ),
        (
            "training.optimizer.momentum=1",
            "training.optimizer.momentum",
        ),
        ("model.student.stem=7", "`stem` even"),
    ] {
        let text = refused(change);
        assert!(text.contains(message), "{change}: {text}");
    }
}
