//! What a model costs: parameters from the model itself, multiply-accumulates from its architecture.
//!
//! The published figures ("Flops" of ZegCLIP, table 3) are fvcore's counts of multiply-accumulates for one image;
//! the conventions of that counter are followed where it counts something other than products: 5 a value of a
//! LayerNorm, 4 a value of a bilinear resize. Softmax, activations and additions count nothing.

use crate::{
    config::{HeadConfig, PromptDepth, VisionConfig},
    params::ParamInfo,
};

/// A value of a LayerNorm.
pub(crate) const LAYER_NORM_COST: u64 = 5;
/// A value of a bilinear resize.
pub(crate) const BILINEAR_COST: u64 = 4;

/// What a model costs, for one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// Numbers of parameters.
    pub params: ParamCounts,
    /// Multiply-accumulates, by part.
    pub parts: Vec<CostPart>,
    /// How many crops of an image the encoder sees; `None` where it sees the image.
    pub crops: Option<usize>,
}

/// Multiply-accumulates of a part of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CostPart {
    /// Name for programs.
    pub key: &'static str,
    /// Name for people.
    pub label: String,
    /// Multiply-accumulates.
    pub macs: u64,
}

impl Cost {
    /// Multiply-accumulates of all parts.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|part| part.macs).sum()
    }
}

/// Numbers of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamCounts {
    /// Of encoder and head.
    pub all: u64,
    /// That learn: they receive a gradient.
    pub trained: u64,
    /// That the reference declares as trained, its unused modules included; the published figure.
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
    // Every decoder layer of the reference holds a self-attention (4 maps with biases) and its norm, never run.
    let unused = layers as u64 * (4 * (dim * dim + dim) + 2 * dim);
    ParamCounts {
        all: params.iter().map(size).sum(),
        trained: params.iter().filter(|p| p.trained).map(size).sum(),
        declared_by_reference: params.iter().filter(declared).map(size).sum::<u64>() + unused,
    }
}

/// Multiply-accumulates of one image, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Macs {
    /// Image encoder.
    pub encoder: u64,
    /// Decoder head, on the patch grid.
    pub head: u64,
    /// Masks to pixels; the reference resizes twice. CLIP-RC's masks are products outside of its decoders.
    pub resize: u64,
}

impl Macs {
    /// All parts.
    pub fn total(&self) -> u64 {
        self.encoder + self.head + self.resize
    }

    /// The parts with their names.
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

/// Patches of a square image.
pub(crate) fn patches(encoder: &VisionConfig, size: usize) -> u64 {
    let side = (size / encoder.patch) as u64;
    side * side
}

/// Multiply-accumulates of the image encoder.
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
        PromptDepth::First(1) => true, // they live through all blocks
        PromptDepth::First(blocks) => block < blocks,
        PromptDepth::Last(blocks) => block >= config.layers - blocks,
    };
    if inside { prompts.tokens as u64 } else { 0 }
}

/// A layer of cross-attention from `queries` to `memory`, and its feed-forward part.
pub(crate) fn decoder_layer_macs(queries: u64, memory: u64, dim: u64, head: &HeadConfig) -> u64 {
    let value_path = (memory + queries) * dim * dim + queries * memory * dim;
    let feed_forward =
        2 * queries * dim * head.feed_forward as u64 + 2 * LAYER_NORM_COST * queries * dim;
    logits_macs(queries, memory, dim) + value_path + feed_forward
}

/// Queries, keys and their products.
pub(crate) fn logits_macs(queries: u64, memory: u64, dim: u64) -> u64 {
    (queries + memory) * dim * dim + queries * memory * dim
}
