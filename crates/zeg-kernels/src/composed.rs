//! The same operations composed of burn's: used on other devices and float types, and as the reference in tests.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation, module, ops::AttentionModuleOptions};

use crate::ops::MaskSums;

/// Computes [`crate::attention_packed`] with burn's operations.
pub fn attention_packed(qkv: Tensor<3>, heads: usize, mask: Option<Tensor<2>>) -> Tensor<3> {
    let [batch, tokens, packed] = qkv.dims();
    let width = packed / 3;
    let parts = qkv
        .reshape([batch, tokens, 3, heads, width / heads])
        .permute([2, 0, 3, 1, 4]); // [3, batch, heads, tokens, head]
    let part = |index| parts.clone().narrow(0, index, 1).squeeze_dim::<4>(0);
    // The logits are scaled by 1/√head, the default.
    module::attention(
        part(0),
        part(1),
        part(2),
        None,
        mask.map(Tensor::unsqueeze::<4>), // [1, 1, tokens, tokens]
        AttentionModuleOptions::default(),
    ) // [batch, heads, tokens, head]
    .swap_dims(1, 2)
    .reshape([batch, tokens, width])
}

/// Computes [`crate::quick_gelu`] with burn's operations.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * activation::sigmoid(x * 1.702)
}

/// Computes [`crate::gelu`] with burn's operations.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// Computes [`crate::sigmoid`] with burn's operations.
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::sigmoid(x)
}

/// Computes [`crate::softmax`] with burn's operations.
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::softmax(x, D - 1)
}

/// Computes [`crate::layer_norm`] with burn's operations.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    module::layer_norm(x, weight, Some(bias), epsilon)
}

/// Computes [`crate::mask_sums`] with burn's operations.
pub fn mask_sums(z: Tensor<3>, labels: Arc<[u16]>, alpha: f32) -> MaskSums {
    let [batch, classes, pixels] = z.dims();
    let device = z.device().without_autodiff();
    let labels: Vec<i32> = labels.iter().map(|&label| i32::from(label)).collect();
    let labels = Tensor::<3, Int>::from_data(TensorData::new(labels, [batch, 1, pixels]), &device)
        .expand([batch, classes, pixels]);
    let classes_of_maps = Tensor::<1, Int>::arange(0..classes as i64, &device)
        .reshape([1, classes, 1])
        .expand([batch, classes, pixels]);
    let truth = labels.equal(classes_of_maps).float(); // [batch, classes, pixels]
    let truth = if z.is_autodiff() {
        Tensor::from_inner(truth)
    } else {
        truth
    };
    // With s = −z for positives and z for negatives, 1 − p_t = σ(s) and −ln p_t = −ln σ(−s).
    let s = z.clone() * (truth.clone() * -2.0 + 1.0);
    let weight = truth.clone() * (2.0 * alpha - 1.0) + (1.0 - alpha);
    let focal = activation::sigmoid(s.clone()).square() * weight * -activation::log_sigmoid(-s);
    let p = activation::sigmoid(z);
    let per_map = |x: Tensor<3>| x.sum_dim(2).reshape([batch, classes]);
    MaskSums {
        focal: per_map(focal),
        positives: per_map(p.clone() * truth),
        all: per_map(p),
    }
}
