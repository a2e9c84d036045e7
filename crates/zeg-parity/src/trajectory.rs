//! Compares a training run on real images: the trainer itself, step by step, with the reference's losses.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, activation};
use zeg_data::{Preprocess, Whole};
use zeg_image::{Normalization, RgbImage};
use zeg_model::{
    config::{HeadConfig, PromptConfig, PromptDepth, VisionConfig},
    embeddings::ClassEmbeddings,
    inference::{Inference, lower_seen},
    methods::{
        Methods,
        zegclip::{ZegClip, ZegClipConfig},
    },
    params::{Parameters, flat_gradients, list_params, trained_values},
    resize::bilinear,
    section::Section,
    trace::Trace,
    weights::StateDict,
};
use zeg_train::{
    batch::{Inputs, Samples, images_tensor},
    experiment::{Setting, TrainingConfig, TrainingPrecision},
    loss::{MaskLoss, normalizer},
    methods::zegclip::ZegClipRecipe,
    objective::Objective,
    optimizer::AdamWSettings,
    schedule::Schedule,
    targets::Targets,
    trainer::{StepReport, Trainer},
};

use super::{
    Options, ParityError,
    array::Array,
    assets,
    check::{Check, Computed},
    file::{Meta, integers_in},
    generator,
    limit::Limit,
    planted::{PlantedError, planted_images},
    progress,
    training_part::{memory_label, planted_labels, seen_classes},
};

/// Limit of losses; two summation orders of the reference differ by 2e-5 after these steps.
const LOSS: Limit = Limit::Relative(1e-3);
/// Limit of learning rates.
const RATE: Limit = Limit::Relative(1e-9);
/// Limit of scores after the last step; two summation orders of the reference differ by 3e-4.
const SCORES: Limit = Limit::OfRms(5e-3);
/// Limit of a gradient's direction: 1 − cosine.
const DIRECTION: Limit = Limit::Absolute(1e-4);
/// Limit of a gradient's norm.
const LENGTH: Limit = Limit::Relative(1e-2);
/// Limit of a parameter's deviation after the run, relative to its change during the run, both as root mean squares.
///
/// AdamW changes a value by about the learning rate whatever the size of its gradient, so values whose gradient is
/// mostly rounding change in unpredictable directions.
const MOVEMENT: Limit = Limit::Relative(2e-2);

/// A function that returns one number of a step's report.
type Column = fn(&StepReport) -> f64;

/// Compares the run.
pub(crate) fn compare(mut check: Check, options: &Options) -> Result<Computed, ParityError> {
    let run = Run::read(&mut check, options)?;
    let device = options.device.clone().autodiff();
    let (model, _) = ZegClip::build(&run.weights, &run.config, &device, 0)?;
    let start = values(&model);
    compare_first_gradient(&mut check, &run, &model, &device)?;

    let seen = seen_classes(&run.base, run.classes)?;
    let text = run.text(&device, &run.base);
    let mut trainer = Trainer::new(
        &ZegClipRecipe,
        &run.config,
        Box::new(model),
        run.training.clone(),
        seen,
        text,
    )?;
    let mut reports = Vec::new();
    for step in 0..run.training.steps as usize {
        progress(
            &check.file().path,
            &format!("step {} of {}", step + 1, run.training.steps),
        );
        reports.push(trainer.train_step(run.samples(step, run.training.batch))?);
    }
    let columns: [(&str, Column, Limit); 4] = [
        ("train.total", |r| f64::from(r.loss), LOSS),
        ("train.focal", |r| f64::from(r.terms["focal"]), LOSS),
        ("train.dice", |r| f64::from(r.terms["dice"]), LOSS),
        ("train.lr", |r| r.lr, RATE),
    ];
    for (name, value, limit) in columns {
        let found = Array::row(reports.iter().map(value).collect());
        check.compare(name, &found, limit);
    }
    let trained = trainer.inference_model();
    if let Some(trained) = trained.as_any().downcast_ref() {
        compare_scores(&mut check, &run, trained, &options.device)?;
    }
    compare_movement(&mut check, &run, &start, &values(trainer.model()));
    Ok(check.finish())
}

