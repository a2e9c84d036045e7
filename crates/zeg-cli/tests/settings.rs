//! The settings of training (inductive, transductive, fully supervised), ablation suites and validation.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use common::{World, failure, failure_with};

#[test]
fn transductive_training_starts_from_an_inductive_model() {
    let world = World::new();
    world.train("inductive").assert().success();
    let transductive = |more: &[&str]| {
        let mut command = world.train("transductive");
        command.args(["--set", "training.setting=transductive"]);
        command
            .args(["--set", "inference.seen-offset=0.0"])
            .args(more);
        command
    };
    let text = failure(&mut transductive(&[]));
    assert!(text.contains("--init"), "{text}");
    transductive(&["--init", "inductive/checkpoint-00000004.safetensors"])
        .assert()
        .success();
    let record = |run: &str| {
        let model = format!("{run}/model.safetensors");
        world
            .zeg()
            .args([
                "eval",
                &model,
                "--data",
                "VOC2012",
                "-o",
                &format!("{run}/scores"),
            ])
            .assert()
            .success();
        zeg::eval::Evaluation::open(world.path(&format!("{run}/scores"))).unwrap()
    };
    assert_eq!(record("inductive").protocol.name(), "inductive");
    assert_eq!(
        record("transductive").protocol.name(),
        "transductive-unseen"
    );
    // Optimiser and schedule start anew, so there are six steps again.
    let log = std::fs::read_to_string(world.path("transductive/log.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 6);
}

/// Micro-batches must not change the normalisation of the loss on pseudo-labels.
/// Removes what a run of six steps wrote after its manifest.
fn end_before_the_first_checkpoint(world: &World, run: &str) {
    for name in ["model", "checkpoint-00000004", "checkpoint-00000006"] {
        std::fs::remove_file(world.path(&format!("{run}/{name}.safetensors"))).unwrap();
    }
}

#[test]
fn a_run_that_continues_starts_from_the_checkpoint_that_it_began_with() {
    let world = World::new();
    world.train("first").assert().success();
    let run = |more: &[&str]| {
        let mut command = world.train("run");
        command.args(more);
        command
    };
    let init = ["--init", "first/checkpoint-00000004.safetensors"];
    run(&init).assert().success();
    let model = || std::fs::read(world.path("run/model.safetensors")).unwrap();
    let before = model();
    end_before_the_first_checkpoint(&world, "run");
    let other = ["--resume", "--init", "first/model.safetensors"];
    let text = failure(&mut run(&other));
    assert!(
        text.contains("the run in run began with the weights of") && text.contains("hint:"),
        "{text}"
    );
    let output = run(&["--resume"]).assert().success();
    let text = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(text.contains("starting from step 4 of"), "{text}");
    assert!(model() == before);
    // A run without --init does not get one later.
    let text = failure(world.train("first").args(init).arg("--resume"));
    assert!(text.contains("began without --init"), "{text}");
}

/// Without its manifest a run does not know the model that gives the pseudo labels, and does not take another.
#[test]
fn a_run_that_continues_keeps_its_teacher() {
    let world = World::new();
    world.train("first").assert().success();
    let run = |more: &[&str]| {
        let mut command = world.train("run");
        command.args(["--set", "training.setting=transductive"]);
        command.args(["--set", "training.pseudo-labels=unlabelled-pixels"]);
        command.args(["--set", "training.self-training.teacher=start"]);
        command.args(["--set", "training.self-training.candidates=unseen-winners"]);
        command.args(["--set", "inference.seen-offset=0.0"]);
        command.args(more);
        command
    };
    let mut begun = run(&["--init", "first/model.safetensors"]);
    begun.assert().success();
    let model = || std::fs::read(world.path("run/model.safetensors")).unwrap();
    let before = model();
    for name in ["model", "checkpoint-00000006"] {
        std::fs::remove_file(world.path(&format!("run/{name}.safetensors"))).unwrap();
    }
    std::fs::rename(world.path("run/run.json"), world.path("run.json")).unwrap();
    let text = failure(run(&["--resume"]).env("NO_COLOR", "1"));
    assert!(
        text.contains("no run.json says which it was")
            && text.contains("hint: name that checkpoint with --init"),
        "{text}"
    );
    std::fs::rename(world.path("run.json"), world.path("run/run.json")).unwrap();
    // The file may have moved.
    let moved = world.path("moved.safetensors");
    std::fs::rename(world.path("first/model.safetensors"), moved).unwrap();
    let mut resumed = run(&["--resume", "--init", "moved.safetensors"]);
    resumed.assert().success();
    assert!(model() == before);
}

/// Labels of the same size are other labels, and a run without a checkpoint has facts, too.
#[test]
fn a_run_is_not_continued_with_other_labels_to_be_scored_by() {
    let world = World::new();
    let run = || {
        let mut command = world.train("run");
        command.args(["--set", "training.evaluation={ every = 2, limit = 2 }"]);
        command
    };
    run().assert().success();
    end_before_the_first_checkpoint(&world, "run");
    let labels = world.labels("2007_000004");
    let mut bytes = std::fs::read(&labels).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&labels, bytes).unwrap();
    let text = failure(run().arg("--resume"));
    assert!(
        text.contains("run.json: the run was trained on other data")
            && text.contains("evaluation split: files: label content"),
        "{text}"
    );
}

#[test]
fn transductive_micro_batches_do_not_change_the_loss() {
    let world = World::new();
    // Dropout differs between the micro-batches.
    let no_dropout = [
        "--set",
        "model.prompts.dropout=0.0",
        "--set",
        "model.head.dropout=0.0",
    ];
    world.train("inductive").args(no_dropout).assert().success();
    let loss = |run: &str, micro_batch: &str| {
        world
            .train(run)
            .args([
                "--set",
                "training.setting=transductive",
                "--set",
                "training.steps=1",
            ])
            .args(["--set", &format!("training.micro-batch={micro_batch}")])
            .args(no_dropout)
            .args(["--init", "inductive/model.safetensors"])
            .assert()
            .success();
        let log = std::fs::read_to_string(world.path(&format!("{run}/log.jsonl"))).unwrap();
        let line: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        line["loss"].as_f64().unwrap()
    };
    let (whole, parts) = (loss("whole", "3"), loss("parts", "1"));
    assert!((whole - parts).abs() < 1e-5 * whole, "{whole} {parts}");
}

#[test]
fn fully_supervised_training_knows_every_class() {
    let world = World::new();
    world
        .train("full")
        .args(["--set", "training.setting=fully-supervised"])
        .assert()
        .success();
    let info = world
        .zeg()
        .args(["info", "full/model.safetensors", "--json"])
        .assert()
        .success();
    let info: serde_json::Value = serde_json::from_slice(&info.get_output().stdout).unwrap();
    assert_eq!(info["setting"], "fully-supervised");
}

/// Every row of the paper's ablation trains and can be scored.
#[test]
fn every_design_of_the_ablation_trains() {
    let world = World::new();
    for (number, changes) in [
        vec!["model.head.query=text"],
        vec!["model.head.query=product-abs-difference-text"],
        vec!["training.objective=binary-cross-entropy"],
        vec![
            "training.objective=cross-entropy",
            "model.head.scoring=softmax",
        ],
        vec!["model.tune-encoder=true"],
    ]
    .into_iter()
    .enumerate()
    {
        let run = format!("run-{number}");
        let mut command = world.train(&run);
        for change in &changes {
            command.args(["--set", change]);
        }
        command.assert().success();
        let log = std::fs::read_to_string(world.path(&format!("{run}/log.jsonl"))).unwrap();
        let loss = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["loss"].as_f64().unwrap()
        };
        let (first, last) = (log.lines().next().unwrap(), log.lines().last().unwrap());
        assert!(loss(last) < loss(first), "{changes:?}: {log}");
        let model = std::fs::read(world.path(&format!("{run}/model.safetensors"))).unwrap();
        let header = String::from_utf8_lossy(&model[..8000]).into_owned();
        let tuned = changes[0] == "model.tune-encoder=true";
        assert_eq!(header.contains("backbone.conv1"), tuned, "{changes:?}");
        world
            .zeg()
            .args([
                "eval",
                &format!("{run}/model.safetensors"),
                "--data",
                "VOC2012",
            ])
            .assert()
            .success();
    }
}

