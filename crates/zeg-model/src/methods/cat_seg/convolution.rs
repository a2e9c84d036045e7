//! Convolutions with PyTorch's initial values, and the normalisation after them.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::relu, module, ops::ConvOptions},
};
use zeg_kernels::layer_norm;

use crate::{
    ModelError,
    weights::{Init, ParamBuilder},
};

/// Epsilon added to every variance before the square root.
const EPSILON: f64 = 1e-5;
/// Number of channels in a group of a normalisation.
const GROUP: usize = 16;

/// The sizes of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Number of input channels.
    pub input: usize,
    /// Number of output channels.
    pub output: usize,
    /// Side of the kernel; the input is padded so that its size is preserved.
    pub side: usize,
}

impl Kernel {
    /// Returns PyTorch's initial values: uniform in ±1/√(inputs of an output).
    fn init(self) -> Init {
        Init::Uniform(1.0 / ((self.input * self.side * self.side) as f64).sqrt())
    }
}

/// A convolution of stride 1 that preserves the size of a map.
#[derive(Module, Debug)]
pub struct Convolution {
    /// `[out, in, side, side]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`, if there is one
    pub bias: Option<Param<Tensor<1>>>,
}

impl Convolution {
    /// Reads or initialises a convolution with a bias.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, kernel: Kernel) -> Result<Self, ModelError> {
        Ok(Self {
            bias: Some(params.param("bias", [kernel.output], kernel.init())?),
            ..Self::without_bias(params, kernel)?
        })
    }

    /// Reads or initialises a convolution without a bias.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn without_bias(params: &ParamBuilder, kernel: Kernel) -> Result<Self, ModelError> {
        let Kernel {
            input,
            output,
            side,
        } = kernel;
        Ok(Self {
            weight: params.param("weight", [output, input, side, side], kernel.init())?,
            bias: None,
        })
    }

    /// Applies the convolution: `[batch, in, h, w]` → `[batch, out, h, w]`
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let bias = self.bias.as_ref().map(Param::val);
        convolve(x, self.weight.val(), bias)
    }

    /// Computes the share of the last input channels, for channels that are the same in every batch: `[1, shared, h, w]` →
    /// `[1, out, h, w]`.
    ///
    /// A convolution is linear, so this is computed once for any number of batches.
    pub fn share(&self, shared: &Tensor<4>) -> Tensor<4> {
        let [_, channels, _, _] = shared.dims();
        let weight = self.weight.val();
        let [_, input, _, _] = weight.dims();
        let weight = weight.narrow(1, input - channels, channels);
        convolve(shared.clone(), weight, self.bias.as_ref().map(Param::val))
    }

    /// Applies the convolution to the first input channels and adds the share of the others: `[batch, in − shared, h, w]` →
    /// `[batch, out, h, w]`.
    ///
    /// - `share`: that of [`Convolution::share`]; `None` if `x` has all channels
    pub fn forward_with(&self, x: Tensor<4>, share: Option<&Tensor<4>>) -> Tensor<4> {
        let Some(share) = share else {
            return self.forward(x);
        };
        let [_, own, _, _] = x.dims();
        convolve(x, self.weight.val().narrow(1, 0, own), None) + share.clone()
    }
}

/// Applies a convolution that preserves the size of maps: `[batch, in, h, w]` → `[batch, out, h, w]`
fn convolve(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
    let [_, _, side, _] = weight.dims();
    let options = ConvOptions::new([1, 1], [side / 2, side / 2], [1, 1], 1);
    module::conv2d(x, weight, bias, options)
}

/// A transposed convolution whose stride is its side, so that every token becomes a square of pixels.
#[derive(Module, Debug)]
pub struct Upsampling {
    /// `[in, out, side, side]`
    pub weight: Param<Tensor<4>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
}

impl Upsampling {
    /// Reads or initialises the layer; PyTorch counts the outputs of an input for the initial values.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, kernel: Kernel) -> Result<Self, ModelError> {
        let Kernel {
            input,
            output,
            side,
        } = kernel;
        let init = Init::Uniform(1.0 / ((output * side * side) as f64).sqrt());
        Ok(Self {
            weight: params.param("weight", [input, output, side, side], init)?,
            bias: params.param("bias", [output], init)?,
        })
    }

    /// Applies the layer: tokens `[batch, h·w, in]` → maps `[batch, out, side·h, side·w]`
    pub fn forward(&self, tokens: Tensor<3>, [h, w]: [usize; 2]) -> Tensor<4> {
        let [batch, _, input] = tokens.dims();
        let weight = self.weight.val();
        let [_, output, side, _] = weight.dims();
        let weight = weight.reshape([input, output * side * side]);
        let squares = tokens
            .reshape([batch * h * w, input])
            .matmul(weight)
            .reshape([batch, h, w, output, side, side])
            .permute([0, 3, 1, 4, 2, 5]) // [batch, out, h, side, w, side]
            .reshape([batch, output, side * h, side * w]);
        squares + self.bias.val().reshape([1, output, 1, 1])
    }
}

/// Normalisation of each map over groups of 16 channels, with a scale and a shift per channel.
#[derive(Module, Debug)]
pub struct GroupNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
}

