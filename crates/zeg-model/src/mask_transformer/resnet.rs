//! The backbone: a residual network of bottleneck blocks that computes feature maps at strides 4, 8, 16 and 32.
//!
//! As in detectron2, the stride of a stage is in its first block's 3×3 convolution, every normalisation is frozen
//! ([`super::convolution::FrozenNorm`]), and every convolution is trained.

use burn::{
    module::Module,
    tensor::{Tensor, activation::relu, module, ops::MaxPoolOptions},
};

use super::{
    config::{ResNetConfig, StemKind},
    convolution::{FrozenConvolution, Kernel},
};
use crate::{ModelError, trace::Trace, weights::ParamBuilder};

/// Scale of a frozen normalisation, as published.
const PLAIN: f32 = 1.0;

/// The backbone.
#[derive(Module, Debug)]
pub struct ResNet {
    /// First convolution and pooling, to stride 4.
    pub stem: Stem,
    /// Blocks at stride 4.
    pub res2: Vec<Bottleneck>,
    /// Blocks at stride 8.
    pub res3: Vec<Bottleneck>,
    /// Blocks at stride 16.
    pub res4: Vec<Bottleneck>,
    /// Blocks at stride 32.
    pub res5: Vec<Bottleneck>,
}

/// The first layers: one 7×7 convolution, or three 3×3 convolutions; the first has stride 2.
#[derive(Module, Debug)]
pub struct Stem {
    /// `[stem, 3, 7, 7]` or `[stem/2, 3, 3, 3]`
    pub conv1: FrozenConvolution,
    /// `[stem/2, stem/2, 3, 3]`, if there are three convolutions
    pub conv2: Option<FrozenConvolution>,
    /// `[stem, stem/2, 3, 3]`, if there are three convolutions
    pub conv3: Option<FrozenConvolution>,
}

impl Stem {
    fn build(params: &ParamBuilder, config: &ResNetConfig) -> Result<Self, ModelError> {
        let conv = |name, kernel| FrozenConvolution::build(&params.at(name), kernel, PLAIN);
        let first = |output, side| Kernel {
            stride: 2,
            ..Kernel::new(3, output, side)
        };
        let (stem, half) = (config.stem, config.stem / 2);
        Ok(match config.stem_kind {
            StemKind::Single => Self {
                conv1: conv("conv1", first(stem, 7))?,
                conv2: None,
                conv3: None,
            },
            StemKind::Triple => Self {
                conv1: conv("conv1", first(half, 3))?,
                conv2: Some(conv("conv2", Kernel::new(half, half, 3))?),
                conv3: Some(conv("conv3", Kernel::new(half, stem, 3))?),
            },
        })
    }

    /// Applies the layers: `[batch, 3, h, w]` → `[batch, stem, h/2, w/2]`
    fn forward(&self, images: Tensor<4>, trace: &mut Trace) -> Tensor<4> {
        let first = relu(self.conv1.forward(images));
        trace.record("stem.conv1_bn", &first);
        let further = [&self.conv2, &self.conv3].into_iter().flatten();
        further.fold(first, |x, conv| relu(conv.forward(x)))
    }
}

/// A bottleneck block: 1×1 to fewer channels, 3×3, 1×1 to all channels, and a shortcut around them.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// 1×1 convolution
    pub conv1: FrozenConvolution,
    /// 3×3 convolution, with the stage's stride in its first block
    pub conv2: FrozenConvolution,
    /// 1×1 convolution
    pub conv3: FrozenConvolution,
    /// 1×1 projection, if the number of channels or the resolution changes
    pub shortcut: Option<FrozenConvolution>,
}

/// The sizes of a bottleneck block.
#[derive(Debug, Clone, Copy)]
pub(super) struct BottleneckShape {
    /// Number of input channels.
    pub(super) input: usize,
    /// Channels between the 1×1 convolutions.
    pub(super) inner: usize,
    /// Number of output channels.
    pub(super) output: usize,
    /// Stride of the 3×3 convolution.
    pub(super) stride: usize,
    /// Dilation of the 3×3 convolution.
    dilation: usize,
}

