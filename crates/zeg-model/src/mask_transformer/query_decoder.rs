//! The query decoder: mask queries attend to the coarsest feature map (DETR's decoder with post-norm layers).
//!
//! A layer is attention among the queries, attention to the map, and two linear maps, each with its residual and norm.
//! The queries' learned vectors are their positions; their content starts at zero.

use burn::{
    module::{Module, Param},
    nn::{Dropout, DropoutConfig},
    tensor::{Tensor, activation::relu, module},
};
use zeg_kernels::softmax;

use super::config::MaskTransformerConfig;
use crate::{
    ModelError,
    dropout::dropout,
    layers::{LAYER_NORM_EPSILON, LayerNorm, Linear, Start},
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Attention with packed query, key and value weights, between two sequences.
#[derive(Module, Debug)]
pub struct Attention {
    /// Rows are `[q; k; v]`: `[3·width, width]`
    pub in_proj_weight: Param<Tensor<2>>,
    /// `[3·width]`
    pub in_proj_bias: Param<Tensor<1>>,
    /// `[width, width]`
    pub out_proj: Linear,
    dropout: Dropout,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    fn build(params: &ParamBuilder, config: &MaskTransformerConfig) -> Result<Self, ModelError> {
        let width = config.width;
        Ok(Self {
            in_proj_weight: params.param(
                "in_proj_weight",
                [3 * width, width],
                xavier(width, 3 * width),
            )?,
            in_proj_bias: params.param("in_proj_bias", [3 * width], Init::Constant(0.0))?,
            out_proj: Linear::build_with(
                &params.at("out_proj"),
                [width, width],
                xavier(width, width),
                Init::Constant(0.0),
            )?,
            dropout: DropoutConfig::new(config.dropout).init(),
            heads: config.heads,
        })
    }

    /// Attends from `q` `[batch, queries, width]` to `k` and `v` `[batch, tokens, width]`; returns `[batch, queries,
    /// width]`.
    fn forward(&self, q: Tensor<3>, k: Tensor<3>, v: Tensor<3>) -> Tensor<3> {
        let [batch, queries, width] = q.dims();
        let scale = 1.0 / ((width / self.heads) as f64).sqrt();
        let q = self.split(self.project(q, 0) * scale); //           [batch, heads, queries, head]
        let (k, v) = (self.project(k, 1), self.project(v, 2));
        let logits = q.matmul(self.split(k).transpose()); //         [batch, heads, queries, tokens]
        let weights = dropout(&self.dropout, softmax(logits));
        let attended = weights
            .matmul(self.split(v))
            .swap_dims(1, 2)
            .reshape([batch, queries, width]);
        self.out_proj.forward(attended)
    }

    /// Projects a sequence to queries (`part` 0), keys (1) or values (2).
    fn project(&self, x: Tensor<3>, part: usize) -> Tensor<3> {
        let width = self.in_proj_weight.dims()[1];
        let weight = self.in_proj_weight.val().narrow(0, part * width, width);
        let bias = self.in_proj_bias.val().narrow(0, part * width, width);
        module::linear(x, weight.transpose(), Some(bias))
    }

    /// Splits the heads: `[batch, tokens, width]` → `[batch, heads, tokens, width / heads]`
    fn split(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, width] = x.dims();
        x.reshape([batch, tokens, self.heads, width / self.heads])
            .swap_dims(1, 2)
    }
}

/// Returns Xavier's initialisation: uniform with the bound √(6/(in + out)).
fn xavier(input: usize, output: usize) -> Init {
    Init::Uniform((6.0 / (input + output) as f64).sqrt())
}

/// Reads or initialises a linear layer with Xavier's initialisation; the bias is initialised as in PyTorch.
fn xavier_linear(params: &ParamBuilder, input: usize, output: usize) -> Result<Linear, ModelError> {
    let bias = Init::Uniform(1.0 / (input as f64).sqrt());
    Linear::build_with(params, [input, output], xavier(input, output), bias)
}

/// One layer of the query decoder.
#[derive(Module, Debug)]
pub struct QueryLayer {
    /// Attention among the queries.
    pub self_attn: Attention,
    /// Attention from the queries to the map.
    pub multihead_attn: Attention,
    /// `[hidden, width]`
    pub linear1: Linear,
    /// `[width, hidden]`
    pub linear2: Linear,
    /// Norm after the attention among the queries.
    pub norm1: LayerNorm,
    /// Norm after the attention to the map.
    pub norm2: LayerNorm,
    /// Norm after the linear maps.
    pub norm3: LayerNorm,
    dropout: Dropout,
}

