//! Compares a training pass of a CAT-Seg: activations, loss, gradients of both towers and of the aggregator, and one step of
//! the optimiser.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::RgbImage;
use zeg_model::{
    methods::cat_seg::{CatSeg, keys::published_name},
    params::{ParamValues, flat_gradients, list_params, trained_values},
    text::ClassTexts,
    trace::Trace,
};
use zeg_train::{
    methods::cat_seg::{binary_cross_entropy, group},
    optimizer::{AdamWSettings, NamedAdamW, global_norm},
    targets::Targets,
};

use super::{
    TRAINING,
    case::{Case, images, joined, whole_image},
    training_device,
};
use crate::{
    ParityError,
    array::Array,
    check::Check,
    file::Meta,
    limit::Limit,
    planted::PlantedError,
    small_model::token_rows,
    training_part::{memory_label, planted_labels},
};

/// Limit of losses.
pub(super) const LOSS: Limit = Limit::Relative(1e-5);
/// Limit of gradients.
const GRADIENT: Limit = Limit::OfRms(1e-3);
/// Limit of a parameter's change, as a share of its learning rate.
const STEP: f64 = 0.05;

/// Inputs of a training pass.
pub(super) struct Batch {
    pub(super) images: Vec<RgbImage>,
    pub(super) targets: Targets,
    pub(super) texts: ClassTexts,
}

/// The results of a training pass.
pub(super) struct Pass {
    /// `[classes, dim]`
    text: Tensor<2>,
    /// Activations of all images by name, if they were recorded.
    recorded: BTreeMap<String, Vec<Array>>,
    logits: Tensor<4>,
    /// `[1]`
    pub(super) loss: Tensor<1>,
}

impl Pass {
    pub(super) fn run(
        model: &CatSeg,
        batch: &Batch,
        planted: Option<PlantedError>,
        device: &Device,
    ) -> Result<Self, ParityError> {
        let text = match &model.text_encoder {
            Some(tower) => tower.embed_texts(&batch.texts),
            None => return Err(ParityError::Backend("the text tower is not trained".into())),
        };
        let images = batch.images.iter().map(|image| whole_image(image, device));
        let features = model.features(Tensor::cat(images.collect(), 0), &mut Trace::off());
        let pooling = model.config().aggregator.pooling;
        let mut recorded: BTreeMap<String, Vec<Array>> = BTreeMap::new();
        let mut logits = Vec::new();
        for index in 0..batch.images.len() {
            let mut trace = Trace::on();
            let of_image = features.image(index);
            logits.push(model.decode(&of_image, text.clone(), pooling, &mut trace)?);
            for (name, data) in trace.into_recorded() {
                let found = Array::of_data(data)?;
                recorded.entry(name).or_default().push(found);
            }
        }
        let logits = Tensor::cat(logits, 0);
        let loss = binary_cross_entropy(logits.clone(), &batch.targets);
        let loss = match planted {
            Some(PlantedError::MissingTerm("bce")) => loss * 0.0,
            _ => loss,
        };
        Ok(Self {
            text,
            recorded,
            logits,
            loss,
        })
    }

    /// Returns the flat gradients of all parameters, by their names here.
    pub(super) fn gradients(&self, model: &CatSeg) -> BTreeMap<String, Tensor<1>> {
        let mut gradients = self.loss.clone().backward();
        flat_gradients(model, &mut gradients).into_iter().collect()
    }
}

/// Compares the whole training part of a small model.
pub(super) fn compare(check: &mut Check, case: &Case, device: &Device) -> Result<(), ParityError> {
    let training = training_device(device);
    let model = case.trained(&training)?;
    let batch = batch(check, case)?;
    let pass = Pass::run(&model, &batch, case.planted, &training)?;
    check.compare(
        "train.text.features",
        &Array::of(pass.text.clone())?,
        TRAINING,
    );
    for (name, found) in &pass.recorded {
        check.compare(&format!("train.{name}"), &joined(found), TRAINING);
    }
    check.compare("train.logits", &Array::of(pass.logits.clone())?, TRAINING);
    check.compare("train.loss", &Array::of(pass.loss.clone())?, LOSS);
    let gradients = pass.gradients(&model);
    let norm = Array::scalar(global_norm(gradients.values()));
    check.compare("train.grad_norm", &norm, GRADIENT);
    compare_gradients(check, &model, gradients)?;
    compare_step(check, case, model, &batch, device)
}

fn batch(check: &mut Check, case: &Case) -> Result<Batch, ParityError> {
    let images = images(check, "in.train_image")?;
    let stored = check.input("in.label")?;
    let [count, height, width] = stored.shape[..] else {
        return Err(check.tensor_error("in.label", "is not [batch, height, width]"));
    };
    let mut labels: Vec<u16> = stored.to_u8().into_iter().map(memory_label).collect();
    planted_labels(case.planted, &mut labels);
    let mut ids = token_rows(check.input("in.text_ids_train")?);
    if let Some(error) = case.planted {
        error.alter_texts(&mut ids);
    }
    Ok(Batch {
        images,
        targets: Targets::new(labels, count, [height, width], ids.len())?,
        texts: ClassTexts::of_rows(ids),
    })
}

