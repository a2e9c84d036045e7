//! A model of published size, its weights generated: sampled activations, losses, gradient norms and samples.
//!
//! The encoder runs once for evaluation and training: without dropout both see the same tokens, and it is the
//! heads that take all classes or the seen ones. Only the loss behind the optimiser's step needs a second pass.

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData, activation},
};
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    Precision,
    config::{HeadConfig, PromptConfig, PromptDepth, VisionConfig, ZegClipConfig},
    embeddings::ClassEmbeddings,
    inference::{Inference, ScoreMap, lower_seen},
    params::{flat_gradients, list_params},
    resize::bilinear,
    trace::Trace,
    vision::Encoded,
    weights::StateDict,
    zegclip::ZegClip,
};
use zeg_train::{
    loss::{LossTerms, MaskLoss, normalizer},
    optimizer::{AdamWSettings, NamedAdamW},
    schedule::Schedule,
    targets::Targets,
};
use zeg_vocab::classes::ClassSet;

use super::{
    Options, ParityError,
    array::Array,
    assets,
    check::{Check, Findings, Limit},
    file::{Meta, integers_in},
    generator, progress,
    training_part::{NamedGradients, compare_gradients, pixel_accuracy, seen_classes},
    zegclip::compare_labels,
};

/// Values of a gradient that are stored, at most.
const SAMPLES: usize = 64;

/// Compares everything in the file.
pub(crate) fn compare(mut check: Check, options: &Options) -> Result<Findings, ParityError> {
    let file = check.file();
    let case = Case::read(&file.meta())?;
    let table = assets::find(&file.path, "text", &case.table, options)?;
    let embeddings = ClassEmbeddings::open(&table, Some(&case.classes.classes))?;
    let plain = &options.device;
    let device = plain.clone().autodiff();
    progress(&file.path, "generating weights");
    let model = case.build(&device)?;

    progress(&file.path, "encoding");
    let images = case.images(&device);
    let mut trace = Trace::on();
    let packed = case.build_packed(plain)?;
    let encoded = packed.encode(images.clone().without_autodiff(), &mut trace);
    compare_eval(&mut check, &case, &packed, &encoded, &embeddings, trace)?;
    drop(packed);
    let encoded = model.encode(images.clone(), &mut Trace::off());

    progress(&file.path, "gradients");
    let targets = case.targets()?;
    let text = assets::class_rows(&embeddings, &case.classes.seen(), &device);
    let masks = case.masks(&model, encoded, text);
    let terms = loss(masks.clone(), &targets);
    let accuracy = pixel_accuracy(masks, &targets)?;
    check.compare(
        "train.decode.acc_seg",
        &Array::scalar(accuracy),
        Limit::ACTIVATION,
    );
    for (name, value) in [
        ("train.decode.loss_mask", &terms.focal),
        ("train.decode.loss_dice", &terms.dice),
        ("train.total", &terms.total()),
    ] {
        check.compare(name, &Array::of(value.clone())?, Limit::ACTIVATION);
    }
    let mut gradients = terms.total().backward();
    let gradients: BTreeMap<String, Tensor<1>> =
        flat_gradients(&model, &mut gradients).into_iter().collect();
    compare_sampled_gradients(&mut check, &gradients)?;

    progress(&file.path, "the step, and the loss behind it");
    let mut optimizer = NamedAdamW::new(&AdamWSettings::default());
    let gradients = gradients
        .into_iter()
        .map(|(name, g)| (name, g.without_autodiff()))
        .collect();
    let model = optimizer
        .step(model, gradients, Schedule::default().base)
        .valid();
    let encoded = model.encode(images.without_autodiff(), &mut Trace::off());
    let text = assets::class_rows(&embeddings, &case.classes.seen(), plain);
    let total = loss(case.masks(&model, encoded, text), &targets).total();
    check.compare(
        "train.total_after_step1",
        &Array::of(total)?,
        Limit::ACTIVATION,
    );
    Ok(check.finish(&["eval.", "train.", "gradnorm.", "gradsample."]))
}

/// What the description says.
struct Case {
    config: ZegClipConfig,
    /// Side of the picture in pixels.
    size: usize,
    classes: ClassSet,
    /// File name of the class embeddings.
    table: String,
    seed: u64,
    image: ImageRecipe,
    label: LabelRecipe,
}

/// `a·gen("full.image") + b·gen("full.image.low")`, the latter in blocks of `factor` pixels.
struct ImageRecipe {
    fine: f32,
    coarse: f32,
    factor: usize,
}

