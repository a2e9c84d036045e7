//! CLIP's vision transformer as a guide: the last block keeps every token's own value, instead of attention.
//!
//! As released, the tower differs in details from the one that CLIP trained: the activation is the exact GELU, the
//! epsilon of every norm is 1e-6, and the position table is resized with cubic interpolation.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData, module, ops::ConvOptions},
};
use zeg_kernels::attention_packed;

use super::guide::{GuideOutput, matrix, transposed};
use crate::{
    ModelError,
    config::{Activation, VisionConfig},
    layers::{LAYER_NORM_EPSILON, LayerNorm, Linear, Start},
    trace::Trace,
    transformer::Mlp,
    vision::{PatchEmbedding, maps},
    weights::{HostTensor, Init, ParamBuilder},
};

/// Epsilon of every LayerNorm in the released code.
const RELEASED_EPSILON: f64 = 1e-6;
/// Coefficient of the cubic interpolation of positions.
const CUBIC: f32 = -0.75;

/// The tower, under CLIP's names.
#[derive(Module, Debug)]
pub struct ClipTransformer {
    /// Patch projection: `[width, 3, patch, patch]`
    pub conv1: PatchEmbedding,
    /// `[width]`
    pub class_embedding: Param<Tensor<1>>,
    /// Class token first, then the patch grid row-major: `[1 + s·s, width]`
    pub positional_embedding: Param<Tensor<2>>,
    /// Norm before the first block
    pub ln_pre: LayerNorm,
    /// The blocks
    pub transformer: Blocks,
    /// Norm after the last block
    pub ln_post: LayerNorm,
    /// Projection into the joint space, applied as `x @ proj`: `[width, dim]`
    pub proj: Param<Tensor<2>>,
    #[module(skip)]
    patch: usize,
}

/// The blocks, under CLIP's name for them.
#[derive(Module, Debug)]
pub struct Blocks {
    /// First to last
    pub resblocks: Vec<Block>,
}

/// One residual attention block.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before the attention
    pub ln_1: LayerNorm,
    /// Self-attention
    pub attn: Attention,
    /// Norm before the MLP
    pub ln_2: LayerNorm,
    /// MLP with four times the width
    pub mlp: Mlp,
    #[module(skip)]
    activation: Activation,
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct Attention {
    /// Rows are `[q; k; v]`: `[3·width, width]`
    pub in_proj_weight: Param<Tensor<2>>,
    /// `[3·width]`
    pub in_proj_bias: Param<Tensor<1>>,
    /// `[width, width]`
    pub out_proj: Linear,
    #[module(skip)]
    heads: usize,
}

impl Attention {
    /// Returns queries, keys and values side by side: `[batch, tokens, width]` → `[batch, tokens, 3·width]`
    fn project(&self, x: Tensor<3>) -> Tensor<3> {
        let weight = self.in_proj_weight.val().without_autodiff().transpose();
        let bias = self.in_proj_bias.val().without_autodiff();
        module::linear(x, weight, Some(bias))
    }
}

impl Block {
    fn build(
        params: &ParamBuilder,
        tower: &VisionConfig,
        as_released: bool,
    ) -> Result<Self, ModelError> {
        let width = tower.width;
        let (attn, mlp) = (params.at("attn"), params.at("mlp"));
        let norm = |name| norm(&params.at(name), width, as_released);
        Ok(Self {
            ln_1: norm("ln_1")?,
            attn: Attention {
                in_proj_weight: attn.param("in_proj_weight", [3 * width, width], Init::Required)?,
                in_proj_bias: attn.param("in_proj_bias", [3 * width], Init::Required)?,
                out_proj: Linear::read(&attn.at("out_proj"), width, width)?,
                heads: tower.heads,
            },
            ln_2: norm("ln_2")?,
            mlp: Mlp {
                c_fc: Linear::read(&mlp.at("c_fc"), width, 4 * width)?,
                c_proj: Linear::read(&mlp.at("c_proj"), 4 * width, width)?,
            },
            activation: if as_released {
                Activation::Gelu
            } else {
                tower.activation
            },
        })
    }

