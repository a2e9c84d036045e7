//! Tests that records are written, read, divided and merged, and that inconsistent files are refused.

// the configured exception for tests does not reach their helper functions
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{IGNORE, evaluation};
use proptest::prelude::*;
use serde_json::{Value, json};
use zeg_eval::summary::Run;
use zeg_eval::{
    Comparison, ConfusionMatrix, EvalError, Evaluation, Metric, Protocol, Rank, Shard,
    SkippedImage, Summary,
};

/// Returns the shards of images 0..`count`, divided at `cuts`.
fn shards(count: u64, cuts: &[u64]) -> Vec<Evaluation> {
    let mut ends: Vec<u64> = cuts.iter().map(|cut| cut % (count + 1)).collect();
    ends.push(count);
    ends.sort_unstable();
    let count = ends.len() as u64;
    let mut start = 0;
    let mut shards = Vec::new();
    for (position, end) in ends.into_iter().enumerate() {
        let mut shard = evaluation("voc20", start..end, 1);
        shard.shard = Some(Shard {
            index: position as u64 + 1,
            count,
        });
        shard.timing.machine = format!("machine {}", position % 2);
        shards.push(shard);
        start = end;
    }
    shards
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_shards_merge_to_the_whole(
        images in 0_u64..40,
        cuts in prop::collection::vec(0_u64..1000, 0..5),
        turn in 0_usize..6,
    ) {
        let mut shards = shards(images, &cuts);
        let shard_count = shards.len();
        let seconds: f64 = shards.iter().map(|shard| shard.timing.wall_s).sum();
        let merged = Evaluation::merge(shards.clone()).unwrap();
        let whole = evaluation("voc20", 0..images, 1);
        prop_assert_eq!(&merged.confusion, &whole.confusion);
        prop_assert_eq!(&merged.image_scores, &whole.image_scores);
        prop_assert_eq!(merged.images, images);
        prop_assert_eq!(merged.report().unwrap(), whole.report().unwrap());
        prop_assert_eq!(merged.shard, None);
        prop_assert!((merged.timing.wall_s - seconds).abs() < 1e-6);
        let machines = if shard_count > 1 { "machine 0; machine 1" } else { "machine 0" };
        prop_assert_eq!(&merged.timing.machine, machines);
        // With at least six images, no rank lacks images because of another.
        if images >= 6 {
            for rank in [Rank::Best, Rank::Worst] {
                let of = |evaluation: &Evaluation| -> Vec<String> {
                    let entries = evaluation.gallery.iter().filter(|entry| entry.rank == rank);
                    entries.map(|entry| entry.id.clone()).collect()
                };
                // A shard with a single image shows one image of a rank where the whole evaluation shows two.
                let (of_merged, of_whole) = (of(&merged), of(&whole));
                prop_assert!(!of_merged.is_empty() && of_whole.starts_with(&of_merged), "{rank:?} {of_merged:?} {of_whole:?}");
            }
        }
        shards.rotate_left(turn % shard_count);
        prop_assert_eq!(&Evaluation::merge(shards.clone()).unwrap(), &merged);
        shards.reverse();
        prop_assert_eq!(&Evaluation::merge(shards).unwrap(), &merged);
    }

    #[test]
    fn a_file_holds_all_of_a_record(count in 0_u64..12, seed in 0_u64..99, scores in prop::collection::vec(0.0..1.0_f64, 3)) {
        let mut record = evaluation("voc20", 0..count, seed);
        record.timing.wall_s = scores[0] * 1e5;
        record.scales = vec![1.0, scores[1] + 0.1];
        if let Some(image) = record.image_scores.first_mut() {
            image.p_acc = Some(scores[2]);
            image.miou = None;
        }
        record.metric = Metric::Dice;
        record.protocol = Protocol::TransductiveUnseen;
        record.trained_on = None;
        let folder = tempfile::tempdir().unwrap();
        let path = record.save(folder.path().join("new")).unwrap();
        prop_assert_eq!(&Evaluation::open(&path).unwrap(), &record);
        prop_assert_eq!(&Evaluation::open(folder.path().join("new")).unwrap(), &record);
        // No other file is left behind.
        prop_assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 1);
    }

    #[test]
    fn damaged_files_are_errors_and_never_panics(at in 0_usize..100_000, byte in any::<u8>(), length in 0_usize..100_000) {
        let folder = tempfile::tempdir().unwrap();
        let path = evaluation("voc20", 0..3, 1).save(folder.path()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let position = at % bytes.len();
        bytes[position] = byte;
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(record) = Evaluation::open(&path) {
            // Every record that can be read has a report.
            record.report().unwrap();
        }
        std::fs::write(&path, &bytes[..length % bytes.len().saturating_sub(3)]).unwrap();
        prop_assert!(Evaluation::open(&path).is_err());
    }
}

