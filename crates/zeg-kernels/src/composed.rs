//! The same operations composed of burn's: for other devices and float types, and what the kernels are tested against.

use burn::tensor::{Tensor, activation, module, ops::AttentionModuleOptions};

/// See [`crate::attention_packed`].
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

/// See [`crate::quick_gelu`].
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.clone() * activation::sigmoid(x * 1.702)
}

/// See [`crate::gelu`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// See [`crate::sigmoid`].
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::sigmoid(x)
}

/// See [`crate::softmax`].
pub fn softmax<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::softmax(x, D - 1)
}

/// See [`crate::layer_norm`].
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    module::layer_norm(x, weight, Some(bias), epsilon)
}
