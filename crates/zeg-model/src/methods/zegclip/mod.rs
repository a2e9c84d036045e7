//! ZegCLIP: one-stage zero-shot segmentation on CLIP (Zhou et al., CVPR 2023).
//!
//! Image → frozen CLIP encoder with deep prompts → patch tokens and image embedding. Class embeddings → relationship
//! descriptor → queries. Queries × patches → one mask of logits per class, each with its own sigmoid.

pub mod config;
mod cost;
pub mod keys;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use zeg_image::normalize::Normalization;

pub use self::config::{ZegClipConfig, ZegClipMethod};
use crate::{
    ModelError, Precision,
    classes::ClassQueries,
    config::HeadConfig,
    decoder::{Decoder, LinearStart},
    descriptor::describe,
    layers::{Linear, scaled},
    method::{ModelFacts, SegmentationModel, WindowBatch},
    prompts::is_prompt,
    scores::WindowScores,
    trace::Trace,
    vision::{Encoded, VisionTransformer},
    weights::{ParamBuilder, Provenance, StateDict},
};

/// The decoder head: computes class masks from class embeddings and an encoded image.
#[derive(Module, Debug)]
pub struct ZegClipHead {
    /// Projection of descriptors to queries: `[dim, widths·dim]`, 2 widths as released
    pub q_proj: Linear,
    /// The layers, under the reference's name. In the last one, only the projections of queries and keys are used.
    pub decoder_1: Decoder,
    #[module(skip)]
    config: HeadConfig,
}

impl ZegClipHead {
    /// Reads or initialises the head; `params` is the builder of the head.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        dim: usize,
        config: &HeadConfig,
    ) -> Result<Self, ModelError> {
        let decoder = params.at("decoder_1");
        Ok(Self {
            q_proj: Linear::build(&params.at("q_proj"), config.query.widths() * dim, dim)?,
            decoder_1: Decoder::build(&decoder, dim, config, LinearStart::Usual)?,
            config: config.clone(),
        })
    }

    /// Computes class masks on the patch grid: `[batch, classes, h, w]`, logits.
    ///
    /// - `text`: class embeddings `[classes, dim]`
    pub fn forward(&self, encoded: Encoded, text: Tensor<2>, trace: &mut Trace) -> Tensor<4> {
        let scale = self.config.input_scale;
        let [batch, _, _] = encoded.patches.dims();
        let [classes, _] = text.dims();
        let (text, global) = (scaled(text, scale), scaled(encoded.global, scale));
        let descriptor = describe(self.config.query, text, global); // [batch, classes, widths·dim]
        trace.record("rd", &descriptor);
        let mut queries = self.q_proj.forward(descriptor); // [batch, classes, dim]
        trace.record("q_proj", &queries);
        let memory = scaled(encoded.patches, scale); // [batch, h·w, dim]
        let last = self.decoder_1.layers.len() - 1;
        for (index, layer) in self.decoder_1.layers[..last].iter().enumerate() {
            queries = layer.forward(queries, memory.clone(), trace, &format!("dec{index}"));
        }
        let masks =
            self.decoder_1.layers[last].masks(queries, memory, trace, &format!("dec{last}"));
        let [h, w] = encoded.grid;
        self.config.logits(masks).reshape([batch, classes, h, w])
    }
}

/// A ZegCLIP model, with the names of the reference checkpoints.
#[derive(Module, Debug)]
pub struct ZegClip {
    /// The image encoder.
    pub backbone: VisionTransformer,
    /// The decoder head.
    pub decode_head: ZegClipHead,
    #[module(skip)]
    config: ZegClipConfig,
}

impl ZegClip {
    /// Reads a model; prompts and head are initialised if the weights lack them.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent, or the encoder is missing from the weights or does not
    /// match.
    pub fn build(
        weights: &StateDict,
        config: &ZegClipConfig,
        device: &Device,
        seed: u64,
    ) -> Result<(Self, Provenance), ModelError> {
        config.check()?;
        let trained = |key: &str| Self::trains(config, key);
        let params = ParamBuilder::new(weights, device, seed, &trained);
        let model = Self::from_params(&params, config)?;
        Ok((model, params.provenance()))
    }

