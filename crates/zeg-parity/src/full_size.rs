//! A model of published size, its weights generated: sampled activations, losses, gradient norms and samples. The file's
//! description is a name of a configuration, and reading it takes the room that makes this longer than other files.
//!
//! The encoder runs once for evaluation and training: without dropout both see the same tokens, and it is the
//! heads that take all classes or the seen ones. Only the loss behind the optimiser's step needs a second pass.

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::Module,
    tensor::{Device, Tensor, activation},
};
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    Precision,
    config::{HeadConfig, PromptConfig, PromptDepth, VisionConfig},
    embeddings::ClassEmbeddings,
    inference::{Inference, ScoreMap, lower_seen},
    method::{MethodConfig, Model},
    params::{flat_gradients, list_params},
    resize::bilinear,
    trace::Trace,
    vision::Encoded,
    weights::StateDict,
};
use zeg_train::{
    loss::MaskLoss,
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
    rounding::compare_in_any_rounding,
    small_model::{compare_labels, decode, encode, method},
    training_part::{NamedGradients, Pass, compare_gradients, compare_losses, seen_classes},
};

/// Beginnings of the names of results that may hang on the last digit of the picture.
const UNCERTAIN: [&str; 3] = ["gradnorm.", "gradsample.", "train.total_after_step"];
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
    let pictures = case.pictures();
    let packed = case.build_packed(plain)?;
    compare_eval(&mut check, &case, &packed, &pictures, &embeddings)?;
    drop(packed);
    let trial = |check: &mut Check, images| {
        compare_step(check, (&case, &model), images, &embeddings, plain)
    };
    compare_in_any_rounding(&mut check, &pictures, &device, &UNCERTAIN, trial)?;
    Ok(check.finish(&["eval.", "train.", "gradnorm.", "gradsample."]))
}

/// Losses, gradients, a step of the optimiser and the loss behind it.
fn compare_step(
    check: &mut Check,
    (case, model): (&Case, &Model),
    images: Tensor<4>,
    embeddings: &ClassEmbeddings,
    plain: &Device,
) -> Result<(), ParityError> {
    progress(&check.file().path, "gradients");
    let targets = case.targets()?;
    let text = assets::class_rows(embeddings, &case.classes.seen(), &images.device());
    let encoded = encode(model, images.clone(), &mut Trace::off());
    let pass = case.pass(model, encoded, text, &targets);
    compare_losses(check, &case.loss, &pass)?;
    let mut gradients = pass.total(&case.loss).backward();
    let gradients: BTreeMap<String, Tensor<1>> =
        flat_gradients(model, &mut gradients).into_iter().collect();
    compare_sampled_gradients(check, &gradients)?;

    progress(&check.file().path, "the step, and the loss behind it");
    let mut optimizer = NamedAdamW::new(&AdamWSettings::default());
    let gradients = gradients
        .into_iter()
        .map(|(name, g)| (name, g.without_autodiff()))
        .collect();
    let model = optimizer
        .step(model.clone(), gradients, Schedule::default().base)
        .valid();
    let encoded = encode(&model, images.without_autodiff(), &mut Trace::off());
    let text = assets::class_rows(embeddings, &case.classes.seen(), plain);
    let total = case.pass(&model, encoded, text, &targets).total(&case.loss);
    check.compare(
        "train.total_after_step1",
        &Array::of(total)?,
        Limit::ACTIVATION,
    );
    Ok(())
}

