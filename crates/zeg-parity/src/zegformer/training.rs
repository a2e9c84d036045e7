//! Compares a training step of ZegFormer: activations, assignments, losses, gradients, clipping and optimiser step.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_model::{
    methods::zegformer::ZegFormer,
    params::{ParamValues, list_params, trained_values},
    trace::Trace,
};
use zeg_train::{
    optimizer::{AdamWSettings, NamedAdamW, global_norm},
    set_loss::{group, set_criterion::SetLoss},
};

use super::{
    ACTIVATION, GRADIENT,
    case::{self, Case},
};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
    set_pass::{Pass, compare_number, targets},
};

/// Embeddings of the seen classes.
const TEXT: &str = "text.text_features_train";
/// Largest global gradient norm, as released.
const CLIP_NORM: f64 = 0.01;
/// Limit of a parameter after a step: a few units in the last place. The step changes a value by at most 1e-4.
const STEPPED: Limit = Limit::OfRms(1e-6);
/// Limit of a gradient that is 0 except for rounding, as a share of the gradient of the same module's bias.
const ZERO_GRADIENT: f64 = 1e-5;

/// Compares `train`, `grads` or `optstep`.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    match case.part.as_str() {
        "optstep" => {
            compare_step(&mut check, case, device)?;
            Ok(check.finish())
        }
        "grads" => {
            let inputs = case.sibling("train")?;
            let model = case.model(&device.clone().autodiff())?;
            let pass = run(&mut Check::new(&inputs, None), case, &model)?;
            let weights = case.meta().at("loss_weights")?;
            let gradients = pass.gradients(&model, &weights, case.planted)?;
            compare_gradients(&mut check, &model, gradients)?;
            Ok(check.finish())
        }
        _ => {
            let model = case.model(&device.clone().autodiff())?;
            let pass = run(&mut check, case, &model)?;
            let weights = case.meta().at("loss_weights")?;
            pass.compare(&mut check, (&weights, case.planted), ACTIVATION)?;
            let norm = global_norm(pass.gradients(&model, &weights, case.planted)?.values());
            let found = Array::scalar(norm);
            compare_number(&mut check, "grad_total_norm_before_clip", &found, GRADIENT);
            let reference = Array::scalar(case.meta().at("grad_total_norm")?.number()?);
            check.compare_value("meta.grad_total_norm", &reference, &found, GRADIENT);
            Ok(check.finish())
        }
    }
}

/// Runs the model on the file's images.
fn run(check: &mut Check, case: &Case, model: &ZegFormer) -> Result<Pass, ParityError> {
    let inputs = case::images(check, "in.image.")?;
    let size = case::padded_size(&inputs);
    let device = model.sem_seg_head.predictor.bg_feature.val().device();
    let images = case::batch(&inputs, size, &device);
    let text = case::embeddings(check, TEXT)?;
    let text = case::tensor::<2>(check, TEXT, &text, &device)?;
    let targets = targets(check, case.planted, inputs.len(), size)?;
    let mut trace = Trace::on();
    let outputs = model.forward_all(images, text, &mut trace);
    Pass::new(outputs, targets, set_loss(case)?, trace)
}

fn set_loss(case: &Case) -> Result<SetLoss, ParityError> {
    let meta = case.meta();
    let weight = |name: &str| meta.at("loss_weights")?.at(name)?.number();
    Ok(SetLoss {
        class: weight("loss_ce")?,
        focal: weight("loss_mask")?,
        dice: weight("loss_dice")?,
        no_object: meta.at("no_object_weight")?.number()?,
    })
}

/// Compares the weights of the classes in the cross-entropy, the last of which is "no object".
pub(super) fn compare_class_weights(check: &mut Check, case: &Case) -> Result<(), ParityError> {
    let mut weights = vec![1.0_f32; case.seen_names.len()];
    weights.push(set_loss(case)?.no_object as f32);
    let found = Array::from_values(&[weights.len()], &weights);
    check.compare("criterion.empty_weight", &found, Limit::Exact);
    Ok(())
}

/// Compares gradients, and checks which parameters have one.
fn compare_gradients(
    check: &mut Check,
    model: &ZegFormer,
    flat: BTreeMap<String, Tensor<1>>,
) -> Result<(), ParityError> {
    let shapes: BTreeMap<String, Vec<usize>> = list_params(model, |_| false)
        .into_iter()
        .map(|info| (info.name, info.shape))
        .collect();
    let found: BTreeSet<String> = flat.keys().cloned().collect();
    for (name, gradient) in flat {
        let limit = gradient_limit(check, &name);
        let found = Array {
            shape: shapes.get(&name).cloned().unwrap_or_default(),
            values: Array::of(gradient)?.values,
        };
        check.compare(&format!("grad.{name}"), &found, limit);
    }
    let stored: BTreeSet<String> = check
        .file()
        .tensors
        .keys()
        .filter_map(|name| Some(name.strip_prefix("grad.")?.to_owned()))
        .collect();
    let only_here: Vec<_> = found.difference(&stored).collect();
    let problem = format!("gradients that are not in the reference: {only_here:?}");
    check.verdict("grads", (!only_here.is_empty()).then_some(problem));
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

/// Compares gradient clipping and one step of AdamW with the reference's own gradients.
fn compare_step(check: &mut Check, case: &Case, device: &Device) -> Result<(), ParityError> {
    let grads = case.sibling("grads")?;
    let model = case.model(&device.clone().autodiff())?;
    let gradients: BTreeMap<String, Tensor<1>> = grads
        .tensors
        .iter()
        .filter_map(|(name, array)| {
            let data = TensorData::new(array.to_f32(), [array.values.len()]);
            let gradient = Tensor::from_data(data, device);
            Some((name.strip_prefix("grad.")?.to_owned(), gradient))
        })
        .collect();
    let most = match case.changed("SOLVER.CLIP_GRADIENTS.CLIP_VALUE") {
        Some(value) => value.number()?,
        None => CLIP_NORM,
    };
    let (rate, settings) = optimizer_settings(check, case)?;
    let settings = AdamWSettings {
        clip_norm: Some(most),
        ..settings
    };
    let mut model = model;
    NamedAdamW::with_groups(&settings, move |name| group(&settings, name))
        .step(&mut model, gradients, rate);
    for ParamValues {
        name,
        shape,
        values,
    } in trained_values(&model)
    {
        let found = Array::from_values(&shape, &values);
        check.compare(&format!("after_step1.{name}"), &found, STEPPED);
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
    let factor = match case.changed("SOLVER.BACKBONE_MULTIPLIER") {
        Some(value) => value.number()?,
        None => AdamWSettings::default().encoder_lr,
    };
    let settings = AdamWSettings {
        weight_decay: decay,
        encoder_lr: factor,
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