impl BottleneckShape {
    /// Returns the sizes of block `block` of stage `stage`, 0 to 3.
    pub(super) fn of(config: &ResNetConfig, stage: usize, block: usize) -> Self {
        let output = config.stage_output(stage);
        let (input, stride) = match (stage, block) {
            (0, 0) => (config.stem, 1),
            (_, 0) => (config.stage_output(stage - 1), 2),
            _ => (output, 1),
        };
        Self {
            input,
            inner: config.stage_bottleneck(stage),
            output,
            stride,
            dilation: config.dilation(stage, block),
        }
    }

    /// Returns whether the shortcut is a projection: the block's input and output have different shapes.
    pub(super) fn projects(self) -> bool {
        self.input != self.output || self.stride != 1
    }
}

impl Bottleneck {
    /// Reads or initialises a block; `start` is the scale of an initialised block's branch.
    fn build(
        params: &ParamBuilder,
        shape: BottleneckShape,
        start: f32,
    ) -> Result<Self, ModelError> {
        let BottleneckShape {
            input,
            inner,
            output,
            stride,
            dilation,
        } = shape;
        let conv = |name, kernel, start| FrozenConvolution::build(&params.at(name), kernel, start);
        let strided = |kernel| Kernel { stride, ..kernel };
        let shortcut = strided(Kernel::new(input, output, 1));
        let dilated = Kernel {
            dilation,
            ..strided(Kernel::new(inner, inner, 3))
        };
        let projection = params.at("shortcut").key("weight");
        if !shape.projects() && params.weights().contains(&projection) {
            return Err(ModelError::Config(format!(
                "{}: holds {projection:?}, but a block from {input} to {output} channels at stride 1 has no projection",
                params.weights().origin()
            )));
        }
        Ok(Self {
            conv1: conv("conv1", Kernel::new(input, inner, 1), PLAIN)?,
            conv2: conv("conv2", dilated, PLAIN)?,
            conv3: conv("conv3", Kernel::new(inner, output, 1), start)?,
            shortcut: shape
                .projects()
                .then(|| conv("shortcut", shortcut, PLAIN))
                .transpose()?,
        })
    }

    /// Applies the block: `[batch, in, h, w]` → `[batch, out, h/stride, w/stride]`
    ///
    /// - `name`: name of the block in the trace
    fn forward(&self, x: Tensor<4>, name: std::fmt::Arguments, trace: &mut Trace) -> Tensor<4> {
        let inner = relu(self.conv1.forward(x.clone()));
        let inner = relu(self.conv2.forward(inner));
        trace.record(format_args!("{name}.conv2_bn"), &inner);
        let shortcut = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        relu(self.conv3.forward(inner) + shortcut)
    }
}

impl ResNet {
    /// Reads or initialises the network.
    ///
    /// With frozen statistics, nothing normalises the activations of an untrained network. Each of n initialised blocks
    /// therefore adds its branch times 1/√n, so that the variance at the end does not grow with n.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`], and an error if the weights hold a projection for a block that
    /// has none.
    pub fn build(params: &ParamBuilder, config: &ResNetConfig) -> Result<Self, ModelError> {
        let blocks: usize = config.blocks.iter().sum();
        let start = 1.0 / (blocks as f32).sqrt();
        let stage = |stage: usize| {
            let params = params.at(format_args!("res{}", stage + 2));
            let build = |block: usize| {
                let shape = BottleneckShape::of(config, stage, block);
                Bottleneck::build(&params.at(block), shape, start)
            };
            (0..config.blocks[stage])
                .map(build)
                .collect::<Result<_, ModelError>>()
        };
        Ok(Self {
            stem: Stem::build(&params.at("stem"), config)?,
            res2: stage(0)?,
            res3: stage(1)?,
            res4: stage(2)?,
            res5: stage(3)?,
        })
    }

    /// Computes feature maps `[batch, channels, height/s, width/s]` for s = 4, 8, 16, 32 from images `[batch, 3,
    /// height, width]`.
    pub fn forward(&self, images: Tensor<4>, trace: &mut Trace) -> [Tensor<4>; 4] {
        let mut x = max_pool(self.stem.forward(images, trace));
        trace.record("stem", &x);
        let stages = [
            (2, &self.res2),
            (3, &self.res3),
            (4, &self.res4),
            (5, &self.res5),
        ];
        stages.map(|(number, stage)| {
            for (index, block) in stage.iter().enumerate() {
                x = block.forward(x.clone(), format_args!("res{number}.{index}"), trace);
            }
            trace.record(format_args!("res{number}"), &x);
            x.clone()
        })
    }
}