#[test]
fn an_objective_that_does_not_fit_the_scores_is_refused() {
    let world = World::new();
    let text = failure(
        world
            .train("run")
            .args(["--set", "training.objective=cross-entropy"]),
    );
    assert!(text.contains("model.head.scoring"), "{text}");
}

const SUITE: &str = r#"
title = "Two rows"
base = "experiment.toml"
table = "designs"
seeds = [0, 1]
set = ["training.steps=3"]

[[rows]]
name = "with"
published = "Baseline-DPT + NEL + RD = ZegCLIP"

[[rows]]
name = "without"
published = "Baseline-DPT + NEL"
set = ["model.head.query=text"]
"#;

#[test]
fn a_suite_runs_continues_and_writes_a_table() {
    let world = World::new();
    std::fs::write(world.path("suite.toml"), SUITE).unwrap();
    let ablate = |more: &[&str]| {
        let mut command = world.zeg();
        command.args(["ablate", "suite.toml", "--data", "VOC2012"]);
        command.args([
            "--weights",
            "tower.safetensors",
            "--text",
            "text.safetensors",
        ]);
        command.args(["-o", "suite"]).args(more);
        command
    };
    ablate(&["--only", "with", "--seeds", "1"])
        .assert()
        .success();
    let state = ablate(&["--dry-run"]).assert().success();
    let state = String::from_utf8(state.get_output().stdout.clone()).unwrap();
    assert_eq!(
        (
            state.matches("scored").count(),
            state.matches("left").count()
        ),
        (1, 3)
    );
    let done = std::fs::metadata(world.path("suite/with/seed-1/model.safetensors")).unwrap();
    ablate(&["--json", "table.json"]).assert().success();
    let again = std::fs::metadata(world.path("suite/with/seed-1/model.safetensors")).unwrap();
    assert_eq!(done.modified().unwrap(), again.modified().unwrap());
    let table: serde_json::Value =
        serde_json::from_slice(&std::fs::read(world.path("table.json")).unwrap()).unwrap();
    assert_eq!(table["rows"].as_array().unwrap().len(), 2);
    assert_eq!(table["rows"][0]["scores"]["runs"], 2);
    assert!(table["rows"][0]["scores"]["p_acc"]["std"].is_number());
    assert_eq!(table["rows"][1]["published"]["miou_unseen"], 40.4);
    let text = std::fs::read_to_string(world.path("suite/ablation.md")).unwrap();
    assert!(
        text.contains("not comparable") && text.contains("| without | 2 |"),
        "{text}"
    );
    // Scores of labels that were replaced since are not shown beside new ones.
    let labels = world.labels("2007_000004");
    let intact = std::fs::read(&labels).unwrap();
    std::fs::copy(world.labels("2007_000005"), &labels).unwrap();
    let state = ablate(&["--dry-run"]).assert().success();
    let output = state.get_output();
    let list = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(list.matches("trained").count(), 4, "{list}");
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(
        told.contains("scored again: images: file contents 2 ("),
        "{told}"
    );
    std::fs::write(&labels, intact).unwrap();
    let state = ablate(&["--dry-run"]).assert().success();
    let list = String::from_utf8(state.get_output().stdout.clone()).unwrap();
    assert_eq!(list.matches("scored").count(), 4, "{list}");
    // A run with other settings in the same folder is refused.
    let text = failure(&mut ablate(&["--set", "training.batch=2"]));
    assert!(text.contains("other settings"), "{text}");
    let text = failure(&mut ablate(&["--only", "wihtout"]));
    assert!(text.contains("without"), "{text}");
    // Twice the same run would be shown as two.
    for (twice, named) in [
        (["--seeds", "1,1"], "seed 1 is named twice"),
        (
            ["--weights", "tower.safetensors"],
            "tower.safetensors is named twice",
        ),
    ] {
        let text = failure_with(2, &mut ablate(&twice));
        assert!(text.contains(named), "{text}");
    }
    std::fs::write(world.path("twice.toml"), SUITE.replace("[0, 1]", "[0, 0]")).unwrap();
    let twice = ["ablate", "twice.toml", "--weights", "tower.safetensors"];
    let text = failure(world.zeg().args(twice).args(["-o", "twice"]));
    assert!(text.contains("seed 0 is named twice"), "{text}");
    // Finished runs are not shown beside others if the labels or the weights have changed since.
    let list = world.path("VOC2012/ImageSets/Segmentation/train.txt");
    let ids = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, ids.split_once('\n').unwrap().1).unwrap();
    let text = failure(&mut ablate(&["--dry-run"]));
    assert!(
        text.contains("other data or weights: files: label content"),
        "{text}"
    );
    assert!(text.contains("images 4 ("), "{text}");
    std::fs::write(&list, ids).unwrap();
    ablate(&["--dry-run"]).assert().success();
    let mut weights = std::fs::read(world.weights()).unwrap();
    weights.push(0);
    std::fs::write(world.weights(), weights).unwrap();
    let text = failure(&mut ablate(&["--dry-run"]));
    assert!(text.contains("weights: SHA-256"), "{text}");
}