/// The content of the description and of the files that it names.
struct Run {
    config: ZegClipConfig,
    training: TrainingConfig,
    weights: StateDict,
    embeddings: ClassEmbeddings,
    /// Seen classes, in training order.
    base: Vec<usize>,
    classes: usize,
    size: usize,
    /// Normalised images, `[images, 3, size, size]`.
    images: Vec<f32>,
    /// Labels, `[images, size, size]`.
    labels: Vec<u16>,
    /// Number of elements above which a parameter is sampled, and the divisor of its size that gives the stride.
    sampling: [usize; 2],
}

impl Run {
    fn read(check: &mut Check, options: &Options) -> Result<Self, ParityError> {
        let file = check.file();
        let meta = file.meta();
        let count = |name: &str| meta.at(name)?.count();
        let number = |name: &str| meta.at(name)?.number();
        let (size, depth) = (count("size")?, count("depth")?);
        let dropout = number("dropout")?;
        let config = ZegClipConfig {
            tune_encoder: false,
            encoder: VisionConfig {
                input_resolution: size,
                prompts: Some(PromptConfig {
                    tokens: count("tokens")?,
                    depth: PromptDepth::First(depth + 1),
                    dropout,
                }),
                ..VisionConfig::by_name("ViT-B/16")?
            },
            head: HeadConfig {
                layers: count("dec_layers")?,
                heads: count("dec_heads")?,
                dropout,
                ..HeadConfig::default()
            },
        };
        let mut training = training(&meta, size)?;
        match check.planted() {
            Some(PlantedError::MissingTerm("focal")) => training.loss.set("focal", 0.0),
            Some(PlantedError::MissingTerm("dice")) => training.loss.set("dice", 0.0),
            _ => {}
        }
        let base = meta.at("base_class")?.counts()?;
        let classes = base.len() + meta.at("novel_class")?.counts()?.len();
        let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
        let table = assets::find(&file.path, "text", meta.at("text")?.text()?, options)?;
        let note = meta
            .find("sampled")
            .and_then(|note| note.text().ok())
            .unwrap_or_default();
        let sampling = match integers_in(note)[..] {
            [above, divisor] if divisor > 0 => [above, divisor],
            _ => [usize::MAX, 1],
        };
        let (images, mut labels) = images(check, &meta)?;
        planted_labels(check.planted(), &mut labels);
        let shape = [labels.len() / (size * size).max(1), 3, size, size];
        let images = Array::from_values(&shape, &images);
        let images = planted_images(check.planted(), &images, config.encoder.patch).to_f32();
        Ok(Self {
            weights: weights(check, &meta, &config, options)?,
            embeddings: ClassEmbeddings::open(&table, &names)?,
            config,
            training,
            base,
            classes,
            size,
            images,
            labels,
            sampling,
        })
    }

    /// Returns the embeddings of the given classes: `[classes, dim]`.
    fn text(&self, device: &Device, classes: &[usize]) -> Tensor<2> {
        assets::class_rows(&self.embeddings, classes, device)
    }

    /// Returns the samples of a step.
    fn samples(&self, step: usize, batch: usize) -> Samples {
        let pixels = self.size * self.size;
        let part = |values: usize| step * batch * values..(step + 1) * batch * values;
        let images = self.images.get(part(3 * pixels)).unwrap_or_default();
        let labels = self.labels.get(part(pixels)).unwrap_or_default();
        Samples {
            inputs: Inputs::Images(images.to_vec()),
            labels: labels.to_vec(),
            size: self.size,
            ids: (step * batch..(step + 1) * batch)
                .map(|i| i.to_string())
                .collect(),
        }
    }
}

