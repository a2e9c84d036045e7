//! Standard output and standard error that are closed or full: no panic, and every file is written. Links at the places
//! of outputs stay.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use common::World;

/// Returns `zeg` in the folder of the world.
fn zeg(world: &World, arguments: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("zeg"));
    command
        .current_dir(world.folder.path())
        .env("ZEG_CACHE", world.path("cache"))
        .env("ZEG_OFFLINE", "1")
        .args(arguments);
    command
}

/// Returns the writing end of a pipe whose reader is gone.
fn closed_pipe() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Returns an output that is always full, if the system has one.
fn full() -> Option<Stdio> {
    let full = Path::new("/dev/full");
    full.exists()
        .then(|| File::options().write(true).open(full).unwrap().into())
}

/// Runs a command with this standard output; returns its status and standard error.
fn with_stdout(mut command: Command, stdout: Stdio) -> (ExitStatus, String) {
    let mut child = command
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut text).unwrap();
    (child.wait().unwrap(), text)
}

const LISTS: [&[&str]; 4] = [
    &["data", "list"],
    &["models"],
    &["completions", "bash"],
    &["info", "experiment.toml"],
];

#[test]
fn a_list_into_a_closed_pipe_ends_quietly() {
    let world = World::new();
    for list in LISTS {
        let (status, text) = with_stdout(zeg(&world, list), closed_pipe());
        assert!(status.success(), "{list:?}: {status}");
        assert_eq!(text, "", "{list:?}");
    }
}

#[test]
fn a_list_into_a_full_file_is_an_error() {
    let world = World::new();
    for list in LISTS {
        let Some(full) = full() else { return };
        let (status, text) = with_stdout(zeg(&world, list), full);
        assert_eq!(status.code(), Some(1), "{list:?}: {text}");
        assert!(text.starts_with("error: standard output"), "{text}");
    }
}

/// `zeg segment` for three images, the second of which is damaged.
fn segment(world: &World, output: &str) -> Command {
    let bytes = std::fs::read(world.image("2007_000001")).unwrap();
    let folder = world.path("images");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, length) in [
        ("a", bytes.len()),
        ("b", bytes.len() / 2),
        ("c", bytes.len()),
    ] {
        std::fs::write(folder.join(format!("{name}.jpg")), &bytes[..length]).unwrap();
    }
    let model = ["--model", "mini", "--classes", "red,blue"];
    let mut command = zeg(world, &["segment", "images", "-o", output]);
    command.args(model).args(["--write", "labels,coco"]);
    command
}

#[test]
fn segmenting_goes_on_when_nobody_reads_its_output() {
    let world = World::new();
    let mut command = segment(&world, "out");
    let status = command
        .stdout(closed_pipe())
        .stderr(closed_pipe())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1)); // one image is damaged
    if let Some(full) = full() {
        let (status, text) = with_stdout(segment(&world, "full"), full);
        assert_eq!(status.code(), Some(1));
        assert!(!text.contains("panicked"), "{text}");
        assert!(world.path("full/coco.json").exists());
    }
    for file in ["a.png", "c.png", "coco.json"] {
        assert!(world.path("out").join(file).exists(), "{file}");
    }
}

#[test]
fn a_training_keeps_its_model_when_nobody_reads_its_output() {
    let world = World::new();
    for (run, output) in [("closed", Some(closed_pipe())), ("full", full())] {
        let Some(output) = output else { continue };
        let mut command = zeg(&world, &["train", "experiment.toml", "--data", "VOC2012"]);
        command.args(["--weights", "tower.safetensors"]).args([
            "--text",
            "text.safetensors",
            "-o",
            run,
        ]);
        let status = command.stdout(Stdio::null()).stderr(output).status();
        assert!(status.unwrap().success(), "{run}");
        assert!(world.path(run).join("model.safetensors").exists(), "{run}");
    }
}

#[test]
fn maps_are_written_behind_links_and_never_replace_the_image() {
    use std::os::unix::fs::symlink;
    let world = World::new();
    let image = world.path("a.jpg");
    std::fs::copy(world.image("2007_000001"), &image).unwrap();
    std::fs::create_dir(world.path("maps")).unwrap();
    let draw = || {
        let model = ["--model", "mini", "--classes", "red,blue"];
        let mut command = zeg(&world, &["visualize", "a.jpg", "-o", "maps"]);
        command.args(model).arg("--overwrite").output().unwrap()
    };
    let (map, kept) = (world.path("maps/a.pca.png"), world.path("kept.png"));
    std::fs::write(&kept, "old").unwrap();
    symlink(&kept, &map).unwrap();
    let output = draw();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(map.symlink_metadata().unwrap().is_symlink());
    assert_ne!(std::fs::read(&kept).unwrap(), b"old");
    for (place, shown) in [
        (image.as_path(), "which this command reads"),
        (Path::new("/dev/null"), "not a file"),
    ] {
        std::fs::remove_file(&map).unwrap();
        symlink(place, &map).unwrap();
        let output = draw();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(shown), "{text}");
    }
    let original = std::fs::read(world.image("2007_000001")).unwrap();
    assert_eq!(std::fs::read(&image).unwrap(), original);
}
