//! Cross-attention from class queries to patch tokens, with the attention logits as masks.
//!
//! This is the layer of ZegCLIP's "each class to masks" decoder (section 3.2): post-norm, no self-attention among the
//! queries, no positional encoding, no norm on the patches. CLIP-RC uses pairs of this layer ([`twin_step`]); in the
//! second of a pair, queries and patches exchange their roles.

use burn::{
    module::Module,
    nn::{Dropout, DropoutConfig},
    tensor::{Tensor, activation},
};
use zeg_kernels::softmax;

use crate::{
    ModelError,
    config::HeadConfig,
    dropout::dropout,
    layers::{LAYER_NORM_EPSILON, LayerNorm, Linear, Start},
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Returns whether a name is that of a tensor which the reference's decoder layers hold and never read: the
/// self-attention of PyTorch's layer, and its norm.
pub(crate) fn is_idle(key: &str) -> bool {
    let mut parts = key.split('.');
    parts.next() == Some("decode_head") && parts.any(|part| matches!(part, "self_attn" | "norm1"))
}

/// The initialisation of a decoder's linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearStart {
    /// PyTorch's `nn.Linear`: weight and bias uniform, ±1/√in.
    Usual,
    /// Weights normal with a standard deviation of 0.02, biases 0. (The reference truncates the distribution at ±2, a
    /// hundred standard deviations.)
    Small,
}

impl LinearStart {
    /// Returns the initialisations of weight and bias of a layer with `input` inputs.
    pub fn inits(self, input: usize) -> (Init, Init) {
        match self {
            Self::Usual => {
                let start = Init::Uniform(1.0 / (input as f64).sqrt());
                (start, start)
            }
            Self::Small => (Init::Normal(0.02), Init::Constant(0.0)),
        }
    }

    fn build(
        self,
        params: &ParamBuilder,
        input: usize,
        output: usize,
    ) -> Result<Linear, ModelError> {
        let (weight, bias) = self.inits(input);
        Linear::build_with(params, [input, output], weight, bias)
    }
}

/// Cross-attention with separate maps for queries, keys and values.
#[derive(Module, Debug)]
pub struct CrossAttention {
    /// `[dim, dim]`
    pub q: Linear,
    /// `[dim, dim]`
    pub k: Linear,
    /// `[dim, dim]`
    pub v: Linear,
    /// `[dim, dim]`
    pub proj: Linear,
    dropout: Dropout,
    #[module(skip)]
    heads: usize,
}

impl CrossAttention {
    fn build(
        params: &ParamBuilder,
        dim: usize,
        config: &HeadConfig,
        start: LinearStart,
    ) -> Result<Self, ModelError> {
        let linear = |name| start.build(&params.at(name), dim, dim);
        Ok(Self {
            q: linear("q")?,
            k: linear("k")?,
            v: linear("v")?,
            proj: linear("proj")?,
            dropout: DropoutConfig::new(config.dropout).init(),
            heads: config.heads,
        })
    }

    /// Splits the heads: `[batch, tokens, dim]` → `[batch, heads, tokens, dim / heads]`
    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, dim] = x.dims();
        x.reshape([batch, tokens, self.heads, dim / self.heads])
            .swap_dims(1, 2)
    }

    /// Returns the scale of one head's logits.
    fn scale(&self, dim: usize) -> f64 {
        1.0 / ((dim / self.heads) as f64).sqrt()
    }

    /// Returns the mean over heads of the scaled logits before the softmax: `[batch, classes, patches]`.
    ///
    /// The mean of the heads' products is the product over all channels, divided by the number of heads.
    fn mean_logits(&self, q: Tensor<3>, k: Tensor<3>) -> Tensor<3> {
        let dim = q.dims()[2];
        let factor = self.scale(dim) / self.heads as f64;
        (q * factor).matmul(k.transpose())
    }

    /// Returns the attended values: `[batch, classes, dim]`
    fn attend(&self, q: Tensor<3>, k: Tensor<3>, memory: Tensor<3>) -> Tensor<3> {
        let [batch, classes, dim] = q.dims();
        let v = self.split(self.v.forward(memory)); // [batch, heads, patches, head]
        let logits = self
            .split(q * self.scale(dim))
            .matmul(self.split(k).transpose()); // [batch, heads, classes, patches]
        let weights = dropout(&self.dropout, softmax(logits));
        let attended = weights
            .matmul(v)
            .swap_dims(1, 2)
            .reshape([batch, classes, dim]);
        self.proj.forward(attended)
    }
}

/// A stack of decoder layers.
#[derive(Module, Debug)]
pub struct Decoder {
    /// The layers, first to last.
    pub layers: Vec<DecoderLayer>,
}

impl Decoder {
    /// Reads or initialises a stack; `params` is the builder of the stack. Initialised layers are identical, as in the
    /// reference, which copies one layer.
    ///
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        dim: usize,
        config: &HeadConfig,
        start: LinearStart,
    ) -> Result<Self, ModelError> {
        let params = params.at("layers");
        let layers = (0..config.layers)
            .map(|i| {
                let params = params.at(i).starting_as(params.at(0));
                DecoderLayer::build(&params, dim, config, start)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { layers })
    }
}

