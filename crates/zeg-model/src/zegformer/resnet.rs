//! The backbone: a residual network of bottleneck blocks, picture to feature maps at strides 4, 8, 16 and 32.
//!
//! As in detectron2: the stride of a stage stands in its first block's 3×3 convolution, every normalisation is frozen
//! ([`super::convolution::FrozenNorm`]), every convolution learns.

use burn::{
    module::Module,
    tensor::{Tensor, activation::relu, module, ops::MaxPoolOptions},
};

use super::{
    config::ResNetConfig,
    convolution::{FrozenConvolution, Kernel},
};
use crate::{ModelError, trace::Trace, weights::ParamBuilder};

/// Frozen statistics as they are published.
const PLAIN: f32 = 1.0;

/// The backbone.
#[derive(Module, Debug)]
pub struct ResNet {
    /// Picture to stride 4.
    pub stem: Stem,
    /// Stride 4.
    pub res2: Vec<Bottleneck>,
    /// Stride 8.
    pub res3: Vec<Bottleneck>,
    /// Stride 16.
    pub res4: Vec<Bottleneck>,
    /// Stride 32.
    pub res5: Vec<Bottleneck>,
}

/// The first convolution, 7×7 at stride 2.
#[derive(Module, Debug)]
pub struct Stem {
    /// `[stem, 3, 7, 7]`
    pub conv1: FrozenConvolution,
}

/// 1×1 to fewer channels, 3×3, 1×1 to all channels, and the shortcut past them.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// 1×1
    pub conv1: FrozenConvolution,
    /// 3×3, with the stage's stride in its first block
    pub conv2: FrozenConvolution,
    /// 1×1
    pub conv3: FrozenConvolution,
    /// 1×1 where the number of channels changes: in a stage's first block
    pub shortcut: Option<FrozenConvolution>,
}

impl Bottleneck {
    fn build(
        params: &ParamBuilder,
        [input, inner, output]: [usize; 3],
        stride: usize,
        start: f32,
        first: bool,
    ) -> Result<Self, ModelError> {
        let conv = |name, kernel, start| FrozenConvolution::build(&params.at(name), kernel, start);
        let strided = |kernel| Kernel { stride, ..kernel };
        let shortcut = strided(Kernel::new(input, output, 1));
        Ok(Self {
            conv1: conv("conv1", Kernel::new(input, inner, 1), PLAIN)?,
            conv2: conv("conv2", strided(Kernel::new(inner, inner, 3)), PLAIN)?,
            conv3: conv("conv3", Kernel::new(inner, output, 1), start)?,
            shortcut: first
                .then(|| conv("shortcut", shortcut, PLAIN))
                .transpose()?,
        })
    }

    /// `[batch, in, h, w]` → `[batch, out, h/stride, w/stride]`
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let inner = relu(self.conv1.forward(x.clone()));
        let inner = relu(self.conv2.forward(inner));
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
    /// Nothing normalises a network whose statistics are frozen before it learnt anything: each of n fresh blocks
    /// adds its branch times 1/√n, so that the variance at the end does not grow with n.
    ///
    /// # Errors
    /// See [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, config: &ResNetConfig) -> Result<Self, ModelError> {
        let blocks: usize = config.blocks.iter().sum();
        let start = 1.0 / (blocks as f32).sqrt();
        let stage = |stage: usize| {
            let output = config.stage_output(stage);
            let inner = config.stage_bottleneck(stage);
            let params = params.at(format_args!("res{}", stage + 2));
            let build = |block: usize| {
                let (input, stride) = match (stage, block) {
                    (0, 0) => (config.stem, 1),
                    (_, 0) => (config.stage_output(stage - 1), 2),
                    _ => (output, 1),
                };
                let sizes = [input, inner, output];
                Bottleneck::build(&params.at(block), sizes, stride, start, block == 0)
            };
            (0..config.blocks[stage])
                .map(build)
                .collect::<Result<_, ModelError>>()
        };
        let stem = Kernel {
            stride: 2,
            ..Kernel::new(3, config.stem, 7)
        };
        let conv1 = params.at("stem").at("conv1");
        Ok(Self {
            stem: Stem {
                conv1: FrozenConvolution::build(&conv1, stem, PLAIN)?,
            },
            res2: stage(0)?,
            res3: stage(1)?,
            res4: stage(2)?,
            res5: stage(3)?,
        })
    }

    /// `[batch, 3, height, width]` → maps `[batch, channels, height/s, width/s]` for s = 4, 8, 16, 32.
    pub fn forward(&self, images: Tensor<4>, trace: &mut Trace) -> [Tensor<4>; 4] {
        let mut x = max_pool(relu(self.stem.conv1.forward(images)));
        trace.record("stem", &x);
        let stages = [
            (2, &self.res2),
            (3, &self.res3),
            (4, &self.res4),
            (5, &self.res5),
        ];
        stages.map(|(number, stage)| {
            for block in stage {
                x = block.forward(x.clone());
            }
            trace.record(format_args!("res{number}"), &x);
            x.clone()
        })
    }
}

/// The largest of 3×3 at stride 2: `[batch, channels, h, w]` → `[batch, channels, h/2, w/2]`
fn max_pool(x: Tensor<4>) -> Tensor<4> {
    // Behind a ReLU, zeros around the map never win.
    let options = MaxPoolOptions::new([3, 3])
        .with_stride([2, 2])
        .with_padding([1, 1]);
    module::max_pool2d(x, options)
}
