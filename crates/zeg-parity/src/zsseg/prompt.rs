//! Compares the prompt stage: how a region is cut, its logits, the loss, the gradient of the vectors, and their steps.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use zeg_image::{Window, normalize::Normalization};
use zeg_model::{
    methods::zsseg::Zsseg,
    params::{flat_gradients, trained_values},
    text::CONTEXT_KEY,
    trace::Trace,
};
use zeg_train::{
    methods::zsseg::{
        prompts::{Regions, cross_entropy},
        regions::{class_box, cut_class, cut_image},
    },
    optimizer::{AdamWSettings, NamedAdamW, global_norm},
    schedule::{Decay, Schedule, Warmup},
};
use zeg_vocab::tokenizer::Tokenizer;

use super::{
    ACTIVATION, GRADIENT, STEPPED,
    case::{self, Case},
};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    file::Meta,
    limit::Limit,
};

/// Name of the vectors in the file.
const PREFIX: &str = "state.clip_adapter.prompt_learner.prefix_prompt";
/// Stride in pixels at which the network's input is stored.
const STEP: usize = 4;
/// Limit of learning rates.
const RATE: Limit = Limit::Relative(1e-6);
/// Limit of colours of an image that Pillow resized: it rounds between its two passes.
const ROUNDED: Limit = Limit::Absolute(1.0);

/// Compares the file `prompt`.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    compare_schedules(&mut check, case)?;
    let (regions, size) = regions(&mut check, case)?;
    let count = regions.classes.len();
    let input = Array::from_values(&[count, 3, size[0], size[1]], &regions.values);
    check.compare(
        &format!("out.network_input_every{STEP}"),
        &input.every(STEP, 2..4),
        ACTIVATION,
    );
    let prompts = check.input(PREFIX)?.to_host();
    let mut model = case.prompt_model(prompts, size, &device.clone().autodiff())?;
    let (rate, settings) = settings(case)?;
    let mut optimizer = NamedAdamW::new(&settings);
    let losses_name = "losses_before_each_step";
    let steps = check.reference(losses_name).map_or(0, |a| a.values.len());
    let mut losses = Vec::new();
    for step in 0..steps {
        let mut trace = Trace::on();
        let loss = loss(&model, case, &regions, size, &mut trace, &mut check, step)?;
        losses.extend(Array::of(loss.clone())?.values);
        let mut gradients = loss.backward();
        let gradients: BTreeMap<String, Tensor<1>> =
            flat_gradients(&model, &mut gradients).into_iter().collect();
        if step == 0 {
            compare_gradient(&mut check, case, &gradients)?;
        }
        optimizer.step(&mut model, gradients, rate);
        for values in trained_values(&model) {
            let found = Array::from_values(&values.shape, &values.values);
            let name = format!("after_step{}.prefix_prompt", step + 1);
            check.compare(&name, &found, STEPPED);
        }
    }
    check.compare(losses_name, &Array::row(losses), ACTIVATION);
    Ok(check.finish())
}

/// Reads images, masks and classes of the file as regions, with their height and width.
fn regions(check: &mut Check, case: &Case) -> Result<(Regions, [usize; 2]), ParityError> {
    let (mut regions, mut size) = (Regions::default(), [0, 0]);
    let mut number = 0;
    while check.has(&format!("in.image.{number}")) {
        let image = case::image(check, &format!("in.image.{number}"))?;
        size = [image.height() as usize, image.width() as usize];
        let mut inside: Vec<bool> = check
            .input(&format!("in.mask.{number}"))?
            .to_u8()
            .into_iter()
            .map(|value| value > 0)
            .collect();
        if let Some(error) = case.planted {
            error.alter_masks(std::iter::once(&mut inside[..]), [false, true]);
        }
        let class = check.input(&format!("in.class.{number}"))?.to_u32();
        let class = class.first().copied().unwrap_or(0) as usize;
        regions.push(Normalization::CLIP.to_chw(&image), &inside, class);
        number += 1;
    }
    if number == 0 {
        return Err(check.tensor_error("in.image.0", "is missing"));
    }
    Ok((regions, size))
}

/// Computes the loss, and compares everything on the way before the first step.
fn loss(
    model: &Zsseg,
    case: &Case,
    regions: &Regions,
    size: [usize; 2],
    trace: &mut Trace,
    check: &mut Check,
    step: usize,
) -> Result<Tensor<1>, ParityError> {
    let tokenizer = Tokenizer::new()?;
    let ids = model.prompt_ids(&tokenizer, &case.seen_names())?;
    let text = model.prompted_classes(&ids, trace)?;
    let logits = model.region_logits(&regions.values, size, text.clone(), trace)?;
    if step == 0 {
        check.compare("out.text_features", &Array::of(text)?, ACTIVATION);
        check.compare("out.logits", &Array::of(logits.clone())?, ACTIVATION);
        for (name, data) in std::mem::take(trace).into_recorded() {
            let array = Array::of_data(data)?;
            match name.as_str() {
                "visual_unnormalised" => {
                    check.compare("out.visual_unnormalised", &array, ACTIVATION);
                }
                "ln_pre" => {
                    let [_, tokens, width] = array.shape[..] else {
                        continue; // it has three axes
                    };
                    let first = Array {
                        shape: vec![tokens, width],
                        values: array.values[..tokens * width].to_vec(),
                    };
                    check.compare("out.tokens_after_ln_pre_image0", &first, ACTIVATION);
                }
                _ => {}
            }
        }
    }
    Ok(cross_entropy(logits, &regions.classes))
}