/// `gen_int("full.label", [1, 1, side, side], below)`, one value of which is ignored, in blocks of `factor` pixels.
struct LabelRecipe {
    side: usize,
    below: u32,
    ignored: u32,
    factor: usize,
}

impl Case {
    fn read(meta: &Meta) -> Result<Self, ParityError> {
        let config = meta.at("config_file")?;
        let name = config.text()?;
        // configs/voc12/vpt_seg_zero_vit-b_512x512_20k_12_10.py: size, steps, blocks with prompts, prompts
        let words: Vec<&str> = name.trim_end_matches(".py").split(['/', '_']).collect();
        let size = words.iter().find_map(|word| {
            let (height, width) = word.split_once('x')?;
            height.parse().ok().filter(|_| height == width)
        });
        let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
        let (Some(size), [blocks, tokens]) = (size, &numbers[..]) else {
            return Err(config.error("does not tell size, prompt depth and prompt tokens"));
        };
        if !words.contains(&"vit-b") || !words.contains(&"zero") {
            return Err(config.error("is of another form than vpt_seg_zero_vit-b_…"));
        }
        let classes = if name.contains("coco") {
            "coco-stuff171"
        } else {
            "voc20"
        };
        let weights = meta.at("weights")?;
        let table = weights
            .text()?
            .split_whitespace()
            .find(|word| Path::new(word).extension().is_some_and(|e| e == "npy"));
        let encoder = VisionConfig {
            input_resolution: size,
            prompts: Some(PromptConfig {
                tokens: *tokens,
                depth: PromptDepth::First(*blocks),
                dropout: 0.0,
            }),
            ..VisionConfig::by_name("ViT-B/16")?
        };
        let head = HeadConfig {
            dropout: 0.0,
            ..HeadConfig::default()
        };
        Ok(Self {
            config: ZegClipConfig {
                encoder,
                head,
                tune_encoder: false,
            },
            size,
            classes: ClassSet::by_name(classes)?,
            table: table
                .ok_or_else(|| weights.error("names no class embeddings"))?
                .to_owned(),
            seed: meta.at("seed")?.count()? as u64,
            image: ImageRecipe::read(&meta.at("image")?)?,
            label: LabelRecipe::read(&meta.at("label")?)?,
        })
    }

    /// The model as it is trained, with generated weights.
    fn build(&self, device: &Device) -> Result<ZegClip, ParityError> {
        Ok(ZegClip::build(&self.weights(device)?, &self.config, device, 0)?.0)
    }

    /// The model as pictures go through it: linear layers packed.
    fn build_packed(&self, device: &Device) -> Result<ZegClip, ParityError> {
        let weights = self.weights(device)?;
        let config = &self.config;
        Ok(ZegClip::build_packed(
            &weights,
            config,
            device,
            Precision::Float,
        )?)
    }

    /// The generated weights.
    fn weights(&self, device: &Device) -> Result<StateDict, ParityError> {
        let mut weights = StateDict::default();
        let blueprint = ZegClip::blueprint(&self.config, &device.clone().without_autodiff())?;
        for info in list_params(&blueprint, |_| false) {
            let values = generator::parameter(&info.name, self.seed, &info.shape);
            weights.insert(info.name, values);
        }
        Ok(weights)
    }

    /// The picture, `[1, 3, size, size]`.
    fn images(&self, device: &Device) -> Tensor<4> {
        let ImageRecipe {
            fine,
            coarse,
            factor,
        } = self.image;
        let (size, side) = (self.size, self.size / factor);
        let noise = generator::uniform("full.image", self.seed, 3 * size * size);
        let blocks: Vec<f32> =
            generator::uniform("full.image.low", self.seed, 3 * side * side).collect();
        let values = noise.enumerate().map(|(i, v)| {
            let (plane, y, x) = (i / (size * size), i / size % size, i % size);
            let block = blocks[(plane * side + y / factor) * side + x / factor];
            v * fine + block * coarse
        });
        let data = TensorData::new(values.collect::<Vec<f32>>(), [1, 3, size, size]);
        Tensor::from_data(data, device)
    }

    /// The picture's labels among the seen classes.
    fn targets(&self) -> Result<Targets, ParityError> {
        let LabelRecipe {
            side,
            below,
            ignored,
            factor,
        } = self.label;
        let blocks = generator::integers("full.label", self.seed, side * side, below);
        let size = side * factor;
        let mut labels: Vec<u16> = (0..size * size)
            .map(
                |i| match blocks[i / size / factor * side + i % size / factor] {
                    label if label == ignored => IGNORE_LABEL,
                    label => label as u16,
                },
            )
            .collect();
        let seen = self.classes.seen();
        seen_classes(&seen, self.classes.len())?.map(&mut labels);
        Ok(Targets::new(labels, 1, [size; 2], seen.len())?)
    }

