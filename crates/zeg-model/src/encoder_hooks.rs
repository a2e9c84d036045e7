//! Hooks in the image encoder: they replace blocks and store outputs of intermediate blocks.

use burn::tensor::Tensor;

use crate::{
    transformer::ResidualBlock,
    vision::{Encoded, TokenPlan},
};

/// The changes that a method makes in the encoder.
pub trait EncoderHooks {
    /// Returns whether the output of block `layer`, counted from 0, is stored.
    fn keeps(&self, layer: usize) -> bool {
        let _ = layer;
        false
    }

    /// Resizes the patch rows of the position table in another way than bilinearly; `None` leaves it to the encoder.
    ///
    /// - `table`: `[stored·stored, width]`, row-major
    /// - `grid`: rows and columns of the image's patches
    ///
    /// Returns `[rows·columns, width]`.
    fn positions(&self, table: &Tensor<2>, stored: usize, grid: [usize; 2]) -> Option<Tensor<2>> {
        let _ = (table, stored, grid);
        None
    }

    /// Computes a block in another way; `None` leaves the block unchanged.
    ///
    /// - `tokens`: input of the block, `[batch, tokens, width]`, in the layout of `plan`
    ///
    /// Returns the output of the block, in the same shape.
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

/// Hooks that change nothing.
#[derive(Debug, Clone, Copy)]
pub struct NoHooks;

impl EncoderHooks for NoHooks {}

/// The encoder's output for a batch of images, with the outputs of selected blocks.
#[derive(Debug, Clone)]
pub struct Features {
    /// The encoder's output.
    pub encoded: Encoded,
    /// All tokens in the joint image-text space, before they are normalised: `[batch, tokens, dim]`
    pub joint: Tensor<3>,
    /// Outputs of the blocks that the hooks select, first to last.
    pub middle: Vec<MiddleFeatures>,
}

/// The output of a block.
#[derive(Debug, Clone)]
pub struct MiddleFeatures {
    /// Index of the block, counted from 0.
    pub layer: usize,
    /// `[batch, tokens, width]`, before any norm
    pub tokens: Tensor<3>,
    /// Layout of the tokens.
    pub plan: TokenPlan,
}
