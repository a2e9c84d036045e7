//! `zeg segment` with plain CLIP weights, without training, and all files that it writes.
#![allow(clippy::unwrap_used)] // in tests
#![allow(clippy::float_cmp)] // shares of pixels are compared that are counts of the same image

mod common;

use std::path::Path;

use assert_cmd::Command;
use common::{World, failure, failure_with, write_image_tower, write_plain_clip};
use serde_json::Value;
use zeg::image::{RgbImage, decode_labels};

/// Returns a world that holds plain CLIP weights.
fn world() -> World {
    let world = World::new();
    write_plain_clip(&world.path("clip.safetensors"));
    world
}

/// Returns `zeg segment` with an image of the world.
fn segment(world: &World, output: &str, classes: &str) -> Command {
    let mut command = world.zeg();
    command
        .args(["segment", "VOC2012/JPEGImages/2007_000000.jpg"])
        .args([
            "--model",
            "clip.safetensors",
            "--classes",
            classes,
            "-o",
            output,
        ])
        .args(["--short-side", "32", "--crop", "32", "--stride", "16"]);
    command
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Runs `zeg segment --json` and returns the entries of its images.
fn found(command: &mut Command) -> Value {
    let output = command.arg("--json").assert().success();
    let document: Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(document["command"], "segment");
    document["images"].clone()
}

#[test]
fn every_method_labels_every_pixel() {
    let world = world();
    let mut maps = Vec::new();
    for method in [
        "clip",
        "maskclip",
        "sclip",
        "naclip",
        "clearclip",
        "sc-clip",
        "pearl",
        "combined",
    ] {
        let found =
            found(segment(&world, method, "dog, cat|kitten, sofa").args(["--method", method]));
        assert_eq!(found[0]["width"], 48);
        assert_eq!(found[0]["unlabelled"], 0.0, "{found}");
        let shares: f64 = found[0]["classes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|class| class["share"].as_f64().unwrap())
            .sum();
        assert!((shares - 1.0).abs() < 1e-6, "{found}");
        maps.push(decode_labels(&world.path(&format!("{method}/2007_000000.png"))).unwrap());
    }
    assert!(
        maps.iter()
            .all(|map| map.labels().iter().all(|&label| label < 3))
    );
}

#[test]
fn the_second_run_encodes_no_class_name() {
    let world = world();
    let first = found(&mut segment(&world, "first", "dog, cat"));
    let entries = || {
        std::fs::read_dir(world.path("cache/embeddings"))
            .unwrap()
            .count()
    };
    assert_eq!(entries(), 2);
    let second = found(&mut segment(&world, "second", "dog, cat"));
    assert_eq!(first[0]["classes"], second[0]["classes"]);
    assert_eq!(entries(), 2);
    found(&mut segment(&world, "third", "dog, cat, horse"));
    assert_eq!(entries(), 3);
    found(segment(&world, "fourth", "dog, cat, cow").arg("--no-cache"));
    assert_eq!(entries(), 3);
    found(segment(&world, "fifth", "dog").args(["--templates", "name-only"]));
    assert_eq!(entries(), 4);
}

#[test]
fn all_kinds_of_files_are_written_and_none_is_replaced_unasked() {
    let world = world();
    let kinds = "labels,overlay,summary,probabilities,probabilities-npy,coco,coco-polygons,label-studio,\
                 label-studio-polygons,cvat,cvat-polygons,yolo,html";
    let run = || {
        let mut command = segment(&world, "out", "dog, cat, <b>&sofa\"");
        command.args(["--write", kinds, "--explain", "2"]);
        command
    };
    let found = found(&mut run());
    for file in [
        "2007_000000.png",
        "2007_000000.overlay.png",
        "2007_000000.summary.json",
        "2007_000000.probability.npy",
        "coco.json",
        "coco-polygons.json",
        "label-studio.json",
        "label-studio.xml",
        "label-studio-polygons.json",
        "cvat.xml",
        "cvat-polygons.xml",
        "data.yaml",
        "labels/2007_000000.txt",
        "index.html",
    ] {
        assert!(world.path(&format!("out/{file}")).is_file(), "{file}");
    }
    let regions = found[0]["regions"].as_array().unwrap();
    assert!(!regions.is_empty());
    for region in regions {
        let candidates = region["candidates"].as_array().unwrap();
        assert_eq!(candidates.len(), 2);
        assert!(candidates[0]["score"].as_f64() >= candidates[1]["score"].as_f64());
    }
    let coco = json(&world.path("out/coco.json"));
    assert_eq!(coco["images"][0]["file_name"], "2007_000000.jpg");
    assert_eq!(coco["categories"][2]["name"], "<b>&sofa\"");
    let page = std::fs::read_to_string(world.path("out/index.html")).unwrap();
    assert!(page.contains("2007_000000") && !page.contains("<b>&sofa"));

    let text = failure(&mut run());
    assert!(
        text.contains("exists") && text.contains("--overwrite"),
        "{text}"
    );
    run().arg("--overwrite").assert().success();
}

#[test]
fn pixels_of_background_classes_stay_unlabelled() {
    let world = world();
    let plain = found(&mut segment(&world, "plain", "dog, wall"));
    let share = |found: &Value, name: &str| {
        let classes = found[0]["classes"].as_array().unwrap().clone();
        let class = classes.iter().find(|class| class["name"] == name);
        class.map_or(0.0, |class| class["share"].as_f64().unwrap())
    };
    let with = found(segment(&world, "with", "dog").args(["--background", "wall"]));
    assert_eq!(share(&with, "wall"), 0.0);
    assert_eq!(share(&with, "dog"), share(&plain, "dog"));
    assert_eq!(
        with[0]["unlabelled"].as_f64().unwrap(),
        share(&plain, "wall")
    );
    let text = failure_with(
        2,
        segment(&world, "bad", "dog").args(["--background", "Dog"]),
    );
    assert!(
        text.contains("--background") && text.contains("Dog"),
        "{text}"
    );
}

#[test]
fn a_damaged_image_does_not_stop_the_others_of_its_folder() {
    let world = world();
    std::fs::create_dir_all(world.path("images/deep")).unwrap();
    let image = RgbImage::from_fn(40, 30, |x, y| image_pixel(x * y));
    image.save(world.path("images/a.png")).unwrap();
    image.save(world.path("images/deep/b.png")).unwrap();
    std::fs::write(world.path("images/broken.jpg"), [0xff, 0xd8, 0xff, 0xe0, 1]).unwrap();
    let mut command = world.zeg();
    command
        .args([
            "segment",
            "images",
            "-r",
            "--model",
            "clip.safetensors",
            "--classes",
            "dog, cat",
        ])
        .args([
            "-o",
            "out",
            "--mode",
            "whole",
            "--short-side",
            "32",
            "--write",
            "labels,coco",
        ]);
    let text = failure(&mut command);
    assert!(
        text.contains("broken.jpg") && text.contains("1 of 3"),
        "{text}"
    );
    assert!(world.path("out/a.png").is_file());
    assert!(world.path("out/deep/b.png").is_file());
    let coco = json(&world.path("out/coco.json"));
    assert_eq!(coco["images"].as_array().unwrap().len(), 2);
}

fn image_pixel(value: u32) -> image::Rgb<u8> {
    image::Rgb([value as u8, (value >> 2) as u8, 90])
}

#[test]
fn unusual_images_and_class_names_are_handled() {
    let world = world();
    for (name, width, height) in [("dot.png", 1, 1), ("line.png", 30_000, 2)] {
        RgbImage::from_fn(width, height, |x, y| image_pixel(x + y))
            .save(world.path(name))
            .unwrap();
        let mut command = world.zeg();
        command
            .args([
                "segment",
                name,
                "--model",
                "clip.safetensors",
                "--classes",
                "كلب, cat, 犬",
            ])
            .args([
                "-o",
                "out",
                "--short-side",
                "32",
                "--crop",
                "32",
                "--stride",
                "32",
            ])
            .args([
                "--write",
                "labels,overlay,coco,cvat,label-studio,html",
                "--overwrite",
            ]);
        command.assert().success();
        let labels = decode_labels(&world.path(&format!("out/{name}"))).unwrap();
        assert_eq!(
            (labels.width(), labels.height()),
            (width as usize, height as usize)
        );
    }
    let text = failure_with(2, &mut segment(&world, "bad", &"x".repeat(10_000)));
    assert!(text.contains("10000") && text.len() < 600, "{text}");
}

#[test]
fn wrong_weights_and_options_are_explained() {
    let world = world();
    let with_model = |model: &str, more: &[&str]| {
        let mut command = world.zeg();
        command
            .args([
                "segment",
                "VOC2012/JPEGImages/2007_000000.jpg",
                "--classes",
                "dog",
                "-o",
                "out",
            ])
            .args(["--model", model])
            .args(more);
        failure(&mut command)
    };
    let text = with_model("clip-vit-b-16", &[]);
    assert!(text.contains("zeg pull clip-vit-b-16"), "{text}");
    let text = with_model("nothing.safetensors", &[]);
    assert!(text.contains("nothing.safetensors"), "{text}");
    let text = with_model(
        "clip.safetensors",
        &["--mode", "whole", "--short-side", "3000"],
    );
    assert!(text.contains("patches"), "{text}");
    write_image_tower(&world.path("half.safetensors"));
    let text = with_model("half.safetensors", &[]);
    assert!(
        text.contains("no text tower") && text.contains("--text"),
        "{text}"
    );
    world.train("run").assert().success();
    let text = with_model("run/model.safetensors", &["--method", "sclip"]);
    assert!(
        text.contains("--method") && text.contains("hint:"),
        "{text}"
    );
}

#[test]
fn weights_are_imported_and_described() {
    let world = world();
    let import = || {
        let mut command = world.zeg();
        command.args([
            "import",
            "clip.safetensors",
            "-o",
            "ours.safetensors",
            "--precision",
            "f16",
        ]);
        command
    };
    let output = import().assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    assert!(
        text.contains("OpenAI CLIP") && text.contains("read back"),
        "{text}"
    );
    let text = failure(&mut import());
    assert!(
        text.contains("exists") && text.contains("--overwrite"),
        "{text}"
    );
    let info = world
        .zeg()
        .args(["info", "ours.safetensors", "--json"])
        .assert()
        .success();
    let info: Value = serde_json::from_slice(&info.get_output().stdout).unwrap();
    assert_eq!(info["architecture"]["vision"]["patch"], 8);
    let direct = found(&mut segment(&world, "direct", "dog, cat"));
    let mut imported = world.zeg();
    imported
        .args([
            "segment",
            "VOC2012/JPEGImages/2007_000000.jpg",
            "--classes",
            "dog, cat",
            "-o",
            "imported",
        ])
        .args([
            "--model",
            "ours.safetensors",
            "--short-side",
            "32",
            "--crop",
            "32",
            "--stride",
            "16",
        ]);
    let imported = found(&mut imported);
    let confidence = |found: &Value| found[0]["confidence"].as_f64().unwrap();
    assert!((confidence(&direct) - confidence(&imported)).abs() < 0.05);
}

/// All commands share one cache of class embeddings.
#[test]
fn class_names_are_embedded_once_for_all_commands() {
    let world = world();
    let entries = || {
        let folder = std::fs::read_dir(world.path("cache/embeddings"));
        folder.map_or(0, Iterator::count)
    };
    let eval = |more: &[&str]| {
        let mut command = world.zeg();
        command.args(["eval", "clip.safetensors", "--data", "VOC2012"]);
        command.args(["--dataset", "voc12", "--class-list", "voc20"]);
        command.args(["--short-side", "32", "--crop", "32", "--stride", "16"]);
        command.args(["--json", "-"]).args(more);
        let output = command.assert().success().get_output().stdout.clone();
        serde_json::from_slice::<Value>(&output).unwrap()
    };
    let without = eval(&["--no-cache"]);
    assert_eq!(entries(), 0);
    let first = eval(&[]);
    assert_eq!(entries(), 20);
    assert_eq!(eval(&[]), first);
    assert_eq!(first, without);
    // `segment` finds the same class names and templates in the cache.
    let mut segment = world.zeg();
    segment.args(["segment", "VOC2012/JPEGImages/2007_000000.jpg", "-o", "out"]);
    segment.args(["--model", "clip.safetensors", "--classes", "voc20"]);
    segment.args(["--templates", "single"]).assert().success();
    assert_eq!(entries(), 20);
}

#[test]
fn weights_that_a_model_does_not_use_are_an_error() {
    let world = world();
    for unused in ["clip.safetensors", "missing.safetensors"] {
        for model in ["clip.safetensors", "mini"] {
            let mut command = world.zeg();
            command.args(["segment", "VOC2012/JPEGImages/2007_000000.jpg", "-o", "out"]);
            command.args(["--model", model, "--classes", "dog, cat"]);
            let text = failure(command.args(["--weights", unused]));
            assert!(
                text.contains("would not be used") && text.contains("leave --weights out"),
                "{model}, {unused}: {text}"
            );
        }
    }
}
