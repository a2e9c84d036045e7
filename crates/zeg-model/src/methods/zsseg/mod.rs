//! zsseg, also called `SimBase`: zero-shot segmentation in two stages with learned prompts (Xu et al., ECCV 2022).
//!
//! Before the segmenter, vectors in front of the class names are trained through the frozen CLIP on regions of the ground
//! truth ([`prompts`]). The segmenter is a mask transformer ([`crate::mask_transformer`]) whose queries' vectors are
//! compared with the class embeddings ([`heads`]). At inference CLIP classifies a crop of every mask that is not empty
//! ([`regions`], [`classifier`]), and the two scores are combined ([`ensemble`]). A pixel's scores are masks times class
//! scores, summed over queries ([`crate::scores`]).

pub mod bicubic;
pub mod classifier;
pub mod config;
pub mod count;
pub mod ensemble;
pub mod entry;
#[cfg(test)]
mod golden_tests;
pub mod heads;
pub mod keys;
pub mod model;
pub mod prompts;
pub mod regions;

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use zeg_vocab::tokenizer::Tokenizer;

use crate::{
    ModelError,
    mask_transformer::{
        QueryOutput, Regions, pixel_decoder::PixelDecoder, queries::mask_logits, resnet::ResNet,
    },
    recognize::text_config,
    text::{CONTEXT_KEY, TextTower},
    trace::Trace,
    vocabulary::Vocabulary,
    weights::{Init, ParamBuilder, Provenance, StateDict},
};

use classifier::RegionClassifier;
pub use config::{Stage, ZssegConfig, ZssegOptions};
pub use entry::ZssegMethod;
use heads::{Heads, Predictor, class_logits};
use prompts::PromptLearner;

/// A zsseg model of either stage.
#[derive(Module, Debug)]
pub struct Zsseg {
    /// Backbone of the segmenter: computes feature maps at strides 4 to 32.
    pub backbone: Option<ResNet>,
    /// Everything of the segmenter after the backbone, under the reference's name.
    pub sem_seg_head: Option<SegmentationHead>,
    /// What the segmenter adds to the class embeddings, under the reference's name.
    pub clip_adapter: Option<ClipAdapter>,
    /// Learned vectors in front of class names.
    pub prompt_learner: Option<PromptLearner>,
    /// CLIP's image tower, which classifies regions; frozen.
    pub classifier: Option<RegionClassifier>,
    /// CLIP's text tower, through which the vectors are trained; frozen.
    pub text_encoder: Option<TextTower>,
    #[module(skip)]
    vocabulary: Option<Vocabulary>,
    #[module(skip)]
    config: ZssegConfig,
    #[module(skip)]
    options: ZssegOptions,
}

/// Pixel decoder and predictor, under the reference's names.
#[derive(Module, Debug)]
pub struct SegmentationHead {
    /// Pixel decoder: computes one map of mask features from the feature maps.
    pub pixel_decoder: PixelDecoder,
    /// Mask queries, their decoder and heads.
    pub predictor: Predictor,
}

/// The segmenter's addition to the class embeddings.
#[derive(Module, Debug)]
pub struct ClipAdapter {
    /// Learned embedding of "no object", of any length: `[1, dim]`
    pub non_object_embedding: Param<Tensor<2>>,
}

/// The parts of a segmenter.
#[derive(Clone, Copy)]
struct Segmenter<'a> {
    backbone: &'a ResNet,
    head: &'a SegmentationHead,
    adapter: &'a ClipAdapter,
}

impl Zsseg {
    /// Reads the model; parameters that the weights lack are initialised. CLIP's image tower must be in the weights if
    /// the configuration has one, and the learned vectors if the segmenter uses them.
    ///
    /// - `seed`: seed of the initial values
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent, or a required tensor is missing or a tensor has the wrong
    /// shape.
    pub fn build(
        weights: &StateDict,
        config: &ZssegConfig,
        device: &Device,
        seed: u64,
    ) -> Result<(Self, Provenance), ModelError> {
        let trained = |key: &str| config.trains(key);
        let params = ParamBuilder::new(weights, device, seed, &trained);
        // The tower's names begin like those of the residual network, which is trained; no gradient passes the tower.
        let frozen = ParamBuilder::apart(weights, device, seed);
        let model = Self::from_params(&params, &frozen, config)?;
        Ok((model, params.provenance()))
    }

    pub(super) fn from_params(
        params: &ParamBuilder,
        frozen: &ParamBuilder,
        config: &ZssegConfig,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let tower = config.classifier.as_ref();
        let classifier = tower
            .map(|tower| RegionClassifier::build(&frozen.at("backbone"), tower))
            .transpose()?;
        let start = match config.stage {
            Stage::Prompts => Init::Normal(prompts::START),
            Stage::Segmenter => Init::Required,
        };
        let prompt_learner = (config.prompt_vectors > 0)
            .then(|| PromptLearner::build(&params.at("prompt_learner"), config, start))
            .transpose()?;
        let empty = Self {
            backbone: None,
            sem_seg_head: None,
            clip_adapter: None,
            prompt_learner,
            classifier,
            text_encoder: None,
            vocabulary: None,
            config: config.clone(),
            options: ZssegOptions::default(),
        };
        match config.stage {
            Stage::Prompts => empty.with_text(params),
            Stage::Segmenter => empty.with_segmenter(params),
        }
    }

