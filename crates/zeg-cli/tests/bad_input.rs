//! Bad input: every error names the file and the value, ends in a hint, and loses no data.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use common::{World, failure, write_plain_clip};
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
        failure(&mut command)
    };
    assert_says(&segment(""), &["--classes", "names no class", "hint:"]);
    assert_says(&segment("dog,,cat"), &["--classes", "hint:"]);
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
