//! The heads: they map mask queries to masks and to vectors of the joint image-text space.

use burn::{module::Module, tensor::Tensor};

use super::config::ZssegConfig;
use crate::{
    ModelError,
    layers::l2_normalize,
    mask_transformer::{
        convolution::{Convolution, Kernel},
        queries::{self, QueryNetwork, QueryTable},
        query_decoder::QueryTransformer,
    },
    trace::Trace,
    weights::ParamBuilder,
};

/// Scale of cosine similarities; a constant, not CLIP's parameter.
pub const LOGIT_SCALE: f64 = 100.0;

/// The mask queries, their decoder and the heads.
#[derive(Module, Debug)]
pub struct Predictor {
    /// 1×1 convolution on the coarsest map: `[width, channels, 1, 1]`
    pub input_proj: Convolution,
    /// Learned positions of the queries: `[queries, width]`
    pub query_embed: QueryTable,
    /// The query decoder.
    pub transformer: QueryTransformer,
    /// Network from a query to its vector in the joint space.
    pub class_embed: QueryNetwork,
    /// Network from a query to the weights of its mask.
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
    pub fn build(params: &ParamBuilder, config: &ZssegConfig) -> Result<Self, ModelError> {
        let first = &config.first;
        let width = first.width;
        let map = Kernel::new(first.backbone.stage_output(3), width, 1);
        let network = |name: &str, widths: &[usize]| QueryNetwork::build(&params.at(name), widths);
        Ok(Self {
            input_proj: Convolution::build(&params.at("input_proj"), map)?,
            query_embed: QueryTable::build(&params.at("query_embed"), first.queries, width)?,
            transformer: QueryTransformer::build(&params.at("transformer"), first)?,
            class_embed: network(
                "class_embed",
                &[width, config.class_hidden, config.embed_dim],
            )?,
            mask_embed: network("mask_embed", &[width, width, width, first.mask_width])?,
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
            .map(|state| Heads {
                vectors: self.class_embed.forward(state.clone()),
                masks: self.mask_embed.forward(state),
            })
            .collect();
        if trace.is_on() {
            let vectors = heads.iter().map(|h| h.vectors.clone());
            trace.record("class_embed", &stack(vectors.collect()));
            let masks = heads.iter().map(|h| h.masks.clone());
            trace.record("mask_embed", &stack(masks.collect()));
        }
        heads
    }
}

/// Computes class logits `[batch, queries, classes + 1]`, "no object" last.
///
/// - `vectors`: `[batch, queries, dim]`, of any length
/// - `text`: class embeddings `[classes, dim]`, unit rows
/// - `no_object`: `[1, dim]`, of any length
pub fn class_logits(vectors: Tensor<3>, text: Tensor<2>, no_object: Tensor<2>) -> Tensor<3> {
    let rows = Tensor::cat(vec![text, l2_normalize(no_object)], 0); // [classes + 1, dim]
    l2_normalize(vectors).matmul(rows.transpose().unsqueeze::<3>()) * LOGIT_SCALE
}
