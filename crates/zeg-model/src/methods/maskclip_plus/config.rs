//! Configuration of MaskCLIP+: the sizes of the student and of CLIP's image tower that guides it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::convolution::Kernel;
use crate::{
    ModelError,
    config::{Activation, Encoder, EncoderSizes, VisionConfig},
    weights::{StateDict, assumed_image_heads},
};

/// Largest legal value of a size, and upper limit on the blocks that are counted in weights.
const MOST: usize = 1 << 20;
/// Channels of the low-level map of the published DeepLabV3+.
const LOW_LEVEL: usize = 48;
/// Channels of the joint space of CLIP's RN50, which guides the published zero-shot students.
const RN50_DIM: usize = 1024;

/// The decoder between the student's backbone and its classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StudentHead {
    /// DeepLabV2: the sum of four dilated 3×3 convolutions.
    #[default]
    DeeplabV2,
    /// DeepLabV3+: five branches side by side, refined with a map of the first stage.
    DeeplabV3Plus,
}

/// The sizes of a residual network of bottleneck blocks with a stem of three convolutions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ResidualSizes {
    /// Number of blocks in each of the four stages.
    pub blocks: [usize; 4],
    /// Number of channels after the stem; an even number.
    pub stem: usize,
    /// Output channels of the first stage; each further stage has twice as many.
    pub output: usize,
    /// Channels inside the first stage's blocks; each further stage has twice as many.
    pub bottleneck: usize,
}

/// The sizes of the published student, a ResNet-101.
impl Default for ResidualSizes {
    fn default() -> Self {
        Self {
            blocks: [3, 4, 23, 3],
            stem: 64,
            output: 256,
            bottleneck: 64,
        }
    }
}

impl ResidualSizes {
    /// Returns the number of output channels of a stage, 0 to 3.
    pub fn stage_output(&self, stage: usize) -> usize {
        self.output << stage
    }

    /// Returns the number of channels inside a stage's blocks, 0 to 3.
    pub fn stage_inner(&self, stage: usize) -> usize {
        self.bottleneck << stage
    }

    /// Returns the number of layers as in the published names: three per block, the first convolution and a classifier.
    pub fn depth(&self) -> usize {
        3 * self.blocks.iter().sum::<usize>() + 2
    }

    /// Returns the kernels of the stem.
    pub(super) fn stem_kernels(&self) -> [Kernel; 3] {
        let (half, full) = (self.stem / 2, self.stem);
        let first = Kernel {
            stride: 2,
            ..Kernel::new(3, half, 3)
        };
        [
            first,
            Kernel::new(half, half, 3),
            Kernel::new(half, full, 3),
        ]
    }

    /// Infers the sizes from tensors.
    ///
    /// - `stem`: name of the weight of the last convolution of the stem
    /// - `prefix`: prefix of the names of the stages
    fn from_weights(weights: &StateDict, stem: &str, prefix: &str) -> Option<Self> {
        let rows = |name: &str| weights.shape(name)?.first().copied();
        let blocks_of = |stage: usize| {
            let has = |block: &usize| {
                weights.contains(&format!("{prefix}layer{stage}.{block}.conv1.weight"))
            };
            (0..MOST).take_while(has).count()
        };
        Some(Self {
            blocks: [1, 2, 3, 4].map(blocks_of),
            stem: rows(stem)?,
            output: rows(&format!("{prefix}layer1.0.conv3.weight"))?,
            bottleneck: rows(&format!("{prefix}layer1.0.conv1.weight"))?,
        })
    }

    fn check(&self, setting: &str) -> Result<(), ModelError> {
        let sizes = [self.stem, self.output, self.bottleneck];
        let all = || sizes.iter().chain(&self.blocks);
        if all().any(|&size| size == 0 || size > MOST) || !self.stem.is_multiple_of(2) {
            return Err(ModelError::Config(format!(
                "{setting}: {self:?}; every size must be from 1 to {MOST}, and `stem` even"
            )));
        }
        Ok(())
    }
}

/// The image tower that guides the student, as given in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(super) enum GuideEncoder {
    /// A published encoder: `RN50`, `RN50x16`, `ViT-B/16`, `ViT-B/32`, `ViT-L/14`.
    Named(String),
    /// Any other CLIP-like vision transformer, given by its sizes.
    Transformer(EncoderSizes),
    /// Any other residual image tower of CLIP, given by its sizes.
    Residual(ResidualEncoder),
}

/// The sizes of a residual image tower of CLIP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ResidualEncoder {
    /// Number of blocks in each of the four stages.
    pub blocks: [usize; 4],
    /// Number of channels after the stem, and inside the first stage's blocks; an even number.
    pub width: usize,
    /// Channels of the joint image-text space.
    pub embed_dim: usize,
}

