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
    config::{HeadConfig, PromptConfig, PromptDepth, VisionConfig},
    embeddings::ClassEmbeddings,
    inference::{Inference, ScoreMap, lower_seen},
    params::{flat_gradients, list_params},
    resize::bilinear,
    trace::Trace,
    weights::StateDict,
};
use zeg_train::{
    methods::clip_rc::ClipRcLossWeights,
    optimizer::{AdamWSettings, NamedAdamW},
    schedule::Schedule,
    targets::Targets,
};
use zeg_vocab::classes::ClassSet;

use super::{
    Options, ParityError,
    array::Array,
    assets,
    check::{Check, Computed},
    file::{Meta, integers_in},
    generator,
    limit::Limit,
    planted::{PlantedError, planted_encode, planted_images},
    progress,
    small_model::compare_labels,
    training_part::{
        NamedGradients, Pass, compare_gradients, compare_losses, planted_labels, seen_classes,
    },
    typed::{TypedConfig, TypedModel},
};

/// Values of a gradient that are stored, at most.
const SAMPLES: usize = 64;

/// Compares everything in the file.
pub(crate) fn compare(mut check: Check, options: &Options) -> Result<Computed, ParityError> {
    let file = check.file();
    let case = Case::read(&check)?;
    let table = assets::find(&file.path, "text", &case.table, options)?;
    let embeddings = ClassEmbeddings::open(&table, Some(&case.classes.classes))?;
    let plain = &options.device;
    progress(&file.path, "generating weights");
    let weights = case.weights(plain)?;

    progress(&file.path, "encoding");
    let images = case.images();
    let packed = case.config.build_packed(&weights, plain)?;
    compare_eval(&mut check, &case, &packed, &images, &embeddings)?;
    drop(packed);
    // A planted error that is found needs no further look, and a step takes its time.
    if check.planted().is_none() || !check.deviates() {
        let model = case.config.build(&weights, &plain.clone().autodiff())?;
        compare_step(&mut check, &case, model, &images, &embeddings)?;
    }
    Ok(check.finish())
}

/// Losses, gradients, a step of the optimiser and the loss behind it.
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

    progress(&check.file().path, "the step, and the loss behind it");
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

/// Limits that are not the same for all files of this kind.
struct Limits {
    gradient: Limit,
    after_step: Limit,
}

impl Limits {
    /// Of a model with region tokens: its decoders have a ReLU whose input lies at rounding distance from 0, and a value
    /// map whose gradient is 1.5e-5 of its tensor's RMS, so that a right computation deviates by 3.3e-3 in gradients
    /// and 1.4e-4 in the loss behind the step, in double precision, too.
    const REGIONS: Self = Self {
        gradient: Limit::OfRms(5e-3),
        after_step: Limit::OfRms(5e-4),
    };
    const OTHERS: Self = Self {
        gradient: Limit::GRADIENT,
        after_step: Limit::ACTIVATION,
    };
}

/// What the description says.
struct Case {
    config: TypedConfig,
    limits: Limits,
    planted: Option<PlantedError>,
    loss: ClipRcLossWeights,
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
    fn read(check: &Check) -> Result<Self, ParityError> {
        let meta = check.file().meta();
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
            limits: match encoder.regions {
                Some(_) => Limits::REGIONS,
                None => Limits::OTHERS,
            },
            config: TypedConfig::new(encoder, head),
            planted: check.planted(),
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

    /// The generated weights.
    fn weights(&self, device: &Device) -> Result<StateDict, ParityError> {
        let mut weights = StateDict::default();
        let blueprint = self.config.blueprint(device)?;
        for info in list_params(&blueprint, |_| false) {
            // Region tokens start as the model itself makes them, of the class token and its position.
            if info.name != "backbone.region_level_bridge" {
                let values = generator::parameter(&info.name, self.seed, &info.shape);
                weights.insert(info.name, values);
            }
        }
        if let Some(error) = self.planted {
            error.alter_weights(&mut weights, self.config.encoder().heads)?;
        }
        Ok(weights)
    }

    /// The image, `[1, 3, size, size]`.
    fn images(&self) -> Array {
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
        let image = Array::from_values(&[1, 3, size, size], &values.collect::<Vec<f32>>());
        planted_images(self.planted, &image, self.config.encoder().patch)
    }

    /// The image's labels among the seen classes.
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
        planted_labels(self.planted, &mut labels);
        let seen = self.classes.seen();
        seen_classes(&seen, self.classes.len())?.map(&mut labels);
        Ok(Targets::new(labels, 1, [size; 2], seen.len())?)
    }

    /// A pass in train mode.
    fn pass(
        &self,
        model: &TypedModel,
        images: Tensor<4>,
        text: Tensor<2>,
        targets: &Targets,
    ) -> Pass {
        let trace = &mut Trace::off();
        let encoded = planted_encode(self.planted, model, images, trace);
        let (grid, recovery) = model.decode(encoded, text, trace);
        Pass {
            masks: bilinear(grid, [self.size; 2]),
            targets: targets.clone(),
            recovery,
            planted: self.planted,
        }
    }
}

/// What the name of a configuration file tells, and what every file of its kind holds.
struct Recipe {
    size: usize,
    tokens: usize,
    blocks: usize,
    regions: Option<usize>,
    loss: ClipRcLossWeights,
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
                loss: ClipRcLossWeights::default(),
            }),
            _ => None,
        }
    }
}

/// The released weights of CLIP-RC (section 13.4 of the reference's specification).
fn weights(focal: f64, dice: f64, recovery: f64) -> ClipRcLossWeights {
    ClipRcLossWeights {
        focal,
        dice,
        recovery,
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
        "{} gradients in the file, only here: {extra:?}",
        stored.count()
    );
    check.verdict("meta.gradients", (!extra.is_empty()).then_some(problem));
    Ok(())
}
