//! Compares the metrics with those of mmsegmentation, and tests properties that hold for any label maps.

// the configured exception for tests does not reach their helper functions
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde::Deserialize;
use zeg_eval::{ConfusionMatrix, NanRule, Report};

const IGNORE: u16 = 255;

/// The file that `golden/make_metrics.py` writes; percentages are rounded to two decimals.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Golden {
    #[serde(rename = "raw_labels")]
    raw_labels: Vec<Vec<u16>>,
    predictions: Vec<Vec<u16>>,
    intersect: Vec<u64>,
    label: Vec<u64>,
    pred: Vec<u64>,
    union: Vec<u64>,
    #[serde(rename = "num_classes")]
    num_classes: usize,
    unseen: Vec<usize>,
    a_acc: f64,
    #[serde(rename = "IoU")]
    iou: Vec<Option<f64>>,
    #[serde(rename = "Acc")]
    acc: Vec<Option<f64>>,
    #[serde(rename = "mIoU")]
    miou: f64,
    #[serde(rename = "mIoU_seen")]
    miou_seen: f64,
    #[serde(rename = "mIoU_unseen")]
    miou_unseen: f64,
    #[serde(rename = "hIoU_by_formula")]
    hiou: f64,
}

/// Ignores raw label 0, reduces the others by one, and keeps 255.
fn without_zero_label(raw: &[u16]) -> Vec<u16> {
    let reduce = |label: &u16| match *label {
        0 | IGNORE => IGNORE,
        label => label - 1,
    };
    raw.iter().map(reduce).collect()
}

fn assert_close(ours: Option<f64>, theirs: Option<f64>, tolerance: f64) {
    match (ours, theirs) {
        (Some(a), Some(b)) => assert!((a - b).abs() <= tolerance, "{a} is not {b}"),
        (a, b) => assert_eq!(a, b),
    }
}

#[test]
fn metrics_are_those_of_mmsegmentation() {
    let golden: Golden = serde_json::from_str(include_str!("golden/metrics.json")).unwrap();
    let mut confusion = ConfusionMatrix::new(golden.num_classes);
    for (raw, prediction) in golden.raw_labels.iter().zip(&golden.predictions) {
        confusion
            .add(&without_zero_label(raw), prediction, IGNORE)
            .unwrap();
    }
    let per_class = |count: fn(&ConfusionMatrix, usize) -> u64| -> Vec<u64> {
        (0..golden.num_classes)
            .map(|class| count(&confusion, class))
            .collect()
    };
    assert_eq!(per_class(ConfusionMatrix::intersect), golden.intersect);
    assert_eq!(per_class(ConfusionMatrix::label), golden.label);
    assert_eq!(per_class(ConfusionMatrix::pred), golden.pred);
    assert_eq!(per_class(ConfusionMatrix::union), golden.union);

    let names: Vec<String> = (0..golden.num_classes)
        .map(|class| class.to_string())
        .collect();
    let unseen: Vec<bool> = (0..golden.num_classes)
        .map(|class| golden.unseen.contains(&class))
        .collect();
    let report = Report::new(&confusion, &names, &unseen, 3).unwrap();
    // The reference divides in single precision.
    let single = 1e-6;
    assert_close(report.p_acc, Some(golden.a_acc), single);
    for ((class, iou), acc) in report.classes.iter().zip(golden.iou).zip(golden.acc) {
        assert_close(class.iou, iou, single);
        assert_close(class.acc, acc, single);
    }
    let rounded = 0.005 + 1e-4;
    let percent = |value: Option<f64>| value.map(|value| 100.0 * value);
    assert_close(percent(report.miou), Some(golden.miou), rounded);
    assert_close(percent(report.miou_seen), Some(golden.miou_seen), rounded);
    assert_close(
        percent(report.miou_unseen),
        Some(golden.miou_unseen),
        rounded,
    );
    assert_close(percent(report.hiou), Some(golden.hiou), rounded);
}

const CLASSES: u16 = 6;

/// Returns the ground truth (a seventh of it ignored) and the prediction of one image.
fn image() -> impl Strategy<Value = Vec<(u16, u16)>> {
    let truth = (0..=CLASSES).prop_map(|label| if label == CLASSES { IGNORE } else { label });
    prop::collection::vec((truth, 0..CLASSES), 0..200)
}

fn confusion(pixels: &[(u16, u16)]) -> ConfusionMatrix {
    let (truth, prediction): (Vec<u16>, Vec<u16>) = pixels.iter().copied().unzip();
    let mut confusion = ConfusionMatrix::new(usize::from(CLASSES));
    confusion.add(&truth, &prediction, IGNORE).unwrap();
    confusion
}

/// Returns a report in which the last two classes are unseen, or those given by `unseen`.
fn report(confusion: &ConfusionMatrix, unseen: Option<&[bool]>) -> Report {
    let names: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
    let default = [false, false, false, false, true, true];
    Report::new(confusion, &names, unseen.unwrap_or(&default), 1).unwrap()
}

