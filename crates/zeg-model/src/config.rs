//! Configurations of towers and heads, as stored in configuration files and checkpoints.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use zeg_base::numbers::Legal;
use zeg_kernels::{gelu, quick_gelu};

use crate::{ModelError, descriptor::QueryFormat, layers::scaled, method::Scoring};

/// The image towers with a published name.
const PUBLISHED_TOWERS: [&str; 3] = ["ViT-B/16", "ViT-B/32", "ViT-L/14"];

/// The configuration of a CLIP image tower and its additions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VisionConfig {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Number of residual blocks.
    pub layers: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Channels of the joint image-text space.
    pub embed_dim: usize,
    /// Side in pixels of the images to whose patch grid the stored position table is resized.
    pub input_resolution: usize,
    /// Whether the class token starts as twice the class embedding plus its position, as in the reference
    /// implementation of ZegCLIP; `false` gives CLIP's own single embedding.
    #[serde(default = "yes")]
    pub double_class_embedding: bool,
    /// Activation between the two linear layers of a block.
    #[serde(default, skip_serializing_if = "Activation::is_default")]
    pub activation: Activation,
    /// Deep prompt tuning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptConfig>,
    /// Number of region tokens (CLIP-RC's region-level bridge), a square number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<usize>,
}

fn yes() -> bool {
    true
}

impl VisionConfig {
    /// Returns a published architecture by its name: `ViT-B/16`, `ViT-B/32`, `ViT-L/14`.
    ///
    /// # Errors
    /// Returns an error if the name is not one of these.
    pub fn by_name(name: &str) -> Result<Self, ModelError> {
        let (patch, width, layers, embed_dim) =
            match name.to_ascii_lowercase().replace('-', "/").as_str() {
                "vit/b/16" => (16, 768, 12, 512),
                "vit/b/32" => (32, 768, 12, 512),
                "vit/l/14" => (14, 1024, 24, 768),
                _ => {
                    return Err(ModelError::Config(format!(
                        "unknown image encoder {name:?}; known: {}{}",
                        PUBLISHED_TOWERS.join(", "),
                        zeg_base::names::did_you_mean(name, PUBLISHED_TOWERS)
                    )));
                }
            };
        Ok(Self {
            patch,
            width,
            layers,
            heads: width / 64, // a head of these towers has 64 channels
            embed_dim,
            input_resolution: 224,
            double_class_embedding: true,
            activation: Activation::default(),
            prompts: None,
            regions: None,
        })
    }

    /// Returns the name to display: the published one, or the sizes.
    pub fn name(&self) -> String {
        let shape = |config: &Self| (config.patch, config.width, config.layers, config.embed_dim);
        let published = PUBLISHED_TOWERS.iter().find(|name| {
            Self::by_name(name).is_ok_and(|published| shape(&published) == shape(self))
        });
        match published {
            Some(name) => (*name).to_owned(),
            None => format!(
                "ViT of {} layers, width {}, {} heads, patch {}, dim {}",
                self.layers, self.width, self.heads, self.patch, self.embed_dim
            ),
        }
    }

    /// Returns the number of patches along one side of the stored position grid.
    pub fn grid(&self) -> usize {
        self.input_resolution / self.patch
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Returns an error if a size is zero, the heads do not divide the width, or the prompts reach beyond the last
    /// block.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |text: String| Err(ModelError::Config(text));
        if [
            self.patch,
            self.width,
            self.layers,
            self.heads,
            self.embed_dim,
        ]
        .contains(&0)
        {
            return fail(format!("an encoder size must not be zero: {self:?}"));
        }
        if !self.width.is_multiple_of(self.heads) {
            return fail(format!(
                "encoder width {} is not a multiple of its {} heads",
                self.width, self.heads
            ));
        }
        if self.grid() == 0 {
            return fail(format!(
                "input resolution {} is smaller than the patch size, {}",
                self.input_resolution, self.patch
            ));
        }
        if let Some(prompts) = &self.prompts {
            if prompts.tokens == 0 {
                return fail("`prompts` needs at least one token; leave it out for an encoder without prompts".into());
            }
            let blocks = match prompts.depth {
                PromptDepth::First(blocks) | PromptDepth::Last(blocks) => blocks,
            };
            if blocks == 0 || blocks > self.layers {
                return fail(format!(
                    "prompts in {blocks} blocks: there must be at least 1 and at most {}, the layers of the encoder",
                    self.layers
                ));
            }
        }
        if let Some(regions) = self.regions
            && regions.isqrt().pow(2) != regions
        {
            return fail(format!(
                "{regions} region tokens do not form a square lattice; the number must be a square"
            ));
        }
        Ok(())
    }
}

/// An image encoder, as given in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Encoder {
    /// A published encoder: `ViT-B/16`, `ViT-B/32`, `ViT-L/14`.
    Named(String),
    /// Any other CLIP-like vision transformer, given by its sizes.
    Custom(EncoderSizes),
}

/// The sizes of a CLIP-like vision transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EncoderSizes {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Number of residual blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Channels of the joint image-text space.
    pub embed_dim: usize,
}

impl Encoder {
    /// Returns the configuration of CLIP's image tower, without additions.
    ///
    /// - `input_resolution`: input resolution of an encoder that is given by its sizes
    ///
    /// # Errors
    /// Returns an error if the name is unknown.
    pub fn tower(&self, input_resolution: usize) -> Result<VisionConfig, ModelError> {
        Ok(match self {
            Self::Named(name) => VisionConfig::by_name(name)?,
            Self::Custom(sizes) => VisionConfig {
                patch: sizes.patch,
                width: sizes.width,
                layers: sizes.layers,
                heads: sizes.heads,
                embed_dim: sizes.embed_dim,
                input_resolution,
                double_class_embedding: true,
                activation: Activation::default(),
                prompts: None,
                regions: None,
            },
        })
    }
}

