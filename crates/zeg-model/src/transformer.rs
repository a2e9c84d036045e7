//! The residual attention block; both CLIP towers are stacks of it.
//!
//! Pre-norm, as in CLIP: `x += MHA(ln_1(x))`, then `x += c_proj(activation(c_fc(ln_2(x))))`.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, module},
};
use zeg_kernels::{PackedBlock, PackedLinear, attention_packed, softmax};

use crate::{
    ModelError,
    config::Activation,
    layers::{LAYER_NORM_EPSILON, LayerNorm, Linear, Start},
    packing::pack,
    weights::{HostTensor, Init, ParamBuilder},
};

/// Names of the parts of `in_proj_weight`, for methods that train some of them only.
const PARTS: [&str; 3] = ["q_proj_weight", "k_proj_weight", "v_proj_weight"];
/// Name of the joint projection.
const JOINT: &str = "in_proj_weight";

/// Multi-head self-attention with the weights of queries, keys and values in one matrix, or in three if not all of them
/// are trained.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// Rows are `[q; k; v]`: `[3·width, width]`; empty where the weights are packed, `None` where they are in parts
    pub in_proj_weight: Option<Param<Tensor<2>>>,
    /// Queries: `[width, width]`, if the weights are in parts
    pub q_proj_weight: Option<Param<Tensor<2>>>,
    /// Keys: `[width, width]`, if the weights are in parts
    pub k_proj_weight: Option<Param<Tensor<2>>>,
    /// Values: `[width, width]`, if the weights are in parts
    pub v_proj_weight: Option<Param<Tensor<2>>>,
    /// `[3·width]`
    pub in_proj_bias: Param<Tensor<1>>,
    /// `[width, width]`
    pub out_proj: Linear,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    packed: Option<Arc<PackedLinear>>,
}

impl SelfAttention {
    fn build(params: &ParamBuilder, width: usize, heads: usize) -> Result<Self, ModelError> {
        let in_proj_bias = params.param("in_proj_bias", [3 * width], Init::Required)?;
        let out_proj = Linear::read(&params.at("out_proj"), width, width)?;
        let is_in_parts = !params.trains(JOINT) && PARTS.iter().any(|part| params.trains(part));
        if is_in_parts {
            let part = |index| part(params, index, width).map(Some);
            return Ok(Self {
                in_proj_weight: None,
                q_proj_weight: part(0)?,
                k_proj_weight: part(1)?,
                v_proj_weight: part(2)?,
                in_proj_bias,
                out_proj,
                heads,
                packed: None,
            });
        }
        let shape = [3 * width, width];
        let weight = match joined(params, width)? {
            Some(joined) => params.given(JOINT, shape, joined)?,
            None => params.param(JOINT, shape, Init::Required)?,
        };
        let (weight, packed) = pack(params, [JOINT, "in_proj_bias"], weight, &in_proj_bias);
        Ok(Self {
            in_proj_weight: Some(weight),
            q_proj_weight: None,
            k_proj_weight: None,
            v_proj_weight: None,
            in_proj_bias,
            out_proj,
            heads,
            packed,
        })
    }

    /// Returns the weights of queries, keys and values, one below the other: `[3·width, width]`; empty if packed.
    fn weight(&self) -> Tensor<2> {
        let parts = [
            &self.q_proj_weight,
            &self.k_proj_weight,
            &self.v_proj_weight,
        ];
        match &self.in_proj_weight {
            Some(weight) => weight.val(),
            None => Tensor::cat(parts.into_iter().flatten().map(Param::val).collect(), 0),
        }
    }

