//! Mask queries: their table, their pass through the decoder, and the networks that map them to other vectors.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::relu},
};

use super::{convolution::Convolution, positions::sine_positions, query_decoder::QueryTransformer};
use crate::{
    ModelError,
    layers::Linear,
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// A table of vectors, under the reference's name.
#[derive(Module, Debug)]
pub struct QueryTable {
    /// `[queries, width]`
    pub weight: Param<Tensor<2>>,
}

impl QueryTable {
    /// Reads the table, or initialises it with the standard normal distribution.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, queries: usize, width: usize) -> Result<Self, ModelError> {
        let weight = params.param("weight", [queries, width], Init::Normal(1.0))?;
        Ok(Self { weight })
    }
}

/// Linear layers with ReLU between them.
#[derive(Module, Debug)]
pub struct QueryNetwork {
    /// The layers, first to last.
    pub layers: Vec<Linear>,
}

impl QueryNetwork {
    /// Reads or initialises the layers.
    ///
    /// - `widths`: channels of the input, between the layers, and of the output
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, widths: &[usize]) -> Result<Self, ModelError> {
        let params = params.at("layers");
        let pairs = widths.windows(2).enumerate();
        let layers = pairs.map(|(layer, pair)| Linear::build(&params.at(layer), pair[0], pair[1]));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// Applies the layers: `[…, in]` → `[…, out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let last = self.layers.len().saturating_sub(1);
        let layers = self.layers.iter().enumerate();
        layers.fold(x, |x, (number, layer)| {
            let y = layer.forward(x);
            if number == last { y } else { relu(y) }
        })
    }
}

/// Returns the queries after every decoder layer: `[batch, queries, width]` each.
///
/// - `input_proj`: 1×1 convolution of the map to the queries' width
/// - `map`: the coarsest feature map `[batch, channels, h, w]`
pub fn decode(
    input_proj: &Convolution,
    table: &QueryTable,
    transformer: &QueryTransformer,
    map: Tensor<4>,
    trace: &mut Trace,
) -> Vec<Tensor<3>> {
    let memory = input_proj.forward(map); // [batch, width, h, w]
    trace.record("input_proj", &memory);
    let [batch, width, h, w] = memory.dims();
    let places = sine_positions(width, [h, w], &memory.device()); // [1, h·w, width]
    if trace.is_on() {
        let map = places.clone().swap_dims(1, 2).reshape([1, width, h, w]);
        trace.record("pos_embed", &map.expand([batch, width, h, w]));
    }
    let memory = memory.reshape([batch, width, h * w]).swap_dims(1, 2); // [batch, h·w, width]
    transformer.forward(table.weight.val(), memory, places, trace)
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
