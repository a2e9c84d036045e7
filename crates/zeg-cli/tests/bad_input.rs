//! Bad input: every error names the file and the value, ends in a hint, and loses no data.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use common::{World, failure, failure_with, write_plain_clip};
use zeg::image::{LabelMap, RgbImage, write_indexed_png};
use zeg::vocab::classes::voc_colour;

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

fn palette() -> Vec<[u8; 3]> {
    (0..256).map(voc_colour).collect()
}

#[test]
fn a_truncated_jpeg_is_named() {
    let world = World::new();
    let bytes = std::fs::read(world.image("2007_000001")).unwrap();
    std::fs::write(world.image("2007_000001"), &bytes[..bytes.len() / 2]).unwrap();
    assert_says(
        &failure(&mut world.train("run")),
        &["2007_000001.jpg", "hint: the file is damaged"],
    );
    world
        .train("skipping")
        .args(["--set", "training.on-bad-sample=skip"])
        .assert()
        .success();
}

#[test]
fn labels_of_another_size_are_named_with_both_sizes() {
    let world = World::new();
    let labels = LabelMap::filled(10, 12, 0);
    write_indexed_png(&world.labels("2007_000002"), &labels, &palette()).unwrap();
    assert_says(
        &failure(&mut world.train("run")),
        &["2007_000002.png", "48", "40", "10", "12", "hint:"],
    );
}

#[test]
fn a_label_out_of_range_is_named_with_its_place() {
    let world = World::new();
    let mut labels = LabelMap::filled(48, 40, 0);
    labels.labels_mut()[48 * 3 + 7] = 187;
    write_indexed_png(&world.labels("2007_000000"), &labels, &palette()).unwrap();
    assert_says(
        &failure(&mut world.train("run")),
        &[
            "2007_000000.png",
            "187",
            "(7, 3)",
            "0..=20 and 255",
            "hint:",
        ],
    );
}

#[test]
fn labels_in_colour_are_refused() {
    let world = World::new();
    RgbImage::new(48, 40)
        .save(world.labels("2007_000003"))
        .unwrap();
    assert_says(
        &failure(&mut world.train("run")),
        &[
            "2007_000003.png",
            "RGB",
            "hint: label files hold class indices",
        ],
    );
}

#[test]
fn a_missing_split_list_is_answered_with_those_that_exist() {
    let world = World::new();
    let text = failure(
        world
            .train("run")
            .args(["--set", "data.train-split=trainval"]),
    );
    assert_says(
        &text,
        &["trainval", "train", "val", "hint: name one of the splits"],
    );
}

#[test]
fn weights_of_another_architecture_are_told_by_tensor_and_shape() {
    let world = World::new();
    let text = failure(world.train("run").args(["--set", "model.encoder.width=48"]));
    assert_says(
        &text,
        &[
            "tower.safetensors",
            "backbone.",
            "32",
            "48",
            "hint: the weights have another architecture",
        ],
    );
    world.train("run").assert().success();
    let text = failure(
        world
            .zeg()
            .args(["eval", "tower.safetensors", "--data", "VOC2012"]),
    );
    assert_says(&text, &["tower.safetensors", "32 channels", "hint:"]);
    write_plain_clip(&world.path("clip.safetensors"));
    let text = failure(
        world
            .zeg()
            .args(["eval", "clip.safetensors", "--data", "VOC2012"]),
    );
    assert_says(&text, &["clip.safetensors", "--dataset"]);
    std::fs::write(
        world.path("other.safetensors"),
        std::fs::read(world.text()).unwrap(),
    )
    .unwrap();
    let text = failure(world.zeg().args([
        "eval",
        "run/model.safetensors",
        "--data",
        "VOC2012",
        "--weights",
        "other.safetensors",
    ]));
    assert_says(&text, &["other.safetensors", "SHA-256", "hint:"]);
}