/// Returns the names that an entry of the description lists.
fn listed(check: &Check, name: &str) -> Result<BTreeSet<String>, ParityError> {
    let list = check
        .file()
        .meta()
        .find(name)
        .map(|m| m.texts())
        .transpose()?;
    Ok(list.unwrap_or_default().into_iter().collect())
}

/// Compares gradients, and checks which parameters have one.
fn compare_gradients(
    check: &mut Check,
    model: &CatSeg,
    gradients: BTreeMap<String, Tensor<1>>,
) -> Result<(), ParityError> {
    let shapes: BTreeMap<String, Vec<usize>> = list_params(model, |_| false)
        .into_iter()
        .map(|info| (info.name, info.shape))
        .collect();
    let (skipped, zero) = (listed(check, "skip_grad")?, listed(check, "zero_grad")?);
    let mut found = BTreeSet::new();
    for (name, gradient) in gradients {
        let published = published_name(&name);
        let key = format!("grad.{published}");
        let array = Array {
            shape: shapes.get(&name).cloned().unwrap_or_default(),
            values: Array::of(gradient)?.values,
        };
        if skipped.contains(&published) {
            // Zero except for rounding, because adding the same to all logits changes no softmax.
            check.reference(&key);
        } else if zero.contains(&published) {
            check.compare(&key, &array, Limit::Exact);
        } else {
            check.compare(&key, &array, GRADIENT);
        }
        found.insert(published);
    }
    let trained = listed(check, "trainable")?;
    let differing: Vec<_> = found.symmetric_difference(&trained).collect();
    let problem = format!("gradients here or in the reference alone: {differing:?}");
    check.verdict("meta.trainable", (!differing.is_empty()).then_some(problem));
    Ok(())
}

/// Returns the published settings of the optimiser, and the rate of parameters outside of CLIP.
pub(super) fn published_settings() -> (AdamWSettings, f64) {
    let settings = AdamWSettings {
        weight_decay: 1e-4,
        encoder_lr: 0.01,
        clip_norm: Some(0.01),
        ..AdamWSettings::default()
    };
    (settings, 2e-4)
}

/// Performs a step of the optimiser.
pub(super) fn step(model: &mut CatSeg, gradients: BTreeMap<String, Tensor<1>>) {
    let (settings, rate) = published_settings();
    NamedAdamW::with_groups(&settings, move |name| group(&settings, name))
        .step(model, gradients, rate);
}

/// Compares gradient clipping and one step of AdamW with the reference's own gradients, and the loss after it.
fn compare_step(
    check: &mut Check,
    case: &Case,
    mut model: CatSeg,
    batch: &Batch,
    device: &Device,
) -> Result<(), ParityError> {
    compare_groups(check, &model)?;
    let mut gradients = BTreeMap::new();
    for info in list_params(&model, |_| false) {
        let published = published_name(&info.name);
        if let Some(array) = check.file().tensors.get(&format!("grad.{published}")) {
            let data = TensorData::new(array.to_f32(), [array.values.len()]);
            gradients.insert(info.name, Tensor::from_data(data, device));
        }
    }
    step(&mut model, gradients);
    let (settings, rate) = published_settings();
    for ParamValues {
        name,
        shape,
        values,
    } in trained_values(&model)
    {
        let published = published_name(&name);
        let limit = Limit::Absolute(STEP * rate * group(&settings, &name).lr);
        let found = Array::from_values(&shape, &values);
        let (key, before) = (format!("step1.{published}"), format!("state.{published}"));
        if check.has(&key) {
            check.compare(&key, &found, limit);
        } else if let Some(reference) = check.file().tensors.get(&before) {
            // A parameter that the step does not change in 32 bits.
            check.compare_value(&key, reference, &found, limit);
        }
    }
    let after = Pass::run(&model, batch, case.planted, &training_device(device))?;
    check.compare("train.loss_after_step1", &Array::of(after.loss)?, LOSS);
    Ok(())
}

/// Compares learning rate and weight decay of every trained parameter.
fn compare_groups(check: &mut Check, model: &CatSeg) -> Result<(), ParityError> {
    let optim = check.file().meta();
    let Some(groups) = optim
        .find("optim")
        .and_then(|optim| optim.find("groups_lr_wd"))
    else {
        return Ok(());
    };
    let (settings, rate) = published_settings();
    let mut wrong = Vec::new();
    for info in list_params(model, |_| false) {
        let published = published_name(&info.name);
        let Some(reference) = groups.find(&published) else {
            continue; // not trained
        };
        let [lr, decay] = numbers(&reference)?;
        let own = group(&settings, &info.name);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
        if !close(lr, rate * own.lr) || !close(decay, own.weight_decay) {
            wrong.push(published);
        }
    }
    let problem = format!("other learning rate or weight decay: {wrong:?}");
    check.verdict("meta.optim.groups", (!wrong.is_empty()).then_some(problem));
    Ok(())
}

fn numbers(pair: &Meta) -> Result<[f64; 2], ParityError> {
    let numbers = pair.numbers()?;
    <[f64; 2]>::try_from(&numbers[..]).map_err(|_| pair.error("is not [rate, weight decay]"))
}
