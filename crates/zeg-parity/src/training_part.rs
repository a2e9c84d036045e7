//! Compares one training step of a small model: labels, loss terms, gradients, optimiser step and the loss after it.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_eval::{ConfusionMatrix, Report};
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    methods::clip_rc::recovery::Recovery,
    params::{ParamValues, flat_gradients, trained_values},
    resize::bilinear,
    trace::Trace,
};
use zeg_train::{
    loss::{LossTerms, MaskLoss, normalizer},
    methods::clip_rc::{ClipRcLossWeights, recovery_terms},
    objective::NamedTerms,
    optimizer::{AdamWSettings, NamedAdamW},
    pseudo_labels::PseudoLabelRule,
    schedule::Schedule,
    targets::{SeenClasses, Targets},
};

use super::{
    ParityError,
    array::Array,
    check::Check,
    limit::Limit,
    planted::{PlantedError, planted_encode},
    small_model::{Case, compare_trace, shapes},
    typed::TypedModel,
};

/// Label of ignored pixels in files, which becomes [`IGNORE_LABEL`] in memory.
const STORED_IGNORE: u16 = 255;
/// Label of pixels that wait for a pseudo label.
const UNKNOWN: u16 = IGNORE_LABEL - 1;
/// Limit of a parameter after a step: a few units in the last place. The step changes a value by about 2e-4.
const STEPPED: Limit = Limit::OfRms(1e-6);
/// Limit of a gradient that is 0 except for rounding, as a share of the gradient of the same module's weights.
const ZERO_GRADIENT: f64 = 1e-4;
/// Limit of a gradient that is mostly rounding, as a multiple of the reference's rounding where the true gradient is 0.
const ROUNDING: f64 = 10.0;

/// Gradients by parameter name.
pub(crate) type NamedGradients = BTreeMap<String, Array>;

/// Compares the training part of a file.
pub(crate) fn compare(check: &mut Check, case: &Case, device: &Device) -> Result<(), ParityError> {
    if !check.has("in.label") {
        return Ok(());
    }
    let training_device = device.clone().autodiff();
    let model = case.build(&training_device)?;
    let stored = stored_gradients(check, device);
    let stepped = step(check, model.clone(), stored)?;
    compare_stepped(check, &stepped);

    let images = case.images(check, "in.image", &training_device)?;
    compare_step(check, case, &model, images)
}

/// Compares activations, labels, losses, gradients, and the loss after a step with these gradients.
fn compare_step(
    check: &mut Check,
    case: &Case,
    model: &TypedModel,
    images: Tensor<4>,
) -> Result<(), ParityError> {
    let mut trace = Trace::on();
    let pass = forward(check, case, model, images.clone(), &mut trace)?;
    compare_trace(check, "train.", trace)?;
    compare_targets(check, &pass)?;
    compare_losses(check, &case.loss, &pass)?;

    let mut gradients = pass.total(&case.loss).backward();
    let flat = flat_gradients(model, &mut gradients);
    let shapes = shapes(model);
    let mut found = NamedGradients::new();
    let mut own = BTreeMap::new();
    for (name, gradient) in flat {
        let values = Array::of(gradient.clone())?.values;
        let shape = shapes.get(&name).cloned().unwrap_or_default();
        found.insert(name.clone(), Array { shape, values });
        own.insert(name, gradient.without_autodiff());
    }
    compare_gradients(check, "grad.", &found, Limit::GRADIENT);
    compare_parameter_set(check, &found)?;

    let own_step = step(check, model.clone(), own)?;
    let pass = forward(check, case, &own_step, images, &mut Trace::off())?;
    let total = Array::of(pass.total(&case.loss))?;
    check.compare("train.total_after_step1", &total, Limit::ACTIVATION);
    Ok(())
}

/// The results of a forward pass in training mode.
pub(crate) struct Pass {
    /// Mask logits, `[batch, classes, size, size]`.
    pub(crate) masks: Tensor<4>,
    pub(crate) targets: Targets,
    /// Output of CLIP-RC's recovery decoder; `None` for ZegCLIP.
    pub(crate) recovery: Option<Recovery>,
    /// An error that a test plants.
    pub(crate) planted: Option<PlantedError>,
}

impl Pass {
    fn mask_terms(&self, weights: &ClipRcLossWeights) -> LossTerms {
        let normalizer = normalizer(&[&self.targets]);
        let ClipRcLossWeights { focal, dice, .. } = *weights;
        let weights = MaskLoss { focal, dice };
        weights.forward(self.masks.clone(), &self.targets, normalizer)
    }

    fn recovery_terms(&self, weights: &ClipRcLossWeights) -> NamedTerms {
        let recovery = self.recovery.as_ref();
        recovery.map_or_else(Vec::new, |recovery| {
            recovery_terms(recovery, weights.recovery)
        })
    }

