//! Architectures as data: what a configuration file and a checkpoint say about a model.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use zeg_kernels::{gelu, quick_gelu};

use crate::{ModelError, descriptor::QueryFormat, method::Scoring};

/// Image towers that are known by name.
const PUBLISHED_TOWERS: [&str; 3] = ["ViT-B/16", "ViT-B/32", "ViT-L/14"];

/// A CLIP image tower and what is added to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct VisionConfig {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Residual blocks.
    pub layers: usize,
    /// Attention heads; divides `width`.
    pub heads: usize,
    /// Channels of the joint image-text space.
    pub embed_dim: usize,
    /// Side of the images whose grid the stored position table is resized to, in pixels.
    pub input_resolution: usize,
    /// The class token starts as twice the class embedding plus its position, as the reference implementation of
    /// ZegCLIP computes it; `false` gives CLIP's own single embedding.
    #[serde(default = "yes")]
    pub double_class_embedding: bool,
    /// Between the two linear layers of a block.
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
    /// A published architecture by its name: `ViT-B/16`, `ViT-B/32`, `ViT-L/14`.
    ///
    /// # Errors
    /// The name is not one of these.
    pub fn by_name(name: &str) -> Result<Self, ModelError> {
        let (patch, width, layers, embed_dim) =
            match name.to_ascii_lowercase().replace('-', "/").as_str() {
                "vit/b/16" => (16, 768, 12, 512),
                "vit/b/32" => (32, 768, 12, 512),
                "vit/l/14" => (14, 1024, 24, 768),
                _ => {
                    return Err(ModelError::Config(format!(
                        "unknown image encoder {name:?}; known: ViT-B/16, ViT-B/32, ViT-L/14"
                    )));
                }
            };
        Ok(Self {
            patch,
            width,
            layers,
            heads: width / 64, // every published CLIP transformer has heads of 64 channels
            embed_dim,
            input_resolution: 224,
            double_class_embedding: true,
            activation: Activation::default(),
            prompts: None,
            regions: None,
        })
    }

    /// Name for people: a published one, or the sizes.
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

    /// Patches along one side of the stored position grid.
    pub fn grid(&self) -> usize {
        self.input_resolution / self.patch
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// A size is zero, the heads do not divide the width, the prompts reach beyond the last block.
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
            return fail(format!("an encoder cannot have a size of zero: {self:?}"));
        }
        if !self.width.is_multiple_of(self.heads) {
            return fail(format!(
                "encoder width {} is not a multiple of its {} heads",
                self.width, self.heads
            ));
        }
        if self.grid() == 0 {
            return fail(format!(
                "input resolution {} is smaller than a patch of {}",
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
                    "prompts in {blocks} blocks of an encoder of {} layers",
                    self.layers
                ));
            }
        }
        if let Some(regions) = self.regions
            && regions.isqrt().pow(2) != regions
        {
            return fail(format!(
                "{regions} region tokens do not form a square lattice"
            ));
        }
        Ok(())
    }
}

/// An image encoder, as a configuration file names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Encoder {
    /// A published one: `ViT-B/16`, `ViT-B/32`, `ViT-L/14`.
    Named(String),
    /// Any other CLIP-like vision transformer.
    Custom(EncoderSizes),
}

/// Sizes of a CLIP-like vision transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EncoderSizes {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Channels of a token.
    pub width: usize,
    /// Residual blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels of the joint image-text space.
    pub embed_dim: usize,
}

impl Encoder {
    /// CLIP's image tower, without additions.
    ///
    /// - `input_resolution`: of an encoder that is described by its sizes
    ///
    /// # Errors
    /// The name is not known.
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

/// The non-linearity of a transformer's blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// x·σ(1.702 x): OpenAI's models.
    #[default]
    QuickGelu,
    /// The exact GELU: most models trained with open_clip.
    Gelu,
}

impl Activation {
    /// Applies it to every value.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::QuickGelu => quick_gelu(x),
            Self::Gelu => gelu(x),
        }
    }

    /// For leaving the usual value out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Deep prompt tuning: trained tokens beside the patches (ZegCLIP, section 3.3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PromptConfig {
    /// Prompt tokens in each block.
    pub tokens: usize,
    /// Which blocks have prompts of their own.
    pub depth: PromptDepth,
    /// Probability of dropping a prompt value in training.
    #[serde(default = "tenth")]
    pub dropout: f64,
}

fn tenth() -> f64 {
    0.1
}

/// Which blocks have prompts of their own (ZegCLIP, table 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PromptDepth {
    /// The first n blocks. With 1 ("shallow") the prompts enter block 0 and live through all others, and the
    /// reference applies no `prompt_norm`; with more, every one of the n blocks gets fresh prompts and the blocks
    /// behind have none.
    First(usize),
    /// The last n blocks ("reverse"); the blocks before have none.
    Last(usize),
}

/// A CLIP text tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TextConfig {
    /// Channels of a token.
    pub width: usize,
    /// Residual blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Channels of the joint image-text space.
    pub embed_dim: usize,
    /// Longest text in tokens, start and end included.
    pub context_length: usize,
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Between the two linear layers of a block.
    #[serde(default, skip_serializing_if = "Activation::is_default")]
    pub activation: Activation,
}

/// The decoder head of ZegCLIP (section 3.2) and of CLIP-RC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HeadConfig {
    /// Cross-attention layers.
    #[serde(default = "three")]
    pub layers: usize,
    /// Attention heads.
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
    /// 1 is as released. Unit vectors of 512 numbers make the first logits nearly zero, and hundreds of steps pass
    /// before the head moves; √dim gives its inputs unit variance (docs/src/project/decisions.md).
    #[serde(default = "one")]
    pub input_scale: f64,
    /// Factor on the logits of the masks.
    ///
    /// 1 is as released. CLIP-RC's logits are plain products of LayerNorm outputs, with a standard deviation of about
    /// √dim from the first step on, which a short run spends most of its steps on taking back; 1/√dim starts them at 1
    /// (docs/src/project/decisions.md).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub mask_scale: f64,
    /// What class queries are made of; `text` is the head without a relationship descriptor.
    #[serde(default, skip_serializing_if = "QueryFormat::is_default")]
    pub query: QueryFormat,
    /// How scores are made of the masks; as the model was trained.
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

impl Default for HeadConfig {
    fn default() -> Self {
        Self {
            layers: three(),
            heads: eight(),
            feed_forward: ffn(),
            dropout: tenth(),
            input_scale: one(),
            mask_scale: one(),
            query: QueryFormat::default(),
            scoring: Scoring::default(),
        }
    }
}

/// What encoder and head of every method with both must fulfil.
pub(crate) fn check_parts(encoder: &VisionConfig, head: &HeadConfig) -> Result<(), ModelError> {
    encoder.check()?;
    if head.layers == 0 || head.heads == 0 || !encoder.embed_dim.is_multiple_of(head.heads) {
        return Err(ModelError::Config(format!(
            "a head of {} layers and {} attention heads on {} channels",
            head.layers, head.heads, encoder.embed_dim
        )));
    }
    for probability in [
        Some(head.dropout),
        encoder.prompts.as_ref().map(|p| p.dropout),
    ] {
        if let Some(p) = probability
            && !(0.0..1.0).contains(&p)
        {
            return Err(ModelError::Config(format!(
                "dropout {p} is not a probability below 1"
            )));
        }
    }
    Ok(())
}
