//! Robustness of a run: stopped or killed at any moment it continues to the same bytes, its folder belongs to it alone,
//! and its memory does not grow.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{World, failure};

/// Starts `zeg train` without waiting for its end, and continues a run that exists.
fn start(world: &World, run: &str, more: &[&str]) -> Child {
    let resume = world.path(run).exists().then_some("--resume");
    Command::new(assert_cmd::cargo::cargo_bin!("zeg"))
        .current_dir(world.folder.path())
        .args(["train", "experiment.toml", "--data", "VOC2012"])
        .args([
            "--weights",
            "tower.safetensors",
            "--text",
            "text.safetensors",
        ])
        .args(["-o", run])
        .args(resume)
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

/// Waits until a run has logged some steps.
fn wait_for_lines(world: &World, run: &str, child: &mut Child, count: usize) {
    while lines(world, run) < count {
        assert!(child.try_wait().unwrap().is_none(), "{run} has ended");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the names in a folder that no finished process leaves there.
fn leftovers(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_temporary = |name: &String| Path::new(name).extension().is_some_and(|it| it == "tmp");
    let is_left = |name: &String| name == "zeg.lock" || is_temporary(name);
    names.filter(is_left).collect()
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let world = World::new();
    let mut first = start(&world, "run", &["--set", "training.steps=100000"]);
    wait_for_lines(&world, "run", &mut first, 3);
    let text = failure(world.train("run").args(["--set", "training.seed=9"]));
    let owner = format!("run is in use by process {} on host ", first.id());
    assert!(text.contains(&owner) && text.contains("hint:"), "{text}");
    first.kill().unwrap();
    first.wait().unwrap();
    // The lock of a killed process stands in nobody's way, but its run is not replaced unasked.
    let text = failure(world.train("run").args(["--set", "training.seed=9"]));
    assert!(text.contains("its lock is taken over"), "{text}");
    assert!(text.contains("run holds a run already ("), "{text}");
    std::fs::write(world.path("run/.zeg-abcdef.tmp"), "cut off").unwrap();
    world.train("run").arg("--overwrite").assert().success();
    assert_eq!(lines(&world, "run"), 6);
    assert!(leftovers(&world.path("run")).is_empty());
}

#[test]
fn a_finished_model_is_not_replaced() {
    let world = World::new();
    world.train("run").assert().success();
    for step in [4, 6] {
        std::fs::remove_file(world.path(&format!("run/checkpoint-{step:08}.safetensors"))).unwrap();
    }
    let model = || std::fs::read(world.path("run/model.safetensors")).unwrap();
    let before = model();
    let other = ["--set", "training.seed=5"];
    let text = failure(world.train("run").args(other));
    assert!(text.contains("(model.safetensors)"), "{text}");
    assert!(text.contains("--overwrite"), "{text}");
    let text = failure(world.train("run").arg("--resume"));
    assert!(
        text.contains("run: no checkpoint to continue from"),
        "{text}"
    );
    assert!(text.contains("finished"), "{text}");
    let own = ["--overwrite", "--init", "run/model.safetensors"];
    let text = failure(world.train("run").args(own));
    assert!(text.contains("the run reads this file"), "{text}");
    assert!(model() == before);
    world
        .train("run")
        .arg("--overwrite")
        .args(other)
        .assert()
        .success();
    assert!(model() != before);
    assert_eq!(lines(&world, "run"), 6);
}

/// Only files with the names that a run gives to its checkpoints are continued from and removed.
#[test]
fn files_of_the_user_beside_the_checkpoints_are_left_alone() {
    let world = World::new();
    let folder = world.path("run");
    std::fs::create_dir(&folder).unwrap();
    let own = [
        "checkpoint-backup.safetensors",
        "checkpoint-00000002-before-change.safetensors",
    ];
    for name in own {
        std::fs::write(folder.join(name), "mine").unwrap();
    }
    world.train("run").assert().success();
    assert!(folder.join("checkpoint-00000004.safetensors").exists());
    for name in ["model.safetensors", "checkpoint-00000006.safetensors"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    world.train("run").arg("--resume").assert().success();
    // The hint after a damaged checkpoint is the one before it.
    let newest = folder.join("checkpoint-00000006.safetensors");
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    let text = failure(world.train("run").arg("--resume"));
    assert!(
        text.contains("hint: run/checkpoint-00000004.safetensors is intact"),
        "{text}"
    );
    world.train("run").arg("--overwrite").assert().success();
    for name in own {
        assert_eq!(std::fs::read_to_string(folder.join(name)).unwrap(), "mine");
    }
}

#[test]
fn a_run_that_is_not_there_is_not_resumed() {
    let world = World::new();
    let text = failure(world.train("typo").arg("--resume"));
    assert!(
        text.contains("typo: no checkpoint to continue from"),
        "{text}"
    );
    assert!(!world.path("typo").exists());
    std::fs::create_dir(world.path("empty")).unwrap();
    let text = failure(world.train("empty").arg("--resume"));
    assert!(
        text.contains("empty: no checkpoint to continue from"),
        "{text}"
    );
}

#[test]
fn a_folder_of_a_process_on_another_host_is_refused() {
    let world = World::new();
    std::fs::create_dir(world.path("run")).unwrap();
    let lock = "process 17\nhost elsewhere\nboot other\nsince 2026-01-02T03:04:05Z\n";
    std::fs::write(world.path("run/zeg.lock"), lock).unwrap();
    let text = failure(&mut world.train("run"));
    let parts = [
        "process 17 on host elsewhere",
        "2026-01-02",
        "remove run/zeg.lock",
    ];
    for part in parts {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    std::fs::remove_file(world.path("run/zeg.lock")).unwrap();
    world.train("run").assert().success();
}

#[test]
fn an_output_that_cannot_be_written_is_named_before_the_work() {
    let world = World::new();
    std::fs::write(world.path("file"), "mine").unwrap();
    let text = failure(&mut world.train("file/run"));
    assert!(text.contains("file/run: cannot be written: "), "{text}");
    let text = failure(world.zeg().args(["pretrain", "-o", "file/a.safetensors"]));
    assert!(
        text.contains("file/a.safetensors.lock: cannot be written: "),
        "{text}"
    );
    assert!(!text.contains("step 1"), "{text}");
}

/// More steps than pass until a signal arrives.
#[cfg(unix)]
const MANY_STEPS: [&str; 4] = [
    "--set",
    "training.steps=200",
    "--set",
    "training.checkpoint-every=50",
];

#[cfg(unix)]
fn send(signal: nix::sys::signal::Signal, child: &Child) {
    let process = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(process, signal).unwrap();
}

/// Whether this process, and those that it starts, ignore hangups.
#[cfg(unix)]
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_end_keeps_its_steps_and_leaves_nothing_temporary() {
    use nix::sys::signal::Signal;
    let world = World::new();
    let whole = start(&world, "whole", &MANY_STEPS).wait();
    assert!(whole.unwrap().success());
    let model = |run: &str| std::fs::read(world.path(&format!("{run}/model.safetensors"))).unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        if signal == Signal::SIGHUP && ignores_hangup() {
            continue; // these tests run below `nohup`, and so does the program
        }
        let run = signal.as_str();
        let mut child = start(&world, run, &MANY_STEPS);
        wait_for_lines(&world, run, &mut child, 5);
        // A terminal, a shell and a parent process may each pass a request on.
        send(signal, &child);
        send(signal, &child);
        let code = child.wait().unwrap().code();
        assert_eq!(code, Some(128 + signal as i32), "{run}");
        assert!(leftovers(&world.path(run)).is_empty(), "{run}");
        let done = lines(&world, run);
        let checkpoint = format!("{run}/checkpoint-{done:08}.safetensors");
        assert!(
            done < 200 && world.path(&checkpoint).exists(),
            "{checkpoint}"
        );
        let resumed = start(&world, run, &MANY_STEPS).wait();
        assert!(resumed.unwrap().success(), "{run}");
        assert!(model(run) == model("whole"), "{run}");
    }
}

#[cfg(unix)]
#[test]
fn a_suite_ends_its_runs_when_it_is_ended_and_continues() {
    use nix::sys::signal::Signal;
    let world = World::new();
    let suite = "title = \"One row\"\nbase = \"experiment.toml\"\nseeds = [0, 1]\n\
                 set = [\"training.steps=200\", \"training.checkpoint-every=50\"]\n\
                 [[rows]]\nname = \"row\"\n";
    std::fs::write(world.path("suite.toml"), suite).unwrap();
    let ablate = |output: &str| {
        Command::new(assert_cmd::cargo::cargo_bin!("zeg"))
            .current_dir(world.folder.path())
            .args(["ablate", "suite.toml", "--data", "VOC2012", "--jobs", "2"])
            .args(["--weights", "tower.safetensors", "--text"])
            .args(["text.safetensors", "-o", output])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    assert!(ablate("whole").wait().unwrap().success());
    let runs = |output: &str| [0, 1].map(|seed| format!("{output}/row/seed-{seed}"));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let output = signal.as_str();
        let mut child = ablate(output);
        for run in runs(output) {
            wait_for_lines(&world, &run, &mut child, 5);
        }
        send(signal, &child);
        let code = child.wait().unwrap().code();
        assert_eq!(code, (signal == Signal::SIGTERM).then_some(143));
        // Of a suite that is killed, the runs end after their step.
        let started = std::time::Instant::now();
        for run in runs(output) {
            while !leftovers(&world.path(&run)).is_empty() {
                assert!(signal == Signal::SIGKILL, "{run} goes on");
                assert!(started.elapsed() < Duration::from_mins(1), "{run} goes on");
                std::thread::sleep(Duration::from_millis(10));
            }
            assert!(lines(&world, &run) < 200, "{run}");
        }
        assert!(ablate(output).wait().unwrap().success(), "{output}");
        for (run, whole) in runs(output).iter().zip(runs("whole")) {
            let model = |run: &str| std::fs::read(world.path(run).join("model.safetensors"));
            assert!(model(run).unwrap() == model(&whole).unwrap(), "{run}");
            assert_eq!(losses(&world, run), losses(&world, &whole));
        }
        assert!(leftovers(&world.path(output)).is_empty());
    }
}
