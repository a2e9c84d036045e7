//! Compares single parts of CAT-Seg: learning rates, resizing, positions, window masks, linear attention, windows, the loss,
//! metrics and tokens.

use std::fmt::Write as _;

use burn::tensor::{Device, Tensor};
use sha2::{Digest as _, Sha256};
use zeg_eval::{ConfusionMatrix, NanRule, Report};
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage, resize_antialiased, resize_nearest};
use zeg_model::{
    inference::{Inference, ScoreMap},
    method::{ExampleSize, Method as _},
    methods::cat_seg::{
        CatSegMethod, class_attention::linear_attention, swin::Windows, tower::resize_positions,
    },
    resize::{bicubic, bilinear, bilinear_aligned},
};
use zeg_train::{
    methods::cat_seg::binary_cross_entropy,
    schedule::{Decay, Schedule},
    targets::Targets,
};
use zeg_vocab::{
    classes::ClassSet,
    templates::TemplateSet,
    tokenizer::{CONTEXT_LENGTH, Overflow, Tokenizer},
};

use super::ACTIVATION;
use crate::{
    ParityError,
    array::Array,
    check::Check,
    file::{Meta, VectorFile, integers_in},
    limit::Limit,
    training_part::memory_label,
};

/// Limit of losses.
const LOSS: Limit = Limit::Relative(1e-5);
/// Limit of learning rates, which the reference computes in Python floats. Near the end of the cosine the rounding of the
/// angle is large beside the value.
const RATE: Limit = Limit::Absolute(1e-16);
/// Limit of metrics in percent.
const PERCENT: Limit = Limit::Absolute(1e-9);
/// Stands for "no value" on both sides.
const NO_VALUE: f64 = -1.0;

/// Compares all parts that the file contains.
pub(super) fn compare(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    let beside = check.file().path.with_extension("json");
    let description = VectorFile::open(&beside)?;
    let meta = description.meta();
    compare_rates(check, &meta)?;
    compare_sizes(check, &meta)?;
    compare_images(check)?;
    compare_maps(check, device)?;
    compare_masks(check, device)?;
    compare_attention(check, device)?;
    compare_coverage(check, device)?;
    compare_losses(check, device)?;
    compare_metrics(check, &meta, ("metric", None))?;
    compare_metrics(check, &meta, ("vocb", Some(20)))?;
    compare_tokens(check, &meta)
}

fn tensor<const D: usize>(
    check: &mut Check,
    name: &str,
    device: &Device,
) -> Result<Tensor<D>, ParityError> {
    let array = check.input(name)?;
    let found = array.to_tensor(device);
    found.ok_or_else(|| check.tensor_error(name, &format!("does not have {D} axes")))
}

/// Compares the table of learning rates.
fn compare_rates(check: &mut Check, meta: &Meta) -> Result<(), ParityError> {
    let (Some(table), Some(solver)) = (meta.find("lr"), meta.find("solver")) else {
        return Ok(());
    };
    let schedule = Schedule {
        base: solver.at("BASE_LR")?.number()?,
        minimum: solver.at("BASE_LR_END")?.number()?,
        decay: Decay::Cosine,
        warmup_steps: 0,
        ..Schedule::default()
    };
    let steps = solver.at("MAX_ITER")?.count()? as u64;
    let factor = solver.at("CLIP_MULTIPLIER")?.number()?;
    let (mut reference, mut found) = (Vec::new(), Vec::new());
    for (step, rates) in table.at("values")?.entries() {
        let step: u64 = step
            .parse()
            .map_err(|_| rates.error("has no number as name"))?;
        let rate = schedule.at(step, steps);
        found.extend([rate, rate * factor]);
        reference.extend(rates.numbers()?);
    }
    check.compare_value("meta.lr", &Array::row(reference), &Array::row(found), RATE);
    Ok(())
}