/// The inputs of a layer.
struct Inputs {
    /// Content of the queries: `[batch, queries, width]`
    content: Tensor<3>,
    /// Learned positions of the queries: `[1, queries, width]`
    positions: Tensor<3>,
    /// The map's cells with positions, for keys: `[batch, tokens, width]`
    keys: Tensor<3>,
    /// The map's cells without positions, for values: `[batch, tokens, width]`
    values: Tensor<3>,
}

impl QueryLayer {
    fn build(params: &ParamBuilder, config: &MaskTransformerConfig) -> Result<Self, ModelError> {
        let (width, hidden) = (config.width, config.feed_forward);
        let norm = |name| layer_norm(&params.at(name), width);
        Ok(Self {
            self_attn: Attention::build(&params.at("self_attn"), config)?,
            multihead_attn: Attention::build(&params.at("multihead_attn"), config)?,
            linear1: xavier_linear(&params.at("linear1"), width, hidden)?,
            linear2: xavier_linear(&params.at("linear2"), hidden, width)?,
            norm1: norm("norm1")?,
            norm2: norm("norm2")?,
            norm3: norm("norm3")?,
            dropout: DropoutConfig::new(config.dropout).init(),
        })
    }

    /// Returns the queries' content after this layer: `[batch, queries, width]`.
    fn forward(&self, inputs: &Inputs, layer: usize, trace: &mut Trace) -> Tensor<3> {
        let content = inputs.content.clone();
        let placed = content.clone() + inputs.positions.clone();
        let attended = self
            .self_attn
            .forward(placed.clone(), placed, content.clone());
        record_queries_first(trace, format_args!("dec{layer}_self_attn"), &attended);
        let content = self
            .norm1
            .forward(content + dropout(&self.dropout, attended));

        let placed = content.clone() + inputs.positions.clone();
        let attended =
            self.multihead_attn
                .forward(placed, inputs.keys.clone(), inputs.values.clone());
        record_queries_first(trace, format_args!("dec{layer}_cross_attn"), &attended);
        let content = self
            .norm2
            .forward(content + dropout(&self.dropout, attended));

        let hidden = relu(self.linear1.forward(content.clone())); // [batch, queries, hidden]
        let forwarded = self.linear2.forward(dropout(&self.dropout, hidden));
        let content = self
            .norm3
            .forward(content + dropout(&self.dropout, forwarded));
        record_queries_first(trace, format_args!("dec_layer.{layer}"), &content);
        content
    }
}

/// Records `[batch, queries, width]` in the reference's order, `[queries, batch, width]`.
fn record_queries_first(trace: &mut Trace, name: std::fmt::Arguments, x: &Tensor<3>) {
    if trace.is_on() {
        trace.record(name, &x.clone().swap_dims(0, 1));
    }
}

fn layer_norm(params: &ParamBuilder, width: usize) -> Result<LayerNorm, ModelError> {
    LayerNorm::build(params, width, LAYER_NORM_EPSILON, Start::Fresh)
}

/// The decoder of the reference's transformer, which has no encoder.
#[derive(Module, Debug)]
pub struct QueryTransformer {
    /// The layers and their norm.
    pub decoder: QueryDecoder,
}

/// The layers and their norm.
#[derive(Module, Debug)]
pub struct QueryDecoder {
    /// The layers, first to last.
    pub layers: Vec<QueryLayer>,
    /// Norm of every layer's output; the next layer gets the output without it.
    pub norm: LayerNorm,
}

impl QueryTransformer {
    /// Reads or initialises the transformer.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        config: &MaskTransformerConfig,
    ) -> Result<Self, ModelError> {
        let params = params.at("decoder");
        let layers = (0..config.layers)
            .map(|layer| QueryLayer::build(&params.at("layers").at(layer), config))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            decoder: QueryDecoder {
                layers,
                norm: layer_norm(&params.at("norm"), config.width)?,
            },
        })
    }

    /// Returns the normalised queries after every layer, first to last: `[batch, queries, width]` each.
    ///
    /// - `queries`: learned positions `[queries, width]`
    /// - `memory`: the map's cells `[batch, tokens, width]`
    /// - `places`: positions of the cells `[1, tokens, width]`
    pub fn forward(
        &self,
        queries: Tensor<2>,
        memory: Tensor<3>,
        places: Tensor<3>,
        trace: &mut Trace,
    ) -> Vec<Tensor<3>> {
        let [batch, _, width] = memory.dims();
        let [count, _] = queries.dims();
        let mut inputs = Inputs {
            content: Tensor::zeros([batch, count, width], &memory.device()),
            positions: queries.unsqueeze::<3>(),
            keys: memory.clone() + places,
            values: memory,
        };
        let run = |(number, layer): (usize, &QueryLayer)| {
            inputs.content = layer.forward(&inputs, number, trace);
            self.decoder.norm.forward(inputs.content.clone())
        };
        self.decoder.layers.iter().enumerate().map(run).collect()
    }
}
