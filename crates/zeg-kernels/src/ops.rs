//! The operations on tensors: each runs the fused kernel if there is one, the composed form otherwise.

use std::sync::Arc;

use burn::{
    backend::{Dispatch, DispatchDevice},
    tensor::{DType, Device, Tensor},
};

use crate::{
    activation::Activation, backend::FusedOps, composed, level::is_composed_alone, mask_sums::Truth,
};

/// Returns whether a device, without gradients, computes with the kernels of this crate.
pub fn runs_on(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Flex(_)) && !is_composed_alone()
}

/// Returns whether the kernels of this crate can process this tensor.
pub(crate) fn is_fused<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device().without_autodiff();
    x.dtype() == DType::F32 && runs_on(&device)
}

/// Computes multi-head self-attention, softmax(Q·Kᵀ/√head + mask)·V for every head.
///
/// - `qkv`: `[batch, tokens, 3·width]`; a token has its queries, keys and values in this order, each with the channels
///   of head 0, head 1, …
/// - `heads`: number of heads; divides `width`
/// - `mask`: `[tokens, tokens]` (query, key), added to the logits: 0, or −∞ where the query must not attend to the key.
///   It is a constant without a gradient. Every row needs a finite value; a row without one gives NaN.
///
/// Returns `[batch, tokens, width]`, the heads side by side.
///
/// # Panics
/// Panics if a shape does not match this description.
pub fn attention_packed(qkv: Tensor<3>, heads: usize, mask: Option<Tensor<2>>) -> Tensor<3> {
    let [_, tokens, packed] = qkv.dims();
    assert!(
        heads > 0 && packed > 0 && packed % (3 * heads) == 0,
        "{packed} channels cannot be divided into queries, keys and values of {heads} heads"
    );
    let mask = mask.map(Tensor::detach);
    if let Some(mask) = &mask {
        assert_eq!(mask.dims(), [tokens; 2], "shape of the attention mask");
    }
    if !is_fused(&qkv) || mask.as_ref().is_some_and(|mask| !is_fused(mask)) {
        return composed::attention_packed(qkv, heads, mask);
    }
    let qkv = qkv.into_dispatch();
    Tensor::from_dispatch(match mask {
        None => Dispatch::fused_attention(qkv, heads),
        Some(mask) => Dispatch::fused_masked_attention(qkv, mask.into_dispatch(), heads),
    })
}

/// Computes x·σ(1.702 x), CLIP's activation.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_fused(&x) {
        return composed::quick_gelu(x);
    }
    activation(x, Activation::QuickGelu)
}

/// Computes x·Φ(x) with the normal distribution Φ, within 2·10⁻⁷·|x|.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_fused(&x) {
        return composed::gelu(x);
    }
    activation(x, Activation::Gelu)
}

/// Computes 1 / (1 + e⁻ˣ).
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_fused(&x) {
        return composed::sigmoid(x);
    }
    activation(x, Activation::Sigmoid)
}

fn activation<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::fused_activation(x.into_dispatch(), activation))
}

/// Computes the softmax over the last axis: eˣ divided by its sum.
///
/// Values of −∞ become 0; a row that has only such values becomes NaN.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if !is_fused(&x) {
        return composed::softmax(x);
    }
    Tensor::from_dispatch(Dispatch::fused_softmax(x.into_dispatch()))
}

/// Computes layer normalisation over the last axis: (x − mean) / √(variance + ε) · weight + bias, with the population
/// variance.
///
/// - `x`: `[…, width]`
/// - `weight`, `bias`: `[width]`
///
/// # Panics
/// Panics if `weight` or `bias` does not have the length of the rows.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let width = x.dims()[D - 1];
    assert_eq!(weight.dims(), [width], "shape of a LayerNorm's weight");
    assert_eq!(bias.dims(), [width], "shape of a LayerNorm's bias");
    if width == 0 || !is_fused(&x) || !is_fused(&weight) || !is_fused(&bias) {
        return composed::layer_norm(x, weight, bias, epsilon);
    }
    Tensor::from_dispatch(Dispatch::fused_layer_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        epsilon as f32,
    ))
}

/// The sums over the pixels of class masks, `[batch, classes]` each.
#[derive(Debug, Clone)]
pub struct MaskSums {
    /// Sum of focal terms, −α_t·(1 − p_t)²·ln p_t.
    pub focal: Tensor<2>,
    /// Sum of the sigmoids of pixels that belong to the class.
    pub positives: Tensor<2>,
    /// Sum of all sigmoids.
    pub all: Tensor<2>,
}

/// Computes the sums over pixels that focal and dice losses need.
///
/// - `z`: logits `[batch, classes, pixels]`
/// - `labels`: `[batch, pixels]`, row-major: the class of each pixel; other numbers belong to no class
/// - `alpha`: weight of a positive in the focal terms; a negative has the weight 1 − α
///
/// # Panics
/// Panics if the number of labels differs from the number of pixels.
pub fn mask_sums(z: Tensor<3>, labels: Arc<[u16]>, alpha: f32) -> MaskSums {
    let [batch, classes, pixels] = z.dims();
    assert_eq!(labels.len(), batch * pixels, "number of labels");
    if !is_fused(&z) {
        return composed::mask_sums(z, labels, alpha);
    }
    let truth = Truth { labels, alpha };
    let sums = Dispatch::fused_mask_sums(z.into_dispatch(), truth);
    let sums = Tensor::<3>::from_dispatch(sums); // [batch, classes, 3]
    let part = |index| {
        let part = sums.clone().narrow(2, index, 1);
        part.reshape([batch, classes])
    };
    MaskSums {
        focal: part(0),
        positives: part(1),
        all: part(2),
    }
}
