//! Evaluations in parts, and their sum.

use super::*;

#[test]
fn shards_add_up_to_the_whole() {
    let world = World::new();
    trained(&world, "run", 0);
    eval(&world, &[MODEL], &["-o", "whole", "--json", "whole.json"]);
    for shard in ["1/3", "2/3", "3/3"] {
        let folder = format!("part-{}", &shard[..1]);
        eval(&world, &[MODEL], &["--shard", shard, "-o", &folder]);
    }
    let merge = |parts: &[&str]| {
        let mut command = world.zeg();
        command.args(["eval", "merge"]).args(parts);
        command.args(["-o", "merged", "--json", "merged.json"]);
        command
    };
    let text = failure(&mut merge(&["part-1", "part-3"]));
    assert!(text.contains('2'), "the missing part is named: {text}");
    let text = failure(&mut merge(&["part-1", "part-2", "part-2", "part-3"]));
    assert!(text.contains('2'), "the repeated part is named: {text}");
    // The record of a part is no place for the whole one.
    let mut onto = world.zeg();
    onto.args(["eval", "merge", "part-1", "part-2", "part-3"]);
    let text = failure(onto.args(["-o", "./part-2", "--overwrite"]));
    assert!(text.contains("part-2: -o is the folder"), "{text}");
    merge(&["part-3", "part-1", "part-2"]).assert().success();

    let mut merged = json(&world, "merged.json");
    assert_eq!(merged["command"], "eval merge");
    merged["command"] = "eval".into();
    assert_eq!(merged, json(&world, "whole.json"));
    let (merged, whole) = (
        json(&world, "merged/evaluation.json"),
        json(&world, "whole/evaluation.json"),
    );
    for key in [
        "confusion",
        "images",
        "classes",
        "images",
        "model",
        "protocol",
    ] {
        assert_eq!(merged[key], whole[key], "{key}");
    }
    assert_eq!(whole["images"], 4);
    assert_eq!(whole["protocol"], "inductive");
    assert_eq!(whole["benchmark"]["official_images"], 1464);
    for entry in merged["gallery"].as_array().unwrap() {
        for file in ["image", "truth", "prediction", "error"] {
            let path = world.path("merged").join(entry[file].as_str().unwrap());
            assert!(path.is_file(), "{}", path.display());
        }
    }
    // An existing record is not replaced without --overwrite.
    let text = failure(&mut merge(&["part-3", "part-1", "part-2"]));
    assert!(text.contains("--overwrite"), "{text}");
}

/// The labels of one shard are read with another rule than those of the other.
#[test]
fn shards_that_were_read_differently_are_not_merged() {
    let world = World::new();
    trained(&world, "run", 0);
    let rule = |ignore: &str| {
        let text = OWN.replace("ignore = [255]", &format!("ignore = {ignore}"));
        fs::write(world.path("own.toml"), text).unwrap();
    };
    let score = |shard: &str, folder: &str, more: &[&str]| {
        let mut command = world.zeg();
        command.args(["eval", MODEL, "--dataset", "own.toml", "--data", "VOC2012"]);
        command.args(["--split", "all", "--shard", shard, "-o", folder]);
        command.args(more).assert().success();
    };
    let merge = |parts: [&str; 2], whole: &str| {
        let mut command = world.zeg();
        command.args(["eval", "merge"]).args(parts);
        command.args(["-o", whole]);
        command
    };
    rule("[255]");
    score("1/2", "first", &[]);
    score("2/2", "second", &[]);
    score("2/2", "limited", &["--limit", "5"]);
    merge(["first", "second"], "whole").assert().success();
    let text = failure(&mut merge(["first", "limited"], "wrong"));
    assert!(text.contains("differ in images: 6"), "{text}");
    rule("[254, 255]");
    score("2/2", "other", &[]);
    let text = failure(&mut merge(["first", "other"], "wrong"));
    assert!(
        text.contains("differ in label rule ignore: 255 and 254 255") && text.contains("hint:"),
        "{text}"
    );
    // A record of an earlier version has no fingerprint; it is merged with a warning.
    let path = world.path("other/evaluation.json");
    let mut old = json(&world, "other/evaluation.json");
    old.as_object_mut().unwrap().remove("fingerprint");
    fs::write(path, old.to_string()).unwrap();
    let output = merge(["first", "other"], "old").assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("could not be verified"), "{text}");
}