    /// Masks at the size of the picture, logits.
    fn masks(&self, model: &ZegClip, encoded: Encoded, text: Tensor<2>) -> Tensor<4> {
        let grid = model.decode_head.forward(encoded, text, &mut Trace::off());
        bilinear(grid, [self.size; 2])
    }
}

impl ImageRecipe {
    fn read(meta: &Meta) -> Result<Self, ParityError> {
        let text = meta.text()?;
        let known = text.contains(r#"*gen("full.image") + "#)
            && text.contains(r#"*gen("full.image.low") "#)
            && text.contains(" nearest x");
        let factors: Vec<f32> = text
            .split_whitespace()
            .filter_map(|word| word.split_once("*gen")?.0.parse().ok())
            .collect();
        match (known, &factors[..], integers_in(text).last()) {
            (true, &[fine, coarse], Some(&factor)) if factor > 0 => Ok(Self {
                fine,
                coarse,
                factor,
            }),
            _ => Err(meta.error("is another recipe than is known")),
        }
    }
}

impl LabelRecipe {
    fn read(meta: &Meta) -> Result<Self, ParityError> {
        let text = meta.text()?;
        let known =
            text.starts_with(r#"gen_int("full.label",[1,1,"#) && text.contains("->255, nearest x");
        match (known, &integers_in(text)[..]) {
            (true, &[1, 1, side, _, below, ignored, 255, factor]) => Ok(Self {
                side,
                below: below as u32,
                ignored: ignored as u32,
                factor,
            }),
            _ => Err(meta.error("is another recipe than is known")),
        }
    }
}

fn loss(masks: Tensor<4>, targets: &Targets) -> LossTerms {
    MaskLoss::default().forward(masks, targets, normalizer(&[targets]))
}

fn compare_eval(
    check: &mut Check,
    case: &Case,
    model: &ZegClip,
    encoded: &Encoded,
    embeddings: &ClassEmbeddings,
    mut trace: Trace,
) -> Result<(), ParityError> {
    let text = embeddings.to_tensor(&encoded.global.device());
    let grid = model.decode_head.forward(encoded.clone(), text, &mut trace);
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

/// Compares a tensor that is stored whole, at every so many places, or as mean and standard deviation.
fn compare_sampled(
    check: &mut Check,
    name: &str,
    what: &str,
    results: &BTreeMap<String, Array>,
) -> Result<(), ParityError> {
    if let Some(found) = results.get(what) {
        check.compare(name, found, Limit::ACTIVATION);
    } else if let Some(found) = what
        .strip_suffix(".mean_std")
        .and_then(|what| results.get(what))
    {
        check.compare(name, &mean_and_deviation(found), Limit::ACTIVATION);
    } else if let Some((what, step)) = what.rsplit_once("_every_") {
        let Ok(step @ 1..) = step.parse::<usize>() else {
            return Err(check.tensor_error(name, "does not tell its step"));
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
        return Err(check.tensor_error(name, "is of more than one picture"));
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

/// Mean and standard deviation (of a sample, as the reference has it) of all values.
fn mean_and_deviation(array: &Array) -> Array {
    let count = array.values.len() as f64;
    let mean = array.values.iter().sum::<f64>() / count;
    let squares: f64 = array.values.iter().map(|v| (v - mean).powi(2)).sum();
    Array::row(vec![mean, (squares / (count - 1.0)).sqrt()])
}

fn compare_sampled_gradients(
    check: &mut Check,
    gradients: &BTreeMap<String, Tensor<1>>,
) -> Result<(), ParityError> {
    let (mut norms, mut samples) = (NamedGradients::new(), NamedGradients::new());
    for (name, gradient) in gradients {
        let gradient = Array::of(gradient.clone())?;
        norms.insert(name.clone(), Array::scalar(gradient.norm()));
        let stride = (gradient.values.len() / SAMPLES).max(1);
        samples.insert(name.clone(), gradient.sampled(stride, SAMPLES));
    }
    compare_gradients(check, "gradnorm.", &norms);
    compare_gradients(check, "gradsample.", &samples);
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
        "{} gradients in the file, only here: {extra:?}",
        stored.count()
    );
    check.verdict("meta.gradients", (!extra.is_empty()).then_some(problem));
    Ok(())
}
