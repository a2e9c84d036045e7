//! Registers CAT-Seg: its section of an experiment file, and the recognition of its checkpoints.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;

use super::{
    CatSeg,
    config::{AggregatorConfig, CatSegConfig, PixelStatistics, STRIDE, TextSizes, Tuning},
    count, keys,
};
use crate::{
    ModelError,
    config::{Activation, Encoder, VisionConfig},
    cost::{Cost, CostPart},
    inference::Inference,
    method::{Architecture, ExampleSize, Method, Model, PlainTower, Scoring, StartingPoint},
    section::Section,
    weights::{KeyTable, ParamBuilder, StateDict},
};

/// Prompt template of the published models.
const PUBLISHED_TEMPLATES: &str = "cat-seg";
/// Side in pixels of the images that CLIP's large published tower was trained on last; its table has 24×24 positions.
const LARGE_RESOLUTION: usize = 336;

/// CAT-Seg (CVPR 2024), registered in the list of methods.
#[derive(Debug)]
pub struct CatSegMethod;

/// The keys of CAT-Seg's section in an experiment file.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CatSegSection {
    /// Image encoder, given by name or by its sizes.
    encoder: Encoder,
    /// Side in pixels of the images that the encoder gets; windows of another size are resized.
    input_resolution: usize,
    /// Activation of the blocks of both encoders; `zeg train` sets it to that of the weights.
    #[serde(default)]
    activation: Activation,
    /// Text encoder; if `None`, that of CLIP's published model with the same joint space.
    #[serde(default)]
    text_encoder: Option<TextSizes>,
    /// Side in pixels of a window, a multiple of 32, for which the cost is computed; if `None`, the input resolution.
    #[serde(default)]
    crop: Option<usize>,
    /// The two middle blocks of the image encoder that guide the decoder, counted from 0; if `None`, the last ones of
    /// its first and second third.
    #[serde(default)]
    taps: Option<[usize; 2]>,
    /// The parts of CLIP that are fine-tuned.
    #[serde(default)]
    tuning: Tuning,
    /// The statistics that pixels are normalised with.
    #[serde(default)]
    pixel_statistics: PixelStatistics,
    /// The aggregator.
    #[serde(default)]
    aggregator: AggregatorConfig,
}

/// Returns the JSON schema of the method's `[model]` section.
#[cfg(feature = "schema")]
pub fn section_schema() -> schemars::Schema {
    schemars::schema_for!(CatSegSection)
}

impl Method for CatSegMethod {
    fn name(&self) -> &'static str {
        "cat-seg"
    }

    fn title(&self) -> &'static str {
        "CAT-Seg"
    }

    fn starting_point(&self) -> StartingPoint {
        StartingPoint::Masks
    }

    fn key_tables(&self) -> &'static [KeyTable] {
        &[keys::CAT_SEG]
    }

    fn configure(
        &self,
        section: &Section,
        _tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        let section: CatSegSection = section.read("`model` (method cat-seg)")?;
        let side = section.input_resolution;
        let tower = section.encoder.tower(side)?;
        // The published large model starts from the tower that was trained on larger images.
        let resolution = match tower.patch {
            14 if matches!(section.encoder, Encoder::Named(_)) => LARGE_RESOLUTION,
            _ => tower.input_resolution,
        };
        let encoder = VisionConfig {
            input_resolution: resolution,
            double_class_embedding: false,
            activation: section.activation,
            ..tower
        };
        let config = CatSegConfig {
            text: section
                .text_encoder
                .unwrap_or_else(|| TextSizes::published(encoder.embed_dim)),
            side,
            crop: section
                .crop
                .unwrap_or_else(|| side.next_multiple_of(STRIDE)),
            taps: section
                .taps
                .unwrap_or_else(|| CatSegConfig::published_taps(encoder.layers)),
            encoder,
            aggregator: section.aggregator,
            tuning: section.tuning,
            statistics: section.pixel_statistics,
        };
        config.check()?;
        Ok(Arc::new(config))
    }

    /// Returns the released sizes, or a narrow aggregator on an 8×8 grid.
    fn example(&self, size: ExampleSize) -> Section {
        let mut section = size.section();
        match size {
            ExampleSize::Published => section.set("input-resolution", 384),
            ExampleSize::Small => {
                section.set(
                    "text-encoder",
                    json!({ "width": 40, "layers": 2, "heads": 2 }),
                );
                section.set(
                    "aggregator",
                    json!({
                        "width": 36,
                        "layers": 1,
                        "heads": 3,
                        "window": 4,
                        "appearance": 20,
                        "text": 12,
                        "decoder": [32, 16],
                        "decoder-features": [20, 12],
                        "decoder-guidance": [12, 4],
                        "classes": 16,
                    }),
                );
            }
        }
        section
    }

    fn recognize(&self, weights: &StateDict) -> Result<Option<Arc<dyn Architecture>>, ModelError> {
        let Some(config) = CatSegConfig::from_weights(weights)? else {
            return Ok(None);
        };
        config.check()?;
        Ok(Some(Arc::new(config)))
    }
}

impl Architecture for CatSegConfig {
    fn method(&self) -> &'static str {
        CatSegMethod.name()
    }

    fn title(&self) -> &'static str {
        CatSegMethod.title()
    }

    fn assemble(
        &self,
        params: &ParamBuilder,
        _apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(CatSeg::from_params(params, self)?))
    }

    fn trains(&self, key: &str) -> bool {
        CatSeg::trains(self, key)
    }

    fn encoder(&self) -> Option<&VisionConfig> {
        Some(&self.encoder)
    }

    fn stride(&self) -> usize {
        STRIDE
    }

    /// Returns the side of the canvas of four windows, 640 pixels in the published models.
    fn resolution(&self) -> usize {
        let canvas = self.crop + self.step();
        (canvas / STRIDE * STRIDE).max(STRIDE)
    }

    fn scoring(&self) -> Scoring {
        Scoring::Sigmoid
    }

    fn templates(&self) -> Option<&'static str> {
        Some(PUBLISHED_TEMPLATES)
    }

    /// Returns the settings of the released evaluation. All published test sets share class names with the training, so
    /// no score is lowered.
    fn default_inference(&self) -> Inference {
        Inference {
            short_side: self.crop + self.step(),
            longest_side: 4 * (self.crop + self.step()),
            crop: self.crop,
            stride: self.step(),
            seen_offset: 0.0,
            ..Inference::default()
        }
    }

    fn cost(&self, classes: usize) -> Result<Cost, ModelError> {
        let list = (self as &dyn Architecture).params()?;
        let macs = count::macs(self, classes);
        let inputs = count::INPUTS as u64;
        let part = |key, label: &str, macs: u64| CostPart {
            key,
            label: label.into(),
            macs: inputs * macs,
        };
        Ok(Cost {
            params: count::params(&list),
            parts: vec![
                part("encoder", "encoder, 5 windows", macs.encoder),
                part("head", "aggregator, 5 windows", macs.head),
            ],
            crops: Some(count::INPUTS),
        })
    }
}
