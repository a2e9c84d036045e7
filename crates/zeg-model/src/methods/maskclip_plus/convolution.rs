//! Convolutions without bias, each followed by batch normalisation.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::relu, module, ops::ConvOptions},
};

use super::batch_norm::{BatchNorm, Statistics};
use crate::{
    ModelError,
    weights::{Init, ParamBuilder},
};

/// The sizes of a convolution with a square kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Number of input channels.
    pub input: usize,
    /// Number of output channels.
    pub output: usize,
    /// Side of the kernel; the input is padded so that a stride of 1 preserves its size.
    pub side: usize,
    /// Stride of the kernel.
    pub stride: usize,
    /// Distance between neighbouring values of the kernel on the map.
    pub dilation: usize,
    /// Number of groups of channels that are convolved separately.
    pub groups: usize,
}

impl Kernel {
    /// Returns a kernel of stride 1 without dilation.
    pub fn new(input: usize, output: usize, side: usize) -> Self {
        Self {
            input,
            output,
            side,
            stride: 1,
            dilation: 1,
            groups: 1,
        }
    }

    /// Returns a 3×3 kernel for each channel on its own.
    pub fn depthwise(channels: usize, dilation: usize) -> Self {
        Self {
            dilation,
            groups: channels,
            ..Self::new(channels, channels, 3)
        }
    }

    /// Returns the shape of the weight.
    pub fn shape(self) -> [usize; 4] {
        [
            self.output,
            self.input / self.groups.max(1),
            self.side,
            self.side,
        ]
    }

    /// Returns the number of cells of a map of `side` cells along one axis after the convolution.
    pub fn cells(self, side: usize) -> usize {
        side.div_ceil(self.stride)
    }

    /// Returns the initialisation: normal, with the variance 2 / fan out (Kaiming for ReLU).
    fn start(self) -> Init {
        let outputs = self.output * self.side * self.side / self.groups.max(1);
        Init::Normal((2.0 / outputs.max(1) as f64).sqrt())
    }
}

/// A kernel with the following normalisation multiplied into it.
#[derive(Debug, Clone)]
struct Folded {
    /// `[out, in, side, side]`
    weight: Tensor<4>,
    /// `[out]`
    bias: Tensor<1>,
}

/// A convolution without bias.
#[derive(Module, Debug)]
pub struct Convolution {
    /// `[out, in / groups, side, side]`; empty where the following normalisation is multiplied into it
    pub weight: Param<Tensor<4>>,
    #[module(skip)]
    kernel: Kernel,
    #[module(skip)]
    folded: Option<Folded>,
}

impl Convolution {
    /// Reads or initialises the convolution.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, kernel: Kernel) -> Result<Self, ModelError> {
        Ok(Self {
            weight: params.param("weight", kernel.shape(), kernel.start())?,
            kernel,
            folded: None,
        })
    }

    /// Multiplies the following normalisation into the kernel, in a model for inference on packed weights.
    #[must_use]
    pub fn folded(mut self, params: &ParamBuilder, norm: &BatchNorm) -> Self {
        if params.packing().is_none() {
            return self;
        }
        let (factor, term) = norm.factor_and_term();
        let [channels] = factor.dims();
        let id = self.weight.id;
        let weight = self.weight.into_value() * factor.reshape([channels, 1, 1, 1]);
        let empty = Tensor::empty([0, 0, 0, 0], params.device());
        self.weight = Param::initialized(id, empty).set_require_grad(false);
        self.folded = Some(Folded { weight, bias: term });
        self
    }

    /// Applies the convolution and the normalisation that follows it: `[batch, in, h, w]` → `[batch, out, h/stride,
    /// w/stride]`
    pub fn normalized(
        &self,
        norm: &BatchNorm,
        x: Tensor<4>,
        statistics: &mut Statistics,
    ) -> Tensor<4> {
        match &self.folded {
            Some(Folded { weight, bias }) => self.convolve(x, weight.clone(), Some(bias.clone())),
            None => norm.forward(self.convolve(x, self.weight.val(), None), statistics),
        }
    }

    fn convolve(&self, x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
        let Kernel {
            side,
            stride,
            dilation,
            groups,
            ..
        } = self.kernel;
        let padding = side / 2 * dilation;
        let options = ConvOptions::new([stride; 2], [padding; 2], [dilation; 2], groups);
        module::conv2d(x, weight, bias, options)
    }
}

/// A convolution, batch normalisation and ReLU, under the reference's names.
#[derive(Module, Debug)]
pub struct ConvolutionModule {
    /// The convolution.
    pub conv: Convolution,
    /// The normalisation.
    pub bn: BatchNorm,
}

impl ConvolutionModule {
    /// Reads or initialises the layers.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, kernel: Kernel) -> Result<Self, ModelError> {
        let bn = BatchNorm::build(&params.at("bn"), kernel.output, 1.0)?;
        let conv = Convolution::build(&params.at("conv"), kernel)?.folded(params, &bn);
        Ok(Self { conv, bn })
    }

    /// Applies the layers: `[batch, in, h, w]` → `[batch, out, h/stride, w/stride]`
    pub fn forward(&self, x: Tensor<4>, statistics: &mut Statistics) -> Tensor<4> {
        relu(self.conv.normalized(&self.bn, x, statistics))
    }
}

/// A 3×3 convolution of each channel on its own, then one across channels, under the reference's names.
#[derive(Module, Debug)]
pub struct SeparableConvolution {
    /// 3×3, each channel on its own.
    pub depthwise_conv: ConvolutionModule,
    /// 1×1, across channels.
    pub pointwise_conv: ConvolutionModule,
}

impl SeparableConvolution {
    /// Reads or initialises the layers.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        input: usize,
        output: usize,
        dilation: usize,
    ) -> Result<Self, ModelError> {
        let module = |name, kernel| ConvolutionModule::build(&params.at(name), kernel);
        Ok(Self {
            depthwise_conv: module("depthwise_conv", Kernel::depthwise(input, dilation))?,
            pointwise_conv: module("pointwise_conv", Kernel::new(input, output, 1))?,
        })
    }

    /// Applies the layers: `[batch, in, h, w]` → `[batch, out, h, w]`
    pub fn forward(&self, x: Tensor<4>, statistics: &mut Statistics) -> Tensor<4> {
        let x = self.depthwise_conv.forward(x, statistics);
        self.pointwise_conv.forward(x, statistics)
    }
}
