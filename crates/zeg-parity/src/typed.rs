//! Combines ZegCLIP and CLIP-RC, whose files of reference numbers have the same form, in one type.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use zeg_model::{
    ModelError, Precision,
    config::{HeadConfig, VisionConfig},
    method::Model,
    methods::clip_rc::{ClipRc, ClipRcConfig, recovery::Recovery},
    methods::zegclip::{ZegClip, ZegClipConfig},
    trace::Trace,
    vision::{Encoded, VisionTransformer},
    weights::StateDict,
};

/// The configuration of a model of either method.
#[derive(Debug, Clone)]
pub(crate) enum TypedConfig {
    ZegClip(ZegClipConfig),
    ClipRc(ClipRcConfig),
}

impl TypedConfig {
    /// Returns the configuration for an encoder and a head: CLIP-RC if the encoder has region tokens, otherwise
    /// ZegCLIP.
    pub(crate) fn new(encoder: VisionConfig, head: HeadConfig) -> Self {
        let tune_encoder = false;
        if encoder.regions.is_some() {
            Self::ClipRc(ClipRcConfig {
                encoder,
                head,
                tune_encoder,
            })
        } else {
            Self::ZegClip(ZegClipConfig {
                encoder,
                head,
                tune_encoder,
            })
        }
    }

    /// Returns the configuration of the image encoder.
    pub(crate) fn encoder(&self) -> &VisionConfig {
        match self {
            Self::ZegClip(config) => &config.encoder,
            Self::ClipRc(config) => &config.encoder,
        }
    }

    /// Builds the model for training.
    pub(crate) fn build(
        &self,
        weights: &StateDict,
        device: &Device,
    ) -> Result<TypedModel, ModelError> {
        Ok(match self {
            Self::ZegClip(config) => {
                TypedModel::ZegClip(ZegClip::build(weights, config, device, 0)?.0)
            }
            Self::ClipRc(config) => {
                TypedModel::ClipRc(ClipRc::build(weights, config, device, 0)?.0)
            }
        })
    }

    /// Builds the model for inference, with packed linear layers.
    pub(crate) fn build_packed(
        &self,
        weights: &StateDict,
        device: &Device,
    ) -> Result<TypedModel, ModelError> {
        let precision = Precision::Float;
        Ok(match self {
            Self::ZegClip(config) => {
                TypedModel::ZegClip(ZegClip::build_packed(weights, config, device, precision)?)
            }
            Self::ClipRc(config) => {
                TypedModel::ClipRc(ClipRc::build_packed(weights, config, device, precision)?)
            }
        })
    }

    /// Builds the model with the shapes of its parameters but without values.
    pub(crate) fn blueprint(&self, device: &Device) -> Result<TypedModel, ModelError> {
        Ok(match self {
            Self::ZegClip(config) => TypedModel::ZegClip(ZegClip::blueprint(config, device)?),
            Self::ClipRc(config) => TypedModel::ClipRc(ClipRc::blueprint(config, device)?),
        })
    }

    /// Returns whether the parameter of this name is trained.
    pub(crate) fn trains(&self, key: &str) -> bool {
        match self {
            Self::ZegClip(config) => ZegClip::trains(config, key),
            Self::ClipRc(config) => ClipRc::trains(config, key),
        }
    }
}

/// A model of either method.
#[allow(clippy::large_enum_variant)] // handles of tensors; there are one or two models
#[derive(Module, Debug)]
pub(crate) enum TypedModel {
    ZegClip(ZegClip),
    ClipRc(ClipRc),
}

impl TypedModel {
    /// Returns the device that the parameters are on.
    pub(crate) fn device(&self) -> Device {
        self.devices().into_iter().next().unwrap_or_default()
    }

    /// Returns the model in the form that inference uses.
    pub(crate) fn dense(&self) -> &dyn Model {
        match self {
            Self::ZegClip(model) => model,
            Self::ClipRc(model) => model,
        }
    }

    /// Replaces the image encoder.
    pub(crate) fn set_encoder(&mut self, encoder: VisionTransformer) {
        match self {
            Self::ZegClip(model) => model.backbone = encoder,
            Self::ClipRc(model) => model.backbone = encoder,
        }
    }

    /// Encodes images `[batch, 3, height, width]` and records the activations.
    pub(crate) fn encode(&self, images: Tensor<4>, trace: &mut Trace) -> Encoded {
        match self {
            Self::ZegClip(model) => model.encode(images, trace),
            Self::ClipRc(model) => model.encode(images, trace),
        }
    }

    /// Decodes and records the activations.
    ///
    /// Returns the masks on the patch grid, `[batch, classes, h, w]`, and the output of CLIP-RC's recovery decoder.
    pub(crate) fn decode(
        &self,
        encoded: Encoded,
        text: Tensor<2>,
        trace: &mut Trace,
    ) -> (Tensor<4>, Option<Recovery>) {
        match self {
            Self::ZegClip(model) => (model.decode_head.forward(encoded, text, trace), None),
            Self::ClipRc(model) => {
                let head = &model.decode_head;
                let (masks, recovery) = head.forward_with_recovery(encoded, text, trace);
                (masks, Some(recovery))
            }
        }
    }
}
