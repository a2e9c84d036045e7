//! Registers MaskCLIP+: its section of an experiment file, and the recognition of its checkpoints.

use std::sync::Arc;

use super::{
    MaskClipPlus, MaskClipPlusConfig,
    config::{GuideConfig, MaskClipPlusSection},
    count, keys,
};
use crate::{
    ModelError,
    config::VisionConfig,
    cost::{Cost, CostPart, ParamCounts},
    inference::{Inference, InferenceMode},
    method::{Architecture, ExampleSize, Method, Model, PlainTower, Scoring, StartingPoint},
    section::Section,
    weights::{KeyTable, ParamBuilder, StateDict},
};

/// Prefix of CLIP's image tower in a model.
const GUIDE: &str = "decode_head.clip.";

/// MaskCLIP+ (ECCV 2022), registered in the list of methods.
#[derive(Debug)]
pub struct MaskClipPlusMethod;

/// Returns the JSON schema of the method's `[model]` section.
#[cfg(feature = "schema")]
pub fn section_schema() -> schemars::Schema {
    schemars::schema_for!(MaskClipPlusSection)
}

impl Method for MaskClipPlusMethod {
    fn name(&self) -> &'static str {
        "maskclip-plus"
    }

    fn title(&self) -> &'static str {
        "MaskCLIP+"
    }

    fn starting_point(&self) -> StartingPoint {
        StartingPoint::Masks
    }

    fn key_tables(&self) -> &'static [KeyTable] {
        &[keys::MASKCLIP_PLUS, keys::RESNET_V1C]
    }

    fn configure(
        &self,
        section: &Section,
        _tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        let section: MaskClipPlusSection = section.read("`model` (method maskclip-plus)")?;
        Ok(Arc::new(section.config()?))
    }

    /// Returns a section with one block in every stage of the student, which would take a minute with all of them.
    fn example(&self, size: ExampleSize) -> Section {
        let mut section = size.section();
        let width = match size {
            ExampleSize::Small => 12,
            ExampleSize::Published => 32,
        };
        section.set("student", MaskClipPlusSection::example_student(width));
        section
    }

    fn recognize(&self, weights: &StateDict) -> Result<Option<Arc<dyn Architecture>>, ModelError> {
        let Some(config) = MaskClipPlusConfig::from_weights(weights) else {
            return Ok(None);
        };
        config.check()?;
        Ok(Some(Arc::new(config)))
    }
}

impl Architecture for MaskClipPlusConfig {
    fn method(&self) -> &'static str {
        MaskClipPlusMethod.name()
    }

    fn title(&self) -> &'static str {
        MaskClipPlusMethod.title()
    }

    fn assemble(
        &self,
        params: &ParamBuilder,
        apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(MaskClipPlus::from_params(params, apart, self)?))
    }

    fn trains(&self, key: &str) -> bool {
        MaskClipPlus::is_students(key) && !MaskClipPlus::is_running(key)
    }

    fn keeps(&self, key: &str) -> bool {
        MaskClipPlus::is_students(key) && MaskClipPlus::is_running(key)
    }

    /// Returns CLIP's own name of a parameter of its image tower.
    fn weight_name(&self, key: &str) -> String {
        match key.strip_prefix(GUIDE) {
            Some(rest) => format!("backbone.{rest}"),
            None => key.to_owned(),
        }
    }

    fn is_backbone(&self, key: &str) -> bool {
        key.starts_with("student.")
    }

    /// Returns the image tower that guides in training, if it is a transformer.
    fn encoder(&self) -> Option<&VisionConfig> {
        match &self.guide {
            GuideConfig::Transformer(tower) => Some(tower),
            GuideConfig::Residual { .. } => None,
        }
    }

    fn stride(&self) -> usize {
        1
    }

    fn resolution(&self) -> usize {
        self.resolution
    }

    fn scoring(&self) -> Scoring {
        Scoring::Softmax
    }

    /// Returns the released settings: the whole image, without calibration.
    fn default_inference(&self) -> Inference {
        Inference {
            longest_side: 2048,
            mode: InferenceMode::Whole,
            seen_offset: 0.0,
            ..Inference::default()
        }
    }

    fn cost(&self, classes: usize) -> Result<Cost, ModelError> {
        let list = (self as &dyn Architecture).params()?;
        let size = |shape: &[usize]| shape.iter().product::<usize>() as u64;
        // The reference's statistics are buffers, which it does not count.
        let counted = list.iter().filter(|p| !MaskClipPlus::is_running(&p.name));
        let trained = list
            .iter()
            .filter(|p| p.trained)
            .map(|p| size(&p.shape))
            .sum();
        let part = |key, label: &str, macs| CostPart {
            key,
            label: label.to_owned(),
            macs,
        };
        let macs = count::macs(self, classes);
        Ok(Cost {
            params: ParamCounts {
                all: counted.map(|p| size(&p.shape)).sum(),
                trained,
                declared_by_reference: trained,
            },
            parts: vec![
                part("encoder", "student's backbone", macs.backbone),
                part("head", "decoder and classifier", macs.head),
            ],
            crops: None,
        })
    }
}