fn training(meta: &Meta, size: usize) -> Result<TrainingConfig, ParityError> {
    let count = |name: &str| meta.at(name)?.count();
    let number = |name: &str| meta.at(name)?.number();
    Ok(TrainingConfig {
        setting: Setting::Inductive,
        pseudo_labels: zeg_train::supervision::PseudoLabels::default(),
        self_training: zeg_train::pseudo_labels::PseudoLabelRule::default(),
        steps: count("steps")? as u64,
        batch: count("batch")?,
        micro_batch: None,
        seed: 0,
        preprocess: Preprocess::Whole(Whole {
            size,
            ..Whole::default()
        }),
        cached_copies: None,
        loss_stride: 1,
        objective: Objective::FocalDice,
        precision: TrainingPrecision::F32,
        unlabelled_negatives: true,
        loss: Section::of(&MaskLoss {
            focal: number("mask_w")?,
            dice: number("dice_w")?,
        })?,
        optimizer: AdamWSettings {
            weight_decay: number("weight_decay")?,
            ..AdamWSettings::default()
        },
        schedule: Schedule {
            base: number("base_lr")?,
            warmup_steps: count("warmup_steps")? as u64,
            ..Schedule::default()
        },
        checkpoint_every: None,
        evaluation: None,
        keep_checkpoints: 0,
        on_bad_sample: zeg_data::OnBadSample::Stop,
    })
}

/// Returns the real image tower, with generated values for all other parameters.
fn weights(
    check: &Check,
    meta: &Meta,
    config: &ZegClipConfig,
    options: &Options,
) -> Result<StateDict, ParityError> {
    let base = meta.at("base_weights")?.text()?;
    let mut weights = StateDict::open(
        &assets::find(&check.file().path, "weights", base, options)?,
        &Methods::default().key_tables(),
    )?;
    let seed = meta.at("seed")?.count()? as u64;
    let init = meta.at("init")?;
    let factor = init.text()?.rsplit_once("multiplied by ").map(|(_, rest)| {
        let number: String = rest
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        number.trim_end_matches('.').parse::<f32>()
    });
    let Some(Ok(factor)) = factor else {
        return Err(init.error("does not give the factor of the prompts"));
    };
    let blueprint = ZegClip::blueprint(config, &options.device)?;
    for info in list_params(&blueprint, |_| false) {
        if weights.contains(&info.name) {
            continue;
        }
        let mut tensor = generator::parameter(&info.name, seed, &info.shape);
        if info.name.ends_with("prompt_embeddings") {
            tensor.values.iter_mut().for_each(|value| *value *= factor);
        }
        weights.insert(info.name, tensor);
    }
    if let Some(error) = check.planted() {
        error.alter_weights(&mut weights, config.encoder.heads)?;
    }
    Ok(weights)
}

/// Reads the normalised images and the labels.
fn images(check: &mut Check, meta: &Meta) -> Result<(Vec<f32>, Vec<u16>), ParityError> {
    let images = check.input("in.images")?;
    let [_, height, width, 3] = images.shape[..] else {
        return Err(check.tensor_error("in.images", "is not [images, height, width, 3]"));
    };
    let statistics = |name: &str| -> Result<[f32; 3], ParityError> {
        let meta = meta.at(name)?;
        let values: Vec<f32> = meta.numbers()?.into_iter().map(|v| v as f32).collect();
        <[f32; 3]>::try_from(values).map_err(|_| meta.error("is not one number per channel"))
    };
    let normalization = Normalization {
        mean: statistics("mean")?,
        std: statistics("std")?,
    };
    let bytes = images.to_u8();
    let images = bytes
        .chunks_exact((height * width * 3).max(1))
        .filter_map(|image| RgbImage::from_raw(width as u32, height as u32, image.to_vec()))
        .flat_map(|image| normalization.to_chw(&image))
        .collect();
    let labels = check
        .input("in.labels")?
        .to_u8()
        .into_iter()
        .map(memory_label)
        .collect();
    Ok((images, labels))
}

