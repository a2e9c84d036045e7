//! Convolutions with the two kinds of normalisation in the first stage: frozen batch norm and group norm.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, module, ops::ConvOptions},
};

use crate::{
    ModelError,
    weights::{Init, ParamBuilder},
};

/// Epsilon added to every variance before the square root.
const EPSILON: f64 = 1e-5;

/// The sizes of a convolution with a square kernel.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Number of input channels.
    pub input: usize,
    /// Number of output channels.
    pub output: usize,
    /// Side of the kernel; the input is padded so that a stride of 1 preserves its size.
    pub side: usize,
    /// Stride of the kernel.
    pub stride: usize,
    /// Distance of the kernel's cells, in cells of the input.
    pub dilation: usize,
}

impl Kernel {
    /// Returns a kernel of stride and dilation 1.
    pub fn new(input: usize, output: usize, side: usize) -> Self {
        Self {
            input,
            output,
            side,
            stride: 1,
            dilation: 1,
        }
    }

    fn shape(self) -> [usize; 4] {
        [self.output, self.input, self.side, self.side]
    }

    /// Returns the initialisation that the reference calls "Caffe2 Xavier": uniform with the bound √(3/fan in).
    fn xavier(self) -> Init {
        let inputs = self.input * self.side * self.side;
        Init::Uniform((3.0 / inputs as f64).sqrt())
    }
}

/// Applies a convolution: `[batch, in, h, w]` → `[batch, out, h/stride, w/stride]`
fn convolve(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    [stride, dilation]: [usize; 2],
) -> Tensor<4> {
    let [_, _, side, _] = weight.dims();
    let padding = side / 2 * dilation;
    let options = ConvOptions::new([stride; 2], [padding; 2], [dilation; 2], 1);
    module::conv2d(x, weight, bias, options)
}

/// A convolution with a bias.
#[derive(Module, Debug)]
pub struct Convolution {
    /// `[out, in, side, side]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
}

impl Convolution {
    /// Reads or initialises the convolution.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, kernel: Kernel) -> Result<Self, ModelError> {
        Ok(Self {
            weight: params.param("weight", kernel.shape(), kernel.xavier())?,
            bias: params.param("bias", [kernel.output], Init::Constant(0.0))?,
        })
    }

    /// Applies the convolution: `[batch, in, h, w]` → `[batch, out, h, w]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        convolve(x, self.weight.val(), Some(self.bias.val()), [1, 1])
    }
}

/// Batch normalisation with frozen statistics and scales.
#[derive(Module, Debug)]
pub struct FrozenNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
    /// `[channels]`
    pub running_mean: Param<Tensor<1>>,
    /// `[channels]`
    pub running_var: Param<Tensor<1>>,
}

impl FrozenNorm {
    fn build(params: &ParamBuilder, channels: usize, weight: f32) -> Result<Self, ModelError> {
        let vector = |name, start| params.param(name, [channels], Init::Constant(start));
        Ok(Self {
            weight: vector("weight", weight)?,
            bias: vector("bias", 0.0)?,
            running_mean: vector("running_mean", 0.0)?,
            running_var: vector("running_var", 1.0)?,
        })
    }

    /// Returns the equivalent scale and shift, `[channels]` each.
    fn factor_and_term(&self) -> (Tensor<1>, Tensor<1>) {
        let factor = self.weight.val() / (self.running_var.val() + EPSILON).sqrt();
        let term = self.bias.val() - self.running_mean.val() * factor.clone();
        (factor, term)
    }
}

/// A convolution without bias, followed by frozen batch normalisation.
#[derive(Module, Debug)]
pub struct FrozenConvolution {
    /// `[out, in, side, side]`
    pub weight: Param<Tensor<4>>,
    /// Frozen batch normalisation.
    pub norm: FrozenNorm,
    #[module(skip)]
    stride: usize,
    #[module(skip)]
    dilation: usize,
}

impl FrozenConvolution {
    /// Reads or initialises the layer; initialised convolution weights are Kaiming-normal for ReLU.
    ///
    /// - `norm_weight`: scale of the normalisation if the weights have none
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        kernel: Kernel,
        norm_weight: f32,
    ) -> Result<Self, ModelError> {
        let outputs = kernel.output * kernel.side * kernel.side;
        let start = Init::Normal((2.0 / outputs as f64).sqrt());
        Ok(Self {
            weight: params.param("weight", kernel.shape(), start)?,
            norm: FrozenNorm::build(&params.at("norm"), kernel.output, norm_weight)?,
            stride: kernel.stride,
            dilation: kernel.dilation,
        })
    }

    /// Applies the layer: `[batch, in, h, w]` → `[batch, out, h/stride, w/stride]`
    ///
    /// The normalisation's scale is multiplied into the kernel, which saves a pass over the feature map.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let (factor, term) = self.norm.factor_and_term();
        let [channels] = factor.dims();
        let weight = self.weight.val() * factor.reshape([channels, 1, 1, 1]);
        convolve(x, weight, Some(term), [self.stride, self.dilation])
    }
}

/// Normalisation of each image over groups of channels, with a scale and a shift per channel.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    groups: usize,
}

impl GroupNorm {
    fn build(params: &ParamBuilder, channels: usize, groups: usize) -> Result<Self, ModelError> {
        Ok(Self {
            weight: params.param("weight", [channels], Init::Constant(1.0))?,
            bias: params.param("bias", [channels], Init::Constant(0.0))?,
            groups,
        })
    }

    /// Applies the normalisation: `[batch, channels, h, w]` → the same shape
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, h, w] = x.dims();
        let grouped = x.reshape([batch, self.groups, channels / self.groups * h * w]);
        let centred = grouped.clone() - grouped.mean_dim(2); // [batch, groups, values]
        let variance = centred.clone().square().mean_dim(2); // [batch, groups, 1]
        let normed = centred / (variance + EPSILON).sqrt();
        let per_channel = |p: &Param<Tensor<1>>| p.val().reshape([1, channels, 1, 1]);
        normed.reshape([batch, channels, h, w]) * per_channel(&self.weight)
            + per_channel(&self.bias)
    }
}

/// A convolution without bias, followed by group normalisation.
#[derive(Module, Debug)]
pub struct GroupedConvolution {
    /// `[out, in, side, side]`
    pub weight: Param<Tensor<4>>,
    /// Trained group normalisation.
    pub norm: GroupNorm,
}

impl GroupedConvolution {
    /// Reads or initialises the layer.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, kernel: Kernel, groups: usize) -> Result<Self, ModelError> {
        Ok(Self {
            weight: params.param("weight", kernel.shape(), kernel.xavier())?,
            norm: GroupNorm::build(&params.at("norm"), kernel.output, groups)?,
        })
    }

    /// Applies the layer: `[batch, in, h, w]` → `[batch, out, h, w]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm
            .forward(convolve(x, self.weight.val(), None, [1, 1]))
    }
}
