//! Numbers and names are checked where they enter: on the command line, in experiment files, in image files.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use common::{World, failure, failure_with};
use image::{ImageBuffer, Luma};
use zeg::image::{LabelMap, write_indexed_png};
use zeg::vocab::classes::voc_colour;

const IMAGE: &str = "VOC2012/JPEGImages/2007_000000.jpg";

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

/// Returns `zeg segment` with MiniCLIP on an image.
fn segment(world: &World, image: &str, options: &[&str]) -> assert_cmd::Command {
    let mut command = world.zeg();
    command.args(["segment", image, "--model", "mini", "--classes", "red,blue"]);
    command.args(["-o", "out", "--overwrite"]).args(options);
    command
}

fn stderr(command: &mut assert_cmd::Command) -> String {
    String::from_utf8(command.assert().success().get_output().stderr.clone()).unwrap()
}

#[test]
fn heads_and_activation_of_an_experiment_are_not_contradicted() {
    let world = World::new();
    for command in [
        &["info", "experiment.toml"][..],
        &["bench", "experiment.toml", "--runs", "1"],
    ] {
        let run = |more: &[&str]| {
            let mut zeg = world.zeg();
            zeg.args(command).args(more);
            zeg
        };
        stderr(&mut run(&["--heads", "2", "--activation", "quick-gelu"]));
        for (more, says) in [
            (["--heads", "4"], "2 attention heads"),
            (["--heads", "2,2"], "no text tower"),
            (["--activation", "gelu"], "has QuickGELU"),
        ] {
            let text = failure_with(2, &mut run(&more));
            assert_says(&text, &[more[0], says]);
        }
    }
    let mut bench = world.zeg();
    bench.args(["bench", "experiment.toml", "--weights", "tower.safetensors"]);
    let text = failure_with(2, &mut bench);
    assert_says(&text, &["--weights", "generated weights"]);
}

#[test]
fn an_empty_variable_counts_as_unset_and_a_wrong_one_is_named() {
    let world = World::new();
    for variable in ["ZEG_THREADS", "ZEG_DEVICE", "ZEG_PRECISION"] {
        stderr(segment(&world, IMAGE, &[]).env(variable, ""));
        let text = failure_with(2, segment(&world, IMAGE, &[]).env(variable, "x"));
        assert_says(&text, &[&format!("(from {variable})")]);
    }
}

#[test]
fn vector_instructions_are_chosen_by_the_environment() {
    let world = World::new();
    let at = |level: &str| {
        let mut command = segment(&world, IMAGE, &[]);
        command.env("ZEG_CPU_LEVEL", level);
        command
    };
    stderr(&mut at(""));
    let text = stderr(&mut at("portable"));
    assert!(!text.contains("has no effect"), "{text}");
    let text = failure_with(2, &mut at("avx9"));
    assert_says(&text, &["ZEG_CPU_LEVEL", "\"avx9\"", "portable"]);
}

#[test]
fn numbers_out_of_range_are_wrong_arguments() {
    let world = World::new();
    for (command, option, value) in [
        ("segment", "--seen-offset", "nan"),
        ("segment", "--seen-offset", "inf"),
        ("segment", "--short-side", "-5"),
        ("segment", "--crop", "0"),
        ("segment", "--stride", "0"),
        ("segment", "--scales", "1,-1"),
        ("segment", "--threshold", "1.5"),
        ("segment", "--threshold", "-0.1"),
        ("segment", "--opacity", "nan"),
        ("segment", "--min-area", "-1"),
        ("segment", "--threads", "0"),
        ("segment", "--threads", "many"),
        ("eval", "--limit", "0"),
        ("eval", "--limit", "-3"),
        ("eval", "--seen-offsets", "0,nan"),
        ("bench", "--size", "0"),
        ("bench", "--classes", "0"),
        ("pretrain", "--learning-rate", "-1"),
        ("pretrain", "--learning-rate", "nan"),
        ("pretrain", "--batch", "1"),
        ("pretrain", "--steps", "0"),
        ("pretrain", "--seed", "-1"),
        ("quickstart", "--limit", "0"),
    ] {
        let mut zeg = world.zeg();
        let text = failure_with(2, zeg.args([command, option, value]));
        let shown = value.rsplit(',').next().unwrap();
        assert_says(&text, &["invalid value", option, shown, "must be a"]);
    }
    let mut zeg = world.zeg();
    let scale = ["--method", "clearclip", "--logit-scale", "0"];
    let text = failure_with(2, zeg.args(["segment", "a.png"]).args(scale));
    assert_says(&text, &["--logit-scale", "above 0"]);
    let text = failure_with(2, world.train("run").args(["--set", "training.steps"]));
    assert_says(&text, &["--set", "key=value"]);
    let mut zeg = world.zeg();
    let text = failure_with(2, zeg.env("ZEG_THREADS", "0").args(["segment", "a.png"]));
    assert_says(&text, &["--threads", "at least 1"]);
}

