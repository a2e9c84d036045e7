//! ZegFormer: zero-shot segmentation in two stages (Ding et al., CVPR 2022).
//!
//! First stage: image → [`resnet`] → [`pixel_decoder`] and [`query_decoder`] → [`heads`]: a mask and a vector of the
//! joint image-text space for each query, no class takes part. Second stage: the vectors, and CLIP on a crop of every
//! mask's crop ([`crops`], [`classifier`]), are compared with the class embeddings, and both are joined ([`fusion`]).
//! Masks times class scores, summed over queries, are the scores of pixels ([`crate::scores`]).

pub mod classifier;
pub mod config;
pub mod convolution;
pub mod count;
pub mod crops;
pub mod entry;
pub mod foreground;
pub mod fusion;
pub mod heads;
pub mod keys;
pub mod model;
pub mod pixel_decoder;
pub mod positions;
pub mod query_decoder;
pub mod resnet;
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

use classifier::CropClassifier;
pub use config::{ZegFormerConfig, ZegFormerOptions};
pub use entry::ZegFormerMethod;
use heads::{Heads, Predictor, mask_logits};
use pixel_decoder::PixelDecoder;
use resnet::ResNet;

/// The first stage: queries with masks and class vectors.
#[derive(Module, Debug)]
pub struct ZegFormer {
    /// Image to feature maps at strides 4 to 32.
    pub backbone: ResNet,
    /// Everything behind it, with the reference's name.
    pub sem_seg_head: SegmentationHead,
    /// CLIP, for the second stage; frozen.
    pub classifier: Option<CropClassifier>,
    #[module(skip)]
    config: ZegFormerConfig,
    #[module(skip)]
    options: ZegFormerOptions,
}

/// Pixel decoder and predictor, with the reference's names.
#[derive(Module, Debug)]
pub struct SegmentationHead {
    /// Feature maps to one map of mask features.
    pub pixel_decoder: PixelDecoder,
    /// Queries, their decoder and heads.
    pub predictor: Predictor,
}

/// What the queries find in a batch of images, before any class is asked for.
#[derive(Debug, Clone)]
pub struct Regions {
    /// In the joint space, of any length: `[batch, queries, dim]`
    pub vectors: Tensor<3>,
    /// Mask logits at a quarter of the image's size: `[batch, queries, h/4, w/4]`
    pub masks: Tensor<4>,
}

/// What the queries say of a batch of images and classes.
#[derive(Debug, Clone)]
pub struct QueryOutput {
    /// Class logits `[batch, queries, classes + 1]`; the last column is "no object".
    pub classes: Tensor<3>,
    /// Mask logits at a quarter of the image's size: `[batch, queries, h/4, w/4]`
    pub masks: Tensor<4>,
}

impl ZegFormer {
    /// Reads the model, or what the weights have of it; the rest starts fresh. CLIP's image tower must be there if the
    /// configuration has one.
    ///
    /// - `seed`: of the fresh parameters
    ///
    /// # Errors
    /// The configuration contradicts itself, or a tensor is missing or stored with another shape.
    pub fn build(
        weights: &StateDict,
        config: &ZegFormerConfig,
        device: &Device,
        seed: u64,
    ) -> Result<(Self, Provenance), ModelError> {
        let trained = Self::trains;
        let params = ParamBuilder::new(weights, device, seed, &trained);
        // The tower's names begin like those of the residual network, which learns. It looks at crops after training.
        let frozen = ParamBuilder::apart(weights, device, seed);
        let model = Self::from_params(&params, &frozen, config)?;
        Ok((model, params.provenance()))
    }

    /// As [`ZegFormer::build`], for inference alone; see [`ParamBuilder::packed`].
    ///
    /// # Errors
    /// As [`ZegFormer::build`], or the device cannot compute with this precision.
    pub fn build_packed(
        weights: &StateDict,
        config: &ZegFormerConfig,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let params = ParamBuilder::packed(weights, device, 0, precision)?;
        Self::from_params(&params, &params, config)
    }

    /// The model's shape without values, for counting.
    ///
    /// # Errors
    /// The configuration contradicts itself.
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
                pixel_decoder: PixelDecoder::build(&head.at("pixel_decoder"), config)?,
                predictor: Predictor::build(&head.at("predictor"), config)?,
            },
            classifier: classifier
                .map(|tower| CropClassifier::open(frozen, tower))
                .transpose()?,
            config: config.clone(),
            options: ZegFormerOptions::default(),
        })
    }

    /// The options of inference.
    pub fn options(&self) -> &ZegFormerOptions {
        &self.options
    }

    /// The architecture.
    pub fn config(&self) -> &ZegFormerConfig {
        &self.config
    }

    /// Whether a parameter learns: all do but the backbone's norms, which are frozen statistics, and the temperature.
    pub fn trains(key: &str) -> bool {
        let frozen_norm = key.starts_with("backbone.") && key.contains(".norm.");
        let head = key.starts_with("backbone.") || key.starts_with("sem_seg_head.");
        head && !frozen_norm && !key.ends_with(".logit_scale") && !key.contains(".clip_model.")
    }

    /// Normalised images `[batch, 3, height, width]`, both sides multiples of [`config::STRIDE`], to what the queries
    /// say in the end.
    ///
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    pub fn forward(&self, images: Tensor<4>, text: Tensor<2>, trace: &mut Trace) -> QueryOutput {
        let Regions { vectors, masks } = self.regions(images, trace);
        QueryOutput {
            classes: self.sem_seg_head.predictor.class_logits(vectors, text),
            masks,
        }
    }

    /// As [`ZegFormer::forward`], behind every decoder layer, first to last.
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

    /// The half that no class takes part in.
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

    /// Mask features `[batch, mask, h/4, w/4]`, and the queries behind every decoder layer, `[batch, queries, width]`.
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