fn compare_gradient(
    check: &mut Check,
    case: &Case,
    gradients: &BTreeMap<String, Tensor<1>>,
) -> Result<(), ParityError> {
    let norm = Array::scalar(global_norm(gradients.values()));
    let reference = Array::scalar(case.meta().at("stage1_grad_norm")?.number()?);
    check.compare_value("meta.stage1_grad_norm", &reference, &norm, GRADIENT);
    let others: Vec<&String> = gradients.keys().filter(|key| *key != CONTEXT_KEY).collect();
    let problem = format!("parameters besides the vectors have a gradient: {others:?}");
    check.verdict("stage1_trainable", (!others.is_empty()).then_some(problem));
    let name = "grad.prefix_prompt";
    if let (Some(gradient), Some(reference)) = (gradients.get(CONTEXT_KEY), check.reference(name)) {
        let found = Array {
            shape: reference.shape.clone(),
            values: Array::of(gradient.clone())?.values,
        };
        check.compare_value(name, reference, &found, GRADIENT);
    }
    Ok(())
}

/// Returns the learning rate and the settings of the optimiser in the description.
fn settings(case: &Case) -> Result<(f64, AdamWSettings), ParityError> {
    let meta = case.meta().at("stage1_optimizer")?;
    let number = |name: &str| meta.at(name)?.number();
    let settings = AdamWSettings {
        momentum: Some(number("momentum")?),
        weight_decay: number("weight_decay")?,
        clip_norm: Some(number("clip")?),
        ..AdamWSettings::default()
    };
    Ok((number("lr")?, settings))
}

/// Compares the learning rates of both stages.
fn compare_schedules(check: &mut Check, case: &Case) -> Result<(), ParityError> {
    let Some(schedules) = case.meta().find("schedules") else {
        return Ok(());
    };
    let prompts = Schedule {
        base: 0.02,
        minimum: 0.0,
        decay: Decay::Cosine,
        warmup: Warmup::Constant,
        warmup_steps: 100,
        warmup_ratio: 0.005,
        ..Schedule::default()
    };
    let segmenter = Schedule {
        base: 1e-4,
        minimum: 0.0,
        warmup_steps: 0,
        ..Schedule::default()
    };
    for (name, table) in schedules.entries() {
        let schedule = if name.starts_with("stage1") {
            prompts
        } else {
            segmenter
        };
        let steps = table.at("max_iter")?.count()? as u64;
        let (mut reference, mut found) = (Vec::new(), Vec::new());
        for pair in table.at("lr")?.items()? {
            let [step, rate] = &pair.items()?[..] else {
                return Err(pair.error("is not [step, rate]"));
            };
            reference.push(rate.number()?);
            found.push(schedule.at(step.count()? as u64, steps));
        }
        let name = format!("meta.schedules.{name}");
        check.compare_value(&name, &Array::row(reference), &Array::row(found), RATE);
    }
    Ok(())
}

/// Compares the file `mapper`: samples of the prompt stage with the numbers that were drawn.
pub(super) fn compare_samples(mut check: Check, case: &Case) -> Result<Computed, ParityError> {
    for (number, sample) in case.meta().at("mapper")?.items()?.iter().enumerate() {
        compare_sample(&mut check, number, sample)?;
    }
    Ok(check.finish())
}

fn compare_sample(check: &mut Check, number: usize, sample: &Meta) -> Result<(), ParityError> {
    let image = check.input(&format!("in.image.{number}"))?;
    let [3, height, width] = image.shape[..] else {
        return Err(check.tensor_error(&format!("in.image.{number}"), "is not [3, height, width]"));
    };
    let labels = check.input(&format!("in.label.{number}"))?.to_u32();
    let labels: Vec<u16> = labels.into_iter().map(|label| label as u16).collect();
    let class = sample.at("category")?.count()? as u16;
    let (mut crops, mut to, mut flip) = (Vec::new(), [0, 0], false);
    for transform in sample.at("transforms")?.items()? {
        let count = |name: &str| transform.at(name)?.count();
        match transform.at("type")?.text()? {
            "CropTransform" => crops.push(Window {
                x: count("x0")?,
                y: count("y0")?,
                width: count("w")?,
                height: count("h")?,
            }),
            "ResizeTransform" => to = [count("new_h")?, count("new_w")?],
            "HFlipTransform" => flip = true,
            _ => {}
        }
    }
    let [outer, inner] = crops[..] else {
        return Err(sample.error("has not two crops"));
    };
    let found = class_box(&labels, class, [height, width]);
    let problem = format!("the box of the class is {found:?}, but the reference has {outer:?}");
    let name = format!("meta.mapper.{number}.box");
    check.verdict(&name, (found != Some(outer)).then_some(problem));
    let window = Window {
        x: outer.x + inner.x,
        y: outer.y + inner.y,
        ..inner
    };
    let mut region = cut_image(&image.to_f32(), [height, width], window, to);
    let mut inside = cut_class(&labels, class, width, window, to);
    if flip {
        region
            .chunks_exact_mut(to[1].max(1))
            .for_each(<[f32]>::reverse);
        inside
            .chunks_exact_mut(to[1].max(1))
            .for_each(<[bool]>::reverse);
    }
    let rounded: Vec<f32> = region.iter().map(|value| value.round()).collect();
    check.compare(
        &format!("out.image.{number}"),
        &Array::from_values(&[3, to[0], to[1]], &rounded),
        ROUNDED,
    );
    let mask: Vec<u8> = inside.iter().map(|&inside| u8::from(inside)).collect();
    check.compare(
        &format!("out.mask.{number}"),
        &Array::from_values(&to, &mask),
        Limit::Exact,
    );
    Ok(())
}
