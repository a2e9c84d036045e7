//! CAT-Seg: open-vocabulary segmentation by cost aggregation (Cho et al., CVPR 2024).
//!
//! Image → CLIP, whose last block has no attention ([`tower`]) → the cosine of every position and every class, the cost
//! volume → aggregation over positions ([`swin`]) and over classes ([`class_attention`]) → decoder ([`aggregator`]) → one
//! map of logits per class, each with its own sigmoid. The projections of queries and values of both of CLIP's towers are
//! fine-tuned, so class embeddings change in training. Where the paper and the released code differ, this follows the
//! code.

pub mod aggregator;
pub mod class_attention;
pub mod config;
pub mod convolution;
pub mod count;
pub mod entry;
pub mod keys;
pub mod model;
pub mod swin;
#[cfg(test)]
mod tests;
pub mod tower;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use self::{
    aggregator::{Aggregator, Guides},
    convolution::{Kernel, Upsampling},
};
pub use self::{
    config::{AggregatorConfig, CatSegConfig, Tuning},
    entry::CatSegMethod,
};
use crate::{
    ModelError,
    config::VisionConfig,
    resize::bilinear,
    text::TextTower,
    trace::Trace,
    vision::VisionTransformer,
    weights::{ParamBuilder, Provenance, StateDict},
};

/// A CAT-Seg model.
#[derive(Module, Debug)]
pub struct CatSeg {
    /// CLIP's image tower.
    pub backbone: VisionTransformer,
    /// CLIP's text tower, in training if it is fine-tuned.
    pub text_encoder: Option<TextTower>,
    /// The aggregator, under the reference's names.
    pub sem_seg_head: SegmentationHead,
    /// Doubles the side of the earlier middle block's map.
    pub upsample1: Upsampling,
    /// Quadruples the side of the later middle block's map.
    pub upsample2: Upsampling,
    #[module(skip)]
    config: CatSegConfig,
}

/// The place of the predictor in the reference's names.
#[derive(Module, Debug)]
pub struct SegmentationHead {
    /// The predictor.
    pub predictor: Predictor,
}

/// The place of the aggregator in the reference's names.
#[derive(Module, Debug)]
pub struct Predictor {
    /// The aggregator.
    pub transformer: Aggregator,
}

/// Everything that the model computes of images before it knows the classes.
#[derive(Debug, Clone)]
pub struct ImageFeatures {
    /// Patches in the joint image-text space, not normalised: `[batch, dim, h, w]`
    pub joint: Tensor<4>,
    /// Features that guide the aggregation.
    pub guides: Guides,
}

impl ImageFeatures {
    /// Returns the features of one image of the batch, as a batch of one.
    #[must_use]
    pub fn image(&self, index: usize) -> Self {
        Self {
            joint: self.joint.clone().narrow(0, index, 1),
            guides: self.guides.image(index),
        }
    }

    /// Returns the memory that the tensors take, in bytes.
    pub fn bytes(&self) -> u64 {
        let Guides {
            appearance,
            decoder,
        } = &self.guides;
        let maps = [&self.joint].into_iter().chain(appearance).chain(decoder);
        let elements: usize = maps.map(|map| map.shape().num_elements()).sum();
        (elements * size_of::<f32>()) as u64
    }
}

impl CatSeg {
    /// Reads a model for training; the aggregator is initialised if the weights lack it.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent, or a tower is missing from the weights or does not match.
    pub fn build(
        weights: &StateDict,
        config: &CatSegConfig,
        device: &Device,
        seed: u64,
    ) -> Result<(Self, Provenance), ModelError> {
        let trained = |key: &str| Self::trains(config, key);
        let params = ParamBuilder::new(weights, device, seed, &trained);
        let model = Self::from_params(&params, config)?;
        Ok((model, params.provenance()))
    }

