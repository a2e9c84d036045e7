//! The program with ZegFormer: train, resume, score in several ways, segment, and weights with other names.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::collections::HashMap;

use common::{World, failure, write_tensors};

const CONFIG: &str = r#"
[data]
dataset = "voc12"
classes = "voc20"
train-split = "train"
eval-split = "val"

[model]
method = "zegformer"
encoder = { patch = 8, width = 32, layers = 2, heads = 2, embed-dim = 16 }
input-resolution = 64

[model.zegformer]
backbone = { blocks = [1, 1, 1, 1], stem = 8, output = 16, bottleneck = 4 }
pixel-width = 16
norm-groups = 4
mask-width = 8
queries = 6
width = 16
heads = 2
layers = 2
feed-forward = 32
crop-side = 32

[training]
setting = "inductive"
steps = 6
batch = 3
micro-batch = 2
checkpoint-every = 2
preprocess = { kind = "short-sides", base = 64, longest = 128, crop = 64 }
schedule = { base = 1e-3, minimum = 0.0, warmup-steps = 0 }
optimizer = { weight-decay = 1e-4, clip-norm = 0.01 }

[inference]
short-side = 64
longest-side = 256
"#;

fn world() -> World {
    let world = World::new();
    std::fs::write(world.config(), CONFIG).unwrap();
    world
}

/// Writes a residual network with the sizes of the configuration and torchvision's names; all weights are equal.
fn write_torchvision(world: &World, value: f32) {
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: Vec<usize>, value: f32| {
        let count = shape.iter().product();
        tensors.push((name, shape, vec![value; count]));
    };
    let mut convolution = |name: &str, norm: &str, [output, input, side]: [usize; 3]| {
        add(
            format!("{name}.weight"),
            vec![output, input, side, side],
            value,
        );
        for (part, start) in [
            ("weight", 1.0),
            ("bias", 0.0),
            ("running_mean", 0.0),
            ("running_var", 4.0),
        ] {
            add(format!("{norm}.{part}"), vec![output], start);
        }
    };
    convolution("conv1", "bn1", [8, 3, 7]);
    let mut input = 8;
    for stage in 0..4 {
        let (inner, output) = (4 << stage, 16 << stage);
        let block = format!("layer{}.0", stage + 1);
        convolution(
            &format!("{block}.conv1"),
            &format!("{block}.bn1"),
            [inner, input, 1],
        );
        convolution(
            &format!("{block}.conv2"),
            &format!("{block}.bn2"),
            [inner, inner, 3],
        );
        convolution(
            &format!("{block}.conv3"),
            &format!("{block}.bn3"),
            [output, inner, 1],
        );
        let (shortcut, norm) = (
            format!("{block}.downsample.0"),
            format!("{block}.downsample.1"),
        );
        convolution(&shortcut, &norm, [output, input, 1]);
        input = output;
    }
    write_tensors(&world.path("resnet.safetensors"), &tensors, HashMap::new());
}

fn tensor(world: &World, file: &str, name: &str) -> Vec<u8> {
    let bytes = std::fs::read(world.path(file)).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    tensors.tensor(name).unwrap().data().to_vec()
}

fn scores(world: &World, model: &str, changes: &[&str]) -> serde_json::Value {
    let mut command = world.zeg();
    command.args(["eval", model, "--data", "VOC2012", "--json", "scores.json"]);
    command.args(changes).assert().success();
    serde_json::from_slice(&std::fs::read(world.path("scores.json")).unwrap()).unwrap()
}

#[test]
fn a_two_stage_model_is_trained_resumed_scored_and_used() {
    let world = world();
    write_torchvision(&world, 0.01);
    let mut train = world.train("run");
    train
        .args(["--backbone", "resnet.safetensors"])
        .assert()
        .success();
    let log = std::fs::read_to_string(world.path("run/log.jsonl")).unwrap();
    for term in ["class", "focal", "dice"] {
        assert!(log.contains(&format!("{term:?}")), "{log}");
    }

    // The model holds the statistics of the residual network, but not CLIP.
    let model = "run/model.safetensors";
    let variance = tensor(&world, model, "backbone.res3.0.conv2.norm.running_var");
    assert_eq!(variance[..4], 4.0_f32.to_le_bytes());
    let header = std::fs::read(world.path(model)).unwrap();
    assert!(!String::from_utf8_lossy(&header[..20_000]).contains("resblocks"));

    // A run that is stopped half-way and resumed gives the same model.
    let start = |run: &str| {
        let mut train = world.train(run);
        train.args(["--backbone", "resnet.safetensors"]);
        train
    };
    start("again").assert().success();
    for file in [
        "again/checkpoint-00000006.safetensors",
        "again/model.safetensors",
    ] {
        std::fs::remove_file(world.path(file)).unwrap();
    }
    start("again").arg("--resume").assert().success();
    for name in [
        "sem_seg_head.predictor.bg_feature",
        "backbone.res5.0.conv2.weight",
    ] {
        assert_eq!(
            tensor(&world, model, name),
            tensor(&world, "again/model.safetensors", name)
        );
    }

    let joined = scores(&world, model, &[]);
    assert_eq!(joined["images"], 2);
    assert!(joined["miou"].as_f64().is_some());
    let plan = "protocol = 'inductive'\n[data]\ndataset = 'voc12'\nclasses = 'voc20'\n\
                [inference]\nshort-side = 64\nseen-offset = 0.0\n[inference.method]\nfusion = 'clip-alone'\ncrops = 'mask'\n";
    std::fs::write(world.path("plan.toml"), plan).unwrap();
    scores(&world, model, &["--plan", "plan.toml"]);
    scores(&world, model, &["--scales", "0.5,1", "--flip"]);

    world
        .zeg()
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
fn settings_that_do_not_fit_two_stages_are_refused() {
    let world = world();
    let refused = |changes: &[&str]| {
        let mut train = world.train("run");
        for change in changes {
            train.args(["--set", change]);
        }
        failure(&mut train)
    };
    let text = refused(&["training.setting=transductive"]);
    assert!(text.contains("ZegFormer has none"), "{text}");
    let text = refused(&["model.regions=16"]);
    assert!(
        text.contains("unknown field `regions`") && text.contains("(method zegformer)"),
        "{text}"
    );
    let text = refused(&["model.zegformer.norm-groups=5"]);
    assert!(text.contains("norm-groups 5"), "{text}");
    let text = refused(&["training.cached-copies=2"]);
    assert!(text.contains("training.cached-copies"), "{text}");
    let text = refused(&["model.method=zegclip"]);
    assert!(text.contains("unknown field `zegformer`"), "{text}");

    // The file is not a residual network.
    let mut train = world.train("run");
    let text = failure(train.args(["--backbone", "tower.safetensors"]));
    assert!(
        text.contains("holds no \"backbone.stem.conv1.weight\""),
        "{text}"
    );
}
