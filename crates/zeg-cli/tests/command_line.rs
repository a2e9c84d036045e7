//! The command line as users see it: help texts, errors, JSON files, completions.
#![allow(clippy::unwrap_used)] // in tests

use assert_cmd::Command;

/// Returns exit code, standard output and standard error of `zeg` with these arguments.
fn run(args: &[&str]) -> String {
    let mut command = Command::cargo_bin("zeg").unwrap();
    let output = command
        .args(args)
        .env_remove("ZEG_DEVICE")
        .env_remove("ZEG_THREADS")
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    format!(
        "exit code {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap()
    )
}

#[test]
fn help_texts() {
    insta::assert_snapshot!("help_help", run(&["--help"]));
    for command in [
        "pretrain",
        "train",
        "ablate",
        "eval",
        "eval merge",
        "report",
        "data",
        "data list",
        "data doctor",
        "data prepare",
        "segment",
        "segment merge",
        "visualize",
        "models",
        "pull",
        "import",
        "embed",
        "info",
        "bench",
        "check",
    ] {
        let mut args: Vec<&str> = command.split(' ').collect();
        args.push("--help");
        insta::assert_snapshot!(format!("help_{}", command.replace(' ', "_")), run(&args));
    }
}

#[test]
fn mistakes_are_explained() {
    insta::assert_snapshot!("no_command", run(&[]));
    insta::assert_snapshot!("unknown_command", run(&["tran"]));
    insta::assert_snapshot!("unknown_device", run(&["bench", "x", "--device", "gpu"]));
    insta::assert_snapshot!("missing_experiment", run(&["info", "no-such-file.toml"]));
    insta::assert_snapshot!(
        "missing_checkpoint",
        run(&["eval", "no-such-file.safetensors", "--data", "."])
    );
}

#[test]
fn a_wrong_setting_is_named() {
    let config = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../configs/voc12/zegclip-quick.toml"
    );
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
    let says = |changes: &[&str]| {
        let mut args = vec!["info", config];
        for change in changes {
            args.extend(["--set", change]);
        }
        run(&args).replace(folder, "")
    };
    insta::assert_snapshot!("unknown_setting", says(&["training.step=5"]));
    insta::assert_snapshot!("impossible_stride", says(&["inference.stride=900"]));
    insta::assert_snapshot!("unknown_encoder", says(&["model.encoder=ResNet-50"]));
}

/// Every experiment file in the repository parses, fits together, and counts.
#[test]
fn every_experiment_file_is_sound() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .flat_map(|set| std::fs::read_dir(set.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|file| {
            let name = file.file_name().unwrap().to_string_lossy();
            let methods = [
                "zegclip-",
                "clip-rc-",
                "zegformer",
                "zsseg",
                "cat-seg",
                "maskclip-plus",
            ];
            methods.iter().any(|method| name.starts_with(method)) && !name.contains("-eval.")
        })
        .collect();
    files.sort();
    assert!(files.len() >= 30, "{files:?}");
    for file in files {
        let text = run(&["info", file.to_str().unwrap(), "--json"]);
        assert!(text.starts_with("exit code 0"), "{text}");
        let head = std::fs::read_to_string(&file).unwrap();
        for word in ["# run ", "# score ", "# cost "] {
            assert!(
                head.contains(word),
                "{} has no line {word:?}",
                file.display()
            );
        }
    }
}

/// Every plan in the repository parses: the command only fails because the model does not exist.
#[test]
fn every_plan_is_sound() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
    let mut count = 0;
    let folders = std::fs::read_dir(root).unwrap();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap());
    let is_plan = |file: &std::path::PathBuf| {
        let text = file.to_str().unwrap();
        text.contains("cross-dataset") || text.ends_with("-eval.toml")
    };
    for file in files.map(|file| file.unwrap().path()).filter(is_plan) {
        let plan = file.to_str().unwrap();
        let text = run(&["eval", "no-such-model", "--plan", plan, "--data", "."]);
        assert!(text.starts_with("exit code 1"), "{text}");
        assert!(text.contains("no-such-model"), "{text}");
        count += 1;
    }
    assert!(count >= 6);
}

/// Every suite in the repository parses, its rows fit together, and the published rows it names exist.
#[test]
fn every_suite_is_sound() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/ablations");
    let out = tempfile::tempdir().unwrap();
    let mut runs = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        let (suite, out) = (file.to_str().unwrap(), out.path().to_str().unwrap());
        let text = run(&[
            "ablate",
            suite,
            "--data",
            ".",
            "--weights",
            "w",
            "-o",
            out,
            "--dry-run",
        ]);
        assert!(text.starts_with("exit code 0"), "{text}");
        let left = text.matches("left ").count();
        assert!(left > 0, "{suite}");
        if !suite.contains("mini-world") {
            runs += left;
        }
    }
    // Of the benchmarks: 12 designs, 12 formats, 8 depths, 2 losses, 2 sets of templates, 4 short rows, 8 + 2 short rows
    // with 2 candidates each, 5 settings; three seeds each. Further, 12 designs of COCO-Stuff, 9 numbers of prompt tokens,
    // 4 losses and 2 sets of templates of COCO-Stuff and Context, 7 settings of each data set, 4 parts of CLIP-RC.
    let others = 12 + 9 + 4 + 2 + 3 * 7 + 4;
    assert_eq!(runs, 120 + (8 + 2) * (3 + 2) + 5 * 3 + others * 3);
}

/// The value of `--json` is optional, so an image can end up as its value.
#[test]
fn json_does_not_replace_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let photo = folder.path().join("photo.jpg");
    std::fs::write(&photo, b"\xff\xd8 not JSON").unwrap();
    let text = run(&["data", "list", "--json", photo.to_str().unwrap()]);
    assert!(text.starts_with("exit code 1"), "{text}");
    assert!(
        text.contains("photo.jpg") && text.contains("hint: write --json=FILE"),
        "{text}"
    );
    assert_eq!(std::fs::read(&photo).unwrap(), b"\xff\xd8 not JSON");
}

#[test]
fn json_goes_to_standard_output_or_to_a_file_beside_the_text() {
    let text = run(&["data", "list", "--json"]);
    assert!(
        text.contains("\"command\": \"data list\"") && !text.contains("classes voc20"),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.json");
    let text = run(&["data", "list", "--json", file.to_str().unwrap()]);
    assert!(text.contains("classes voc20"), "{text}");
    let document: serde_json::Value =
        serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(document["schema_version"], 1);
    assert!(document["datasets"].as_array().unwrap().len() > 3);
}

/// The reader of the pipe ends before the program writes.
#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_json_quietly() {
    let program = assert_cmd::cargo::cargo_bin("zeg");
    let script = format!(
        "(sleep 0.3; '{}' data list --json; echo code $? >&2) | true",
        program.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "code 0\n");
}

#[test]
fn quiet_is_accepted_before_and_after_the_command() {
    for args in [["--quiet", "data", "list"], ["data", "list", "-q"]] {
        let text = run(&args);
        assert!(
            text.starts_with("exit code 0") && text.ends_with("--- stderr\n"),
            "{text}"
        );
    }
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = run(&["completions", shell]);
        assert!(
            text.starts_with("exit code 0") && text.contains("segment"),
            "{shell}"
        );
    }
}
