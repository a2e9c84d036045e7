//! The heads: they map mask queries to masks and to vectors of the joint image-text space.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::relu},
};

use super::{
    config::ZegFormerConfig,
    convolution::{Convolution, Kernel},
    positions::sine_positions,
    query_decoder::QueryTransformer,
};
use crate::{
    ModelError,
    layers::{Linear, l2_normalize},
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Temperature of the cosine similarity between query vectors and class embeddings.
const TEMPERATURE: f64 = 0.01;
/// Number of linear layers from a query to its mask.
const MASK_LAYERS: usize = 3;

/// The mask queries, their decoder and the heads.
#[derive(Module, Debug)]
pub struct Predictor {
    /// 1×1 convolution on the coarsest map: `[width, channels, 1, 1]`
    pub input_proj: Convolution,
    /// Learned positions of the queries: `[queries, width]`
    pub query_embed: QueryTable,
    /// The query decoder.
    pub transformer: QueryTransformer,
    /// Projection into the joint space: `[dim, width]`
    pub projection_layer: Linear,
    /// Learned embedding of "no object", which is not normalised: `[1, dim]`
    pub bg_feature: Param<Tensor<2>>,
    /// Logarithm of the scale of cosine similarities, frozen: `[1]`
    pub logit_scale: Param<Tensor<1>>,
    /// MLP from a query to the weights of its mask.
    pub mask_embed: MaskNetwork,
}

/// A table of vectors, under the reference's name.
#[derive(Module, Debug)]
pub struct QueryTable {
    /// `[queries, width]`
    pub weight: Param<Tensor<2>>,
}

/// Three linear layers with ReLU between them.
#[derive(Module, Debug)]
pub struct MaskNetwork {
    /// The layers, first to last.
    pub layers: Vec<Linear>,
}

/// The heads' output for the queries after one decoder layer.
#[derive(Debug, Clone)]
pub struct Heads {
    /// Vectors in the joint space, of any length: `[batch, queries, dim]`
    pub vectors: Tensor<3>,
    /// Weights on the mask features: `[batch, queries, mask]`
    pub masks: Tensor<3>,
}

impl Predictor {
    /// Reads or initialises the queries, decoder and heads.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, config: &ZegFormerConfig) -> Result<Self, ModelError> {
        let (width, dim) = (config.width, config.embed_dim);
        let map = Kernel::new(config.backbone.stage_output(3), width, 1);
        let table = params.at("query_embed");
        let temperature = Init::Constant((1.0 / TEMPERATURE).ln() as f32);
        let bound = Init::Uniform(1.0 / (dim as f64).sqrt());
        let network = params.at("mask_embed").at("layers");
        let layers = (0..MASK_LAYERS).map(|layer| {
            let last = layer + 1 == MASK_LAYERS;
            let output = if last { config.mask_width } else { width };
            Linear::build(&network.at(layer), width, output)
        });
        Ok(Self {
            input_proj: Convolution::build(&params.at("input_proj"), map)?,
            query_embed: QueryTable {
                weight: table.param("weight", [config.queries, width], Init::Normal(1.0))?,
            },
            transformer: QueryTransformer::build(&params.at("transformer"), config)?,
            projection_layer: Linear::build(&params.at("projection_layer"), width, dim)?,
            bg_feature: params.param("bg_feature", [1, dim], bound)?,
            logit_scale: params.param("logit_scale", [1], temperature)?,
            mask_embed: MaskNetwork {
                layers: layers.collect::<Result<_, _>>()?,
            },
        })
    }

    /// Returns the queries after every decoder layer: `[batch, queries, width]` each.
    ///
    /// - `map`: the coarsest feature map `[batch, channels, h, w]`
    pub fn decode(&self, map: Tensor<4>, trace: &mut Trace) -> Vec<Tensor<3>> {
        let memory = self.input_proj.forward(map); // [batch, width, h, w]
        trace.record("input_proj", &memory);
        let [batch, width, h, w] = memory.dims();
        let places = sine_positions(width, [h, w], &memory.device()); // [1, h·w, width]
        if trace.is_on() {
            let map = places.clone().swap_dims(1, 2).reshape([1, width, h, w]);
            trace.record("pos_embed", &map.expand([batch, width, h, w]));
        }
        let memory = memory.reshape([batch, width, h * w]).swap_dims(1, 2); // [batch, h·w, width]
        let queries = self.query_embed.weight.val();
        self.transformer.forward(queries, memory, places, trace)
    }

    /// Computes the heads after every decoder layer.
    pub fn heads(&self, states: Vec<Tensor<3>>, trace: &mut Trace) -> Vec<Heads> {
        let stack = |parts: Vec<Tensor<3>>| Tensor::stack::<4>(parts, 0); // [layers, batch, queries, …]
        if trace.is_on() {
            trace.record("hs", &stack(states.clone()));
        }
        let heads: Vec<Heads> = states
            .into_iter()
            .map(|state| self.heads_of(state))
            .collect();
        if trace.is_on() {
            let vectors = heads.iter().map(|h| h.vectors.clone());
            trace.record("projection", &stack(vectors.collect()));
            let masks = heads.iter().map(|h| h.masks.clone());
            trace.record("mask_embed", &stack(masks.collect()));
        }
        heads
    }

    /// Computes the heads for queries `[batch, queries, width]`.
    pub fn heads_of(&self, state: Tensor<3>) -> Heads {
        let vectors = self.projection_layer.forward(state.clone()); // [batch, queries, dim]
        let last = self.mask_embed.layers.len() - 1;
        let hidden = self.mask_embed.layers[..last]
            .iter()
            .fold(state, |x, layer| relu(layer.forward(x))); // [batch, queries, width]
        Heads {
            vectors,
            masks: self.mask_embed.layers[last].forward(hidden),
        }
    }

    /// Computes class logits `[batch, queries, classes + 1]`, "no object" last.
    ///
    /// - `vectors`: `[batch, queries, dim]`
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    pub fn class_logits(&self, vectors: Tensor<3>, text: Tensor<2>) -> Tensor<3> {
        let rows = Tensor::cat(vec![text, self.bg_feature.val()], 0); // [classes + 1, dim]
        let scale = self.logit_scale.val().exp().reshape([1, 1, 1]);
        l2_normalize(vectors).matmul(rows.transpose().unsqueeze::<3>()) * scale
    }
}

/// Computes mask logits `[batch, queries, h, w]`.
///
/// - `masks`: weights on the features `[batch, queries, mask]`
/// - `features`: `[batch, mask, h, w]`
pub fn mask_logits(masks: Tensor<3>, features: Tensor<4>) -> Tensor<4> {
    let [batch, channels, h, w] = features.dims();
    let [_, queries, _] = masks.dims();
    masks
        .matmul(features.reshape([batch, channels, h * w]))
        .reshape([batch, queries, h, w])
}
