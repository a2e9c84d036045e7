//! The program with CLIP-RC: train, resume, score and segment, refused settings, released checkpoints.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::collections::HashMap;

use assert_cmd::Command;
use common::{World, failure, write_image_tower, write_tensors};
use zeg::model::{methods::Methods, weights::StateDict};

/// Returns `zeg train` for a CLIP-RC model with four region tokens on a grid of 4×4 patches.
fn train(world: &World, run: &str, changes: &[&str]) -> Command {
    let mut command = world.train(run);
    let method = ["model.method=clip-rc", "model.regions=4"];
    for change in method.iter().chain(changes) {
        command.args(["--set", change]);
    }
    command
}

fn log(world: &World, run: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(world.path(&format!("{run}/log.jsonl"))).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn a_model_is_trained_resumed_scored_and_used() {
    let world = World::new();
    train(&world, "run", &[]).assert().success();
    let lines = log(&world, "run");
    let terms = ["focal", "dice", "recovery-queries", "recovery-patches"];
    for line in &lines {
        let sum: f64 = terms.iter().map(|term| line[term].as_f64().unwrap()).sum();
        let loss = line["loss"].as_f64().unwrap();
        assert!((loss - sum).abs() < 1e-4 * loss, "{line}");
    }
    let loss = |step: usize| lines[step]["loss"].as_f64().unwrap();
    assert!(loss(5) < loss(0), "{lines:?}");

    // A run that was stopped after its checkpoint at step 4 continues to the same bytes.
    train(&world, "stopped", &[]).assert().success();
    for name in ["model.safetensors", "checkpoint-00000006.safetensors"] {
        std::fs::remove_file(world.path("stopped").join(name)).unwrap();
    }
    train(&world, "stopped", &[])
        .arg("--resume")
        .assert()
        .success();
    let model = |run: &str| std::fs::read(world.path(&format!("{run}/model.safetensors"))).unwrap();
    assert!(model("run") == model("stopped"), "the models differ");

    let file = "run/model.safetensors";
    let scored = world
        .zeg()
        .args(["eval", file, "--data", "VOC2012"])
        .assert();
    scored.success();
    let segmented = world
        .zeg()
        .args([
            "segment",
            "VOC2012/JPEGImages/2007_000004.jpg",
            "--model",
            file,
        ])
        .args([
            "--classes",
            "bird|boat, sofa",
            "-o",
            "out",
            "--threshold",
            "0",
        ])
        .assert();
    segmented.success();
    assert!(world.path("out/2007_000004.overlay.png").exists());
    let info = world
        .zeg()
        .args(["info", file, "--json"])
        .assert()
        .success();
    let info: serde_json::Value = serde_json::from_slice(&info.get_output().stdout).unwrap();
    assert_eq!(info["trained_steps"], 6);
}

/// A recovery term is a mean over the batch, not over pairs of image and class, so micro-batches do not change it; the
/// same holds with pseudo-labels.
#[test]
fn micro_batches_do_not_change_the_loss() {
    let world = World::new();
    let no_dropout = ["model.prompts.dropout=0.0", "model.head.dropout=0.0"];
    train(&world, "first", &no_dropout).assert().success();
    let terms = |run: &str, setting: &str, micro_batch: usize| {
        let setting = format!("training.setting={setting}");
        let parts = format!("training.micro-batch={micro_batch}");
        let changes = ["training.steps=1", &setting, &parts];
        train(&world, run, &[&changes[..], &no_dropout].concat())
            .args(["--init", "first/model.safetensors"])
            .assert()
            .success();
        log(&world, run).remove(0)
    };
    for setting in ["inductive", "transductive"] {
        let whole = terms(&format!("{setting}-3"), setting, 3);
        for micro_batch in [1, 2] {
            let parts = terms(&format!("{setting}-{micro_batch}"), setting, micro_batch);
            for term in ["focal", "dice", "recovery-queries", "recovery-patches"] {
                let (a, b) = (whole[term].as_f64().unwrap(), parts[term].as_f64().unwrap());
                assert!(
                    (a - b).abs() < 2e-5 * a,
                    "{setting} {micro_batch} {term}: {a} {b}"
                );
            }
        }
    }
}

#[test]
fn without_recovery_its_decoder_stays_as_it_was() {
    let world = World::new();
    train(&world, "run", &["training.loss.recovery=0"])
        .assert()
        .success();
    assert!(log(&world, "run")[0].get("recovery-queries").is_none());
    let checkpoint = StateDict::open(
        &world.path("run/checkpoint-00000006.safetensors"),
        &Methods::default().key_tables(),
    )
    .unwrap();
    let moments = |part: &str| format!("optimizer.first.decode_head.{part}");
    assert!(checkpoint.contains(&moments("lateral_proj.bias")));
    assert!(!checkpoint.contains(&moments("recovery_decoder.linear_q_in.bias")));
}

#[test]
fn settings_that_do_not_fit_are_refused() {
    let world = World::new();
    let refused = |changes: &[&str]| failure(&mut train(&world, "run", changes));
    let text = refused(&["model.regions=9"]);
    assert!(
        text.contains("3×3 does not divide the 4×4 patches") && text.contains("1, 4, 16"),
        "{text}"
    );
    let text = refused(&["model.regions=5"]);
    assert!(
        text.contains("5 region tokens do not form a square lattice"),
        "{text}"
    );
    let text = refused(&["model.method=zegclip"]);
    assert!(
        text.contains("unknown field `regions`") && text.contains("(method zegclip)"),
        "{text}"
    );
    let text = failure(
        world
            .train("run")
            .args(["--set", "training.loss.recovery=1"]),
    );
    assert!(
        text.contains("unknown field `recovery`") && text.contains("in `training.loss`"),
        "{text}"
    );
    let text = refused(&["training.cached-copies=1"]);
    assert!(text.contains("CLIP-RC's changes"), "{text}");
    // A run cannot start from the weights of another method.
    world.train("zegclip").assert().success();
    let text = failure(train(&world, "run", &[]).args(["--init", "zegclip/model.safetensors"]));
    assert!(text.contains("model.method"), "{text}");
}

/// A checkpoint in the layout of the reference: one file holds all weights under its names, unused modules included.
#[test]
fn a_released_checkpoint_gives_the_labels_of_its_model() {
    let world = World::new();
    write_image_tower(&world.weights());
    // The attention heads have 64 channels, and no file describes the released decoder.
    let like_released = [
        "model.encoder={ patch = 8, width = 64, layers = 2, heads = 1, embed-dim = 16 }",
        "model.head={ layers = 2, feed-forward = 24 }",
    ];
    train(&world, "run", &like_released).assert().success();

    let (tower, trained) = (world.weights(), world.path("run/model.safetensors"));
    let mut tensors = Vec::new();
    for file in [&tower, &trained] {
        let weights = StateDict::open(file, &Methods::default().key_tables()).unwrap();
        for key in weights.keys().filter(|key| *key != "class_embeddings") {
            let tensor = weights.read(key).unwrap().unwrap();
            tensors.push((key.to_owned(), tensor.shape, tensor.values));
        }
    }
    let values = |name: &str| {
        let found = tensors.iter().find(|(key, ..)| key == name);
        found.unwrap().2.clone()
    };
    let (class, position) = (
        values("backbone.class_embedding"),
        values("backbone.positional_embedding"),
    );
    let region: Vec<f32> = class.iter().zip(position).map(|(c, p)| c + p).collect();
    tensors.push((
        "backbone.region_level_bridge".into(),
        vec![4, 64],
        region.repeat(4),
    ));
    let unused = "decode_head.decoder_q.layers.0.self_attn.in_proj_weight";
    tensors.push((unused.into(), vec![48, 16], vec![0.5; 48 * 16]));
    write_tensors(
        &world.path("released.safetensors"),
        &tensors,
        HashMap::new(),
    );

    let segment = |model: &str, out: &str| {
        let done = world
            .zeg()
            .args([
                "segment",
                "VOC2012/JPEGImages/2007_000004.jpg",
                "--model",
                model,
            ])
            .args([
                "--classes",
                "voc20",
                "--text",
                "text.safetensors",
                "-o",
                out,
            ])
            .args(["--short-side", "32", "--crop", "32", "--stride", "24"])
            // A released file does not say which classes were seen; every pixel gets a class, so that all count.
            .args(["--seen-offset", "0", "--threshold", "0"])
            .assert();
        done.success();
        std::fs::read(world.path(&format!("{out}/2007_000004.png"))).unwrap()
    };
    let labels = segment("run/model.safetensors", "ours");
    assert!(
        labels == segment("released.safetensors", "theirs"),
        "the labels differ"
    );
    protocol_follows_the_checkpoint(&world);
    unknown_tensors_of_the_head_are_named(&world, tensors);
}

/// A tensor beside the head's layers gives a warning, and one in a further block of the head an error.
fn unknown_tensors_of_the_head_are_named(
    world: &World,
    mut tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
) {
    let model = world.path("more.safetensors");
    let mut segment = |name: &str| {
        tensors.push((name.to_owned(), vec![2], vec![0.5, 0.5]));
        write_tensors(&model, &tensors, HashMap::new());
        let mut command = world.zeg();
        command
            .args(["segment", "VOC2012/JPEGImages/2007_000004.jpg"])
            .args(["--model", "more.safetensors", "--classes", "voc20"])
            .args(["--text", "text.safetensors", "-o", "more", "--overwrite"])
            .args(["--short-side", "32", "--crop", "32", "--stride", "24"]);
        command
    };
    let beside = "decode_head.conv_seg.weight";
    let done = segment(beside).assert().success();
    let text = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    let says = format!(
        "does not read 1 tensor of the file, so it may be another model than the file's: {beside}"
    );
    assert!(text.contains(&says), "{text}");
    let inside = "decode_head.decoder_q.layers.8.linear1.bias";
    let text = failure(&mut segment(inside));
    assert!(text.contains(inside) && text.contains("hint:"), "{text}");
}

/// The file names of released checkpoints decide the seen offset and the protocol, unless an option does.
fn protocol_follows_the_checkpoint(world: &World) {
    let own = "voc_self_train.safetensors";
    std::fs::copy(world.path("released.safetensors"), world.path(own)).unwrap();
    let none: &[&str] = &[];
    for (model, more, protocol, has_offset) in [
        ("released.safetensors", none, "inductive", true),
        (own, none, "transductive-unseen", false),
        (own, &["--protocol", "inductive"], "inductive", true),
        (own, &["--seen-offset", "0.2"], "transductive-unseen", true),
        (
            "released.safetensors",
            &["--protocol", "fully-supervised"],
            "fully-supervised",
            false,
        ),
    ] {
        let mut command = world.zeg();
        command
            .args(["eval", model, "--data", "VOC2012", "--dataset", "voc12"])
            .args(["--class-list", "voc20", "--text", "text.safetensors"])
            .args(["--short-side", "32", "--crop", "32", "--stride", "24"])
            .args(["-o", "record", "--overwrite"])
            .args(more);
        let done = command.assert().success();
        let text = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
        let says_so = text.contains("\"voc_self_train.safetensors\" says");
        assert_eq!(says_so, protocol == "transductive-unseen", "{text}");
        let record = std::fs::read(world.path("record/evaluation.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        assert_eq!(record["protocol"], protocol, "{model} {more:?}");
        let offset = record["inference"]["seen-offset"].as_f64().unwrap();
        assert_eq!(offset > 0.0, has_offset, "{model} {more:?}: {offset}");
    }
}
