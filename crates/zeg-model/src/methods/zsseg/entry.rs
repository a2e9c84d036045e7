//! Registers zsseg: its section of an experiment file, and the recognition of its checkpoints.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{
    Stage, Zsseg, ZssegConfig,
    config::{FOR_REGIONS, STRIDE, ZssegOptions},
    count::zsseg_parts,
    ensemble::Ensemble,
    keys,
};
use crate::{
    ModelError,
    config::{Activation, Encoder, VisionConfig},
    cost::Cost,
    inference::Inference,
    mask_transformer::{MaskTransformerConfig, count::param_counts},
    method::{Architecture, ExampleSize, Method, Model, PlainTower, Scoring, StartingPoint},
    section::Section,
    text::CONTEXT_KEY,
    weights::{KeyTable, ParamBuilder, StateDict},
};

/// zsseg (ECCV 2022), the two-stage method with learned prompts, registered in the list of methods.
#[derive(Debug)]
pub struct ZssegMethod;

/// The keys of zsseg's section in an experiment file.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ZssegSection {
    /// CLIP's image encoder, which classifies regions, given by name or by its sizes.
    encoder: Encoder,
    /// Side in pixels of the images for which the cost is computed.
    input_resolution: usize,
    /// Activation of the image encoder's blocks; `zeg train` sets it to that of the weights.
    #[serde(default)]
    activation: Activation,
    /// The stage, its learned vectors and crops.
    #[serde(default)]
    zsseg: ZssegConfig,
    /// The first stage of the segmenter.
    #[serde(default)]
    mask_transformer: MaskTransformerConfig,
}

/// Returns the JSON schema of the method's `[model]` section.
#[cfg(feature = "schema")]
pub fn section_schema() -> schemars::Schema {
    schemars::schema_for!(ZssegSection)
}

impl Method for ZssegMethod {
    fn name(&self) -> &'static str {
        "zsseg"
    }

    fn title(&self) -> &'static str {
        "zsseg"
    }

    fn starting_point(&self) -> StartingPoint {
        StartingPoint::Masks
    }

    fn key_tables(&self) -> &'static [KeyTable] {
        &[keys::ZSSEG]
    }

    /// Configures a zsseg whose regions are classified by CLIP as pre-trained.
    fn configure(
        &self,
        section: &Section,
        _tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        let section: ZssegSection = section.read("`model` (method zsseg)")?;
        let tower = VisionConfig {
            input_resolution: section.zsseg.crop_side,
            double_class_embedding: false,
            activation: section.activation,
            ..section.encoder.tower(section.input_resolution)?
        };
        let config = ZssegConfig {
            embed_dim: tower.embed_dim,
            classifier: Some(tower),
            resolution: section.input_resolution,
            first: section.mask_transformer,
            ..section.zsseg
        };
        config.check()?;
        Ok(Arc::new(config))
    }

    /// Returns the released sizes with fewer queries and without learned vectors: CLIP encodes a crop of each query,
    /// which would take most of a minute for 100, and the vectors are no part of an image's cost.
    fn example(&self, size: ExampleSize) -> Section {
        let mut section = size.section();
        section.set(
            "mask-transformer",
            match size {
                ExampleSize::Small => json!({
                    "backbone": {
                        "blocks": [1, 1, 1, 2],
                        "stem-kind": "triple",
                        "stem": 12,
                        "output": 24,
                        "bottleneck": 12,
                        "last-dilations": [1, 2],
                    },
                    "pixel-width": 24,
                    "norm-groups": 6,
                    "mask-width": 20,
                    "queries": 5,
                    "width": 36,
                    "heads": 3,
                    "layers": 2,
                    "feed-forward": 50,
                }),
                ExampleSize::Published => json!({ "queries": 8 }),
            },
        );
        section.set(
            "zsseg",
            match size {
                ExampleSize::Small => json!({
                    "prompt-vectors": 0,
                    "class-hidden": 52,
                    "crop-side": 64,
                    "region-size": [72, 64],
                }),
                ExampleSize::Published => json!({ "prompt-vectors": 0 }),
            },
        );
        section
    }

    fn recognize(&self, weights: &StateDict) -> Result<Option<Arc<dyn Architecture>>, ModelError> {
        let found = ZssegConfig::from_weights(weights)?;
        Ok(found.map(|config| Arc::new(config) as Arc<dyn Architecture>))
    }
}

