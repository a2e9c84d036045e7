//! zsseg's configuration.

use serde::{Deserialize, Serialize};

use super::{ensemble::Ensemble, regions::Fill};
pub use crate::mask_transformer::config::STRIDE;
use crate::{
    ModelError,
    config::VisionConfig,
    mask_transformer::{MaskTransformerConfig, config::shape_of},
    recognize::prompted_tower,
    text::CONTEXT_KEY,
    weights::StateDict,
};

/// Weight of the class head's first layer, which every segmenter of this method has.
pub(super) const CLASS_HEAD: &str = "sem_seg_head.predictor.class_embed.layers.0.weight";
/// A tensor of the image tower that released checkpoints include.
const TOWER: &str = "backbone.conv1.weight";
/// A tensor under the name that [`super::keys`] gives it where the learned vectors serve for regions alone.
pub(super) const FOR_REGIONS: &str = "prompt_learner.for_regions";
/// Number of attention heads of the released models; it cannot be read from any tensor.
const RELEASED_HEADS: usize = 8;

/// The part of the method that a model holds and that training changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The vectors in front of the class names, trained on regions of the ground truth.
    Prompts,
    /// The segmenter, with the vectors frozen.
    #[default]
    Segmenter,
}

/// The configuration of a zsseg (`[model.zsseg]`); the default is as released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ZssegConfig {
    /// The part of the method that is trained.
    pub stage: Stage,
    /// Number of learned vectors in front of a class name; 0 for a segmenter that uses prompt templates alone.
    pub prompt_vectors: usize,
    /// Number of channels of such a vector, equal to the text tower's width.
    pub prompt_width: usize,
    /// Height and width in pixels of the regions on which the vectors are trained.
    pub region_size: [usize; 2],
    /// Hidden channels between a mask query and its vector in the joint space.
    pub class_hidden: usize,
    /// Side in pixels of the crops that CLIP encodes at inference.
    pub crop_side: usize,
    /// The first stage.
    #[serde(skip)]
    pub first: MaskTransformerConfig,
    /// Number of channels of the joint image-text space, equal to the image tower's.
    #[serde(skip)]
    pub embed_dim: usize,
    /// CLIP's image tower, which classifies regions; if `None`, only the queries' own scores are used.
    #[serde(skip)]
    pub classifier: Option<VisionConfig>,
    /// Side in pixels of the images for which the cost is computed.
    #[serde(skip)]
    pub resolution: usize,
    /// Prompt templates of a released checkpoint, for the queries and for the crops.
    #[serde(skip)]
    pub released_templates: Option<[&'static str; 2]>,
}

/// The released configuration.
impl Default for ZssegConfig {
    fn default() -> Self {
        Self {
            stage: Stage::Segmenter,
            prompt_vectors: 16,
            prompt_width: 512,
            region_size: [244, 224],
            class_hidden: 1024,
            crop_side: 224,
            first: MaskTransformerConfig::default(),
            embed_dim: 512,
            classifier: None,
            resolution: 640,
            released_templates: None,
        }
    }
}

/// zsseg's own inference options (`[inference.method]`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ZssegOptions {
    /// How the queries' own scores and CLIP's scores are combined.
    pub fusion: Ensemble,
    /// Exponent of the more trusted of the two scores, 0 to 1; the other one has the rest to 1.
    pub ensemble_weight: f64,
    /// Probability above which a pixel belongs to a mask, 0 to 1.
    pub mask_threshold: f32,
    /// Factor on the sides of a mask's box.
    pub expand: f64,
    /// Whether a pixel of a crop is covered in proportion to its probability, instead of wholly or not.
    pub matting: bool,
    /// Colour outside of the mask.
    pub fill: Fill,
    /// Prompt templates for the class embeddings of crops, such as `learned`; if `None`, those of the queries.
    pub crop_templates: Option<String>,
}

/// The released options for COCO-Stuff.
impl Default for ZssegOptions {
    fn default() -> Self {
        Self {
            fusion: Ensemble::default(),
            ensemble_weight: 0.8,
            mask_threshold: 0.5,
            expand: 1.0,
            matting: false,
            fill: Fill::default(),
            crop_templates: None,
        }
    }
}

impl ZssegOptions {
    /// Checks the ranges of the options.
    ///
    /// # Errors
    /// Returns an error if a weight or threshold is not in 0..=1, or the factor on boxes is not positive and finite.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |key: &str, value: f64, legal: &str| {
            Err(ModelError::Config(format!(
                "inference.method.{key} = {value}: expected {legal}"
            )))
        };
        let share = "a number from 0 to 1";
        if !(0.0..=1.0).contains(&self.ensemble_weight) {
            return fail("ensemble-weight", self.ensemble_weight, share);
        }
        if !(0.0..=1.0).contains(&self.mask_threshold) {
            return fail("mask-threshold", f64::from(self.mask_threshold), share);
        }
        if !(self.expand.is_finite() && self.expand > 0.0) {
            return fail("expand", self.expand, "a positive number");
        }
        Ok(())
    }
}

