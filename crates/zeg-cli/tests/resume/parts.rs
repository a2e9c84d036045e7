//! Runs that are divided with `--shard`, and their merged results.

use super::*;

/// Runs all parts of a divided run.
fn parts(world: &World, count: usize, more: &[&str]) {
    for index in 1..=count {
        let (shard, folder) = (format!("{index}/{count}"), format!("part-{index}"));
        let options = [&["--shard", &shard], more].concat();
        success(&mut segment(world, &["images"], &folder, &options));
    }
}

/// Returns `zeg segment merge`.
fn merge(world: &World, parts: &[&str], output: &str, more: &[&str]) -> Command {
    let mut command = world.zeg();
    command.args(["segment", "merge"]).args(parts);
    command.args(["-o", output]).args(more);
    command
}

#[test]
fn merged_parts_are_what_one_process_writes() {
    let world = world();
    let more = ["--background", "green", "--explain", "2"];
    let whole = [&more[..], &["--json", "whole.json"]].concat();
    let output = segment(&world, &["images"], "whole", &whole)
        .output()
        .unwrap();
    assert!(output.status.success());
    parts(&world, 3, &more);
    let folders = ["part-3", "part-1", "part-2"];
    let merged = merge(&world, &folders, "merged", &["--json", "merged.json"]).output();
    let merged = merged.unwrap();
    assert!(merged.status.success(), "{merged:?}");
    assert_same(&world, "whole", "merged");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert_eq!(
        text(merged.stdout).replace("merged/", "whole/"),
        text(output.stdout)
    );
    let json = fs::read_to_string(world.path("merged.json")).unwrap();
    let json = json
        .replace("merged/", "whole/")
        .replace("segment merge", "segment");
    assert_eq!(json, fs::read_to_string(world.path("whole.json")).unwrap());

    // The journal is that of one process, too: all images are finished.
    let resume = [&more[..], &["--resume"]].concat();
    let text = success(&mut segment(&world, &["images"], "merged", &resume));
    assert!(text.contains("4 of 4 images are finished"), "{text}");
    let text = failure(&mut merge(&world, &folders, "merged", &[]));
    assert!(
        text.contains("exists already") && text.contains("--overwrite"),
        "{text}"
    );
    success(&mut merge(&world, &folders, "merged", &["--overwrite"]));
    assert_same(&world, "whole", "merged");
}

#[test]
fn parts_that_make_no_whole_are_not_merged() {
    let world = world();
    parts(&world, 3, &[]);
    let refused = |parts: &[&str]| failure(&mut merge(&world, parts, "merged", &[]));
    assert!(refused(&["part-1", "part-3"]).contains("part 2 of 3 is missing"));
    assert!(refused(&["part-1", "part-2"]).contains("part 3 of 3 is missing"));
    assert!(refused(&["part-1", "./part-1", "part-2", "part-3"]).contains("is named twice"));
    assert!(refused(&["part-1", "images"]).contains("images: holds no part"));
    let onto = failure(&mut merge(
        &world,
        &["part-1"],
        "./part-1",
        &["--overwrite"],
    ));
    assert!(onto.contains("-o is the folder of this part"), "{onto}");

    // Other settings, and other images.
    let other = ["--shard", "2/3", "--threshold", "0.9"];
    success(&mut segment(&world, &["images"], "other", &other));
    let text = refused(&["part-1", "other", "part-3"]);
    assert!(text.contains("inference.threshold was"), "{text}");
    fs::copy(world.image("2007_000005"), world.path("images/new.jpg")).unwrap();
    success(&mut segment(
        &world,
        &["images"],
        "grown",
        &["--shard", "2/3"],
    ));
    let text = refused(&["part-1", "grown", "part-3"]);
    assert!(text.contains("different lists of images"), "{text}");
    success(&mut segment(
        &world,
        &["images"],
        "half",
        &["--shard", "1/2"],
    ));
    assert!(refused(&["half", "part-2"]).contains("part 2 of 3"));

    // A result that is no longer what the part has written.
    fs::write(world.path("part-2/2007_000001.png"), "edited").unwrap();
    let text = refused(&["part-1", "part-2", "part-3"]);
    assert!(
        text.contains("part-2/2007_000001.png: was changed"),
        "{text}"
    );
    let text = failure(&mut segment(
        &world,
        &["images"],
        "none",
        &["--shard", "6/6"],
    ));
    assert!(text.contains("this part has none"), "{text}");
    let mut wrong = segment(&world, &["images"], "x", &["--shard", "4/3"]);
    let text = common::failure_with(2, &mut wrong);
    assert!(text.contains("parts are counted from 1"), "{text}");
}

#[test]
fn an_unfinished_part_is_named_and_goes_on() {
    let world = world();
    fs::write(world.path("images/2007_000002.jpg"), "no image").unwrap();
    let part = |shard: &str, folder: &str, more: &[&str]| {
        let options = [&["--shard", shard], more].concat();
        segment(&world, &["images"], folder, &options)
    };
    success(&mut part("2/2", "part-2", &[]));
    failure(&mut part("1/2", "part-1", &[]));
    let folders = ["part-1", "part-2"];
    let text = failure(&mut merge(&world, &folders, "merged", &[]));
    assert!(
        text.contains("2007_000002.jpg") && text.contains("--resume"),
        "{text}"
    );
    let text = success(&mut merge(&world, &folders, "some", &["--skip-missing"]));
    assert!(
        text.contains("warning") && text.contains("is left out"),
        "{text}"
    );
    let three = [
        "images/2007_000000.jpg",
        "images/2007_000001.jpg",
        "images/2007_000003.jpg",
    ];
    success(&mut segment(&world, &three, "three", &[]));
    let coco =
        |folder: &str| fs::read_to_string(world.path(&format!("{folder}/coco.json"))).unwrap();
    assert_eq!(coco("some"), coco("three"));

    fs::copy(
        world.image("2007_000002"),
        world.path("images/2007_000002.jpg"),
    )
    .unwrap();
    let text = success(&mut part("1/2", "part-1", &["--resume"]));
    assert!(text.contains("1 of 2 images are finished"), "{text}");
    success(&mut merge(&world, &folders, "merged", &[]));
    success(&mut segment(&world, &["images"], "whole", &[]));
    assert_same(&world, "whole", "merged");
}
