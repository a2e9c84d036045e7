//! Failures of one rank: all ranks end, with one message, and the last checkpoint is whole.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::{
    SHORT,
    common::World,
    launch::{Place, Running, has_mpirun, model, zeg},
};

/// Time in which all processes must have ended.
const LIMIT: Duration = Duration::from_mins(2);

/// Returns the arguments of a run that is long enough to be disturbed.
fn long(place: &Place, run: &str, steps: usize) -> Vec<String> {
    let mut arguments = place.train("zegclip-inductive", run);
    let steps = format!("training.steps={steps}");
    for change in SHORT.iter().skip(1).chain([&&*steps]) {
        arguments.extend(["--set".to_owned(), (*change).to_owned()]);
    }
    arguments
}

fn first_checkpoint(place: &Place) -> impl Fn() -> bool {
    let path = place.path("run/checkpoint-00000002.safetensors");
    move || path.exists()
}

#[test]
fn a_killed_rank_ends_the_run_which_then_continues() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let mut running = Running::start(place.mpirun(3, &long(&place, "run", 100_000)));
    running.wait_until("a checkpoint", first_checkpoint(&place));
    // Somewhere in the next steps.
    let milliseconds = u64::from(std::process::id()) * 37 % 400;
    std::thread::sleep(Duration::from_millis(milliseconds));
    running.signal(2, Signal::SIGKILL);
    let ran = running.end(LIMIT);
    assert!(ran.stderr().contains("signal 9"), "{}", ran.stderr());
    // Its newest checkpoint is whole: the run goes on from there for two steps.
    let newest = newest_checkpoint(&place);
    let mut resumed = long(&place, "run", 100_000);
    resumed.push("--resume".to_owned());
    let mut again = Running::start(place.mpirun(2, &resumed));
    let next = place.path(&format!("run/checkpoint-{:08}.safetensors", newest + 2));
    again.wait_until("the next checkpoint", || next.exists());
    again.signal(0, Signal::SIGTERM);
    again.end(LIMIT);
}

/// Returns the step of the newest checkpoint.
fn newest_checkpoint(place: &Place) -> u64 {
    let names = std::fs::read_dir(place.path("run")).unwrap().flatten();
    let steps = names.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let digits = name
            .strip_prefix("checkpoint-")?
            .strip_suffix(".safetensors")?;
        digits.parse().ok()
    });
    steps.max().unwrap()
}

#[test]
fn a_stopped_rank_is_named_after_the_time_limit() {
    if !has_mpirun() {
        return;
    }
    for rank in [1, 0] {
        let place = Place::new();
        let mut arguments = long(&place, "run", 100_000);
        arguments.extend(["--rank-timeout", "15"].map(str::to_owned));
        let mut running = Running::start(place.mpirun(2, &arguments));
        running.wait_until("a checkpoint", first_checkpoint(&place));
        running.signal(rank, Signal::SIGSTOP);
        let stderr = running.end(LIMIT).failure();
        if rank == 1 {
            assert!(stderr.contains("error: rank 0: rank 1 on "), "{stderr}");
        }
        assert!(stderr.contains("not answered for 15s"), "{stderr}");
        assert!(
            stderr.contains("hint: see whether the process was killed"),
            "{stderr}"
        );
    }
}

#[test]
fn a_request_to_one_rank_stops_all_after_their_step() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let mut running = Running::start(place.mpirun(2, &long(&place, "run", 100_000)));
    running.wait_until("a checkpoint", first_checkpoint(&place));
    running.signal(1, Signal::SIGTERM);
    let ran = running.end(LIMIT);
    assert!(
        ran.stderr().contains("--resume continues the run"),
        "{}",
        ran.stderr()
    );
    let log = std::fs::read_to_string(place.path("run/log.jsonl")).unwrap();
    assert_eq!(log.lines().count() as u64, newest_checkpoint(&place));
}

