//! The methods that are trained: one type for all of them, so that trainer, checkpoints and commands need not know
//! which they have.
//!
//! A [`MethodConfig`] says what a model is, a [`Model`] is one. What only one method has stays in its own file; what
//! its training minimises is the training crate's matter.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
use zeg_image::normalize::Normalization;

use crate::{
    ModelError, Precision,
    clip_rc::ClipRc,
    config::{ClipRcConfig, VisionConfig, ZegClipConfig},
    count::{Macs, ParamCounts, clip_rc_macs, clip_rc_params, zegclip_macs, zegclip_params},
    dense::{DenseModel, Scoring},
    params::list_params,
    vision::Encoded,
    weights::{Provenance, StateDict},
    zegclip::ZegClip,
    zegformer::{
        ZegFormer, ZegFormerConfig,
        config::STRIDE,
        count::{zegformer_macs, zegformer_params},
    },
};

/// A method, by the name that a configuration file gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// ZegCLIP (CVPR 2023).
    #[default]
    #[serde(rename = "zegclip")]
    ZegClip,
    /// CLIP-RC (CVPR 2024).
    ClipRc,
    /// ZegFormer (CVPR 2022), in two stages.
    #[serde(rename = "zegformer")]
    ZegFormer,
}

impl Method {
    /// For leaving the usual value out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::ZegClip => "ZegCLIP",
            Self::ClipRc => "CLIP-RC",
            Self::ZegFormer => "ZegFormer",
        }
    }
}

/// What a model of any method is.
#[derive(Debug, Clone, PartialEq)]
pub enum MethodConfig {
    /// See [`ZegClip`].
    ZegClip(ZegClipConfig),
    /// See [`ClipRc`].
    ClipRc(ClipRcConfig),
    /// See [`ZegFormer`].
    ZegFormer(ZegFormerConfig),
}

impl MethodConfig {
    /// The method.
    pub fn method(&self) -> Method {
        match self {
            Self::ZegClip(_) => Method::ZegClip,
            Self::ClipRc(_) => Method::ClipRc,
            Self::ZegFormer(_) => Method::ZegFormer,
        }
    }

    /// Checks that the numbers fit each other.
    ///
    /// # Errors
    /// See the methods' own configurations.
    pub fn check(&self) -> Result<(), ModelError> {
        match self {
            Self::ZegClip(config) => config.check(),
            Self::ClipRc(config) => config.check(),
            Self::ZegFormer(config) => config.check(),
        }
    }

    /// Reads a model; what the weights lack, and the method trains, starts fresh.
    ///
    /// # Errors
    /// The configuration contradicts itself, or what must be pre-trained is not in the weights.
    pub fn build(
        &self,
        weights: &StateDict,
        device: &Device,
        seed: u64,
    ) -> Result<(Model, Provenance), ModelError> {
        match self {
            Self::ZegClip(config) => {
                let (model, provenance) = ZegClip::build(weights, config, device, seed)?;
                Ok((Model::ZegClip(model), provenance))
            }
            Self::ClipRc(config) => {
                let (model, provenance) = ClipRc::build(weights, config, device, seed)?;
                Ok((Model::ClipRc(model), provenance))
            }
            Self::ZegFormer(config) => {
                let (model, provenance) = ZegFormer::build(weights, config, device, seed)?;
                Ok((Model::ZegFormer(model), provenance))
            }
        }
    }

    /// As [`MethodConfig::build`], for inference alone: on the CPU, linear layers hold packed weights.
    ///
    /// # Errors
    /// As [`MethodConfig::build`], or the device cannot compute with this precision.
    pub fn build_packed(
        &self,
        weights: &StateDict,
        device: &Device,
        precision: Precision,
    ) -> Result<Model, ModelError> {
        match self {
            Self::ZegClip(config) => {
                ZegClip::build_packed(weights, config, device, precision).map(Model::ZegClip)
            }
            Self::ClipRc(config) => {
                ClipRc::build_packed(weights, config, device, precision).map(Model::ClipRc)
            }
            Self::ZegFormer(config) => {
                ZegFormer::build_packed(weights, config, device, precision).map(Model::ZegFormer)
            }
        }
    }

    /// The model's shape without values, for counting.
    ///
    /// # Errors
    /// The configuration contradicts itself.
    pub fn blueprint(&self, device: &Device) -> Result<Model, ModelError> {
        match self {
            Self::ZegClip(config) => Ok(Model::ZegClip(ZegClip::blueprint(config, device)?)),
            Self::ClipRc(config) => Ok(Model::ClipRc(ClipRc::blueprint(config, device)?)),
            Self::ZegFormer(config) => Ok(Model::ZegFormer(ZegFormer::blueprint(config, device)?)),
        }
    }

    /// Whether the parameter of this name really learns.
    pub fn trains(&self, key: &str) -> bool {
        match self {
            Self::ZegClip(config) => ZegClip::trains(config, key),
            Self::ClipRc(config) => ClipRc::trains(config, key),
            Self::ZegFormer(_) => ZegFormer::trains(key),
        }
    }

