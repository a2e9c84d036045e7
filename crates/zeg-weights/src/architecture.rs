//! Infers the architecture of a CLIP model from the shapes of its tensors and from configuration files.
//!
//! The shapes determine everything except the number of attention heads, the activation, the epsilon of LayerNorm, and
//! the statistics that images are normalised with. In every released CLIP a head has 64 channels, and OpenAI's
//! activation is QuickGELU. Other values are stated in `config.json` (Hugging Face) or `open_clip_config.json` beside
//! the weights (module `side_files`). The metadata in files that `zeg` has written take precedence over both.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{StateDict, WeightsError, side_files::SideFiles, state_dict::Opened};

/// Metadata key of an imported file whose value is its architecture, as JSON.
pub const ARCHITECTURE_KEY: &str = "zeg.architecture";
/// Number of channels of a head in every released CLIP.
const HEAD_WIDTH: usize = 64;
/// Width of an MLP's hidden layer, as a multiple of the token width.
const MLP_RATIO: usize = 4;
/// Epsilon of LayerNorm in OpenAI's CLIP.
const LAYER_NORM_EPSILON: f64 = 1e-5;
/// The largest legal value of any size of a model.
const MOST: usize = 1 << 24;

/// The activation function in a block's MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StatedActivation {
    /// x · sigmoid(1.702 x): OpenAI's models and those derived from them.
    QuickGelu,
    /// GELU with the error function: most models trained with open_clip.
    Gelu,
}

/// Whether a value is stated in a file or assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// A file states the value.
    Stated,
    /// No file states the value, so that of OpenAI's models is assumed.
    Assumed,
}

/// The sizes of the image tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all(deserialize = "kebab-case"), deny_unknown_fields)]
pub struct VisionShape {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Number of channels of a token.
    pub width: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Number of channels of the joint embedding space; `None` if the projection is not in the file.
    #[serde(alias = "embed_dim")]
    pub embed_dim: Option<usize>,
    /// Side in pixels of the square images that the positional embedding is made for.
    #[serde(alias = "input_resolution")]
    pub input_resolution: usize,
}

/// The sizes of the text tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all(deserialize = "kebab-case"), deny_unknown_fields)]
pub struct TextShape {
    /// Number of channels of a token.
    pub width: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Number of channels of the joint embedding space; `None` if the projection is not in the file.
    #[serde(alias = "embed_dim")]
    pub embed_dim: Option<usize>,
    /// Number of tokens of the longest text.
    #[serde(alias = "context_length")]
    pub context_length: usize,
    /// Number of token ids.
    pub vocabulary: usize,
}

/// The architecture of a CLIP model, as far as its files state it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all(deserialize = "kebab-case"), deny_unknown_fields)]
pub struct Architecture {
    /// The image tower, if there is one.
    pub vision: Option<VisionShape>,
    /// The text tower, if there is one.
    pub text: Option<TextShape>,
    /// The activation function of both towers.
    pub activation: StatedActivation,
    /// Whether the activation is stated or assumed.
    #[serde(alias = "activation_basis")]
    pub activation_basis: Basis,
    /// Epsilon of every LayerNorm.
    #[serde(alias = "layer_norm_epsilon")]
    pub layer_norm_epsilon: f64,
    /// Mean of red, green and blue in units of 0..=1, if stated.
    #[serde(alias = "image_mean")]
    pub image_mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue in units of 0..=1, if stated.
    #[serde(alias = "image_std")]
    pub image_std: Option<[f32; 3]>,
}

impl Architecture {
    /// Infers the architecture of opened weights.
    ///
    /// # Errors
    /// Returns an error if a tower does not have CLIP's form, if a configuration file contradicts the tensors or states
    /// something that `zeg` does not support, or if the number of heads is unknown.
    pub fn infer(weights: &StateDict) -> Result<Self, WeightsError> {
        let stated = stated(weights)?;
        let activation = weights.activation().or(stated.activation);
        let (vision, text) = (vision(weights, &stated)?, text(weights, &stated)?);
        Ok(Self {
            vision,
            text,
            activation: activation.unwrap_or(StatedActivation::QuickGelu),
            activation_basis: match activation {
                Some(_) => Basis::Stated,
                None => Basis::Assumed,
            },
            layer_norm_epsilon: stated.layer_norm_epsilon.unwrap_or(LAYER_NORM_EPSILON),
            image_mean: stated.image_mean,
            image_std: stated.image_std,
        })
    }

