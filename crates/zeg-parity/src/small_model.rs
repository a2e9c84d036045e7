//! Compares a complete small ZegCLIP or CLIP-RC: activations of every layer, other image sizes, sliding windows, text.
//!
//! The module [`training_part`] compares the training part of the same files.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, activation};
use zeg_model::{
    Precision,
    config::{Activation, HeadConfig, PromptConfig, PromptDepth, TextConfig, VisionConfig},
    inference::{ClassQueries, Inference, ScoreMap, lower_seen, score_windows},
    layers::l2_normalize,
    prompts::{PromptSchedule, REFERENCE_REVERSE_LAYERS},
    resize::bilinear,
    text::TextTower,
    trace::Trace,
    vision::VisionTransformer,
    weights::{ParamBuilder, StateDict},
};
use zeg_train::methods::clip_rc::ClipRcLossWeights;

use super::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    file::{Meta, VectorFile},
    limit::Limit,
    planted::{planted_encode, planted_images},
    training_part,
    typed::{TypedConfig, TypedModel},
};

/// Largest score difference at which either of two classes is accepted in a label map, because rounding may decide.
const TIE: f64 = 1e-4;
/// Prefix of the text tower's tensors in a model.
const TEXT_TOWER: &str = "text_encoder.";

/// Compares everything in the file.
pub(crate) fn compare(mut check: Check, device: &Device) -> Result<Computed, ParityError> {
    let case = Case::read(&mut check)?;
    let model = case.build_packed(device)?;
    let text = case.text(device, None);
    compare_eval(&mut check, &case, &model, text.clone())?;
    compare_other_size(&mut check, &case, &model)?;
    compare_windows(&mut check, &case, &model, text)?;
    compare_text(&mut check, &case, device)?;
    training_part::compare(&mut check, &case, device)?;
    Ok(check.finish())
}

/// The content of the description: a model and its settings.
pub(crate) struct Case {
    /// The architecture; `schedule` replaces the depth of its prompts.
    config: TypedConfig,
    schedule: Option<PromptSchedule>,
    weights: StateDict,
    /// Class embeddings as stored, `[classes, dim]`.
    embeddings: Array,
    /// Seen classes, in training order.
    pub(crate) base: Vec<usize>,
    /// Whether this is self-training, where all classes are trained and no offset is subtracted.
    pub(crate) self_training: bool,
    /// Side in pixels that masks are resized to.
    pub(crate) image_size: usize,
    /// Weights of the loss terms.
    pub(crate) loss: ClipRcLossWeights,
    crop: usize,
    stride: usize,
    /// Size in pixels that window scores are resized to, height first.
    original: [usize; 2],
    text_heads: Option<usize>,
}

impl Case {
    fn read(check: &mut Check) -> Result<Self, ParityError> {
        let file = check.file();
        let meta = file.meta();
        let config = meta.at("config")?;
        let count = |name: &str| config.at(name)?.count();
        let embeddings = check.input("in.text_fp16")?.clone();
        let decoder = match config.at("repo")?.text()? {
            "cliprc" => "decoder_q",
            _ => "decoder_1",
        };
        let first_layer = format!("state.decode_head.{decoder}.layers.0.linear1.weight");
        let hidden = check.input(&first_layer)?.shape[0];
        let depth = config.find("depth").map(|m| m.integer()).transpose()?;
        let tokens = config.find("tokens").map(|m| m.count()).transpose()?;
        let tokens = tokens.filter(|&tokens| tokens > 0);
        let layers = count("layers")?;
        let encoder = VisionConfig {
            patch: count("patch")?,
            width: count("width")?,
            layers,
            heads: count("heads")?,
            embed_dim: count("out_dim")?,
            input_resolution: count("res")?,
            double_class_embedding: true,
            activation: Activation::default(),
            prompts: tokens.map(prompts),
            regions: config.find("rlb").map(|m| m.count()).transpose()?,
        };
        let head = HeadConfig {
            layers: count("dec_layers")?,
            heads: count("dec_heads")?,
            feed_forward: hidden,
            dropout: 0.0,
            ..HeadConfig::default()
        };
        let mut weights = stored_weights(file, "state.");
        if let Some(error) = check.planted() {
            error.alter_weights(&mut weights, encoder.heads)?;
        }
        Ok(Self {
            schedule: depth.map(|depth| schedule(depth, layers)),
            config: TypedConfig::new(encoder, head),
            weights,
            embeddings,
            base: config.at("base")?.counts()?,
            self_training: config.at("st")?.flag()?,
            image_size: count("img")?,
            loss: ClipRcLossWeights {
                focal: config.at("mask_w")?.number()?,
                dice: config.at("dice_w")?.number()?,
                recovery: match config.find("rec_w") {
                    Some(weight) => weight.number()?,
                    None => ClipRcLossWeights::default().recovery,
                },
            },
            crop: count("crop")?,
            stride: count("stride")?,
            original: config.at("ori")?.pair()?,
            text_heads: text_heads(&config)?,
        })
    }

