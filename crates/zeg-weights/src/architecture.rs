//! The architecture of a CLIP model: what its tensors' shapes say, and what the files beside it add.
//!
//! Shapes tell everything but the number of attention heads, the activation, and how images were normalised. CLIP's
//! heads are 64 wide in every released model, and OpenAI's activation is QuickGELU; files that state otherwise do so
//! in `config.json` (Hugging Face) or `open_clip_config.json` beside the weights (module `side_files`).
//! Metadata that `zeg` wrote into its own files come before both.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{StateDict, WeightsError, side_files::SideFiles, state_dict::Opened};

/// Metadata key of an imported file under which its architecture stands, as JSON.
pub const ARCHITECTURE_KEY: &str = "zeg.architecture";
/// Channels of a head in every released CLIP.
const HEAD_WIDTH: usize = 64;
/// Width of an MLP's inner layer in widths of a token.
const MLP_RATIO: usize = 4;
/// Epsilon of LayerNorm in OpenAI's CLIP.
const LAYER_NORM_EPSILON: f64 = 1e-5;
/// Most that any size of a model may be.
const MOST: usize = 1 << 24;

/// The nonlinearity in a block's MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StatedActivation {
    /// x · sigmoid(1.702 x): OpenAI's models and those derived from them.
    QuickGelu,
    /// GELU with the error function: most models trained with open_clip.
    Gelu,
}

/// Whether a file says so, or it was not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// A file says so.
    Stated,
    /// No file says; taken from OpenAI's models.
    Assumed,
}

/// Shape of the image tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct VisionShape {
    /// Pixels of a patch's side.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels of the joint space with text; `None` where the projection is not in the file.
    pub embed_dim: Option<usize>,
    /// Pixels of the side of the square images that the position table stands for.
    pub input_resolution: usize,
}

/// Shape of the text tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TextShape {
    /// Channels of a token.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels of the joint space with images; `None` where the projection is not in the file.
    pub embed_dim: Option<usize>,
    /// Tokens of the longest text.
    pub context_length: usize,
    /// Number of token ids.
    pub vocabulary: usize,
}

/// A CLIP model, as far as its files tell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Architecture {
    /// The image tower, where there is one.
    pub vision: Option<VisionShape>,
    /// The text tower, where there is one.
    pub text: Option<TextShape>,
    /// Nonlinearity of both towers.
    pub activation: StatedActivation,
    /// Whether the activation is stated.
    pub activation_basis: Basis,
    /// Epsilon of every LayerNorm.
    pub layer_norm_epsilon: f64,
    /// Mean of the images' red, green and blue, 0 to 1, where it is stated.
    pub image_mean: Option<[f32; 3]>,
    /// Standard deviation of the images' red, green and blue, 0 to 1, where it is stated.
    pub image_std: Option<[f32; 3]>,
}

impl Architecture {
    /// The architecture of opened weights.
    ///
    /// # Errors
    /// The towers are none of CLIP's, the files beside contradict the tensors or state what `zeg` does not compute,
    /// or nothing says how many heads there are.
    pub fn infer(weights: &StateDict) -> Result<Self, WeightsError> {
        // Our own files say it all; what they say must fit all the same.
        let own = weights
            .metadata()
            .get(ARCHITECTURE_KEY)
            .map(|json| {
                serde_json::from_str::<Self>(json).map_err(|error| {
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
        let (vision, text) = (vision(weights, &stated)?, text(weights, &stated)?);
        Ok(Self {
            vision,
            text,
            activation: stated.activation.unwrap_or(StatedActivation::QuickGelu),
            activation_basis: match stated.activation {
                Some(_) => Basis::Stated,
                None => Basis::Assumed,
            },
            layer_norm_epsilon: stated.layer_norm_epsilon.unwrap_or(LAYER_NORM_EPSILON),
            image_mean: stated.image_mean,
            image_std: stated.image_std,
        })
    }
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
    let wrong = |reason: String| unsupported(weights, format!("image tower: {reason}"));
    let Some(conv) = weights.shape("backbone.conv1.weight") else {
        return Ok(None);
    };
    let [width, 3, patch, other] = conv[..] else {
        return Err(wrong(format!(
            "its first layer has shape {conv:?}, not [width, 3, patch, patch]"
        )));
    };
    if patch != other || patch == 0 || width == 0 {
        return Err(wrong(format!("its patches have {patch}×{other} pixels")));
    }
    let Some([positions, of_positions]) = matrix(weights, "backbone.positional_embedding") else {
        return Err(wrong("it has no position table".into()));
    };
    let side = positions.saturating_sub(1).isqrt();
    if of_positions != width || side == 0 || side * side != positions - 1 {
        return Err(wrong(format!(
            "its position table has shape [{positions}, {of_positions}], not [1 + side², {width}]"
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
        // Position tables are resized between resolutions, by us and by others: what counts is the table.
    ];
    agree(weights, stated, "image tower", &facts)?;
    bounded(
        weights,
        &[patch, width, layers, heads, shape.input_resolution],
    )?;
    Ok(Some(shape))
}

fn text(weights: &StateDict, stated: &SideFiles) -> Result<Option<TextShape>, WeightsError> {
    let wrong = |reason: String| unsupported(weights, format!("text tower: {reason}"));
    let Some([vocabulary, width]) = matrix(weights, "text_encoder.token_embedding.weight") else {
        return Ok(None);
    };
    let Some([context_length, of_positions]) = matrix(weights, "text_encoder.positional_embedding")
    else {
        return Err(wrong("it has no position table".into()));
    };
    if of_positions != width || width == 0 {
        return Err(wrong(format!(
            "its position table has width {of_positions}, its tokens {width}"
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

/// Number of blocks of a tower, which count from 0 without gaps.
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
                "the MLPs of {tower:?} have shape {shape:?}; CLIP's are {MLP_RATIO} times as wide as its tokens"
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

/// Columns of the projection to the joint space, `[width, embed_dim]`.
fn projection(weights: &StateDict, key: &str, width: usize) -> Result<Option<usize>, WeightsError> {
    match weights.shape(key).as_deref() {
        None => Ok(None),
        Some(&[rows, columns]) if rows == width && columns > 0 => Ok(Some(columns)),
        Some(shape) => Err(unsupported(
            weights,
            format!("{key:?} has shape {shape:?}, not [{width}, embedding width]"),
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
            Some(heads) => format!("{heads} heads are stated"),
            None => format!(
                "CLIP's heads have {HEAD_WIDTH} channels, and no file beside says otherwise"
            ),
        };
        return Err(unsupported(
            weights,
            format!("{tower} of {width} channels: {why}"),
        ));
    }
    Ok(heads)
}

/// Compares what the files beside state with what the tensors have.
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
                    "{tower}: {name} is {found}, but {} states {stated_value}",
                    stated.origin
                ),
            ));
        }
    }
    Ok(())
}

fn bounded(weights: &StateDict, sizes: &[usize]) -> Result<(), WeightsError> {
    match sizes.iter().find(|size| **size > MOST) {
        Some(size) => Err(unsupported(weights, format!("a size of {size}"))),
        None => Ok(()),
    }
}
