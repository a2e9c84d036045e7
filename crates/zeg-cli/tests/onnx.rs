//! `zeg export` on MiniCLIP: the files are whole, the same every time, and combinations that do not fit are refused.
//!
//! `.ci/onnx` compares their scores with the program's in ONNX Runtime and OpenVINO.
#![allow(clippy::unwrap_used, clippy::expect_used)] // in tests

use std::{collections::HashSet, fs, path::Path};

use assert_cmd::Command;
use prost::Message as _;
use zeg_onnx::proto::{ModelProto, TensorProto};

fn zeg(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("zeg").unwrap();
    command.current_dir(folder).args(arguments);
    command
        .env("HOME", folder)
        .env("XDG_CACHE_HOME", folder.join("cache"));
    command
}

fn export(folder: &Path, name: &str, arguments: &[&str]) {
    zeg(folder, &["export", "mini", "-o", name])
        .args(arguments)
        .assert()
        .success();
}

fn open(path: &Path) -> ModelProto {
    ModelProto::decode(&*fs::read(path).unwrap()).unwrap()
}

/// Every input of a node is known before it: an input of the graph, a constant, or the output of an earlier node.
fn assert_whole(model: &ModelProto) {
    let graph = model.graph.as_ref().unwrap();
    let mut known: HashSet<&str> = HashSet::from([""]);
    known.extend(graph.input.iter().filter_map(|value| value.name.as_deref()));
    known.extend(
        graph
            .initializer
            .iter()
            .filter_map(|value| value.name.as_deref()),
    );
    let mut names = HashSet::new();
    for node in &graph.node {
        let name = node.name.as_deref().unwrap();
        assert!(names.insert(name), "two nodes are named {name}");
        for input in &node.input {
            assert!(known.contains(input.as_str()), "{name} reads {input}");
        }
        for output in &node.output {
            assert!(known.insert(output), "{output} is written twice");
        }
    }
    for output in &graph.output {
        assert!(known.contains(output.name.as_deref().unwrap()));
    }
}

fn ports(model: &ModelProto) -> [Vec<String>; 2] {
    let graph = model.graph.as_ref().unwrap();
    [&graph.input, &graph.output].map(|values| {
        let names = values.iter().map(|value| value.name.clone().unwrap());
        names.collect()
    })
}

fn metadata(model: &ModelProto, key: &str) -> Option<String> {
    let mut all = model.metadata_props.iter();
    let found = all.find(|entry| entry.key.as_deref() == Some(key))?;
    found.value.clone()
}

#[test]
fn an_export_states_what_a_program_needs_and_is_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    export(
        folder,
        "a.onnx",
        &["--method", "clearclip", "--threads", "1"],
    );
    export(
        folder,
        "b.onnx",
        &["--method", "clearclip", "--threads", "2"],
    );
    assert!(fs::read(folder.join("a.onnx")).unwrap() == fs::read(folder.join("b.onnx")).unwrap());
    let model = open(&folder.join("a.onnx"));
    assert_whole(&model);
    let expected = [vec!["image", "class_embeddings"], vec!["scores"]];
    assert_eq!(
        ports(&model),
        expected.map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
    );
    assert_eq!(metadata(&model, "zeg.method").as_deref(), Some("clearclip"));
    assert_eq!(metadata(&model, "zeg.scoring").as_deref(), Some("softmax"));
    assert_eq!(metadata(&model, "zeg.classes"), None);
    let mean: Vec<f32> =
        serde_json::from_str(&metadata(&model, "zeg.image_mean").unwrap()).unwrap();
    assert_eq!(mean.len(), 3);
    // Names are those of the model's parts.
    let graph = model.graph.unwrap();
    let named = |name: &str| {
        graph
            .node
            .iter()
            .any(|node| node.name.as_deref().unwrap().starts_with(name))
    };
    assert!(named("backbone/resblocks.0/attn/") && named("backbone/resblocks.0/mlp/"));
}

#[test]
fn classes_are_held_and_values_go_to_a_second_file() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let arguments = [
        "--classes",
        "plain blue, dotted red|red disc",
        "--external-data",
    ];
    export(folder, "m.onnx", &arguments);
    let model = open(&folder.join("m.onnx"));
    assert_whole(&model);
    assert_eq!(ports(&model)[0], ["image"]);
    let classes = metadata(&model, "zeg.classes").unwrap();
    assert_eq!(classes, r#"["plain blue","dotted red"]"#);
    let bytes = fs::read(folder.join("m.onnx.data")).unwrap();
    let graph = model.graph.unwrap();
    let external = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.data_location == Some(1));
    let ends: Vec<usize> = external.map(end_of).collect();
    assert!(!ends.is_empty());
    assert_eq!(ends.iter().max(), Some(&bytes.len()));
}