/// Compares the sizes of resized images.
fn compare_sizes(check: &mut Check, meta: &Meta) -> Result<(), ParityError> {
    let Some(table) = meta.find("resize_shapes") else {
        return Ok(());
    };
    let config = CatSegMethod.configure(&CatSegMethod.example(ExampleSize::Published), None)?;
    let training = Inference {
        short_side: 384,
        longest_side: 1333,
        ..Inference::default()
    };
    let (mut reference, mut found) = (Vec::new(), Vec::new());
    for row in table.at("values")?.items()? {
        let sizes = row.items()?;
        let [size, test, train] = &sizes[..] else {
            return Err(row.error("is not three sizes"));
        };
        let [height, width] = size.pair()?;
        for (expected, settings) in [(test, &config.default_inference()), (train, &training)] {
            let (width, height) = settings.resized(width, height);
            found.extend([height as f64, width as f64]);
            reference.extend(expected.numbers()?);
        }
    }
    let (reference, found) = (Array::row(reference), Array::row(found));
    check.compare_value("meta.resize_shapes", &reference, &found, Limit::Exact);
    Ok(())
}

/// Compares resized pixels and labels.
fn compare_images(check: &mut Check) -> Result<(), ParityError> {
    if !check.has("resize.in") {
        return Ok(());
    }
    let stored = check.input("resize.in")?;
    let [height, width, 3] = stored.shape[..] else {
        return Err(check.tensor_error("resize.in", "is not [height, width, 3]"));
    };
    let image = RgbImage::from_raw(width as u32, height as u32, stored.to_u8())
        .ok_or_else(|| check.tensor_error("resize.in", "is not an image"))?;
    for name in ["resize.down", "resize.up"] {
        let Some(reference) = check.file().tensors.get(name) else {
            continue;
        };
        if let [height, width, 3] = reference.shape[..] {
            let resized = resize_antialiased(&image, width, height);
            let found = Array::from_values(&[height, width, 3], resized.as_raw());
            check.compare(name, &found, Limit::Exact);
        }
    }
    let labels = check.input("resize.label_in")?;
    let values = labels.to_u8().into_iter().map(u16::from).collect();
    let map = LabelMap::new(width, height, values)
        .map_err(|error| check.tensor_error("resize.label_in", &error.to_string()))?;
    for name in ["resize.label_down", "resize.label_up"] {
        let Some(reference) = check.file().tensors.get(name) else {
            continue;
        };
        if let [height, width] = reference.shape[..] {
            let resized = resize_nearest(&map, width, height);
            let found = Array::from_values(&[height, width], resized.labels());
            check.compare(name, &found, Limit::Exact);
        }
    }
    Ok(())
}

/// Compares resized maps and the resized position table.
fn compare_maps(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    if check.has("interp.in") {
        let x = tensor::<4>(check, "interp.in", device)?;
        for name in check.file().tensors.keys().cloned().collect::<Vec<_>>() {
            let Some(kind) = name.strip_prefix("interp.").filter(|kind| *kind != "in") else {
                continue;
            };
            let [height, width] = integers_in(kind)[..] else {
                return Err(check.tensor_error(&name, "has no size in its name"));
            };
            let (x, size) = (x.clone(), [height, width]);
            let found = if kind.starts_with("bicubic") {
                bicubic(x, size)
            } else if kind.contains("_ac_") {
                bilinear_aligned(x, size)
            } else {
                bilinear(x, size)
            };
            check.compare(&name, &Array::of(found)?, ACTIVATION);
        }
    }
    if check.has("posemb.in") {
        let table = tensor::<2>(check, "posemb.in", device)?;
        let [rows, _] = table.dims();
        let side = rows.saturating_sub(1).isqrt();
        let shape = check
            .file()
            .tensors
            .get("posemb.out")
            .map(|out| out.shape.clone());
        let target = shape.map_or(0, |shape| shape[0].saturating_sub(1).isqrt());
        let patches = table.clone().narrow(0, 1, side * side);
        let resized = resize_positions(&patches, side, [target, target]);
        let found = Tensor::cat(vec![table.narrow(0, 0, 1), resized], 0);
        check.compare("posemb.out", &Array::of(found)?, ACTIVATION);
    }
    Ok(())
}

/// Compares the masks of shifted windows.
fn compare_masks(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    for name in check.file().tensors.keys().cloned().collect::<Vec<_>>() {
        let Some(kind) = name.strip_prefix("mask.") else {
            continue;
        };
        let [height, width, window] = integers_in(kind)[..] else {
            return Err(check.tensor_error(&name, "has no sizes in its name"));
        };
        let windows = Windows::shifted([height, width], window, device);
        let mut values = Vec::new();
        for mask in windows.masks() {
            let mask = Array::of(mask.clone())?.values;
            values.extend(mask.into_iter().map(|v| f64::from(u8::from(v == 0.0))));
        }
        let length = window * window;
        let found = Array {
            shape: vec![windows.masks().len(), length, length],
            values,
        };
        check.compare(&name, &found, Limit::Exact);
    }
    Ok(())
}

