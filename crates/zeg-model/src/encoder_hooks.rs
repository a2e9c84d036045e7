//! Hooks in the image encoder: blocks that a method computes in another way, and outputs of middle blocks.

use burn::tensor::Tensor;

use crate::{
    transformer::ResidualBlock,
    vision::{Encoded, TokenPlan},
};

/// What a method changes in the encoder, or takes from the middle of it.
pub trait EncoderHooks {
    /// Whether the output of a block is kept, counted from 0.
    fn keeps(&self, layer: usize) -> bool {
        let _ = layer;
        false
    }

    /// Computes a block in another way; `None` leaves it as it is.
    ///
    /// - `tokens`: what enters the block, `[batch, tokens, width]`, laid out as `plan` says
    ///
    /// Returns what leaves it, in the same shape.
    fn replace(
        &self,
        layer: usize,
        block: &ResidualBlock,
        tokens: &Tensor<3>,
        plan: TokenPlan,
    ) -> Option<Tensor<3>> {
        let _ = (layer, block, tokens, plan);
        None
    }
}

/// The encoder as it is.
#[derive(Debug, Clone, Copy)]
pub struct NoHooks;

impl EncoderHooks for NoHooks {}

/// What the encoder makes of images, with the outputs of chosen blocks.
#[derive(Debug, Clone)]
pub struct Features {
    /// The end of the encoder.
    pub encoded: Encoded,
    /// Outputs of blocks that the hooks keep, first to last.
    pub middle: Vec<MiddleFeatures>,
}

/// The output of a block.
#[derive(Debug, Clone)]
pub struct MiddleFeatures {
    /// The block, counted from 0.
    pub layer: usize,
    /// `[batch, tokens, width]`, before any norm
    pub tokens: Tensor<3>,
    /// Which positions are what.
    pub plan: TokenPlan,
}