#[test]
fn a_negative_seen_offset_needs_no_special_writing() {
    let world = World::new();
    for offset in [
        &["--seen-offset", "-0.1"][..],
        &["--seen-offset", "-1e-3"],
        &["--seen-offset=-0.1"],
    ] {
        segment(&world, IMAGE, offset).assert().success();
    }
    // An option without its value does not swallow the next one silently.
    let text = failure_with(2, &mut segment(&world, IMAGE, &["--seen-offset", "--flip"]));
    assert_says(&text, &["--flip", "--seen-offset"]);
    segment(&world, IMAGE, &["--explain", "--flip"])
        .assert()
        .success();
}

#[test]
fn thousands_of_threads_are_capped_with_a_warning() {
    let world = World::new();
    let most = 4 * std::thread::available_parallelism().map_or(1, usize::from);
    let text = stderr(&mut segment(&world, IMAGE, &["--threads", "99999"]));
    assert_says(
        &text,
        &["warning: --threads 99999", &format!("{most} are used")],
    );
    let mut command = segment(&world, IMAGE, &[]);
    let text = stderr(command.env("ZEG_THREADS", "99999"));
    assert_says(&text, &[&format!("{most} are used")]);
}

#[test]
fn sizes_beyond_the_memory_are_refused_with_an_estimate() {
    let world = World::new();
    for side in ["100000", "100000000", "18446744073709551615"] {
        let text = failure(&mut segment(&world, IMAGE, &["--short-side", side]));
        assert_says(
            &text,
            &["2007_000000.jpg", "pixels are possible", "of memory"],
        );
    }
    let batch = ["--set", "training.batch=4000000000"];
    let text = failure(world.train("run").args(batch));
    assert_says(
        &text,
        &["training.batch = 4000000000", "TiB of memory", "hint:"],
    );
    let crop = ["--set", "inference.crop=9223372036854775807"];
    let text = failure(world.train("run").args(crop));
    assert_says(&text, &["inference.crop = 9223372036854775807", "at most"]);
    let mut zeg = world.zeg();
    let bench = ["bench", "experiment.toml", "--size", "100000000"];
    assert_says(&failure(zeg.args(bench)), &["100000000", "of memory"]);
    assert!(!world.path("run").exists());
}

/// Returns a PNG that states this many pixels a side, with a part of their data.
fn png_header(side: u32) -> Vec<u8> {
    let chunk = |kind: &[u8; 4], data: &[u8]| -> Vec<u8> {
        let mut checked = kind.to_vec();
        checked.extend_from_slice(data);
        // CRC-32 as in the PNG specification, appendix D.
        let sum = checked.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0xEDB8_8320 * (sum & 1))
            })
        });
        let length = (data.len() as u32).to_be_bytes();
        [&length[..], &checked[..], &(!sum).to_be_bytes()[..]].concat()
    };
    let mut header = [side.to_be_bytes(), side.to_be_bytes()].concat();
    header.extend([8, 2, 0, 0, 0]); // 8 bits, RGB
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        chunk(b"IDAT", &vec![0; 2_000_000]),
        chunk(b"IEND", b""),
    ]
    .concat()
}

