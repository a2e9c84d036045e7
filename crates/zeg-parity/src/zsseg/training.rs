//! Compares a training step of the segmenter: activations, assignments, losses, gradients, clipping and optimiser step.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::normalize::Normalization;
use zeg_model::{
    layers::l2_normalize,
    methods::zsseg::Zsseg,
    params::{list_params, trained_values},
    trace::Trace,
};
use zeg_train::{
    optimizer::{AdamWSettings, NamedAdamW, global_norm},
    set_loss::{group, set_criterion::SetLoss},
};
use zeg_vocab::tokenizer::{CONTEXT_LENGTH, Overflow, Tokenizer};

use super::{
    ACTIVATION, GRADIENT, STEPPED,
    case::{self, Case},
    text::Prompts,
};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
    set_pass::{Pass, targets},
};

/// Rows of the seen classes and of "no object".
const ROWS: &str = "text.rows_with_no_object";
/// Weight of "no object" in the cross-entropy, as released.
const NO_OBJECT: f64 = 0.1;
/// Largest global gradient norm, as released.
const CLIP_NORM: f64 = 0.01;
/// Limit of a gradient that is 0 except for rounding, as a share of the gradient of the same module's bias.
const ZERO_GRADIENT: f64 = 1e-5;

/// Compares `train`, `grads` or `optstep`.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let model = case.model(&device.clone().autodiff())?;
    let weights = case.meta().at("loss_weights")?;
    let train = case.sibling("train")?;
    match case.part.as_str() {
        "train" => {
            let pass = run(&mut check, case, &model)?;
            pass.compare(&mut check, (&weights, case.planted), ACTIVATION)?;
            let norm = global_norm(pass.gradients(&model, &weights, case.planted)?.values());
            let reference = Array::scalar(case.meta().at("grad_total_norm")?.number()?);
            check.compare_value(
                "meta.grad_total_norm",
                &reference,
                &Array::scalar(norm),
                GRADIENT,
            );
        }
        part => {
            let pass = run(&mut Check::new(&train, None), case, &model)?;
            let gradients = pass.gradients(&model, &weights, case.planted)?;
            if part == "grads" {
                compare_gradients(&mut check, case, &model, gradients)?;
            } else {
                compare_step(&mut check, case, model, gradients)?;
            }
        }
    }
    Ok(check.finish())
}

/// Runs the model on the file's images.
fn run(check: &mut Check, case: &Case, model: &Zsseg) -> Result<Pass, ParityError> {
    let inputs = case::images(check, "in.image.")?;
    let size = case::padded_size(&inputs);
    let Some(adapter) = &model.clip_adapter else {
        return Err(ParityError::Backend("the model is no segmenter".into()));
    };
    let no_object = adapter.non_object_embedding.val();
    let device = no_object.device();
    let images = case::batch(&inputs, size, &device);
    let rows = check.input(ROWS)?.clone();
    let rows = case::tensor::<2>(check, ROWS, &rows, &device)?;
    let [count, _] = rows.dims();
    let text = rows.narrow(0, 0, count - 1);
    compare_rows(check, case, no_object)?;
    let targets = targets(check, case.planted, inputs.len(), size)?;
    for image in 0..inputs.len() {
        check.input(&format!("in.sem_seg.{image}"))?;
    }
    let mut trace = Trace::on();
    let outputs = model.forward_all(images, text, &mut trace)?;
    Pass::new(outputs, targets, set_loss(case)?, trace)
}

/// Compares the rows that the queries are compared with: the seen classes behind the learned vectors, or in the fixed
/// prompt, and "no object".
fn compare_rows(check: &mut Check, case: &Case, no_object: Tensor<2>) -> Result<(), ParityError> {
    let unit = l2_normalize(no_object.without_autodiff());
    let weights = case.weights(None)?;
    let prompts = Prompts::open(&weights, &unit.device())?;
    let rows = prompts.of_queries(case, &case.seen_names())?;
    let rows = Array::of(Tensor::cat(vec![rows, unit], 0))?;
    check.compare(ROWS, &rows, ACTIVATION);
    Ok(())
}

fn set_loss(case: &Case) -> Result<SetLoss, ParityError> {
    let meta = case.meta();
    let weight = |name: &str| meta.at("loss_weights")?.at(name)?.number();
    Ok(SetLoss {
        class: weight("loss_ce")?,
        focal: weight("loss_mask")?,
        dice: weight("loss_dice")?,
        no_object: NO_OBJECT,
    })
}

/// Compares the constants in the state: the weights of the classes in the cross-entropy, CLIP's normalisation, and the
/// rows of the token table.
pub(super) fn compare_constants(check: &mut Check, case: &Case) -> Result<(), ParityError> {
    let mut weights = vec![1.0_f32; case.seen_names().len()];
    weights.push(NO_OBJECT as f32);
    let found = Array::from_values(&[weights.len()], &weights);
    check.compare("state.criterion.empty_weight", &found, Limit::Exact);
    let Normalization { mean, std } = Normalization::CLIP;
    for (name, values) in [("pixel_mean", mean), ("pixel_std", std)] {
        let found = Array::from_values(&[1, 3, 1, 1], &values);
        check.compare(&format!("state.clip_adapter.{name}"), &found, ACTIVATION);
    }
    let table = case.token_table()?;
    let width = table.shape.last().copied().unwrap_or(0);
    // The tokens of a full stop: start, full stop, end, padding.
    let ids = Tokenizer::new()?.tokenize(".", CONTEXT_LENGTH, Overflow::Error)?;
    for (id, name) in ids.into_iter().zip(["start", "dot", "end", "pad"]) {
        let row = table.values.chunks_exact(width.max(1)).nth(id as usize);
        let found = Array::from_values(&[1, width], row.unwrap_or_default());
        let name = format!("state.clip_adapter.prompt_learner.{name}_signal");
        check.compare(&name, &found, Limit::Exact);
    }
    Ok(())
}