const CHOOSING: &str = r#"
title = "Chosen"
base = "experiment.toml"
seeds = [0, 1]
set = ["training.steps=3"]
offsets = [0.1, 0.5]

[choose]
train-split = "train:not-1/2"
eval-split = "train:1/2"
seed = 7
settings = [["training.schedule.base=1e-3"], ["training.schedule.base=1e-2"]]

[[rows]]
name = "one"

[[rows]]
name = "other"
set = ["model.head.query=text"]
offsets = [0.25]
"#;

#[test]
fn a_suite_chooses_settings_and_offset_on_other_images() {
    let world = World::new();
    std::fs::write(world.path("suite.toml"), CHOOSING).unwrap();
    let ablate = |more: &[&str]| {
        let mut command = world.zeg();
        command.args(["ablate", "suite.toml", "--data", "VOC2012"]);
        let sources = ["--weights", "tower.safetensors", "--text"];
        command.args(sources).arg("text.safetensors");
        command.args(["-o", "suite"]).args(more);
        command
    };
    let state = ablate(&["--dry-run"]).assert().success();
    let state = String::from_utf8(state.get_output().stdout.clone()).unwrap();
    assert_eq!(state.matches("left").count(), 8, "{state}");
    ablate(&["--json", "table.json"]).assert().success();

    let json = |path: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(world.path(path)).unwrap()).unwrap()
    };
    let table = json("table.json");
    let hiou = |record: &str| {
        let record = zeg::eval::Evaluation::open(world.path(record)).unwrap();
        let report = record.report().unwrap();
        report.hiou.or(report.miou).unwrap()
    };
    for (row, offsets) in [("one", &["0", "0.1", "0.5"][..]), ("other", &["0", "0.25"])] {
        let of_row = table["rows"].as_array().unwrap().iter();
        let entry = of_row
            .into_iter()
            .find(|entry| entry["name"] == row)
            .unwrap();
        let choice = &entry["choice"];
        let folder = |candidate| format!("suite/choose/{row}/candidate-{candidate}");
        // The choice is the best of all candidates and offsets, on images that were not trained on.
        let mut best = f64::NEG_INFINITY;
        for candidate in [1, 2] {
            let trained = json(&format!("{}/run.json", folder(candidate)));
            let data = &trained["experiment"]["data"];
            assert_eq!(data["train-split"], "train:not-1/2");
            for offset in offsets {
                let record = format!("{}/scores/offset-{offset}", folder(candidate));
                let written = json(&format!("{record}/evaluation.json"));
                assert_eq!(written["benchmark"]["split"], "train:1/2");
                assert_eq!(written["images"], 2);
                best = best.max(hiou(&record));
            }
        }
        assert!((choice["score"].as_f64().unwrap() - best).abs() < 1e-12);
        // The runs use the choice, train on all training images, and are scored on the images of the table.
        let run = json(&format!("suite/{row}/seed-1/run.json"));
        let setting = choice["settings"][0].as_str().unwrap();
        let base = run["experiment"]["training"]["schedule"]["base"].as_f64();
        assert_eq!(base, setting.split_once('=').unwrap().1.parse().ok());
        assert_eq!(run["experiment"]["data"]["train-split"], "train");
        let offset = choice["offset"].as_f64().unwrap();
        let record = json(&format!(
            "suite/{row}/seed-1/scores/offset-{offset}/evaluation.json"
        ));
        assert_eq!(record["benchmark"]["split"], "val");
        assert!(entry["uncalibrated"]["p_acc"]["mean"].is_number());
    }
    let text = std::fs::read_to_string(world.path("suite/ablation.md")).unwrap();
    assert!(text.contains("training.schedule.base=1e-"), "{text}");
    // No run is left, and no run is repeated.
    let state = ablate(&["--dry-run"]).assert().success();
    let state = String::from_utf8(state.get_output().stdout.clone()).unwrap();
    assert_eq!(state.matches("scored").count(), 8, "{state}");

    let without = CHOOSING.replace("[choose]", "[chose]");
    std::fs::write(world.path("suite.toml"), without).unwrap();
    assert!(failure(&mut ablate(&[])).contains("chose"));
}

#[test]
fn validation_chooses_the_best_model() {
    let world = World::new();
    world
        .train("run")
        .args(["--set", "training.evaluation={ every = 2, limit = 1 }"])
        .assert()
        .success();
    let text = std::fs::read_to_string(world.path("run/scores.jsonl")).unwrap();
    let scores: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let steps: Vec<u64> = scores.iter().map(|s| s["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [2, 4, 6]);
    let value =
        |score: &serde_json::Value| score["hIoU"].as_f64().or(score["mIoU"].as_f64()).unwrap();
    let best = scores.iter().fold(&scores[0], |best, score| {
        if value(score) > value(best) {
            score
        } else {
            best
        }
    });
    let info = world
        .zeg()
        .args(["info", "run/best.safetensors", "--json"])
        .assert()
        .success();
    let info: serde_json::Value = serde_json::from_slice(&info.get_output().stdout).unwrap();
    assert_eq!(info["trained_steps"], best["step"]);
}
