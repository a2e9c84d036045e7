//! Compares a model of published size with generated weights: sampled activations, losses, gradient norms and samples.
//!
//! Inference is computed once in packed layers, training once in plain layers. The loss after the optimiser's step
//! needs a second pass of the encoder, with the updated prompts.

mod case;

use std::collections::BTreeMap;

use burn::{
    module::Module,
    tensor::{Tensor, activation},
};
use zeg_model::{
    embeddings::ClassEmbeddings,
    inference::{Inference, ScoreMap, lower_seen},
    params::flat_gradients,
    resize::bilinear,
    trace::Trace,
};
use zeg_train::{
    optimizer::{AdamWSettings, NamedAdamW},
    schedule::Schedule,
};

use self::case::Case;
use super::{
    Options, ParityError,
    array::Array,
    assets,
    check::{Check, Computed},
    limit::Limit,
    planted::planted_encode,
    progress,
    small_model::compare_labels,
    training_part::{NamedGradients, compare_gradients, compare_losses},
    typed::TypedModel,
};

/// Largest number of values of a gradient that a file stores.
const SAMPLES: usize = 64;

/// Compares everything in the file.
pub(crate) fn compare(mut check: Check, options: &Options) -> Result<Computed, ParityError> {
    let file = check.file();
    let case = Case::read(&check)?;
    let table = assets::find(&file.path, "text", &case.table, options)?;
    let embeddings = ClassEmbeddings::open(&table, &case.classes.classes)?;
    let plain = &options.device;
    progress(&file.path, "generating weights");
    let weights = case.weights(plain)?;

    progress(&file.path, "encoding");
    let images = case.images();
    let packed = case.config.build_packed(&weights, plain)?;
    compare_eval(&mut check, &case, &packed, &images, &embeddings)?;
    drop(packed);
    // Once a planted error is found, the slow training step is not needed.
    if check.planted().is_none() || !check.deviates() {
        let model = case.config.build(&weights, &plain.clone().autodiff())?;
        compare_step(&mut check, &case, model, &images, &embeddings)?;
    }
    Ok(check.finish())
}

/// Compares losses, gradients, and the loss after one step of the optimiser.
fn compare_step(
    check: &mut Check,
    case: &Case,
    model: TypedModel,
    images: &Array,
    embeddings: &ClassEmbeddings,
) -> Result<(), ParityError> {
    progress(&check.file().path, "gradients");
    let device = model.device();
    let Some(images) = images.to_tensor::<4>(&device) else {
        return Ok(()); // images have four axes
    };
    let targets = case.targets()?;
    let text = assets::class_rows(embeddings, &case.classes.seen(), &device);
    let pass = case.pass(&model, images.clone(), text, &targets);
    compare_losses(check, &case.loss, &pass)?;
    let mut gradients = pass.total(&case.loss).backward();
    let gradients: BTreeMap<String, Tensor<1>> =
        flat_gradients(&model, &mut gradients).into_iter().collect();
    compare_sampled_gradients(check, case, &gradients)?;

    progress(&check.file().path, "optimiser step, and the loss after it");
    let mut optimizer = NamedAdamW::new(&AdamWSettings::default());
    let gradients = gradients
        .into_iter()
        .map(|(name, g)| (name, g.without_autodiff()))
        .collect();
    let mut model = model;
    optimizer.step(&mut model, gradients, Schedule::default().base);
    let model = model.valid();
    let images = images.without_autodiff();
    let text = assets::class_rows(embeddings, &case.classes.seen(), &images.device());
    let total = case.pass(&model, images, text, &targets).total(&case.loss);
    check.compare(
        "train.total_after_step1",
        &Array::of(total)?,
        case.limits.after_step,
    );
    Ok(())
}

fn compare_eval(
    check: &mut Check,
    case: &Case,
    model: &TypedModel,
    images: &Array,
    embeddings: &ClassEmbeddings,
) -> Result<(), ParityError> {
    let device = model.device();
    let Some(images) = images.to_tensor(&device) else {
        return Ok(()); // images have four axes
    };
    let mut trace = Trace::on();
    let encoded = planted_encode(case.planted, model, images, &mut trace);
    let (grid, _) = model.decode(encoded, embeddings.to_tensor(&device), &mut trace);
    let masks = bilinear(grid, [case.size; 2]);
    let seen: Vec<bool> = case
        .classes
        .unseen_flags()
        .iter()
        .map(|unseen| !unseen)
        .collect();
    let offset = Inference::default().seen_offset;
    let scores = lower_seen(activation::sigmoid(masks.clone()), &seen, offset);

    let mut results = BTreeMap::new();
    for (name, data) in trace.into_recorded() {
        results.insert(name, Array::of_data(data)?);
    }
    results.insert("pred_masks".into(), Array::of(masks)?);
    results.insert("pred".into(), Array::of(scores)?);
    let names: Vec<String> = check.file().tensors.keys().cloned().collect();
    for name in names {
        if let Some(what) = name.strip_prefix("eval.") {
            compare_sampled(check, &name, what, &results)?;
        }
    }
    Ok(())
}