/// Compares gradients, and checks which parameters have one; those that are not stored are compared by their norms.
fn compare_gradients(
    check: &mut Check,
    case: &Case,
    model: &Zsseg,
    flat: BTreeMap<String, Tensor<1>>,
) -> Result<(), ParityError> {
    let shapes: BTreeMap<String, Vec<usize>> = list_params(model, |_| false)
        .into_iter()
        .map(|info| (info.name, info.shape))
        .collect();
    let sums = case.meta().at("grad_sumsq")?;
    let stored: BTreeSet<String> = sums
        .entries()
        .iter()
        .filter_map(|(name, _)| Some(name.strip_prefix("grad.")?.to_owned()))
        .collect();
    let found: BTreeSet<String> = flat.keys().cloned().collect();
    let differing: Vec<_> = found.symmetric_difference(&stored).collect();
    let problem = format!("gradients here or in the reference only: {differing:?}");
    check.verdict("grads", (!differing.is_empty()).then_some(problem));
    for (name, gradient) in flat {
        let full = format!("grad.{name}");
        let limit = gradient_limit(check, &name);
        let found = Array {
            shape: shapes.get(&name).cloned().unwrap_or_default(),
            values: Array::of(gradient)?.values,
        };
        check.compare(&full, &found, limit);
        if let (Some(sum), Limit::OfMax(_)) = (sums.find(&full), limit) {
            let reference = Array::scalar(sum.number()?.sqrt());
            let norm = Array::scalar(found.norm());
            check.compare_value(&format!("meta.norm.{name}"), &reference, &norm, GRADIENT);
        }
    }
    Ok(())
}

/// Returns the limit of a parameter's gradient.
///
/// In the first decoder layer the mask queries have no content yet, so that self-attention averages equal values. The
/// gradient of its weights is a sum of terms that cancel, so only rounding remains; the bias beside it gives the scale.
fn gradient_limit(check: &Check, parameter: &str) -> Limit {
    let Some(module) = parameter.strip_suffix(".layers.0.self_attn.in_proj_weight") else {
        return GRADIENT;
    };
    let bias = format!("grad.{module}.layers.0.self_attn.in_proj_bias");
    match check.file().tensors.get(&bias) {
        Some(bias) => Limit::Absolute(ZERO_GRADIENT * bias.largest()),
        None => GRADIENT,
    }
}

/// Compares gradient clipping and one step of AdamW; the reference's own gradients are used where they are stored.
fn compare_step(
    check: &mut Check,
    case: &Case,
    mut model: Zsseg,
    mut gradients: BTreeMap<String, Tensor<1>>,
) -> Result<(), ParityError> {
    let stored = case.sibling("grads")?;
    for (name, gradient) in &mut gradients {
        if let Some(array) = stored.tensors.get(&format!("grad.{name}")) {
            let data = TensorData::new(array.to_f32(), [array.values.len()]);
            *gradient = Tensor::from_data(data, &gradient.device().without_autodiff());
        } else {
            *gradient = gradient.clone().without_autodiff();
        }
    }
    let (rate, settings) = optimizer_settings(check, case)?;
    NamedAdamW::with_groups(&settings, move |name| group(&settings, name))
        .step(&mut model, gradients, rate);
    for values in trained_values(&model) {
        let found = Array::from_values(&values.shape, &values.values);
        check.compare(&format!("after_step1.{}", values.name), &found, STEPPED);
    }
    Ok(())
}

/// Returns the base learning rate and settings of the description's groups, and checks that they are the program's own.
fn optimizer_settings(check: &mut Check, case: &Case) -> Result<(f64, AdamWSettings), ParityError> {
    let mut groups = Vec::new();
    for group in case.meta().at("optimizer_groups")?.items()? {
        let items = group.items()?;
        let [name, rate, decay] = &items[..] else {
            return Err(group.error("is not [name, rate, weight decay]"));
        };
        groups.push((name.text()?.to_owned(), rate.number()?, decay.number()?));
    }
    let most =
        |number: fn(&(String, f64, f64)) -> f64| groups.iter().map(number).fold(0.0, f64::max);
    let (base, decay) = (most(|g| g.1), most(|g| g.2));
    let settings = AdamWSettings {
        weight_decay: decay,
        clip_norm: Some(CLIP_NORM),
        ..AdamWSettings::default()
    };
    let other = groups.iter().find(|(name, rate, weight_decay)| {
        let expected = group(&settings, name);
        let same_rate = (rate / (base * expected.lr) - 1.0).abs() < 1e-9;
        !same_rate || (weight_decay - expected.weight_decay).abs() > 1e-12
    });
    let problem = other.map(|(name, ..)| {
        format!("{name}: its group here has another learning rate or weight decay")
    });
    check.verdict("meta.optimizer_groups", problem);
    Ok((base, settings))
}