#[test]
fn a_truncated_safetensors_file_is_named_at_every_cut() {
    let world = World::new();
    world.train("run").assert().success();
    let whole = std::fs::read(world.path("run/model.safetensors")).unwrap();
    for cut in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(world.path("cut.safetensors"), &whole[..cut]).unwrap();
        let text = failure(
            world
                .zeg()
                .args(["eval", "cut.safetensors", "--data", "VOC2012"]),
        );
        assert_says(&text, &["cut.safetensors", "hint: the file is damaged"]);
    }
}

#[test]
fn class_lists_are_checked_before_any_image() {
    let world = World::new();
    world.train("run").assert().success();
    let segment = |classes: &str| {
        let mut command = world.zeg();
        command.args([
            "segment",
            "VOC2012/JPEGImages/2007_000000.jpg",
            "--model",
            "run/model.safetensors",
        ]);
        command.args(["-o", "out", "--classes", classes]);
        command
    };
    // A list that no file can make right is a wrong argument.
    let wrong = |classes: &str| failure_with(2, &mut segment(classes));
    assert_says(&wrong(""), &["--classes", "names no class", "hint:"]);
    assert_says(&wrong("dog,,cat"), &["--classes", "hint:"]);
    let segment = |classes: &str| failure(&mut segment(classes));
    assert_says(
        &segment("zebra"),
        &["zebra", "hint: use names of the table"],
    );
    assert_says(
        &segment(&"long ".repeat(90)),
        &["77", "hint: shorten the class name"],
    );
    assert!(!world.path("out").exists());
}

/// A limit on file sizes replaces a full disk: both make a write fail half-way.
#[cfg(unix)]
#[cfg(unix)]
#[test]
fn the_name_of_an_image_from_standard_input_is_a_hyphen() {
    let world = World::new();
    let mut command = world.zeg();
    command.args(["segment", "/dev/stdin", "-o", "out", "--model", "mini"]);
    let text = failure(command.args(["--classes", "red,blue"]).write_stdin("x"));
    assert_says(&text, &["neither a file nor a folder", "hint: write `-`"]);
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    let world = World::new();
    world
        .train("run")
        .args(["--set", "training.steps=6"])
        .assert()
        .success();
    let kept = std::fs::read(world.path("run/checkpoint-00000004.safetensors")).unwrap();
    for name in ["model.safetensors", "checkpoint-00000006.safetensors"] {
        std::fs::remove_file(world.path("run").join(name)).unwrap();
    }
    let program = assert_cmd::cargo::cargo_bin("zeg");
    let mut limited = assert_cmd::Command::new("sh");
    limited.current_dir(world.folder.path()).arg("-c").arg(format!(
        // With XFSZ ignored, the write fails instead of the process; a checkpoint needs more than 16 blocks.
        "trap '' XFSZ; ulimit -f 16; exec '{}' train experiment.toml --data VOC2012 --weights tower.safetensors \
         --text text.safetensors -o run --resume",
        program.display()
    ));
    assert_says(
        &failure(&mut limited),
        &[
            "checkpoint-00000006.safetensors",
            "cannot be written",
            "hint: free some disk space",
        ],
    );
    assert_eq!(
        std::fs::read(world.path("run/checkpoint-00000004.safetensors")).unwrap(),
        kept
    );
    let leftovers: Vec<_> = std::fs::read_dir(world.path("run"))
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| {
            std::path::Path::new(name)
                .extension()
                .is_some_and(|extension| extension == "tmp")
        })
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    world.train("run").arg("--resume").assert().success();
}

/// The tensors of a safetensors file, and its metadata.
type Weights = (
    Vec<(String, Vec<usize>, Vec<f32>)>,
    std::collections::HashMap<String, String>,
);

fn read_weights(path: &std::path::Path) -> Weights {
    let bytes = std::fs::read(path).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |data: &[u8]| {
        let numbers = data.chunks_exact(4);
        numbers
            .map(|v| f32::from_le_bytes(v.try_into().unwrap()))
            .collect()
    };
    let tensors = tensors.tensors().into_iter();
    let tensors = tensors.map(|(name, t)| (name, t.shape().to_vec(), values(t.data())));
    (
        tensors.collect(),
        header.metadata().clone().unwrap_or_default(),
    )
}