impl Architecture for ZssegConfig {
    fn method(&self) -> &'static str {
        ZssegMethod.name()
    }

    fn title(&self) -> &'static str {
        ZssegMethod.title()
    }

    fn assemble(
        &self,
        params: &ParamBuilder,
        apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(Zsseg::from_params(params, apart, self)?))
    }

    fn trains(&self, key: &str) -> bool {
        Self::trains(self, key)
    }

    /// Returns `true` for the segmenter's parts that are in no other file: the statistics of the backbone's norms, and
    /// the learned vectors.
    fn keeps(&self, key: &str) -> bool {
        let frozen_norm = key.starts_with("backbone.") && key.contains(".norm.");
        self.stage == Stage::Segmenter && (frozen_norm || key == CONTEXT_KEY)
    }

    fn is_backbone(&self, key: &str) -> bool {
        key.starts_with("backbone.") && !key.contains(".norm.")
    }

    /// Returns `true` for the mark of learned vectors that serve for crops alone.
    fn is_idle(&self, key: &str) -> bool {
        key == FOR_REGIONS
    }

    /// Returns the name of CLIP's own tower in a model's weights, under which the classifier is read.
    fn weight_name(&self, key: &str) -> String {
        match key.strip_prefix("classifier.tower.") {
            Some(rest) => format!("backbone.{rest}"),
            None => key.to_owned(),
        }
    }

    fn encoder(&self) -> Option<&VisionConfig> {
        self.classifier.as_ref()
    }

    fn stride(&self) -> usize {
        match self.stage {
            Stage::Prompts => 1,
            Stage::Segmenter => STRIDE,
        }
    }

    fn resolution(&self) -> usize {
        self.resolution
    }

    fn scoring(&self) -> Scoring {
        Scoring::MaskSum
    }

    fn with_tower(&self, tower: &VisionConfig) -> Option<Arc<dyn Architecture>> {
        self.classifier.is_none().then(|| {
            let classifier = Some(tower.clone());
            Arc::new(Self {
                classifier,
                ..self.clone()
            }) as Arc<dyn Architecture>
        })
    }

    /// Returns `true` for a segmenter after the prompts that were learned with the same CLIP.
    fn follows(&self, earlier: &dyn Architecture) -> bool {
        self.stage == Stage::Segmenter
            && earlier.method() == self.method()
            && earlier.trains(CONTEXT_KEY)
            && earlier.encoder() == self.encoder()
    }

    fn templates(&self) -> Option<&'static str> {
        self.released_templates.map(|[queries, _]| queries)
    }

    /// Returns the settings of the released evaluation on COCO-Stuff; without CLIP, only the queries' own scores are
    /// used.
    fn default_inference(&self) -> Inference {
        let crops = self.released_templates;
        let options = ZssegOptions {
            fusion: match self.classifier {
                Some(_) => Ensemble::default(),
                None => Ensemble::QueriesAlone,
            },
            crop_templates: crops
                .filter(|[queries, crops]| queries != crops)
                .map(|[_, crops]| crops.to_owned()),
            ..ZssegOptions::default()
        };
        Inference {
            short_side: 640,
            longest_side: 2560,
            seen_offset: 0.0,
            method: Section::of(&options).unwrap_or_default(),
            ..Inference::default()
        }
    }

    fn cost(&self, classes: usize) -> Result<Cost, ModelError> {
        let list = (self as &dyn Architecture).params()?;
        Ok(Cost {
            params: param_counts(&list),
            parts: zsseg_parts(self, self.resolution, classes),
            crops: match self.stage {
                Stage::Prompts => None,
                Stage::Segmenter => Some(self.first.queries),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::StatedHeads;

    /// A small model whose sizes that no tensor tells are the released ones.
    fn small(vectors: usize) -> Arc<dyn Architecture> {
        let mut section = ExampleSize::Small.section();
        section.set(
            "mask-transformer",
            json!({
                "backbone": {
                    "blocks": [1, 1, 1, 3],
                    "stem-kind": "triple",
                    "stem": 12,
                    "output": 24,
                    "bottleneck": 12,
                    "last-dilations": [1, 2, 4],
                },
                "pixel-width": 32,
                "mask-width": 20,
                "queries": 5,
                "width": 32,
                "layers": 2,
                "feed-forward": 50,
            }),
        );
        let sizes = json!({
            "prompt-vectors": vectors,
            "prompt-width": 72,
            "class-hidden": 52,
            "crop-side": 64,
        });
        section.set("zsseg", sizes);
        ZssegMethod.configure(&section, None).unwrap()
    }

    #[test]
    fn weights_in_the_published_layout_are_recognised() {
        for (vectors, queries) in [(4, "learned"), (0, "vild-14")] {
            let built = small(vectors);
            let mut weights = crate::generated::weights(&*built, 3).unwrap();
            weights.state_heads(StatedHeads {
                image: built.encoder().map(|tower| tower.heads),
                text: None,
            });
            let methods = crate::methods::Methods::default();
            let found = crate::recognize::Recognized::from_weights(&weights, &methods).unwrap();
            let crate::recognize::Recognized::Trained(found) = found else {
                panic!("the weights are taken for plain CLIP");
            };
            assert_eq!(
                (found.method(), found.templates()),
                ("zsseg", Some(queries))
            );
            assert_eq!(found.params().unwrap(), built.params().unwrap());
        }
    }

    #[test]
    fn a_segmenter_starts_from_prompts_that_were_learned_with_its_clip() {
        let tower = ExampleSize::Small.tower().encoder;
        let segmenter = ZssegConfig {
            embed_dim: tower.embed_dim,
            classifier: Some(tower),
            ..ZssegConfig::default()
        };
        let prompts = ZssegConfig {
            stage: Stage::Prompts,
            ..segmenter.clone()
        };
        let other = ZssegConfig {
            classifier: Some(ExampleSize::Published.tower().encoder),
            ..prompts.clone()
        };
        assert!(segmenter.follows(&prompts));
        assert!(!segmenter.follows(&segmenter) && !prompts.follows(&prompts));
        assert!(!segmenter.follows(&other));
    }
}