    /// Returns the weighted loss terms under the names of the experiment file: `[1]` each.
    fn terms(&self, weights: &ClipRcLossWeights) -> NamedTerms {
        let LossTerms { focal, dice } = self.mask_terms(weights);
        let mut terms = vec![("focal", focal), ("dice", dice)];
        terms.extend(self.recovery_terms(weights));
        terms
    }

    /// Returns the total loss: `[1]`.
    pub(crate) fn total(&self, weights: &ClipRcLossWeights) -> Tensor<1> {
        let terms = self.terms(weights).into_iter();
        let terms = terms.filter(|(name, _)| self.planted != Some(PlantedError::MissingTerm(name)));
        let zero = Tensor::zeros([1], &self.masks.device());
        terms.fold(zero, |sum, (_, term)| sum + term)
    }
}

fn forward(
    check: &mut Check,
    case: &Case,
    model: &TypedModel,
    images: Tensor<4>,
    trace: &mut Trace,
) -> Result<Pass, ParityError> {
    let device = images.device();
    let known = (!case.self_training).then_some(&case.base[..]);
    let text = case.text(&device, known);
    let encoded = planted_encode(check.planted(), model, images, trace);
    let (grid, recovery) = model.decode(encoded, text, trace);
    let masks = bilinear(grid, [case.image_size; 2]);
    let labels = check.input("in.label")?; // [batch, 1, height, width]
    let [batch, _, height, width] = labels.shape[..] else {
        return Err(check.tensor_error("in.label", "is not [batch, 1, height, width]"));
    };
    let mut labels: Vec<u16> = labels.to_u8().into_iter().map(memory_label).collect();
    planted_labels(check.planted(), &mut labels);
    let classes = if case.self_training {
        for label in &mut labels {
            if *label != IGNORE_LABEL && !case.base.contains(&usize::from(*label)) {
                *label = UNKNOWN;
            }
        }
        let resized = bilinear(masks.clone(), [height, width]);
        PseudoLabelRule::default().fill(resized, &mut labels, UNKNOWN, &case.seen())?;
        case.classes()
    } else {
        seen_classes(&case.base, case.classes())?.map(&mut labels);
        case.base.len()
    };
    let targets = Targets::new(labels, batch, [height, width], classes)?;
    Ok(Pass {
        masks,
        targets,
        recovery,
        planted: check.planted(),
    })
}

/// Gives ignored pixels the first class if a test plants this error.
pub(crate) fn planted_labels(planted: Option<PlantedError>, labels: &mut [u16]) {
    if planted == Some(PlantedError::WrongLabelMask) {
        let ignored = labels.iter_mut().filter(|label| **label == IGNORE_LABEL);
        ignored.for_each(|label| *label = 0);
    }
}

/// Converts a stored label to a label in memory.
pub(crate) fn memory_label(label: u8) -> u16 {
    match u16::from(label) {
        STORED_IGNORE => IGNORE_LABEL,
        label => label,
    }
}

/// Returns the seen classes of a file, with numbers instead of names.
pub(crate) fn seen_classes(base: &[usize], classes: usize) -> Result<SeenClasses, ParityError> {
    let seen: Vec<_> = base
        .iter()
        .map(|&class| (class, class.to_string()))
        .collect();
    Ok(SeenClasses::new(classes, &seen)?)
}

fn compare_targets(check: &mut Check, pass: &Pass) -> Result<(), ParityError> {
    check.compare(
        "train.pred_masks",
        &Array::of(pass.masks.clone())?,
        Limit::ACTIVATION,
    );
    let [batch, classes, _, _] = pass.masks.dims();
    let targets = &pass.targets;
    let [height, width] = targets.size();
    let stored: Vec<u16> = targets
        .labels()
        .iter()
        .map(|&label| label.min(STORED_IGNORE))
        .collect();
    let labels = Array::from_values(&[batch, 1, height, width], &stored);
    check.compare("train.label_used", &labels, Limit::Exact);
    let count = normalizer(&[targets]);
    check.compare("train.num_masks", &Array::scalar(count), Limit::Exact);
    let mut truth = Array::of(targets.one_hot(&pass.masks.device()))?; // [batch, classes, pixels]
    let present = targets
        .present()
        .iter()
        .zip(truth.values.chunks_exact((height * width).max(1)));
    let rows: Vec<f64> = present
        .filter(|(p, _)| **p)
        .flat_map(|(_, row)| row)
        .copied()
        .collect();
    let dice = Array {
        shape: vec![targets.count(), height * width],
        values: rows,
    };
    check.compare("train.dice_target", &dice, Limit::Exact);
    truth.shape = vec![batch, classes, height, width];
    check.compare("train.focal_target", &truth, Limit::Exact);
    Ok(())
}