/// The system gives the process no more addresses than its limit, and an allocation that fails would end it.
#[test]
fn work_beyond_the_address_space_is_an_error_and_no_abort() {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: only Linux limits the addresses of a process");
        return;
    }
    let world = World::new();
    std::fs::write(world.path("huge.png"), png_header(16_000)).unwrap();
    let limited = |image: &str, more: &[&str]| {
        let mut shell = std::process::Command::new("sh");
        shell
            .current_dir(world.folder.path())
            .env("ZEG_CACHE", world.path("cache"))
            .env("ZEG_OFFLINE", "1")
            .args(["-c", "ulimit -v 700000 && exec \"$0\" \"$@\""])
            .arg(assert_cmd::cargo::cargo_bin!("zeg"))
            .args(["segment", image, "--model", "mini"])
            .args(["--classes", "red,blue", "-o", "out", "--overwrite"])
            .args(["--threads", "1"])
            .args(more);
        assert_cmd::Command::from_std(shell)
    };
    // What fits is segmented.
    stderr(&mut limited(IMAGE, &["--explain"]));
    let none: &[&str] = &[];
    for (image, more, says) in [
        ("huge.png", none, "decoding 16000×16000 pixels"),
        (IMAGE, &["--short-side", "16000"], "19200×16000 pixels"),
    ] {
        let text = failure(&mut limited(image, more));
        assert_says(&text, &[image, says, "of memory"]);
    }
}

#[test]
fn numbers_of_an_experiment_are_refused_with_key_and_line() {
    let world = World::new();
    let original = std::fs::read_to_string(world.config()).unwrap();
    for (old, new, parts) in [
        (
            "base = 1e-3",
            "base = -1.0",
            ["training.schedule.base = -1", "at least 0"],
        ),
        (
            "base = 1e-3",
            "base = nan",
            ["training.schedule.base = NaN", "finite"],
        ),
        (
            "base = 1e-3",
            "base = inf",
            ["training.schedule.base = inf", "finite"],
        ),
        (
            "steps = 6",
            "steps = 6\noptimizer = { weight-decay = -0.1 }",
            ["training.optimizer.weight-decay = -0.1", "at least 0"],
        ),
        (
            "steps = 6",
            "steps = 6\noptimizer = { betas = [0.9, 1.0] }",
            ["training.optimizer.betas = 1", "below 1"],
        ),
        (
            "steps = 6",
            "steps = 6\nloss = { focal = -20.0 }",
            ["training.loss.focal = -20", "at least 0"],
        ),
        (
            "tokens = 2",
            "dropout = 1.5, tokens = 2",
            ["model.prompts.dropout = 1.5", "below 1"],
        ),
        (
            "crop = 32\n",
            "crop = 32\nthreshold = -1.0\n",
            ["inference.threshold = -1", "at least 0"],
        ),
        (
            "crop = 32 }",
            "crop = 32, flip = 2.0 }",
            ["training.preprocess.flip is 2", "probability"],
        ),
        (
            "batch = 3",
            "batch = 0",
            ["training.batch = 0", "at least 1"],
        ),
    ] {
        let changed = original.replacen(old, new, 1);
        assert_ne!(changed, original);
        std::fs::write(world.config(), &changed).unwrap();
        let text = failure(&mut world.train("run"));
        assert_says(&text, &["experiment.toml", parts[0], parts[1]]);
        if !new.contains("batch = 0") {
            assert!(text.contains("experiment.toml: line "), "{text}");
        }
        assert!(!world.path("run").exists());
    }
}