/// Compares linear attention.
fn compare_attention(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    if !check.has("linattn.out") {
        return Ok(());
    }
    let mut read = |name: &str| {
        let x = tensor::<4>(check, &format!("linattn.{name}"), device)?;
        Ok::<_, ParityError>(x.swap_dims(1, 2)) // [batch, heads, tokens, head]
    };
    let (q, k, v) = (read("q")?, read("k")?, read("v")?);
    let found = linear_attention(q, k, v).swap_dims(1, 2);
    check.compare("linattn.out", &Array::of(found)?, ACTIVATION);
    Ok(())
}

/// Compares the number of windows that cover each pixel of the canvas.
fn compare_coverage(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    if !check.has("slide.coverage_640") {
        return Ok(());
    }
    let config = CatSegMethod.configure(&CatSegMethod.example(ExampleSize::Published), None)?;
    let model = config.blueprint(device)?;
    let settings = config.default_inference();
    let size = [480, 640];
    let [height, width] = model.canvas(size, &settings);
    let mut counts = vec![0.0; height * width];
    let plan = model.plan(size, &settings)?;
    for planned in plan.iter().filter(|planned| planned.layer == 0) {
        let window = planned.window;
        for y in window.y..window.y + window.height {
            for count in &mut counts[y * width + window.x..][..window.width] {
                *count += 1.0;
            }
        }
    }
    let found = Array {
        shape: vec![height, width],
        values: counts,
    };
    check.compare("slide.coverage_640", &found, Limit::Exact);
    Ok(())
}

/// Compares the loss with ignored pixels and with a class that was cut.
fn compare_losses(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    if !check.has("loss.logits") {
        return Ok(());
    }
    let logits = tensor::<4>(check, "loss.logits", device)?;
    let labels = check.input("loss.label")?;
    let [batch, height, width] = labels.shape[..] else {
        return Err(check.tensor_error("loss.label", "is not [batch, height, width]"));
    };
    let labels: Vec<u16> = labels.to_u8().into_iter().map(memory_label).collect();
    let mut ignored = labels.clone();
    for label in ignored.iter_mut().skip(height * width).take(height * width) {
        *label = IGNORE_LABEL;
    }
    let [_, classes, h, w] = logits.dims();
    let cut = logits.clone().narrow(1, 1, 1) * 0.0 - 100.0;
    let cut = Tensor::cat(
        vec![
            logits.clone().narrow(1, 0, 1),
            cut,
            logits.clone().narrow(1, 2, classes - 2),
        ],
        1,
    );
    debug_assert_eq!(cut.dims(), [batch, classes, h, w]);
    for (name, logits, labels) in [
        ("loss.value", logits.clone(), &labels),
        ("loss.value_second_image_all_ignored", logits, &ignored),
        ("loss.value_class1_minus100", cut, &labels),
    ] {
        let targets = Targets::new(labels.clone(), batch, [height, width], classes)?;
        let found = binary_cross_entropy(logits, &targets);
        check.compare(name, &Array::of(found)?, LOSS);
    }
    Ok(())
}

