//! Long work that is stopped: finished images are kept, and the results of a second run are those of an undisturbed one.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use common::{World, failure};
use serde_json::Value;

const KINDS: &str = "labels,overlay,summary,coco,coco-polygons,label-studio,cvat,html";
const IMAGES: [&str; 4] = ["2007_000000", "2007_000001", "2007_000002", "2007_000003"];

/// Returns a world with a folder of images.
fn world() -> World {
    let world = World::new();
    fs::create_dir(world.path("images")).unwrap();
    for id in IMAGES {
        fs::copy(world.image(id), world.path(&format!("images/{id}.jpg"))).unwrap();
    }
    world
}

/// Returns `zeg segment` with MiniCLIP.
fn segment(world: &World, inputs: &[&str], output: &str, more: &[&str]) -> Command {
    let mut command = world.zeg();
    command.arg("segment").args(inputs).args(["-o", output]);
    command.args(["--model", "mini", "--classes", "red,blue", "--write", KINDS]);
    command.args(more);
    command
}

/// Returns the standard error of a command that must succeed.
fn success(command: &mut Command) -> String {
    let output = command.assert().success();
    String::from_utf8(output.get_output().stderr.clone()).unwrap()
}

/// Returns the names and bytes of all files in a folder but the journal.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with(".zeg-segment.jsonl"))
        .map(|path| {
            (
                PathBuf::from(path.file_name().unwrap()),
                fs::read(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

#[track_caller]
fn assert_same(world: &World, one: &str, other: &str) {
    let (one, other) = (files(&world.path(one)), files(&world.path(other)));
    let names = |files: &[(PathBuf, Vec<u8>)]| -> Vec<PathBuf> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(&one), names(&other));
    for (file, other) in one.iter().zip(&other) {
        assert!(file == other, "{} differs", file.0.display());
    }
}

#[test]
fn segment_goes_on_where_it_stopped_and_its_shared_files_are_complete() {
    let world = world();
    let whole = ["--json", "whole.json", "--explain", "2"];
    success(&mut segment(&world, &["images"], "whole", &whole));
    let some = ["images/2007_000000.jpg", "images/2007_000001.jpg"];
    success(&mut segment(&world, &some, "part", &["--explain", "2"]));
    let again = ["--resume", "--json", "part.json", "--explain", "2"];
    let text = success(&mut segment(&world, &["images"], "part", &again));
    assert!(text.contains("2 of 4 images are finished"), "{text}");
    assert_same(&world, "whole", "part");
    let json = fs::read_to_string(world.path("part.json")).unwrap();
    let json = json.replace("part/", "whole/");
    assert_eq!(json, fs::read_to_string(world.path("whole.json")).unwrap());

    // An image with a missing file is computed again, and so is one that has changed.
    fs::remove_file(world.path("part/2007_000002.overlay.png")).unwrap();
    let resume = ["--skip-existing", "--explain", "2"];
    let text = success(&mut segment(&world, &["images"], "part", &resume));
    assert!(text.contains("3 of 4 images are finished"), "{text}");
    assert_same(&world, "whole", "part");
    fs::copy(
        world.image("2007_000005"),
        world.path("images/2007_000003.jpg"),
    )
    .unwrap();
    let text = success(&mut segment(&world, &["images"], "part", &resume));
    assert!(text.contains("3 of 4 images are finished"), "{text}");
    let text = success(&mut segment(&world, &["images"], "part", &resume));
    assert!(text.contains("4 of 4 images are finished"), "{text}");
}

#[test]
fn results_are_refused_before_anything_is_computed_and_never_mixed() {
    let world = world();
    let one = ["images/2007_000000.jpg"];
    success(&mut segment(&world, &one, "out", &[]));
    let before = files(&world.path("out"));
    // The model is not even opened.
    let mut again = world.zeg();
    again.args(["segment", "images", "-o", "out", "--classes", "red"]);
    let text = failure(again.args(["--model", "no-such-model.safetensors"]));
    for part in ["exists already", "--resume", "--overwrite"] {
        assert!(text.contains(part), "{text}");
    }
    let other = ["--resume", "--threshold", "0.9"];
    let text = failure(&mut segment(&world, &["images"], "out", &other));
    assert!(
        text.contains("other settings: inference.threshold was") && text.contains("hint:"),
        "{text}"
    );
    let classes = ["--resume", "--background", "green"];
    let text = failure(&mut segment(&world, &["images"], "out", &classes));
    assert!(text.contains("other settings: classes was"), "{text}");
    assert!(before == files(&world.path("out")));

    // What no journal describes is not replaced, and a result that was edited is kept.
    fs::write(world.path("out/2007_000001.png"), "mine").unwrap();
    let text = failure(&mut segment(&world, &["images"], "out", &["--resume"]));
    assert!(text.contains("no journal says"), "{text}");
    fs::remove_file(world.path("out/2007_000001.png")).unwrap();
    fs::write(world.path("out/2007_000000.png"), "edited").unwrap();
    let text = success(&mut segment(&world, &["images"], "out", &["--resume"]));
    assert!(text.contains("was changed after it was written"), "{text}");
    let edited = fs::read_to_string(world.path("out/2007_000000.png"));
    assert_eq!(edited.unwrap(), "edited");
    fs::write(world.path("out/coco.json"), "{}").unwrap();
    let text = failure(&mut segment(&world, &["images"], "out", &["--resume"]));
    assert!(text.contains("coco.json: was changed"), "{text}");
    success(&mut segment(&world, &["images"], "out", &["--overwrite"]));
}

#[test]
fn an_image_never_leaves_the_results_without_a_word() {
    let world = world();
    success(&mut segment(&world, &["images"], "out", &[]));
    let before = files(&world.path("out"));
    let one = ["images/2007_000000.jpg"];
    let text = failure(&mut segment(&world, &one, "out", &["--resume"]));
    let left_out = text.contains("results of 2007_000001, which is not among the images now");
    assert!(left_out && text.contains("hint: name all images"), "{text}");

    // The same name in another folder is another image; the same image may have moved.
    fs::create_dir(world.path("other")).unwrap();
    for id in IMAGES {
        fs::copy(world.image(id), world.path(&format!("other/{id}.jpg"))).unwrap();
    }
    let text = success(&mut segment(&world, &["other"], "out", &["--resume"]));
    assert!(text.contains("4 of 4 images are finished"), "{text}");
    let changed = world.path("other/2007_000001.jpg");
    fs::copy(world.image("2007_000005"), changed).unwrap();
    let text = failure(&mut segment(&world, &["other"], "out", &["--resume"]));
    let belongs = text.contains("2007_000001.png: belongs to another image, ");
    assert!(belongs && text.contains("images/2007_000001.jpg"), "{text}");
    assert!(before == files(&world.path("out")));
    let both = ["--resume", "--overwrite"];
    let text = success(&mut segment(&world, &["other"], "out", &both));
    assert!(text.contains("3 of 4 images are finished"), "{text}");
    success(&mut segment(&world, &["other"], "fresh", &[]));
    assert_same(&world, "fresh", "out");
}

#[test]
fn options_of_the_method_are_settings_of_the_results() {
    let world = world();
    let plain = ["--method", "clearclip"];
    success(&mut segment(&world, &["images"], "out", &plain));
    let other = ["--method", "clearclip", "--last-block", "full", "--resume"];
    let text = failure(&mut segment(&world, &["images"], "out", &other));
    assert!(text.contains("model.method_options was not set"), "{text}");
    assert!(text.contains("last-block"), "{text}");
    let both = [&other[..], &["--overwrite"]].concat();
    let text = success(&mut segment(&world, &["images"], "out", &both));
    assert!(text.contains("0 of 4 images are finished"), "{text}");
    let text = success(&mut segment(&world, &["images"], "out", &other));
    assert!(text.contains("4 of 4 images are finished"), "{text}");
}

#[test]
fn results_are_neither_segmented_again_nor_replace_an_input() {
    let world = world();
    for (output, more) in [("images/out", &["-r"][..]), ("images", &[][..])] {
        success(&mut segment(&world, &["images"], output, more));
        let again = [more, &["--resume"]].concat();
        let text = success(&mut segment(&world, &["images"], output, &again));
        let says = ["left out 8 images", "4 of 4 images are finished"];
        assert!(says.iter().all(|part| text.contains(part)), "{text}");
    }
    fs::create_dir(world.path("own")).unwrap();
    for name in ["own/a.png", "own/a.overlay.png"] {
        let image = zeg::image::RgbImage::new(48, 40);
        image.save(world.path(name)).unwrap();
    }
    let before = files(&world.path("own"));
    let text = failure(&mut segment_overlays(&world, "own"));
    assert!(text.contains("would replace own/a.overlay.png"), "{text}");
    assert!(before == files(&world.path("own")));
}

/// Returns `zeg segment` for overlays in the folder of the images.
fn segment_overlays(world: &World, folder: &str) -> Command {
    let mut command = world.zeg();
    command.args(["segment", folder, "-o", folder, "--overwrite"]);
    command.args([
        "--model",
        "mini",
        "--classes",
        "red,blue",
        "--write",
        "overlay",
    ]);
    command
}

#[test]
fn overwriting_with_fewer_classes_leaves_no_file_of_the_others() {
    let world = world();
    let run = |classes: &str, kinds: &str, more: &[&str]| {
        let mut command = world.zeg();
        command.args(["segment", "images/2007_000000.jpg", "-o", "maps"]);
        command.args(["--model", "mini", "--classes", classes, "--write", kinds]);
        success(command.args(more));
    };
    let map = |class: usize| world.path(&format!("maps/2007_000000.probability.{class:03}.png"));
    run("red,blue,green", "labels,probabilities", &[]);
    assert!(map(2).exists());
    // A file that no run wrote is left alone.
    fs::write(map(3), "mine").unwrap();
    run("red,blue", "probabilities", &["--overwrite"]);
    assert!(map(1).exists() && !map(2).exists() && map(3).exists());
    // Another format of the earlier run is left alone, too.
    assert!(world.path("maps/2007_000000.png").exists());
}

#[path = "resume/parts.rs"]
mod parts;
#[cfg(unix)]
#[path = "resume/signals.rs"]
mod signals;

#[test]
fn a_label_map_goes_from_standard_input_to_standard_output() {
    let world = world();
    let options = ["--model", "mini", "--classes", "red,blue"];
    success(
        world
            .zeg()
            .args(["segment", "images", "-o", "out"])
            .args(options),
    );
    let image = fs::read(world.path("images/2007_000001.jpg")).unwrap();
    let mut piped = world.zeg();
    piped
        .args(["segment", "-", "-o", "-", "--explain"])
        .args(options);
    piped.args(["--json", "piped.json"]);
    let output = piped.write_stdin(image.clone()).assert().success();
    let labels = fs::read(world.path("out/2007_000001.png")).unwrap();
    assert!(
        output.get_output().stdout == labels,
        "only the label map is on standard output"
    );
    let json: Value = serde_json::from_slice(&fs::read(world.path("piped.json")).unwrap()).unwrap();
    assert_eq!(json["images"][0]["image"], "stdin");

    let mut named = world.zeg();
    named.args(["segment", "-", "-o", "named"]).args(options);
    named.write_stdin(image).assert().success();
    assert_eq!(fs::read(world.path("named/stdin.png")).unwrap(), labels);
    for wrong in [
        &["segment", "images", "-o", "-"][..],
        &[
            "segment",
            "images/2007_000001.jpg",
            "-o",
            "-",
            "--json",
            "-",
        ],
        &[
            "segment",
            "images/2007_000001.jpg",
            "-o",
            "-",
            "--write",
            "coco",
        ],
        &["segment", "images/2007_000001.jpg", "-o", "-", "--resume"],
    ] {
        failure(world.zeg().args(wrong).args(options));
    }
}

#[test]
fn small_regions_of_a_label_map_are_absorbed_on_request() {
    let world = world();
    let options = [
        "--model",
        "mini",
        "--classes",
        "red,blue,green",
        "--threshold",
        "0",
    ];
    let labels = |output: &str, more: &[&str]| {
        let mut command = world.zeg();
        command
            .args(["segment", "images", "-o", output])
            .args(options);
        success(command.args(more));
        zeg::image::decode_labels(&world.path(&format!("{output}/2007_000001.png"))).unwrap()
    };
    let plain = labels("plain", &[]);
    assert_eq!(labels("one", &["--min-area", "1"]), plain);
    let whole = labels("whole", &["--min-area", "100000"]);
    let first = whole.labels()[0];
    assert!(whole.labels().iter().all(|&label| label == first));
    assert!(plain.labels().contains(&first));

    // Explained are the regions of the label map that is written.
    let explain = [
        "--min-area",
        "100000",
        "--explain",
        "2",
        "--json",
        "explained.json",
    ];
    assert_eq!(labels("explained", &explain), whole);
    let json = fs::read(world.path("explained.json")).unwrap();
    let json: Value = serde_json::from_slice(&json).unwrap();
    for image in json["images"].as_array().unwrap() {
        let regions = image["regions"].as_array().unwrap();
        assert_eq!(regions.len(), 1);
        assert_eq!(regions[0]["share"], 1.0);
        assert_eq!(regions[0]["class"], image["classes"][0]["name"]);
    }
}

/// Returns `zeg eval` of MODEL on the four training images.
fn eval(world: &World, more: &[&str]) -> Command {
    let mut command = world.zeg();
    command.args(["eval", "run/model.safetensors", "--data", "VOC2012"]);
    command.args(["--split", "train"]).args(more);
    command
}

fn record(world: &World, folder: &str) -> Value {
    let path = world.path(folder).join("evaluation.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn an_evaluation_goes_on_after_a_damaged_image() {
    let world = World::new();
    world.train("run").assert().success();
    success(&mut eval(
        &world,
        &["-o", "whole", "--write-labels", "labels"],
    ));
    let image = world.image("2007_000002");
    let intact = fs::read(&image).unwrap();
    fs::write(&image, &intact[..intact.len() / 2]).unwrap();

    let text = failure(&mut eval(
        &world,
        &["-o", "scores", "--write-labels", "maps"],
    ));
    assert!(
        text.contains("2007_000002") && text.contains("--resume"),
        "{text}"
    );
    assert!(!world.path("scores/evaluation.json").exists());
    let text = failure(&mut eval(&world, &["-o", "scores"]));
    assert!(
        text.contains("earlier run") && text.contains("--overwrite"),
        "{text}"
    );
    let other = [
        "-o",
        "scores",
        "--resume",
        "--write-labels",
        "maps",
        "--short-side",
        "40",
    ];
    let text = failure(&mut eval(&world, &other));
    assert!(text.contains("short-side was 32 and is 40"), "{text}");

    fs::write(&image, &intact).unwrap();
    let resume = ["-o", "scores", "--resume", "--write-labels", "maps"];
    let text = success(&mut eval(&world, &resume));
    assert!(text.contains("2 of 4 images are scored and kept"), "{text}");
    let (resumed, whole) = (record(&world, "scores"), record(&world, "whole"));
    for key in [
        "confusion",
        "image_scores",
        "images",
        "gallery",
        "inference",
        "classes",
    ] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    assert_same(&world, "labels", "maps");
    let text = success(&mut eval(&world, &resume));
    assert!(text.contains("complete already"), "{text}");
}

#[test]
fn damaged_images_are_left_out_of_the_scores_and_named_on_request() {
    let world = World::new();
    world.train("run").assert().success();
    let image = world.image("2007_000002");
    let intact = fs::read(&image).unwrap();
    fs::write(&image, &intact[..intact.len() / 2]).unwrap();
    let skip = ["-o", "scores", "--on-bad-image", "skip"];
    let text = success(&mut eval(&world, &skip));
    assert!(
        text.contains("warning: image 2007_000002 is skipped"),
        "{text}"
    );
    assert!(text.contains("1 of 4 images are skipped"), "{text}");
    let record = record(&world, "scores");
    assert_eq!(record["images"], 3);
    assert_eq!(record["skipped"][0]["id"], "2007_000002");
    assert!(
        record["skipped"][0]["reason"]
            .as_str()
            .unwrap()
            .contains(".jpg")
    );
    let shown = record["gallery"].as_array().unwrap();
    assert_eq!(shown.len(), 3, "the gallery shows the scored images");

    // Skipped images are finished only for somebody who skips them again, and is told again.
    let text = success(&mut eval(&world, &[&skip[..], &["--resume"]].concat()));
    assert!(text.contains("complete already"), "{text}");
    assert!(
        text.contains("warning: image 2007_000002 is skipped") && text.contains("1 of 4 images"),
        "{text}"
    );
    let text = failure(&mut eval(&world, &["-o", "scores", "--resume"]));
    assert!(text.contains("2007_000002"), "{text}");

    // Without a folder there is nothing to go on with.
    eval(&world, &["--resume"]).assert().code(2);
    for id in ["2007_000000", "2007_000001", "2007_000003"] {
        fs::write(world.image(id), "no image").unwrap();
    }
    let text = failure(&mut eval(&world, &["--on-bad-image", "skip"]));
    assert!(text.contains("none of the 4 images"), "{text}");
}

/// Scores of labels that were replaced since are neither kept beside those of the new labels nor taken for them.
#[test]
fn a_resumed_evaluation_is_of_the_labels_that_are_there() {
    let world = World::new();
    world.train("run").assert().success();
    let image = world.image("2007_000002");
    let intact = fs::read(&image).unwrap();
    fs::write(&image, &intact[..intact.len() / 2]).unwrap();
    failure(&mut eval(&world, &["-o", "scores"]));
    fs::write(&image, intact).unwrap();
    let replace = |id: &str| fs::copy(world.labels("2007_000003"), world.labels(id)).unwrap();
    replace("2007_000000");
    let text = success(&mut eval(&world, &["-o", "scores", "--resume"]));
    assert!(text.contains("the files of 1 image have changed"), "{text}");
    assert!(text.contains("1 of 4 images are scored and kept"), "{text}");
    success(&mut eval(&world, &["-o", "whole"]));
    let (resumed, whole) = (record(&world, "scores"), record(&world, "whole"));
    for key in ["confusion", "image_scores", "fingerprint"] {
        assert_eq!(resumed[key], whole[key], "{key}");
    }
    // A record does not hold the label maps.
    let maps = ["-o", "whole", "--resume", "--write-labels", "maps"];
    let text = failure(&mut eval(&world, &maps));
    assert!(
        text.contains("2007_000000.png: the label map is missing") && text.contains("--overwrite"),
        "{text}"
    );
    replace("2007_000001");
    let text = failure(&mut eval(&world, &["-o", "whole", "--resume"]));
    assert!(text.contains("images: file contents 4 ("), "{text}");
}