    /// Adds the text tower, if the weights hold one.
    fn with_text(self, params: &ParamBuilder) -> Result<Self, ModelError> {
        let Some(config) = text_config(params.weights())? else {
            return Ok(self);
        };
        if config.width != self.config.prompt_width || config.embed_dim != self.config.embed_dim {
            return Err(ModelError::Config(format!(
                "{}: the text tower has {} channels and projects to {}, but model.zsseg.prompt-width is {} and the \
                 image tower projects to {}",
                params.weights().origin(),
                config.width,
                config.embed_dim,
                self.config.prompt_width,
                self.config.embed_dim
            )));
        }
        let tokenizer = Tokenizer::new().map_err(|error| ModelError::Config(error.to_string()))?;
        Ok(Self {
            text_encoder: Some(TextTower::build(&params.at("text_encoder"), &config)?),
            vocabulary: Some(Vocabulary::of_weights(params.weights(), &tokenizer)?),
            ..self
        })
    }

    /// Adds the segmenter.
    fn with_segmenter(self, params: &ParamBuilder) -> Result<Self, ModelError> {
        let (config, head) = (&self.config, params.at("sem_seg_head"));
        let dim = config.embed_dim;
        let spread = Init::Normal(1.0 / (config.prompt_width as f64).sqrt());
        let adapter = params.at("clip_adapter");
        Ok(Self {
            backbone: Some(ResNet::build(
                &params.at("backbone"),
                &config.first.backbone,
            )?),
            sem_seg_head: Some(SegmentationHead {
                pixel_decoder: PixelDecoder::build(&head.at("pixel_decoder"), &config.first)?,
                predictor: Predictor::build(&head.at("predictor"), config)?,
            }),
            clip_adapter: Some(ClipAdapter {
                non_object_embedding: adapter.param("non_object_embedding", [1, dim], spread)?,
            }),
            ..self
        })
    }

    /// Returns the inference options.
    pub fn options(&self) -> &ZssegOptions {
        &self.options
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ZssegConfig {
        &self.config
    }

    /// Returns the parts of the segmenter.
    ///
    /// # Errors
    /// Returns an error if the model holds learned prompts alone.
    fn segmenter(&self) -> Result<Segmenter<'_>, ModelError> {
        match (&self.backbone, &self.sem_seg_head, &self.clip_adapter) {
            (Some(backbone), Some(head), Some(adapter)) => Ok(Segmenter {
                backbone,
                head,
                adapter,
            }),
            _ => Err(ModelError::Config(format!(
                "the model holds learned prompts ({CONTEXT_KEY}) and no segmenter; train a segmenter that starts from \
                 it (zeg train --init)"
            ))),
        }
    }

    /// Computes the mask queries' output after every decoder layer, first to last, for normalised images `[batch, 3,
    /// height, width]`, both sides multiples of [`config::STRIDE`].
    ///
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    ///
    /// # Errors
    /// Returns an error if the model holds learned prompts alone.
    pub fn forward_all(
        &self,
        images: Tensor<4>,
        text: Tensor<2>,
        trace: &mut Trace,
    ) -> Result<Vec<QueryOutput>, ModelError> {
        let segmenter = self.segmenter()?;
        let (features, states) = segmenter.decode(images, trace);
        let heads = segmenter.head.predictor.heads(states, trace).into_iter();
        let no_object = segmenter.adapter.non_object_embedding.val();
        let output = |Heads { vectors, masks }| QueryOutput {
            classes: class_logits(vectors, text.clone(), no_object.clone()),
            masks: mask_logits(masks, features.clone()),
        };
        Ok(heads.map(output).collect())
    }

    /// Computes the part that does not depend on the classes.
    ///
    /// # Errors
    /// Returns an error if the model holds learned prompts alone.
    pub fn regions(&self, images: Tensor<4>, trace: &mut Trace) -> Result<Regions, ModelError> {
        let segmenter = self.segmenter()?;
        let (features, mut states) = segmenter.decode(images, trace);
        let last = states.split_off(states.len() - 1);
        let mut heads = segmenter.head.predictor.heads(last, &mut Trace::off());
        let Heads { vectors, masks } = heads.swap_remove(0);
        Ok(Regions {
            vectors,
            masks: mask_logits(masks, features),
        })
    }

    /// Computes class logits of the queries' own vectors `[batch, queries, classes + 1]`, "no object" last.
    ///
    /// - `vectors`: `[batch, queries, dim]`
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    ///
    /// # Errors
    /// Returns an error if the model holds learned prompts alone.
    pub fn class_logits(
        &self,
        vectors: Tensor<3>,
        text: Tensor<2>,
    ) -> Result<Tensor<3>, ModelError> {
        let no_object = self.segmenter()?.adapter.non_object_embedding.val();
        Ok(class_logits(vectors, text, no_object))
    }
}

impl Segmenter<'_> {
    /// Returns mask features `[batch, mask, h/4, w/4]`, and the queries after every decoder layer, `[batch, queries,
    /// width]`.
    fn decode(self, images: Tensor<4>, trace: &mut Trace) -> (Tensor<4>, Vec<Tensor<3>>) {
        let maps = self.backbone.forward(images, trace);
        let coarsest = maps[3].clone();
        let features = self.head.pixel_decoder.forward(maps, trace);
        (features, self.head.predictor.decode(coarsest, trace))
    }
}