impl ZssegConfig {
    /// Returns whether the parameter of this name is trained.
    ///
    /// In a segmenter all are, except the backbone's norms, which are frozen statistics, CLIP and the learned vectors.
    pub fn trains(&self, key: &str) -> bool {
        if self.stage == Stage::Prompts {
            return key == CONTEXT_KEY;
        }
        let frozen_norm = key.starts_with("backbone.") && key.contains(".norm.");
        let parts = ["backbone.", "sem_seg_head.", "clip_adapter."];
        parts.iter().any(|part| key.starts_with(part)) && !frozen_norm
    }

    /// Infers the sizes from the tensors of a state dict with the reference's names; `None` if it holds neither a
    /// segmenter nor learned vectors of this method.
    ///
    /// # Errors
    /// Returns an error if a tensor that determines a size is missing, or the sizes contradict each other.
    pub fn from_weights(weights: &StateDict) -> Result<Option<Self>, ModelError> {
        let vectors = weights.shape(CONTEXT_KEY);
        let [prompt_vectors, prompt_width] = match vectors.as_deref() {
            Some(&[vectors, width]) => [vectors, width],
            _ => [0, Self::default().prompt_width],
        };
        let has_segmenter = weights.contains(CLASS_HEAD);
        if !has_segmenter && prompt_vectors == 0 {
            return Ok(None);
        }
        let tower = if weights.contains(TOWER) {
            Some(VisionConfig {
                double_class_embedding: false,
                prompts: None,
                ..prompted_tower(weights)?
            })
        } else {
            None
        };
        let learned = Self {
            stage: Stage::Prompts,
            prompt_vectors,
            prompt_width,
            crop_side: tower.as_ref().map_or(224, |tower| tower.input_resolution),
            embed_dim: tower.as_ref().map_or(512, |tower| tower.embed_dim),
            classifier: tower,
            ..Self::default()
        };
        if !has_segmenter {
            return Ok(Some(learned));
        }
        let hidden = shape_of(weights, CLASS_HEAD, 2)?[0];
        let last = shape_of(
            weights,
            "sem_seg_head.predictor.class_embed.layers.1.weight",
            2,
        )?;
        let templates = if prompt_vectors == 0 {
            ["vild-14"; 2]
        } else if weights.contains(FOR_REGIONS) {
            ["zsseg-single", "learned"]
        } else {
            ["learned"; 2]
        };
        let config = Self {
            stage: Stage::Segmenter,
            class_hidden: hidden,
            embed_dim: last[0],
            first: MaskTransformerConfig::from_weights(weights, RELEASED_HEADS)?,
            released_templates: Some(templates),
            ..learned
        };
        config.check()?;
        Ok(Some(config))
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Returns an error if a size is zero, sizes contradict each other, or nothing would be trained.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |text: String| Err(ModelError::Config(text));
        let sizes = [
            self.prompt_width,
            self.region_size[0],
            self.region_size[1],
            self.class_hidden,
            self.crop_side,
            self.embed_dim,
        ];
        if sizes.contains(&0) {
            return fail(format!("a zsseg size must not be zero: {self:?}"));
        }
        self.first.check("zsseg")?;
        if self.stage == Stage::Prompts && self.prompt_vectors == 0 {
            return fail("model.zsseg.prompt-vectors = 0: stage \"prompts\" trains them".into());
        }
        let Some(tower) = &self.classifier else {
            return Ok(());
        };
        tower.check()?;
        if tower.embed_dim != self.embed_dim {
            return fail(format!(
                "the queries project to {} channels, but the image tower to {}; both must be equal",
                self.embed_dim, tower.embed_dim
            ));
        }
        if self.region_size.iter().any(|side| *side < tower.patch) {
            return fail(format!(
                "model.zsseg.region-size = {:?}: the image tower's patches have {} pixels",
                self.region_size, tower.patch
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let options = |change: fn(&mut ZssegOptions)| {
            let mut options = ZssegOptions::default();
            change(&mut options);
            options.check()
        };
        assert!(options(|_| {}).is_ok());
        for (change, key) in [
            (
                (|o| o.ensemble_weight = 1.5) as fn(&mut ZssegOptions),
                "ensemble-weight = 1.5",
            ),
            (|o| o.mask_threshold = f32::NAN, "mask-threshold = NaN"),
            (|o| o.expand = 0.0, "expand = 0"),
        ] {
            let error = options(change).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn each_stage_trains_its_own_part() {
        let segmenter = ZssegConfig::default();
        let prompts = ZssegConfig {
            stage: Stage::Prompts,
            ..ZssegConfig::default()
        };
        for (key, first, second) in [
            (CONTEXT_KEY, true, false),
            ("backbone.stem.conv1.weight", false, true),
            ("backbone.stem.conv1.norm.weight", false, false),
            ("clip_adapter.non_object_embedding", false, true),
            (
                "sem_seg_head.pixel_decoder.adapter_1.norm.weight",
                false,
                true,
            ),
            ("classifier.tower.conv1.weight", false, false),
            ("text_encoder.text_projection", false, false),
        ] {
            assert_eq!(
                [prompts.trains(key), segmenter.trains(key)],
                [first, second],
                "{key}"
            );
        }
    }
}
