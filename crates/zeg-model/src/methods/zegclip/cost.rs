//! The cost of a ZegCLIP model (ZegCLIP, table 3).

use super::ZegClipConfig;
use crate::{
    cost::{
        BILINEAR_COST, Macs, ParamCounts, count_params, decoder_layer_macs, encoder_macs,
        logits_macs, patches,
    },
    params::ParamInfo,
};

/// Counts the parameters of a ZegCLIP model, as listed by [`crate::params::list_params`].
pub(super) fn params(list: &[ParamInfo], config: &ZegClipConfig) -> ParamCounts {
    count_params(list, &config.encoder, config.head.layers)
}

/// Counts the multiply-accumulates for one image of `size`×`size` pixels with `classes` classes.
pub(super) fn macs(config: &ZegClipConfig, size: usize, classes: usize) -> Macs {
    let patches = patches(&config.encoder, size);
    Macs {
        encoder: encoder_macs(&config.encoder, patches),
        head: head_macs(config, patches, classes as u64),
        resize: 2 * BILINEAR_COST * (classes * size * size) as u64,
    }
}

fn head_macs(config: &ZegClipConfig, patches: u64, classes: u64) -> u64 {
    let dim = config.encoder.embed_dim as u64;
    let full_layers = config.head.layers as u64 - 1;
    classes * config.head.query.widths() as u64 * dim * dim // descriptor to queries
        + full_layers * decoder_layer_macs(classes, patches, dim, &config.head)
        + logits_macs(classes, patches, dim) // the last layer only computes masks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{HeadConfig, PromptConfig, PromptDepth, VisionConfig},
        method::Architecture as _,
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

    /// Totals are as published (ZegCLIP, table 3); parts and parameters are the reference implementation's own counts.
    #[test]
    fn published_models_have_the_published_counts() {
        for (tokens, classes, total, parts, trained, declared) in [
            (10, 20, 110.4, [108.844, 1.515], 8_039_168, 13_821_184),
            (100, 171, 123.9, [120.753, 2.823], 8_868_608, 14_650_624),
        ] {
            let config = ZegClipConfig {
                tune_encoder: false,
                encoder: encoder(tokens, None),
                head: HeadConfig::default(),
            };
            let params = config.cost(classes).unwrap().params;
            assert_eq!(params.trained, trained);
            assert_eq!(params.declared_by_reference, declared);
            let macs = macs(&config, 512, classes);
            assert_close(macs.total(), total, 0.05);
            assert_close(macs.encoder, parts[0], 5e-4);
            assert_close(macs.head, parts[1], 5e-4);
        }
    }
}