    /// Reads a model as [`ZegClip::build`] does, for inference only; see [`ParamBuilder::packed`].
    ///
    /// # Errors
    /// Returns the errors of [`ZegClip::build`], and an error if the device cannot compute with this precision.
    pub fn build_packed(
        weights: &StateDict,
        config: &ZegClipConfig,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        config.check()?;
        // The last decoder layer gives its masks only; the rest of it is neither trained nor stored.
        let unused = |key: &str| key.starts_with("decode_head.") && !Self::trains(config, key);
        let params = ParamBuilder::packed(weights, device, 0, precision)?.without(&unused);
        Self::from_params(&params, config)
    }

    /// Returns the model without parameter values, for counting; the parameters are never materialised.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent.
    pub fn blueprint(config: &ZegClipConfig, device: &Device) -> Result<Self, ModelError> {
        config.check()?;
        let weights = StateDict::default();
        let trained = |key: &str| Self::trains(config, key);
        Self::from_params(&ParamBuilder::blueprint(&weights, device, &trained), config)
    }

    pub(super) fn from_params(
        params: &ParamBuilder,
        config: &ZegClipConfig,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            backbone: VisionTransformer::build(&params.at("backbone"), &config.encoder)?,
            decode_head: ZegClipHead::build(
                &params.at("decode_head"),
                config.encoder.embed_dim,
                &config.head,
            )?,
            config: config.clone(),
        })
    }

    /// Returns whether the parameter of this name is really trained: the prompts, the encoder if it is fine-tuned, and
    /// the head without the value path of its last layer, which is never read.
    ///
    /// The reference declares more parameters as trained: an unused self-attention, and that value path.
    pub fn trains(config: &ZegClipConfig, key: &str) -> bool {
        if let Some(rest) = key.strip_prefix("backbone.") {
            return config.tune_encoder || is_prompt(rest);
        }
        let last = format!("decode_head.decoder_1.layers.{}.", config.head.layers - 1);
        match key.strip_prefix(&last) {
            Some(rest) => {
                rest.starts_with("multihead_attn.q.") || rest.starts_with("multihead_attn.k.")
            }
            None => key.starts_with("decode_head."),
        }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ZegClipConfig {
        &self.config
    }

    /// Computes class masks on the patch grid: `[batch, classes, h, w]`, logits.
    ///
    /// - `images`: `[batch, 3, height, width]`, normalised; both sides multiples of the patch size
    /// - `text`: class embeddings `[classes, dim]`
    pub fn forward(&self, images: Tensor<4>, text: Tensor<2>, trace: &mut Trace) -> Tensor<4> {
        let encoded = self.encode(images, trace);
        self.decode_head.forward(encoded, text, trace)
    }

    /// Computes the part of [`ZegClip::forward`] that does not depend on the classes.
    pub fn encode(&self, images: Tensor<4>, trace: &mut Trace) -> Encoded {
        let encoded = self.backbone.forward(images, trace);
        encoded.record(trace);
        encoded
    }
}

impl SegmentationModel for ZegClip {
    type Encoding = Encoded;

    /// Uses ImageNet's statistics, as in the reference, although the encoder was trained with CLIP's.
    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: self.config.encoder.patch,
            embed_dim: self.config.encoder.embed_dim,
            normalization: Normalization::IMAGENET,
            scoring: self.config.head.scoring,
        }
    }

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Encoded>, ModelError> {
        let encoded = ZegClip::encode(self, windows.images.clone(), &mut Trace::off());
        let [count, _, _, _] = windows.images.dims();
        Ok((0..count).map(|index| encoded.image(index)).collect())
    }

    fn score(
        &self,
        encoding: &Encoded,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        let text = classes.text.clone();
        let logits = self
            .decode_head
            .forward(encoding.clone(), text, &mut Trace::off()); // [1, classes, h, w]
        Ok(WindowScores::Logits(logits))
    }

    fn patches<'a>(&self, encoding: &'a Encoded) -> Option<&'a Encoded> {
        Some(encoding)
    }
}
