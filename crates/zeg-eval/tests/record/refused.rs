//! Records and shards that are refused.

use super::*;

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
    let changes: [(&str, Change); 17] = [
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
        ("nan_rule", |e| e.nan_rule = NanRule::TruthMean),
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
