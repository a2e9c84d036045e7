//! Registers the training-free methods in the list of methods.

use std::sync::Arc;

use serde::Deserialize;
use zeg_image::normalize::Normalization;

use super::{DenseAttention, LastBlock, TrainingFree, TrainingFreeConfig};
use crate::{
    ModelError,
    config::VisionConfig,
    cost::{Cost, Macs, count_params, encoder_macs, patches},
    inference::Inference,
    method::{Architecture, Method, Model, PlainTower, Scoring, StartingPoint},
    section::Section,
    weights::ParamBuilder,
};

/// A training-free method in the list of methods.
#[derive(Debug)]
pub struct TrainingFreeMethod {
    attention: DenseAttention,
    name: &'static str,
    title: &'static str,
}

/// The combination of steps that was best in the project's own measurements.
pub static COMBINED: TrainingFreeMethod = TrainingFreeMethod {
    attention: DenseAttention::Combined,
    name: "combined",
    title: "Combined training-free steps",
};

/// ClearCLIP, the best of the family that changes the attention alone.
pub static CLEAR_CLIP: TrainingFreeMethod = TrainingFreeMethod {
    attention: DenseAttention::ClearClip,
    name: "clearclip",
    title: "ClearCLIP",
};

/// SC-CLIP.
static SC_CLIP: TrainingFreeMethod = TrainingFreeMethod {
    attention: DenseAttention::ScClip,
    name: "sc-clip",
    title: "SC-CLIP",
};

/// PEARL's rotation of keys.
static PEARL: TrainingFreeMethod = TrainingFreeMethod {
    attention: DenseAttention::Pearl,
    name: "pearl",
    title: "PEARL (rotated keys)",
};

/// SCLIP.
static SCLIP: TrainingFreeMethod = TrainingFreeMethod {
    attention: DenseAttention::Sclip,
    name: "sclip",
    title: "SCLIP",
};

/// NACLIP.
static NACLIP: TrainingFreeMethod = TrainingFreeMethod {
    attention: DenseAttention::Naclip,
    name: "naclip",
    title: "NACLIP",
};

/// MaskCLIP, which uses only the value path.
static MASK_CLIP: TrainingFreeMethod = TrainingFreeMethod {
    attention: DenseAttention::MaskClip,
    name: "maskclip",
    title: "MaskCLIP",
};

/// CLIP's own attention, as a baseline.
static PLAIN: TrainingFreeMethod = TrainingFreeMethod {
    attention: DenseAttention::Plain,
    name: "clip",
    title: "CLIP",
};

/// All training-free methods, the best first.
pub static FAMILY: [&TrainingFreeMethod; 8] = [
    &COMBINED,
    &CLEAR_CLIP,
    &PEARL,
    &SC_CLIP,
    &SCLIP,
    &NACLIP,
    &MASK_CLIP,
    &PLAIN,
];

/// The options of every training-free method.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct TrainingFreeSection {
    /// Parts of the last block that are used besides its attention.
    last_block: LastBlock,
    /// Scale of cosine similarities before the softmax over classes.
    logit_scale: f32,
    /// Threshold of MaskCLIP's prompt denoising, 0 to 1: a class that is less probable everywhere in a window is left
    /// out. 0 leaves out the refinement; the published threshold is 0.5.
    prompt_denoising: f32,
    /// Threshold of MaskCLIP's key smoothing, 0 to 1: where no class is as probable, scores are averaged over places
    /// with similar keys. 0 leaves out the refinement; the published threshold is 1.
    key_smoothing: f32,
}

impl Default for TrainingFreeSection {
    fn default() -> Self {
        let config = TrainingFreeConfig::new(DenseAttention::Plain);
        Self {
            last_block: config.last_block,
            logit_scale: config.logit_scale,
            prompt_denoising: config.prompt_denoising,
            key_smoothing: config.key_smoothing,
        }
    }
}

/// Returns the JSON schema of the methods' options.
#[cfg(feature = "schema")]
pub fn section_schema() -> schemars::Schema {
    schemars::schema_for!(TrainingFreeSection)
}

impl Method for TrainingFreeMethod {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn starting_point(&self) -> StartingPoint {
        StartingPoint::PlainClip
    }

    fn configure(
        &self,
        section: &Section,
        tower: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        let section: TrainingFreeSection = section.read("the options of the method")?;
        if !(section.logit_scale.is_finite() && section.logit_scale > 0.0) {
            return Err(ModelError::Config(format!(
                "logit-scale {}: must be a number above 0",
                section.logit_scale
            )));
        }
        for (name, value) in [
            ("prompt-denoising", section.prompt_denoising),
            ("key-smoothing", section.key_smoothing),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(ModelError::Config(format!(
                    "{name} {value}: must be a number from 0 to 1"
                )));
            }
        }
        let tower = tower.ok_or_else(|| {
            ModelError::Config(format!(
                "{} is not trained; use it with plain CLIP weights",
                self.title
            ))
        })?;
        Ok(Arc::new(TrainingFreeArchitecture {
            name: self.name,
            title: self.title,
            config: TrainingFreeConfig {
                attention: self.attention,
                last_block: section.last_block,
                prompt_denoising: section.prompt_denoising,
                key_smoothing: section.key_smoothing,
                logit_scale: section.logit_scale,
            },
            encoder: tower.encoder.clone(),
            normalization: tower.normalization,
        }))
    }
}

/// A training-free method configured for an image tower.
#[derive(Debug, Clone)]
struct TrainingFreeArchitecture {
    name: &'static str,
    title: &'static str,
    config: TrainingFreeConfig,
    encoder: VisionConfig,
    normalization: Normalization,
}

impl Architecture for TrainingFreeArchitecture {
    fn method(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn assemble(
        &self,
        params: &ParamBuilder,
        _apart: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(TrainingFree::from_params(
            params,
            &self.encoder,
            self.config,
            self.normalization,
        )?))
    }

    fn trains(&self, _key: &str) -> bool {
        false
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
        Scoring::Softmax
    }

    /// Returns the method's own sizes, or smaller ones for a tower that was trained on smaller images.
    fn default_inference(&self) -> Inference {
        let usual = self.config.default_inference();
        let size = self.encoder.input_resolution;
        if size >= usual.crop {
            return usual;
        }
        Inference {
            short_side: size,
            crop: size,
            stride: size / 2,
            ..usual
        }
    }

    fn cost(&self, classes: usize) -> Result<Cost, ModelError> {
        let list = (self as &dyn Architecture).params()?;
        let patches = patches(&self.encoder, self.resolution());
        let macs = Macs {
            encoder: encoder_macs(&self.encoder, patches),
            head: patches * (classes * self.encoder.embed_dim) as u64,
            resize: 0,
        };
        Ok(Cost {
            params: count_params(&list, &self.encoder, 0),
            parts: macs.parts(),
            crops: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attention_is_in_the_family_once() {
        let mut names: Vec<_> = FAMILY.iter().map(|method| method.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILY.len());
        for (position, method) in FAMILY.iter().enumerate() {
            let others = FAMILY.iter().skip(position + 1);
            assert!(others.into_iter().all(|o| o.attention != method.attention));
        }
    }
}