    /// Applies the block: `[batch, tokens, width]` → the same shape
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.ln_1.forward(x.clone()).without_autodiff();
        let attended = attention_packed(self.attn.project(y), self.attn.heads, None);
        let attended = self.attn.out_proj.forward(attended).without_autodiff();
        self.feed_forward(x + attended)
    }

    /// Returns queries, keys and values of the value path, each after the output projection; residual and MLP are added
    /// to the values: `[batch, tokens, width]` each.
    fn value_path(&self, x: Tensor<3>) -> [Tensor<3>; 3] {
        let [_, _, width] = x.dims();
        let y = self.ln_1.forward(x.clone()).without_autodiff();
        let projected = self.attn.project(y);
        let part = |index: usize| {
            let part = projected.clone().narrow(2, index * width, width);
            self.attn.out_proj.forward(part).without_autodiff()
        };
        let values = self.feed_forward(x + part(2));
        [part(0), part(1), values]
    }

    fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.ln_2.forward(x.clone()).without_autodiff();
        let hidden = self.mlp.c_fc.forward(y).without_autodiff();
        let hidden = self.activation.forward(hidden);
        x + self.mlp.c_proj.forward(hidden).without_autodiff()
    }
}

fn norm(params: &ParamBuilder, width: usize, as_released: bool) -> Result<LayerNorm, ModelError> {
    let epsilon = if as_released {
        RELEASED_EPSILON
    } else {
        LAYER_NORM_EPSILON
    };
    LayerNorm::build(params, width, epsilon, Start::FromWeights)
}

impl ClipTransformer {
    /// Reads the tower.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn build(
        params: &ParamBuilder,
        tower: &VisionConfig,
        as_released: bool,
    ) -> Result<Self, ModelError> {
        let (width, dim, grid) = (tower.width, tower.embed_dim, tower.grid());
        let blocks = params.at("transformer").at("resblocks");
        let block = |index: usize| Block::build(&blocks.at(index), tower, as_released);
        let kernel = [width, 3, tower.patch, tower.patch];
        // A released checkpoint stores the projection as a 1×1 convolution, [dim, width, 1, 1].
        let is_convolution = |shape: Vec<usize>| shape.len() == 4;
        let proj = if (params.weights().shape(&params.key("proj"))).is_some_and(is_convolution) {
            let stored = matrix(params, "proj", [dim, width])?;
            params.given("proj", [width, dim], transposed(stored.into_value()))?
        } else {
            params.param("proj", [width, dim], Init::Required)?
        };
        Ok(Self {
            conv1: PatchEmbedding {
                weight: params.at("conv1").param("weight", kernel, Init::Required)?,
            },
            class_embedding: vector(params, "class_embedding", width)?,
            positional_embedding: matrix(params, "positional_embedding", [1 + grid * grid, width])?,
            ln_pre: norm(&params.at("ln_pre"), width, as_released)?,
            transformer: Blocks {
                resblocks: (0..tower.layers).map(block).collect::<Result<_, _>>()?,
            },
            ln_post: norm(&params.at("ln_post"), width, as_released)?,
            proj,
            patch: tower.patch,
        })
    }

    /// Computes what the tower sees in images `[batch, 3, height, width]` of any size; they are padded to whole patches.
    pub(super) fn forward(&self, images: Tensor<4>, trace: &mut Trace) -> GuideOutput {
        let images = padded(images, self.patch);
        let [batch, _, height, width_of_image] = images.dims();
        let [h, w] = [height / self.patch, width_of_image / self.patch];
        let options = ConvOptions::new([self.patch; 2], [0, 0], [1, 1], 1);
        let weight = self.conv1.weight.val().without_autodiff();
        let [width, ..] = weight.dims();
        let patches = module::conv2d(images, weight, None, options) // [batch, width, h, w]
            .reshape([batch, width, h * w])
            .swap_dims(1, 2); // [batch, h·w, width]
        trace.record("patch_embed", &patches);
        let class = self.class_embedding.val().without_autodiff();
        let class = class.reshape([1, 1, width]).expand([batch, 1, width]);
        let tokens = Tensor::cat(vec![class, patches], 1) + self.positions([h, w]).unsqueeze::<3>();
        let mut x = self.ln_pre.forward(tokens).without_autodiff(); // [batch, 1 + h·w, width]
        trace.record("ln_pre", &x);

        let blocks = &self.transformer.resblocks;
        let before_last = blocks.len().saturating_sub(1);
        for (index, block) in blocks.iter().take(before_last).enumerate() {
            x = block.forward(x);
            trace.record(format_args!("block{index}"), &x);
        }
        let (keys, values) = match blocks.last() {
            Some(last) => {
                if trace.is_on() {
                    trace.record(format_args!("block{before_last}"), &last.forward(x.clone()));
                }
                let [queries, keys, values] = last.value_path(x);
                trace.record("last.q", &queries);
                trace.record("last.k", &keys);
                trace.record("last.v", &values);
                (keys, values)
            }
            None => (x.clone(), x),
        };
        let of_patches = |tokens: Tensor<3>| tokens.narrow(1, 1, h * w); // [batch, h·w, width]
        let keys = of_patches(keys);
        trace.record("k_used", &keys);
        let values = of_patches(self.ln_post.forward(values).without_autodiff());
        trace.record("v_map", &maps(&values, [h, w]));
        let proj = self.proj.val().without_autodiff();
        let features = maps(&values.matmul(proj.unsqueeze::<3>()), [h, w]); // [batch, dim, h, w]
        trace.record("feature", &features);
        GuideOutput { features, keys }
    }

    /// Returns the position table for a grid: `[1 + h·w, width]`
    ///
    /// As released, a table of the right length is not resized, whatever its grid.
    fn positions(&self, [h, w]: [usize; 2]) -> Tensor<2> {
        let table = self.positional_embedding.val().without_autodiff();
        let [rows, width] = table.dims();
        if rows == 1 + h * w {
            return table;
        }
        let side = (rows - 1).isqrt();
        let grid = table.clone().narrow(0, 1, side * side); // [s·s, width]
        let matrix = |output: usize| {
            let values = cubic_matrix(side, output);
            Tensor::<2>::from_data(TensorData::new(values, [output, side]), &table.device())
        };
        let resized = matrix(h)
            .matmul(grid.reshape([side, side * width])) // [h, s·width]
            .reshape([h, side, width])
            .swap_dims(0, 1) // [s, h, width]
            .reshape([side, h * width]);
        let resized = matrix(w)
            .matmul(resized) // [w, h·width]
            .reshape([w, h, width])
            .swap_dims(0, 1)
            .reshape([h * w, width]);
        Tensor::cat(vec![table.narrow(0, 0, 1), resized], 0)
    }
}