#[test]
fn a_record_is_read_line_by_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = evaluation("voc20", 0..5, 1).save(folder.path()).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert!(
        text.contains("\n  \"protocol\": \"inductive\",\n"),
        "{text}"
    );
    assert!(
        text.contains("\n    {\"id\":\"2007_000003\",\"pAcc\":"),
        "{text}"
    );
    assert_eq!(
        text.lines()
            .filter(|line| line.contains("\"colour\""))
            .count(),
        20
    );
}

#[test]
fn shards_that_do_not_belong_together_are_refused() {
    let whole = |shards: Vec<Evaluation>| Evaluation::merge(shards).unwrap_err();
    let good = || shards(9, &[3, 6]);
    assert!(matches!(whole(Vec::new()), EvalError::Nothing));

    let mut two = good();
    two.remove(1);
    let error = whole(two);
    assert!(
        matches!(&error, EvalError::ShardsMissing { missing, count: 3 } if missing == &[2]),
        "{error}"
    );
    assert_eq!(error.to_string(), "of 3 shards, 1 is missing: 2");

    let mut twice = good();
    twice[2].shard = twice[1].shard;
    assert!(matches!(
        whole(twice),
        EvalError::ShardTwice { index: 2, count: 3 }
    ));

    let mut no_shard = good();
    no_shard[0].shard = None;
    assert!(matches!(
        whole(no_shard),
        EvalError::NotAShard { images: 3, .. }
    ));

    // Two shards have the same images.
    let mut again = good();
    again[1] = Evaluation {
        shard: again[1].shard,
        ..again[0].clone()
    };
    assert!(matches!(whole(again), EvalError::ImageTwice { id } if id == "2007_000000"));

    let mut none = good();
    for shard in &mut none {
        shard.shard = Some(Shard {
            index: shard.shard.unwrap().index,
            count: u64::MAX,
        });
    }
    let error = whole(none);
    assert!(
        matches!(&error, EvalError::ShardsMissing { missing, .. } if missing.len() == 100),
        "{error}"
    );
}

#[test]
fn a_difference_is_named_with_both_values() {
    type Change = fn(&mut Evaluation);
    let changes: [(&str, Change); 16] = [
        ("program", |e| e.program = "zeg 9".into()),
        ("benchmark.dataset", |e| {
            e.benchmark.dataset = "other".into();
        }),
        ("benchmark.class_list", |e| {
            e.benchmark.class_list = "voc21".into();
        }),
        ("benchmark.split", |e| e.benchmark.split = "train".into()),
        ("protocol", |e| e.protocol = Protocol::Transductive),
        ("trained_on", |e| e.trained_on = None),
        ("method", |e| e.method = "CLIP-RC".into()),
        ("model.sha256", |e| e.model.sha256 = "00".into()),
        ("model.step", |e| e.model.step = Some(1)),
        ("templates", |e| e.templates = "multiple".into()),
        ("inference", |e| e.inference = json!({"crop": 1})),
        ("scales", |e| e.scales = vec![0.5]),
        ("flip", |e| e.flip = true),
        ("metric", |e| e.metric = Metric::Dice),
        ("classes", |e| e.classes[3].unseen = true),
        ("classes", |e| e.classes[3].name = "crow".into()),
    ];
    for (name, change) in changes {
        let mut shards = shards(6, &[3]);
        change(&mut shards[1]);
        match Evaluation::merge(shards).unwrap_err() {
            EvalError::Differs {
                field,
                first,
                second,
            } => {
                assert_eq!(field, name);
                assert_ne!(first, second, "{name}");
            }
            other => panic!("{name}: {other}"),
        }
    }
}

