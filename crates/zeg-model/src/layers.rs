//! Basic layers that all towers and heads use.
//!
//! Weights keep PyTorch's layout and names (`weight` of a linear layer is `[out, in]`), so that a parameter here is
//! a tensor of the reference checkpoints, bit for bit.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, module},
};
use zeg_kernels::{Norm, PackedLinear, layer_norm};

use crate::{
    ModelError,
    packing::{host, pack},
    weights::{Init, ParamBuilder},
};

/// Epsilon of every LayerNorm of CLIP and of the decoder.
pub const LAYER_NORM_EPSILON: f64 = 1e-5;

/// The affine map `y = x·Wᵀ + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`; empty where the weights are packed
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    pub(crate) packed: Option<Arc<PackedLinear>>,
}

impl Linear {
    /// Reads or initialises the layer; an initialised one starts like PyTorch's `nn.Linear` (uniform, ±1/√in).
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, input: usize, output: usize) -> Result<Self, ModelError> {
        let start = Init::Uniform(1.0 / (input as f64).sqrt());
        Self::build_with(params, [input, output], start, start)
    }

    /// Reads a pre-trained layer.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn read(params: &ParamBuilder, input: usize, output: usize) -> Result<Self, ModelError> {
        Self::build_with(params, [input, output], Init::Required, Init::Required)
    }

    /// Reads or initialises the layer as [`Linear::build`] does, with other initialisations for weight and bias.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build_with(
        params: &ParamBuilder,
        [input, output]: [usize; 2],
        weight: Init,
        bias: Init,
    ) -> Result<Self, ModelError> {
        let weight = params.param("weight", [output, input], weight)?;
        let bias = params.param("bias", [output], bias)?;
        let (weight, packed) = pack(params, ["weight", "bias"], weight, &bias);
        Ok(Self {
            weight,
            bias,
            packed,
        })
    }

    /// Applies the map: `[…, in]` → `[…, out]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if let Some(packed) = &self.packed {
            return packed.forward(x);
        }
        module::linear(x, self.weight.val().transpose(), Some(self.bias.val()))
    }
}

/// Layer normalisation over the last axis, with the population variance.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[width]`
    pub weight: Param<Tensor<1>>,
    /// `[width]`
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    epsilon: f64,
}

impl LayerNorm {
    /// Reads or initialises the layer; an initialised one has weight 1 and bias 0.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        width: usize,
        epsilon: f64,
        start: Start,
    ) -> Result<Self, ModelError> {
        let (weight, bias) = match start {
            Start::Fresh => (Init::Constant(1.0), Init::Constant(0.0)),
            Start::FromWeights => (Init::Required, Init::Required),
        };
        Ok(Self {
            weight: params.param("weight", [width], weight)?,
            bias: params.param("bias", [width], bias)?,
            epsilon,
        })
    }

    /// Returns the parameters, for a packed block.
    pub(crate) fn numbers(&self) -> Norm {
        Norm {
            weight: host(self.weight.val()),
            bias: host(self.bias.val()),
            epsilon: self.epsilon as f32,
        }
    }

    /// Normalises the last axis: `[…, width]` → `[…, width]`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.val(), self.bias.val(), self.epsilon)
    }
}

/// Whether a part of a model can be initialised without weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The part is initialised as published if the weights lack it.
    Fresh,
    /// The part is pre-trained: the weights must hold it.
    FromWeights,
}

/// Divides every row of the last axis by its length, without an epsilon: a zero row becomes NaN, as in the reference.
pub fn l2_normalize<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let length = x.clone().square().sum_dim(D - 1).sqrt(); // […, 1]
    x / length
}

/// Multiplies a tensor by a constant; a constant of 1 costs nothing.
pub(crate) fn scaled<const D: usize>(x: Tensor<D>, factor: f64) -> Tensor<D> {
    if (factor - 1.0).abs() < f64::EPSILON {
        x
    } else {
        x * factor
    }
}
