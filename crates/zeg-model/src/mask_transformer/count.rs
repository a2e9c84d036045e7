//! The cost of the parts that mask transformers share: multiply-accumulates, computed from their sizes.
//!
//! The counts follow ZegCLIP's table 3, whose row "ZegFormer" is the model with a ResNet-101 and one crop for each of
//! 100 queries. Products are counted, and in addition the frozen norms of the residual network with 2 per value and the
//! group norms of the pixel decoder with 5. These two factors are inferred: with them, the parts agree with the
//! reference's figures to the last digit. The remaining 0.1 % to the published total come from the reference's
//! conventions for other operations.

use super::{
    config::{MASK_STRIDE, MaskTransformerConfig, ResNetConfig, STRIDE, StemKind},
    resnet::BottleneckShape,
};
use crate::{config::VisionConfig, cost::ParamCounts, params::ParamInfo};

/// Multiply-accumulates counted per value of a frozen batch norm (scale and shift).
const FROZEN_NORM_COST: u64 = 2;
/// Multiply-accumulates counted per value of a group norm (statistics, scale and shift).
const GROUP_NORM_COST: u64 = 5;

/// Counts the parameters of a model whose parameters all have an effect, as listed by [`crate::params::list_params`].
pub fn param_counts(params: &[ParamInfo]) -> ParamCounts {
    let size = |p: &ParamInfo| p.shape.iter().product::<usize>() as u64;
    let trained = params.iter().filter(|p| p.trained).map(size).sum();
    ParamCounts {
        all: params.iter().map(size).sum(),
        trained,
        declared_by_reference: trained,
    }
}

/// Returns the number of cells of a square map at a stride.
fn cells(size: usize, stride: usize) -> u64 {
    let side = size.div_ceil(stride) as u64;
    side * side
}

/// Returns the products of the first layers, and the number of values that they normalise.
fn stem_macs(config: &ResNetConfig, size: usize) -> (u64, u64) {
    let (stem, half) = (config.stem as u64, config.stem as u64 / 2);
    let cells = cells(size, 2);
    match config.stem_kind {
        StemKind::Single => (cells * 3 * 49 * stem, cells * stem),
        StemKind::Triple => (
            cells * 9 * (3 * half + half * half + half * stem),
            cells * (2 * half + stem),
        ),
    }
}

/// Counts the multiply-accumulates of the residual network for one image of `size`×`size` pixels.
pub fn backbone_macs(config: &ResNetConfig, size: usize) -> u64 {
    let (mut macs, mut normalised) = stem_macs(config, size);
    let mut input = config.stem as u64;
    for stage in 0..4 {
        let stride = 4 << stage;
        let (inner, output) = (
            config.stage_bottleneck(stage) as u64,
            config.stage_output(stage) as u64,
        );
        let cells_out = cells(size, stride);
        // The stage's stride is in the 3×3 convolution, so the 1×1 before it runs on the finer map.
        let cells_in = if stage == 0 {
            cells_out
        } else {
            cells(size, stride / 2)
        };
        for block in 0..config.blocks[stage] {
            let first = block == 0;
            let before = if first { cells_in } else { cells_out };
            macs += before * input * inner + cells_out * (9 * inner * inner + inner * output);
            normalised += before * inner + cells_out * (inner + output);
            if BottleneckShape::of(config, stage, block).projects() {
                macs += cells_out * input * output; // shortcut
                normalised += cells_out * output;
            }
            input = output;
        }
    }
    macs + FROZEN_NORM_COST * normalised
}

/// Counts the multiply-accumulates of the pixel decoder for one image of `size`×`size` pixels.
pub fn pixel_decoder_macs(config: &MaskTransformerConfig, size: usize) -> u64 {
    let width = config.pixel_width as u64;
    let output = |stage| config.backbone.stage_output(stage) as u64;
    let mut macs = cells(size, STRIDE) * 9 * output(3) * width;
    let mut normalised = cells(size, STRIDE) * width; // outputs of convolutions
    for stage in 0..3 {
        macs += cells(size, 4 << stage) * (output(stage) * width + 9 * width * width);
        normalised += 2 * cells(size, 4 << stage) * width;
    }
    macs + GROUP_NORM_COST * normalised
        + cells(size, MASK_STRIDE) * 9 * width * config.mask_width as u64
}

/// Counts the multiply-accumulates of the query decoder and of the heads for one image of `size`×`size` pixels.
///
/// - `class_head`: multiply-accumulates of one query's vector and its comparison with all classes
pub fn predictor_macs(config: &MaskTransformerConfig, size: usize, class_head: u64) -> u64 {
    let (width, queries) = (config.width as u64, config.queries as u64);
    let (tokens, mask) = (cells(size, STRIDE), config.mask_width as u64);
    let among = 4 * queries * width * width + 2 * queries * queries * width;
    let to_map = 2 * (queries + tokens) * width * width + 2 * queries * tokens * width;
    let linear = 2 * queries * width * config.feed_forward as u64;
    let layers = config.layers as u64;
    let heads = queries * (class_head + 2 * width * width + width * mask);
    let masks = queries * mask * cells(size, MASK_STRIDE);
    tokens * config.backbone.stage_output(3) as u64 * width
        + layers * (among + to_map + linear)
        // The reference computes its heads after every layer, also at inference.
        + layers * (heads + masks)
}

/// Returns the multiply-accumulates of CLIP's own tower on one image of its resolution.
pub fn tower_macs(config: &VisionConfig) -> u64 {
    let (width, patches) = (config.width as u64, (config.grid() * config.grid()) as u64);
    let tokens = 1 + patches;
    let block = 12 * width * width * tokens + 2 * tokens * tokens * width;
    patches * 3 * (config.patch * config.patch) as u64 * width
        + config.layers as u64 * block
        + width * config.embed_dim as u64
}
