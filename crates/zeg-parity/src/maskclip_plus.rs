//! Compares MaskCLIP and MaskCLIP+: CLIP's tower as a guide, its refinements and pseudo labels, the student's
//! activations, losses, gradients and optimiser steps, prompts, and the loading of labels.
//!
//! The numbers are in one folder: `a_v2_state`, `a_v2_train`, … with one description, `a_meta.json`; `a` is any name.

mod case;
mod guide;
mod student;
mod text;

use burn::tensor::{Device, Tensor, activation::softmax};
use zeg_model::{resize::bilinear, trace::Trace};

use super::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
};
use case::Case;

/// Limit of activations, scores, logits and losses.
const ACTIVATION: Limit = Limit::OfMax(2e-4);
/// Limit of gradients.
const GRADIENT: Limit = Limit::OfMax(1e-3);
/// Gap between the two best scores, as a share of the largest score, below which rounding may decide about a label.
const TIE: f64 = 1e-4;
/// Value of ignored pixels in label maps.
const IGNORED: u8 = 255;

/// Compares one file of the folder.
pub(super) fn compare(mut check: Check, device: &Device) -> Result<Computed, ParityError> {
    let case = Case::open(&check)?;
    match case.part.as_str() {
        "maskclip_vit" | "maskclip_rn" => guide::compare(check, &case, device),
        "vit_guided" => guide::compare_labels(check, &case, device),
        "v2_state" | "v3p_state" => {
            check.rest_are_weights();
            Ok(check.finish())
        }
        "text" => text::compare(check, &case, device),
        _ => student::compare(check, &case, device),
    }
}

/// Compares the recorded activations with the file's tensors of the same names after a prefix.
fn compare_trace(check: &mut Check, prefix: &str, trace: Trace) -> Result<(), ParityError> {
    for (name, data) in trace.into_recorded() {
        let name = format!("{prefix}{name}");
        if check.has(&name) {
            check.compare(&name, &Array::of_data(data)?, ACTIVATION);
        }
    }
    Ok(())
}

/// Compares scores at the size of the original image, and the class of every pixel.
///
/// - `scores`: `[1, classes, h, w]`
/// - `input`, `original`: height and width of the network's input and of the original image
/// - `step`: rows and columns between those that are stored
fn compare_output(
    check: &mut Check,
    prefix: &str,
    scores: Tensor<4>,
    [input, original]: [[usize; 2]; 2],
    step: usize,
) -> Result<(), ParityError> {
    let scores = bilinear(bilinear(scores, input), original);
    let output = Array::of(softmax(scores.clone(), 1))?;
    let name = format!("{prefix}output_every{step}");
    check.compare(&name, &output.every(step, 2..4), ACTIVATION);
    let scores = Array::of(scores)?;
    let [classes, pixels] = [scores.shape[1], scores.shape[2] * scores.shape[3]];
    let best: Vec<u8> = (0..pixels)
        .map(|pixel| ranked(&scores, classes, pixels, pixel)[0] as u8)
        .collect();
    let found = Array::from_values(&[1, original[0], original[1]], &best);
    compare_labels(check, &format!("{prefix}seg"), &found, &scores, |_| true);
    Ok(())
}

/// Returns the two best classes of a pixel, the first of equal ones first; twice the same if there is one class.
///
/// - `pixel`: position in `[batch, pixels]`
fn ranked(scores: &Array, classes: usize, pixels: usize, pixel: usize) -> [usize; 2] {
    let (image, place) = (pixel / pixels, pixel % pixels);
    let at = |class: usize| scores.values[(image * classes + class) * pixels + place];
    let mut order: Vec<usize> = (0..classes).collect();
    order.sort_by(|&a, &b| at(b).total_cmp(&at(a)).then(a.cmp(&b)));
    [order[0], order[1 % classes]]
}

/// Compares labels, which may differ where the two best scores are nearly equal.
///
/// - `found`: any shape of `[batch, height, width]`
/// - `scores`: those that decide, at the size of the labels: `[batch, candidates, height, width]`
/// - `decided`: whether scores decide about the pixel at a position
fn compare_labels(
    check: &mut Check,
    name: &str,
    found: &Array,
    scores: &Array,
    decided: impl Fn(usize) -> bool,
) {
    let Some(reference) = check.reference(name) else {
        return;
    };
    if reference.shape != found.shape {
        check.compare_value(name, reference, found, Limit::Exact);
        return;
    }
    let [candidates, pixels] = [scores.shape[1], scores.shape[2] * scores.shape[3]];
    let largest = scores.largest();
    let is_tie = |pixel: usize| {
        let [best, second] = ranked(scores, candidates, pixels, pixel);
        let (image, place) = (pixel / pixels, pixel % pixels);
        let at = |class: usize| scores.values[(image * candidates + class) * pixels + place];
        decided(pixel) && at(best) - at(second) < TIE * largest
    };
    let pairs = reference.values.iter().zip(&found.values).enumerate();
    let wrong = pairs.filter(|&(pixel, (a, b))| (a - b).abs() > 0.0 && !is_tie(pixel));
    check.measured(name, Limit::Exact, wrong.count() as f64, found.clone());
}
