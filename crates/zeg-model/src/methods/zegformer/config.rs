//! ZegFormer's architecture as data.

use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    config::{Activation, VisionConfig},
    weights::StateDict,
};

use super::{crops::CropStyle, fusion::Fusion};

/// The coarsest feature map's stride; images are padded to multiples of it.
pub const STRIDE: usize = 32;
/// The mask logits' stride.
pub const MASK_STRIDE: usize = 4;

/// More blocks and layers than any model has.
const MOST: usize = 1024;

/// A ZegFormer's first stage. Every size is free; [`ZegFormerConfig::default`] is as released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ZegFormerConfig {
    /// Image to feature maps.
    pub backbone: ResNetConfig,
    /// Channels of the pixel decoder.
    pub pixel_width: usize,
    /// Groups of its normalisations; divides `pixel_width`.
    pub norm_groups: usize,
    /// Channels of the mask features.
    pub mask_width: usize,
    /// Queries: the most regions that an image can have.
    pub queries: usize,
    /// Channels of a query.
    pub width: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Hidden channels of the feed-forward part.
    pub feed_forward: usize,
    /// Dropout probability in training.
    pub dropout: f64,
    /// Side in pixels of the crops that CLIP is shown.
    pub crop_side: usize,
    /// Channels of the joint image-text space; those of the image tower.
    #[serde(skip)]
    pub embed_dim: usize,
    /// CLIP's image tower, which looks at crops; without, the first stage works alone.
    #[serde(skip)]
    pub classifier: Option<VisionConfig>,
    /// Side in pixels of the images that the cost is told for.
    #[serde(skip)]
    pub resolution: usize,
}

/// As released, with a ResNet-50.
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

/// Options of inference that only ZegFormer knows (`[inference.method]`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ZegFormerOptions {
    /// How the queries' own scores and CLIP's are joined.
    pub fusion: Fusion,
    /// What CLIP is shown of a region.
    pub crops: CropStyle,
    /// Prompt templates for the class names of crops, such as `zegformer-32`; without, those of the first stage.
    pub crop_templates: Option<String>,
}

/// A residual network of bottleneck blocks with frozen normalisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ResNetConfig {
    /// Blocks of the four stages.
    pub blocks: [usize; 4],
    /// Channels behind the first convolution.
    pub stem: usize,
    /// Output channels of the first stage; each further stage has twice as many.
    pub output: usize,
    /// Channels inside the first stage's blocks; each further stage has twice as many.
    pub bottleneck: usize,
}

/// ResNet-50.
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
    /// ResNet-50 or ResNet-101.
    ///
    /// # Errors
    /// Another depth.
    pub fn by_depth(depth: usize) -> Result<Self, ModelError> {
        let blocks = match depth {
            50 => [3, 4, 6, 3],
            101 => [3, 4, 23, 3],
            _ => {
                return Err(ModelError::Config(format!(
                    "a ResNet of depth {depth} is not known; there are 50 and 101"
                )));
            }
        };
        Ok(Self {
            blocks,
            ..Self::default()
        })
    }

    /// Output channels of a stage, 0 to 3.
    pub fn stage_output(&self, stage: usize) -> usize {
        self.output << stage
    }

    /// Channels inside a stage's blocks, 0 to 3.
    pub fn stage_bottleneck(&self, stage: usize) -> usize {
        self.bottleneck << stage
    }

    /// How many layers the published naming counts: three a block, the first convolution and a classifier.
    pub fn depth(&self) -> usize {
        3 * self.blocks.iter().sum::<usize>() + 2
    }

    /// Reads the sizes off the tensors of a state dict, `None` where it has no such network under `prefix`.
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

/// CLIP's image tower in a released model that brings it; `None` where there is none.
fn released_tower(weights: &StateDict) -> Option<VisionConfig> {
    const TOWER: &str = "sem_seg_head.predictor.clip_model.visual.";
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
        heads: (width / 64).max(1), // every published CLIP transformer has heads of 64 channels
        embed_dim,
        input_resolution: cells.isqrt() * patch,
        double_class_embedding: false,
        activation: Activation::default(),
        prompts: None,
        regions: None,
    })
}

impl ZegFormerConfig {
    /// Reads the sizes off the tensors of a state dict in the reference's names.
    ///
    /// The number of heads is visible in no shape; neither are dropout and norm groups.
    ///
    /// # Errors
    /// A tensor that tells a size is missing.
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
            classifier: released_tower(weights),
            ..Self::default()
        })
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// A size is zero, heads or groups do not divide their widths, or the dropout is no probability.
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
            return fail(format!("a ZegFormer cannot have a size of zero: {self:?}"));
        }
        if !self.pixel_width.is_multiple_of(self.norm_groups) {
            return fail(format!(
                "pixel-width {} is not a multiple of norm-groups {}",
                self.pixel_width, self.norm_groups
            ));
        }
        if !self.width.is_multiple_of(self.heads) || !self.width.is_multiple_of(4) {
            return fail(format!(
                "width {} must be a multiple of its {} heads, and of 4 for sines and cosines of rows and columns",
                self.width, self.heads
            ));
        }
        if let Some(tower) = &self.classifier {
            tower.check()?;
            if tower.embed_dim != self.embed_dim {
                return fail(format!(
                    "queries of {} channels and an image tower of {}",
                    self.embed_dim, tower.embed_dim
                ));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!(
                "dropout {} is not a probability below 1",
                self.dropout
            ));
        }
        Ok(())
    }
}
