//! Compares a training step of ZegFormer: activations, assignments, losses, gradients, clipping and optimiser step.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_model::{
    methods::zegformer::{QueryOutput, ZegFormer},
    params::{ParamValues, flat_gradients, list_params, trained_values},
    trace::Trace,
};
use zeg_train::{
    methods::zegformer::{
        group,
        mask_targets::{ImageMasks, MaskTargets},
        matching::{Matches, costs},
        set_criterion::{SetLoss, SetTerms},
    },
    optimizer::{AdamWSettings, NamedAdamW, global_norm},
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
    planted::PlantedError,
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
            let pass = Pass::run(&mut Check::new(&inputs, None), case, &model)?;
            compare_gradients(&mut check, &model, pass.gradients(case, &model)?)?;
            Ok(check.finish())
        }
        _ => {
            let model = case.model(&device.clone().autodiff())?;
            let pass = Pass::run(&mut check, case, &model)?;
            pass.compare(&mut check, case)?;
            let norm = global_norm(pass.gradients(case, &model)?.values());
            let found = Array::scalar(norm);
            compare_number(&mut check, "grad_total_norm_before_clip", &found, GRADIENT);
            let reference = Array::scalar(case.meta().at("grad_total_norm")?.number()?);
            check.compare_value("meta.grad_total_norm", &reference, &found, GRADIENT);
            Ok(check.finish())
        }
    }
}

/// The results of a forward pass in training mode.
struct Pass {
    trace: Trace,
    /// Outputs with the names of the heads, last decoder layer first.
    outputs: Vec<(String, QueryOutput)>,
    targets: MaskTargets,
    loss: SetLoss,
    /// Unweighted loss terms, with the suffixes of the heads' losses (`""`, `"_0"`, …).
    terms: Vec<(String, SetTerms)>,
    matches: Vec<Vec<Matches>>,
}

impl Pass {
    fn run(check: &mut Check, case: &Case, model: &ZegFormer) -> Result<Self, ParityError> {
        let inputs = case::images(check, "in.image.")?;
        let size = case::padded_size(&inputs);
        let device = model.sem_seg_head.predictor.bg_feature.val().device();
        let images = case::batch(&inputs, size, &device);
        let text = case::embeddings(check, TEXT)?;
        let text = case::tensor::<2>(check, TEXT, &text, &device)?;
        let targets = targets(check, case, inputs.len(), size)?;
        let mut trace = Trace::on();
        let mut outputs = model.forward_all(images, text, &mut trace);
        let last = outputs
            .pop()
            .into_iter()
            .map(|output| ("final".to_owned(), output));
        let named = outputs.into_iter().enumerate();
        let auxiliary = named.map(|(layer, output)| (format!("aux{layer}"), output));
        let outputs: Vec<(String, QueryOutput)> = last.chain(auxiliary).collect();

        let loss = set_loss(case)?;
        let plain = SetLoss {
            class: 1.0,
            focal: 1.0,
            dice: 1.0,
            ..loss
        };
        let queries = model.config().queries;
        let normalizer = loss.normalizer(&targets.counts(), queries);
        let (mut terms, mut matches) = (Vec::new(), Vec::new());
        for (name, output) in &outputs {
            let of_batch = (0..targets.images.len())
                .map(|image| costs(output, &targets, image, &loss)?.solve())
                .collect::<Result<Vec<_>, _>>()?;
            let suffix = name
                .strip_prefix("aux")
                .map_or(String::new(), |n| format!("_{n}"));
            let found = plain.terms(output.clone(), &targets, &of_batch, normalizer);
            terms.push((suffix, found));
            matches.push(of_batch);
        }
        Ok(Self {
            trace,
            outputs,
            targets,
            loss,
            terms,
            matches,
        })
    }

    /// Returns the loss that the gradients are computed from: `[1]`.
    fn total(&self, case: &Case) -> Result<Option<Tensor<1>>, ParityError> {
        let weights = case.meta().at("loss_weights")?;
        let mut total: Option<Tensor<1>> = None;
        for (suffix, terms) in &self.terms {
            for (name, term) in named(terms) {
                if case.planted == Some(PlantedError::MissingTerm(name)) {
                    continue;
                }
                let weight = weights.at(&format!("{name}{suffix}"))?.number()?;
                let term = term * weight;
                total = Some(match total {
                    Some(sum) => sum + term,
                    None => term,
                });
            }
        }
        Ok(total)
    }

    /// Returns the flat gradients of all parameters.
    fn gradients(
        &self,
        case: &Case,
        model: &ZegFormer,
    ) -> Result<BTreeMap<String, Tensor<1>>, ParityError> {
        let Some(total) = self.total(case)? else {
            return Ok(BTreeMap::new());
        };
        let mut gradients = total.backward();
        Ok(flat_gradients(model, &mut gradients).into_iter().collect())
    }

