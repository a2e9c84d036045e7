//! The command line as users see it: help texts, mistakes, completions.
#![allow(clippy::unwrap_used)] // in tests

use assert_cmd::Command;

/// Exit code, standard output and standard error of `zeg` with these arguments.
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
    for command in [
        "", "train", "ablate", "eval", "report", "data", "segment", "models", "pull", "import",
        "info", "check",
    ] {
        let args: Vec<&str> = if command.is_empty() {
            vec!["--help"]
        } else {
            vec![command, "--help"]
        };
        let name = if command.is_empty() { "help" } else { command };
        insta::assert_snapshot!(format!("help_{name}"), run(&args));
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
            let methods = ["zegclip-", "clip-rc-", "zegformer"];
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

/// Every plan in the repository parses: what fails is the model, which is not there.
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
    // with 2 candidates each, 5 settings; three seeds each.
    assert_eq!(runs, 120 + (8 + 2) * (3 + 2) + 5 * 3);
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