/// Shards that were read by different label rules would add up to scores of neither.
#[test]
fn shards_that_follow_from_other_facts_are_refused() {
    let shard_with = |part: &str, value: &str| {
        let mut shards = shards(6, &[3]);
        let facts = shards[1].fingerprint.clone();
        shards[1].fingerprint = facts.with(part, value);
        shards
    };
    for part in [
        "class embeddings: templates",
        "class list: names",
        "images",
        "images: file contents",
        "label rule: kind",
        "label rule: zero-is",
        "weights: SHA-256",
    ] {
        match Evaluation::merge(shard_with(part, "other")).unwrap_err() {
            EvalError::OtherFact { name, .. } => assert_eq!(name, part),
            other => panic!("{part}: {other}"),
        }
    }
    let error = Evaluation::merge(shard_with("label rule: zero-is", "class")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the evaluations differ in label rule zero-is: ignore and class"
    );
    // A part that only one shard states is no difference.
    assert!(Evaluation::merge(shard_with("later", "1")).is_ok());
}

#[test]
fn records_of_earlier_versions_are_read_and_merged_without_a_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evaluation.json");
    let open = |shard: &Evaluation| {
        let mut record = serde_json::to_value(shard).unwrap();
        record.as_object_mut().unwrap().remove("fingerprint");
        std::fs::write(&path, record.to_string()).unwrap();
        Evaluation::open(&path).unwrap()
    };
    let mut parts = shards(6, &[3]);
    parts[1] = open(&parts[1]);
    assert!(parts[1].fingerprint.is_empty());
    let whole = Evaluation::merge(parts).unwrap();
    // The whole does not state what one of its parts did not.
    assert!(whole.fingerprint.is_empty());
    assert_eq!(whole.images, 6);
}

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

