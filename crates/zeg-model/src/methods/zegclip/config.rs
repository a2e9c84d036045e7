//! ZegCLIP's configuration: its section of an experiment file, and the recognition of its checkpoints.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ZegClip, cost, keys};
use crate::{
    ModelError,
    config::{Activation, Encoder, HeadConfig, PromptConfig, VisionConfig, check_parts},
    cost::Cost,
    decoder,
    method::{Architecture, ExampleSize, Method, Model, PlainTower, Scoring, StartingPoint},
    recognize::{decoder_head, prompted_tower},
    section::Section,
    weights::{KeyTable, ParamBuilder, StateDict},
};

/// ZegCLIP (CVPR 2023), registered in the list of methods.
#[derive(Debug)]
pub struct ZegClipMethod;

/// The configuration of a ZegCLIP model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ZegClipConfig {
    /// The image encoder.
    pub encoder: VisionConfig,
    /// The decoder head.
    #[serde(default)]
    pub head: HeadConfig,
    /// Whether the encoder is fine-tuned, too; as published, only prompts and head are trained.
    #[serde(default)]
    pub tune_encoder: bool,
}

impl ZegClipConfig {
    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Returns the errors of [`VisionConfig::check`], and an error if the head's heads do not divide its width.
    pub fn check(&self) -> Result<(), ModelError> {
        check_parts(&self.encoder, &self.head)
    }
}

/// The keys of ZegCLIP's section in an experiment file.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ZegClipSection {
    /// Image encoder, given by name or by its sizes.
    encoder: Encoder,
    /// Side in pixels of the images to whose patch grid the position table is resized.
    input_resolution: usize,
    /// Activation of the image encoder's blocks; `zeg train` sets it to that of the weights.
    #[serde(default)]
    activation: Activation,
    /// See [`VisionConfig::double_class_embedding`].
    #[serde(default = "yes")]
    double_class_embedding: bool,
    /// Deep prompts; if `None`, the encoder is used without prompts ("fixed").
    #[serde(default)]
    prompts: Option<PromptConfig>,
    /// Whether the whole encoder is fine-tuned ("FT" in the paper's ablation), in addition to the prompts and the head.
    #[serde(default)]
    tune_encoder: bool,
    /// The decoder head.
    #[serde(default)]
    head: HeadConfig,
}

fn yes() -> bool {
    true
}

/// Returns the JSON schema of the method's `[model]` section.
#[cfg(feature = "schema")]
pub fn section_schema() -> schemars::Schema {
    schemars::schema_for!(ZegClipSection)
}

impl Method for ZegClipMethod {
    fn name(&self) -> &'static str {
        "zegclip"
    }

    fn title(&self) -> &'static str {
        "ZegCLIP"
    }

    fn starting_point(&self) -> StartingPoint {
        StartingPoint::Masks
    }

    fn key_tables(&self) -> &'static [KeyTable] {
        &[keys::ZEGCLIP]
    }

    fn configure(
        &self,
        section: &Section,
        _tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        let section: ZegClipSection = section.read("`model` (method zegclip)")?;
        let config = ZegClipConfig {
            encoder: VisionConfig {
                input_resolution: section.input_resolution,
                double_class_embedding: section.double_class_embedding,
                prompts: section.prompts,
                activation: section.activation,
                ..section.encoder.tower(section.input_resolution)?
            },
            head: section.head,
            tune_encoder: section.tune_encoder,
        };
        config.check()?;
        Ok(Arc::new(config))
    }

    /// Returns a section with prompts in every block, as released.
    fn example(&self, size: ExampleSize) -> Section {
        let mut section = size.section();
        let (tokens, blocks) = match size {
            ExampleSize::Small => (3, 3),
            ExampleSize::Published => (10, 12),
        };
        section.set(
            "prompts",
            json!({ "tokens": tokens, "depth": { "first": blocks } }),
        );
        if size == ExampleSize::Small {
            section.set("head", json!({ "heads": 4, "feed-forward": 100 }));
        }
        section
    }

    fn recognize(&self, weights: &StateDict) -> Result<Option<Arc<dyn Architecture>>, ModelError> {
        let Some(head) = decoder_head(weights, "decode_head.decoder_1.") else {
            return Ok(None);
        };
        let config = ZegClipConfig {
            tune_encoder: false,
            head,
            encoder: prompted_tower(weights)?,
        };
        config.check()?;
        Ok(Some(Arc::new(config)))
    }
}

impl Architecture for ZegClipConfig {
    fn method(&self) -> &'static str {
        ZegClipMethod.name()
    }

    fn title(&self) -> &'static str {
        ZegClipMethod.title()
    }

    fn assemble(
        &self,
        params: &ParamBuilder,
        _apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(ZegClip::from_params(params, self)?))
    }

    fn trains(&self, key: &str) -> bool {
        ZegClip::trains(self, key)
    }

    fn is_idle(&self, key: &str) -> bool {
        decoder::is_idle(key)
    }

    fn encoder(&self) -> Option<&VisionConfig> {
        Some(&self.encoder)
    }

    fn stride(&self) -> usize {
        self.encoder.patch
    }

    fn resolution(&self) -> usize {
        self.encoder.input_resolution
    }

    fn scoring(&self) -> Scoring {
        self.head.scoring
    }

    fn has_frozen_encoder(&self) -> bool {
        self.encoder.prompts.is_none() && !self.tune_encoder
    }

    fn cost(&self, classes: usize) -> Result<Cost, ModelError> {
        let list = (self as &dyn Architecture).params()?;
        Ok(Cost {
            params: cost::params(&list, self),
            parts: cost::macs(self, self.resolution(), classes).parts(),
            crops: None,
        })
    }
}