impl GroupNorm {
    fn build(params: &ParamBuilder, channels: usize) -> Result<Self, ModelError> {
        Ok(Self {
            weight: params.param("weight", [channels], Init::Constant(1.0))?,
            bias: params.param("bias", [channels], Init::Constant(0.0))?,
        })
    }

    /// Applies the normalisation: `[batch, channels, h, w]` → the same shape
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, h, w] = x.dims();
        let groups = (channels / GROUP).max(1);
        let values = channels / groups * h * w;
        let device = x.device();
        let (ones, zeros) = (
            Tensor::ones([values], &device),
            Tensor::zeros([values], &device),
        );
        // A normalisation of rows without scale and shift, which follow per channel.
        let normed = layer_norm(x.reshape([batch * groups, values]), ones, zeros, EPSILON);
        let of_channel = |p: &Param<Tensor<1>>| p.val().reshape([1, channels, 1, 1]);
        normed.reshape([batch, channels, h, w]) * of_channel(&self.weight) + of_channel(&self.bias)
    }
}

/// Two convolutions, each with a normalisation and a ReLU, under the reference's name.
#[derive(Module, Debug)]
pub struct DoubleConvolution {
    /// Convolution, norm, nothing, convolution, norm: the numbers of the reference count its ReLUs.
    #[allow(clippy::type_complexity)] // the positions are the names
    pub double_conv: (
        Convolution,
        GroupNorm,
        Option<GroupNorm>,
        Convolution,
        GroupNorm,
    ),
}

impl DoubleConvolution {
    fn build(params: &ParamBuilder, input: usize, output: usize) -> Result<Self, ModelError> {
        let params = params.at("double_conv");
        let convolution = |index: usize, input| {
            let kernel = Kernel {
                input,
                output,
                side: 3,
            };
            Convolution::without_bias(&params.at(index), kernel)
        };
        Ok(Self {
            double_conv: (
                convolution(0, input)?,
                GroupNorm::build(&params.at(1), output)?,
                None,
                convolution(3, output)?,
                GroupNorm::build(&params.at(4), output)?,
            ),
        })
    }

    /// Applies the layers: `[batch, in − shared, h, w]` → `[batch, out, h, w]`
    ///
    /// - `share`: that of the guidance in the first convolution
    fn forward(&self, x: Tensor<4>, share: Option<&Tensor<4>>) -> Tensor<4> {
        let (first, first_norm, _, second, second_norm) = &self.double_conv;
        let x = relu(first_norm.forward(first.forward_with(x, share)));
        relu(second_norm.forward(second.forward(x)))
    }
}

/// A stage of the decoder: doubles the side of every class's map and joins it with guidance from the image.
#[derive(Module, Debug)]
pub struct UpStage {
    /// Doubles the side.
    pub up: Upsampling,
    /// The convolutions after it.
    pub conv: DoubleConvolution,
}

impl UpStage {
    /// Reads or initialises the stage.
    ///
    /// - `guidance`: channels of the guidance; 0 for none
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        [input, output]: [usize; 2],
        guidance: usize,
    ) -> Result<Self, ModelError> {
        let kernel = Kernel {
            input,
            output: input - guidance,
            side: 2,
        };
        Ok(Self {
            up: Upsampling::build(&params.at("up"), kernel)?,
            conv: DoubleConvolution::build(&params.at("conv"), input, output)?,
        })
    }

    /// Computes what all classes have in common: the share of the guidance, `[1, guidance, 2·h, 2·w]`, in the first convolution,
    /// `[1, out, 2·h, 2·w]`.
    pub fn shared(&self, guidance: &Tensor<4>) -> Tensor<4> {
        self.conv.double_conv.0.share(guidance)
    }

    /// Applies the stage: `[classes, h·w, in]` → `[classes, out, 2·h, 2·w]`
    ///
    /// - `shared`: what all classes have in common ([`UpStage::shared`]); `None` without guidance
    pub fn forward(
        &self,
        tokens: Tensor<3>,
        grid: [usize; 2],
        shared: Option<&Tensor<4>>,
    ) -> Tensor<4> {
        self.conv.forward(self.up.forward(tokens, grid), shared)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;

    #[test]
    fn the_share_of_common_channels_is_added_to_every_batch() {
        let device = Device::flex();
        let random = |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Default, &device);
        let layer = Convolution {
            weight: Param::from_tensor(random([3, 5, 3, 3])),
            bias: Some(Param::from_tensor(Tensor::from_floats(
                [0.5, -0.25, 1.0],
                &device,
            ))),
        };
        let (own, common) = (random([4, 3, 6, 7]), random([1, 2, 6, 7]));
        let share = layer.share(&common);
        assert_eq!(share.dims(), [1, 3, 6, 7]);
        let found = layer.forward_with(own.clone(), Some(&share));
        let joined = Tensor::cat(vec![own, common.expand([4, 2, 6, 7])], 1);
        let difference = (found - layer.forward(joined)).abs().max();
        assert!(difference.into_scalar::<f32>() < 1e-5);
    }
}
