//! Compares a small CAT-Seg in inference: every activation, the scores of the whole image, and of windows and image.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use zeg_image::RgbImage;
use zeg_model::{
    classes::ClassQueries,
    inference::{Inference, PlannedWindow, Scan, Source},
    layers::l2_normalize,
    method::Model,
    methods::cat_seg::CatSeg,
    trace::Trace,
};

use super::{
    case::{Case, as_cat_seg, image, in_front, joined, part_of_image, reordered, whole_image},
    compare_logits,
};
use crate::{
    ParityError,
    array::Array,
    check::Check,
    limit::Limit,
    small_model::{compare_labels, token_rows},
};

/// Name of the classes that are kept of more than can be aggregated.
const KEPT: &str = "topk_classes";

/// Compares all results of inference.
pub(super) fn compare(check: &mut Check, case: &Case, device: &Device) -> Result<(), ParityError> {
    let tower = case.text_tower(device)?;
    let mut ids = token_rows(check.input("in.text_ids_test")?);
    if let Some(error) = case.planted {
        error.alter_texts(&mut ids);
    }
    let mut trace = Trace::on();
    let text = l2_normalize(tower.forward(&ids, &mut trace)); // [classes, dim]
    for (name, data) in trace.into_recorded() {
        check.compare(
            &format!("eval.text.{name}"),
            &Array::of_data(data)?,
            case.limit,
        );
    }
    check.compare("eval.text.features", &Array::of(text.clone())?, case.limit);

    let model = case.packed(device)?;
    let input = image(check, "in.image")?;
    let own = as_cat_seg(check, &*model)?;
    compare_activations(check, case, own, &input, text.clone())?;
    compare_scores(check, case, &*model, &input, &text)?;
    compare_windows(check, case, &*model, &input, &text)
}

fn compare_activations(
    check: &mut Check,
    case: &Case,
    model: &CatSeg,
    input: &RgbImage,
    text: Tensor<2>,
) -> Result<(), ParityError> {
    let images = whole_image(input, &text.device());
    let mut trace = Trace::on();
    let features = model.features(images, &mut trace);
    let logits = model.decode(&features, text.clone(), case.pooling, &mut trace)?;
    let mut recorded = BTreeMap::new();
    for (name, data) in trace.into_recorded() {
        recorded.insert(name, Array::of_data(data)?);
    }
    recorded.remove("logits");
    let order = own_order(check, "eval.", recorded.get(KEPT));
    for (name, found) in recorded {
        let found = match (&order, class_axis(&name)) {
            (Some(order), Some(axis)) => reordered(&found, axis, order),
            _ => found,
        };
        let limit = if name == KEPT {
            Limit::Exact
        } else {
            case.limit
        };
        check.compare(&format!("eval.{name}"), &found, limit);
    }
    compare_logits(check, "eval.logits", &Array::of(logits)?, case.limit);
    let pooling = case.config.aggregator.pooling;
    let pooled = model.decode(&features, text, pooling, &mut Trace::off())?;
    compare_logits(
        check,
        "eval.logits_pool_train",
        &Array::of(pooled)?,
        case.limit,
    );
    Ok(())
}

/// Returns the place of each kept class of the reference among those kept here, which are ascending.
fn own_order(check: &Check, prefix: &str, kept: Option<&Array>) -> Option<Vec<usize>> {
    let reference = check.file().tensors.get(&format!("{prefix}{KEPT}"))?;
    let kept = kept?.to_u32();
    let place = |class: u32| kept.binary_search(&class).unwrap_or(0);
    let order: Vec<usize> = reference.to_u32().into_iter().map(place).collect();
    (order.len() == kept.len()).then_some(order)
}

/// Returns the axis of an activation that belongs to the classes, before the cut ones are put back.
fn class_axis(name: &str) -> Option<usize> {
    match name.rsplit('.').next().unwrap_or(name) {
        "corr" | "corr_embed" | "out" => Some(2),
        "guid_text" | "class_attn" | KEPT => Some(1),
        "guidance_norm" | "swin1" | "swin2" | "decoder1" | "decoder2" => Some(0),
        _ => None,
    }
}

