//! The cost of a zsseg: multiply-accumulates, computed from its architecture; see
//! [`mask_transformer::count`](crate::mask_transformer::count).

use super::config::{Stage, ZssegConfig};
use crate::{
    cost::CostPart,
    mask_transformer::count::{backbone_macs, pixel_decoder_macs, predictor_macs, tower_macs},
};

/// Counts the multiply-accumulates of each part for one image of `size`×`size` pixels with `classes` classes and one
/// crop per query; for a model that holds learned prompts alone, those of one region.
pub fn zsseg_parts(config: &ZssegConfig, size: usize, classes: usize) -> Vec<CostPart> {
    let part = |key, label: String, macs| CostPart { key, label, macs };
    let tower = config.classifier.as_ref().map_or(0, tower_macs);
    let (first, classes) = (&config.first, classes as u64);
    match config.stage {
        Stage::Prompts => vec![part("encoder", "one region".into(), tower)],
        Stage::Segmenter => {
            let (hidden, dim) = (config.class_hidden as u64, config.embed_dim as u64);
            let class_head = first.width as u64 * hidden + hidden * dim + dim * (classes + 1);
            let head = backbone_macs(&first.backbone, size)
                + pixel_decoder_macs(first, size)
                + predictor_macs(first, size, class_head);
            let crops = first.queries as u64 * tower;
            vec![
                part("head", "first stage".into(), head),
                part("encoder", format!("{} crops", first.queries), crops),
            ]
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        mask_transformer::{MaskTransformerConfig, ResNetConfig},
        method::Architecture,
        methods::zsseg::{Stage, ZssegConfig},
    };

    /// Trained parameters as counted in the reference's own models.
    #[test]
    fn published_models_have_the_published_parameters() {
        let trained = |config: &ZssegConfig| -> usize {
            let list = (config as &dyn Architecture).params().unwrap();
            let trained = list.iter().filter(|param| param.trained);
            trained
                .map(|param| param.shape.iter().product::<usize>())
                .sum()
        };
        for (backbone, expected) in [
            (ResNetConfig::default(), 42_004_416),
            (ResNetConfig::deep_lab_101(), 61_067_712),
        ] {
            let config = ZssegConfig {
                first: MaskTransformerConfig {
                    backbone,
                    ..MaskTransformerConfig::default()
                },
                ..ZssegConfig::default()
            };
            assert_eq!(trained(&config), expected);
        }
        let prompts = ZssegConfig {
            stage: Stage::Prompts,
            ..ZssegConfig::default()
        };
        assert_eq!(trained(&prompts), 8192);
    }
}