    /// Builds the model for inference, with packed linear layers.
    fn build_packed(&self, device: &Device) -> Result<TypedModel, ParityError> {
        let model = self.config.build_packed(&self.weights, device)?;
        let params = ParamBuilder::packed(&self.weights, device, 0, Precision::Float)?;
        self.scheduled(model, &params)
    }

    /// Builds the model for training.
    pub(crate) fn build(&self, device: &Device) -> Result<TypedModel, ParityError> {
        let model = self.config.build(&self.weights, device)?;
        let trained = |key: &str| self.config.trains(key);
        let params = ParamBuilder::new(&self.weights, device, 0, &trained);
        self.scheduled(model, &params)
    }

    /// Replaces the encoder by one with prompts at depths that a configuration cannot express.
    fn scheduled(
        &self,
        mut model: TypedModel,
        params: &ParamBuilder,
    ) -> Result<TypedModel, ParityError> {
        let encoder = self.config.encoder();
        let params = params.at("backbone");
        model.set_encoder(VisionTransformer::build_scheduled(
            &params,
            encoder,
            self.schedule,
        )?);
        Ok(model)
    }

    /// Returns images of the file as inputs of the encoder: `[batch, 3, height, width]`.
    pub(crate) fn images(
        &self,
        check: &mut Check,
        name: &str,
        device: &Device,
    ) -> Result<Tensor<4>, ParityError> {
        let stored = check.input(name)?;
        let images = planted_images(check.planted(), stored, self.config.encoder().patch);
        let shape = images.shape.clone();
        images
            .to_tensor(device)
            .ok_or_else(|| check.tensor_error(name, &format!("has shape {shape:?}, not 4 axes")))
    }

    /// Returns the number of classes.
    pub(crate) fn classes(&self) -> usize {
        self.embeddings.shape[0]
    }

    /// Returns the class embeddings of all or the given classes, `[classes, dim]`.
    pub(crate) fn text(&self, device: &Device, classes: Option<&[usize]>) -> Tensor<2> {
        let dim = self.embeddings.shape.get(1).copied().unwrap_or(0);
        let values = self.embeddings.to_f32();
        let rows: Vec<&[f32]> = values.chunks_exact(dim.max(1)).collect();
        let selected: Vec<f32> = match classes {
            Some(classes) => {
                let rows = classes.iter().filter_map(|&class| rows.get(class));
                rows.flat_map(|row| row.iter().copied()).collect()
            }
            None => values.clone(),
        };
        let shape = [selected.len() / dim.max(1), dim];
        Tensor::from_data(burn::tensor::TensorData::new(selected, shape), device)
    }

    /// Returns whether each class is seen, `[classes]`.
    pub(crate) fn seen(&self) -> Vec<bool> {
        (0..self.classes())
            .map(|class| self.base.contains(&class))
            .collect()
    }

    /// Returns the offset that is subtracted from the scores of seen classes.
    fn seen_offset(&self) -> f32 {
        if self.self_training {
            0.0
        } else {
            Inference::default().seen_offset
        }
    }
}

/// Returns a configuration of prompts without dropout; the schedule replaces its depth.
pub(crate) fn prompts(tokens: usize) -> PromptConfig {
    PromptConfig {
        tokens,
        depth: PromptDepth::First(1),
        dropout: 0.0,
    }
}