/// Returns the scores of an image at another size: `[classes, height, width]`
pub(super) fn scores(
    model: &dyn Model,
    input: &RgbImage,
    text: &Tensor<2>,
    settings: &Inference,
    [height, width]: [usize; 2],
) -> Result<Array, ParityError> {
    let device = text.device();
    let [classes, _] = text.dims();
    let queries = ClassQueries::new(text.clone(), vec![false; classes]);
    let source = Source::Image(input, &device);
    let mut scan = Scan::new(model, source, &queries, settings)?.at_size([height, width]);
    let mut values = vec![0.0; classes * height * width];
    for rows in scan.strips() {
        let strip = scan.strip(rows)?;
        for (row, line) in strip
            .values()
            .chunks_exact((classes * width).max(1))
            .enumerate()
        {
            for (class, line) in line.chunks_exact(width.max(1)).enumerate() {
                let start = (class * height + strip.first_row + row) * width;
                for (value, score) in values[start..].iter_mut().zip(line) {
                    *value = f64::from(*score);
                }
            }
        }
    }
    Ok(Array {
        shape: vec![classes, height, width],
        values,
    })
}

fn compare_scores(
    check: &mut Check,
    case: &Case,
    model: &dyn Model,
    input: &RgbImage,
    text: &Tensor<2>,
) -> Result<(), ParityError> {
    let size = check.file().meta().at("config")?.at("out")?.pair()?;
    let found = scores(model, input, text, &case.whole, size)?;
    check.compare("eval.scores", &found, case.limit);
    let found = scores(model, input, text, &case.slide, size)?;
    check.compare("slide.scores", &found, case.limit);
    if let Some(reference) = check.reference("slide.seg") {
        let [height, width] = size;
        let map = zeg_model::inference::ScoreMap {
            classes: found.shape[0],
            height,
            width,
            values: found.to_f32(),
        };
        let labels = map.labels(width, height, None)?;
        let labels = Array::from_values(&[height, width], labels.labels());
        compare_labels(check, "slide.seg", reference, &labels, &in_front(&found));
    }
    Ok(())
}

/// Returns the windows in the reference's order: row by row, then the whole image.
pub(super) fn windows(
    model: &dyn Model,
    input: &RgbImage,
    settings: &Inference,
) -> Result<Vec<PlannedWindow>, ParityError> {
    let size = [input.height() as usize, input.width() as usize];
    let mut plan = model.plan(size, settings)?;
    plan.sort_by_key(|planned| (planned.layer, planned.window.y, planned.window.x));
    Ok(plan)
}

/// Compares the inputs, kept classes and logits of windows and image.
fn compare_windows(
    check: &mut Check,
    case: &Case,
    model: &dyn Model,
    input: &RgbImage,
    text: &Tensor<2>,
) -> Result<(), ParityError> {
    let own = as_cat_seg(check, model)?;
    let (mut inputs, mut logits, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for planned in windows(model, input, &case.slide)? {
        let Some(placed) = &planned.input else {
            continue; // every window is a part of a stretched image
        };
        let mut trace = Trace::on();
        let features = own.features(part_of_image(input, placed, &text.device()), &mut trace);
        for (name, data) in trace.into_recorded() {
            if name == "clip_image" {
                inputs.push(Array::of_data(data)?);
            }
        }
        // Not traced, so that classes are aggregated a few at a time as in use.
        let found = own.decode(&features, text.clone(), case.pooling, &mut Trace::off())?;
        logits.push(Array::of(found)?);
        if check.has("slide.topk_classes") {
            let mut trace = Trace::on();
            own.decode(&features, text.clone(), case.pooling, &mut trace)?;
            for (name, data) in trace.into_recorded() {
                if name == KEPT {
                    kept.push(Array::of_data(data)?);
                }
            }
        }
    }
    check.compare("slide.crops", &joined(&inputs), case.limit);
    compare_logits(check, "slide.logits", &joined(&logits), case.limit);
    compare_kept(check, "slide.topk_classes", &joined(&kept));
    Ok(())
}

/// Compares kept classes, whose order has no meaning: `[windows, classes]`
pub(super) fn compare_kept(check: &mut Check, name: &str, found: &Array) {
    let Some(reference) = check.reference(name) else {
        return;
    };
    let columns = reference.shape.last().copied().unwrap_or(1).max(1);
    let sorted = |array: &Array| {
        let mut values = array.values.clone();
        for row in values.chunks_mut(columns) {
            row.sort_by(f64::total_cmp);
        }
        Array {
            shape: array.shape.clone(),
            values,
        }
    };
    check.compare_value(name, &sorted(reference), &sorted(found), Limit::Exact);
}
