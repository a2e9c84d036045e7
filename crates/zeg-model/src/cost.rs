//! The cost of a model: parameters, counted on the model itself, and multiply-accumulates, computed from its
//! architecture.
//!
//! The published figures ("Flops" of ZegCLIP, table 3) are fvcore's counts of multiply-accumulates for one image. Where
//! that counter counts something other than products, its conventions are followed: 5 per value of a LayerNorm, 4 per
//! value of a bilinear resize. Softmax, activations and additions count 0.

use crate::{
    config::{HeadConfig, PromptDepth, VisionConfig},
    params::ParamInfo,
};

/// Multiply-accumulates counted per value of a LayerNorm.
pub(crate) const LAYER_NORM_COST: u64 = 5;
/// Multiply-accumulates counted per value of a bilinear resize.
pub(crate) const BILINEAR_COST: u64 = 4;

/// The cost of a model for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Numbers of parameters.
    pub params: ParamCounts,
    /// Multiply-accumulates of each part.
    pub parts: Vec<CostPart>,
    /// Number of crops per image that the encoder processes; `None` if it processes the image itself.
    pub crops: Option<usize>,
}

/// The multiply-accumulates of one part of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostPart {
    /// Name of the part in JSON output.
    pub key: &'static str,
    /// Name of the part to display.
    pub label: String,
    /// Multiply-accumulates.
    pub macs: u64,
}

impl Cost {
    /// Returns the multiply-accumulates of all parts.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|part| part.macs).sum()
    }
}

/// Numbers of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamCounts {
    /// Parameters of encoder and head.
    pub all: u64,
    /// Trained parameters: those that receive a gradient.
    pub trained: u64,
    /// Parameters that the reference declares as trained, its unused modules included; this is the published figure.
    pub declared_by_reference: u64,
}

/// Counts parameters as the reference declares them.
///
/// - `layers`: decoder layers in the head
pub(crate) fn count_params(
    params: &[ParamInfo],
    encoder: &VisionConfig,
    layers: usize,
) -> ParamCounts {
    let size = |p: &ParamInfo| p.shape.iter().product::<usize>() as u64;
    let declared = |p: &&ParamInfo| p.trained || p.name.starts_with("decode_head.");
    let dim = encoder.embed_dim as u64;
    // Every decoder layer of the reference holds a self-attention (4 maps with biases) and its norm, which never run.
    let unused = layers as u64 * (4 * (dim * dim + dim) + 2 * dim);
    ParamCounts {
        all: params.iter().map(size).sum(),
        trained: params.iter().filter(|p| p.trained).map(size).sum(),
        declared_by_reference: params.iter().filter(declared).map(size).sum::<u64>() + unused,
    }
}

/// The multiply-accumulates of one image, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Macs {
    /// Image encoder.
    pub encoder: u64,
    /// Decoder head, on the patch grid.
    pub head: u64,
    /// Resizing the masks to pixels; the reference resizes twice. CLIP-RC's masks are products outside of its decoders.
    pub resize: u64,
}

impl Macs {
    /// Returns the sum of all parts.
    pub fn total(&self) -> u64 {
        self.encoder + self.head + self.resize
    }

    /// Returns the parts with their names.
    pub fn parts(&self) -> Vec<CostPart> {
        let part = |key, label: &str, macs| CostPart {
            key,
            label: label.to_owned(),
            macs,
        };
        vec![
            part("encoder", "encoder", self.encoder),
            part("head", "head", self.head),
            part("resize", "masks to pixels", self.resize),
        ]
    }
}

/// Returns the number of patches of a square image.
pub(crate) fn patches(encoder: &VisionConfig, size: usize) -> u64 {
    let side = (size / encoder.patch) as u64;
    side * side
}

/// Returns the multiply-accumulates of the image encoder.
pub(crate) fn encoder_macs(config: &VisionConfig, patches: u64) -> u64 {
    let (width, dim) = (config.width as u64, config.embed_dim as u64);
    let plain = 1 + patches + config.regions.unwrap_or(0) as u64;
    let mut macs = patches * 3 * (config.patch * config.patch) as u64 * width; // patch projection
    macs += BILINEAR_COST * patches * width; //                                    position table
    macs += LAYER_NORM_COST * plain * width; //                                    ln_pre
    let mut last = plain;
    for block in 0..config.layers {
        let prompts = prompts_in_block(config, block);
        last = plain + prompts;
        let linear = 12 * width * width * last; //       q, k, v, out: 4; MLP: 8
        let attention = 2 * last * last * width; //      logits, and weighted values
        let norms = 2 * LAYER_NORM_COST * last * width;
        let prompt_proj = prompts * width * width;
        macs += linear + attention + norms + prompt_proj;
    }
    let prompt_norm = if config.prompts.is_some() {
        LAYER_NORM_COST * last * width
    } else {
        0
    };
    macs + prompt_norm + LAYER_NORM_COST * last * width + last * width * dim
}

fn prompts_in_block(config: &VisionConfig, block: usize) -> u64 {
    let Some(prompts) = &config.prompts else {
        return 0;
    };
    let inside = match prompts.depth {
        PromptDepth::First(1) => true, // these prompts stay in the sequence through all blocks
        PromptDepth::First(blocks) => block < blocks,
        PromptDepth::Last(blocks) => block >= config.layers - blocks,
    };
    if inside { prompts.tokens as u64 } else { 0 }
}

/// Returns the multiply-accumulates of a layer of cross-attention from `queries` to `memory`, with its feed-forward
/// part.
pub(crate) fn decoder_layer_macs(queries: u64, memory: u64, dim: u64, head: &HeadConfig) -> u64 {
    let value_path = (memory + queries) * dim * dim + queries * memory * dim;
    let feed_forward =
        2 * queries * dim * head.feed_forward as u64 + 2 * LAYER_NORM_COST * queries * dim;
    logits_macs(queries, memory, dim) + value_path + feed_forward
}

/// Returns the multiply-accumulates of the projections of queries and keys and of the product of both.
pub(crate) fn logits_macs(queries: u64, memory: u64, dim: u64) -> u64 {
    (queries + memory) * dim * dim + queries * memory * dim
}