    fn compare(&self, check: &mut Check, case: &Case) -> Result<(), ParityError> {
        let trace = self.trace.recorded();
        for (name, data) in trace {
            check.compare(
                &format!("mid.{name}"),
                &Array::of_data(data.clone())?,
                ACTIVATION,
            );
        }
        for ((name, output), matches) in self.outputs.iter().zip(&self.matches) {
            compare_output(check, name, output)?;
            for (image, matches) in matches.iter().enumerate() {
                let costs = costs(output, &self.targets, image, &self.loss)?;
                let prefix = format!("match.{name}.img{image}");
                let found = Array::from_values(&[costs.queries, costs.masks], &costs.values);
                check.compare(&format!("{prefix}.cost"), &found, ACTIVATION);
                let (queries, masks): (Vec<u32>, Vec<u32>) = matches
                    .pairs
                    .iter()
                    .map(|&(query, mask)| (query as u32, mask as u32))
                    .unzip();
                let row = |ids: Vec<u32>| Array::from_values(&[ids.len()], &ids);
                check.compare(&format!("{prefix}.query"), &row(queries), Limit::Exact);
                check.compare(&format!("{prefix}.target"), &row(masks), Limit::Exact);
            }
        }
        let weights = case.meta().at("loss_weights")?;
        for (suffix, terms) in &self.terms {
            for (name, term) in named(terms) {
                let name = format!("{name}{suffix}");
                let weight = weights.at(&name)?.number()?;
                let weighted = Array::of(term.clone() * weight)?;
                compare_number(
                    check,
                    &format!("loss_raw.{name}"),
                    &Array::of(term)?,
                    ACTIVATION,
                );
                compare_number(
                    check,
                    &format!("loss_weighted.{name}"),
                    &weighted,
                    ACTIVATION,
                );
            }
        }
        if let Some(total) = self.total(case)? {
            compare_number(check, "loss_total", &Array::of(total)?, ACTIVATION);
        }
        Ok(())
    }
}

/// Compares a single number, which files store with one axis or with none.
fn compare_number(check: &mut Check, name: &str, found: &Array, limit: Limit) {
    if let Some(reference) = check.reference(name) {
        let found = Array {
            shape: reference.shape.clone(),
            values: found.values.clone(),
        };
        check.compare_value(name, reference, &found, limit);
    }
}

/// Compares class and mask logits of one head.
pub(super) fn compare_output(
    check: &mut Check,
    head: &str,
    output: &QueryOutput,
) -> Result<(), ParityError> {
    let prefix = match head {
        "final" => "out.".to_owned(),
        other => format!("out.{other}."),
    };
    let (logits, masks) = (
        Array::of(output.classes.clone())?,
        Array::of(output.masks.clone())?,
    );
    check.compare(&format!("{prefix}pred_logits"), &logits, ACTIVATION);
    check.compare(&format!("{prefix}pred_masks"), &masks, ACTIVATION);
    Ok(())
}

/// Returns the loss terms with the reference's names.
fn named(terms: &SetTerms) -> [(&'static str, Tensor<1>); 3] {
    [
        ("loss_ce", terms.class.clone()),
        ("loss_mask", terms.focal.clone()),
        ("loss_dice", terms.dice.clone()),
    ]
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

/// Reads the target masks of every image; padding is outside of every mask.
fn targets(
    check: &mut Check,
    case: &Case,
    batch: usize,
    size: [usize; 2],
) -> Result<MaskTargets, ParityError> {
    let [height, width] = size;
    let mut inputs = Vec::with_capacity(batch);
    for image in 0..batch {
        let classes = check.input(&format!("in.gt_classes.{image}"))?.to_u32();
        let name = format!("in.gt_masks.{image}");
        let masks = check.input(&name)?;
        let [count, h, w] = masks.shape[..] else {
            return Err(check.tensor_error(&name, "is not [masks, height, width]"));
        };
        let stored = masks.to_u8();
        let mut values = vec![0; count * height * width];
        for (row, line) in stored.chunks_exact(w.max(1)).enumerate() {
            let (mask, y) = (row / h, row % h);
            let start = (mask * height + y) * width;
            values[start..start + w].copy_from_slice(line);
        }
        if let Some(error) = case.planted {
            error.alter_masks(values.chunks_exact_mut((height * width).max(1)), [0, 1]);
        }
        inputs.push(ImageMasks {
            classes: classes.into_iter().map(|class| class as usize).collect(),
            values,
        });
    }
    Ok(MaskTargets::new(inputs, size)?)
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