    pub(super) fn from_params(
        params: &ParamBuilder,
        config: &CatSegConfig,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let (weights, dim) = (params.weights(), config.encoder.embed_dim);
        let encoder = with_own_positions(weights, &config.encoder);
        let upsampling = |name, output, side| {
            let kernel = Kernel {
                input: encoder.width,
                output,
                side,
            };
            Upsampling::build(&params.at(name), kernel)
        };
        let text = params.at("text_encoder");
        let first_attention = text.at("transformer").at("resblocks").at(0).at("attn");
        let text_encoder = first_attention.trains("q_proj_weight").then(|| {
            let config = config.text.tower(weights, dim, encoder.activation);
            TextTower::build(&text, &config)
        });
        let features = config.aggregator.decoder_features;
        let head = params.at("sem_seg_head").at("predictor").at("transformer");
        Ok(Self {
            backbone: VisionTransformer::build(&params.at("backbone"), &encoder)?,
            text_encoder: text_encoder.transpose()?,
            sem_seg_head: SegmentationHead {
                predictor: Predictor {
                    transformer: Aggregator::build(&head, &config.aggregator, dim)?,
                },
            },
            upsample1: upsampling("upsample1", features[0], 2)?,
            upsample2: upsampling("upsample2", features[1], 4)?,
            config: config.clone(),
        })
    }

    /// Returns whether a parameter is trained: all are, except most of CLIP ([`Tuning`]).
    pub fn trains(config: &CatSegConfig, key: &str) -> bool {
        let of_clip = ["backbone.", "text_encoder."]
            .iter()
            .find_map(|prefix| key.strip_prefix(prefix));
        of_clip.is_none_or(|name| config.tuning.trains(name))
    }

    /// Returns the configuration.
    pub fn config(&self) -> &CatSegConfig {
        &self.config
    }

    /// Returns the aggregator.
    pub fn aggregator(&self) -> &Aggregator {
        &self.sem_seg_head.predictor.transformer
    }

    /// Computes the part that does not depend on the classes.
    ///
    /// - `images`: `[batch, 3, height, width]`, normalised, of any size; they are resized for CLIP
    pub fn features(&self, images: Tensor<4>, trace: &mut Trace) -> ImageFeatures {
        let side = self.config.side;
        let images = bilinear(images, [side, side]);
        trace.record("clip_image", &images);
        let dense = tower::encode(&self.backbone, images, self.config.taps, trace);
        let [early, late] = dense.middle;
        let middle = [
            self.upsample1.forward(early, dense.grid),
            self.upsample2.forward(late, dense.grid),
        ];
        trace.record("res4", &middle[0]);
        trace.record("res5", &middle[1]);
        ImageFeatures {
            guides: self.aggregator().guides(&dense.joint, &middle, trace),
            joint: dense.joint,
        }
    }

    /// Computes the logits of classes on encoded images: `[batch, classes, 4·h, 4·w]` on a patch grid of `[h, w]`
    ///
    /// - `text`: class embeddings `[classes, dim]`
    /// - `pooling`: rows and columns that class aggregation averages
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn decode(
        &self,
        features: &ImageFeatures,
        text: Tensor<2>,
        pooling: [usize; 2],
        trace: &mut Trace,
    ) -> Result<Tensor<4>, ModelError> {
        let [batch, _, _, _] = features.joint.dims();
        let text = text.unsqueeze_dim::<3>(1); // [classes, 1, dim]
        let mut logits = Vec::with_capacity(batch);
        for index in 0..batch {
            let ImageFeatures { joint, guides } = features.image(index);
            let aggregator = self.aggregator();
            logits.push(aggregator.forward(joint, &guides, text.clone(), pooling, trace)?);
        }
        Ok(Tensor::cat(logits, 0))
    }

    /// Computes the logits of a training batch, with the pooling of the training: `[batch, classes, 4·h, 4·w]`
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn forward(
        &self,
        images: Tensor<4>,
        text: Tensor<2>,
        trace: &mut Trace,
    ) -> Result<Tensor<4>, ModelError> {
        let features = self.features(images, trace);
        self.decode(&features, text, self.config.aggregator.pooling, trace)
    }
}

/// Returns the configuration with the position table of the weights, which is not resized when it is read.
fn with_own_positions(weights: &StateDict, encoder: &VisionConfig) -> VisionConfig {
    let stored = weights.shape("backbone.positional_embedding");
    let cells = stored
        .and_then(|shape| shape.first().copied())
        .map_or(0, |rows| rows.saturating_sub(1));
    let side = cells.isqrt();
    let input_resolution = if side > 0 && side * side == cells {
        side * encoder.patch
    } else {
        encoder.input_resolution
    };
    VisionConfig {
        input_resolution,
        ..encoder.clone()
    }
}