    /// Returns the values of all heads, side by side: `[batch, tokens, width]` → the same shape.
    ///
    /// If queries are trained, they are computed and get a gradient of 0.
    pub(crate) fn values(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, _, width] = x.dims();
        self.project_packed(x).narrow(2, 2 * width, width)
    }

    /// Projects to queries, keys and values, side by side: `[batch, tokens, width]` → `[batch, tokens, 3·width]`.
    fn project_packed(&self, x: Tensor<3>) -> Tensor<3> {
        if let Some(packed) = &self.packed {
            return packed.forward(x);
        }
        module::linear(x, self.weight().transpose(), Some(self.in_proj_bias.val()))
    }

    /// Returns queries, keys and values of every head: `[batch, tokens, width]` → three of `[batch, heads, tokens,
    /// head]`.
    pub(crate) fn project(&self, x: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, tokens, width] = x.dims();
        let qkv = self
            .project_packed(x)
            .reshape([batch, tokens, 3, self.heads, width / self.heads])
            .permute([2, 0, 3, 1, 4]) // [3, batch, heads, tokens, head]
            .chunk(3, 0);
        <[Tensor<5>; 3]>::try_from(qkv)
            .unwrap_or_else(|_| unreachable!("the tensor is split into three chunks"))
            .map(|part| part.squeeze_dim::<4>(0))
    }

    /// Joins the heads and applies the output projection: `[batch, heads, tokens, head]` → `[batch, tokens, width]`
    pub(crate) fn merge(&self, attended: Tensor<4>) -> Tensor<3> {
        let [batch, heads, tokens, head] = attended.dims();
        self.out_proj.forward(
            attended
                .swap_dims(1, 2)
                .reshape([batch, tokens, heads * head]),
        )
    }

    /// Computes the attention of `x`, `[batch, tokens, width]`; `mask` is `[tokens, tokens]`, added to the logits (0 or −∞).
    fn forward(&self, x: Tensor<3>, mask: Option<&Tensor<2>>) -> Tensor<3> {
        self.out_proj.forward(self.attend(x, mask))
    }

    /// Returns the attended values, heads side by side, before the output projection: `[batch, tokens, width]` → the
    /// same shape.
    fn attend(&self, x: Tensor<3>, mask: Option<&Tensor<2>>) -> Tensor<3> {
        let qkv = self.project_packed(x); // [batch, tokens, 3·width]
        attention_packed(qkv, self.heads, mask.cloned())
    }

    /// Returns the first token's attention to all tokens: `[batch, tokens, width]` → `[batch, 1, width]`.
    fn forward_first(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let part = |x: Tensor<3>, start: usize, length: usize| {
            let weight = self.weight().narrow(0, start, length);
            let bias = self.in_proj_bias.val().narrow(0, start, length);
            module::linear(x, weight.transpose(), Some(bias))
        };
        let split = |x: Tensor<3>, length: usize| {
            x.reshape([batch, length, self.heads, width / self.heads])
                .swap_dims(1, 2) // [batch, heads, length, head]
        };
        let scale = 1.0 / ((width / self.heads) as f64).sqrt();
        let (q, keys_and_values) = match &self.packed {
            Some(packed) => {
                let qkv = packed.forward(x); // [batch, tokens, 3·width]
                let q = qkv.clone().narrow(1, 0, 1).narrow(2, 0, width);
                (q, qkv.narrow(2, width, 2 * width))
            }
            None => (
                part(x.clone().narrow(1, 0, 1), 0, width),
                part(x, width, 2 * width),
            ),
        }; // [batch, 1, width], [batch, tokens, 2·width]
        let q = split(q * scale, 1);
        let k = split(keys_and_values.clone().narrow(2, 0, width), tokens);
        let v = split(keys_and_values.narrow(2, width, width), tokens);
        self.merge(softmax(q.matmul(k.transpose())).matmul(v))
    }
}

/// Reads one of [`PARTS`], from a tensor of its own or from the rows of the joint matrix.
fn part(params: &ParamBuilder, index: usize, width: usize) -> Result<Param<Tensor<2>>, ModelError> {
    let (name, shape) = (PARTS[index], [width, width]);
    let holds = |name: &str| params.weights().contains(&params.key(name));
    if holds(name) || !holds(JOINT) {
        return params.param(name, shape, Init::Required);
    }
    params.given(name, shape, rows(params, index, width)?)
}

/// Joins [`PARTS`] if the weights hold one of them: `[3·width, width]`; a part that they lack comes from the joint
/// matrix.
fn joined(params: &ParamBuilder, width: usize) -> Result<Option<HostTensor>, ModelError> {
    let weights = params.weights();
    if !PARTS.iter().any(|part| weights.contains(&params.key(part))) {
        return Ok(None);
    }
    let mut values = Vec::with_capacity(3 * width * width);
    for (index, part) in PARTS.iter().enumerate() {
        let key = params.key(part);
        let tensor = match weights.read(&key)? {
            Some(tensor) => checked(params, &key, tensor, [width, width])?,
            None => rows(params, index, width)?,
        };
        values.extend(tensor.values);
    }
    Ok(Some(HostTensor {
        shape: vec![3 * width, width],
        values,
    }))
}

/// Reads the rows of a part from the joint matrix: `[width, width]`.
fn rows(params: &ParamBuilder, index: usize, width: usize) -> Result<HostTensor, ModelError> {
    let key = params.key(JOINT);
    let joint = params.weights().read(&key)?;
    let joint = joint.ok_or_else(|| ModelError::MissingTensor {
        key: key.clone(),
        origin: params.weights().origin(),
    })?;
    let joint = checked(params, &key, joint, [3 * width, width])?;
    let size = width * width;
    Ok(HostTensor {
        shape: vec![width, width],
        values: joint.values[index * size..][..size].to_vec(),
    })
}

/// Returns a tensor if it has this shape, and an error otherwise.
fn checked(
    params: &ParamBuilder,
    key: &str,
    tensor: HostTensor,
    shape: [usize; 2],
) -> Result<HostTensor, ModelError> {
    if tensor.shape == shape {
        return Ok(tensor);
    }
    Err(ModelError::TensorShape {
        key: key.to_owned(),
        found: tensor.shape,
        expected: shape.to_vec(),
        origin: params.weights().origin(),
    })
}

/// The two linear layers of a block, under CLIP's names.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[4·width, width]`
    pub c_fc: Linear,
    /// `[width, 4·width]`
    pub c_proj: Linear,
}

