//! CLIP-RC's recovery decoder: in training, the decoded streams must still tell what they were made of.
//!
//! A head that is trained on seen classes alone forgets what CLIP knows of others. From the last queries and patches
//! one more twin step makes back the queries' descriptors and the encoder's patch tokens; how far it misses them is
//! two further terms of the loss (section 13.3 of the reference's specification). Inference has no use for it.

use burn::{module::Module, tensor::Tensor};

use crate::{
    ModelError,
    config::HeadConfig,
    decoder::{DecoderLayer, LinearStart, twin_step},
    layers::Linear,
    trace::Trace,
    weights::ParamBuilder,
};

/// The decoder.
#[derive(Module, Debug)]
pub struct RecoveryDecoder {
    /// Queries in: `[dim, dim]`
    pub linear_q_in: Linear,
    /// Patches in: `[dim, dim]`
    pub linear_k_in: Linear,
    /// One layer; queries look at patches.
    pub decouple_q: Vec<DecoderLayer>,
    /// One layer; patches look at queries.
    pub decouple_v: Vec<DecoderLayer>,
    /// To descriptors: `[widths·dim, dim]`
    pub linear_q_out: Linear,
    /// To patch tokens: `[dim, dim]`
    pub linear_k_out: Linear,
}

/// What was recovered, and what should have been.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// Descriptors, found and true: `[batch, regions·classes, widths·dim]` each; no gradient reaches the true ones.
    pub queries: [Tensor<3>; 2],
    /// Patch tokens, found and true: `[batch, patches, dim]` each.
    pub patches: [Tensor<3>; 2],
}

impl Recovery {
    /// Mean absolute errors of queries and patches: `[1]` each.
    pub fn errors(&self) -> [Tensor<1>; 2] {
        [&self.queries, &self.patches]
            .map(|[found, target]| (found.clone() - target.clone()).abs().mean())
    }
}

impl RecoveryDecoder {
    /// Layers on each side.
    pub const LAYERS: usize = 1;

    /// Reads or initialises the decoder; `params` stands at it.
    ///
    /// # Errors
    /// See [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        dim: usize,
        config: &HeadConfig,
    ) -> Result<Self, ModelError> {
        let start = LinearStart::Small;
        let linear = |name, output| {
            let (weight, bias) = start.inits(dim);
            Linear::build_with(&params.at(name), [dim, output], weight, bias)
        };
        let layers = |name| {
            let params = params.at(name);
            (0..Self::LAYERS)
                .map(|index| DecoderLayer::build(&params.at(index), dim, config, start))
                .collect::<Result<_, _>>()
        };
        Ok(Self {
            linear_q_in: linear("linear_q_in", dim)?,
            linear_k_in: linear("linear_k_in", dim)?,
            decouple_q: layers("decouple_q")?,
            decouple_v: layers("decouple_v")?,
            linear_q_out: linear("linear_q_out", config.query.widths() * dim)?,
            linear_k_out: linear("linear_k_out", dim)?,
        })
    }

    /// Makes descriptors and patch tokens of decoded queries and patches.
    ///
    /// - `queries`: `[batch, regions·classes, dim]`
    /// - `patches`: `[batch, patches, dim]`
    /// - `targets`: descriptors `[batch, regions·classes, widths·dim]` and patch tokens `[batch, patches, dim]`
    pub fn forward(
        &self,
        queries: Tensor<3>,
        patches: Tensor<3>,
        targets: (Tensor<3>, Tensor<3>),
        trace: &mut Trace,
    ) -> Recovery {
        let mut q = self.linear_q_in.forward(queries);
        let mut v = self.linear_k_in.forward(patches);
        for layers in self.decouple_q.iter().zip(&self.decouple_v) {
            (q, v) = twin_step(layers, (q, v), trace, ["recq", "recv"]);
        }
        let (true_queries, true_patches) = (targets.0.detach(), targets.1.detach());
        let queries = self.linear_q_out.forward(q);
        let patches = self.linear_k_out.forward(v);
        trace.record("rec.ori_q", &true_queries);
        trace.record("rec.ori_lateral", &true_patches);
        trace.record("rec.q", &queries);
        trace.record("rec.lateral", &patches);
        Recovery {
            queries: [queries, true_queries],
            patches: [patches, true_patches],
        }
    }
}
