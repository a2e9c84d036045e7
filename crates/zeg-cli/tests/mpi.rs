//! The program on MPI: the same results with any number of ranks, and an end of all ranks after any failure.
//!
//! The tests need the feature `mpi` and `mpirun`, and are skipped visibly without the latter.
#![cfg(feature = "mpi")]
#![allow(clippy::unwrap_used)] // in tests

mod common;
#[path = "mpi/failures.rs"]
mod failures;
#[path = "mpi/launch.rs"]
mod launch;
#[path = "mpi/use_of_models.rs"]
mod use_of_models;

use launch::{Place, has_mpirun, model, zeg};

/// Changes that make a run of the mini world short: four micro-batches in a batch of seven.
pub(crate) const SHORT: [&str; 4] = [
    "training.steps=4",
    "training.batch=7",
    "training.micro-batch=2",
    "training.checkpoint-every=2",
];

/// Trains with one process without MPI, and with one, two and three ranks.
fn compare(config: &str, changes: &[&str], options: &[&str]) {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let train = |run: &str| {
        let mut arguments = place.train(config, run);
        for change in SHORT.iter().chain(changes) {
            arguments.extend(["--set".to_owned(), (*change).to_owned()]);
        }
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        arguments
    };
    place.run(zeg(&train("alone"))).success();
    for size in 1..=3 {
        let run = format!("ranks-{size}");
        place.run(place.mpirun(size, &train(&run))).success();
        assert!(
            model(&place, "alone") == model(&place, &run),
            "{config}: the model of {size} ranks differs"
        );
        let manifest = place.json(&format!("{run}/run.json"));
        let count = manifest["ranks"]["count"].as_u64();
        assert_eq!(count, (size > 1).then_some(size as u64), "{manifest}");
        let read = |run: &str, name: &str| std::fs::read_to_string(place.path(run).join(name));
        let losses = |run: &str| -> Vec<serde_json::Value> {
            let log = read(run, "log.jsonl").unwrap();
            let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
            lines
                .map(|line: serde_json::Value| line["loss"].clone())
                .collect()
        };
        assert_eq!(losses("alone"), losses(&run));
    }
}

#[test]
fn zegclip_inductive_gives_the_same_bytes() {
    // The images of the scores on the way are divided, too.
    let scored = ["training.evaluation.every=2", "training.evaluation.limit=9"];
    compare("zegclip-inductive", &scored, &[]);
}

#[test]
fn zegclip_with_cached_copies_gives_the_same_bytes() {
    let cached = ["training.cached-copies=1", "data.mini-world.train=50"];
    compare("baseline-frozen", &cached, &[]);
}

#[test]
fn zegclip_transductive_gives_the_same_bytes() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let mut start = place.train("zegclip-inductive", "start");
    for change in ["training.steps=2", "training.batch=4"] {
        start.extend(["--set".to_owned(), change.to_owned()]);
    }
    place.run(zeg(&start)).success();
    let checkpoint = place.path("start/checkpoint-00000002.safetensors");
    compare(
        "zegclip-transductive",
        &[],
        &["--init", checkpoint.to_str().unwrap()],
    );
}

#[test]
fn clip_rc_gives_the_same_bytes() {
    compare("clip-rc-inductive", &[], &[]);
}

#[test]
fn zegformer_gives_the_same_bytes() {
    compare("zegformer", &[], &[]);
}

#[test]
fn a_run_of_two_ranks_is_continued_with_three() {
    if !has_mpirun() {
        return;
    }
    let place = Place::new();
    let train = |run: &str, steps: &str| {
        let mut arguments = place.train("zegclip-inductive", run);
        for change in SHORT.iter().skip(1).chain([&steps]) {
            arguments.extend(["--set".to_owned(), (*change).to_owned()]);
        }
        arguments
    };
    let steps = "training.steps=6";
    place.run(zeg(&train("alone", steps))).success();
    place
        .run(place.mpirun(2, &train("shared", steps)))
        .success();
    for name in ["model.safetensors", "checkpoint-00000006.safetensors"] {
        std::fs::remove_file(place.path("shared").join(name)).unwrap();
    }
    let mut resumed = train("shared", steps);
    resumed.push("--resume".to_owned());
    place.run(place.mpirun(3, &resumed)).success();
    assert!(
        model(&place, "alone") == model(&place, "shared"),
        "the models differ"
    );
    assert_eq!(place.json("shared/run.json")["ranks"]["count"], 3);
    assert_eq!(place.json("shared/run.json")["first_step"], 4);
}
