//! The cost of a CAT-Seg: parameters, and multiply-accumulates as the reference computes it.
//!
//! Matrix products, convolutions and attention are counted, for the four windows and the whole image of the published
//! evaluation. Two of the reference's habits are counted although this implementation does not have them: its last image
//! block projects values and outputs twice, and its class aggregation computes every token that fills the class axis.

use super::config::CatSegConfig;
use crate::{cost::ParamCounts, params::ParamInfo};

/// Encoded inputs of the published evaluation: four windows and the whole image.
pub(super) const INPUTS: usize = 5;

/// The multiply-accumulates of one window, by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatSegMacs {
    /// CLIP's image tower.
    pub encoder: u64,
    /// Cost volume, aggregator and decoder.
    pub head: u64,
    /// CLIP's text tower, for one class with one prompt template; once per class list, so not in the other parts.
    pub text: u64,
}

/// Counts the parameters; the logit scale, which nothing uses, is one more in the reference.
pub(super) fn params(list: &[ParamInfo]) -> ParamCounts {
    let size = |p: &ParamInfo| p.shape.iter().product::<usize>() as u64;
    let trained = list.iter().filter(|p| p.trained).map(size).sum();
    ParamCounts {
        all: list.iter().map(size).sum::<u64>() + 1,
        trained,
        declared_by_reference: trained,
    }
}

/// Counts the multiply-accumulates of one window with `classes` classes.
pub fn macs(config: &CatSegConfig, classes: usize) -> CatSegMacs {
    let [h, w] = config.grid();
    let patches = (h * w) as u64;
    CatSegMacs {
        encoder: tower(config, patches),
        head: head(config, patches, classes as u64),
        text: text(config),
    }
}

fn tower(config: &CatSegConfig, patches: u64) -> u64 {
    let encoder = &config.encoder;
    let (width, dim, tokens) = (encoder.width as u64, encoder.embed_dim as u64, 1 + patches);
    let block = 12 * width * width * tokens + 2 * tokens * tokens * width;
    let last = 14 * width * width * tokens; // no products of queries, keys and values
    patches * 3 * (encoder.patch * encoder.patch) as u64 * width
        + (encoder.layers as u64 - 1) * block
        + last
        + tokens * width * dim
}

fn text(config: &CatSegConfig) -> u64 {
    const TOKENS: u64 = 77; // the reference computes the whole context
    let (width, layers) = (config.text.width as u64, config.text.layers as u64);
    let block = 12 * width * width * TOKENS + 2 * TOKENS * TOKENS * width;
    layers * block + width * config.encoder.embed_dim as u64
}

fn head(config: &CatSegConfig, patches: u64, classes: u64) -> u64 {
    let aggregator = &config.aggregator;
    let size = |value: usize| value as u64;
    let (width, layers) = (size(aggregator.width), size(aggregator.layers));
    let (appearance, text) = (size(aggregator.appearance), size(aggregator.text));
    let most = size(aggregator.classes);
    let kept = if most == 0 {
        classes
    } else {
        classes.min(most)
    };
    let rows = kept.max(most);
    let length = size(super::swin::Windows::side(config.grid(), aggregator.window).pow(2));
    let (dim, tower) = (size(config.encoder.embed_dim), size(config.encoder.width));
    let features = aggregator.decoder_features.map(size);
    let guidance = aggregator.decoder_guidance.map(size);
    let channels = aggregator.decoder.map(size);

    // Once per window: upsampled features of middle blocks, guidance, and the cost volume.
    let upsampled = patches * tower * (4 * features[0] + 16 * features[1]);
    let guides = 9
        * (patches * dim * appearance
            + 4 * patches * features[0] * guidance[0]
            + 16 * patches * features[1] * guidance[1]);
    let cost = classes * patches * dim * size(aggregator.templates) + kept * dim * text;

    // Per class: embedding, window attention, decoder.
    let projections = 2 * (width + appearance) * width + 2 * width * width;
    let window_block = projections + 2 * length * width + 8 * width * width;
    let spatial = patches * (49 * size(aggregator.templates) * width + layers * 2 * window_block);
    let stage = |pixels: u64, input: u64, shared: u64, output: u64| {
        pixels * input * (input - shared) // 4 outputs for each of a quarter of the pixels
            + pixels * 9 * (input * output + output * output)
    };
    let decoder = stage(4 * patches, width, guidance[0], channels[0])
        + stage(16 * patches, channels[0], guidance[1], channels[1])
        + 16 * patches * 9 * channels[1];

    // Per token of the class axis, those that fill it included.
    let head_width = width / size(aggregator.heads);
    let among =
        2 * (width + text) * width + width * width + 2 * head_width * width + 8 * width * width;
    upsampled + guides + cost + kept * (spatial + decoder) + rows * layers * patches * among
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Encoder, VisionConfig},
        method::Architecture as _,
        methods::cat_seg::config::{AggregatorConfig, PixelStatistics, TextSizes, Tuning},
    };

    fn published(name: &str, side: usize, resolution: usize) -> CatSegConfig {
        let encoder = VisionConfig {
            input_resolution: resolution,
            double_class_embedding: false,
            ..Encoder::Named(name.into()).tower(resolution).unwrap()
        };
        CatSegConfig {
            text: TextSizes::published(encoder.embed_dim),
            side,
            crop: 384,
            taps: CatSegConfig::published_taps(encoder.layers),
            encoder,
            aggregator: AggregatorConfig::default(),
            tuning: Tuning::default(),
            statistics: PixelStatistics::default(),
        }
    }

    /// Parameters and multiply-accumulates in units of 10⁹ as counted on the reference.
    #[test]
    fn published_models_have_the_published_counts() {
        let base = published("ViT-B/16", 384, 224);
        let large = published("ViT-L/14", 336, 336);
        assert_eq!((base.taps, large.taps), ([3, 7], [7, 15]));
        for (config, all, trained) in [
            (&base, 154_289_378, 25_115_873),
            (&large, 433_726_946, 70_270_177),
        ] {
            config.check().unwrap();
            let params = config.cost(20).unwrap().params;
            assert_eq!((params.all, params.trained), (all, trained));
        }
        let close = |counted: u64, published: f64, digits: f64| {
            let counted = counted as f64 / 1e9;
            assert!(
                (counted - published).abs() < digits,
                "{counted} {published}"
            );
        };
        for (config, tower, text) in [(&base, 55.9, 2.98), (&large, 191.9, 6.65)] {
            close(macs(config, 20).encoder, tower, 0.06);
            close(macs(config, 20).text, text, 0.02);
        }
        for (classes, head, base_all, large_all) in [
            (20, 91.0, 734.6, 1418.0),
            (59, 137.3, 965.9, 1649.4),
            (150, 245.2, 1505.6, 2189.2),
            (171, 270.2, 1630.2, 2313.8),
            (256, 371.1, 2135.0, 2819.0),
            (847, 371.1, 2135.0, 2819.0),
        ] {
            close(macs(&base, classes).head, head, 0.3);
            close(base.cost(classes).unwrap().total(), base_all, 1.5);
            close(large.cost(classes).unwrap().total(), large_all, 1.5);
        }
    }
}
