//! CLIP's image tower as a dense encoder: the last block without attention, positions resized by cubic convolution, and
//! the outputs of two middle blocks.

use burn::tensor::Tensor;

use crate::{
    encoder_hooks::EncoderHooks,
    resize::bicubic,
    trace::Trace,
    transformer::ResidualBlock,
    vision::{TokenPlan, VisionTransformer, maps},
};

/// The dense output of the image tower.
#[derive(Debug, Clone)]
pub struct DenseFeatures {
    /// Patches in the joint image-text space, not normalised: `[batch, dim, h, w]`
    pub joint: Tensor<4>,
    /// Patches after the two middle blocks, the earlier one first: `[batch, h·w, width]` each
    pub middle: [Tensor<3>; 2],
    /// Rows and columns of the patch grid.
    pub grid: [usize; 2],
}

/// The changes to CLIP's image tower.
struct DenseHooks {
    /// Index of the last block.
    last: usize,
    /// Indices of the middle blocks.
    taps: [usize; 2],
}

impl EncoderHooks for DenseHooks {
    fn keeps(&self, layer: usize) -> bool {
        self.taps.contains(&layer)
    }

    fn positions(&self, table: &Tensor<2>, stored: usize, grid: [usize; 2]) -> Option<Tensor<2>> {
        Some(resize_positions(table, stored, grid))
    }

    fn replace(
        &self,
        layer: usize,
        block: &ResidualBlock,
        tokens: &Tensor<3>,
        _plan: TokenPlan,
    ) -> Option<Tensor<3>> {
        (layer == self.last).then(|| without_attention(block, tokens.clone()))
    }
}

/// Resizes the patch rows of a position table by cubic convolution: `[stored·stored, width]` → `[rows·columns, width]`
pub fn resize_positions(table: &Tensor<2>, stored: usize, grid: [usize; 2]) -> Tensor<2> {
    let [_, width] = table.dims();
    let maps = table
        .clone()
        .transpose()
        .reshape([1, width, stored, stored]);
    let resized = bicubic(maps, grid).reshape([width, grid[0] * grid[1]]);
    resized.transpose()
}

/// Computes the last block without attention: every token keeps its own value, and the class token, not the token itself,
/// is the residual of all of them. `[batch, tokens, width]` → the same shape
fn without_attention(block: &ResidualBlock, x: Tensor<3>) -> Tensor<3> {
    let values = block.attn.values(block.ln_1.forward(x.clone()));
    let class = x.narrow(1, 0, 1); // [batch, 1, width]
    block.feed_forward(block.attn.out_proj.forward(values) + class)
}

/// Encodes normalised images `[batch, 3, side, side]`.
///
/// - `taps`: indices of the two middle blocks, from 0
pub fn encode(
    tower: &VisionTransformer,
    images: Tensor<4>,
    taps: [usize; 2],
    trace: &mut Trace,
) -> DenseFeatures {
    let hooks = DenseHooks {
        last: tower.transformer.resblocks.len().saturating_sub(1),
        taps,
    };
    let features = tower.forward_with(images, &hooks, trace);
    trace.record("clip_features", &features.joint);
    let grid = features.encoded.grid;
    let patches = grid[0] * grid[1];
    let joint = features.joint;
    let [batch, _, _] = joint.dims();
    let middle = |layer: usize| {
        let found = features.middle.iter().find(|middle| middle.layer == layer);
        found.map_or_else(
            // The configuration is checked: every middle block exists.
            || Tensor::zeros([batch, patches, tower.config().width], &joint.device()),
            |middle| {
                middle
                    .tokens
                    .clone()
                    .narrow(1, middle.plan.patches_start(), patches)
            },
        )
    };
    DenseFeatures {
        middle: taps.map(middle),
        joint: maps(&joint.narrow(1, 1, patches), grid),
        grid,
    }
}
