//! ZegFormer's configuration.

use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    config::{Activation, VisionConfig},
    mask_transformer::{
        MaskTransformerConfig,
        config::{MOST, shape_of},
    },
    weights::{Architecture, StateDict, assumed_image_heads},
};

use super::{crops::CropStyle, fusion::Fusion};

pub use crate::mask_transformer::config::{MASK_STRIDE, ResNetConfig, STRIDE};

/// The configuration of a ZegFormer. Every size can be set; [`ZegFormerConfig::default`] is as released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ZegFormerConfig {
    /// Backbone, which computes feature maps from images.
    pub backbone: ResNetConfig,
    /// Number of channels of the pixel decoder.
    pub pixel_width: usize,
    /// Number of groups of the pixel decoder's normalisations; divides `pixel_width`.
    pub norm_groups: usize,
    /// Number of channels of the mask features.
    pub mask_width: usize,
    /// Number of mask queries, which limits the number of regions in an image.
    pub queries: usize,
    /// Number of channels of a mask query.
    pub width: usize,
    /// Number of attention heads; divides `width`.
    pub heads: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Hidden channels of the feed-forward part.
    pub feed_forward: usize,
    /// Dropout probability in training.
    pub dropout: f64,
    /// Side in pixels of the crops that CLIP encodes.
    pub crop_side: usize,
    /// Number of channels of the joint image-text space, equal to the image tower's.
    #[serde(skip)]
    pub embed_dim: usize,
    /// CLIP's image tower, which encodes crops; if `None`, only the first stage is used.
    #[serde(skip)]
    pub classifier: Option<VisionConfig>,
    /// Side in pixels of the images for which the cost is computed.
    #[serde(skip)]
    pub resolution: usize,
}

/// The released configuration, with a ResNet-50.
impl Default for ZegFormerConfig {
    fn default() -> Self {
        Self {
            backbone: ResNetConfig::default(),
            pixel_width: 256,
            norm_groups: 32,
            mask_width: 256,
            queries: 100,
            width: 256,
            heads: 8,
            layers: 6,
            feed_forward: 2048,
            dropout: 0.1,
            crop_side: 224,
            embed_dim: 512,
            classifier: None,
            resolution: 512,
        }
    }
}

/// ZegFormer's own inference options (`[inference.method]`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ZegFormerOptions {
    /// How the queries' own scores and CLIP's scores are combined.
    pub fusion: Fusion,
    /// Style of the crops that CLIP encodes.
    pub crops: CropStyle,
    /// Prompt templates for the class embeddings of crops, such as `zegformer-32`; if `None`, those of the first stage.
    pub crop_templates: Option<String>,
}

/// Weight of the projection into the joint space, which every ZegFormer has, and no other mask transformer.
pub(super) const PROJECTION: &str = "sem_seg_head.predictor.projection_layer.weight";

/// Returns CLIP's image tower in a released model that includes it; `None` if there is none.
///
/// # Errors
/// Returns an error if a file that states heads or activation cannot be read.
fn released_tower(weights: &StateDict) -> Result<Option<VisionConfig>, ModelError> {
    const TOWER: &str = "sem_seg_head.predictor.clip_model.visual.";
    let activation = Architecture::stated_activation(weights)?.map(Activation::from);
    let stated_heads = Architecture::stated_heads(weights)?.image;
    let tower = || {
        let shape = |name: &str| weights.shape(&format!("{TOWER}{name}"));
        let [width, _, patch, _] = shape("conv1.weight")?[..] else {
            return None;
        };
        let embed_dim = *shape("proj")?.get(1)?;
        let cells = shape("positional_embedding")?.first()?.checked_sub(1)?;
        let block = |block: &usize| {
            weights.contains(&format!("{TOWER}transformer.resblocks.{block}.ln_1.weight"))
        };
        Some(VisionConfig {
            patch,
            width,
            layers: (0..MOST).take_while(block).count(),
            heads: stated_heads
                .or_else(|| assumed_image_heads(width))
                .unwrap_or(1),
            embed_dim,
            input_resolution: cells.isqrt() * patch,
            double_class_embedding: false,
            activation: activation.unwrap_or_default(),
            prompts: None,
            regions: None,
        })
    };
    Ok(tower())
}

impl ZegFormerConfig {
    /// Infers the sizes from the tensors of a state dict with the reference's names.
    ///
    /// The number of heads, the dropout and the norm groups cannot be inferred from any shape.
    ///
    /// # Errors
    /// Returns an error if a tensor that determines a size is missing, or a configuration beside the weights cannot be
    /// read.
    pub fn from_weights(weights: &StateDict, heads: usize) -> Result<Self, ModelError> {
        let MaskTransformerConfig {
            backbone,
            pixel_width,
            norm_groups,
            mask_width,
            queries,
            width,
            heads,
            layers,
            feed_forward,
            dropout,
        } = MaskTransformerConfig::from_weights(weights, heads)?;
        let projection = shape_of(weights, PROJECTION, 2)?;
        Ok(Self {
            backbone,
            pixel_width,
            norm_groups,
            mask_width,
            queries,
            width,
            heads,
            layers,
            feed_forward,
            dropout,
            embed_dim: projection[0],
            classifier: released_tower(weights)?,
            ..Self::default()
        })
    }

    /// Returns the sizes of the first stage.
    pub fn mask_transformer(&self) -> MaskTransformerConfig {
        MaskTransformerConfig {
            backbone: self.backbone.clone(),
            pixel_width: self.pixel_width,
            norm_groups: self.norm_groups,
            mask_width: self.mask_width,
            queries: self.queries,
            width: self.width,
            heads: self.heads,
            layers: self.layers,
            feed_forward: self.feed_forward,
            dropout: self.dropout,
        }
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Returns an error if a size is zero, heads or groups do not divide their widths, or the dropout is not a
    /// probability.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |text: String| Err(ModelError::Config(text));
        if self.crop_side == 0 || self.embed_dim == 0 {
            return fail(format!("a ZegFormer size must not be zero: {self:?}"));
        }
        self.mask_transformer().check("ZegFormer")?;
        if let Some(tower) = &self.classifier {
            tower.check()?;
            if tower.embed_dim != self.embed_dim {
                return fail(format!(
                    "the queries project to {} channels, but the image tower to {}; both must be equal",
                    self.embed_dim, tower.embed_dim
                ));
            }
        }
        Ok(())
    }
}