#[test]
fn a_loss_that_is_not_finite_ends_all_ranks() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let mut arguments = long(&place, "run", 50);
    for change in [
        "training.schedule.base=1e30",
        "training.schedule.warmup-steps=0",
    ] {
        arguments.extend(["--set".to_owned(), change.to_owned()]);
    }
    let stderr = place.run(place.mpirun(3, &arguments)).failure();
    assert!(
        stderr.contains("hint: lower training.schedule.base"),
        "{stderr}"
    );
    assert!(!place.path("run/model.safetensors").exists());
}

/// The size of files is limited for the first rank alone, as if its disk were full.
#[test]
fn a_full_disk_of_the_first_rank_ends_all_ranks() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let arguments = long(&place, "run", 50);
    // Shared memory would need a file that is as large as a checkpoint.
    let mut command = place.launcher("self,tcp");
    let limited = "ulimit -f 64; exec \"$0\" \"$@\"";
    command.args(["-n", "1", "sh", "-c", limited, env!("CARGO_BIN_EXE_zeg")]);
    command.args(&arguments);
    command
        .args([":", "-n", "2", env!("CARGO_BIN_EXE_zeg")])
        .args(&arguments);
    let stderr = place.run(command).failure();
    assert!(stderr.contains("cannot be written"), "{stderr}");
    assert!(stderr.contains("hint: free some disk space"), "{stderr}");
}

#[test]
fn other_settings_or_data_of_a_rank_are_named() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let (first, mut second) = (long(&place, "run", 4), long(&place, "run", 4));
    second.extend(["--set", "training.seed=5"].map(str::to_owned));
    let stderr = place.run(place.two(&first, &second)).failure();
    assert!(
        stderr.contains("has other inputs than the first one: experiment"),
        "{stderr}"
    );

    let (here, there) = (World::new(), World::new());
    let label = |world: &World| world.labels("2007_000001");
    std::fs::copy(there.labels("2007_000000"), label(&there)).unwrap();
    let run = place.path("other-data");
    let train = |world: &World| -> Vec<String> {
        let paths = [world.config(), world.data(), world.weights(), world.text()];
        let paths = paths.map(|path| path.to_str().unwrap().to_owned());
        let [config, data, weights, text] = paths;
        let words = [
            "train",
            &config,
            "--data",
            &data,
            "--weights",
            &weights,
            "--text",
            &text,
        ];
        let output = [
            "-o",
            run.to_str().unwrap(),
            "--set",
            "training.micro-batch=1",
        ];
        words
            .iter()
            .chain(&output)
            .map(|word| (*word).to_owned())
            .collect()
    };
    let stderr = place
        .run(place.two(&train(&here), &train(&there)))
        .failure();
    assert!(
        stderr.contains("has other inputs than the first one"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: give all hosts the same files"),
        "{stderr}"
    );
}

#[test]
fn more_ranks_than_micro_batches_are_refused() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let mut arguments = place.train("zegclip-inductive", "run");
    arguments.extend(["--set", "training.batch=4"].map(str::to_owned));
    let stderr = place.run(place.mpirun(2, &arguments)).failure();
    assert!(stderr.contains("--set training.micro-batch=2"), "{stderr}");
    // A folder that holds a run is refused by the first rank, which alone looks.
    place.run(zeg(&long(&place, "taken", 2))).success();
    let before = model(&place, "taken");
    let stderr = place
        .run(place.mpirun(2, &long(&place, "taken", 2)))
        .failure();
    assert!(stderr.contains("holds a run already"), "{stderr}");
    assert!(model(&place, "taken") == before);
}

#[test]
fn a_command_for_one_process_is_refused() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let arguments = ["info", "mini"].map(str::to_owned);
    let ran = place.run(place.mpirun(2, &arguments));
    assert!(
        ran.stderr().contains("`zeg info` is work for one"),
        "{}",
        ran.stderr()
    );
}
