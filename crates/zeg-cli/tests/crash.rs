//! Robustness of a run: killed at any moment it continues to the same bytes, and its memory does not grow.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::World;

/// Starts `zeg train … --resume` without waiting for its end.
fn start(world: &World, run: &str, more: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin!("zeg"))
        .current_dir(world.folder.path())
        .args(["train", "experiment.toml", "--data", "VOC2012"])
        .args([
            "--weights",
            "tower.safetensors",
            "--text",
            "text.safetensors",
        ])
        .args(["-o", run, "--resume"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

const STEPS: [&str; 4] = [
    "--set",
    "training.steps=60",
    "--set",
    "training.checkpoint-every=3",
];

#[test]
fn a_run_that_is_killed_at_any_moment_continues_to_the_same_bytes() {
    let world = World::new();
    assert!(start(&world, "whole", &STEPS).wait().unwrap().success());
    let model = world.path("killed/model.safetensors");
    let mut kills = 0_u64;
    while !model.exists() {
        // Kill it after one to nine more steps and some milliseconds.
        let before = lines(&world, "killed");
        let mut child = start(&world, "killed", &STEPS);
        let (more, into) = (1 + kills * 7 % 9, Duration::from_millis(kills * 13 % 17));
        while child.try_wait().unwrap().is_none() {
            // A run that continues first cuts its log to the steps of its checkpoint.
            let now = lines(&world, "killed");
            if now as u64 >= before as u64 + more {
                std::thread::sleep(into);
                child.kill().unwrap(); // SIGKILL
                kills += 1;
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert!(kills < 100, "the run makes no progress");
    }
    assert!(kills >= 5, "the run was only killed {kills} times");
    let bytes = |run: &str| std::fs::read(world.path(&format!("{run}/model.safetensors"))).unwrap();
    assert!(bytes("whole") == bytes("killed"), "the models differ");
    // The log holds every step once, with the same losses.
    assert_eq!(losses(&world, "whole"), losses(&world, "killed"));
}

#[test]
fn the_seed_determines_the_result() {
    let world = World::new();
    let model = |run: &str, seed: &str| {
        let seed = format!("training.seed={seed}");
        let finished = start(&world, run, &["--set", &seed]).wait().unwrap();
        assert!(finished.success());
        std::fs::read(world.path(&format!("{run}/model.safetensors"))).unwrap()
    };
    let (first, again, other) = (model("a", "5"), model("b", "5"), model("c", "6"));
    assert!(first == again, "two runs of one seed differ");
    assert_eq!(losses(&world, "a"), losses(&world, "b"));
    assert_ne!(first, other);
    // The runs differ in more than the seed in their manifests.
    assert_ne!(losses(&world, "a"), losses(&world, "c"));
}

/// Returns the lines of a run's log.
fn lines(world: &World, run: &str) -> usize {
    let log = std::fs::read_to_string(world.path(&format!("{run}/log.jsonl")));
    log.unwrap_or_default().lines().count()
}

/// Returns step and loss of every line.
fn losses(world: &World, run: &str) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(world.path(&format!("{run}/log.jsonl"))).unwrap();
    text.lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            (
                line["step"].as_u64().unwrap(),
                line["loss"].as_f64().unwrap(),
            )
        })
        .collect()
}

/// Returns the memory of a process in kilobytes, or `None` where the system does not tell it.
fn resident(process: u32) -> Option<u64> {
    let status =
        std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("status"))
            .ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn memory_stays_flat_over_a_long_run() {
    if !Path::new("/proc/self/status").exists() {
        use std::io::Write as _;
        let _ = writeln!(
            std::io::stderr(),
            "skipped: this system does not tell a process's memory"
        );
        return;
    }
    let world = World::new();
    let steps = [
        "--set",
        "training.steps=1200",
        "--set",
        "training.checkpoint-every=400",
    ];
    let mut child = start(&world, "long", &steps);
    let mut samples = Vec::new();
    while child.try_wait().unwrap().is_none() {
        samples.extend(resident(child.id()));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.wait().unwrap().success());
    assert!(samples.len() > 20, "{} samples", samples.len());
    let middle = |part: &[u64]| {
        let mut part = part.to_vec();
        part.sort_unstable();
        part[part.len() / 2]
    };
    // The first quarter is the warm-up: the program is loaded and pools are filled.
    let quarter = samples.len() / 4;
    let (early, late) = (
        middle(&samples[quarter..2 * quarter]),
        middle(&samples[3 * quarter..]),
    );
    assert!(
        late as f64 <= 1.1 * early as f64 + 4096.0,
        "{early} kB in the second quarter, {late} kB in the last"
    );
}
