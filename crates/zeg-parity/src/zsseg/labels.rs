//! Compares the labels of self-training, and the evaluation.

use burn::tensor::{Device, Tensor};
use zeg_eval::{ConfusionMatrix, NanRule, Report};
use zeg_image::IGNORE_LABEL;
use zeg_train::{
    methods::zsseg::pseudo_logits,
    pseudo_labels::{Candidates, PseudoLabelRule},
};

use super::case::{self, Case};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
    training_part::memory_label,
};

/// Stands for a pixel that waits for its label.
const WAITING: u16 = u16::MAX - 2;
/// Limit of percentages, which both sides compute in double precision.
const PERCENT: Limit = Limit::Absolute(1e-9);

/// Compares the file.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let classes = case.classes.len();
    let mut confusion = ConfusionMatrix::new(classes);
    let mut at_ignored = vec![0_u64; classes];
    let mut images = 0;
    while check.has(&format!("in.gt.{images}")) {
        let truth = check.input(&format!("in.gt.{images}"))?.clone();
        let truth: Vec<u16> = truth.to_u8().into_iter().map(memory_label).collect();
        let name = format!("in.sem_seg.{images}");
        let scores = check.input(&name)?.clone();
        let [_, height, width] = scores.shape[..] else {
            return Err(check.tensor_error(&name, "is not [classes, height, width]"));
        };
        let map = case::tensor::<3>(&check, &name, &scores, device)?.unsqueeze::<4>();
        for (kind, rule) in rules() {
            let labels = label(map.clone(), &truth, &case.seen, rule)?;
            let found = Array::from_values(&[height, width], &labels);
            check.compare(&format!("pseudo.{kind}.{images}"), &found, Limit::Exact);
        }
        let pixels = height * width;
        let best: Vec<u16> = (0..pixels)
            .map(|pixel| {
                let score = |class: usize| scores.values[class * pixels + pixel];
                let better = |best, class| {
                    if score(class) > score(best) {
                        class
                    } else {
                        best
                    }
                };
                (1..classes).fold(0, better) as u16
            })
            .collect();
        confusion.add(&truth, &best, IGNORE_LABEL)?;
        for (truth, best) in truth.iter().zip(&best) {
            if *truth == IGNORE_LABEL {
                at_ignored[usize::from(*best)] += 1;
            }
        }
        images += 1;
    }
    compare_confusion(&mut check, &confusion, &at_ignored);
    compare_metrics(&mut check, case, &confusion, images as u64)?;
    Ok(check.finish())
}

/// Returns the settings of the reference's rule. Among all classes a score s counts as s/(1 + s).
fn rules() -> [(&'static str, PseudoLabelRule); 4] {
    let rule = |candidates, min_score| PseudoLabelRule {
        candidates,
        min_score,
        ..PseudoLabelRule::default()
    };
    [
        ("prior", rule(Candidates::Unseen, 0.0)),
        ("prior_reject", rule(Candidates::Unseen, 0.12)),
        ("no_prior", rule(Candidates::All, 0.0)),
        ("no_prior_reject", rule(Candidates::All, 1.2 / 2.2)),
    ]
}

/// Labels one image; pixels that the rule rejects get the reference's label for "no object".
fn label(
    map: Tensor<4>,
    truth: &[u16],
    seen: &[bool],
    rule: PseudoLabelRule,
) -> Result<Vec<u16>, ParityError> {
    let is_seen = |label: u16| seen.get(usize::from(label)) == Some(&true);
    let mut labels: Vec<u16> = truth
        .iter()
        .map(|&label| if is_seen(label) { label } else { WAITING })
        .collect();
    rule.fill(
        pseudo_logits(map, rule.candidates),
        &mut labels,
        WAITING,
        seen,
    )?;
    let rejected = seen.len() as u16;
    for label in labels.iter_mut().filter(|label| **label == IGNORE_LABEL) {
        *label = rejected;
    }
    Ok(labels)
}

/// Compares the confusion matrix, whose rows are predictions; its last column counts unlabelled pixels.
fn compare_confusion(check: &mut Check, confusion: &ConfusionMatrix, at_ignored: &[u64]) {
    let side = at_ignored.len() + 1;
    let mut counts = vec![0.0; side * side];
    for (predicted, ignored) in at_ignored.iter().enumerate() {
        for truth in 0..at_ignored.len() {
            counts[predicted * side + truth] = confusion.count(truth, predicted) as f64;
        }
        counts[predicted * side + side - 1] = *ignored as f64;
    }
    let found = Array {
        shape: vec![side, side],
        values: counts,
    };
    check.compare("metric.confusion_matrix", &found, Limit::Exact);
}

/// Compares the metrics of the description.
fn compare_metrics(
    check: &mut Check,
    case: &Case,
    confusion: &ConfusionMatrix,
    images: u64,
) -> Result<(), ParityError> {
    let table = case.meta().at("metrics")?;
    let unseen: Vec<bool> = case.seen.iter().map(|seen| !seen).collect();
    let report = Report::with_rule(
        confusion,
        &case.classes,
        &unseen,
        images,
        NanRule::TruthOnly,
    )?;
    let accuracy = |group: &[bool]| {
        let (mut right, mut all) = (0, 0);
        for truth in (0..group.len()).filter(|class| group[*class]) {
            right += confusion.count(truth, truth);
            all += (0..group.len())
                .map(|p| confusion.count(truth, p))
                .sum::<u64>();
        }
        (all > 0).then(|| right as f64 / all as f64)
    };
    let (seen, novel) = (accuracy(&case.seen), accuracy(&unseen));
    let mut values = vec![
        ("mIoU".to_owned(), report.miou),
        ("fwIoU".to_owned(), confusion.frequency_weighted_iou()),
        ("pACC".to_owned(), report.p_acc),
        ("mACC".to_owned(), report.macc),
    ];
    for (group, iou, share) in [
        ("base", report.miou_seen, seen),
        ("unbase", report.miou_unseen, novel),
        ("novel", report.miou_unseen, novel),
        ("unnovel", report.miou_seen, seen),
    ] {
        values.push((format!("mIoU-{group}"), iou));
        values.push((format!("pAcc-{group}"), share));
    }
    values.push(("hIoU-base".to_owned(), report.hiou));
    values.push(("hIoU-novel".to_owned(), report.hiou));
    for class in &report.classes {
        values.push((format!("IoU-{}", class.name), class.iou));
        values.push((format!("ACC-{}", class.name), class.acc));
    }
    for (name, value) in values {
        let (Some(reference), Some(value)) = (table.find(&name), value) else {
            continue;
        };
        check.compare_value(
            &format!("meta.metrics.{name}"),
            &Array::scalar(reference.number()?),
            &Array::scalar(100.0 * value),
            PERCENT,
        );
    }
    Ok(())
}
