//! What a model costs: parameters from the model itself, multiply-accumulates from its architecture.
//!
//! The published figures ("Flops" of ZegCLIP, table 3) are fvcore's counts of multiply-accumulates for one picture;
//! the conventions of that counter are followed where it counts something other than products: 5 a value of a
//! LayerNorm, 4 a value of a bilinear resize. Softmax, activations and additions count nothing.

use crate::{
    config::{PromptDepth, VisionConfig, ZegClipConfig},
    params::ParamInfo,
};

const LAYER_NORM_COST: u64 = 5;
const BILINEAR_COST: u64 = 4;

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

/// Counts the parameters of a ZegCLIP model, as listed by [`crate::params::list_params`].
pub fn zegclip_params(params: &[ParamInfo], config: &ZegClipConfig) -> ParamCounts {
    let size = |p: &ParamInfo| p.shape.iter().product::<usize>() as u64;
    let declared = |p: &&ParamInfo| p.trained || p.name.starts_with("decode_head.");
    let dim = config.encoder.embed_dim as u64;
    // Every decoder layer of the reference holds a self-attention (4 maps with biases) and its norm, never run.
    let unused = config.head.layers as u64 * (4 * (dim * dim + dim) + 2 * dim);
    ParamCounts {
        all: params.iter().map(size).sum(),
        trained: params.iter().filter(|p| p.trained).map(size).sum(),
        declared_by_reference: params.iter().filter(declared).map(size).sum::<u64>() + unused,
    }
}

/// Multiply-accumulates of one picture, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Macs {
    /// Image encoder.
    pub encoder: u64,
    /// Decoder head, on the patch grid.
    pub head: u64,
    /// Masks to pixels; the reference resizes twice.
    pub resize: u64,
}

impl Macs {
    /// All parts.
    pub fn total(&self) -> u64 {
        self.encoder + self.head + self.resize
    }
}

/// Counts one picture of `size`×`size` pixels with `classes` classes.
pub fn zegclip_macs(config: &ZegClipConfig, size: usize, classes: usize) -> Macs {
    let side = (size / config.encoder.patch) as u64;
    let patches = side * side;
    Macs {
        encoder: encoder_macs(&config.encoder, patches),
        head: head_macs(config, patches, classes as u64),
        resize: 2 * BILINEAR_COST * (classes * size * size) as u64,
    }
}

fn encoder_macs(config: &VisionConfig, patches: u64) -> u64 {
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

fn head_macs(config: &ZegClipConfig, patches: u64, classes: u64) -> u64 {
    let (dim, hidden) = (
        config.encoder.embed_dim as u64,
        config.head.feed_forward as u64,
    );
    let full_layers = config.head.layers as u64 - 1;
    let queries_and_keys = (classes + patches) * dim * dim + classes * patches * dim;
    let value_path = (patches + classes) * dim * dim + classes * patches * dim;
    let feed_forward = 2 * classes * dim * hidden + 2 * LAYER_NORM_COST * classes * dim;
    classes * config.head.query.widths() as u64 * dim * dim // descriptor to queries
        + full_layers * (queries_and_keys + value_path + feed_forward)
        + queries_and_keys // of the last layer only the masks are read
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{
        config::{HeadConfig, PromptConfig},
        params::list_params,
        zegclip::ZegClip,
    };

    fn published(tokens: usize) -> ZegClipConfig {
        let prompts = PromptConfig {
            tokens,
            depth: PromptDepth::First(12),
            dropout: 0.1,
        };
        let encoder = VisionConfig {
            input_resolution: 512,
            prompts: Some(prompts),
            ..VisionConfig::by_name("ViT-B/16").unwrap()
        };
        ZegClipConfig {
            tune_encoder: false,
            encoder,
            head: HeadConfig::default(),
        }
    }

    /// Totals as published (ZegCLIP, table 3); parts and parameters as the reference implementation counts itself.
    #[test]
    fn published_models_have_the_published_counts() {
        for (tokens, classes, total, encoder, head, trained, declared) in [
            (10, 20, 110.4, 108.844, 1.515, 8_039_168, 13_821_184),
            (100, 171, 123.9, 120.753, 2.823, 8_868_608, 14_650_624),
        ] {
            let config = published(tokens);
            let model = ZegClip::blueprint(&config, &Device::flex()).unwrap();
            let params = list_params(&model, |key| ZegClip::trains(&config, key));
            let params = zegclip_params(&params, &config);
            assert_eq!(params.trained, trained);
            assert_eq!(params.declared_by_reference, declared);
            let macs = zegclip_macs(&config, 512, classes);
            let close = |counted: u64, published: f64, digits: f64| {
                assert!(
                    (counted as f64 / 1e9 - published).abs() < digits,
                    "{counted} {published}"
                );
            };
            close(macs.total(), total, 0.05);
            close(macs.encoder, encoder, 5e-4);
            close(macs.head, head, 5e-4);
        }
    }
}
