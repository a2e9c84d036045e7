//! The operations as an extension of burn's backends, with their forward passes on the CPU.

use std::sync::Arc;

use burn::backend::{Backend, Flex, backend_extension, tensor::FloatTensor};

use crate::{
    activation::Activation,
    attention,
    block::PackedBlock,
    layer_norm,
    level::Level,
    linear::PackedLinear,
    mask_sums::{self, Truth},
    softmax,
};

/// The operations that a backend runs in one pass; tensors hold 32-bit floats.
#[backend_extension(Autodiff, Flex)]
pub(crate) trait FusedOps: Backend {
    /// Computes attention; see [`crate::attention_packed`].
    fn fused_attention(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self>;

    /// Computes [`FusedOps::fused_attention`] with a mask (the extension mechanism does not support optional tensors).
    fn fused_masked_attention(
        qkv: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self>;

    /// Applies an element-wise function.
    fn fused_activation(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    /// Computes the softmax over the last axis.
    fn fused_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Computes layer normalisation; see [`crate::layer_norm`].
    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// Applies a layer that was made with [`PackedLinear::with_gradient`].
    fn fused_linear(x: FloatTensor<Self>, layer: Arc<PackedLinear>) -> FloatTensor<Self>;

    /// Applies a block of such layers.
    fn fused_block(x: FloatTensor<Self>, block: Arc<PackedBlock>) -> FloatTensor<Self>;

    /// Applies [`FusedOps::fused_block`] with a mask, `[tokens, tokens]`.
    fn fused_masked_block(
        x: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        block: Arc<PackedBlock>,
    ) -> FloatTensor<Self>;

    /// Computes `[batch, classes, 3]` from logits `[batch, classes, pixels]`, see [`crate::mask_sums`].
    fn fused_mask_sums(z: FloatTensor<Self>, truth: Truth) -> FloatTensor<Self>;
}

impl FusedOps for Flex {
    fn fused_attention(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        attention::forward(qkv, None, heads, Level::current()).0
    }

    fn fused_masked_attention(
        qkv: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        attention::forward(qkv, Some(mask), heads, Level::current()).0
    }

    fn fused_activation(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        activation.forward(x, Level::current())
    }

    fn fused_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        softmax::forward(x, Level::current())
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        layer_norm::forward(x, weight, bias, epsilon, Level::current())
    }

    fn fused_linear(x: FloatTensor<Self>, layer: Arc<PackedLinear>) -> FloatTensor<Self> {
        layer.on_tensor(x)
    }

    fn fused_block(x: FloatTensor<Self>, block: Arc<PackedBlock>) -> FloatTensor<Self> {
        block.on_tensor(x, None)
    }

    fn fused_masked_block(
        x: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        block: Arc<PackedBlock>,
    ) -> FloatTensor<Self> {
        block.on_tensor(x, Some(mask))
    }

    fn fused_mask_sums(z: FloatTensor<Self>, truth: Truth) -> FloatTensor<Self> {
        mask_sums::forward(&z, &truth, Level::current())
    }
}