/// One residual attention block.
#[derive(Module, Debug)]
pub struct ResidualBlock {
    /// Norm before the attention.
    pub ln_1: LayerNorm,
    /// Self-attention.
    pub attn: SelfAttention,
    /// Norm before the MLP.
    pub ln_2: LayerNorm,
    /// MLP with four times the width.
    pub mlp: Mlp,
    #[module(skip)]
    activation: Activation,
    /// The whole block on packed weights, which are shared with its layers.
    #[module(skip)]
    packed: Option<Arc<PackedBlock>>,
}

impl ResidualBlock {
    fn build(
        params: &ParamBuilder,
        width: usize,
        heads: usize,
        activation: Activation,
    ) -> Result<Self, ModelError> {
        let norm = |name| {
            LayerNorm::build(
                &params.at(name),
                width,
                LAYER_NORM_EPSILON,
                Start::FromWeights,
            )
        };
        let mlp = params.at("mlp");
        let mut block = Self {
            ln_1: norm("ln_1")?,
            attn: SelfAttention::build(&params.at("attn"), width, heads)?,
            ln_2: norm("ln_2")?,
            mlp: Mlp {
                c_fc: Linear::read(&mlp.at("c_fc"), width, 4 * width)?,
                c_proj: Linear::read(&mlp.at("c_proj"), 4 * width, width)?,
            },
            activation,
            packed: None,
        };
        block.packed = block.pack(params).map(Arc::new);
        Ok(block)
    }

    /// Packs the whole block for the kernels, if its layers are packed and its norms are frozen.
    fn pack(&self, params: &ParamBuilder) -> Option<PackedBlock> {
        let norms = ["ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"];
        let packing = params.packing().or_else(|| params.frozen_packing(&norms))?;
        Some(PackedBlock {
            attention_norm: self.ln_1.numbers(),
            qkv: self.attn.packed.clone()?,
            heads: self.attn.heads,
            out: self.attn.out_proj.packed.clone()?,
            network_norm: self.ln_2.numbers(),
            up: self.mlp.c_fc.packed.clone()?,
            activation: match self.activation {
                Activation::QuickGelu => zeg_kernels::Activation::QuickGelu,
                Activation::Gelu => zeg_kernels::Activation::Gelu,
            },
            down: self.mlp.c_proj.packed.clone()?,
            workspace: packing.workspace.clone(),
        })
    }

    /// Applies the block: `[batch, tokens, width]` → the same shape; `mask` as in [`SelfAttention`].
    pub fn forward(&self, x: Tensor<3>, mask: Option<&Tensor<2>>) -> Tensor<3> {
        if let Some(packed) = &self.packed {
            return packed.forward(x, mask);
        }
        let attended = self.attn.forward(self.ln_1.forward(x.clone()), mask);
        self.feed_forward(x + attended)
    }

    /// Computes the first token after the block, without the cost of the others: `[batch, tokens, width]` → `[batch, 1,
    /// width]`.
    pub(crate) fn forward_first(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self.attn.forward_first(self.ln_1.forward(x.clone()));
        self.feed_forward(x.narrow(1, 0, 1) + attended)
    }

    /// Applies the block as [`ResidualBlock::forward`] does, for one token of each sequence: `[batch, tokens, width]` →
    /// `[batch, 1, width]`.
    ///
    /// - `pick`: selects that token of every sequence, `[batch, tokens, width]` → `[batch, 1, width]`
    pub(crate) fn forward_one(
        &self,
        x: Tensor<3>,
        mask: Option<&Tensor<2>>,
        pick: impl Fn(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let attended = pick(self.attn.attend(self.ln_1.forward(x.clone()), mask));
        self.feed_forward(pick(x) + self.attn.out_proj.forward(attended))
    }

    /// Computes the second half of the block, `x + MLP(ln_2(x))`: `[batch, tokens, width]` → the same shape.
    pub(crate) fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        if let Some(packed) = self.packed.as_ref().filter(|_| !x.is_autodiff()) {
            return packed.feed_forward(x);
        }
        let hidden = self
            .activation
            .forward(self.mlp.c_fc.forward(self.ln_2.forward(x.clone()))); // [batch, tokens, 4·width]
        x + self.mlp.c_proj.forward(hidden)
    }
}

/// A stack of blocks, under CLIP's name for it.
#[derive(Module, Debug)]
pub struct Transformer {
    /// The blocks, first to last.
    pub resblocks: Vec<ResidualBlock>,
}

impl Transformer {
    /// Reads a stack of pre-trained blocks.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn build(
        params: &ParamBuilder,
        layers: usize,
        width: usize,
        heads: usize,
        activation: Activation,
    ) -> Result<Self, ModelError> {
        let params = params.at("resblocks");
        let resblocks = (0..layers)
            .map(|i| ResidualBlock::build(&params.at(i), width, heads, activation))
            .collect::<Result<_, _>>()?;
        Ok(Self { resblocks })
    }
}
