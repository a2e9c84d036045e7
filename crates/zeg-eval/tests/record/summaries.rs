//! Means over seeds, and comparisons of models.

use super::*;

/// A mean over seeds, and a table of methods, are of labels that were read alike.
#[test]
fn scores_on_labels_that_were_read_differently_are_not_averaged() {
    let runs = |part: &str| {
        let mut runs = [1, 2].map(|seed| evaluation("voc20", 0..30, seed));
        runs[1].fingerprint = runs[1].fingerprint.clone().with(part, "other");
        runs
    };
    for part in [
        "images: file contents",
        "label rule: kind",
        "weights: SHA-256",
    ] {
        let error = Summary::of(&runs(part)).unwrap_err();
        assert!(
            matches!(error, EvalError::OtherFact { .. }),
            "{part}: {error}"
        );
    }
}

/// Two records of as many images are not of the same images if each skipped another one.
#[test]
fn scores_that_lack_different_images_are_not_averaged() {
    let mut runs = [1, 2].map(|seed| evaluation("voc20", 0..30, seed));
    let skipped = |id: &str| {
        vec![SkippedImage {
            id: id.to_owned(),
            reason: "truncated".to_owned(),
        }]
    };
    runs[0].skipped = skipped("a");
    runs[1].skipped = skipped("a");
    assert!(Summary::of(&runs).is_ok());
    runs[1].skipped = skipped("b");
    let error = Summary::of(&runs).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"the evaluations differ in skipped images: ["a"] and ["b"]"#
    );
}

fn compare(evaluations: &[Evaluation]) -> Result<Comparison, EvalError> {
    let runs = evaluations.iter().map(|evaluation| Run {
        evaluation,
        experiment: None,
    });
    Comparison::of(&runs.collect::<Vec<_>>())
}

/// Several models: each has its scores, and only seeds of one configuration have a mean.
#[test]
fn models_are_compared_and_only_seeds_are_averaged() {
    let of = |seed| evaluation("voc20", 0..30, seed);
    let mut other = of(3);
    other.method = "CLIP-RC".into();
    other.model.path = "other/model.safetensors".into();
    let models = [of(1), other.clone(), of(2)];
    let comparison = compare(&models).unwrap();
    for (model, evaluation) in comparison.models.iter().zip(&models) {
        assert_eq!(model.scores, evaluation.report().unwrap());
    }
    let mean = Summary::of(&[of(1), of(2)]).unwrap();
    assert_eq!(comparison.means.len(), 1);
    assert_eq!(comparison.means[0].scores, mean);
    assert_eq!(comparison.mean_of_all(), None);
    let [note] = &comparison.notes[..] else {
        panic!("{:?}", comparison.notes);
    };
    assert!(note.starts_with("no mean over these models: the evaluations differ in method"));
    let table = comparison.to_table();
    let row = |start: &str| table.lines().find(|line| line.trim().starts_with(start));
    let header = row("model").unwrap();
    assert!(
        header.contains("method") && !header.contains("data"),
        "{table}"
    );
    assert!(row("other/model").unwrap().contains("CLIP-RC"), "{table}");
    let averaged = row("mean of 2 seeds").unwrap();
    assert!(averaged.contains(&mean.hiou.unwrap().percent()), "{table}");

    // Seeds alone have a mean over all, and nothing is noted.
    let seeds = compare(&[of(1), of(2)]).unwrap();
    assert_eq!(seeds.mean_of_all(), Some(&mean));
    assert!(seeds.notes.is_empty(), "{:?}", seeds.notes);

    // Other settings of the training are no seeds, although the records are alike.
    let (one, two) = (of(1), of(2));
    let trained = |evaluation, rate: f64, seed: u64| {
        (
            evaluation,
            format!("[training]\nrate = {rate}\nseed = {seed}\n"),
        )
    };
    let pairs = [trained(&one, 0.1, 1), trained(&two, 0.2, 2)];
    let runs = pairs.each_ref().map(|(evaluation, experiment)| Run {
        evaluation,
        experiment: Some(experiment),
    });
    let comparison = Comparison::of(&runs).unwrap();
    assert!(comparison.means.is_empty());
    assert!(
        comparison.notes[0].contains("training.rate = 0.1"),
        "{:?}",
        comparison.notes
    );

    // Other data and other classes are named.
    let mut elsewhere = other;
    elsewhere.benchmark.dataset = "ade20k".into();
    let fewer = evaluation("voc20", 0..29, 4);
    let comparison = compare(&[of(1), elsewhere, fewer]).unwrap();
    assert!(comparison.means.is_empty());
    let notes = comparison.notes.join("\n");
    assert!(
        notes.contains("cannot be compared") && notes.contains("\"ade20k\""),
        "{notes}"
    );
    assert!(notes.contains("differ in images: 30 and 29"), "{notes}");
    assert!(comparison.to_table().contains("ade20k"));
    assert!(matches!(compare(&[]), Err(EvalError::Nothing)));
}

#[test]
fn a_summary_is_of_runs_that_compare() {
    let runs: Vec<Evaluation> = (1..4)
        .map(|seed| evaluation("voc20", 0..30, seed))
        .collect();
    let summary = Summary::of(&runs).unwrap();
    let hious: Vec<f64> = runs
        .iter()
        .map(|run| run.report().unwrap().hiou.unwrap())
        .collect();
    let mean = hious.iter().sum::<f64>() / 3.0;
    let hiou = summary.hiou.unwrap();
    assert!((hiou.mean - mean).abs() < 1e-12);
    assert_eq!((summary.runs, hiou.n), (3, 3));
    // The mean of harmonic means is not the harmonic mean of the means.
    let of_means = zeg_eval::report::harmonic_mean(
        summary.miou_seen.unwrap().mean,
        summary.miou_unseen.unwrap().mean,
    );
    assert!((hiou.mean - of_means).abs() > 1e-9);
    let json = serde_json::to_value(&summary).unwrap();
    assert!(
        json["hiou"]["std"].is_number()
            && json["note"]
                .as_str()
                .unwrap()
                .contains("mean of the runs' hIoU")
    );
    let table = summary.to_table();
    assert!(
        table.contains("hIoU") && table.contains(&format!("{:.2}", 100.0 * mean)),
        "{table}"
    );

    let one = Summary::of(&runs[..1]).unwrap();
    assert_eq!((one.hiou.unwrap().std, one.hiou.unwrap().n), (None, 1));
    assert!(matches!(Summary::of(&[]), Err(EvalError::Nothing)));
    let mut fewer = runs.clone();
    fewer[1] = evaluation("voc20", 0..29, 2);
    assert!(matches!(
        Summary::of(&fewer),
        Err(EvalError::Differs {
            field: "images",
            ..
        })
    ));
    let mut other = runs;
    other[2].flip = true;
    assert!(matches!(
        Summary::of(&other),
        Err(EvalError::Differs { field: "flip", .. })
    ));
}
