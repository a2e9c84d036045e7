//! ZegFormer's configuration.

use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    config::{Activation, VisionConfig},
    weights::{Architecture, StateDict, assumed_image_heads},
};

use super::{crops::CropStyle, fusion::Fusion};

/// Stride of the coarsest feature map, in pixels; images are padded to multiples of it.
pub const STRIDE: usize = 32;
/// Stride of the mask logits, in pixels.
pub const MASK_STRIDE: usize = 4;

/// Upper limit on the blocks and layers that are counted in weights.
const MOST: usize = 1024;

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

/// The configuration of a residual network of bottleneck blocks with frozen normalisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ResNetConfig {
    /// Number of blocks in each of the four stages.
    pub blocks: [usize; 4],
    /// Number of channels after the first convolution.
    pub stem: usize,
    /// Output channels of the first stage; each further stage has twice as many.
    pub output: usize,
    /// Channels inside the first stage's blocks; each further stage has twice as many.
    pub bottleneck: usize,
}

/// The configuration of a ResNet-50.
impl Default for ResNetConfig {
    fn default() -> Self {
        Self {
            blocks: [3, 4, 6, 3],
            stem: 64,
            output: 256,
            bottleneck: 64,
        }
    }
}

impl ResNetConfig {
    /// Returns the configuration of a ResNet-50 or ResNet-101.
    ///
    /// # Errors
    /// Returns an error for any other depth.
    pub fn by_depth(depth: usize) -> Result<Self, ModelError> {
        let blocks = match depth {
            50 => [3, 4, 6, 3],
            101 => [3, 4, 23, 3],
            _ => {
                return Err(ModelError::Config(format!(
                    "unknown ResNet depth {depth}; known: 50, 101"
                )));
            }
        };
        Ok(Self {
            blocks,
            ..Self::default()
        })
    }

    /// Returns the number of output channels of a stage, 0 to 3.
    pub fn stage_output(&self, stage: usize) -> usize {
        self.output << stage
    }

    /// Returns the number of channels inside a stage's blocks, 0 to 3.
    pub fn stage_bottleneck(&self, stage: usize) -> usize {
        self.bottleneck << stage
    }

    /// Returns the number of layers as in the published names: three per block, the first convolution and a classifier.
    pub fn depth(&self) -> usize {
        3 * self.blocks.iter().sum::<usize>() + 2
    }

    /// Infers the sizes from the tensors of a state dict; `None` if there is no such network under `prefix`.
    fn from_weights(weights: &StateDict, prefix: &str) -> Option<Self> {
        let rows = |name: &str| Some(weights.shape(&format!("{prefix}{name}"))?[0]);
        let blocks_of = |stage: usize| {
            let has = |block: &usize| {
                weights.contains(&format!("{prefix}res{stage}.{block}.conv1.weight"))
            };
            (0..MOST).take_while(has).count()
        };
        Some(Self {
            blocks: [2, 3, 4, 5].map(blocks_of),
            stem: rows("stem.conv1.weight")?,
            output: rows("res2.0.conv3.weight")?,
            bottleneck: rows("res2.0.conv1.weight")?,
        })
    }
}

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
        const DECODER: &str = "sem_seg_head.predictor.transformer.decoder.layers";
        let shape = |key: &str, axes: usize| match weights.shape(key) {
            Some(shape) if shape.len() == axes => Ok(shape),
            _ => Err(ModelError::MissingTensor {
                key: key.to_owned(),
                origin: weights.origin(),
            }),
        };
        let backbone = ResNetConfig::from_weights(weights, "backbone.").ok_or_else(|| {
            ModelError::MissingTensor {
                key: "backbone.stem.conv1.weight".into(),
                origin: weights.origin(),
            }
        })?;
        let mask_features = shape("sem_seg_head.pixel_decoder.mask_features.weight", 4)?;
        let queries = shape("sem_seg_head.predictor.query_embed.weight", 2)?;
        let projection = shape("sem_seg_head.predictor.projection_layer.weight", 2)?;
        let hidden = shape(&format!("{DECODER}.0.linear1.weight"), 2)?;
        let has_layer =
            |layer: &usize| weights.contains(&format!("{DECODER}.{layer}.linear1.weight"));
        Ok(Self {
            backbone,
            pixel_width: mask_features[1],
            mask_width: mask_features[0],
            queries: queries[0],
            width: queries[1],
            heads,
            layers: (0..MOST).take_while(has_layer).count(),
            feed_forward: hidden[0],
            embed_dim: projection[0],
            classifier: released_tower(weights)?,
            ..Self::default()
        })
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Returns an error if a size is zero, heads or groups do not divide their widths, or the dropout is not a
    /// probability.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |text: String| Err(ModelError::Config(text));
        let backbone = &self.backbone;
        let sizes = [
            backbone.stem,
            backbone.output,
            backbone.bottleneck,
            self.pixel_width,
            self.norm_groups,
            self.mask_width,
            self.queries,
            self.width,
            self.heads,
            self.layers,
            self.feed_forward,
            self.crop_side,
            self.embed_dim,
        ];
        if sizes.contains(&0) || backbone.blocks.contains(&0) {
            return fail(format!("a ZegFormer size must not be zero: {self:?}"));
        }
        if !self.pixel_width.is_multiple_of(self.norm_groups) {
            return fail(format!(
                "pixel-width {} is not a multiple of norm-groups {}",
                self.pixel_width, self.norm_groups
            ));
        }
        if !self.width.is_multiple_of(self.heads) || !self.width.is_multiple_of(4) {
            return fail(format!(
                "width {} must be a multiple of its {} heads, and of 4 for the sine position embedding",
                self.width, self.heads
            ));
        }
        if let Some(tower) = &self.classifier {
            tower.check()?;
            if tower.embed_dim != self.embed_dim {
                return fail(format!(
                    "the queries project to {} channels, but the image tower to {}; both must be equal",
                    self.embed_dim, tower.embed_dim
                ));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!(
                "dropout {} must be a probability below 1",
                self.dropout
            ));
        }
        Ok(())
    }
}