/// Compares the loss terms and their sum.
pub(crate) fn compare_losses(
    check: &mut Check,
    weights: &ClipRcLossWeights,
    pass: &Pass,
) -> Result<(), ParityError> {
    let plain = pass.mask_terms(&ClipRcLossWeights {
        focal: 1.0,
        dice: 1.0,
        ..ClipRcLossWeights::default()
    });
    let weighted = pass.mask_terms(weights);
    let accuracy = Array::scalar(pixel_accuracy(pass.masks.clone(), &pass.targets)?);
    for (name, value) in [
        ("train.focal_unweighted", Array::of(plain.focal)?),
        ("train.dice_unweighted", Array::of(plain.dice)?),
        ("train.total", Array::of(pass.total(weights))?),
        ("train.decode.loss_mask", Array::of(weighted.focal)?),
        ("train.decode.loss_dice", Array::of(weighted.dice)?),
        ("train.decode.acc_seg", accuracy),
    ] {
        check.compare(name, &value, Limit::ACTIVATION);
    }
    compare_recovery(check, pass.recovery_terms(weights))
}

/// Compares the weighted recovery terms.
fn compare_recovery(check: &mut Check, terms: NamedTerms) -> Result<(), ParityError> {
    for (name, term) in terms {
        let name = match name {
            "recovery-queries" => "train.decode.recovery_loss_q",
            _ => "train.decode.recovery_loss_k",
        };
        check.compare(name, &Array::of(term)?, Limit::ACTIVATION);
    }
    Ok(())
}

/// Returns the pixel accuracy as the reference logs it: percent of the labelled pixels whose own class has the highest
/// mask logit; 0 without labelled pixels.
fn pixel_accuracy(masks: Tensor<4>, targets: &Targets) -> Result<f64, ParityError> {
    let [_, classes, _, _] = masks.dims();
    let [height, width] = targets.size();
    let pixels = height * width;
    let masks = Array::of(bilinear(masks, [height, width]))?; // [batch, classes, height, width]
    let by_image = masks.values.chunks_exact((classes * pixels).max(1));
    let best: Vec<u16> = by_image
        .flat_map(|image| (0..pixels).map(move |pixel| best_class(image, classes, pixel)))
        .collect();
    let mut confusion = ConfusionMatrix::new(classes);
    confusion.add(targets.labels(), &best, IGNORE_LABEL)?;
    let names = vec![""; classes];
    let report = Report::new(&confusion, &names, &vec![false; classes], 1)?;
    Ok(report.p_acc.unwrap_or(0.0) * 100.0)
}

/// Returns the first class with the highest mask logit at a pixel of `[classes, pixels]`.
fn best_class(masks: &[f64], classes: usize, pixel: usize) -> u16 {
    let pixels = masks.len() / classes.max(1);
    let mut best = (0, f64::NEG_INFINITY);
    for class in 0..classes {
        let mask = masks[class * pixels + pixel];
        if mask > best.1 {
            best = (class as u16, mask);
        }
    }
    best.0
}

/// Compares gradients, or values derived from them, under `prefix` and the parameters' names.
///
/// - `limit`: limit of gradients that are more than rounding
pub(crate) fn compare_gradients(
    check: &mut Check,
    prefix: &str,
    gradients: &NamedGradients,
    limit: Limit,
) {
    for (parameter, found) in gradients {
        let name = format!("{prefix}{parameter}");
        let limit = rounding_limit(check, prefix, parameter).unwrap_or(limit);
        check.compare(&name, found, limit);
    }
}

/// Returns the absolute limit of a gradient that is only rounding in the reference; `None` for all others.
///
/// The bias of the keys shifts all attention logits of a query by the same amount, which a softmax ignores. Its
/// gradient is a sum of terms that cancel, so only rounding remains. The same terms, each times a patch token, form the
/// gradient of the keys' weights, which gives the scale. Only the keys of ZegCLIP's last layer are not followed by a
/// softmax; this layer has no value path after its masks.
///
/// If all keys and values are nearly equal, as in decoders with scaled-down weights, the gradients of queries and keys
/// are differences of numbers that agree in nearly all digits. The ratio of the keys' bias gradient to the queries'
/// bias gradient shows how many digits remain. The reference's gradient of the keys' bias is then the size of the
/// rounding in all of them ([`ROUNDING`]); for a weight matrix, it is multiplied by the size of the matrix's input
/// tokens.
fn rounding_limit(check: &Check, prefix: &str, parameter: &str) -> Option<Limit> {
    let (attention, part) = parameter.rsplit_once(".multihead_attn.")?;
    let stored = |part: &str| {
        let name = format!("{prefix}{attention}.multihead_attn.{part}");
        check.file().tensors.get(&name)
    };
    stored("v.weight")?; // a value path
    let (keys, queries) = (stored("k.bias")?, stored("q.bias")?);
    if keys.rms() > Limit::GRADIENT.value() * queries.rms() {
        let tokens = |weight: &str, bias: &str| Some(stored(weight)?.rms() / stored(bias)?.rms());
        let tokens = match part {
            "q.bias" | "k.bias" => 1.0,
            "q.weight" => tokens("q.weight", "q.bias")?,
            "k.weight" => tokens("v.weight", "v.bias")?,
            _ => return None,
        };
        return Some(Limit::Absolute(ROUNDING * keys.largest() * tokens));
    }
    let weight = stored("k.weight")?;
    (part == "k.bias").then(|| Limit::Absolute(ZERO_GRADIENT * weight.rms()))
}

