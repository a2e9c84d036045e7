//! The cost of a CLIP-RC model.

use super::{ClipRcConfig, recovery::RecoveryDecoder};
use crate::{
    cost::{
        BILINEAR_COST, Macs, ParamCounts, count_params, decoder_layer_macs, encoder_macs, patches,
    },
    params::ParamInfo,
};

/// Counts the parameters of a CLIP-RC model, as listed by [`crate::params::list_params`].
pub(super) fn params(list: &[ParamInfo], config: &ClipRcConfig) -> ParamCounts {
    let layers = 2 * (config.head.layers + RecoveryDecoder::LAYERS);
    count_params(list, &config.encoder, layers)
}

/// Counts the multiply-accumulates for one image of `size`×`size` pixels with `classes` classes, as the reference
/// computes it.
///
/// The reference multiplies the queries of all regions with the patches and averages the products. This crate averages
/// the queries first, which saves all but one of these products per class.
pub(super) fn macs(config: &ClipRcConfig, size: usize, classes: usize) -> Macs {
    let patches = patches(&config.encoder, size);
    let dim = config.encoder.embed_dim as u64;
    let queries = (config.encoder.regions.unwrap_or(0) * classes) as u64;
    let twins = decoder_layer_macs(queries, patches, dim, &config.head)
        + decoder_layer_macs(patches, queries, dim, &config.head);
    let masks = queries * patches * dim + BILINEAR_COST * patches * dim; // second term: regions resized to the grid
    Macs {
        encoder: encoder_macs(&config.encoder, patches),
        head: queries * config.head.query.widths() as u64 * dim * dim // descriptors to queries
            + patches * 3 * dim * dim //                                the patch stream
            + config.head.layers as u64 * twins,
        resize: masks + 2 * BILINEAR_COST * (classes * size * size) as u64,
    }
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

    /// CLIP-RC has no published counts; these are the reference implementation's own, counted in the same way.
    #[test]
    fn clip_rc_models_have_the_counts_of_the_reference() {
        for (tokens, classes, total, parts, trained, declared) in [
            (10, 20, 126.729, [110.826, 15.691], 28_528_384, 36_941_568),
            (100, 171, 179.579, [122.788, 54.995], 29_357_824, 37_771_008),
        ] {
            let config = ClipRcConfig {
                tune_encoder: false,
                encoder: encoder(tokens, Some(16)),
                head: HeadConfig::default(),
            };
            let params = config.cost(classes).unwrap().params;
            assert_eq!(params.trained, trained);
            assert_eq!(params.declared_by_reference, declared);
            let macs = macs(&config, 512, classes);
            assert_close(macs.total(), total, 1e-3);
            assert_close(macs.encoder, parts[0], 5e-4);
            assert_close(macs.head, parts[1], 5e-4);
        }
    }
}
