//! The configuration of a mask transformer's first stage.

use serde::{Deserialize, Serialize};

use crate::{ModelError, weights::StateDict};

/// Stride of the coarsest feature map, in pixels; images are padded to multiples of it.
pub const STRIDE: usize = 32;
/// Stride of the mask logits, in pixels.
pub const MASK_STRIDE: usize = 4;

/// Upper limit on the blocks and layers that are counted in weights.
pub(crate) const MOST: usize = 1024;

/// The configuration of a mask transformer. Every size can be set; the default is as released, with a ResNet-50.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MaskTransformerConfig {
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
}

/// The released configuration, with a ResNet-50.
impl Default for MaskTransformerConfig {
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
        }
    }
}

/// The first layers of a residual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StemKind {
    /// One 7×7 convolution at stride 2.
    #[default]
    Single,
    /// Three 3×3 convolutions, the first at stride 2; the first two have half of the channels (`DeepLab`).
    Triple,
}

/// The configuration of a residual network of bottleneck blocks with frozen normalisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ResNetConfig {
    /// Number of blocks in each of the four stages.
    pub blocks: [usize; 4],
    /// The first layers.
    pub stem_kind: StemKind,
    /// Number of channels after the first layers.
    pub stem: usize,
    /// Output channels of the first stage; each further stage has twice as many.
    pub output: usize,
    /// Channels inside the first stage's blocks; each further stage has twice as many.
    pub bottleneck: usize,
    /// Dilations of the 3×3 convolutions in the blocks of the last stage, first to last; 1 beyond the end of the list.
    pub last_dilations: Vec<usize>,
}

/// The configuration of a ResNet-50.
impl Default for ResNetConfig {
    fn default() -> Self {
        Self {
            blocks: [3, 4, 6, 3],
            stem_kind: StemKind::Single,
            stem: 64,
            output: 256,
            bottleneck: 64,
            last_dilations: Vec::new(),
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

    /// Returns the configuration of `DeepLab`'s ResNet-101: three convolutions first, and dilations 1, 2, 4 in the last
    /// stage ("R-101c").
    pub fn deep_lab_101() -> Self {
        Self {
            blocks: [3, 4, 23, 3],
            stem_kind: StemKind::Triple,
            stem: 128,
            last_dilations: vec![1, 2, 4],
            ..Self::default()
        }
    }

    /// Returns the number of output channels of a stage, 0 to 3.
    pub fn stage_output(&self, stage: usize) -> usize {
        self.output << stage
    }

    /// Returns the number of channels inside a stage's blocks, 0 to 3.
    pub fn stage_bottleneck(&self, stage: usize) -> usize {
        self.bottleneck << stage
    }

    /// Returns the dilation of the 3×3 convolution of a block of a stage, 0 to 3.
    pub fn dilation(&self, stage: usize, block: usize) -> usize {
        match self.last_dilations.get(block) {
            Some(&dilation) if stage == 3 => dilation,
            _ => 1,
        }
    }

    /// Returns the number of layers as in the published names: three per block, the first convolution and a classifier.
    pub fn depth(&self) -> usize {
        3 * self.blocks.iter().sum::<usize>() + 2
    }

    /// Infers the sizes from the tensors of a state dict; `None` if there is no such network under `prefix`.
    ///
    /// Dilations are in no tensor: a network with three first convolutions is `DeepLab`'s.
    pub fn from_weights(weights: &StateDict, prefix: &str) -> Option<Self> {
        let rows = |name: &str| {
            let shape = weights.shape(&format!("{prefix}{name}"))?;
            shape.first().copied()
        };
        let blocks_of = |stage: usize| {
            let has = |block: &usize| {
                weights.contains(&format!("{prefix}res{stage}.{block}.conv1.weight"))
            };
            (0..MOST).take_while(has).count()
        };
        let last_of_three = rows("stem.conv3.weight");
        Some(Self {
            blocks: [2, 3, 4, 5].map(blocks_of),
            stem_kind: match last_of_three {
                Some(_) => StemKind::Triple,
                None => StemKind::Single,
            },
            stem: last_of_three.or_else(|| rows("stem.conv1.weight"))?,
            output: rows("res2.0.conv3.weight")?,
            bottleneck: rows("res2.0.conv1.weight")?,
            last_dilations: match last_of_three {
                Some(_) => Self::deep_lab_101().last_dilations,
                None => Vec::new(),
            },
        })
    }
}

impl MaskTransformerConfig {
    /// Infers the sizes from the tensors of a state dict with the reference's names.
    ///
    /// The number of heads, the dropout and the norm groups cannot be inferred from any shape.
    ///
    /// # Errors
    /// Returns an error if a tensor that determines a size is missing.
    pub fn from_weights(weights: &StateDict, heads: usize) -> Result<Self, ModelError> {
        const DECODER: &str = "sem_seg_head.predictor.transformer.decoder.layers";
        let backbone = ResNetConfig::from_weights(weights, "backbone.")
            .ok_or_else(|| missing(weights, "backbone.stem.conv1.weight"))?;
        let mask_features = shape_of(
            weights,
            "sem_seg_head.pixel_decoder.mask_features.weight",
            4,
        )?;
        let queries = shape_of(weights, "sem_seg_head.predictor.query_embed.weight", 2)?;
        let hidden = shape_of(weights, &format!("{DECODER}.0.linear1.weight"), 2)?;
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
            ..Self::default()
        })
    }

    /// Checks that the sizes are consistent.
    ///
    /// - `method`: name of the method to display
    ///
    /// # Errors
    /// Returns an error if a size is zero, heads or groups do not divide their widths, or the dropout is not a
    /// probability.
    pub fn check(&self, method: &str) -> Result<(), ModelError> {
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
        ];
        let lists = backbone.blocks.iter().chain(&backbone.last_dilations);
        if sizes.iter().chain(lists).any(|size| *size == 0) {
            return fail(format!("a {method} size must not be zero: {self:?}"));
        }
        if backbone.stem_kind == StemKind::Triple && !backbone.stem.is_multiple_of(2) {
            return fail(format!(
                "backbone.stem {} must be even for stem-kind = \"triple\"",
                backbone.stem
            ));
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
        if !(0.0..1.0).contains(&self.dropout) {
            return fail(format!(
                "dropout {} must be a probability below 1",
                self.dropout
            ));
        }
        Ok(())
    }
}

/// Returns the shape of a tensor with a number of axes.
///
/// # Errors
/// Returns an error if the tensor is missing or has another number of axes.
pub(crate) fn shape_of(
    weights: &StateDict,
    key: &str,
    axes: usize,
) -> Result<Vec<usize>, ModelError> {
    match weights.shape(key) {
        Some(shape) if shape.len() == axes => Ok(shape),
        _ => Err(missing(weights, key)),
    }
}

fn missing(weights: &StateDict, key: &str) -> ModelError {
    ModelError::MissingTensor {
        key: key.to_owned(),
        origin: weights.origin(),
    }
}
