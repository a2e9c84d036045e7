//! Segmenting that a signal stops.

use std::{
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use super::*;

/// Number of images that one process has to segment.
const COUNT: usize = 150;

fn many(world: &World) {
    for number in 0..COUNT {
        let file = world.path(&format!("images/{number:03}.jpg"));
        fs::copy(world.image("2007_000000"), file).unwrap();
    }
}

fn start(world: &World, output: &str, more: &[&str]) -> Child {
    Command::new(assert_cmd::cargo::cargo_bin!("zeg"))
        .current_dir(world.folder.path())
        .env("ZEG_CACHE", world.path("cache"))
        .env("ZEG_OFFLINE", "1")
        .args(["segment", "images", "-o", output, "--threads", "1"])
        .args(["--model", "mini", "--classes", "red,blue"])
        .args(["--write", "labels,coco"])
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Sends a signal as soon as some images are finished; returns how the process ended.
fn stop(world: &World, output: &str, signal: &str, more: &[&str]) -> ExitStatus {
    let journal = world.path(output).join(".zeg-segment.jsonl");
    let finished = || {
        let text = fs::read_to_string(&journal).unwrap_or_default();
        text.matches("\"done\"").count()
    };
    let before = finished();
    let child = start(world, output, more);
    let started = Instant::now();
    while finished() < before + 3 && started.elapsed() < Duration::from_mins(1) {
        sleep(Duration::from_millis(2));
    }
    send(child, signal)
}

/// Sends a signal to a process; returns how it ended.
fn send(mut child: Child, signal: &str) -> ExitStatus {
    let mut kill = Command::new("kill");
    let sent = kill.args([format!("-{signal}"), child.id().to_string()]);
    assert!(sent.status().unwrap().success());
    child.wait().unwrap()
}

/// Returns the number of images in the COCO file of a folder.
fn images_in_coco(folder: &Path) -> usize {
    let coco = fs::read(folder.join("coco.json")).unwrap();
    let coco: Value = serde_json::from_slice(&coco).unwrap();
    coco["images"].as_array().unwrap().len()
}

#[test]
fn a_signal_ends_with_its_exit_code_and_loses_nothing_that_is_finished() {
    let world = world();
    many(&world);
    assert!(start(&world, "whole", &[]).wait().unwrap().success());
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let status = stop(&world, signal, signal, &[]);
        assert_eq!(status.code(), Some(code), "{signal}: {status}");
        let folder = world.path(signal);
        for entry in fs::read_dir(&folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.contains(".tmp"), "{name}");
        }
        let finished = images_in_coco(&folder);
        assert!((3..COUNT).contains(&finished), "{signal}: {finished}");
        // Whenever a run that goes on is stopped, no image that was finished is missing then.
        for delay in [50, 200] {
            let resumed = start(&world, signal, &["--resume"]);
            sleep(Duration::from_millis(delay));
            let _ = send(resumed, signal);
            assert!(images_in_coco(&folder) >= finished, "{signal}");
        }
        let resumed = start(&world, signal, &["--resume"]).wait().unwrap();
        assert!(resumed.success());
        assert_same(&world, "whole", signal);
    }
}

#[test]
fn a_killed_run_is_continued_and_its_temporary_files_are_removed() {
    let world = world();
    many(&world);
    assert!(start(&world, "whole", &[]).wait().unwrap().success());
    assert_eq!(stop(&world, "killed", "KILL", &[]).code(), None);
    assert!(!world.path("killed/coco.json").exists());
    let resumed = start(&world, "killed", &["--resume"]).wait().unwrap();
    assert!(resumed.success());
    assert_same(&world, "whole", "killed");
}

#[test]
fn a_stopped_overwrite_leaves_the_whole_shared_files_until_it_is_complete() {
    let world = world();
    many(&world);
    assert!(start(&world, "out", &[]).wait().unwrap().success());
    let before = fs::read(world.path("out/coco.json")).unwrap();
    let other = ["--overwrite", "--threshold", "0.5"];
    for json in ["stopped.json", "again.json"] {
        let more = [&other[..], &["--json", json]].concat();
        let status = stop(&world, "out", "INT", &more);
        assert_eq!(status.code(), Some(130), "{status}");
        assert!(fs::read(world.path("out/coco.json")).unwrap() == before);
        let result: Value = serde_json::from_slice(&fs::read(world.path(json)).unwrap()).unwrap();
        let done = result["images"].as_array().unwrap().len() as u64;
        let not_reached = result["not_reached"].as_u64().unwrap();
        assert_eq!(done + not_reached, (COUNT + IMAGES.len()) as u64);
    }
    let resume = [&other[..], &["--resume"]].concat();
    assert!(start(&world, "out", &resume).wait().unwrap().success());
    let fresh = start(&world, "fresh", &other).wait().unwrap();
    assert!(fresh.success());
    assert_same(&world, "fresh", "out");
}