/// What the description says.
struct Case {
    config: MethodConfig,
    loss: MaskLoss,
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
        let recipe = Recipe::of(name).ok_or_else(|| {
            config.error("is neither vpt_seg_zero_vit-b_… nor clip_rc_zero_vit-b_…")
        })?;
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
            input_resolution: recipe.size,
            prompts: Some(PromptConfig {
                tokens: recipe.tokens,
                depth: PromptDepth::First(recipe.blocks),
                dropout: 0.0,
            }),
            regions: recipe.regions,
            ..VisionConfig::by_name("ViT-B/16")?
        };
        let head = HeadConfig {
            dropout: 0.0,
            ..HeadConfig::default()
        };
        Ok(Self {
            config: method(encoder, head),
            loss: recipe.loss,
            size: recipe.size,
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
    fn build(&self, device: &Device) -> Result<Model, ParityError> {
        let weights = self.weights(device)?;
        Ok(self.config.build(&weights, device, 0)?.0)
    }

    /// The model as pictures go through it: linear layers packed.
    fn build_packed(&self, device: &Device) -> Result<Model, ParityError> {
        let weights = self.weights(device)?;
        Ok(self
            .config
            .build_packed(&weights, device, Precision::Float)?)
    }

    /// The generated weights.
    fn weights(&self, device: &Device) -> Result<StateDict, ParityError> {
        let mut weights = StateDict::default();
        let blueprint = self.config.blueprint(&device.clone().without_autodiff())?;
        for info in list_params(&blueprint, |_| false) {
            // Region tokens start as the model itself makes them, of the class token and its position.
            if info.name != "backbone.region_level_bridge" {
                let values = generator::parameter(&info.name, self.seed, &info.shape);
                weights.insert(info.name, values);
            }
        }
        Ok(weights)
    }

    /// The picture, `[1, 3, size, size]`.
    fn pictures(&self) -> Array {
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
        Array::from_values(&[1, 3, size, size], &values.collect::<Vec<f32>>())
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

    /// A pass in train mode.
    fn pass(&self, model: &Model, encoded: Encoded, text: Tensor<2>, targets: &Targets) -> Pass {
        let (grid, recovery) = decode(model, encoded, text, &mut Trace::off());
        Pass {
            masks: bilinear(grid, [self.size; 2]),
            targets: targets.clone(),
            recovery,
        }
    }
}

/// What the name of a configuration file tells, and what every file of its kind holds.
struct Recipe {
    size: usize,
    tokens: usize,
    blocks: usize,
    regions: Option<usize>,
    loss: MaskLoss,
}

impl Recipe {
    fn of(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.trim_end_matches(".py").split(['/', '_']).collect();
        let size = words.iter().find_map(|word| {
            let (height, width) = word.split_once('x')?;
            height.parse().ok().filter(|_| height == width)
        })?;
        let numbers: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
        if !words.contains(&"vit-b") || !words.contains(&"zero") {
            return None;
        }
        match numbers[..] {
            // clip_rc_zero_vit-b_512x512_40k_voc_10_16: prompts, regions; prompts in all blocks
            [tokens, regions] if name.contains("clip_rc") => Some(Self {
                size,
                tokens,
                blocks: 12,
                regions: Some(regions),
                loss: if name.contains("coco") {
                    weights(200.0, 3.0, 50.0)
                } else {
                    weights(100.0, 1.0, 2.0)
                },
            }),
            // vpt_seg_zero_vit-b_512x512_20k_12_10: blocks with prompts, prompts
            [blocks, tokens] if name.contains("vpt_seg") => Some(Self {
                size,
                tokens,
                blocks,
                regions: None,
                loss: MaskLoss::default(),
            }),
            _ => None,
        }
    }
}

/// The released weights of CLIP-RC (section 13.4 of the reference's specification).
fn weights(focal: f64, dice: f64, recovery: f64) -> MaskLoss {
    MaskLoss {
        focal,
        dice,
        recovery: Some(recovery),
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

fn compare_eval(
    check: &mut Check,
    case: &Case,
    model: &Model,
    pictures: &Array,
    embeddings: &ClassEmbeddings,
) -> Result<(), ParityError> {
    let model = model.valid();
    let device = model.device();
    let Some(images) = pictures.to_tensor(&device) else {
        return Ok(()); // a picture has four axes
    };
    let mut trace = Trace::on();
    let encoded = encode(&model, images, &mut trace);
    let (grid, _) = decode(&model, encoded, embeddings.to_tensor(&device), &mut trace);
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
        check.compare(name, &as_many_tokens(check, name, found), Limit::ACTIVATION);
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

/// Of CLIP-RC's queries, all classes of every region, files store the first.
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