    /// The CLIP image tower that pictures go through, or crops of them; `None` for a first stage alone.
    pub fn encoder(&self) -> Option<&VisionConfig> {
        match self {
            Self::ZegClip(config) => Some(&config.encoder),
            Self::ClipRc(config) => Some(&config.encoder),
            Self::ZegFormer(config) => config.classifier.as_ref(),
        }
    }

    /// The sides of a picture must be multiples of this many pixels.
    pub fn patch(&self) -> usize {
        match self {
            Self::ZegClip(config) => config.encoder.patch,
            Self::ClipRc(config) => config.encoder.patch,
            Self::ZegFormer(_) => STRIDE,
        }
    }

    /// Side in pixels of the pictures that the model is made for, and that its cost is told for.
    pub fn resolution(&self) -> usize {
        match self {
            Self::ZegClip(config) => config.encoder.input_resolution,
            Self::ClipRc(config) => config.encoder.input_resolution,
            Self::ZegFormer(config) => config.resolution,
        }
    }

    /// How many crops of a picture the encoder looks at; `None` where it looks at the picture.
    pub fn crops(&self) -> Option<usize> {
        match self {
            Self::ZegClip(_) | Self::ClipRc(_) => None,
            Self::ZegFormer(config) => Some(config.queries),
        }
    }

    /// How scores are made of its masks.
    pub fn scoring(&self) -> Scoring {
        match self {
            Self::ZegClip(config) => config.head.scoring,
            Self::ClipRc(config) => config.head.scoring,
            Self::ZegFormer(_) => Scoring::Softmax,
        }
    }

    /// Numbers of parameters.
    ///
    /// # Errors
    /// See [`MethodConfig::blueprint`].
    pub fn count_params(&self) -> Result<ParamCounts, ModelError> {
        let params = list_params(&self.blueprint(&Device::flex())?, |key| self.trains(key));
        Ok(match self {
            Self::ZegClip(config) => zegclip_params(&params, config),
            Self::ClipRc(config) => clip_rc_params(&params, config),
            Self::ZegFormer(_) => zegformer_params(&params),
        })
    }

    /// Multiply-accumulates of one square picture of [`MethodConfig::resolution`].
    pub fn count_macs(&self, classes: usize) -> Macs {
        match self {
            Self::ZegClip(config) => zegclip_macs(config, self.resolution(), classes),
            Self::ClipRc(config) => clip_rc_macs(config, self.resolution(), classes),
            Self::ZegFormer(config) => zegformer_macs(config, self.resolution(), classes).summed(),
        }
    }
}

impl From<ZegClipConfig> for MethodConfig {
    fn from(config: ZegClipConfig) -> Self {
        Self::ZegClip(config)
    }
}

impl From<ZegFormerConfig> for MethodConfig {
    fn from(config: ZegFormerConfig) -> Self {
        Self::ZegFormer(config)
    }
}

impl From<ClipRcConfig> for MethodConfig {
    fn from(config: ClipRcConfig) -> Self {
        Self::ClipRc(config)
    }
}

/// A model of any method that is trained. Its parameters have the names that the method's own have.
#[allow(clippy::large_enum_variant)] // handles of tensors; a program holds one or two models
#[derive(Module, Debug)]
pub enum Model {
    /// ZegCLIP.
    ZegClip(ZegClip),
    /// CLIP-RC.
    ClipRc(ClipRc),
    /// ZegFormer.
    ZegFormer(ZegFormer),
}

impl Model {
    /// The device that the parameters are on; the default one where there are none.
    pub fn device(&self) -> Device {
        let devices = self.devices();
        devices.into_iter().next().unwrap_or_default()
    }

    fn dense(&self) -> &dyn DenseModel {
        match self {
            Self::ZegClip(model) => model,
            Self::ClipRc(model) => model,
            Self::ZegFormer(model) => model,
        }
    }
}

impl From<ZegClip> for Model {
    fn from(model: ZegClip) -> Self {
        Self::ZegClip(model)
    }
}

impl From<ZegFormer> for Model {
    fn from(model: ZegFormer) -> Self {
        Self::ZegFormer(model)
    }
}

impl From<ClipRc> for Model {
    fn from(model: ClipRc) -> Self {
        Self::ClipRc(model)
    }
}

impl DenseModel for Model {
    fn encode(&self, images: Tensor<4>) -> Encoded {
        self.dense().encode(images)
    }

    fn masks(&self, encoded: Encoded, text: Tensor<2>) -> Tensor<4> {
        self.dense().masks(encoded, text)
    }

    fn patch(&self) -> usize {
        self.dense().patch()
    }

    fn embed_dim(&self) -> usize {
        self.dense().embed_dim()
    }

    fn scoring(&self) -> Scoring {
        self.dense().scoring()
    }

    fn normalization(&self) -> Normalization {
        self.dense().normalization()
    }

    fn two_stage(&self) -> Option<&ZegFormer> {
        self.dense().two_stage()
    }
}
