//! The heads: they map mask queries to masks and to vectors of the joint image-text space.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use super::{
    config::ZegFormerConfig,
    convolution::{Convolution, Kernel},
    query_decoder::QueryTransformer,
};
pub use crate::mask_transformer::queries::{QueryNetwork, QueryTable, mask_logits};
use crate::{
    ModelError,
    layers::{Linear, l2_normalize},
    mask_transformer::queries,
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Temperature of the cosine similarity between query vectors and class embeddings.
const TEMPERATURE: f64 = 0.01;

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
    pub mask_embed: QueryNetwork,
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
        let temperature = Init::Constant((1.0 / TEMPERATURE).ln() as f32);
        let bound = Init::Uniform(1.0 / (dim as f64).sqrt());
        let transformer = config.mask_transformer();
        Ok(Self {
            input_proj: Convolution::build(&params.at("input_proj"), map)?,
            query_embed: QueryTable::build(&params.at("query_embed"), config.queries, width)?,
            transformer: QueryTransformer::build(&params.at("transformer"), &transformer)?,
            projection_layer: Linear::build(&params.at("projection_layer"), width, dim)?,
            bg_feature: params.param("bg_feature", [1, dim], bound)?,
            logit_scale: params.param("logit_scale", [1], temperature)?,
            mask_embed: QueryNetwork::build(
                &params.at("mask_embed"),
                &[width, width, width, config.mask_width],
            )?,
        })
    }

    /// Returns the queries after every decoder layer: `[batch, queries, width]` each.
    ///
    /// - `map`: the coarsest feature map `[batch, channels, h, w]`
    pub fn decode(&self, map: Tensor<4>, trace: &mut Trace) -> Vec<Tensor<3>> {
        let (table, transformer) = (&self.query_embed, &self.transformer);
        queries::decode(&self.input_proj, table, transformer, map, trace)
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
        Heads {
            vectors: self.projection_layer.forward(state.clone()),
            masks: self.mask_embed.forward(state),
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
