//! CLIP-RC's recovery decoder: in training, it reconstructs the inputs of the head from the decoded streams.
//!
//! A head that is trained only on seen classes loses CLIP's knowledge of other classes. One more step of a pair of
//! decoder layers therefore reconstructs the queries' descriptors and the encoder's patch tokens from the last queries
//! and patches; the two reconstruction errors are further terms of the loss (section 13.3 of the reference's
//! specification). Inference does not use it.

use burn::{module::Module, tensor::Tensor};

use crate::{
    ModelError,
    config::HeadConfig,
    decoder::{DecoderLayer, LinearStart, twin_step},
    layers::Linear,
    trace::Trace,
    weights::ParamBuilder,
};

/// The recovery decoder.
#[derive(Module, Debug)]
pub struct RecoveryDecoder {
    /// Input projection of queries: `[dim, dim]`
    pub linear_q_in: Linear,
    /// Input projection of patches: `[dim, dim]`
    pub linear_k_in: Linear,
    /// One layer, in which queries attend to patches.
    pub decouple_q: Vec<DecoderLayer>,
    /// One layer, in which patches attend to queries.
    pub decouple_v: Vec<DecoderLayer>,
    /// Output projection to descriptors: `[widths·dim, dim]`
    pub linear_q_out: Linear,
    /// Output projection to patch tokens: `[dim, dim]`
    pub linear_k_out: Linear,
}

/// The reconstructed tensors with their targets.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// Descriptors, reconstructed and true: `[batch, regions·classes, widths·dim]` each; no gradient reaches the true
    /// ones.
    pub queries: [Tensor<3>; 2],
    /// Patch tokens, reconstructed and true: `[batch, patches, dim]` each.
    pub patches: [Tensor<3>; 2],
}

impl Recovery {
    /// Returns the mean absolute errors of queries and patches: `[1]` each.
    pub fn errors(&self) -> [Tensor<1>; 2] {
        [&self.queries, &self.patches]
            .map(|[found, target]| (found.clone() - target.clone()).abs().mean())
    }
}

impl RecoveryDecoder {
    /// Number of layers in each of the two directions.
    pub const LAYERS: usize = 1;

    /// Reads or initialises the decoder; `params` is its builder.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
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

    /// Reconstructs descriptors and patch tokens from decoded queries and patches.
    ///
    /// - `queries`: `[batch, regions·classes, dim]`
    /// - `patches`: `[batch, patches, dim]`
    /// - `targets`: true descriptors `[batch, regions·classes, widths·dim]` and patch tokens `[batch, patches, dim]`
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