/// Returns the schedule for the reference's `total_d_layer`.
///
/// 0 means shallow prompts; n > 0 means separate prompts in each of the first n + 1 blocks; a negative n means separate
/// prompts in the last |n| of the twelve blocks that the reference assumes.
pub(crate) fn schedule(depth: i64, layers: usize) -> PromptSchedule {
    let blocks = depth.unsigned_abs() as usize;
    match depth {
        ..0 => PromptSchedule::reverse(REFERENCE_REVERSE_LAYERS.saturating_sub(blocks), blocks),
        0 => PromptSchedule::new(PromptDepth::First(1), layers),
        _ => PromptSchedule::new(PromptDepth::First(blocks + 1), layers),
    }
}

/// Returns the weights that a file stores under a prefix.
pub(crate) fn stored_weights(file: &VectorFile, prefix: &str) -> StateDict {
    let mut weights = StateDict::default();
    for (name, array) in &file.tensors {
        if let Some(key) = name.strip_prefix(prefix) {
            weights.insert(key.to_owned(), array.to_host());
        }
    }
    weights
}

/// Compares the recorded activations with the file's tensors of the same names after a prefix.
pub(crate) fn compare_trace(
    check: &mut Check,
    prefix: &str,
    trace: Trace,
) -> Result<(), ParityError> {
    for (name, data) in trace.into_recorded() {
        let name = format!("{prefix}{name}");
        if check.has(&name) {
            check.compare(&name, &Array::of_data(data)?, Limit::ACTIVATION);
        }
    }
    Ok(())
}

fn compare_eval(
    check: &mut Check,
    case: &Case,
    model: &TypedModel,
    text: Tensor<2>,
) -> Result<(), ParityError> {
    let images = case.images(check, "in.image", &text.device())?;
    let mut trace = Trace::on();
    let encoded = planted_encode(check.planted(), model, images, &mut trace);
    let (grid, _) = model.decode(encoded, text, &mut trace); // [batch, classes, h, w]
    compare_trace(check, "eval.", trace)?;
    let masks = bilinear(grid, [case.image_size; 2]); // [batch, classes, size, size]
    check.compare(
        "eval.pred_masks",
        &Array::of(masks.clone())?,
        Limit::ACTIVATION,
    );
    let scores = lower_seen(activation::sigmoid(masks), &case.seen(), case.seen_offset());
    check.compare("eval.pred", &Array::of(scores)?, Limit::ACTIVATION);
    Ok(())
}

/// Compares the encoder on an image that is not square.
fn compare_other_size(
    check: &mut Check,
    case: &Case,
    model: &TypedModel,
) -> Result<(), ParityError> {
    if check.has("in.ns_image") {
        let images = case.images(check, "in.ns_image", &model.device())?;
        let mut trace = Trace::on();
        planted_encode(check.planted(), model, images, &mut trace);
        compare_trace(check, "ns.", trace)?;
    }
    Ok(())
}

fn compare_windows(
    check: &mut Check,
    case: &Case,
    model: &TypedModel,
    text: Tensor<2>,
) -> Result<(), ParityError> {
    if !check.has("in.slide_image") {
        return Ok(());
    }
    let device = text.device();
    let image = case.images(check, "in.slide_image", &device)?;
    let queries = ClassQueries::new(text, case.seen());
    let settings = Inference {
        crop: case.crop,
        stride: case.stride,
        seen_offset: case.seen_offset(),
        ..Inference::default()
    };
    let scores = score_windows(model.dense(), image, &queries, &settings)?;
    let ScoreMap {
        classes,
        height,
        width,
        ..
    } = scores;
    let averaged = Array::from_values(&[1, classes, height, width], &scores.values);
    check.compare("slide.scores_norescale", &averaged, Limit::ACTIVATION);
    let Some(tensor) = averaged.to_tensor::<4>(&device) else {
        return Ok(()); // it has four axes
    };
    let resized = Array::of(bilinear(tensor, case.original))?;
    check.compare("slide.scores", &resized, Limit::ACTIVATION);
    let [height, width] = case.original;
    let labels = scores.labels(width, height, None)?;
    if let Some(reference) = check.reference("slide.seg") {
        let found = Array::from_values(&[height, width], labels.labels());
        compare_labels(check, "slide.seg", reference, &found, &resized);
    }
    Ok(())
}

