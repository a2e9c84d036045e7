//! Tests that records are written, read, divided and merged, and that inconsistent files are refused.

// the configured exception for tests does not reach their helper functions
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
#[path = "record/refused.rs"]
mod refused;
#[path = "record/summaries.rs"]
mod summaries;

use common::{IGNORE, evaluation};
use proptest::prelude::*;
use serde_json::{Value, json};
use zeg_eval::summary::Run;
use zeg_eval::{
    Comparison, ConfusionMatrix, EvalError, Evaluation, Metric, NanRule, Protocol, Rank, Shard,
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
fn a_record_is_scored_by_its_rule_for_classes_without_pixels() {
    let mut record = evaluation("voc20", 0..3, 1);
    let plain = serde_json::to_value(&record).unwrap();
    // Records of before have no rule, and mean mmsegmentation's.
    assert!(plain.get("nan_rule").is_none());
    let read: Evaluation = serde_json::from_value(plain).unwrap();
    assert_eq!(read.nan_rule, NanRule::Mmseg);
    let by_prediction = record.report().unwrap();
    record.nan_rule = NanRule::TruthMean;
    let folder = tempfile::tempdir().unwrap();
    let path = record.save(folder.path()).unwrap();
    let report = Evaluation::open(path).unwrap().report().unwrap();
    assert_eq!(report.nan_rule, NanRule::TruthMean);
    // Classes that are only predicted have an IoU of 0 by mmsegmentation's rule.
    assert!(report.miou > by_prediction.miou, "{report:?}");
    assert!(report.to_table().contains("rule truth-mean"));
    assert!(!by_prediction.to_table().contains("rule"));
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