#[test]
fn a_model_that_lacks_a_parameter_is_not_opened() {
    let world = World::new();
    world.train("run").assert().success();
    let model = world.path("run/model.safetensors");
    let (mut tensors, metadata) = read_weights(&model);
    let before = tensors.len();
    tensors.retain(|(name, ..)| name != "decode_head.q_proj.weight");
    assert_eq!(tensors.len(), before - 1);
    common::write_tensors(&model, &tensors, metadata);
    let text = failure(
        world
            .zeg()
            .args(["eval", "run/model.safetensors", "--data", "VOC2012"]),
    );
    assert_says(&text, &["decode_head.q_proj.weight", "missing", "hint:"]);
}

#[test]
fn a_run_is_not_continued_from_a_checkpoint_that_lacks_a_parameter() {
    let world = World::new();
    world.train("run").assert().success();
    std::fs::remove_file(world.path("run/model.safetensors")).unwrap();
    let last = world.path("run/checkpoint-00000006.safetensors");
    let (mut tensors, metadata) = read_weights(&last);
    tensors.retain(|(name, ..)| name != "decode_head.q_proj.weight");
    common::write_tensors(&last, &tensors, metadata);
    let text = failure(world.train("run").arg("--resume"));
    assert_says(&text, &["decode_head.q_proj.weight", "missing", "hint:"]);
}

#[test]
fn weights_that_are_not_finite_or_all_zero_label_nothing() {
    let world = World::new();
    let plain = world.path("clip.safetensors");
    write_plain_clip(&plain);
    let (tensors, metadata) = read_weights(&plain);
    let block = "visual.transformer.resblocks.0.mlp.c_fc.weight";
    for (name, value, shown) in [
        (block, f32::NAN, "NaN"),
        ("token_embedding.weight", f32::INFINITY, "inf"),
        ("visual.conv1.weight", 0.0, "nothing but zeros"),
    ] {
        let mut tensors = tensors.clone();
        let tensor = tensors.iter_mut().find(|(found, ..)| found == name);
        let values = &mut tensor.unwrap().2;
        if value == 0.0 {
            values.fill(value);
        } else {
            values[0] = value;
        }
        common::write_tensors(&plain, &tensors, metadata.clone());
        let command = ["segment", "VOC2012/JPEGImages/2007_000000.jpg", "-o", "out"];
        let model = ["--model", "clip.safetensors", "--classes", "cat,dog"];
        let text = failure(world.zeg().args(command).args(model).arg("--no-cache"));
        let last = name.trim_start_matches("visual.");
        assert_says(&text, &["clip.safetensors", last, shown, "hint:"]);
        assert!(!world.path("out/2007_000000.png").exists());
    }
}

/// Label maps have the names of the true label maps, so their folder is a likely mistake after `--write-labels`.
#[test]
fn the_true_labels_are_never_replaced_by_predicted_ones() {
    let world = World::new();
    world.train("run").assert().success();
    let labels = world.labels("2007_000004");
    let before = std::fs::read(&labels).unwrap();
    let score = |folder: &str| {
        let mut command = world.zeg();
        command.args(["eval", "run/model.safetensors", "--data", "VOC2012"]);
        command.args(["--overwrite", "--write-labels", folder]);
        command
    };
    let text = failure(&mut score("VOC2012/SegmentationClass"));
    assert_says(
        &text,
        &["2007_000004.png", "the evaluation reads this file", "hint:"],
    );
    #[cfg(unix)]
    {
        std::fs::create_dir(world.path("maps")).unwrap();
        std::os::unix::fs::symlink(&labels, world.path("maps/2007_000004.png")).unwrap();
        let text = failure(&mut score("maps"));
        assert_says(&text, &["maps", "the evaluation reads this file"]);
        assert!(!world.path("maps/2007_000005.png").exists());
    }
    assert_eq!(std::fs::read(&labels).unwrap(), before);
    score("new").assert().success();
    score("new").assert().success();
}
