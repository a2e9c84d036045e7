//! CLIP-RC's configuration: its section of an experiment file, and the recognition of its checkpoints.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ClipRc, cost, keys};
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

/// Number of region tokens of the released models.
const RELEASED_REGIONS: usize = 16;

/// CLIP-RC (CVPR 2024), registered in the list of methods.
#[derive(Debug)]
pub struct ClipRcMethod;

/// The configuration of a CLIP-RC model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClipRcConfig {
    /// The image encoder, with region tokens.
    pub encoder: VisionConfig,
    /// The decoder head; each of the two decoders has these numbers of layers and heads.
    #[serde(default)]
    pub head: HeadConfig,
    /// Whether the encoder is fine-tuned, too; as published, only prompts and head are trained.
    #[serde(default)]
    pub tune_encoder: bool,
}

impl ClipRcConfig {
    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Returns the errors of every encoder and head, and an error if there are no region tokens.
    pub fn check(&self) -> Result<(), ModelError> {
        check_parts(&self.encoder, &self.head)?;
        if self.encoder.regions.is_none_or(|regions| regions == 0) {
            return Err(ModelError::Config(
                "CLIP-RC needs region tokens (`regions`, a square number; 16 as released)".into(),
            ));
        }
        Ok(())
    }
}

/// The keys of CLIP-RC's section in an experiment file.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ClipRcSection {
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
    /// Number of region tokens: a square number, whose lattice divides the patch grid; 16 as released.
    #[serde(default)]
    regions: Option<usize>,
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
    schemars::schema_for!(ClipRcSection)
}

impl Method for ClipRcMethod {
    fn name(&self) -> &'static str {
        "clip-rc"
    }

    fn title(&self) -> &'static str {
        "CLIP-RC"
    }

    fn starting_point(&self) -> StartingPoint {
        StartingPoint::Masks
    }

    fn key_tables(&self) -> &'static [KeyTable] {
        &[keys::CLIP_RC]
    }

    fn configure(
        &self,
        section: &Section,
        _tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        let section: ClipRcSection = section.read("`model` (method clip-rc)")?;
        let config = ClipRcConfig {
            encoder: VisionConfig {
                input_resolution: section.input_resolution,
                double_class_embedding: section.double_class_embedding,
                prompts: section.prompts,
                activation: section.activation,
                regions: section.regions.or(Some(RELEASED_REGIONS)),
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
        let Some(head) = decoder_head(weights, "decode_head.decoder_q.") else {
            return Ok(None);
        };
        let regions = weights.shape("backbone.region_level_bridge");
        let config = ClipRcConfig {
            tune_encoder: false,
            head,
            encoder: VisionConfig {
                regions: regions.and_then(|shape| shape.first().copied()),
                ..prompted_tower(weights)?
            },
        };
        config.check()?;
        Ok(Some(Arc::new(config)))
    }
}

impl Architecture for ClipRcConfig {
    fn method(&self) -> &'static str {
        ClipRcMethod.name()
    }

    fn title(&self) -> &'static str {
        ClipRcMethod.title()
    }

    fn assemble(
        &self,
        params: &ParamBuilder,
        _apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(ClipRc::from_params(params, self)?))
    }

    fn trains(&self, key: &str) -> bool {
        ClipRc::trains(self, key)
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

    /// Checks that the lattice of region tokens divides the patch grid; remaining patches would belong to no region.
    fn check_side(&self, setting: &str, pixels: usize) -> Result<(), ModelError> {
        let (patch, regions) = (self.encoder.patch, self.encoder.regions.unwrap_or(1));
        let (lattice, grid) = (regions.isqrt().max(1), pixels / patch);
        if grid == 0 || !grid.is_multiple_of(lattice) {
            let fitting = (1..=grid).filter(|side| grid.is_multiple_of(*side));
            let fitting: Vec<String> = fitting.map(|side| (side * side).to_string()).collect();
            return Err(ModelError::Config(format!(
                "model.regions = {regions}: a lattice of {lattice}×{lattice} does not divide the {grid}×{grid} patches \
                 of {pixels} pixels ({setting}); these do: {}",
                fitting.join(", ")
            )));
        }
        Ok(())
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
