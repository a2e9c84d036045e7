//! Compares the metrics of a toy data set: counts exactly, fractions and percentages as the reference prints them.

use zeg_eval::{ConfusionMatrix, Report, report::harmonic_mean};
use zeg_image::IGNORE_LABEL;

use crate::{ParityError, array::Array, check::Check, limit::Limit, training_part::memory_label};

/// Limit of fractions, which the reference stores as `f32`.
const FRACTION: Limit = Limit::OfRms(1e-6);
/// Stands for "no value" on both sides.
const NO_VALUE: f64 = -1.0;

/// A function that returns one of the pixel counts of a class.
type Count = fn(&ConfusionMatrix, usize) -> u64;

/// Compares `metric.*` and the table `metric`.
pub(super) fn compare(check: &mut Check) -> Result<(), ParityError> {
    let Some(table) = check.file().meta().find("metric") else {
        return Ok(());
    };
    let classes = table.at("num_classes")?.count()?;
    let unseen = table.at("unseen")?.counts()?;
    let note = table.find("note").and_then(|note| note.text().ok());
    let zero_is_ignored = note.is_some_and(|note| note.contains("reduce_zero_label=True"));
    let mut confusion = ConfusionMatrix::new(classes);
    let mut images = 0;
    while check.has(&format!("metric.raw_label{images}")) {
        let labels = check.input(&format!("metric.raw_label{images}"))?.to_u8();
        let labels = labels.into_iter().map(memory_label);
        let labels: Vec<u16> = if zero_is_ignored {
            labels.map(without_zero).collect()
        } else {
            labels.collect()
        };
        let predicted = check.input(&format!("metric.pred{images}"))?.to_u32();
        let predicted: Vec<u16> = predicted.into_iter().map(|id| id as u16).collect();
        confusion.add(&labels, &predicted, IGNORE_LABEL)?;
        images += 1;
    }
    if images == 0 {
        return Ok(()); // the file has only the description, not its tensors
    }
    let counts: [(&str, Count); 4] = [
        ("intersect", ConfusionMatrix::intersect),
        ("union", ConfusionMatrix::union),
        ("pred", ConfusionMatrix::pred),
        ("label", ConfusionMatrix::label),
    ];
    for (name, count) in counts {
        let found = (0..classes).map(|class| count(&confusion, class) as f64);
        let found = Array::row(found.collect());
        check.compare(&format!("metric.total_{name}"), &found, Limit::Exact);
    }

    let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    let flags: Vec<bool> = (0..classes).map(|class| unseen.contains(&class)).collect();
    let report = Report::new(&confusion, &names, &flags, images)?;
    let or_none = |values: Vec<Option<f64>>| -> Array {
        Array::row(values.into_iter().map(|v| v.unwrap_or(NO_VALUE)).collect())
    };
    let per_class = [
        (
            "IoU",
            or_none(report.classes.iter().map(|c| c.iou).collect()),
        ),
        (
            "Acc",
            or_none(report.classes.iter().map(|c| c.acc).collect()),
        ),
    ];
    for (name, found) in per_class {
        let reference = table.at(name)?.numbers()?;
        let reference = reference
            .into_iter()
            .map(|v| if v.is_nan() { NO_VALUE } else { v });
        let reference = Array::row(reference.collect());
        check.compare_value(&format!("meta.metric.{name}"), &reference, &found, FRACTION);
    }
    let percent = |value: Option<f64>| value.map_or(NO_VALUE, |v| (v * 1e4).round() / 1e2);
    let (seen, unseen) = (percent(report.miou_seen), percent(report.miou_unseen));
    for (name, found) in [
        ("aAcc", report.p_acc.unwrap_or(NO_VALUE)),
        ("mIoU", percent(report.miou)),
        ("mIoU_seen", seen),
        ("mIoU_unseen", unseen),
        ("hIoU_by_formula", harmonic_mean(seen, unseen)), // of the rounded numbers
    ] {
        if let Some(reference) = table.find(name) {
            let reference = Array::scalar(reference.number()?);
            let name = format!("meta.metric.{name}");
            check.compare_value(&name, &reference, &Array::scalar(found), FRACTION);
        }
    }
    Ok(())
}

/// Converts labels where 0 means unlabelled and classes begin at 1 to labels where classes begin at 0.
fn without_zero(label: u16) -> u16 {
    match label {
        0 | IGNORE_LABEL => IGNORE_LABEL,
        label => label - 1,
    }
}