impl ResidualEncoder {
    /// Returns a published tower; `None` if the name is not that of one.
    pub fn by_name(name: &str) -> Option<Self> {
        let (blocks, width, embed_dim) = match name.to_ascii_lowercase().as_str() {
            "rn50" => ([3, 4, 6, 3], 64, RN50_DIM),
            "rn50x16" => ([6, 8, 18, 8], 96, 768),
            _ => return None,
        };
        Some(Self {
            blocks,
            width,
            embed_dim,
        })
    }

    /// Returns the sizes of the tower's network.
    pub fn sizes(&self) -> ResidualSizes {
        ResidualSizes {
            blocks: self.blocks,
            stem: self.width,
            output: 4 * self.width,
            bottleneck: self.width,
        }
    }
}

/// CLIP's image tower that labels the pixels without label for the first steps.
#[derive(Debug, Clone, PartialEq)]
pub enum GuideConfig {
    /// A vision transformer.
    Transformer(VisionConfig),
    /// A residual network; its inner sizes need not be those of a published one.
    Residual {
        /// Sizes of the network.
        sizes: ResidualSizes,
        /// Channels of the joint image-text space.
        embed_dim: usize,
    },
}

impl GuideConfig {
    /// Returns the tower that a configuration file names.
    pub(super) fn new(
        encoder: &GuideEncoder,
        input_resolution: usize,
        activation: Activation,
    ) -> Result<Self, ModelError> {
        let residual = |tower: &ResidualEncoder| Self::Residual {
            sizes: tower.sizes(),
            embed_dim: tower.embed_dim,
        };
        let encoder = match encoder {
            GuideEncoder::Residual(tower) => return Ok(residual(tower)),
            GuideEncoder::Named(name) => match ResidualEncoder::by_name(name) {
                Some(tower) => return Ok(residual(&tower)),
                None => Encoder::Named(name.clone()),
            },
            GuideEncoder::Transformer(sizes) => Encoder::Custom(sizes.clone()),
        };
        let resolution = match encoder {
            Encoder::Named(_) => 224, // the resolution of the published towers' position tables
            Encoder::Custom(_) => input_resolution,
        };
        Ok(Self::Transformer(VisionConfig {
            input_resolution: resolution,
            double_class_embedding: false,
            activation,
            ..encoder.tower(resolution)?
        }))
    }

    /// Returns the number of channels of the joint image-text space.
    pub fn embed_dim(&self) -> usize {
        match self {
            Self::Transformer(tower) => tower.embed_dim,
            Self::Residual { embed_dim, .. } => *embed_dim,
        }
    }

    /// Infers the tower from tensors with a prefix; `None` if there is no tower.
    pub fn from_weights(weights: &StateDict, prefix: &str) -> Option<Self> {
        let shape = |name: &str| weights.shape(&format!("{prefix}{name}"));
        if weights.contains(&format!("{prefix}layer1.0.conv1.weight")) {
            let stem = format!("{prefix}conv3.weight");
            return Some(Self::Residual {
                sizes: ResidualSizes::from_weights(weights, &stem, prefix)?,
                embed_dim: *shape("attnpool.c_proj.weight")?.first()?,
            });
        }
        let [width, _, patch, _] = shape("conv1.weight")?[..] else {
            return None;
        };
        let cells = shape("positional_embedding")?
            .iter()
            .rev()
            .nth(1)?
            .checked_sub(1)?;
        // A matrix [width, dim], or a 1×1 convolution [dim, width, 1, 1].
        let ([_, embed_dim] | [embed_dim, _, 1, 1]) = shape("proj")?[..] else {
            return None;
        };
        let block = |block: &usize| {
            weights.contains(&format!(
                "{prefix}transformer.resblocks.{block}.ln_1.weight"
            ))
        };
        Some(Self::Transformer(VisionConfig {
            patch,
            width,
            layers: (0..MOST).take_while(block).count(),
            heads: assumed_image_heads(width).unwrap_or(1),
            embed_dim,
            input_resolution: cells.isqrt() * patch,
            double_class_embedding: false,
            activation: Activation::default(),
            prompts: None,
            regions: None,
        }))
    }
}

/// The configuration of a MaskCLIP+ model.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskClipPlusConfig {
    /// The student's backbone.
    pub student: ResidualSizes,
    /// The student's decoder.
    pub head: StudentHead,
    /// Channels of the low-level map of [`StudentHead::DeeplabV3Plus`].
    pub low_level: usize,
    /// Whether the class named "background" has a learned embedding.
    pub background: bool,
    /// The image tower that guides the student.
    pub guide: GuideConfig,
    /// Whether a transformer that guides is computed as in the released code: with the exact GELU, whatever activation
    /// it was trained with, and an epsilon of 1e-6.
    pub as_released: bool,
    /// Side in pixels of the images for which the cost is computed.
    pub resolution: usize,
}