/// Compares a toy evaluation.
///
/// - `background`: the class that all later classes count as
fn compare_metrics(
    check: &mut Check,
    meta: &Meta,
    (name, background): (&str, Option<u16>),
) -> Result<(), ParityError> {
    let key = |what: &str| format!("{name}.{what}");
    let Some(reference) = check.reference(&key("confusion")) else {
        return Ok(());
    };
    let classes = reference
        .shape
        .first()
        .map_or(0, |rows| rows.saturating_sub(1));
    let mut confusion = ConfusionMatrix::new(classes);
    // The reference counts ignored pixels as one class more.
    let mut all = ConfusionMatrix::new(classes + 1);
    let mut images = 0;
    while check.has(&key(&format!("score{images}"))) {
        let scores = check.input(&key(&format!("score{images}")))?;
        let [channels, height, width] = scores.shape[..] else {
            return Err(check.tensor_error(&key("score"), "is not [classes, height, width]"));
        };
        let map = ScoreMap {
            classes: channels,
            height,
            width,
            values: scores.to_f32(),
        };
        let labels = map.labels(width, height, None)?;
        let most = background.unwrap_or(u16::MAX);
        let predicted: Vec<u16> = labels
            .labels()
            .iter()
            .map(|&label| label.min(most))
            .collect();
        let truth = check.input(&key(&format!("gt{images}")))?.to_u8();
        let truth: Vec<u16> = truth.into_iter().map(memory_label).collect();
        confusion.add(&truth, &predicted, IGNORE_LABEL)?;
        let with_ignored: Vec<u16> = truth.iter().map(|&l| l.min(classes as u16)).collect();
        all.add(&with_ignored, &predicted, IGNORE_LABEL)?;
        images += 1;
    }
    let cells = (0..=classes).flat_map(|p| (0..=classes).map(move |t| (t, p)));
    let cells: Vec<f64> = cells.map(|(t, p)| all.count(t, p) as f64).collect();
    let found = Array {
        shape: reference.shape.clone(),
        values: cells,
    };
    check.compare(&key("confusion"), &found, Limit::Exact);

    let table = meta.at(name)?;
    let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    let seen = vec![false; classes];
    let report = Report::with_rule(&confusion, &names, &seen, images, NanRule::TruthMean)?;
    let percent = |value: Option<f64>| value.map_or(NO_VALUE, |value| 100.0 * value);
    let mut results = vec![
        ("mIoU".to_owned(), percent(report.miou)),
        (
            "fwIoU".to_owned(),
            percent(confusion.frequency_weighted_iou()),
        ),
        ("mACC".to_owned(), percent(report.macc)),
        ("pACC".to_owned(), percent(report.p_acc)),
    ];
    for (class, report) in report.classes.iter().enumerate() {
        results.push((format!("IoU-c{class}"), percent(report.iou)));
        results.push((format!("ACC-c{class}"), percent(report.acc)));
    }
    for (entry, found) in results {
        let reference = table.find(&entry).map(|value| value.number()).transpose()?;
        let reference = Array::scalar(reference.unwrap_or(NO_VALUE));
        let name = format!("meta.{name}.{entry}");
        check.compare_value(&name, &reference, &Array::scalar(found), PERCENT);
    }
    Ok(())
}

/// Compares the tokens of the class lists that this program has under the same spelling.
fn compare_tokens(check: &mut Check, meta: &Meta) -> Result<(), ParityError> {
    let Some(lists) = meta.find("tokens").and_then(|tokens| tokens.find("lists")) else {
        return Ok(());
    };
    let tokenizer = Tokenizer::new()?;
    let templates = TemplateSet::by_name("cat-seg")?;
    let encode = |name: &str| {
        let texts = templates.render(name);
        let text = texts.into_iter().next().unwrap_or_default();
        tokenizer.tokenize(&text, CONTEXT_LENGTH, Overflow::Error)
    };
    for (name, list) in lists.entries() {
        let Some(names) = class_names(name)? else {
            continue;
        };
        let mut hash = Sha256::new();
        for class in &names {
            let ids = encode(class)?;
            let length = ids
                .iter()
                .rposition(|id| *id != 0)
                .map_or(0, |last| last + 1);
            for id in &ids[..length] {
                hash.update(id.to_le_bytes());
            }
        }
        let digest = hash
            .finalize()
            .iter()
            .fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}"); // a string takes everything
                text
            });
        let expected = list.at("sha256_of_ids")?.text()?;
        let problem = format!("SHA-256 of the ids {digest}, but the reference has {expected}");
        check.verdict(
            &format!("meta.tokens.{name}"),
            (digest != expected).then_some(problem),
        );
    }
    Ok(())
}

/// Returns the first names of a class list under its name in the reference; `None` if this program spells it otherwise.
fn class_names(list: &str) -> Result<Option<Vec<String>>, ParityError> {
    let own = match list {
        "coco" => "coco-stuff171",
        "voc20" => "voc20",
        "ade150" => "ade20k-150",
        "ade847" => "ade20k-full847",
        _ => return Ok(None),
    };
    let classes = ClassSet::by_name(own)?;
    let first = |class: usize| {
        classes
            .names_of(class)
            .into_iter()
            .next()
            .unwrap_or_default()
    };
    Ok(Some((0..classes.len()).map(first).collect()))
}
