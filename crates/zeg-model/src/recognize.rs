//! Determines what a weight file holds, from the names and shapes of its tensors.

use std::sync::Arc;

use zeg_image::normalize::Normalization;

use crate::{
    ModelError,
    config::{Activation, HeadConfig, PromptConfig, PromptDepth, TextConfig, VisionConfig},
    layers::LAYER_NORM_EPSILON,
    method::{Architecture as MethodArchitecture, Method, PlainTower},
    methods::Methods,
    weights::{Architecture, StateDict},
};

/// Prefix of the image tower's tensors.
const IMAGE_TOWER: &str = "backbone.";
/// A tensor that every text tower has.
const TOKEN_TABLE: &str = "text_encoder.token_embedding.weight";
/// A tensor that every residual image tower of CLIP has.
const RESIDUAL_TOWER: &str = "backbone.layer1.0.conv1.weight";
/// Most blocks of a transformer that are counted.
const MOST_LAYERS: usize = 128;

/// A model that is completely determined by its weights.
#[derive(Debug, Clone)]
pub enum Recognized {
    /// CLIP's image tower, used without further training.
    Clip(PlainTower),
    /// A released checkpoint of a method that is trained on masks.
    Trained(Arc<dyn MethodArchitecture>),
}

impl Recognized {
    /// Determines which released checkpoint of a method that is trained on masks the weights hold; `None` for other weights,
    /// such as plain CLIP or a text tower alone.
    ///
    /// # Errors
    /// Returns an error if the weights belong to a method but are inconsistent.
    pub fn trained(
        weights: &StateDict,
        methods: &Methods,
    ) -> Result<Option<Arc<dyn MethodArchitecture>>, ModelError> {
        for method in methods.iter() {
            if let Some(found) = method.recognize(weights)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Determines which model the weights hold.
    ///
    /// # Errors
    /// Returns an error if there is no image tower, or the decoder head belongs to an unknown method.
    pub fn from_weights(weights: &StateDict, methods: &Methods) -> Result<Self, ModelError> {
        if let Some(found) = Self::trained(weights, methods)? {
            return Ok(Self::Trained(found));
        }
        let architecture = architecture(weights)?;
        let encoder = vision_config(weights, &architecture)?;
        if weights.keys().any(|key| key.starts_with("decode_head.")) {
            let known: Vec<_> = methods.iter().map(Method::title).collect();
            return Err(ModelError::Config(format!(
                "{}: holds the decoder head of an unknown method; known methods: {}",
                weights.origin(),
                known.join(", ")
            )));
        }
        Ok(Self::Clip(PlainTower {
            encoder: VisionConfig {
                double_class_embedding: false,
                ..encoder
            },
            normalization: normalization(&architecture),
        }))
    }
}

/// Returns the image tower under `backbone.`, with the prompts that the weights hold, and with the class embedding
/// added twice.
///
/// # Errors
/// Returns an error if there is no image tower, or its tensors are inconsistent.
pub(crate) fn prompted_tower(weights: &StateDict) -> Result<VisionConfig, ModelError> {
    Ok(VisionConfig {
        prompts: prompts(weights),
        ..vision_config(weights, &architecture(weights)?)?
    })
}

/// Returns the head whose (query) decoder has the prefix `decoder`; `None` if there is none.
pub(crate) fn decoder_head(weights: &StateDict, decoder: &str) -> Option<HeadConfig> {
    let layer = |i| format!("{decoder}layers.{i}.linear1.weight");
    let feed_forward = *weights.shape(&layer(0))?.first()?;
    weights
        .contains("decode_head.q_proj.weight")
        .then(|| HeadConfig {
            layers: count(layer, weights),
            feed_forward,
            ..HeadConfig::default()
        })
}

/// Returns the image tower under `backbone.`, with the class embedding added twice.
fn vision_config(
    weights: &StateDict,
    architecture: &Architecture,
) -> Result<VisionConfig, ModelError> {
    let missing = |name: &str| ModelError::MissingTensor {
        key: format!("{IMAGE_TOWER}{name}"),
        origin: weights.origin(),
    };
    let none = || {
        if weights.contains(RESIDUAL_TOWER) {
            ModelError::Config(format!(
                "{}: the image tower is a residual network; it can only guide a training",
                weights.origin()
            ))
        } else {
            missing("conv1.weight")
        }
    };
    let shape = architecture.vision.as_ref().ok_or_else(none)?;
    let config = VisionConfig {
        patch: shape.patch,
        width: shape.width,
        layers: shape.layers,
        heads: shape.heads,
        embed_dim: shape.embed_dim.ok_or_else(|| missing("proj"))?,
        input_resolution: shape.input_resolution,
        double_class_embedding: true,
        activation: architecture.activation.into(),
        prompts: None,
        regions: None,
    };
    config.check()?;
    Ok(config)
}

/// Returns the text tower under `text_encoder.`; `None` if there is none that projects into the joint space.
///
/// # Errors
/// Returns an error if the files are inconsistent.
pub fn text_config(weights: &StateDict) -> Result<Option<TextConfig>, ModelError> {
    if !weights.contains(TOKEN_TABLE) {
        return Ok(None);
    }
    let architecture = architecture(weights)?;
    let Some(shape) = architecture.text else {
        return Ok(None);
    };
    Ok(shape.embed_dim.map(|embed_dim| TextConfig {
        width: shape.width,
        layers: shape.layers,
        heads: shape.heads,
        embed_dim,
        context_length: shape.context_length,
        vocabulary: shape.vocabulary,
        activation: architecture.activation.into(),
    }))
}

/// Returns the architecture that the weights and the files beside them state.
fn architecture(weights: &StateDict) -> Result<Architecture, ModelError> {
    let architecture = Architecture::infer(weights)?;
    if (architecture.layer_norm_epsilon - LAYER_NORM_EPSILON).abs() > f64::EPSILON {
        return Err(ModelError::Config(format!(
            "{}: LayerNorm epsilon {}; only CLIP's epsilon, {LAYER_NORM_EPSILON}, is supported",
            weights.origin(),
            architecture.layer_norm_epsilon
        )));
    }
    Ok(architecture)
}

/// Returns the normalisation of images that the files state, or CLIP's own statistics if they state none.
fn normalization(architecture: &Architecture) -> Normalization {
    match (architecture.image_mean, architecture.image_std) {
        (Some(mean), Some(std)) => Normalization {
            mean: mean.map(|value| value * 255.0),
            std: std.map(|value| value * 255.0),
        },
        _ => Normalization::CLIP,
    }
}

impl From<crate::weights::StatedActivation> for Activation {
    fn from(activation: crate::weights::StatedActivation) -> Self {
        match activation {
            crate::weights::StatedActivation::QuickGelu => Self::QuickGelu,
            crate::weights::StatedActivation::Gelu => Self::Gelu,
        }
    }
}

impl From<Activation> for crate::weights::StatedActivation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::QuickGelu => Self::QuickGelu,
            Activation::Gelu => Self::Gelu,
        }
    }
}

/// Counts the numbered names that exist, from 0 on without a gap.
fn count(name: impl Fn(usize) -> String, weights: &StateDict) -> usize {
    (0..MOST_LAYERS)
        .take_while(|&i| weights.contains(&name(i)))
        .count()
}

/// Returns the prompts that a checkpoint holds: a table for the first block, and a row for every further block.
fn prompts(weights: &StateDict) -> Option<PromptConfig> {
    let first = weights.shape(&format!("{IMAGE_TOWER}prompt_embeddings"));
    let deep = weights.shape(&format!("{IMAGE_TOWER}deep_prompt_embeddings"));
    let tokens = *first.as_ref().or(deep.as_ref())?.get(1)?;
    let rows = deep.map_or(0, |shape| shape.first().copied().unwrap_or(0));
    let depth = match first {
        Some(_) => PromptDepth::First(rows + 1),
        None => PromptDepth::Last(rows),
    };
    Some(PromptConfig {
        tokens,
        depth,
        dropout: 0.0,
    })
}