/// Learned embedding of the background.
const BACKGROUND: &str = "decode_head.bg_embeddings";

impl MaskClipPlusConfig {
    /// Returns the number of channels of the student's features, those of the joint image-text space.
    pub fn embed_dim(&self) -> usize {
        self.guide.embed_dim()
    }

    /// Infers the sizes from the tensors of a checkpoint; `None` if it is no MaskCLIP+.
    ///
    /// The number of heads of a transformer that guides is assumed. Without a tower in the checkpoint, the guide is that
    /// of the published students.
    pub fn from_weights(weights: &StateDict) -> Option<Self> {
        const HEAD: &str = "decode_head.decode_module.";
        let rows = |name: &str| {
            weights
                .shape(&format!("{HEAD}{name}.weight"))?
                .first()
                .copied()
        };
        let (head, dim) = match rows("bottleneck.conv") {
            Some(dim) => (StudentHead::DeeplabV3Plus, dim),
            None => (StudentHead::DeeplabV2, rows("aspp_modules.0.conv")?),
        };
        let student = ResidualSizes::from_weights(weights, "student.stem.6.weight", "student.")?;
        let usual = GuideConfig::Residual {
            sizes: ResidualSizes {
                blocks: [3, 4, 6, 3],
                ..ResidualSizes::default()
            },
            embed_dim: dim,
        };
        Some(Self {
            student,
            head,
            low_level: rows("c1_bottleneck.conv").unwrap_or(LOW_LEVEL),
            background: weights.contains(BACKGROUND),
            guide: GuideConfig::from_weights(weights, "decode_head.clip.").unwrap_or(usual),
            as_released: true,
            resolution: 512,
        })
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Returns an error if a size is zero or too large, or the guide's sizes contradict each other.
    pub fn check(&self) -> Result<(), ModelError> {
        self.student.check("model.student")?;
        match &self.guide {
            GuideConfig::Transformer(tower) => tower.check()?,
            GuideConfig::Residual { sizes, .. } => sizes.check("model.encoder")?,
        }
        for (setting, size) in [
            ("model.encoder.embed-dim", self.embed_dim()),
            ("model.low-level", self.low_level),
        ] {
            if size == 0 || size > MOST {
                return Err(ModelError::Config(format!(
                    "{setting} = {size}: must be from 1 to {MOST}"
                )));
            }
        }
        Ok(())
    }
}

/// The keys of the method's section in an experiment file.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct MaskClipPlusSection {
    /// CLIP's image tower that labels pixels in the first steps, given by name or by its sizes.
    encoder: GuideEncoder,
    /// Side in pixels of the images for which the cost is computed; the resolution of an encoder given by its sizes.
    input_resolution: usize,
    /// Activation of the encoder's blocks; `zeg train` sets it to that of the weights.
    #[serde(default)]
    activation: Activation,
    /// Whether a transformer is computed as in the released code: with the exact GELU, whatever `activation` says, and
    /// an epsilon of 1e-6.
    #[serde(default = "yes")]
    as_released: bool,
    /// The student's backbone.
    #[serde(default)]
    student: ResidualSizes,
    /// The student's decoder.
    #[serde(default)]
    head: StudentHead,
    /// Channels of the low-level map of `deeplab-v3-plus`.
    #[serde(default = "low_level")]
    low_level: usize,
    /// Whether the class named "background" has a learned embedding in place of that of its name.
    #[serde(default)]
    background: bool,
}

fn yes() -> bool {
    true
}

fn low_level() -> usize {
    LOW_LEVEL
}

impl MaskClipPlusSection {
    /// Returns the configuration, checked.
    pub(super) fn config(self) -> Result<MaskClipPlusConfig, ModelError> {
        let config = MaskClipPlusConfig {
            guide: GuideConfig::new(&self.encoder, self.input_resolution, self.activation)?,
            student: self.student,
            head: self.head,
            low_level: self.low_level,
            background: self.background,
            as_released: self.as_released,
            resolution: self.input_resolution,
        };
        config.check()?;
        Ok(config)
    }

    /// Returns the sizes of a small student as JSON, for examples.
    pub(super) fn example_student(width: usize) -> serde_json::Value {
        json!({ "blocks": [1, 1, 1, 1], "stem": width, "output": 2 * width, "bottleneck": width })
    }
}
