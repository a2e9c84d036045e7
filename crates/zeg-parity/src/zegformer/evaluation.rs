//! Compares the generalised evaluation on toy label maps.

use zeg_eval::{ConfusionMatrix, NanRule, Report, report::ClassReport};
use zeg_image::IGNORE_LABEL;

use super::case::Case;
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    file::Meta,
    limit::Limit,
    training_part::memory_label,
};

/// Limit of percentages, which both sides compute in double precision.
const PERCENT: Limit = Limit::Absolute(1e-9);
/// Stands for "no value" on both sides.
const NO_VALUE: f64 = -1.0;

/// Compares the file.
pub(super) fn compare(mut check: Check, case: &Case) -> Result<Computed, ParityError> {
    let meta = case.meta().at("eval_metrics")?;
    for (name, table) in meta.entries() {
        compare_case(&mut check, case, name, &table)?;
    }
    Ok(check.finish())
}

fn compare_case(
    check: &mut Check,
    case: &Case,
    name: &str,
    table: &Meta,
) -> Result<(), ParityError> {
    let classes = case.classes.len();
    let mut confusion = ConfusionMatrix::new(classes);
    // The reference also counts the predictions at unlabelled pixels, in a separate column.
    let mut at_ignored = vec![0_u64; classes];
    let mut images = 0;
    while check.has(&format!("{name}.gt.{images}")) {
        let truth = check.input(&format!("{name}.gt.{images}"))?.to_u8();
        let truth: Vec<u16> = truth.into_iter().map(memory_label).collect();
        let predicted = check.input(&format!("{name}.pred.{images}"))?.to_u32();
        let predicted: Vec<u16> = predicted.into_iter().map(|id| id as u16).collect();
        confusion.add(&truth, &predicted, IGNORE_LABEL)?;
        for (truth, predicted) in truth.iter().zip(&predicted) {
            if *truth == IGNORE_LABEL {
                at_ignored[usize::from(*predicted)] += 1;
            }
        }
        images += 1;
    }
    let side = classes + 1;
    let mut counts = vec![0.0; side * side]; // rows are predictions
    for predicted in 0..classes {
        for truth in 0..classes {
            counts[predicted * side + truth] = confusion.count(truth, predicted) as f64;
        }
        counts[predicted * side + classes] = at_ignored[predicted] as f64;
    }
    let found = Array {
        shape: vec![side, side],
        values: counts,
    };
    check.compare(&format!("{name}.confusion_matrix"), &found, Limit::Exact);

    let unseen: Vec<bool> = case.seen.iter().map(|seen| !seen).collect();
    let report = Report::with_rule(
        &confusion,
        &case.classes,
        &unseen,
        images,
        NanRule::TruthOnly,
    )?;
    let summary = [
        ("mIoU", report.miou),
        ("fwIoU", confusion.frequency_weighted_iou()),
        ("pACC", report.p_acc),
        ("mACC", report.macc),
        ("seen_IoU", report.miou_seen),
        ("unseen_IoU", report.miou_unseen),
        ("harmonic mean", report.hiou),
    ];
    for (metric, value) in summary {
        compare_percentages(check, name, metric, table, &[(metric.to_owned(), value)])?;
    }
    for (metric, value) in [
        (
            "IoU",
            (|class| class.iou) as fn(&ClassReport) -> Option<f64>,
        ),
        ("ACC", |class| class.acc),
    ] {
        let entry = |class: &ClassReport| (format!("{metric}-{}", class.name), value(class));
        let values: Vec<_> = report.classes.iter().map(entry).collect();
        compare_percentages(check, name, metric, table, &values)?;
    }
    Ok(())
}

/// Compares fractions with entries of the description.
fn compare_percentages(
    check: &mut Check,
    case: &str,
    metric: &str,
    table: &Meta,
    values: &[(String, Option<f64>)],
) -> Result<(), ParityError> {
    let (mut reference, mut found) = (Vec::new(), Vec::new());
    for (entry, value) in values {
        reference.push(match table.find(entry) {
            Some(number) => number.number()?,
            None => NO_VALUE,
        });
        found.push(value.map_or(NO_VALUE, |value| 100.0 * value));
    }
    let name = format!("meta.{case}.{metric}");
    check.compare_value(&name, &Array::row(reference), &Array::row(found), PERCENT);
    Ok(())
}
