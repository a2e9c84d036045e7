//! JSON is one dialect: every command prints one document that its published schema describes, failures included.
#![allow(clippy::unwrap_used)] // in tests

mod common;
#[path = "json/validate.rs"]
mod validate;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::Path,
};

use assert_cmd::Command;
use common::{World, write_image_tower, write_tensors};
use serde_json::Value;

/// Commands that another test validates: `mini` runs the quickstart, and `serve` the server.
const ELSEWHERE: [&str; 2] = ["quickstart", "serve"];

/// The schemas of all commands, and the commands whose output was validated.
struct Checked {
    schemas: BTreeMap<&'static str, Value>,
    done: BTreeSet<&'static str>,
}

impl Checked {
    fn new() -> Self {
        let outputs = zeg_cli::schema::outputs().into_iter();
        Self {
            schemas: outputs
                .map(|(name, schema)| (name, schema.to_value()))
                .collect(),
            done: BTreeSet::new(),
        }
    }

    /// Runs a command with `--json -`, validates its document and returns it.
    fn run(&mut self, name: &str, code: i32, command: &mut Command) -> Value {
        let output = command.args(["--json", "-"]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{name}: {told}");
        // Anything beside one document does not parse.
        let document: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{name}: {error}: {told}"));
        let (name, schema) = self.schemas.get_key_value(name).unwrap();
        assert_eq!(
            validate::faults(schema, &document),
            None,
            "{name}: {document}"
        );
        assert_eq!(document["command"], *name);
        self.done.insert(*name);
        document
    }
}

fn zeg(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.zeg();
    command.args(arguments);
    command
}

#[test]
fn every_command_prints_the_document_of_its_schema() {
    let world = World::new();
    let mut checked = Checked::new();
    train_and_score(&world, &mut checked);
    segment(&world, &mut checked);
    suites(&world, &mut checked);
    data(&world, &mut checked);
    weights(&world, &mut checked);
    machine(&world, &mut checked);
    let all = checked.schemas.keys().copied();
    let left: Vec<&str> = all
        .filter(|name| !checked.done.contains(name) && !ELSEWHERE.contains(name))
        .collect();
    assert!(left.is_empty(), "commands without a test: {left:?}");
}

fn train_and_score(world: &World, checked: &mut Checked) {
    let trained = checked.run("train", 0, &mut world.train("run"));
    assert_eq!(trained["model"], "run/model.safetensors");
    assert_eq!(trained["finished"], true);
    assert_eq!(trained["step"], 6);
    assert_eq!(trained["first_step"], 0);
    let seed = ["--set", "training.seed=1"];
    world.train("seed-1").args(seed).assert().success();
    fs::write(world.path("broken.safetensors"), "no weights").unwrap();

    let data = ["--data", "VOC2012", "--split", "train"];
    let (a, b) = ("run/model.safetensors", "seed-1/model.safetensors");
    let eval = |models: &[&str], more: &[&str]| {
        let mut command = zeg(world, &["eval"]);
        command.args(models).args(data).args(more);
        command
    };
    let one = checked.run("eval", 0, &mut eval(&[a], &[]));
    assert!(one["p_acc"].is_number(), "{one}");
    let several = checked.run(
        "eval",
        1,
        &mut eval(&[a, "broken.safetensors", b], &["-o", "s"]),
    );
    assert_eq!(several["models"].as_array().unwrap().len(), 2);
    assert_eq!(several["failed"][0]["path"], "broken.safetensors");
    assert_eq!(several["records"].as_array().unwrap().len(), 2);
    let swept = checked.run("eval", 0, &mut eval(&[a], &["--seen-offsets", "0,0.1"]));
    assert_eq!(swept["offsets"].as_array().unwrap().len(), 2);

    for (shard, folder) in [("1/2", "part-1"), ("2/2", "part-2")] {
        eval(&[a], &["--shard", shard, "-o", folder])
            .assert()
            .success();
    }
    let merge = ["eval", "merge", "part-1", "part-2", "-o", "merged"];
    let merged = checked.run("eval merge", 0, &mut zeg(world, &merge));
    assert_eq!(merged["images"], 4);
    let report = checked.run("report", 0, &mut zeg(world, &["report", "s", "-o", "page"]));
    assert_eq!(report["files"].as_array().unwrap().len(), 3);
    assert_eq!(report["evaluations"].as_array().unwrap().len(), 2);
}

/// `segment` lists what it wrote and what failed, in one document.
fn segment(world: &World, checked: &mut Checked) {
    let bytes = fs::read(world.image("2007_000001")).unwrap();
    fs::create_dir(world.path("images")).unwrap();
    for (name, length) in [
        ("a", bytes.len()),
        ("b", bytes.len() / 2),
        ("c", bytes.len()),
    ] {
        fs::write(world.path(&format!("images/{name}.jpg")), &bytes[..length]).unwrap();
    }
    let mut command = zeg(
        world,
        &["segment", "images", "--model", "mini", "-o", "out"],
    );
    command.args(["--classes", "red,blue", "--write", "labels,coco,summary"]);
    let result = checked.run("segment", 1, command.arg("--explain=2"));
    let names = |list: &str, key: &str| -> Vec<String> {
        let list = result[list].as_array().unwrap().iter();
        list.map(|entry| entry[key].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("images", "image"), ["a.jpg", "c.jpg"]);
    assert_eq!(names("failed", "path"), ["images/b.jpg"]);
    assert!(!names("failed", "message")[0].is_empty());
    let files = result["files"].as_array().unwrap();
    let files: BTreeSet<&str> = files.iter().map(|file| file.as_str().unwrap()).collect();
    let made = fs::read_dir(world.path("out")).unwrap();
    let made = made.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
    // The journal is for --resume alone.
    let made = made.filter(|name| !name.starts_with('.'));
    let made: Vec<String> = made.map(|name| format!("out/{name}")).collect();
    assert_eq!(files, made.iter().map(String::as_str).collect());
    assert!(files.contains("out/coco.json") && files.contains("out/a.summary.json"));

    fs::remove_file(world.path("images/b.jpg")).unwrap();
    for (shard, folder) in [("1/2", "a-part"), ("2/2", "b-part")] {
        let mut command = zeg(
            world,
            &["segment", "images", "--model", "mini", "-o", folder],
        );
        command.args([
            "--classes",
            "red,blue",
            "--write",
            "labels,coco",
            "--shard",
            shard,
        ]);
        command.assert().success();
    }
    let merge = ["segment", "merge", "a-part", "b-part", "-o", "both"];
    let merged = checked.run("segment merge", 0, &mut zeg(world, &merge));
    assert_eq!(merged["images"].as_array().unwrap().len(), 2);

    let mut maps = zeg(world, &["visualize", "images/a.jpg", "--model", "mini"]);
    let maps = maps.args(["--classes", "red,blue", "-o", "maps"]);
    let maps = checked.run("visualize", 0, maps);
    assert_eq!(maps["classes"].as_array().unwrap().len(), 2);
}

fn suites(world: &World, checked: &mut Checked) {
    let suite = "title = \"One row\"\nbase = \"experiment.toml\"\nseeds = [0]\nset = [\"training.steps=3\"]\n\
                 [[rows]]\nname = \"only\"\n";
    fs::write(world.path("suite.toml"), suite).unwrap();
    let ablate = |more: &[&str]| {
        let mut command = zeg(
            world,
            &["ablate", "suite.toml", "--data", "VOC2012", "-o", "suite"],
        );
        command.args([
            "--weights",
            "tower.safetensors",
            "--text",
            "text.safetensors",
        ]);
        command.args(more);
        command
    };
    let runs = checked.run("ablate", 0, &mut ablate(&["--dry-run"]));
    assert_eq!(runs["runs"][0]["state"], "left");
    let table = checked.run("ablate", 0, &mut ablate(&[]));
    assert_eq!(table["rows"][0]["scores"]["runs"], 1);
    let pretrain = [
        "pretrain",
        "-o",
        "miniclip.safetensors",
        "--steps",
        "2",
        "--batch",
        "4",
    ];
    let pretrained = checked.run("pretrain", 0, &mut zeg(world, &pretrain));
    for file in ["weights", "log", "manifest"] {
        assert!(
            world.path(pretrained[file].as_str().unwrap()).is_file(),
            "{file}"
        );
    }
}

fn data(world: &World, checked: &mut Checked) {
    let list = checked.run("data list", 0, &mut zeg(world, &["data", "list"]));
    assert!(list["datasets"].as_array().unwrap().len() > 3);
    let mut doctor = zeg(
        world,
        &[
            "data", "doctor", "voc12", "--data", "VOC2012", "--split", "train",
        ],
    );
    let found = checked.run("data doctor", 0, &mut doctor);
    assert_eq!(found["splits"][0]["images"], 4);
    let download =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../zeg-data/tests/golden/prepare/voc");
    let prepare = |more: &[&str]| {
        let mut command = zeg(world, &["data", "prepare", "voc12", "-o", "voc"]);
        command.arg("--from").arg(&download).args(more);
        command
    };
    let plan = checked.run("data prepare", 0, &mut prepare(&["--dry-run"]));
    assert!(plan["files"].as_u64().unwrap() > 0 && !world.path("voc").exists());
    let outcome = checked.run("data prepare", 0, &mut prepare(&[]));
    assert_eq!(outcome["failed"], Value::Array(Vec::new()));
}

fn weights(world: &World, checked: &mut Checked) {
    let models = checked.run("models", 0, &mut zeg(world, &["models"]));
    assert!(models["models"].as_array().unwrap().len() > 3);
    let tensors = [("a".to_owned(), vec![2], vec![1.0, 2.0])];
    let folder = world.path("cache/models/tiny");
    fs::create_dir_all(&folder).unwrap();
    write_tensors(&folder.join("model.safetensors"), &tensors, HashMap::new());
    let size = fs::metadata(folder.join("model.safetensors"))
        .unwrap()
        .len();
    let manifest = serde_json::json!({ "complete": true, "files": [{
        "name": "model.safetensors", "size": size, "sha256": "0".repeat(64), "proof": "first-use",
        "source": "https://host.test/model.safetensors", "time": "2026-11-20T19:26:22Z",
    }]});
    fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    let list = "[[model]]\nname = 'tiny'\nabout = 'two numbers'\nfamily = 'clip'\nformat = 'safetensors'\n\
                licence = 'MIT'\n[[model.file]]\nname = 'model.safetensors'\n\
                sources = ['https://host.test/model.safetensors']\n";
    fs::write(world.path("models.toml"), list).unwrap();
    let mut pull = zeg(world, &["pull", "tiny"]);
    let pulled = checked.run("pull", 0, pull.env("ZEG_MODELS", world.path("models.toml")));
    assert_eq!(pulled["models"][0]["name"], "tiny");
    // One model that is not there does not stop the others.
    let mut pull = zeg(world, &["pull", "clip-vit-b-16", "tiny", "--offline"]);
    let pulled = checked.run("pull", 1, pull.env("ZEG_MODELS", world.path("models.toml")));
    assert_eq!(pulled["models"][0]["name"], "tiny");
    assert_eq!(pulled["failed"][0]["path"], "clip-vit-b-16");

    write_image_tower(&world.path("clip.safetensors"));
    for file in [
        "experiment.toml",
        "run/model.safetensors",
        "clip.safetensors",
    ] {
        checked.run("info", 0, &mut zeg(world, &["info", file]));
    }
    let embed = [
        "embed",
        "--model",
        "mini",
        "--classes",
        "red, blue|green",
        "-o",
        "table.safetensors",
    ];
    let table = checked.run("embed", 0, &mut zeg(world, &embed));
    assert_eq!(table["classes"][0], "red");
    let info = checked.run("info", 0, &mut zeg(world, &["info", "table.safetensors"]));
    assert_eq!(info["rows"], 2);
    assert_eq!(info["names"][0], "red");
    let import = ["import", "clip.safetensors", "-o", "imported.safetensors"];
    let imported = checked.run("import", 0, &mut zeg(world, &import));
    assert_eq!(
        imported["written"]["architecture"]["vision"]["embed_dim"],
        16
    );
}

fn machine(world: &World, checked: &mut Checked) {
    let bench = ["bench", "experiment.toml", "--runs", "1"];
    checked.run("bench", 0, &mut zeg(world, &bench));
    checked.run("check", 0, &mut zeg(world, &["check", "--size", "small"]));
    let script = checked.run("completions", 0, &mut zeg(world, &["completions", "bash"]));
    assert!(script["script"].as_str().unwrap().contains("segment"));
}

/// Returns the document of a command that fails, validated.
fn error_of(world: &World, code: i32, arguments: &[&str]) -> Value {
    let output = zeg(world, arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains("error: "), "{told}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let schema = zeg_cli::schema::error().to_value();
    assert_eq!(validate::faults(&schema, &document), None, "{document}");
    assert_eq!(document["error"]["exit_code"], code);
    document
}

#[test]
fn a_command_that_fails_leaves_an_error_as_json() {
    let world = World::new();
    let missing = error_of(&world, 1, &["info", "no-such-file.safetensors", "--json"]);
    assert_eq!(missing["command"], "info");
    assert!(
        missing["error"]["message"]
            .as_str()
            .unwrap()
            .contains("no-such-file")
    );
    let offline = error_of(&world, 1, &["pull", "clip-vit-b-16", "--json", "-"]);
    let hint = offline["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("ZEG_OFFLINE"), "{offline}");
    let wrong = error_of(&world, 2, &["data", "doctor", "--json"]);
    assert_eq!(wrong["command"], "data doctor");
    let message = wrong["error"]["message"].as_str().unwrap();
    assert!(message.contains("<DATASET>"), "{message}");
    let unknown = error_of(&world, 2, &["info", "a.toml", "--json", "--sett", "x=1"]);
    let hint = unknown["error"]["hint"].as_str().unwrap();
    assert!(hint.contains("--set"), "{unknown}");

    // In a file as well; the message stands on standard error.
    let mut command = zeg(
        &world,
        &["info", "no-such-file.safetensors", "--json", "error.json"],
    );
    let text = common::failure(&mut command);
    assert!(text.starts_with("error: "), "{text}");
    let document: Value =
        serde_json::from_slice(&fs::read(world.path("error.json")).unwrap()).unwrap();
    assert_eq!(document["error"]["message"], missing["error"]["message"]);
}

#[test]
fn verbose_and_quiet_mean_the_same_everywhere() {
    let world = World::new();
    for command in [
        &["data", "list"][..],
        &["info", "experiment.toml"],
        &["models"],
    ] {
        let said = |flag: &str| {
            let output = zeg(&world, command).arg(flag).output().unwrap();
            assert!(output.status.success(), "{command:?} {flag}");
            String::from_utf8(output.stderr).unwrap()
        };
        for flag in ["-q", "--quiet"] {
            assert_eq!(said(flag), "", "{command:?}");
        }
        for flag in ["-v", "--verbose"] {
            let text = said(flag);
            assert!(
                text.starts_with("zeg ") && text.contains("\ntook "),
                "{text}"
            );
        }
    }
    let both = zeg(&world, &["models", "-q", "-v"]).output().unwrap();
    assert_eq!(both.status.code(), Some(2));
}