/// The activation function of a transformer's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// x·σ(1.702 x), used by OpenAI's models.
    #[default]
    QuickGelu,
    /// The exact GELU, used by most models trained with open_clip.
    Gelu,
}

impl Activation {
    /// Applies the function to every value.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::QuickGelu => quick_gelu(x),
            Self::Gelu => gelu(x),
        }
    }

    /// Returns whether this is the default, which is omitted from files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The configuration of deep prompt tuning: trained tokens next to the patches (ZegCLIP, section 3.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PromptConfig {
    /// Number of prompt tokens in each block.
    pub tokens: usize,
    /// The blocks that have prompts of their own.
    pub depth: PromptDepth,
    /// Probability of dropping a prompt value in training.
    #[serde(default = "tenth")]
    pub dropout: f64,
}

fn tenth() -> f64 {
    0.1
}

/// The blocks that have prompts of their own (ZegCLIP, table 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PromptDepth {
    /// The first n blocks. With 1 ("shallow"), the prompts enter at block 0 and stay in the sequence to the end, and
    /// the reference applies no `prompt_norm`. With more, every one of the n blocks gets new prompts, and the later
    /// blocks have none.
    First(usize),
    /// The last n blocks ("reverse"); the earlier blocks have none.
    Last(usize),
}

/// The configuration of a CLIP text tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TextConfig {
    /// Channels of a token.
    pub width: usize,
    /// Number of residual blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Channels of the joint image-text space.
    pub embed_dim: usize,
    /// Length of the longest text in tokens, start and end included.
    pub context_length: usize,
    /// Number of rows of the token table.
    pub vocabulary: usize,
    /// Activation between the two linear layers of a block.
    #[serde(default, skip_serializing_if = "Activation::is_default")]
    pub activation: Activation,
}

/// The configuration of the decoder head of ZegCLIP (section 3.2) and of CLIP-RC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HeadConfig {
    /// Number of cross-attention layers.
    #[serde(default = "three")]
    pub layers: usize,
    /// Number of attention heads.
    #[serde(default = "eight")]
    pub heads: usize,
    /// Hidden channels of the feed-forward part.
    #[serde(default = "ffn")]
    pub feed_forward: usize,
    /// Dropout probability in training.
    #[serde(default = "tenth")]
    pub dropout: f64,
    /// Factor on the unit-norm inputs of the head (patch tokens, image and class embeddings).
    ///
    /// The released models use 1. Unit vectors of 512 numbers make the first logits nearly zero, so hundreds of steps
    /// pass before the head changes; √dim gives its inputs unit variance (docs/src/project/decisions.md).
    #[serde(default = "one")]
    pub input_scale: f64,
    /// Factor on the logits of the masks.
    ///
    /// The released models use 1. CLIP-RC's logits are plain products of LayerNorm outputs, with a standard deviation
    /// of about √dim from the first step on; a short run spends most of its steps on reducing it. 1/√dim starts it at 1
    /// (docs/src/project/decisions.md).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub mask_scale: f64,
    /// Term that is added to the logits of the masks.
    ///
    /// The released models use 0, with which every class starts with a score of 0.5 everywhere, although nearly all of
    /// the pixels are negatives. −ln((1 − π)/π) starts every score at π (RetinaNet, arXiv 1708.02002, section 4.1).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mask_bias: f64,
    /// Composition of class queries; `text` is the head without a relationship descriptor.
    #[serde(default, skip_serializing_if = "QueryFormat::is_default")]
    pub query: QueryFormat,
    /// Conversion of masks to scores; it must be the one used in training.
    #[serde(default, skip_serializing_if = "Scoring::is_default")]
    pub scoring: Scoring,
}

fn three() -> usize {
    3
}
fn eight() -> usize {
    8
}
fn ffn() -> usize {
    2048
}
fn one() -> f64 {
    1.0
}
#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_one(factor: &f64) -> bool {
    (factor - 1.0).abs() < f64::EPSILON
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(term: &f64) -> bool {
    *term == 0.0
}

impl HeadConfig {
    /// Returns the logits of the class masks from the products of queries and patches, in the same shape.
    pub(crate) fn logits<const D: usize>(&self, products: Tensor<D>) -> Tensor<D> {
        let logits = scaled(products, self.mask_scale);
        if is_zero(&self.mask_bias) {
            logits
        } else {
            logits + self.mask_bias
        }
    }
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self {
            layers: three(),
            heads: eight(),
            feed_forward: ffn(),
            dropout: tenth(),
            input_scale: one(),
            mask_scale: one(),
            mask_bias: 0.0,
            query: QueryFormat::default(),
            scoring: Scoring::default(),
        }
    }
}

/// Checks encoder and head of a method that has both.
pub(crate) fn check_parts(encoder: &VisionConfig, head: &HeadConfig) -> Result<(), ModelError> {
    encoder.check()?;
    if head.layers == 0 || head.heads == 0 || !encoder.embed_dim.is_multiple_of(head.heads) {
        return Err(ModelError::Config(format!(
            "a head of {} layers and {} attention heads: it needs at least one of each, and heads that divide its {} channels",
            head.layers, head.heads, encoder.embed_dim
        )));
    }
    let prompts = encoder.prompts.as_ref().map(|prompts| prompts.dropout);
    for (section, probability) in [("head", Some(head.dropout)), ("prompts", prompts)] {
        if let Some(p) = probability.filter(|p| !Legal::BelowOne.accepts(*p)) {
            return Err(ModelError::Config(format!(
                "model.{section}.dropout = {p}: {}",
                Legal::BelowOne.text()
            )));
        }
    }
    Ok(())
}
