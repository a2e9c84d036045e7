//! Several methods and seeds on one page.

use super::*;

/// A second method on the same images as `evaluation("voc20", 0..60, 1)`.
pub(crate) fn other_method(seed: u64) -> Evaluation {
    let mut other = evaluation("voc20", 0..60, seed);
    other.method = "CLIP-RC".into();
    other
}

/// Checks that a report of these evaluations shows no mean and no deviation in any format.
fn assert_nothing_is_averaged(input: &ReportInput) {
    let (page, text, csv) = (
        html(input),
        to_markdown(input).unwrap(),
        to_csv(input).unwrap(),
    );
    for text in [&page, &text] {
        for sign in [
            "±",
            "Mean of",
            "id=\"headline\"",
            "Run 1",
            "Pixels are summed",
        ] {
            assert!(!text.contains(sign), "{sign}");
        }
        assert!(text.contains("No mean is given"), "{text}");
    }
    assert!(!csv.contains("mean,"), "{csv}");
}

#[test]
fn different_methods_stand_side_by_side_under_their_names() {
    let input = input("x", vec![evaluation("voc20", 0..60, 1), other_method(2)]);
    assert_nothing_is_averaged(&input);
    let text = to_markdown(&input).unwrap();
    assert!(
        text.contains("because the evaluations differ in method."),
        "{text}"
    );
    for run in &input.runs {
        let method = &run.evaluation.method;
        let report = run.evaluation.report().unwrap();
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| **{method}** |")))
            .unwrap();
        let hiou = format!("{:.2}", 100.0 * report.hiou.unwrap());
        assert!(row.contains(&hiou), "{row}");
    }
    let iou = |run: usize, class: usize| {
        let report = input.runs[run].evaluation.report().unwrap();
        format!("{:.2}", 100.0 * report.classes[class].iou.unwrap())
    };
    assert!(
        text.contains("| class | ZegCLIP | CLIP-RC | share of pixels |"),
        "{text}"
    );
    let row = format!("| sheep | {} | {} |", iou(0, 16), iou(1, 16));
    assert!(text.contains(&row), "{row}: {text}");
    let csv = to_csv(&input).unwrap();
    assert!(csv.contains("\r\nZegCLIP,summary,") && csv.contains("\r\nCLIP-RC,summary,"));
}

/// Two seeds of one method beside another method: the mean is over the seeds, and nothing is over both methods.
#[test]
fn seeds_of_one_method_have_a_mean_beside_other_methods() {
    let seeds = [evaluation("voc20", 0..60, 1), evaluation("voc20", 0..60, 2)];
    let mean = Summary::of(&seeds).unwrap().hiou.unwrap();
    let input = input("x", [&seeds[..], &[other_method(3)]].concat());
    let text = to_markdown(&input).unwrap();
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| **Mean of"))
        .collect();
    assert_eq!(rows.len(), 1, "{text}");
    assert!(
        rows[0].starts_with("| **Mean of 2 runs: ZegCLIP** |"),
        "{text}"
    );
    let shown = mean.percent().replace("± ", "±\u{a0}");
    assert!(rows[0].contains(&shown), "{}", rows[0]);
    assert!(
        text.contains("Means are over seeds of one configuration."),
        "{text}"
    );
    let page = html(&input);
    assert!(page.contains("Mean of 2 runs: ZegCLIP") && !page.contains("Pixels are summed"));
}

#[test]
fn confusion_matrices_are_not_summed_over_methods() {
    let runs = vec![evaluation("voc20", 0..60, 1), other_method(2)];
    let alone: Vec<String> = runs
        .iter()
        .map(|run| html(&input("x", vec![run.clone()])))
        .collect();
    let page = html(&input("x", runs));
    let matrix = |page: &str| -> Vec<String> {
        let images = page.split("<div class=\"plot\"><img src=\"").skip(1);
        images
            .map(|rest| rest.split_once('"').unwrap().0.to_owned())
            .collect()
    };
    assert_eq!(
        matrix(&page),
        [matrix(&alone[0]), matrix(&alone[1])].concat()
    );
    // Seeds of one configuration are summed.
    let seeds = (1..3)
        .map(|seed| evaluation("voc20", 0..60, seed))
        .collect();
    let page = html(&input("x", seeds));
    assert_eq!(matrix(&page).len(), 1);
    assert!(page.contains("Pixels are summed over all runs."));
}

