//! The model's part of an experiment: its words, and the architecture that they mean.

use serde::{Deserialize, Serialize};
use zeg_model::{
    config::{Activation, ClipRcConfig, HeadConfig, PromptConfig, VisionConfig, ZegClipConfig},
    method::{Method, MethodConfig},
    zegformer::ZegFormerConfig,
};

use crate::TrainError;

/// The model, in the words of a configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelConfig {
    /// The method: `zegclip`, `clip-rc` or `zegformer`.
    #[serde(default, skip_serializing_if = "Method::is_default")]
    pub method: Method,
    /// Image encoder, by name or by its sizes.
    pub encoder: Encoder,
    /// Side in pixels of the pictures whose patch grid the position table is resized to.
    pub input_resolution: usize,
    /// See [`VisionConfig::double_class_embedding`].
    #[serde(default = "yes")]
    pub double_class_embedding: bool,
    /// Deep prompts; without, the encoder stays as it is ("fixed").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<PromptConfig>,
    /// Region tokens of CLIP-RC: a square number, whose lattice divides the grids of patches. 16 as released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<usize>,
    /// Train the whole encoder ("FT" in the paper's ablation), not the prompts and the head alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tune_encoder: bool,
    /// The decoder head.
    #[serde(default)]
    pub head: HeadConfig,
    /// ZegFormer's first stage; `encoder` is what looks at crops in the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zegformer: Option<ZegFormerConfig>,
}

/// An image encoder, as a configuration file names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Encoder {
    /// A published one: `ViT-B/16`, `ViT-B/32`, `ViT-L/14`.
    Named(String),
    /// Any other CLIP-like vision transformer.
    Custom(EncoderSizes),
}

/// Sizes of a CLIP-like vision transformer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl std::fmt::Display for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Custom(sizes) => {
                let EncoderSizes {
                    patch,
                    width,
                    layers,
                    heads,
                    embed_dim,
                } = sizes;
                write!(
                    f,
                    "ViT of {layers} layers, width {width}, {heads} heads, patch {patch}, dim {embed_dim}"
                )
            }
        }
    }
}

fn yes() -> bool {
    true
}

/// Region tokens of the released CLIP-RC models.
const RELEASED_REGIONS: usize = 16;

impl ModelConfig {
    /// The architecture that these words mean.
    ///
    /// # Errors
    /// The encoder is not known, or the numbers do not fit each other.
    pub fn architecture(&self) -> Result<MethodConfig, TrainError> {
        if self.method == Method::ZegFormer {
            return self.zegformer();
        }
        if self.zegformer.is_some() {
            return Err(TrainError::Config(
                "model.zegformer needs model.method = \"zegformer\"".into(),
            ));
        }
        let base = self.tower()?;
        let encoder = VisionConfig {
            input_resolution: self.input_resolution,
            double_class_embedding: self.double_class_embedding,
            prompts: self.prompts.clone(),
            regions: self.regions,
            ..base
        };
        let config = match self.method {
            Method::ZegClip if self.regions.is_some() => {
                return Err(TrainError::Config(
                    "model.regions are CLIP-RC's: add model.method = \"clip-rc\", or leave them out".into(),
                ));
            }
            Method::ZegClip => MethodConfig::ZegClip(ZegClipConfig {
                encoder,
                head: self.head.clone(),
                tune_encoder: self.tune_encoder,
            }),
            Method::ClipRc => MethodConfig::ClipRc(ClipRcConfig {
                encoder: VisionConfig {
                    regions: self.regions.or(Some(RELEASED_REGIONS)),
                    ..encoder
                },
                head: self.head.clone(),
                tune_encoder: self.tune_encoder,
            }),
            Method::ZegFormer => return self.zegformer(),
        };
        config.check()?;
        Ok(config)
    }

    /// CLIP's image tower, without additions.
    fn tower(&self) -> Result<VisionConfig, TrainError> {
        Ok(match &self.encoder {
            Encoder::Named(name) => VisionConfig::by_name(name)?,
            Encoder::Custom(sizes) => VisionConfig {
                patch: sizes.patch,
                width: sizes.width,
                layers: sizes.layers,
                heads: sizes.heads,
                embed_dim: sizes.embed_dim,
                input_resolution: self.input_resolution,
                double_class_embedding: self.double_class_embedding,
                activation: Activation::default(),
                prompts: None,
                regions: None,
            },
        })
    }

    /// A ZegFormer, whose crops CLIP sees as it was trained.
    fn zegformer(&self) -> Result<MethodConfig, TrainError> {
        if self.prompts.is_some() || self.regions.is_some() || self.tune_encoder {
            return Err(TrainError::Config(
                "model.method = \"zegformer\" leaves CLIP as it is: leave out model.prompts, model.regions and \
                 model.tune-encoder"
                    .into(),
            ));
        }
        let first = self.zegformer.clone().unwrap_or_default();
        let tower = VisionConfig {
            input_resolution: first.crop_side,
            double_class_embedding: false,
            ..self.tower()?
        };
        let config = MethodConfig::ZegFormer(ZegFormerConfig {
            embed_dim: tower.embed_dim,
            classifier: Some(tower),
            resolution: self.input_resolution,
            ..first
        });
        config.check()?;
        Ok(config)
    }
}