/// Compares norm and direction of the gradients of the first step, `grad0.<name>`.
fn compare_first_gradient(
    check: &mut Check,
    run: &Run,
    model: &ZegClip,
    device: &Device,
) -> Result<(), ParityError> {
    let names = check.file().tensors.keys();
    let names: Vec<String> = names.filter(|n| n.starts_with("grad0.")).cloned().collect();
    if names.is_empty() {
        return Ok(());
    }
    let samples = run.samples(0, run.training.batch);
    let Inputs::Images(images) = samples.inputs else {
        return Ok(()); // cannot happen: the inputs are images
    };
    let mut labels = samples.labels;
    seen_classes(&run.base, run.classes)?.map(&mut labels);
    let targets = Targets::new(labels, run.training.batch, [run.size; 2], run.base.len())?;
    let images = images_tensor(images, run.size, device);
    let masks = model.forward(images, run.text(device, &run.base), &mut Trace::off());
    let terms = run
        .training
        .loss
        .read::<MaskLoss>("`training.loss`")?
        .forward(masks, &targets, normalizer(&[&targets]));
    let mut gradients = terms.total().backward();
    let gradients = flat_gradients(model, &mut gradients);
    for name in names {
        let suffix = name.trim_start_matches("grad0.");
        // The suffix must start at a dot: `prompt_embeddings` is not `deep_prompt_embeddings`.
        let found = gradients.iter().find(|(name, _)| {
            name.strip_suffix(suffix)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        });
        let (Some(reference), Some((_, found))) = (check.reference(&name), found) else {
            check.verdict(&name, Some("there is no gradient of this name".into()));
            continue;
        };
        let found = Array::of(found.clone())?;
        let product: f64 = reference
            .values
            .iter()
            .zip(&found.values)
            .map(|(a, b)| a * b)
            .sum();
        let cosine = product / (reference.norm() * found.norm());
        let direction = format!("{name} (direction)");
        check.measured(&direction, DIRECTION, 1.0 - cosine, found.clone());
        let (reference, found) = (Array::scalar(reference.norm()), Array::scalar(found.norm()));
        check.compare_value(&format!("{name} (length)"), &reference, &found, LENGTH);
    }
    Ok(())
}

/// Compares the first image's scores after the run, `after.pred_every_<n>`.
fn compare_scores(
    check: &mut Check,
    run: &Run,
    model: &ZegClip,
    device: &Device,
) -> Result<(), ParityError> {
    let names = check.file().tensors.keys();
    let Some(name) = names
        .into_iter()
        .find(|name| name.starts_with("after.pred_every_"))
        .cloned()
    else {
        return Ok(());
    };
    let step = integers_in(&name).last().copied().unwrap_or(1);
    let Inputs::Images(image) = run.samples(0, 1).inputs else {
        return Ok(()); // cannot happen: the inputs are images
    };
    let all: Vec<usize> = (0..run.classes).collect();
    let images = images_tensor(image, run.size, device);
    let grid = model.forward(images, run.text(device, &all), &mut Trace::off());
    let scores = activation::sigmoid(bilinear(grid, [run.size; 2]));
    let seen: Vec<bool> = all.iter().map(|class| run.base.contains(class)).collect();
    let scores = lower_seen(scores, &seen, Inference::default().seen_offset);
    check.compare(&name, &Array::of(scores)?.every(step, 2..4), SCORES);
    Ok(())
}

/// Compares the parameters after the run, `after.<name>`.
fn compare_movement(
    check: &mut Check,
    run: &Run,
    start: &BTreeMap<String, Array>,
    end: &BTreeMap<String, Array>,
) {
    let [above, divisor] = run.sampling;
    for (parameter, found) in end {
        let name = format!("after.{parameter}");
        let (Some(reference), Some(start)) = (check.reference(&name), start.get(parameter)) else {
            continue;
        };
        let taken = |array: &Array| {
            if array.values.len() > above {
                array.sampled(array.values.len() / divisor, reference.values.len())
            } else {
                array.clone()
            }
        };
        let (found, start) = (taken(found), taken(start));
        if found.shape != reference.shape {
            check.compare_value(&name, reference, &found, MOVEMENT);
            continue;
        }
        let minus = |a: &Array, b: &Array| -> Array {
            Array::row(a.values.iter().zip(&b.values).map(|(a, b)| a - b).collect())
        };
        let change = minus(reference, &start).rms();
        let deviation = minus(&found, reference).rms() / change;
        check.measured(&name, MOVEMENT, deviation, found);
    }
}

fn values(model: &(impl Parameters + ?Sized)) -> BTreeMap<String, Array> {
    let values = trained_values(model).into_iter();
    values
        .map(|param| {
            let values = Array::from_values(&param.shape, &param.values);
            (param.name, values)
        })
        .collect()
}