proptest! {
    #[test]
    fn metrics_are_fractions(pixels in image()) {
        let report = report(&confusion(&pixels), None);
        let summary = [report.p_acc, report.miou, report.miou_seen, report.miou_unseen, report.hiou, report.macc, report.mdice];
        let classes = report.classes.iter().flat_map(|class| [class.iou, class.acc, class.dice]);
        for value in summary.into_iter().chain(classes).flatten() {
            prop_assert!((0.0..=1.0).contains(&value), "{value}");
        }
    }

    #[test]
    fn dice_follows_from_iou(pixels in image()) {
        for class in report(&confusion(&pixels), None).classes {
            prop_assert_eq!(class.iou.is_some(), class.dice.is_some());
            if let (Some(iou), Some(dice)) = (class.iou, class.dice) {
                prop_assert!((dice - 2.0 * iou / (1.0 + iou)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn parts_add_up_to_the_whole(pixels in image(), at in 0_usize..200) {
        let (left, right) = pixels.split_at(at.min(pixels.len()));
        let mut sum = confusion(left);
        sum.merge(&confusion(right)).unwrap();
        prop_assert_eq!(sum, confusion(&pixels));
    }

    #[test]
    fn new_names_for_labels_change_nothing(
        pixels in image(),
        order in Just((0..CLASSES).collect::<Vec<u16>>()).prop_shuffle(),
    ) {
        let renamed: Vec<(u16, u16)> = pixels
            .iter()
            .map(|(truth, prediction)| {
                let truth = if *truth == IGNORE { IGNORE } else { order[usize::from(*truth)] };
                (truth, order[usize::from(*prediction)])
            })
            .collect();
        let mut unseen = [false; CLASSES as usize];
        unseen[usize::from(order[4])] = true;
        unseen[usize::from(order[5])] = true;
        let before = report(&confusion(&pixels), None);
        let after = report(&confusion(&renamed), Some(&unseen));
        let pairs = [
            (before.p_acc, after.p_acc),
            (before.miou, after.miou),
            (before.miou_seen, after.miou_seen),
            (before.miou_unseen, after.miou_unseen),
            (before.hiou, after.hiou),
            (before.mdice, after.mdice),
        ];
        // Sums in another order may differ in the last bits.
        for (before, after) in pairs {
            assert_close(before, after, 1e-12);
        }
    }

    #[test]
    fn the_truth_itself_scores_one(labels in prop::collection::vec(0..CLASSES, 1..100)) {
        let pixels: Vec<(u16, u16)> = labels.iter().map(|label| (*label, *label)).collect();
        let report = report(&confusion(&pixels), None);
        prop_assert_eq!(report.p_acc, Some(1.0));
        prop_assert_eq!(report.miou, Some(1.0));
        for class in report.classes {
            let expected = (class.pixels > 0).then_some(1.0);
            prop_assert_eq!((class.iou, class.acc, class.dice), (expected, expected, expected));
        }
    }
}

/// The metrics, computed independently: one boolean mask per class, counted pixel by pixel; NaN where a divisor is 0.
struct Masks {
    iou: Vec<f64>,
    acc: Vec<f64>,
    dice: Vec<f64>,
    p_acc: f64,
}

impl Masks {
    fn of(pixels: &[(u16, u16)]) -> Self {
        let counted: Vec<(u16, u16)> = pixels
            .iter()
            .copied()
            .filter(|(truth, _)| *truth != IGNORE)
            .collect();
        let (mut iou, mut acc, mut dice) = (Vec::new(), Vec::new(), Vec::new());
        for class in 0..CLASSES {
            let truth: Vec<bool> = counted.iter().map(|(truth, _)| *truth == class).collect();
            let found: Vec<bool> = counted
                .iter()
                .map(|(_, prediction)| *prediction == class)
                .collect();
            let count = |mask: &dyn Fn(bool, bool) -> bool| {
                truth
                    .iter()
                    .zip(&found)
                    .filter(|(truth, found)| mask(**truth, **found))
                    .count() as f64
            };
            let both = count(&|truth, found| truth && found);
            iou.push(both / count(&|truth, found| truth || found));
            acc.push(both / count(&|truth, _| truth));
            dice.push(2.0 * both / (count(&|truth, _| truth) + count(&|_, found| found)));
        }
        let right = counted
            .iter()
            .filter(|(truth, prediction)| truth == prediction)
            .count();
        Self {
            iou,
            acc,
            dice,
            p_acc: right as f64 / counted.len() as f64,
        }
    }
}

fn nanmean(values: &[f64]) -> f64 {
    let numbers: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| !value.is_nan())
        .collect();
    numbers.iter().sum::<f64>() / numbers.len() as f64
}

/// `None` for NaN.
fn defined(value: f64) -> Option<f64> {
    (!value.is_nan()).then_some(value)
}

const TOLERANCE: f64 = 1e-12;

proptest! {
    #[test]
    fn metrics_are_those_of_masks(pixels in image(), few in 1_u16..=CLASSES) {
        // Fewer classes are used, so that some do not occur.
        let pixels: Vec<(u16, u16)> = pixels.into_iter().map(|(truth, prediction)| {
            (if truth == IGNORE { truth } else { truth % few }, prediction % few.min(4))
        }).collect();
        let report = report(&confusion(&pixels), None);
        let masks = Masks::of(&pixels);
        for (class, of) in report.classes.iter().enumerate() {
            assert_close(of.iou, defined(masks.iou[class]), TOLERANCE);
            assert_close(of.acc, defined(masks.acc[class]), TOLERANCE);
            assert_close(of.dice, defined(masks.dice[class]), TOLERANCE);
        }
        let (s, u) = (nanmean(&masks.iou[..4]), nanmean(&masks.iou[4..]));
        assert_close(report.p_acc, defined(masks.p_acc), TOLERANCE);
        assert_close(report.miou, defined(nanmean(&masks.iou)), TOLERANCE);
        assert_close(report.miou_seen, defined(s), TOLERANCE);
        assert_close(report.miou_unseen, defined(u), TOLERANCE);
        assert_close(report.macc, defined(nanmean(&masks.acc)), TOLERANCE);
        assert_close(report.mdice, defined(nanmean(&masks.dice)), TOLERANCE);
        let hiou = if s == 0.0 || u == 0.0 { if (s + u).is_nan() { f64::NAN } else { 0.0 } } else { 2.0 / (1.0 / s + 1.0 / u) };
        assert_close(report.hiou, defined(hiou), TOLERANCE);
    }

    #[test]
    fn zegformers_rule_is_that_of_masks(pixels in image(), few in 1_u16..=CLASSES) {
        let pixels: Vec<(u16, u16)> = pixels.into_iter().map(|(truth, prediction)| {
            (if truth == IGNORE { truth } else { truth % few }, prediction)
        }).collect();
        let names: Vec<String> = (0..CLASSES).map(|class| class.to_string()).collect();
        let unseen = [false, false, true, false, false, true];
        let report = Report::with_rule(&confusion(&pixels), &names, &unseen, 1, NanRule::TruthOnly).unwrap();
        let masks = Masks::of(&pixels);
        // A class without true pixels has an accuracy of 0/0, and therefore no IoU.
        let iou: Vec<f64> = masks.iou.iter().zip(&masks.acc).map(|(iou, acc)| if acc.is_nan() { f64::NAN } else { *iou }).collect();
        let present = masks.iou.iter().filter(|iou| !iou.is_nan()).count() as f64;
        let sum: f64 = iou.iter().filter(|iou| !iou.is_nan()).sum();
        let s = (iou[0] + iou[1] + iou[3] + iou[4]) / 4.0; // NaN if any of them is
        let u = f64::midpoint(iou[2], iou[5]);
        assert_close(report.miou, defined(sum / present), TOLERANCE);
        assert_close(report.miou_seen, defined(s), TOLERANCE);
        assert_close(report.miou_unseen, defined(u), TOLERANCE);
        assert_close(report.macc, defined(nanmean(&masks.acc)), TOLERANCE);
        assert_eq!(report.hiou.is_some(), !(s + u).is_nan());
    }

    #[test]
    fn counts_survive_json(pixels in image()) {
        let counts = confusion(&pixels);
        let json = serde_json::to_string(&counts).unwrap();
        prop_assert_eq!(serde_json::from_str::<ConfusionMatrix>(&json).unwrap(), counts);
    }
}

/// `cargo test -p zeg-eval --release --test metrics -- --ignored --nocapture`
#[test]
#[ignore = "a benchmark; measures how long COCO-Stuff's labels take to count"]
fn counting_is_fast() {
    const SIDE: usize = 512;
    const IMAGES: usize = 2000;
    let classes = 171_u16;
    // Regions with ragged borders, and noise in a tenth of the prediction, are the slowest input to count.
    let truth: Vec<u16> = (0..SIDE * SIDE)
        .map(|pixel| ((pixel % SIDE / 37 + pixel / SIDE / 29 * 7) % usize::from(classes)) as u16)
        .collect();
    let prediction: Vec<u16> = truth
        .iter()
        .enumerate()
        .map(|(pixel, label)| {
            if pixel * 7919 % 10 == 0 {
                (label + 1) % classes
            } else {
                *label
            }
        })
        .collect();
    let mut counts = ConfusionMatrix::new(usize::from(classes));
    let start = std::time::Instant::now();
    for _ in 0..IMAGES {
        counts.add(&truth, &prediction, IGNORE).unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{IMAGES} images of {SIDE}×{SIDE}, {classes} classes: {seconds:.2} s");
    let pixels = (IMAGES * SIDE * SIDE) as u64;
    assert_eq!(counts.total(), pixels);
    assert!(seconds < 60.0, "{seconds} s");
}
