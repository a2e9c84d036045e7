//! Evaluations of several models.

use super::*;

#[test]
fn several_seeds_give_mean_and_deviation() {
    let world = World::new();
    trained(&world, "a", 1);
    trained(&world, "b", 2);
    let models = ["a/model.safetensors", "b/model.safetensors"];
    eval(&world, &models, &["-o", "scores", "--json", "summary.json"]);
    let summary = json(&world, "summary.json");
    assert_eq!(summary["runs"], 2);
    let of = |run: &str| {
        let record = zeg::eval::Evaluation::open(world.path(&format!("scores/{run}"))).unwrap();
        record.report().unwrap().p_acc.unwrap()
    };
    let (a, b) = (of("a"), of("b"));
    let mean = summary["p_acc"]["mean"].as_f64().unwrap();
    let std = summary["p_acc"]["std"].as_f64().unwrap();
    assert!((mean - f64::midpoint(a, b)).abs() < 1e-12);
    assert!((std - (a - b).abs() / 2_f64.sqrt()).abs() < 1e-12);

    world
        .zeg()
        .args(["report", "scores", "-o", "report"])
        .assert()
        .success();
    let page = fs::read_to_string(world.path("report/report.html")).unwrap();
    assert!(!page.contains("src=\"http") && !page.contains("url(http"));
    for name in ["report.md", "report.csv"] {
        assert!(world.path("report").join(name).is_file());
    }
    let text = failure(world.zeg().args(["report", "VOC2012", "-o", "other"]));
    assert!(text.contains("evaluation.json"), "{text}");
}

/// Several models: each prints its scores, a table compares them, and only seeds of one configuration have a mean.
#[test]
fn several_models_are_scored_one_after_the_other_and_only_seeds_are_averaged() {
    let world = World::new();
    trained(&world, "a", 1);
    trained(&world, "b", 2);
    let other = ["--set", "model.head.query=text"];
    world.train("c").args(other).assert().success();
    let models = ["a", "c", "b"].map(|run| format!("{run}/model.safetensors"));
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let mut command = world.zeg();
    command.arg("eval").args(&models);
    command.args(["--data", "VOC2012", "--split", "train", "-o", "scores"]);
    let output = command.args(["--json", "several.json"]).output().unwrap();
    let (out, told) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("warning: no mean over these models: "),
        "{told}"
    );
    let places: Vec<usize> = models
        .iter()
        .map(|model| out.find(model).unwrap())
        .collect();
    assert!(places.is_sorted(), "{out}");
    // A table per model, and one that compares them.
    assert_eq!(out.matches("images").count(), 3, "{out}");
    let (_, comparison) = out.split_at(out.rfind(" model ").unwrap());
    assert!(
        models.iter().all(|model| comparison.contains(model)),
        "{out}"
    );
    assert!(comparison.contains("mean of 2 seeds"), "{out}");

    let several = json(&world, "several.json");
    for (number, run) in ["a", "c", "b"].iter().enumerate() {
        let record = zeg::eval::Evaluation::open(world.path(&format!("scores/{run}"))).unwrap();
        let scores = serde_json::to_value(record.report().unwrap()).unwrap();
        assert_eq!(several["models"][number]["scores"], scores, "{run}");
        assert_eq!(several["models"][number]["model"], models[number]);
    }
    let means = several["means"].as_array().unwrap();
    assert_eq!(means.len(), 1);
    assert_eq!(
        means[0]["models"],
        serde_json::json!([models[0], models[2]])
    );
    assert_eq!(means[0]["scores"]["runs"], 2);
    assert!(several["runs"].is_null(), "no mean over all: {several}");
}

/// A model that cannot be opened is named, and the others keep their scores and records.
#[test]
fn one_model_that_cannot_be_opened_does_not_lose_the_scores_of_others() {
    let world = World::new();
    trained(&world, "a", 1);
    trained(&world, "b", 2);
    fs::write(world.path("broken.safetensors"), "no weights").unwrap();
    let models = [
        "a/model.safetensors",
        "broken.safetensors",
        "no-such-file.safetensors",
        "b/model.safetensors",
    ];
    let eval = |models: &[&str]| {
        let mut command = world.zeg();
        command.arg("eval").args(models);
        command.args(["--data", "VOC2012", "--split", "train", "--overwrite"]);
        command.args(["-o", "scores", "--json", "scores.json"]);
        command
    };
    let text = failure(&mut eval(&models));
    assert!(
        text.contains("error: broken.safetensors is not scored: "),
        "{text}"
    );
    assert!(
        text.contains("error: 2 of 4 models could not be scored"),
        "{text}"
    );
    let scores = json(&world, "scores.json");
    assert_eq!(scores["models"].as_array().unwrap().len(), 2);
    assert_eq!(scores["failed"].as_array().unwrap().len(), 2);
    assert_eq!(scores["failed"][1]["path"], "no-such-file.safetensors");
    assert_eq!(scores["runs"], 2);
    for run in ["a", "b"] {
        assert!(world.path("scores").join(run).is_dir(), "{run}");
    }
    // If none is left, there is an error in place of scores.
    let text = failure(&mut eval(&models[1..3]));
    assert!(
        text.contains("error: none of the 2 models could be scored"),
        "{text}"
    );
    let scores = json(&world, "scores.json");
    assert_eq!(scores["error"]["exit_code"], 1);
}

#[test]
fn models_of_one_frozen_encoder_are_scored_together_with_the_same_result() {
    let world = World::new();
    let text = fs::read_to_string(world.config()).unwrap();
    fs::write(world.config(), text.replace("prompts =", "# prompts =")).unwrap();
    trained(&world, "a", 1);
    trained(&world, "b", 2);
    let models = ["a/model.safetensors", "b/model.safetensors"];
    let output = world
        .zeg()
        .arg("eval")
        .args(models)
        .args([
            "--data",
            "VOC2012",
            "--split",
            "train",
            "--in-runs",
            "together",
        ])
        .assert()
        .success();
    let told = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(told.contains("2 models with one encoder"), "{told}");
    for run in ["a", "b"] {
        let model = format!("{run}/model.safetensors");
        eval(&world, &[&model], &["-o", "alone", "--overwrite"]);
        let alone = json(&world, "alone/evaluation.json");
        let together = json(&world, &format!("{run}/together/evaluation.json"));
        for key in ["confusion", "images", "model"] {
            assert_eq!(together[key], alone[key], "{run}: {key}");
        }
    }
    assert_ne!(
        json(&world, "a/together/evaluation.json")["confusion"],
        json(&world, "b/together/evaluation.json")["confusion"]
    );
}