#[test]
fn inconsistent_records_are_refused() {
    let good = serde_json::to_value(evaluation("voc20", 0..4, 1)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evaluation.json");
    let open = |record: &Value| {
        std::fs::write(&path, record.to_string()).unwrap();
        Evaluation::open(&path)
    };
    assert!(open(&good).is_ok());
    let cases: [(&str, Value, &str); 22] = [
        ("/format", json!(2), "format 2"),
        ("/format", json!("1"), "invalid type"),
        ("/classes/19", Value::Null, "invalid type"),
        ("/classes", json!([]), "0 classes, expected 20"),
        ("/confusion/classes", json!(21), "20 rows for 21"),
        ("/confusion/rows/0", json!([[20, 1]]), "class 20 of 20"),
        ("/confusion/rows/0", json!([[0, u64::MAX]]), "pixels"),
        (
            "/confusion/rows/0",
            json!([[0, 12345]]),
            "the confusion counts",
        ),
        ("/images", json!(5), "scores of 4 images"),
        ("/images", json!(-1), "invalid value"),
        ("/image_scores/1/id", json!("2007_000000"), "twice"),
        (
            "/image_scores/1/pixels",
            json!(u64::MAX),
            "the confusion counts",
        ),
        (
            "/image_scores/1/mIoU",
            json!(1.5),
            "image_scores.mIoU is 1.5",
        ),
        ("/scales", json!([]), "scales"),
        ("/scales", json!([-1.0]), "scales"),
        ("/shard", json!({"index": 3, "count": 2}), "3/2"),
        ("/shard", json!({"index": 0, "count": 2}), "0/2"),
        ("/timing/wall_s", json!(-0.5), "timing.wall_s"),
        (
            "/gallery/0/image",
            json!("../../secret.png"),
            "../../secret.png",
        ),
        ("/gallery/0/error", json!("/etc/passwd"), "/etc/passwd"),
        (
            "/gallery/0/classes",
            json!([{"class": 20, "truth": 0.5, "prediction": 0.5}]),
            "gallery.classes is 20",
        ),
        ("/protocol", json!("guessed"), "unknown variant"),
    ];
    for (pointer, value, part) in cases {
        let mut record = good.clone();
        *record.pointer_mut(pointer).expect(pointer) = value;
        let error = match open(&record) {
            Ok(_) => panic!("{pointer} was taken"),
            Err(EvalError::InFile {
                path: named,
                source,
            }) => {
                assert_eq!(named, path);
                source.to_string()
            }
            Err(EvalError::Json {
                path: named,
                source,
            }) => {
                assert_eq!(named, path);
                source.to_string()
            }
            Err(other) => panic!("{pointer}: {other}"),
        };
        assert!(error.contains(part), "{pointer}: {error}");
    }
    let mut more = good.clone();
    more["new"] = json!(1);
    assert!(matches!(open(&more), Err(EvalError::Json { .. })));
    std::fs::write(&path, "[".repeat(100_000)).unwrap();
    assert!(matches!(
        Evaluation::open(&path),
        Err(EvalError::Json { .. })
    ));
    assert!(matches!(
        Evaluation::open(folder.path().join("none")),
        Err(EvalError::Unreadable { .. })
    ));
}

#[test]
fn the_old_form_of_counts_is_read() {
    let record = evaluation("voc20", 0..4, 1);
    let mut value = serde_json::to_value(&record).unwrap();
    let counts: Vec<u64> = (0..20)
        .flat_map(|class| record.confusion.row(class).to_vec())
        .collect();
    value["confusion"] = json!({"classes": 20, "counts": counts});
    assert_eq!(serde_json::from_value::<Evaluation>(value).unwrap(), record);
}

#[test]
fn a_wrong_record_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut record = evaluation("voc20", 0..4, 1);
    record.scales.clear();
    assert!(record.save(folder.path()).is_err());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // a file is no folder
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = evaluation("voc20", 0..1, 1).save(&file).unwrap_err();
    assert!(matches!(error, EvalError::Unwritable { .. }), "{error}");
}

#[test]
fn an_image_scores_as_a_data_set_of_itself() {
    for seed in 0..20 {
        let (truth, prediction) = common::labelled_image(seed, 20);
        let score = zeg_eval::ImageScore::of("x", (&truth, &prediction), 20, IGNORE).unwrap();
        let mut confusion = ConfusionMatrix::new(20);
        confusion.add(&truth, &prediction, IGNORE).unwrap();
        let names: Vec<String> = (0..20).map(|class| class.to_string()).collect();
        let report = zeg_eval::Report::new(&confusion, &names, &[false; 20], 1).unwrap();
        let close = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-12;
        assert!(
            close(score.p_acc, report.p_acc)
                && close(score.miou, report.miou)
                && close(score.mdice, report.mdice)
        );
        assert_eq!(score.pixels, report.pixels);
    }
    let nothing = zeg_eval::ImageScore::of("x", (&[IGNORE], &[0]), 20, IGNORE).unwrap();
    assert_eq!(
        (nothing.p_acc, nothing.miou, nothing.mdice, nothing.pixels),
        (None, None, None, 0)
    );
    let error = zeg_eval::ImageScore::of("x", (&[20], &[0]), 20, IGNORE).unwrap_err();
    assert!(matches!(error, EvalError::Label { value: 20, .. }));
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