/// Reads the class token, which a released checkpoint stores as `[1, 1, width]`.
fn vector(params: &ParamBuilder, name: &str, width: usize) -> Result<Param<Tensor<1>>, ModelError> {
    let key = params.key(name);
    if params.weights().shape(&key) == Some(vec![1, 1, width])
        && let Some(tensor) = params.weights().read(&key)?
    {
        let shape = vec![width];
        return params.given(name, [width], HostTensor { shape, ..tensor });
    }
    params.param(name, [width], Init::Required)
}

/// Pads images with zeros at the right and at the bottom to multiples of `patch`.
fn padded(images: Tensor<4>, patch: usize) -> Tensor<4> {
    let [batch, channels, height, width] = images.dims();
    let (more_rows, more_columns) = (
        height.next_multiple_of(patch) - height,
        width.next_multiple_of(patch) - width,
    );
    let device = images.device();
    let zeros = |shape: [usize; 4]| Tensor::<4>::zeros(shape, &device);
    let mut padded = images;
    if more_columns > 0 {
        let columns = zeros([batch, channels, height, more_columns]);
        padded = Tensor::cat(vec![padded, columns], 3);
    }
    if more_rows > 0 {
        let rows = zeros([batch, channels, more_rows, width + more_columns]);
        padded = Tensor::cat(vec![padded, rows], 2);
    }
    padded
}

/// Returns the matrix that interpolates `input` samples at `output` positions with cubic weights: `[output, input]`
///
/// Half-pixel centres, no antialiasing; the border is repeated outwards.
fn cubic_matrix(input: usize, output: usize) -> Vec<f32> {
    let near = |x: f32| ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((CUBIC * x - 5.0 * CUBIC) * x + 8.0 * CUBIC) * x - 4.0 * CUBIC;
    let scale = input as f32 / output as f32;
    let mut matrix = vec![0.0_f32; input * output];
    for (position, row) in matrix.chunks_exact_mut(input.max(1)).enumerate() {
        let source = (position as f32 + 0.5) * scale - 0.5;
        let fraction = source - source.floor();
        let weights = [
            far(fraction + 1.0),
            near(fraction),
            near(1.0 - fraction),
            far(2.0 - fraction),
        ];
        for (offset, weight) in weights.into_iter().enumerate() {
            let place = source.floor() as i64 + offset as i64 - 1;
            row[place.clamp(0, input as i64 - 1) as usize] += weight;
        }
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubic_weights_sum_to_one_and_reproduce_the_same_size() {
        let same = cubic_matrix(3, 3);
        for (index, value) in same.iter().enumerate() {
            let expected = f32::from(index % 4 == 0);
            assert!((value - expected).abs() < 1e-6, "{same:?}");
        }
        for row in cubic_matrix(14, 5).chunks_exact(14) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
        // Half-way between samples: -0.09375 and 0.59375 for a = -0.75.
        let double = cubic_matrix(8, 4);
        let expected = [0.0, -0.09375, 0.59375, 0.59375, -0.09375, 0.0, 0.0, 0.0];
        for (found, expected) in double[8..16].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{double:?}");
        }
    }
}
