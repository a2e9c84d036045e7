//! Registers ZegFormer: its section of an experiment file, and the recognition of its checkpoints.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{
    ZegFormer, ZegFormerConfig,
    classifier::RELEASED_CLIP,
    config::{PROJECTION, STRIDE, ZegFormerOptions},
    count::zegformer_macs,
    fusion::Fusion,
    keys,
};
use crate::{
    ModelError,
    config::{Activation, Encoder, VisionConfig},
    cost::{Cost, CostPart},
    inference::Inference,
    mask_transformer::count::param_counts,
    method::{Architecture, ExampleSize, Method, Model, PlainTower, Scoring, StartingPoint},
    renamed::take_at,
    section::Section,
    weights::{KeyTable, ParamBuilder, StateDict},
};

/// Number of attention heads of the released ZegFormers; it cannot be read from any tensor.
const RELEASED_HEADS: usize = 8;
/// Prompt templates of the released ZegFormers for crops, independent of those of their own head.
const RELEASED_CROP_TEMPLATES: &str = "zegformer-32";

/// ZegFormer (CVPR 2022), the two-stage method, registered in the list of methods.
#[derive(Debug)]
pub struct ZegFormerMethod;

/// The keys of ZegFormer's section in an experiment file.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ZegFormerSection {
    /// Image encoder of the crops in the second stage, given by name or by its sizes.
    encoder: Encoder,
    /// Side in pixels of the images for which the cost is computed.
    input_resolution: usize,
    /// Activation of the image encoder's blocks; `zeg train` sets it to that of the weights.
    #[serde(default)]
    activation: Activation,
    /// The first stage.
    #[serde(default)]
    zegformer: ZegFormerConfig,
}

/// Returns the JSON schema of the method's `[model]` section.
#[cfg(feature = "schema")]
pub fn section_schema() -> schemars::Schema {
    schemars::schema_for!(ZegFormerSection)
}

impl Method for ZegFormerMethod {
    fn name(&self) -> &'static str {
        "zegformer"
    }

    fn title(&self) -> &'static str {
        "ZegFormer"
    }

    fn starting_point(&self) -> StartingPoint {
        StartingPoint::Masks
    }

    fn key_tables(&self) -> &'static [KeyTable] {
        &[keys::ZEGFORMER]
    }

    /// Configures a ZegFormer whose crops are encoded by CLIP as pre-trained.
    fn configure(
        &self,
        section: &Section,
        _tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        let section: ZegFormerSection = section.read("`model` (method zegformer)")?;
        let first = section.zegformer;
        let tower = VisionConfig {
            input_resolution: first.crop_side,
            double_class_embedding: false,
            activation: section.activation,
            ..section.encoder.tower(section.input_resolution)?
        };
        let config = ZegFormerConfig {
            embed_dim: tower.embed_dim,
            classifier: Some(tower),
            resolution: section.input_resolution,
            ..first
        };
        config.check()?;
        Ok(Arc::new(config))
    }

    /// Returns the released sizes with fewer queries: CLIP encodes a crop of each, which would take most of a minute
    /// for 100.
    fn example(&self, size: ExampleSize) -> Section {
        let mut section = size.section();
        section.set(
            "zegformer",
            match size {
                ExampleSize::Small => json!({
                    "backbone": { "blocks": [1, 1, 1, 1], "stem": 12, "output": 24, "bottleneck": 12 },
                    "pixel-width": 24,
                    "norm-groups": 6,
                    "mask-width": 20,
                    "queries": 5,
                    "width": 36,
                    "heads": 3,
                    "layers": 2,
                    "feed-forward": 50,
                    "crop-side": 64,
                }),
                ExampleSize::Published => json!({ "queries": 8 }),
            },
        );
        section
    }

    fn recognize(&self, weights: &StateDict) -> Result<Option<Arc<dyn Architecture>>, ModelError> {
        if !weights.contains(PROJECTION) {
            return Ok(None);
        }
        let config = ZegFormerConfig {
            dropout: 0.0,
            ..ZegFormerConfig::from_weights(weights, RELEASED_HEADS)?
        };
        config.check()?;
        Ok(Some(Arc::new(config)))
    }

    /// Removes the keys of one-stage methods, which older experiments contain with their default values.
    fn upgrade_experiment(&self, experiment: &mut serde_json::Value) {
        for key in [
            "model.head",
            "model.double-class-embedding",
            "training.loss",
        ] {
            take_at(experiment, key);
        }
    }
}

impl Architecture for ZegFormerConfig {
    fn method(&self) -> &'static str {
        ZegFormerMethod.name()
    }

    fn title(&self) -> &'static str {
        ZegFormerMethod.title()
    }

    fn assemble(
        &self,
        params: &ParamBuilder,
        apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(ZegFormer::from_params(params, apart, self)?))
    }

    fn trains(&self, key: &str) -> bool {
        ZegFormer::trains(key)
    }

    /// Returns `true` for the statistics of the backbone's norms, which are in no other file.
    fn keeps(&self, key: &str) -> bool {
        key.starts_with("backbone.") && key.contains(".norm.")
    }

    fn is_backbone(&self, key: &str) -> bool {
        key.starts_with("backbone.") && !key.contains(".norm.")
    }

    /// Returns `true` for CLIP in a released model: its tower has names of its own there, and what else it holds is not
    /// needed.
    fn is_idle(&self, key: &str) -> bool {
        key.strip_prefix(RELEASED_CLIP)
            .is_some_and(|rest| rest.starts_with('.'))
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
        STRIDE
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

    /// Returns the settings of the released evaluation; without CLIP, only the queries' own scores are used.
    fn default_inference(&self) -> Inference {
        let options = ZegFormerOptions {
            fusion: match self.classifier {
                Some(_) => Fusion::default(),
                None => Fusion::QueryAlone,
            },
            crop_templates: Some(RELEASED_CROP_TEMPLATES.to_owned()),
            ..ZegFormerOptions::default()
        };
        Inference {
            longest_side: 2048,
            method: Section::of(&options).unwrap_or_default(),
            ..Inference::default()
        }
    }

    fn cost(&self, classes: usize) -> Result<Cost, ModelError> {
        let list = (self as &dyn Architecture).params()?;
        let macs = zegformer_macs(self, self.resolution, classes).summed();
        let part = |key, label: String, macs| CostPart { key, label, macs };
        Ok(Cost {
            params: param_counts(&list),
            parts: vec![
                part("head", "first stage".into(), macs.head),
                part("encoder", format!("{} crops", self.queries), macs.encoder),
            ],
            crops: Some(self.queries),
        })
    }
}
