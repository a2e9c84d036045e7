//! CLIP-RC: regional clues in CLIP for zero-shot segmentation (Zhang et al., CVPR 2024).
//!
//! It adds to ZegCLIP: [region tokens](crate::regions) in the encoder; one query for every pair of a region and a
//! class; a patch stream that includes the patch's region and the image; a pair of decoders, in which queries attend to
//! patches and patches to queries at the same time; and, in training, a [recovery decoder](recovery). A mask is the
//! plain product of queries and patches, averaged over the regions.

pub mod config;
mod cost;
pub mod keys;
pub mod recovery;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use zeg_image::normalize::Normalization;

pub use self::config::{ClipRcConfig, ClipRcMethod};
use self::recovery::{Recovery, RecoveryDecoder};
use crate::{
    ModelError, Precision,
    classes::ClassQueries,
    config::HeadConfig,
    decoder::{Decoder, LinearStart, twin_step},
    descriptor::describe,
    layers::{Linear, scaled},
    method::{ModelFacts, SegmentationModel, WindowBatch},
    prompts::is_prompt,
    resize::bilinear,
    scores::WindowScores,
    trace::Trace,
    vision::{Encoded, VisionTransformer, maps},
    weights::{ParamBuilder, Provenance, StateDict},
};

/// Name of the region tokens.
const REGION_TOKENS: &str = "backbone.region_level_bridge";

/// The decoder head: computes class masks from class embeddings and an encoded image.
#[derive(Module, Debug)]
pub struct ClipRcHead {
    /// Projection of descriptors to queries: `[dim, widths·dim]`, 2 widths as released
    pub q_proj: Linear,
    /// Projection of region, image and patch to the patch stream: `[dim, 3·dim]`
    pub lateral_proj: Linear,
    /// Decoder in which queries attend to patches.
    pub decoder_q: Decoder,
    /// Decoder in which patches attend to queries.
    pub decoder_v: Decoder,
    /// Recovery decoder, used only in training.
    pub recovery_decoder: RecoveryDecoder,
    #[module(skip)]
    config: HeadConfig,
}

/// The query stream and the patch stream, before and after the decoders.
struct Streams {
    /// Descriptors: `[batch, regions·classes, widths·dim]`
    descriptors: Tensor<3>,
    /// Patch tokens as input of the head: `[batch, patches, dim]`
    patches: Tensor<3>,
    /// Decoded queries, ordered by region, then class: `[batch, regions·classes, dim]`
    decoded_queries: Tensor<3>,
    /// Decoded patches: `[batch, patches, dim]`
    decoded_patches: Tensor<3>,
    classes: usize,
    grid: [usize; 2],
}

impl ClipRcHead {
    /// Reads or initialises the head; `params` is the builder of the head.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        dim: usize,
        config: &HeadConfig,
    ) -> Result<Self, ModelError> {
        let decoder = |name| Decoder::build(&params.at(name), dim, config, LinearStart::Usual);
        Ok(Self {
            q_proj: Linear::build(&params.at("q_proj"), config.query.widths() * dim, dim)?,
            lateral_proj: Linear::build(&params.at("lateral_proj"), 3 * dim, dim)?,
            decoder_q: decoder("decoder_q")?,
            decoder_v: decoder("decoder_v")?,
            recovery_decoder: RecoveryDecoder::build(&params.at("recovery_decoder"), dim, config)?,
            config: config.clone(),
        })
    }

    /// Computes class masks on the patch grid: `[batch, classes, h, w]`, logits.
    ///
    /// - `encoded`: encoder output with region tokens; without them, the whole image is the only region
    /// - `text`: class embeddings `[classes, dim]`
    pub fn forward(&self, encoded: Encoded, text: Tensor<2>, trace: &mut Trace) -> Tensor<4> {
        self.config.logits(masks(self.decode(encoded, text, trace)))
    }

    /// Computes masks as [`ClipRcHead::forward`] does, and the recovery decoder's output for the decoded streams.
    pub fn forward_with_recovery(
        &self,
        encoded: Encoded,
        text: Tensor<2>,
        trace: &mut Trace,
    ) -> (Tensor<4>, Recovery) {
        let streams = self.decode(encoded, text, trace);
        let recovery = self.recovery_decoder.forward(
            streams.decoded_queries.clone(),
            streams.decoded_patches.clone(),
            (streams.descriptors.clone(), streams.patches.clone()),
            trace,
        );
        (self.config.logits(masks(streams)), recovery)
    }

    fn decode(&self, encoded: Encoded, text: Tensor<2>, trace: &mut Trace) -> Streams {
        let scale = self.config.input_scale;
        let [batch, _, _] = encoded.patches.dims();
        let [classes, dim] = text.dims();
        let grid = encoded.grid;
        let global: Tensor<3> = scaled(encoded.global, scale).unsqueeze_dim(1); // [batch, 1, dim]
        let regions = match encoded.regions {
            Some(regions) => scaled(regions, scale), // [batch, regions, dim]
            None => global.clone(),
        };
        let patches = scaled(encoded.patches, scale); // [batch, patches, dim]

        let clues = regions.clone() + global.clone(); // [batch, regions, dim]
        let [_, count, _] = clues.dims();
        let clues = clues.reshape([batch * count, dim]);
        let descriptors = describe(self.config.query, scaled(text, scale), clues); // [batch·regions, classes, widths·dim]
        let [_, _, width] = descriptors.dims();
        let descriptors = descriptors.reshape([batch, count * classes, width]);
        trace.record("rd", &descriptors);
        let mut q = self.q_proj.forward(descriptors.clone()); // [batch, regions·classes, dim]
        trace.record("q_proj", &q);

        let lateral = lateral(regions, global, patches.clone(), grid); // [batch, patches, 3·dim]
        trace.record("lateral_in", &lateral);
        let mut v = self.lateral_proj.forward(lateral); // [batch, patches, dim]
        trace.record("lateral_proj", &v);

        let layers = self.decoder_q.layers.iter().zip(&self.decoder_v.layers);
        for (index, layers) in layers.enumerate() {
            let names = [format!("decq{index}"), format!("decv{index}")];
            (q, v) = twin_step(layers, (q, v), trace, [&names[0], &names[1]]);
        }
        Streams {
            descriptors,
            patches,
            decoded_queries: q,
            decoded_patches: v,
            classes,
            grid,
        }
    }
}