/// Computes the maximum over 3×3 cells at stride 2: `[batch, channels, h, w]` → `[batch, channels, h/2, w/2]`
fn max_pool(x: Tensor<4>) -> Tensor<4> {
    // The input comes from a ReLU, so the zeros of the padding never exceed it.
    let options = MaxPoolOptions::new([3, 3])
        .with_stride([2, 2])
        .with_padding([1, 1]);
    module::max_pool2d(x, options)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{
        params::{ParamInfo, list_params},
        weights::{HostTensor, StateDict},
    };

    /// Returns a network whose stem is as wide as the output of its first stage.
    fn equal_widths() -> ResNetConfig {
        ResNetConfig {
            blocks: [2, 1, 1, 1],
            stem: 8,
            output: 8,
            bottleneck: 4,
            ..ResNetConfig::default()
        }
    }

    fn parameters(config: &ResNetConfig) -> Vec<ParamInfo> {
        let weights = StateDict::default();
        let params = ParamBuilder::blueprint(&weights, &Device::flex(), &|_| true);
        list_params(&ResNet::build(&params, config).unwrap(), |_| true)
    }

    /// Returns weights as in a file; each value is a function of its name.
    fn file(config: &ResNetConfig, value: impl Fn(&str) -> f32) -> StateDict {
        let mut weights = StateDict::default();
        for ParamInfo { name, shape, .. } in parameters(config) {
            let values = vec![value(&name); shape.iter().product()];
            weights.insert(name, HostTensor { shape, values });
        }
        weights
    }

    #[test]
    fn released_networks_project_in_the_first_block_of_every_stage() {
        for depth in [50, 101] {
            let config = ResNetConfig::by_depth(depth).unwrap();
            let shapes: Vec<_> = parameters(&config)
                .into_iter()
                .filter(|p| p.name.ends_with("shortcut.weight"))
                .map(|p| (p.name, p.shape))
                .collect();
            let expected = [(2, 256, 64), (3, 512, 256), (4, 1024, 512), (5, 2048, 1024)];
            let expected = expected.map(|(stage, output, input)| {
                let name = format!("res{stage}.0.shortcut.weight");
                (name, vec![output, input, 1, 1])
            });
            assert_eq!(shapes, expected, "ResNet-{depth}");
        }
    }

    /// The first block of the first stage adds its input without a projection, which the file does not hold.
    #[test]
    fn a_stem_as_wide_as_the_first_stage_needs_no_projection() {
        let config = equal_widths();
        let names: Vec<String> = parameters(&config).into_iter().map(|p| p.name).collect();
        let with = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
        assert!(!with("res2.0.shortcut.") && !with("res2.1.shortcut."));
        assert!(with("res3.0.shortcut.") && with("res4.0.shortcut.") && with("res5.0.shortcut."));

        // With a branch of zeros, the output equals the input.
        let weights = file(&config, |name| {
            f32::from(!name.starts_with("res2.") || !name.contains("conv3.norm"))
        });
        let params = ParamBuilder::new(&weights, &Device::flex(), 0, &|_| true);
        let net = ResNet::build(&params, &config).unwrap();
        assert_eq!(params.provenance().initialized, [""; 0]);
        let x = Tensor::<4>::random(
            [1, 8, 6, 5],
            burn::tensor::Distribution::Uniform(0.0, 1.0),
            &Device::flex(),
        );
        let block = net.res2[0].forward(x.clone(), format_args!("block"), &mut Trace::off());
        assert_eq!(block.into_data(), x.into_data());
    }

    #[test]
    fn a_projection_that_no_block_has_is_refused() {
        let config = equal_widths();
        let mut weights = file(&config, |_| 1.0);
        let projection = HostTensor {
            shape: vec![8, 8, 1, 1],
            values: vec![0.0; 64],
        };
        weights.insert("res2.0.shortcut.weight".to_owned(), projection);
        let params = ParamBuilder::new(&weights, &Device::flex(), 0, &|_| true);
        let error = ResNet::build(&params, &config).unwrap_err().to_string();
        assert_eq!(
            error,
            "weights in memory: holds \"res2.0.shortcut.weight\", but a block from 8 to 8 channels at stride 1 has no \
             projection"
        );
    }
}
