//! What a model costs: parameters from the model itself, multiply-accumulates from its architecture.
//!
//! The published figures ("Flops" of ZegCLIP, table 3) are fvcore's counts of multiply-accumulates for one picture;
//! the conventions of that counter are followed where it counts something other than products: 5 a value of a
//! LayerNorm, 4 a value of a bilinear resize. Softmax, activations and additions count nothing.

use crate::{
    config::{ClipRcConfig, HeadConfig, PromptDepth, VisionConfig, ZegClipConfig},
    params::ParamInfo,
    recovery::RecoveryDecoder,
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
    count_params(params, &config.encoder, config.head.layers)
}

/// Counts the parameters of a CLIP-RC model, as listed by [`crate::params::list_params`].
pub fn clip_rc_params(params: &[ParamInfo], config: &ClipRcConfig) -> ParamCounts {
    let layers = 2 * (config.head.layers + RecoveryDecoder::LAYERS);
    count_params(params, &config.encoder, layers)
}

/// - `layers`: decoder layers in the head
fn count_params(params: &[ParamInfo], encoder: &VisionConfig, layers: usize) -> ParamCounts {
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

/// Multiply-accumulates of one picture, by part.
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
}

/// Counts one picture of `size`×`size` pixels with `classes` classes.
pub fn zegclip_macs(config: &ZegClipConfig, size: usize, classes: usize) -> Macs {
    let patches = patches(&config.encoder, size);
    Macs {
        encoder: encoder_macs(&config.encoder, patches),
        head: head_macs(config, patches, classes as u64),
        resize: 2 * BILINEAR_COST * (classes * size * size) as u64,
    }
}

/// Counts one picture of `size`×`size` pixels with `classes` classes, as the reference computes it.
///
/// It multiplies the queries of all regions with the patches and averages the products; here the queries are averaged
/// first, which saves all but one of these products a class.
pub fn clip_rc_macs(config: &ClipRcConfig, size: usize, classes: usize) -> Macs {
    let patches = patches(&config.encoder, size);
    let dim = config.encoder.embed_dim as u64;
    let queries = (config.encoder.regions.unwrap_or(0) * classes) as u64;
    let twins = decoder_layer_macs(queries, patches, dim, &config.head)
        + decoder_layer_macs(patches, queries, dim, &config.head);
    let masks = queries * patches * dim + BILINEAR_COST * patches * dim; // the latter: regions to the grid
    Macs {
        encoder: encoder_macs(&config.encoder, patches),
        head: queries * config.head.query.widths() as u64 * dim * dim // descriptors to queries
            + patches * 3 * dim * dim //                                the patch stream
            + config.head.layers as u64 * twins,
        resize: masks + 2 * BILINEAR_COST * (classes * size * size) as u64,
    }
}

fn patches(encoder: &VisionConfig, size: usize) -> u64 {
    let side = (size / encoder.patch) as u64;
    side * side
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
    let dim = config.encoder.embed_dim as u64;
    let full_layers = config.head.layers as u64 - 1;
    classes * config.head.query.widths() as u64 * dim * dim // descriptor to queries
        + full_layers * decoder_layer_macs(classes, patches, dim, &config.head)
        + logits_macs(classes, patches, dim) // of the last layer only the masks are read
}

/// A layer of cross-attention from `queries` to `memory`, and its feed-forward part.
fn decoder_layer_macs(queries: u64, memory: u64, dim: u64, head: &HeadConfig) -> u64 {
    let value_path = (memory + queries) * dim * dim + queries * memory * dim;
    let feed_forward =
        2 * queries * dim * head.feed_forward as u64 + 2 * LAYER_NORM_COST * queries * dim;
    logits_macs(queries, memory, dim) + value_path + feed_forward
}

/// Queries, keys and their products.
fn logits_macs(queries: u64, memory: u64, dim: u64) -> u64 {
    (queries + memory) * dim * dim + queries * memory * dim
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{HeadConfig, PromptConfig},
        method::MethodConfig,
    };

    fn encoder(tokens: usize, regions: Option<usize>) -> VisionConfig {
        let prompts = PromptConfig {
            tokens,
            depth: PromptDepth::First(12),
            dropout: 0.1,
        };
        VisionConfig {
            input_resolution: 512,
            prompts: Some(prompts),
            regions,
            ..VisionConfig::by_name("ViT-B/16").unwrap()
        }
    }

    fn assert_close(counted: u64, published: f64, digits: f64) {
        let counted = counted as f64 / 1e9;
        assert!(
            (counted - published).abs() < digits,
            "{counted} {published}"
        );
    }

    /// Totals as published (ZegCLIP, table 3); parts and parameters as the reference implementation counts itself.
    #[test]
    fn published_models_have_the_published_counts() {
        for (tokens, classes, total, parts, trained, declared) in [
            (10, 20, 110.4, [108.844, 1.515], 8_039_168, 13_821_184),
            (100, 171, 123.9, [120.753, 2.823], 8_868_608, 14_650_624),
        ] {
            let config = MethodConfig::ZegClip(ZegClipConfig {
                tune_encoder: false,
                encoder: encoder(tokens, None),
                head: HeadConfig::default(),
            });
            let params = config.count_params().unwrap();
            assert_eq!(params.trained, trained);
            assert_eq!(params.declared_by_reference, declared);
            let macs = config.count_macs(classes);
            assert_close(macs.total(), total, 0.05);
            assert_close(macs.encoder, parts[0], 5e-4);
            assert_close(macs.head, parts[1], 5e-4);
        }
    }

    /// CLIP-RC has no published counts: these are the reference implementation's own, counted in the same way.
    #[test]
    fn clip_rc_models_have_the_counts_of_the_reference() {
        for (tokens, classes, total, parts, trained, declared) in [
            (10, 20, 126.729, [110.826, 15.691], 28_528_384, 36_941_568),
            (100, 171, 179.579, [122.788, 54.995], 29_357_824, 37_771_008),
        ] {
            let config = MethodConfig::ClipRc(ClipRcConfig {
                tune_encoder: false,
                encoder: encoder(tokens, Some(16)),
                head: HeadConfig::default(),
            });
            let params = config.count_params().unwrap();
            assert_eq!(params.trained, trained);
            assert_eq!(params.declared_by_reference, declared);
            let macs = config.count_macs(classes);
            assert_close(macs.total(), total, 1e-3);
            assert_close(macs.encoder, parts[0], 5e-4);
            assert_close(macs.head, parts[1], 5e-4);
        }
    }
}
