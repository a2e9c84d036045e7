//! Reads the sizes of both towers from the shapes of their tensors, and compares them with what files state.

use std::{collections::BTreeSet, path::PathBuf};

use crate::{
    StateDict, WeightsError,
    architecture::{Basis, TextShape, VisionShape},
    published::{HEAD_WIDTH, assumed_image_heads, assumed_text_heads},
    side_files::SideFiles,
    state_dict::Opened,
};

/// Width of an MLP's hidden layer, as a multiple of the token width.
const MLP_RATIO: usize = 4;
/// The largest legal value of any size of a model.
const MOST: usize = 1 << 24;

/// A tensor that every residual image tower of CLIP has.
const RESIDUAL_TOWER: &str = "backbone.layer1.0.conv1.weight";

/// Returns the path of the file opened last, for messages.
fn path_of(weights: &StateDict) -> PathBuf {
    let path = weights
        .opened()
        .last()
        .map(|opened: &Opened| opened.path.clone());
    path.unwrap_or_else(|| weights.origin().into())
}

/// Returns the error for weights that `zeg` does not support.
pub(crate) fn unsupported(weights: &StateDict, reason: impl Into<String>) -> WeightsError {
    WeightsError::Unsupported {
        path: path_of(weights),
        reason: reason.into(),
    }
}

/// Returns the sizes of the image tower; `None` if there is none.
pub(crate) fn vision(
    weights: &StateDict,
    stated: &SideFiles,
) -> Result<Option<VisionShape>, WeightsError> {
    let refuse = |reason: String| unsupported(weights, format!("image tower: {reason}"));
    // The residual towers of CLIP have other sizes; methods that use one read them themselves.
    if weights.contains(RESIDUAL_TOWER) {
        return Ok(None);
    }
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
    let (heads, heads_basis) = Heads {
        tower: "image tower",
        width,
        stated: weights.heads().image.or(stated.vision_heads),
        usual: assumed_image_heads(width),
    }
    .number(weights)?;
    let shape = VisionShape {
        patch,
        width,
        layers,
        heads,
        heads_basis,
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

/// Returns the sizes of the text tower; `None` if there is none.
pub(crate) fn text(
    weights: &StateDict,
    stated: &SideFiles,
) -> Result<Option<TextShape>, WeightsError> {
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
    let (heads, heads_basis) = Heads {
        tower: "text tower",
        width,
        stated: weights.heads().text.or(stated.text_heads),
        usual: assumed_text_heads(width),
    }
    .number(weights)?;
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
        heads_basis,
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

/// What is known about the attention heads of a tower.
struct Heads {
    /// Name of the tower, for messages.
    tower: &'static str,
    /// Number of channels of a token.
    width: usize,
    /// The number that the user or a file states.
    stated: Option<usize>,
    /// The number to assume.
    usual: Option<usize>,
}

impl Heads {
    /// Returns the number of heads, and whether it is stated.
    fn number(&self, weights: &StateDict) -> Result<(usize, Basis), WeightsError> {
        let (tower, width) = (self.tower, self.width);
        match (self.stated, self.usual) {
            (Some(heads), _) if heads == 0 || !width.is_multiple_of(heads) => Err(unsupported(
                weights,
                format!(
                    "{tower}: the tokens have {width} channels; they cannot be split among the stated {heads} heads"
                ),
            )),
            (Some(heads), _) => Ok((heads, Basis::Stated)),
            (None, Some(heads)) => Ok((heads, Basis::Assumed)),
            (None, None) => Err(WeightsError::UnknownHeads {
                path: path_of(weights),
                tower,
                width,
                usual_width: HEAD_WIDTH,
            }),
        }
    }
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