/// Returns where the values of a tensor end in the second file.
fn end_of(tensor: &TensorProto) -> usize {
    let value = |key: &str| -> usize {
        let mut all = tensor.external_data.iter();
        let found = all.find(|entry| entry.key.as_deref() == Some(key)).unwrap();
        found.value.as_ref().unwrap().parse().unwrap()
    };
    assert!(value("offset").is_multiple_of(4096));
    value("offset") + value("length")
}

#[test]
fn every_method_and_form_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let methods = [
        "combined",
        "clip",
        "maskclip",
        "sclip",
        "naclip",
        "clearclip",
        "sc-clip",
        "pearl",
    ];
    for method in methods {
        let arguments = [
            "--method",
            method,
            "--dynamic-size",
            "--batch",
            "dynamic",
            "--overwrite",
        ];
        export(folder, "m.onnx", &arguments);
        assert_whole(&open(&folder.join("m.onnx")));
    }
    for form in [
        &["--precision", "f16"][..],
        &["--precision", "int8-qdq", "--opset", "23"],
        &["--with-preprocessing", "--size", "72x96"],
        &["--with-preprocessing", "--dynamic-size"],
    ] {
        zeg(folder, &["export", "mini", "-o", "m.onnx", "--overwrite"])
            .args(form)
            .assert()
            .success();
        assert_whole(&open(&folder.join("m.onnx")));
    }
    export(
        folder,
        "m.onnx",
        &["--split", "encoder,head", "--overwrite"],
    );
    let (encoder, head) = (
        open(&folder.join("m.encoder.onnx")),
        open(&folder.join("m.head.onnx")),
    );
    assert_whole(&encoder);
    assert_whole(&head);
    let given = ports(&encoder)[1]
        .iter()
        .chain([&"class_embeddings".to_owned()])
        .cloned()
        .collect::<Vec<_>>();
    assert_eq!(ports(&head)[0], given);
}

#[test]
fn combinations_that_do_not_fit_are_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let refused = |arguments: &[&str], code: i32, text: &str| {
        let mut command = zeg(folder, &["export", "mini", "-o", "m.onnx"]);
        let output = command
            .args(arguments)
            .assert()
            .code(code)
            .get_output()
            .clone();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(text), "{arguments:?}: {message}");
    };
    refused(
        &["--size", "64", "--dynamic-size"],
        2,
        "cannot be used with",
    );
    refused(
        &["--classes", "red", "--dynamic-classes"],
        2,
        "cannot be used with",
    );
    refused(&["--batch", "0"], 2, "1 to 1024, or `dynamic`");
    refused(&["--size", "64x"], 2, "384x640");
    refused(&["--opset", "16"], 2, "17..=23");
    refused(&["--templates", "single"], 2, "--classes");
    fs::write(folder.join("m.head.onnx"), "").unwrap();
    refused(&["--split", "encoder,head"], 1, "m.head.onnx");
    assert!(!folder.join("m.encoder.onnx").exists());
    fs::write(folder.join("m.onnx"), "").unwrap();
    refused(&[], 1, "hint: use --overwrite");
    assert_eq!(fs::read(folder.join("m.onnx")).unwrap(), b"");
}

#[test]
fn an_export_replaces_nothing_that_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let refused = |arguments: &[&str], texts: [&str; 2]| {
        let output = zeg(folder, &["export"]).args(arguments).assert().code(1);
        let message = String::from_utf8(output.get_output().stderr.clone()).unwrap();
        for text in texts {
            assert!(message.contains(text), "{arguments:?}: {message}");
        }
    };
    let another = "hint: name another file after -o";
    export(folder, "graph.onnx", &[]);
    let model = fs::read(folder.join("graph.onnx")).unwrap();
    for name in ["model.safetensors", "m.head.onnx", "names.txt"] {
        fs::write(folder.join(name), &model).unwrap();
    }
    let own = [
        "model.safetensors",
        "-o",
        "./model.safetensors",
        "--overwrite",
    ];
    refused(&own, ["which it reads", another]);
    let part = ["m.head.onnx", "-o", "m.onnx", "--overwrite"];
    refused(&part, ["m.head.onnx, which it reads", another]);
    let classes = [
        "mini",
        "-o",
        "names.txt",
        "--classes",
        "names.txt",
        "--overwrite",
    ];
    refused(&classes[..], ["", ""]);
    for name in ["model.safetensors", "m.head.onnx", "names.txt"] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), model, "{name}");
    }
    refused(
        &["mini", "-o", "j.onnx", "--json=j.onnx"],
        ["--json", "hint: "],
    );
    refused(&["mini", "-o", "folder/"], ["a folder", "hint: "]);
    refused(
        &["mini", "-o", "t.onnx", "--text", "missing.npy"],
        ["--classes", "hint: "],
    );
    refused(
        &["nosuch", "-o", "t.onnx"],
        ["nosuch", "hint: `zeg models`"],
    );
    for name in ["folder", "t.onnx"] {
        assert!(!folder.join(name).exists(), "{name}");
    }
}