    /// Returns the activation that the user, the metadata or a configuration file beside the weights states; `None` if
    /// nothing states it.
    ///
    /// # Errors
    /// Returns an error if the metadata or a configuration file cannot be read, or states an activation that is not
    /// supported.
    pub fn stated_activation(
        weights: &StateDict,
    ) -> Result<Option<StatedActivation>, WeightsError> {
        match weights.activation() {
            Some(activation) => Ok(Some(activation)),
            None => Ok(stated(weights)?.activation),
        }
    }
}

/// Returns the statements of the metadata of an imported file, or of the configuration files beside the weights.
fn stated(weights: &StateDict) -> Result<SideFiles, WeightsError> {
    // The metadata of an imported file state everything, and they are compared with the tensors all the same.
    let own = weights
        .metadata()
        .get(ARCHITECTURE_KEY)
        .map(|json| {
            serde_json::from_str::<Architecture>(json).map_err(|error| {
                unsupported(weights, format!("metadata {ARCHITECTURE_KEY:?}: {error}"))
            })
        })
        .transpose()?;
    let mut stated = match own {
        Some(own) => SideFiles::of_architecture(&own),
        None => SideFiles::default(),
    };
    let folders = weights.opened().iter().rev();
    for opened in folders.filter(|_| !weights.metadata().contains_key(ARCHITECTURE_KEY)) {
        stated = SideFiles::beside(opened)?;
        if stated != SideFiles::default() {
            break;
        }
    }
    Ok(stated)
}

fn unsupported(weights: &StateDict, reason: impl Into<String>) -> WeightsError {
    let path = weights
        .opened()
        .last()
        .map(|opened: &Opened| opened.path.clone());
    WeightsError::Unsupported {
        path: path.unwrap_or_else(|| weights.origin().into()),
        reason: reason.into(),
    }
}

fn vision(weights: &StateDict, stated: &SideFiles) -> Result<Option<VisionShape>, WeightsError> {
    let refuse = |reason: String| unsupported(weights, format!("image tower: {reason}"));
    let Some(conv) = weights.shape("backbone.conv1.weight") else {
        return Ok(None);
    };
    let [width, 3, patch, other] = conv[..] else {
        return Err(refuse(format!(
            "the patch embedding has shape {conv:?}, expected [width, 3, patch, patch]"
        )));
    };
    if patch != other || patch == 0 || width == 0 {
        return Err(refuse(format!(
            "the patches have {patch}×{other} pixels and the tokens {width} channels; patches must be square, and no \
             size may be 0"
        )));
    }
    let Some([positions, of_positions]) = matrix(weights, "backbone.positional_embedding") else {
        return Err(refuse("the positional embedding is missing".into()));
    };
    let side = positions.saturating_sub(1).isqrt();
    if of_positions != width || side == 0 || side * side != positions - 1 {
        return Err(refuse(format!(
            "the positional embedding has shape [{positions}, {of_positions}], expected [1 + side², {width}]"
        )));
    }
    let layers = blocks(weights, "backbone.")?;
    let embed_dim = projection(weights, "backbone.proj", width)?;
    let heads = heads(weights, "image tower", width, stated.vision_heads)?;
    let shape = VisionShape {
        patch,
        width,
        layers,
        heads,
        embed_dim,
        input_resolution: side.saturating_mul(patch),
    };
    let facts = [
        ("patch size", stated.patch, Some(patch)),
        ("width", stated.vision_width, Some(width)),
        ("number of layers", stated.vision_layers, Some(layers)),
        ("embedding width", stated.embed_dim, embed_dim),
        // The resolution is not compared: positional embeddings are often resized, and the tensor is what counts.
    ];
    agree(weights, stated, "image tower", &facts)?;
    bounded(
        weights,
        &[patch, width, layers, heads, shape.input_resolution],
    )?;
    Ok(Some(shape))
}

