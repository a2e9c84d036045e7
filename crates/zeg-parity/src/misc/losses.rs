//! Compares edge cases of the loss: no labelled pixel, one class, large logits, labels larger than the masks.

use burn::tensor::{Device, Tensor};
use zeg_image::IGNORE_LABEL;
use zeg_train::{
    TrainError,
    loss::{MaskLoss, normalizer},
    targets::Targets,
};

use crate::{
    ParityError,
    array::Array,
    check::Check,
    file::integers_in,
    limit::Limit,
    planted::PlantedError,
    training_part::{memory_label, planted_labels},
};

/// Compares the cases `loss.<case>.*` and those that are only in the description.
pub(super) fn compare(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    let cases: Vec<String> = check
        .file()
        .tensors
        .keys()
        .filter_map(|name| name.strip_prefix("loss.")?.strip_suffix(".logits"))
        .map(str::to_owned)
        .collect();
    for case in cases {
        compare_case(check, &case, &device.clone().autodiff())?;
    }
    compare_illegal_label(check)?;
    compare_unlabelled(check, device)
}

fn compare_case(check: &mut Check, case: &str, device: &Device) -> Result<(), ParityError> {
    let name = |what: &str| format!("loss.{case}.{what}");
    let logits = check.input(&name("logits"))?; // [batch, classes, h, w]
    let labels = check.input(&name("label"))?; //  [batch, height, width]
    let ([batch, classes, _, _], [_, height, width]) = (&logits.shape[..], &labels.shape[..])
    else {
        return Err(check.tensor_error(&name("logits"), "is not [batch, classes, h, w]"));
    };
    let mut labels: Vec<u16> = labels.to_u8().into_iter().map(memory_label).collect();
    planted_labels(check.planted(), &mut labels);
    let targets = Targets::new(labels, *batch, [*height, *width], *classes)?;
    let Some(masks) = logits.to_tensor::<4>(device) else {
        return Ok(()); // it has four axes
    };
    let masks = masks.require_grad();
    let terms = MaskLoss::default().forward(masks.clone(), &targets, normalizer(&[&targets]));
    let total = match check.planted() {
        Some(PlantedError::MissingTerm("focal")) => terms.dice.clone(),
        Some(PlantedError::MissingTerm("dice")) => terms.focal.clone(),
        _ => terms.total(),
    };
    let gradients = total.backward();
    check.compare(&name("mask"), &Array::of(terms.focal)?, Limit::ACTIVATION);
    check.compare(&name("dice"), &Array::of(terms.dice)?, Limit::ACTIVATION);
    if let Some(gradient) = masks.grad(&gradients) {
        check.compare(&name("grad"), &Array::of(gradient)?, Limit::GRADIENT);
    }
    Ok(())
}

/// Checks `loss_label_<value>`: a label that is not a class is rejected with its own error.
fn compare_illegal_label(check: &mut Check) -> Result<(), ParityError> {
    for (name, message) in check.file().meta().entries() {
        let Some(value) = name
            .strip_prefix("loss_label_")
            .and_then(|v| v.parse().ok())
        else {
            continue;
        };
        let classes = classes_in(message.text()?);
        let result = Targets::new(vec![value], 1, [1, 1], classes);
        let rejected = matches!(result, Err(TrainError::Label { value: v, .. }) if v == value);
        let problem =
            (!rejected).then(|| format!("label {value} of {classes} classes: {result:?}"));
        check.verdict(&format!("meta.{name}"), problem);
    }
    Ok(())
}

/// Compares `loss_no_labels_at_all`: one image with logits of 0 and only ignored pixels.
fn compare_unlabelled(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    let meta = check.file().meta();
    let Some(table) = meta.find("loss_no_labels_at_all") else {
        return Ok(());
    };
    // Only the description of the case `loss_label_*` gives the number of classes; the number of pixels is irrelevant.
    let message = meta
        .entries()
        .into_iter()
        .find(|(name, _)| name.starts_with("loss_label_"));
    let Some((_, message)) = message else {
        return Err(table.error("does not give its number of classes"));
    };
    let classes = classes_in(message.text()?);
    let side = 8;
    let targets = Targets::new(vec![IGNORE_LABEL; side * side], 1, [side, side], classes)?;
    let masks = Tensor::<4>::zeros([1, classes, side, side], device);
    let terms = MaskLoss::default().forward(masks, &targets, normalizer(&[&targets]));
    for (name, found) in [("loss_mask", terms.focal), ("loss_dice", terms.dice)] {
        let reference = Array::scalar(table.at(name)?.number()?);
        let name = format!("meta.loss_no_labels_at_all.{name}");
        check.compare_value(&name, &reference, &Array::of(found)?, Limit::ACTIVATION);
    }
    Ok(())
}

/// Returns the number of classes in a message such as "… out of bounds for dimension 0 with size 3".
fn classes_in(message: &str) -> usize {
    integers_in(message).last().copied().unwrap_or(1)
}