#[test]
fn only_seeds_of_one_configuration_are_averaged() {
    let runs = || vec![evaluation("voc20", 0..60, 1), evaluation("voc20", 0..60, 2)];
    let averaged = to_markdown(&input("x", runs())).unwrap();
    assert!(averaged.contains("| **Mean of 2 runs** |"), "{averaged}");
    let changes: [(&str, Change); 8] = [
        ("differ in protocol", |e| {
            e.protocol = Protocol::FullySupervised;
        }),
        ("differ in training data set", |e| e.trained_on = None),
        ("differ in prompt templates", |e| {
            e.templates = "multiple".into();
        }),
        ("differ in inference settings", |e| {
            e.inference["seen-offset"] = json!(0.3);
        }),
        ("differ in test-time scales", |e| e.scales = vec![0.5]),
        ("differ in test-time flip", |e| e.flip = true),
        ("differ in training step", |e| e.model.step = Some(10_000)),
        ("not of different seeds", |e| e.model.seed = None),
    ];
    for (reason, change) in changes {
        let mut runs = runs();
        change(&mut runs[1]);
        let mean = Summary::of(&runs);
        assert!(
            matches!(
                mean,
                Err(EvalError::Differs { .. } | EvalError::NotSeeds { .. })
            ),
            "{reason}"
        );
        let input = input("x", runs);
        assert_nothing_is_averaged(&input);
        let text = to_markdown(&input).unwrap();
        assert!(text.contains(reason), "{reason}: {text}");
    }
    // one seed of two different trainings
    let mut same_seed = runs();
    same_seed[1].model.seed = Some(1);
    assert!(matches!(
        Summary::of(&same_seed),
        Err(EvalError::NotSeeds { .. })
    ));
    assert_nothing_is_averaged(&input("x", same_seed));
    // another learning rate, which only the experiment tells
    let experiment =
        |seed: u64, rate: f64| Some(format!("[training]\nseed = {seed}\nrate = {rate}\n"));
    let mut experiments = input("x", runs());
    experiments.runs[0].experiment = experiment(1, 0.1);
    experiments.runs[1].experiment = experiment(2, 0.1);
    assert!(
        to_markdown(&experiments)
            .unwrap()
            .contains("Mean of 2 runs")
    );
    experiments.runs[1].experiment = experiment(2, 0.2);
    assert_nothing_is_averaged(&experiments);
}

#[test]
fn evaluations_of_one_method_are_named_after_their_folders() {
    let names = |folders: [&str; 3]| -> Vec<String> {
        let mut runs = vec![evaluation("voc20", 0..60, 1); 2];
        runs.push(other_method(3));
        let mut input = input("x", runs);
        for (run, folder) in input.runs.iter_mut().zip(folders) {
            run.folder = folder.into();
        }
        let csv = to_csv(&input).unwrap();
        let summaries = records(&csv)
            .into_iter()
            .filter(|record| record[1] == "summary" && record[4] == "hIoU");
        summaries.map(|record| record[0].clone()).collect()
    };
    assert_eq!(
        names(["runs/a/scores", "runs/b/scores", "runs/c/scores"]),
        ["ZegCLIP (a)", "ZegCLIP (b)", "CLIP-RC"]
    );
    assert_eq!(
        names(["scores/offset-0", "scores/offset-0.1", "other"]),
        [
            "ZegCLIP (scores/offset-0)",
            "ZegCLIP (scores/offset-0.1)",
            "CLIP-RC"
        ]
    );
    assert_eq!(
        names(["scores"; 3]),
        ["ZegCLIP (scores), 1", "ZegCLIP (scores), 2", "CLIP-RC"]
    );
}

#[test]
fn a_training_free_method_stands_beside_a_trained_one() {
    let mut clip = evaluation("voc20", 0..60, 2);
    clip.method = "CLIP".into();
    clip.protocol = Protocol::TrainingFree;
    clip.trained_on = None;
    clip.model.seed = None;
    clip.model.step = None;
    for class in &mut clip.classes {
        class.unseen = false;
    }
    for runs in [
        vec![evaluation("voc20", 0..60, 1), clip.clone()],
        vec![clip.clone(), evaluation("voc20", 0..60, 1)],
    ] {
        let input = input("x", runs);
        assert_nothing_is_averaged(&input);
        let text = to_markdown(&input).unwrap();
        assert!(
            text.contains("| method | pAcc | mIoU(S) | mIoU(U) | hIoU | mIoU | source |"),
            "{text}"
        );
        let row = text
            .lines()
            .find(|line| line.starts_with("| **CLIP** |"))
            .unwrap();
        assert!(
            row.contains(" | – | – | – | ") && row.contains("training-free"),
            "{row}"
        );
        assert!(text.contains("follow different protocols: their scores are not comparable"));
        assert!(
            text.contains("## Unseen classes") && !text.contains("published: "),
            "{text}"
        );
        assert!(html(&input).contains("training-free"));
    }
}