fn text(weights: &StateDict, stated: &SideFiles) -> Result<Option<TextShape>, WeightsError> {
    let refuse = |reason: String| unsupported(weights, format!("text tower: {reason}"));
    let Some([vocabulary, width]) = matrix(weights, "text_encoder.token_embedding.weight") else {
        return Ok(None);
    };
    let Some([context_length, of_positions]) = matrix(weights, "text_encoder.positional_embedding")
    else {
        return Err(refuse("the positional embedding is missing".into()));
    };
    if of_positions != width || width == 0 {
        return Err(refuse(format!(
            "the positional embedding has {of_positions} channels and the token embedding {width}; they must be equal"
        )));
    }
    let layers = blocks(weights, "text_encoder.")?;
    let embed_dim = projection(weights, "text_encoder.text_projection", width)?;
    let heads = heads(weights, "text tower", width, stated.text_heads)?;
    let facts = [
        ("width", stated.text_width, Some(width)),
        ("number of layers", stated.text_layers, Some(layers)),
        (
            "context length",
            stated.context_length,
            Some(context_length),
        ),
        ("vocabulary", stated.vocabulary, Some(vocabulary)),
        ("embedding width", stated.embed_dim, embed_dim),
    ];
    agree(weights, stated, "text tower", &facts)?;
    bounded(weights, &[width, layers, heads, context_length, vocabulary])?;
    Ok(Some(TextShape {
        width,
        layers,
        heads,
        embed_dim,
        context_length,
        vocabulary,
    }))
}

fn matrix(weights: &StateDict, key: &str) -> Option<[usize; 2]> {
    weights.shape(key)?.try_into().ok()
}

/// Returns the number of blocks of a tower, which must be numbered from 0 without gaps.
fn blocks(weights: &StateDict, tower: &str) -> Result<usize, WeightsError> {
    let prefix = format!("{tower}transformer.resblocks.");
    let numbers: BTreeSet<usize> = weights
        .keys()
        .filter_map(|key| key.strip_prefix(&prefix)?.split('.').next()?.parse().ok())
        .collect();
    let missing = (0..).zip(&numbers).find(|(i, number)| i != *number);
    let ratio = weights
        .shape(&format!("{prefix}0.mlp.c_fc.weight"))
        .filter(|shape| shape.len() != 2 || shape[0] != shape[1].saturating_mul(MLP_RATIO));
    if let Some(shape) = ratio {
        return Err(unsupported(
            weights,
            format!(
                "the MLPs of {tower:?} have shape {shape:?}; in CLIP they are {MLP_RATIO} times as wide as the tokens"
            ),
        ));
    }
    match missing {
        Some((i, _)) => Err(unsupported(
            weights,
            format!("block {i} of {tower:?} is missing"),
        )),
        None if numbers.is_empty() => Err(unsupported(weights, format!("{tower:?} has no blocks"))),
        None => Ok(numbers.len()),
    }
}

/// Returns the number of columns of the projection to the joint embedding space, `[width, embed_dim]`.
fn projection(weights: &StateDict, key: &str, width: usize) -> Result<Option<usize>, WeightsError> {
    match weights.shape(key).as_deref() {
        None => Ok(None),
        Some(&[rows, columns]) if rows == width && columns > 0 => Ok(Some(columns)),
        Some(shape) => Err(unsupported(
            weights,
            format!("{key:?} has shape {shape:?}, expected [{width}, embedding width]"),
        )),
    }
}

fn heads(
    weights: &StateDict,
    tower: &str,
    width: usize,
    stated: Option<usize>,
) -> Result<usize, WeightsError> {
    let heads = stated.unwrap_or(width / HEAD_WIDTH);
    if heads == 0
        || !width.is_multiple_of(heads)
        || (stated.is_none() && !width.is_multiple_of(HEAD_WIDTH))
    {
        let why = match stated {
            Some(heads) => format!("they cannot be split among the stated {heads} heads"),
            None => format!(
                "they cannot be split into heads of {HEAD_WIDTH} channels, and no configuration file states the \
                 number of heads"
            ),
        };
        return Err(unsupported(
            weights,
            format!("{tower}: the tokens have {width} channels; {why}"),
        ));
    }
    Ok(heads)
}

/// Compares the statements of the configuration files with the tensors.
fn agree(
    weights: &StateDict,
    stated: &SideFiles,
    tower: &str,
    facts: &[(&str, Option<usize>, Option<usize>)],
) -> Result<(), WeightsError> {
    for (name, stated_value, found) in facts {
        if let (Some(stated_value), Some(found)) = (stated_value, found)
            && stated_value != found
        {
            return Err(unsupported(
                weights,
                format!(
                    "{tower}: the {name} is {found}, but {} states {stated_value}",
                    stated.origin
                ),
            ));
        }
    }
    Ok(())
}

fn bounded(weights: &StateDict, sizes: &[usize]) -> Result<(), WeightsError> {
    match sizes.iter().find(|size| **size > MOST) {
        Some(size) => Err(unsupported(
            weights,
            format!("a size of the model is {size}; the limit is {MOST}"),
        )),
        None => Ok(()),
    }
}