/// Compares label maps `[height, width]`; where two classes have equal scores except for rounding, either is accepted.
///
/// - `scores`: the scores behind the labels, `[1, classes, height, width]`
pub(crate) fn compare_labels(
    check: &mut Check,
    name: &str,
    reference: &Array,
    found: &Array,
    scores: &Array,
) {
    if reference.shape != found.shape {
        check.compare_value(name, reference, found, Limit::Exact);
        return;
    }
    let pixels = found.values.len();
    let score = |class: f64, pixel: usize| scores.values.get(class as usize * pixels + pixel);
    let pairs = reference.values.iter().zip(&found.values).enumerate();
    let wrong = pairs.filter(|&(pixel, (&reference, &found))| {
        let gap = score(found, pixel)
            .zip(score(reference, pixel))
            .map(|(f, r)| f - r);
        reference as u16 != found as u16 && gap.is_none_or(|gap| gap.is_nan() || gap.abs() >= TIE)
    });
    let wrong = wrong.count() as f64;
    check.measured(name, Limit::Exact, wrong, found.clone());
}

/// Compares the text tower that is stored with the model.
fn compare_text(check: &mut Check, case: &Case, device: &Device) -> Result<(), ParityError> {
    let Some(features) = check.reference("text.features") else {
        return Ok(());
    };
    let mut ids = token_rows(check.input("in.text_ids")?);
    let start = ids.first().and_then(|ids| ids.first()).copied();
    let config = TextConfig::from_weights(&case.weights, TEXT_TOWER)
        .ok_or_else(|| check.tensor_error("state.text_encoder.*", "contain no text tower"))?;
    // No tensor's shape shows the number of heads. If the description does not give it, the divisor of the width that
    // reproduces the features is used; no divisor reproduces them unless everything else is correct.
    let candidates: Vec<usize> = match case.text_heads {
        Some(heads) => vec![heads],
        None => (1..=config.width)
            .filter(|n| config.width.is_multiple_of(*n))
            .collect(),
    };
    let mut weights = case.weights.clone();
    if let Some(error) = check.planted() {
        error.alter_texts(&mut ids);
        let heads = candidates.first().copied().unwrap_or(1);
        error.alter_text_weights(&mut weights, TEXT_TOWER, start.unwrap_or(0), heads)?;
    }
    let mut best: Option<(f64, usize, Tensor<2>)> = None;
    for heads in candidates {
        let config = TextConfig {
            heads,
            ..config.clone()
        };
        let frozen = |_: &str| false;
        let params = ParamBuilder::new(&weights, device, 0, &frozen);
        let tower = TextTower::build(&params.at(TEXT_TOWER.trim_end_matches('.')), &config)?;
        let found = tower.forward(&ids, &mut Trace::off());
        let values = Array::of(found.clone())?.values;
        let distance: f64 = values
            .iter()
            .zip(&features.values)
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        if best.as_ref().is_none_or(|(least, ..)| distance < *least) {
            best = Some((distance, heads, found));
        }
    }
    if let Some((_, heads, found)) = best {
        if case.text_heads.is_none() {
            check.note(format!(
                "the description does not give the number of heads of the text tower; {heads} heads reproduce its features"
            ));
        }
        check.compare(
            "text.features",
            &Array::of(found.clone())?,
            Limit::ACTIVATION,
        );
        check.compare(
            "text.normalized",
            &Array::of(l2_normalize(found))?,
            Limit::ACTIVATION,
        );
    }
    Ok(())
}

fn text_heads(config: &Meta) -> Result<Option<usize>, ParityError> {
    let entry = ["text_heads", "theads", "t_heads"]
        .iter()
        .find_map(|name| config.find(name));
    entry.map(|heads| heads.count()).transpose()
}

/// Returns the rows of token ids `[texts, length]`.
pub(crate) fn token_rows(ids: &Array) -> Vec<Vec<u32>> {
    let length = ids.shape.last().copied().unwrap_or(1).max(1);
    ids.to_u32()
        .chunks_exact(length)
        .map(<[u32]>::to_vec)
        .collect()
}

/// Returns the shapes of the parameters by name.
pub(crate) fn shapes(model: &TypedModel) -> BTreeMap<String, Vec<usize>> {
    zeg_model::params::list_params(model, |_| false)
        .into_iter()
        .map(|info| (info.name, info.shape))
        .collect()
}