/// Returns the patch stream's input: the regions' lattice resized to the grid, the image, and the patch itself.
///
/// - `regions`: `[batch, regions, dim]`, row-major over a square lattice
/// - `global`: `[batch, 1, dim]`
/// - `patches`: `[batch, h·w, dim]`
///
/// Returns `[batch, h·w, 3·dim]`.
fn lateral(
    regions: Tensor<3>,
    global: Tensor<3>,
    patches: Tensor<3>,
    [h, w]: [usize; 2],
) -> Tensor<3> {
    let [batch, count, dim] = regions.dims();
    let lattice = maps(&regions, [count.isqrt(); 2]); // [batch, dim, side, side]
    let stretched = bilinear(lattice, [h, w])
        .reshape([batch, dim, h * w])
        .swap_dims(1, 2); // [batch, h·w, dim]
    let global = global.expand([batch, h * w, dim]);
    Tensor::cat(vec![stretched, global, patches], 2)
}

/// Computes the products of queries and patches, averaged over the regions: `[batch, classes, h, w]`.
///
/// The mean of the products equals the product with the mean query, so no tensor has regions × classes × patches
/// values. With LayerNorm outputs of `dim` channels, a product can reach ±dim.
fn masks(streams: Streams) -> Tensor<4> {
    let (queries, classes) = (streams.decoded_queries, streams.classes);
    let [batch, tokens, dim] = queries.dims();
    let queries: Tensor<3> = queries
        .reshape([batch, tokens / classes.max(1), classes, dim])
        .mean_dim(1)
        .squeeze_dim(1); // [batch, classes, dim]
    let masks = queries.matmul(streams.decoded_patches.transpose()); // [batch, classes, patches]
    let [h, w] = streams.grid;
    masks.reshape([batch, classes, h, w])
}

/// A CLIP-RC model, with the names of the reference checkpoints.
#[derive(Module, Debug)]
pub struct ClipRc {
    /// The image encoder.
    pub backbone: VisionTransformer,
    /// The decoder head.
    pub decode_head: ClipRcHead,
    #[module(skip)]
    config: ClipRcConfig,
}

impl ClipRc {
    /// Reads a model. Prompts and head are initialised if the weights lack them; region tokens are initialised as the
    /// class token with its position.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent, or the encoder is missing from the weights or does not
    /// match.
    pub fn build(
        weights: &StateDict,
        config: &ClipRcConfig,
        device: &Device,
        seed: u64,
    ) -> Result<(Self, Provenance), ModelError> {
        let trained = |key: &str| Self::trains(config, key);
        let params = ParamBuilder::new(weights, device, seed, &trained);
        let model = Self::from_params(&params, config)?;
        Ok((model, params.provenance()))
    }

    /// Reads a model as [`ClipRc::build`] does, for inference only; see [`ParamBuilder::packed`].
    ///
    /// # Errors
    /// Returns the errors of [`ClipRc::build`], and an error if the device cannot compute with this precision.
    pub fn build_packed(
        weights: &StateDict,
        config: &ClipRcConfig,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        config.check()?;
        // Frozen region tokens follow from the class token and its position.
        let constant = |key: &str| key == REGION_TOKENS && !Self::trains(config, key);
        let params = ParamBuilder::packed(weights, device, 0, precision)?.without(&constant);
        Self::from_params(&params, config)
    }

    /// Returns the model without parameter values, for counting; the parameters are never materialised.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent.
    pub fn blueprint(config: &ClipRcConfig, device: &Device) -> Result<Self, ModelError> {
        let weights = StateDict::default();
        let trained = |key: &str| Self::trains(config, key);
        Self::from_params(&ParamBuilder::blueprint(&weights, device, &trained), config)
    }

    pub(super) fn from_params(
        params: &ParamBuilder,
        config: &ClipRcConfig,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let (encoder, head) = (&config.encoder, &config.head);
        Ok(Self {
            backbone: VisionTransformer::build(&params.at("backbone"), encoder)?,
            decode_head: ClipRcHead::build(&params.at("decode_head"), encoder.embed_dim, head)?,
            config: config.clone(),
        })
    }

    /// Returns whether the parameter of this name is really trained: the prompts, the whole head, and the encoder if it
    /// is fine-tuned. The region tokens are not trained, although the reference declares them as parameters.
    pub fn trains(config: &ClipRcConfig, key: &str) -> bool {
        match key.strip_prefix("backbone.") {
            Some(rest) => config.tune_encoder || is_prompt(rest),
            None => key.starts_with("decode_head."),
        }
    }

    /// Returns the configuration.
    pub fn config(&self) -> &ClipRcConfig {
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

    /// Computes the part of [`ClipRc::forward`] that does not depend on the classes.
    pub fn encode(&self, images: Tensor<4>, trace: &mut Trace) -> Encoded {
        let encoded = self.backbone.forward(images, trace);
        encoded.record(trace);
        encoded
    }
}

impl SegmentationModel for ClipRc {
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
        let encoded = ClipRc::encode(self, windows.images.clone(), &mut Trace::off());
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