/// Compares a tensor that is stored whole, at regular intervals, or as mean and standard deviation.
fn compare_sampled(
    check: &mut Check,
    name: &str,
    what: &str,
    results: &BTreeMap<String, Array>,
) -> Result<(), ParityError> {
    if let Some(found) = results.get(what) {
        check.compare(name, &as_many_tokens(check, name, found), Limit::ACTIVATION);
    } else if let Some(found) = what
        .strip_suffix(".mean_std")
        .and_then(|what| results.get(what))
    {
        check.compare(name, &mean_and_deviation(found), Limit::ACTIVATION);
    } else if let Some((what, step)) = what.rsplit_once("_every_") {
        let Ok(step @ 1..) = step.parse::<usize>() else {
            return Err(check.tensor_error(name, "has no step in its name"));
        };
        if what == "argmax" {
            compare_best(check, name, step, &results["pred"])?;
        } else if let Some(found) = what.strip_suffix(".tokens").and_then(|w| results.get(w)) {
            check.compare(name, &found.every(step, 1..2), Limit::ACTIVATION);
        } else if let Some(found) = results.get(what) {
            check.compare(name, &found.every(step, 2..4), Limit::ACTIVATION);
        }
    }
    Ok(())
}

/// Returns as many tokens as the file stores; of CLIP-RC's class queries (all classes in every region) these are the
/// first.
fn as_many_tokens(check: &Check, name: &str, found: &Array) -> Array {
    let stored = check.file().tensors.get(name);
    match (stored.map(|array| &array.shape[..]), &found.shape[..]) {
        (Some(&[1, stored, width]), &[1, tokens, _]) if stored < tokens => Array {
            shape: vec![1, stored, width],
            values: found.values[..stored * width].to_vec(),
        },
        _ => found.clone(),
    }
}

/// Compares the best class of every `step`-th pixel.
fn compare_best(
    check: &mut Check,
    name: &str,
    step: usize,
    scores: &Array,
) -> Result<(), ParityError> {
    let Some(reference) = check.reference(name) else {
        return Ok(());
    };
    let [1, classes, height, width] = scores.shape[..] else {
        return Err(check.tensor_error(name, "covers more than one image"));
    };
    let map = ScoreMap {
        classes,
        height,
        width,
        values: scores.to_f32(),
    };
    let labels = map.labels(width, height, None)?;
    let mut found = Array::from_values(&[1, height, width], labels.labels()).every(step, 1..3);
    found.shape.clone_from(&reference.shape);
    compare_labels(check, name, reference, &found, &scores.every(step, 2..4));
    Ok(())
}

/// Returns mean and standard deviation of all values; the latter with n − 1, as in the reference.
fn mean_and_deviation(array: &Array) -> Array {
    let count = array.values.len() as f64;
    let mean = array.values.iter().sum::<f64>() / count;
    let squares: f64 = array.values.iter().map(|v| (v - mean).powi(2)).sum();
    Array::row(vec![mean, (squares / (count - 1.0)).sqrt()])
}

fn compare_sampled_gradients(
    check: &mut Check,
    case: &Case,
    gradients: &BTreeMap<String, Tensor<1>>,
) -> Result<(), ParityError> {
    let (mut norms, mut samples) = (NamedGradients::new(), NamedGradients::new());
    for (name, gradient) in gradients {
        let gradient = Array::of(gradient.clone())?;
        norms.insert(name.clone(), Array::scalar(gradient.norm()));
        let stride = (gradient.values.len() / SAMPLES).max(1);
        samples.insert(name.clone(), gradient.sampled(stride, SAMPLES));
    }
    compare_gradients(check, "gradnorm.", &norms, case.limits.gradient);
    compare_gradients(check, "gradsample.", &samples, case.limits.gradient);
    let stored = check
        .file()
        .tensors
        .keys()
        .filter_map(|name| name.strip_prefix("gradnorm."));
    let extra: Vec<_> = norms
        .keys()
        .filter(|n| !check.has(&format!("gradnorm.{n}")))
        .collect();
    let problem = format!(
        "{} gradients in the file; computed but not in the file: {extra:?}",
        stored.count()
    );
    check.verdict("meta.gradients", (!extra.is_empty()).then_some(problem));
    Ok(())
}