#[test]
fn misspelt_names_get_a_suggestion_and_the_line() {
    let world = World::new();
    let original = std::fs::read_to_string(world.config()).unwrap();
    for (old, new, parts) in [
        (
            "steps = 6",
            "stepz = 6",
            ["line 16: unknown field `stepz`", "did you mean \"steps\"?"],
        ),
        (
            "crop = 32\n",
            "corp = 32\n",
            ["line 25: unknown field `corp`", "did you mean \"crop\"?"],
        ),
        (
            "tokens = 2",
            "tokns = 2",
            ["line 11: unknown field `tokns`", "did you mean \"tokens\"?"],
        ),
        (
            "\"inductive\"",
            "\"inductiv\"",
            [
                "line 15: unknown variant `inductiv`",
                "did you mean \"inductive\"?",
            ],
        ),
        (
            "\"voc12\"",
            "\"vco12\"",
            [
                "line 3: no data set is called `vco12`",
                "did you mean \"voc12\"?",
            ],
        ),
        (
            "\"voc20\"",
            "\"voc2O\"",
            ["voc2O", "did you mean \"voc20\"?"],
        ),
        (
            "[model]",
            "[model]\nmethod = \"zegcilp\"",
            [
                "line 9: model.method: unknown method \"zegcilp\"",
                "did you mean \"zegclip\"?",
            ],
        ),
    ] {
        let changed = original.replacen(old, new, 1);
        assert_ne!(changed, original);
        std::fs::write(world.config(), &changed).unwrap();
        let text = failure(&mut world.train("run"));
        assert_says(&text, &parts);
    }
    for (arguments, suggestion) in [
        (&["segmnet"][..], "segment"),
        (
            &["data", "doctor", "vco12", "--data", "VOC2012"],
            "did you mean \"voc12\"?",
        ),
        (
            &["data", "prepare", "ade2k", "--from", ".", "-o", "ade"],
            "did you mean \"ade20k\"?",
        ),
        (&["pull", "clip-vit-b16x"], "did you mean"),
    ] {
        let mut zeg = world.zeg();
        let text = failure_with(2, zeg.args(arguments));
        assert_says(&text, &[suggestion]);
    }
}

#[test]
fn training_on_labels_that_are_all_ignored_is_an_error() {
    let world = World::new();
    let palette: Vec<[u8; 3]> = (0..256).map(voc_colour).collect();
    for number in 0..4 {
        let labels = LabelMap::filled(48, 40, 255);
        let file = world.labels(&format!("2007_{number:06}"));
        write_indexed_png(&file, &labels, &palette).unwrap();
    }
    let text = failure(&mut world.train("run"));
    assert_says(
        &text,
        &[
            "warning: step 0",
            "has a pixel with the label of a training class",
            "hint:",
        ],
    );
    assert!(!world.path("run/model.safetensors").exists());
}

#[test]
fn twelve_bits_in_a_file_of_sixteen_are_told() {
    let world = World::new();
    let dark = ImageBuffer::from_fn(64, 64, |x, y| Luma([(x * y) as u16]));
    dark.save(world.path("dark.png")).unwrap();
    let text = stderr(&mut segment(&world, "dark.png", &[]));
    assert_says(
        &text,
        &["warning: dark.png", "3969 (12 bits)", "multiply 16"],
    );
    let full = ImageBuffer::from_fn(64, 64, |x, y| Luma([(x * y * 16) as u16]));
    full.save(world.path("full.png")).unwrap();
    let text = stderr(&mut segment(&world, "full.png", &[]));
    assert!(!text.contains("bits"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_dead_link_and_a_missing_temporary_folder_are_named() {
    let world = World::new();
    std::os::unix::fs::symlink("/nonexistent/photo.jpg", world.path("dead.jpg")).unwrap();
    let text = failure(&mut segment(&world, "dead.jpg", &[]));
    assert_says(
        &text,
        &[
            "dead.jpg: a link to /nonexistent/photo.jpg, which does not exist",
            "hint:",
        ],
    );
    assert!(!text.contains("did you mean"), "{text}");
    let mut command = segment(&world, IMAGE, &["--write", "coco"]);
    let text = failure(command.env("TMPDIR", "/nonexistent/temporary"));
    assert_says(
        &text,
        &["temporary files", "/nonexistent/temporary", "TMPDIR"],
    );
}
