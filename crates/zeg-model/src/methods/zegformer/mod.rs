//! ZegFormer: zero-shot segmentation in two stages (Ding et al., CVPR 2022).
//!
//! First stage: image → [`resnet`] → [`pixel_decoder`] and [`query_decoder`] → [`heads`]. It gives each mask query a
//! mask and a vector of the joint image-text space, independent of the classes. Second stage: the vectors, and CLIP's
//! vectors of a crop of every mask ([`crops`], [`classifier`]), are compared with the class embeddings, and the two
//! scores are combined ([`fusion`]). A pixel's scores are masks times class scores, summed over queries
//! ([`crate::scores`]).

pub mod classifier;
pub mod config;
pub mod count;
pub mod crops;
pub mod entry;
pub mod foreground;
pub mod fusion;
pub mod heads;
pub mod keys;
pub mod model;
mod roi_align;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use crate::{
    ModelError, Precision,
    trace::Trace,
    weights::{ParamBuilder, Provenance, StateDict},
};

pub use crate::mask_transformer::{
    QueryOutput, Regions, convolution, pixel_decoder, positions, query_decoder, resnet,
};
use classifier::CropClassifier;
pub use config::{ZegFormerConfig, ZegFormerOptions};
pub use entry::ZegFormerMethod;
use heads::{Heads, Predictor, mask_logits};
use pixel_decoder::PixelDecoder;
use resnet::ResNet;

/// A ZegFormer model: the first stage, and CLIP for the second.
#[derive(Module, Debug)]
pub struct ZegFormer {
    /// Backbone: computes feature maps at strides 4 to 32.
    pub backbone: ResNet,
    /// Everything after the backbone, under the reference's name.
    pub sem_seg_head: SegmentationHead,
    /// CLIP's image tower for the second stage; frozen.
    pub classifier: Option<CropClassifier>,
    #[module(skip)]
    config: ZegFormerConfig,
    #[module(skip)]
    options: ZegFormerOptions,
}

/// Pixel decoder and predictor, under the reference's names.
#[derive(Module, Debug)]
pub struct SegmentationHead {
    /// Pixel decoder: computes one map of mask features from the feature maps.
    pub pixel_decoder: PixelDecoder,
    /// Mask queries, their decoder and heads.
    pub predictor: Predictor,
}

impl ZegFormer {
    /// Reads the model; parameters that the weights lack are initialised. CLIP's image tower must be in the weights if
    /// the configuration has one.
    ///
    /// - `seed`: seed of the initial values
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent, or a required tensor is missing or a tensor has the wrong
    /// shape.
    pub fn build(
        weights: &StateDict,
        config: &ZegFormerConfig,
        device: &Device,
        seed: u64,
    ) -> Result<(Self, Provenance), ModelError> {
        let trained = Self::trains;
        let params = ParamBuilder::new(weights, device, seed, &trained);
        // The tower's names begin like those of the residual network, which is trained. The tower encodes crops only
        // after training, and is frozen.
        let frozen = ParamBuilder::apart(weights, device, seed);
        let model = Self::from_params(&params, &frozen, config)?;
        Ok((model, params.provenance()))
    }

    /// Reads the model as [`ZegFormer::build`] does, for inference only; see [`ParamBuilder::packed`].
    ///
    /// # Errors
    /// Returns the errors of [`ZegFormer::build`], and an error if the device cannot compute with this precision.
    pub fn build_packed(
        weights: &StateDict,
        config: &ZegFormerConfig,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        // The temperature is a constant that is neither trained nor stored.
        let constant = |key: &str| key.ends_with(".logit_scale");
        let params = ParamBuilder::packed(weights, device, 0, precision)?.without(&constant);
        Self::from_params(&params, &params, config)
    }

    /// Returns the model without parameter values, for counting.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent.
    pub fn blueprint(config: &ZegFormerConfig, device: &Device) -> Result<Self, ModelError> {
        let weights = StateDict::default();
        let trained = Self::trains;
        let params = ParamBuilder::blueprint(&weights, device, &trained);
        let frozen = ParamBuilder::blueprint(&weights, device, &|_| false);
        Self::from_params(&params, &frozen, config)
    }

    pub(super) fn from_params(
        params: &ParamBuilder,
        frozen: &ParamBuilder,
        config: &ZegFormerConfig,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let head = params.at("sem_seg_head");
        let classifier = config.classifier.as_ref();
        Ok(Self {
            backbone: ResNet::build(&params.at("backbone"), &config.backbone)?,
            sem_seg_head: SegmentationHead {
                pixel_decoder: PixelDecoder::build(
                    &head.at("pixel_decoder"),
                    &config.mask_transformer(),
                )?,
                predictor: Predictor::build(&head.at("predictor"), config)?,
            },
            classifier: classifier
                .map(|tower| CropClassifier::open(frozen, tower))
                .transpose()?,
            config: config.clone(),
            options: ZegFormerOptions::default(),
        })
    }

    /// Returns the inference options.
    pub fn options(&self) -> &ZegFormerOptions {
        &self.options
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ZegFormerConfig {
        &self.config
    }

    /// Returns whether a parameter is trained: all are, except the backbone's norms, which are frozen statistics, and
    /// the logit scale.
    pub fn trains(key: &str) -> bool {
        let frozen_norm = key.starts_with("backbone.") && key.contains(".norm.");
        let head = key.starts_with("backbone.") || key.starts_with("sem_seg_head.");
        head && !frozen_norm && !key.ends_with(".logit_scale") && !key.contains(".clip_model.")
    }

    /// Computes the mask queries' final output for normalised images `[batch, 3, height, width]`, both sides multiples
    /// of [`config::STRIDE`].
    ///
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    pub fn forward(&self, images: Tensor<4>, text: Tensor<2>, trace: &mut Trace) -> QueryOutput {
        let Regions { vectors, masks } = self.regions(images, trace);
        QueryOutput {
            classes: self.sem_seg_head.predictor.class_logits(vectors, text),
            masks,
        }
    }

    /// Computes the output of [`ZegFormer::forward`] after every decoder layer, first to last.
    pub fn forward_all(
        &self,
        images: Tensor<4>,
        text: Tensor<2>,
        trace: &mut Trace,
    ) -> Vec<QueryOutput> {
        let (features, states) = self.decode(images, trace);
        let predictor = &self.sem_seg_head.predictor;
        let heads = predictor.heads(states, trace).into_iter();
        heads
            .map(|heads| QueryOutput {
                classes: predictor.class_logits(heads.vectors, text.clone()),
                masks: mask_logits(heads.masks, features.clone()),
            })
            .collect()
    }

    /// Computes the part that does not depend on the classes.
    pub fn regions(&self, images: Tensor<4>, trace: &mut Trace) -> Regions {
        let (features, mut states) = self.decode(images, trace);
        let last = states.split_off(states.len() - 1);
        let mut heads = self.sem_seg_head.predictor.heads(last, &mut Trace::off());
        let Heads { vectors, masks } = heads.swap_remove(0);
        Regions {
            vectors,
            masks: mask_logits(masks, features),
        }
    }

    /// Returns mask features `[batch, mask, h/4, w/4]`, and the queries after every decoder layer, `[batch, queries,
    /// width]`.
    fn decode(&self, images: Tensor<4>, trace: &mut Trace) -> (Tensor<4>, Vec<Tensor<3>>) {
        let maps = self.backbone.forward(images, trace);
        let coarsest = maps[3].clone();
        let features = self.sem_seg_head.pixel_decoder.forward(maps, trace);
        (
            features,
            self.sem_seg_head.predictor.decode(coarsest, trace),
        )
    }
}