/// Computes one step of a pair of layers: queries attend to patches and patches to queries, each to the other's state
/// before the step.
///
/// - `layers`: the layer that updates queries and the one that updates patches
/// - `streams`: queries `[batch, queries, dim]`, patches `[batch, patches, dim]`
///
/// Returns both after the step, in the same shapes.
pub fn twin_step(
    (query_layer, patch_layer): (&DecoderLayer, &DecoderLayer),
    (queries, patches): (Tensor<3>, Tensor<3>),
    trace: &mut Trace,
    [query_name, patch_name]: [&str; 2],
) -> (Tensor<3>, Tensor<3>) {
    let decoded = query_layer.forward(queries.clone(), patches.clone(), trace, query_name);
    let patches = patch_layer.forward(patches, queries, trace, patch_name);
    (decoded, patches)
}

/// One decoder layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// Cross-attention from queries to patches.
    pub multihead_attn: CrossAttention,
    /// `[hidden, dim]`
    pub linear1: Linear,
    /// `[dim, hidden]`
    pub linear2: Linear,
    /// Norm after the attention.
    pub norm2: LayerNorm,
    /// Norm after the feed-forward part.
    pub norm3: LayerNorm,
    dropout: Dropout,
}

impl DecoderLayer {
    /// Reads or initialises a layer of `dim` channels.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        dim: usize,
        config: &HeadConfig,
        start: LinearStart,
    ) -> Result<Self, ModelError> {
        let hidden = config.feed_forward;
        let norm = |name| LayerNorm::build(&params.at(name), dim, LAYER_NORM_EPSILON, Start::Fresh);
        Ok(Self {
            multihead_attn: CrossAttention::build(
                &params.at("multihead_attn"),
                dim,
                config,
                start,
            )?,
            linear1: start.build(&params.at("linear1"), dim, hidden)?,
            linear2: start.build(&params.at("linear2"), hidden, dim)?,
            norm2: norm("norm2")?,
            norm3: norm("norm3")?,
            dropout: DropoutConfig::new(config.dropout).init(),
        })
    }

    /// Returns the class queries after this layer: `[batch, classes, dim]`.
    ///
    /// - `queries`: `[batch, classes, dim]`
    /// - `memory`: `[batch, patches, dim]`
    pub fn forward(
        &self,
        queries: Tensor<3>,
        memory: Tensor<3>,
        trace: &mut Trace,
        name: &str,
    ) -> Tensor<3> {
        let (q, k) = self.project(&queries, &memory, trace, name);
        self.update(queries, q, k, memory, trace, name)
    }

    /// Returns the class masks of this layer, without computing its value path: `[batch, classes, patches]`.
    pub fn masks(
        &self,
        queries: Tensor<3>,
        memory: Tensor<3>,
        trace: &mut Trace,
        name: &str,
    ) -> Tensor<3> {
        let (q, k) = self.project(&queries, &memory, trace, name);
        if trace.is_on() {
            // The last layer's queries are only needed for comparison with the reference.
            self.update(queries, q.clone(), k.clone(), memory, trace, name);
        }
        self.multihead_attn.mean_logits(q, k)
    }

    /// Returns queries `[batch, classes, dim]` and keys `[batch, patches, dim]` of the attention.
    fn project(
        &self,
        queries: &Tensor<3>,
        memory: &Tensor<3>,
        trace: &mut Trace,
        name: &str,
    ) -> (Tensor<3>, Tensor<3>) {
        let attention = &self.multihead_attn;
        let q = attention.q.forward(queries.clone());
        let k = attention.k.forward(memory.clone());
        if trace.is_on() {
            trace.record(format_args!("{name}.q"), &q);
            trace.record(format_args!("{name}.k"), &k);
            let logits = attention.mean_logits(q.clone(), k.clone());
            trace.record(format_args!("{name}.attn"), &logits);
        }
        (q, k)
    }

    /// Applies attention, the feed-forward part and their norms: `[batch, classes, dim]`.
    fn update(
        &self,
        queries: Tensor<3>,
        q: Tensor<3>,
        k: Tensor<3>,
        memory: Tensor<3>,
        trace: &mut Trace,
        name: &str,
    ) -> Tensor<3> {
        let attended = self.multihead_attn.attend(q, k, memory);
        let x = self
            .norm2
            .forward(queries + dropout(&self.dropout, attended));
        let hidden = self.linear1.forward(x.clone()); // [batch, classes, hidden]
        let hidden = dropout(&self.dropout, activation::relu(hidden));
        let forwarded = self.linear2.forward(hidden); // [batch, classes, dim]
        let x = self.norm3.forward(x + dropout(&self.dropout, forwarded));
        trace.record(format_args!("{name}.out"), &x);
        x
    }
}