/// Checks that exactly the parameters that have a gradient in the reference have one here.
fn compare_parameter_set(check: &mut Check, gradients: &NamedGradients) -> Result<(), ParityError> {
    let file = check.file();
    let found: BTreeSet<&str> = gradients.keys().map(String::as_str).collect();
    let names = |prefix: &'static str| -> BTreeSet<&str> {
        file.tensors
            .keys()
            .filter_map(|name| name.strip_prefix(prefix))
            .collect()
    };
    let stored = names("grad.");
    let problem = difference(&found, &stored);
    check.verdict("meta.gradients", problem);
    if let Some(changed) = file.meta().find("changed_by_step") {
        let changed = changed.texts()?;
        let problem = difference(&found, &changed.iter().map(String::as_str).collect());
        check.verdict("meta.changed_by_step", problem);
    }
    if let Some(without) = file.meta().find("trainable_without_grad") {
        let without = without.texts()?;
        let met: Vec<_> = without
            .iter()
            .filter(|name| found.contains(name.as_str()))
            .collect();
        let problem = format!("these parameters have a gradient here: {met:?}");
        check.verdict(
            "meta.trainable_without_grad",
            (!met.is_empty()).then_some(problem),
        );
    }
    Ok(())
}

fn difference(found: &BTreeSet<&str>, reference: &BTreeSet<&str>) -> Option<String> {
    let missing: Vec<_> = reference.difference(found).collect();
    let extra: Vec<_> = found.difference(reference).collect();
    (found != reference).then(|| format!("missing: {missing:?}; not in the reference: {extra:?}"))
}

/// Returns the gradients stored in the file as flat tensors on the device.
fn stored_gradients(check: &Check, device: &Device) -> BTreeMap<String, Tensor<1>> {
    let tensors = check.file().tensors.iter();
    tensors
        .filter_map(|(name, array)| {
            let data = TensorData::new(array.to_f32(), [array.values.len()]);
            Some((
                name.strip_prefix("grad.")?.to_owned(),
                Tensor::from_data(data, device),
            ))
        })
        .collect()
}

/// Performs one step of AdamW with the settings that the description gives for each parameter.
fn step(
    check: &Check,
    mut model: TypedModel,
    gradients: BTreeMap<String, Tensor<1>>,
) -> Result<TypedModel, ParityError> {
    let settings = check.file().meta().find("optim");
    let mut groups: Vec<(f64, AdamWSettings, BTreeMap<String, Tensor<1>>)> = Vec::new();
    for (name, gradient) in gradients {
        let entry = settings.as_ref().and_then(|settings| settings.find(&name));
        let (rate, settings) = match entry {
            Some(entry) => {
                let items = entry.items()?;
                let [rate, weight_decay, betas, epsilon] = &items[..] else {
                    return Err(entry.error("is not [rate, weight decay, betas, epsilon]"));
                };
                let [first, second] = betas.numbers()?[..] else {
                    return Err(betas.error("is not a pair of numbers"));
                };
                let settings = AdamWSettings {
                    encoder_lr: 1.0,
                    weight_decay: weight_decay.number()?,
                    betas: (first, second),
                    epsilon: epsilon.number()?,
                    ..AdamWSettings::default()
                };
                (rate.number()?, settings)
            }
            None => (Schedule::default().base, AdamWSettings::default()),
        };
        match groups
            .iter_mut()
            .find(|(r, s, _)| (*r, *s) == (rate, settings))
        {
            Some((_, _, group)) => {
                group.insert(name, gradient);
            }
            None => groups.push((rate, settings, BTreeMap::from([(name, gradient)]))),
        }
    }
    for (rate, settings, gradients) in groups {
        NamedAdamW::new(&settings).step(&mut model, gradients, rate);
    }
    Ok(model)
}

/// Compares the parameters after a step with the file's gradients.
fn compare_stepped(check: &mut Check, model: &TypedModel) {
    for ParamValues {
        name,
        shape,
        values,
    } in trained_values(model)
    {
        let found = Array::from_values(&shape, &values);
        check.compare(&format!("step1.{name}"), &found, STEPPED);
    }
}
