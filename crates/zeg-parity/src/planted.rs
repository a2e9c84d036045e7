//! Defines the errors that tests plant into a computation, to see that the comparison finds them.
//!
//! They change the inputs of the computation (weights, images, labels, terms of the loss), so that all later results
//! follow as they would from an error in the code. Errors of single results, such as one NaN, are planted by the tests
//! themselves between computation and judgement.

use burn::tensor::Tensor;
use zeg_model::{
    trace::Trace,
    vision::Encoded,
    weights::{HostTensor, StateDict},
};

use super::{ParityError, array::Array, typed::TypedModel};

/// Factor of [`PlantedError::ScaledWeight`].
const SCALE: f32 = 1.0 + 1e-3;

/// An error that is planted into a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedError {
    /// The first weight, in the order of names, whose name contains this text is multiplied by 1.001.
    ScaledWeight(&'static str),
    /// The first patch of every image, or the first token of every text, is 0.
    ZeroedToken,
    /// The value projections of the first two heads of the first attention, in the order of names, are exchanged.
    SwappedHeads,
    /// The loss term of this name is left out of the sum that the gradients are computed from.
    MissingTerm(&'static str),
    /// Two neighbouring tokens use each other's attention mask: region tokens, or the second and third token of a text.
    WrongAttentionMask,
    /// Unlabelled pixels have the first class, or the first pixel of every mask is inverted.
    WrongLabelMask,
}

impl PlantedError {
    /// Alters weights before a model is built from them.
    ///
    /// - `heads`: number of heads of the first attention
    pub(crate) fn alter_weights(
        self,
        weights: &mut StateDict,
        heads: usize,
    ) -> Result<(), ParityError> {
        match self {
            Self::ScaledWeight(part) => change(weights, part, |tensor| {
                tensor.values.iter_mut().for_each(|value| *value *= SCALE);
            }),
            Self::SwappedHeads => {
                change(weights, "attn.in_proj_weight", |t| swap_values(t, heads))?;
                change(weights, "attn.v_proj_weight", |t| swap_heads(t, heads))?;
                change(weights, "attn.in_proj_bias", |t| swap_values(t, heads))
            }
            Self::WrongAttentionMask => change(weights, "region_level_bridge", |t| swap_rows(t, 0)),
            Self::ZeroedToken | Self::MissingTerm(_) | Self::WrongLabelMask => Ok(()),
        }
    }

    /// Alters the weights of a text encoder.
    ///
    /// - `prefix`: prefix of the encoder's parameter names
    /// - `start`: id of the first token of every text
    pub(crate) fn alter_text_weights(
        self,
        weights: &mut StateDict,
        prefix: &str,
        start: u32,
        heads: usize,
    ) -> Result<(), ParityError> {
        let positions = format!("{prefix}positional_embedding");
        match self {
            Self::ZeroedToken => {
                change(weights, &positions, |t| zero_row(t, 0))?;
                let table = format!("{prefix}token_embedding.weight");
                change(weights, &table, |t| zero_row(t, start as usize))
            }
            Self::WrongAttentionMask => change(weights, &positions, |t| swap_rows(t, 1)),
            _ => self.alter_weights(weights, heads),
        }
    }

    /// Alters the first mask query of a mask transformer, which is a token of its decoder.
    pub(crate) fn alter_mask_queries(self, weights: &mut StateDict) -> Result<(), ParityError> {
        match self {
            Self::ZeroedToken => change(weights, "query_embed.weight", |t| zero_row(t, 0)),
            _ => Ok(()),
        }
    }

    /// Alters the class token of an image encoder.
    pub(crate) fn alter_class_token(self, weights: &mut StateDict) -> Result<(), ParityError> {
        match self {
            Self::ZeroedToken => {
                change(weights, "class_embedding", |t| t.values.fill(0.0))?;
                change(weights, "visual.positional_embedding", |t| zero_row(t, 0))?;
                change(weights, "backbone.positional_embedding", |t| zero_row(t, 0))
            }
            _ => Ok(()),
        }
    }

    /// Alters masks `[height, width]`: the first value of each is inverted.
    pub(crate) fn alter_masks<'a, T: Copy + PartialEq + 'a>(
        self,
        masks: impl Iterator<Item = &'a mut [T]>,
        [out, within]: [T; 2],
    ) {
        if self == Self::WrongLabelMask {
            for value in masks.filter_map(<[T]>::first_mut) {
                *value = if *value == out { within } else { out };
            }
        }
    }

    /// Alters texts by exchanging two tokens.
    ///
    /// Because [`PlantedError::alter_text_weights`] exchanges their positions too, only what they may attend to
    /// differs.
    pub(crate) fn alter_texts(self, ids: &mut [Vec<u32>]) {
        if self == Self::WrongAttentionMask {
            for ids in ids {
                ids.swap(1, 2);
            }
        }
    }

    /// Alters images `[batch, 3, height, width]`.
    pub(crate) fn alter_images(self, images: &mut Array, patch: usize) {
        if self != Self::ZeroedToken {
            return;
        }
        let [.., height, width] = images.shape[..] else {
            return;
        };
        for plane in images.values.chunks_exact_mut((height * width).max(1)) {
            for row in plane.chunks_exact_mut(width).take(patch) {
                row[..patch].fill(0.0);
            }
        }
    }
}

/// Returns a copy of images, altered if an error is planted.
pub(crate) fn planted_images(planted: Option<PlantedError>, images: &Array, patch: usize) -> Array {
    let mut images = images.clone();
    if let Some(error) = planted {
        error.alter_images(&mut images, patch);
    }
    images
}

/// Encodes images with a planted error.
///
/// For [`PlantedError::WrongAttentionMask`], the exchanged region tokens are put back to their own places afterwards,
/// so that only what they attended to differs.
pub(crate) fn planted_encode(
    planted: Option<PlantedError>,
    model: &TypedModel,
    images: Tensor<4>,
    trace: &mut Trace,
) -> Encoded {
    if planted != Some(PlantedError::WrongAttentionMask) {
        return model.encode(images, trace);
    }
    let mut inner = if trace.is_on() {
        Trace::on()
    } else {
        Trace::off()
    };
    let device = images.device().without_autodiff();
    let mut encoded = model.encode(images, &mut inner);
    let Some(regions) = encoded.regions.take() else {
        return encoded;
    };
    let count = regions.dims()[1];
    for (name, data) in inner.into_recorded() {
        let with_regions = name.starts_with("block")
            || ["pre_ln_tokens", "ln_pre", "ln_post"].contains(&name.as_str());
        match data.shape().len() {
            2 => trace.record(name, &Tensor::<2>::from_data(data, &device)),
            3 => {
                let tokens = Tensor::<3>::from_data(data, &device);
                let first = tokens.dims()[1].saturating_sub(count);
                if with_regions {
                    trace.record(name, &swap_tokens(tokens, first));
                } else {
                    trace.record(name, &tokens);
                }
            }
            _ => {
                let maps = Tensor::<4>::from_data(data, &device);
                let [batch, dim, h, w] = maps.dims();
                if name == "rlb" {
                    let tokens = maps.reshape([batch, dim, h * w]).swap_dims(1, 2);
                    let maps = swap_tokens(tokens, 0).swap_dims(1, 2);
                    trace.record(name, &maps.reshape([batch, dim, h, w]));
                } else {
                    trace.record(name, &maps);
                }
            }
        }
    }
    encoded.regions = Some(swap_tokens(regions, 0));
    encoded
}

/// Exchanges two neighbours among tokens `[batch, tokens, width]`.
fn swap_tokens(tokens: Tensor<3>, first: usize) -> Tensor<3> {
    let [_, count, _] = tokens.dims();
    let part = |start, length| tokens.clone().narrow(1, start, length);
    let mut parts = Vec::new();
    if first > 0 {
        parts.push(part(0, first));
    }
    parts.extend([part(first + 1, 1), part(first, 1)]);
    if count > first + 2 {
        parts.push(part(first + 2, count - first - 2));
    }
    Tensor::cat(parts, 1)
}

/// Changes the first tensor, in the order of names, whose name contains `part`, if there is one.
fn change(
    weights: &mut StateDict,
    part: &str,
    change: impl FnOnce(&mut HostTensor),
) -> Result<(), ParityError> {
    let mut keys: Vec<String> = weights.keys().map(str::to_owned).collect();
    keys.sort();
    let Some(key) = keys.into_iter().find(|key| key.contains(part)) else {
        return Ok(());
    };
    if let Some(mut tensor) = weights.read(&key)? {
        change(&mut tensor);
        weights.insert(key, tensor);
    }
    Ok(())
}

/// Returns the number of values of a row: the product of all sizes after the first.
fn row_length(tensor: &HostTensor) -> usize {
    tensor.shape[1..].iter().product()
}

fn zero_row(tensor: &mut HostTensor, row: usize) {
    let length = row_length(tensor);
    tensor.values[row * length..][..length].fill(0.0);
}

/// Exchanges a row with the next one.
fn swap_rows(tensor: &mut HostTensor, row: usize) {
    let length = row_length(tensor);
    let (first, second) = tensor.values[row * length..][..2 * length].split_at_mut(length);
    first.swap_with_slice(second);
}

/// Exchanges the rows of the first two heads.
fn swap_heads(tensor: &mut HostTensor, heads: usize) {
    let head = tensor.shape[0] / heads.max(2) * row_length(tensor);
    let (first, second) = tensor.values[..2 * head].split_at_mut(head);
    first.swap_with_slice(second);
}

/// Exchanges the value projections (in the last third of the rows) of the first two heads.
fn swap_values(tensor: &mut HostTensor, heads: usize) {
    let (rows, length) = (tensor.shape[0], row_length(tensor));
    let width = rows / 3;
    let head = width / heads.max(2) * length;
    let values = &mut tensor.values[2 * width * length..][..2 * head];
    let (first, second) = values.split_at_mut(head);
    first.swap_with_slice(second);
}
