//! Residual networks of bottleneck blocks: the student's backbone, and CLIP's own image tower of this kind.
//!
//! Both have a stem of three 3×3 convolutions, but differ in how they shrink maps. The student (ResNet-V1c) has strides
//! in the 3×3 convolutions, up to a stride of 8, and dilates the kernels of its last two stages instead; CLIP's tower
//! averages 2×2 cells, up to a stride of 32.

use burn::{
    module::Module,
    tensor::{Tensor, activation::relu, module, ops::MaxPoolOptions},
};

use super::{
    batch_norm::{BatchNorm, Statistics},
    config::ResidualSizes,
    convolution::{Convolution, Kernel},
    guide::Projections,
};
use crate::{ModelError, trace::Trace, weights::ParamBuilder};

/// Strides of the student's stages.
const STRIDES: [usize; 4] = [1, 2, 1, 1];
/// Dilations of the student's stages; the first block of a stage has half of it.
const DILATIONS: [usize; 4] = [1, 1, 2, 4];

/// A layer of a sequence in which layers have the reference's numbers.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // handles of tensors
pub enum Layer {
    /// A convolution.
    Convolution(Convolution),
    /// The normalisation after a convolution.
    Norm(BatchNorm),
}

/// Reads a convolution and its normalisation as two neighbours of a sequence.
fn pair(
    params: &ParamBuilder,
    at: usize,
    kernel: Kernel,
) -> Result<[Option<Layer>; 2], ModelError> {
    let norm = BatchNorm::build(&params.at(at + 1), kernel.output, 1.0)?;
    let conv = Convolution::build(&params.at(at), kernel)?.folded(params, &norm);
    Ok([Some(Layer::Convolution(conv)), Some(Layer::Norm(norm))])
}

/// Applies the convolution at a place of a sequence, and the normalisation after it.
fn apply(
    layers: &[Option<Layer>],
    at: usize,
    x: Tensor<4>,
    statistics: &mut Statistics,
) -> Tensor<4> {
    match layers.get(at..at + 2) {
        Some([Some(Layer::Convolution(conv)), Some(Layer::Norm(norm))]) => {
            conv.normalized(norm, x, statistics)
        }
        _ => x, // an empty sequence
    }
}

/// Where a block shrinks its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shrink {
    /// In the 3×3 convolution and the shortcut, by this stride.
    Stride(usize),
    /// By averages of 2×2 cells, after the 3×3 convolution and before the shortcut.
    Average,
}

/// The sizes of a bottleneck block.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockShape {
    pub(super) input: usize,
    pub(super) inner: usize,
    pub(super) output: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
}

impl BlockShape {
    /// Returns the sizes of a block of the student, with its stage counted from 0.
    pub(super) fn of_student(sizes: &ResidualSizes, stage: usize, block: usize) -> Self {
        let dilation = DILATIONS[stage];
        let shape = Self::of(sizes, stage, block, STRIDES[stage]);
        Self {
            dilation: if block == 0 {
                (dilation / 2).max(1)
            } else {
                dilation
            },
            ..shape
        }
    }

    /// Returns the sizes of a block of CLIP's tower.
    pub(super) fn of_clip(sizes: &ResidualSizes, stage: usize, block: usize) -> Self {
        Self::of(sizes, stage, block, if stage == 0 { 1 } else { 2 })
    }

    fn of(sizes: &ResidualSizes, stage: usize, block: usize, stride: usize) -> Self {
        let output = sizes.stage_output(stage);
        let (input, stride) = match (stage, block) {
            (0, 0) => (sizes.stem, stride),
            (_, 0) => (sizes.stage_output(stage - 1), stride),
            _ => (output, 1),
        };
        Self {
            input,
            inner: sizes.stage_inner(stage),
            output,
            stride,
            dilation: 1,
        }
    }

    /// Returns whether the shortcut is a projection.
    pub(super) fn projects(self) -> bool {
        self.input != self.output || self.stride != 1
    }
}

/// A bottleneck block: 1×1 to fewer channels, 3×3, 1×1 to all channels, and a shortcut around them.
#[derive(Module, Debug)]
pub struct Bottleneck {
    /// 1×1 convolution
    pub conv1: Convolution,
    /// Its normalisation
    pub bn1: BatchNorm,
    /// 3×3 convolution
    pub conv2: Convolution,
    /// Its normalisation
    pub bn2: BatchNorm,
    /// 1×1 convolution
    pub conv3: Convolution,
    /// Its normalisation
    pub bn3: BatchNorm,
    /// Convolution and normalisation of the shortcut; empty if it changes nothing
    pub downsample: Vec<Option<Layer>>,
    #[module(skip)]
    averages: bool,
}

impl Bottleneck {
    fn build(params: &ParamBuilder, shape: BlockShape, shrink: Shrink) -> Result<Self, ModelError> {
        let BlockShape {
            input,
            inner,
            output,
            dilation,
            ..
        } = shape;
        let stride = match shrink {
            Shrink::Stride(stride) => stride,
            Shrink::Average => 1,
        };
        let norm = |name, channels, start| BatchNorm::build(&params.at(name), channels, start);
        let (bn1, bn2) = (norm("bn1", inner, 1.0)?, norm("bn2", inner, 1.0)?);
        // An untrained block starts as its shortcut alone.
        let bn3 = norm("bn3", output, 0.0)?;
        let conv = |name, kernel, norm: &BatchNorm| {
            Convolution::build(&params.at(name), kernel).map(|conv| conv.folded(params, norm))
        };
        let middle = Kernel {
            stride,
            dilation,
            ..Kernel::new(inner, inner, 3)
        };
        let shortcut = Kernel {
            stride,
            ..Kernel::new(input, output, 1)
        };
        Ok(Self {
            conv1: conv("conv1", Kernel::new(input, inner, 1), &bn1)?,
            conv2: conv("conv2", middle, &bn2)?,
            conv3: conv("conv3", Kernel::new(inner, output, 1), &bn3)?,
            downsample: if shape.projects() {
                pair(&params.at("downsample"), 0, shortcut)?.into()
            } else {
                Vec::new()
            },
            bn1,
            bn2,
            bn3,
            averages: shrink == Shrink::Average && shape.stride == 2,
        })
    }

    fn forward(&self, x: Tensor<4>, statistics: &mut Statistics) -> Tensor<4> {
        let pooled = |map: Tensor<4>| if self.averages { average(map) } else { map };
        let inner = relu(self.conv1.normalized(&self.bn1, x.clone(), statistics));
        let inner = relu(self.conv2.normalized(&self.bn2, inner, statistics));
        let branch = (self.conv3).normalized(&self.bn3, pooled(inner), statistics);
        let shortcut = apply(&self.downsample, 0, pooled(x), statistics);
        relu(branch + shortcut)
    }
}

/// Averages 2×2 cells; a last odd row or column is left out: `[batch, channels, h, w]` → `[batch, channels, ⌊h/2⌋,
/// ⌊w/2⌋]`
pub(super) fn average(x: Tensor<4>) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let (h, w) = (height / 2, width / 2);
    x.narrow(2, 0, 2 * h)
        .narrow(3, 0, 2 * w)
        .reshape([batch, channels, h, 2, w, 2])
        .mean_dims(&[3, 5]) // [batch, channels, h, 1, w, 1]
        .reshape([batch, channels, h, w])
}

/// The student's backbone, a dilated ResNet-V1c.
#[derive(Module, Debug)]
pub struct ResNet {
    /// Three 3×3 convolutions with their normalisations at 0, 1, 3, 4, 6 and 7
    pub stem: Vec<Option<Layer>>,
    /// Blocks at stride 4
    pub layer1: Vec<Bottleneck>,
    /// Blocks at stride 8
    pub layer2: Vec<Bottleneck>,
    /// Blocks at stride 8, dilated
    pub layer3: Vec<Bottleneck>,
    /// Blocks at stride 8, dilated more
    pub layer4: Vec<Bottleneck>,
}

impl ResNet {
    /// Reads or initialises the network.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, sizes: &ResidualSizes) -> Result<Self, ModelError> {
        let stage = |stage: usize| {
            let params = params.at(format_args!("layer{}", stage + 1));
            let block = |block: usize| {
                let shape = BlockShape::of_student(sizes, stage, block);
                Bottleneck::build(&params.at(block), shape, Shrink::Stride(shape.stride))
            };
            (0..sizes.blocks[stage])
                .map(block)
                .collect::<Result<Vec<_>, ModelError>>()
        };
        let mut stem = Vec::new();
        for (index, kernel) in sizes.stem_kernels().into_iter().enumerate() {
            stem.extend(pair(&params.at("stem"), 3 * index, kernel)?);
            stem.push(None); // ReLU
        }
        Ok(Self {
            stem,
            layer1: stage(0)?,
            layer2: stage(1)?,
            layer3: stage(2)?,
            layer4: stage(3)?,
        })
    }

    /// Computes the maps of the first and the last stage from images `[batch, 3, height, width]`: `[batch, channels,
    /// height/4, width/4]` and `[batch, channels, height/8, width/8]`
    pub fn forward(
        &self,
        images: Tensor<4>,
        statistics: &mut Statistics,
        trace: &mut Trace,
    ) -> [Tensor<4>; 2] {
        let mut x = images;
        for index in 0..3 {
            x = relu(apply(&self.stem, 3 * index, x, statistics));
        }
        x = max_pool(x);
        let stages = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        let mut low = None;
        for (number, stage) in stages.into_iter().enumerate() {
            for block in stage {
                x = block.forward(x, statistics);
            }
            trace.record(format_args!("layer{}", number + 1), &x);
            low.get_or_insert_with(|| x.clone());
        }
        [low.unwrap_or_else(|| x.clone()), x]
    }
}

/// Computes the maximum over 3×3 cells at stride 2: `[batch, channels, h, w]` → `[batch, channels, ⌈h/2⌉, ⌈w/2⌉]`
fn max_pool(x: Tensor<4>) -> Tensor<4> {
    // The input comes from a ReLU, so the zeros of the padding never exceed it.
    let options = MaxPoolOptions::new([3, 3])
        .with_stride([2, 2])
        .with_padding([1, 1]);
    module::max_pool2d(x, options)
}

/// The body of CLIP's residual image tower, under CLIP's names.
#[derive(Module, Debug)]
pub struct ClipResNet {
    /// 3×3 at stride 2
    pub conv1: Convolution,
    /// Its normalisation
    pub bn1: BatchNorm,
    /// 3×3
    pub conv2: Convolution,
    /// Its normalisation
    pub bn2: BatchNorm,
    /// 3×3
    pub conv3: Convolution,
    /// Its normalisation
    pub bn3: BatchNorm,
    /// Blocks at stride 4
    pub layer1: Vec<Bottleneck>,
    /// Blocks at stride 8
    pub layer2: Vec<Bottleneck>,
    /// Blocks at stride 16
    pub layer3: Vec<Bottleneck>,
    /// Blocks at stride 32
    pub layer4: Vec<Bottleneck>,
    /// Projections of the attention pooling
    pub attnpool: Projections,
}

impl ClipResNet {
    /// Reads the tower.
    ///
    /// - `dim`: channels of the joint image-text space
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn build(
        params: &ParamBuilder,
        sizes: &ResidualSizes,
        dim: usize,
    ) -> Result<Self, ModelError> {
        let [first, second, third] = sizes.stem_kernels();
        let norm = |name, kernel: Kernel| BatchNorm::build(&params.at(name), kernel.output, 1.0);
        let (bn1, bn2, bn3) = (
            norm("bn1", first)?,
            norm("bn2", second)?,
            norm("bn3", third)?,
        );
        let conv = |name, kernel, norm: &BatchNorm| {
            Convolution::build(&params.at(name), kernel).map(|conv| conv.folded(params, norm))
        };
        let stage = |stage: usize| {
            let params = params.at(format_args!("layer{}", stage + 1));
            let block = |block: usize| {
                let shape = BlockShape::of_clip(sizes, stage, block);
                Bottleneck::build(&params.at(block), shape, Shrink::Average)
            };
            (0..sizes.blocks[stage])
                .map(block)
                .collect::<Result<Vec<_>, ModelError>>()
        };
        Ok(Self {
            conv1: conv("conv1", first, &bn1)?,
            conv2: conv("conv2", second, &bn2)?,
            conv3: conv("conv3", third, &bn3)?,
            bn1,
            bn2,
            bn3,
            layer1: stage(0)?,
            layer2: stage(1)?,
            layer3: stage(2)?,
            layer4: stage(3)?,
            attnpool: Projections::build(&params.at("attnpool"), sizes.stage_output(3), dim)?,
        })
    }

    /// Computes the last map of images `[batch, 3, height, width]`, always with stored statistics: `[batch, channels,
    /// height/32, width/32]`
    pub fn forward(&self, images: Tensor<4>, trace: &mut Trace) -> Tensor<4> {
        let statistics = &mut Statistics::Stored;
        let x = relu(self.conv1.normalized(&self.bn1, images, statistics));
        let x = relu(self.conv2.normalized(&self.bn2, x, statistics));
        let mut x = average(relu(self.conv3.normalized(&self.bn3, x, statistics)));
        trace.record("stem_pool", &x);
        let stages = [&self.layer1, &self.layer2, &self.layer3, &self.layer4];
        for (number, stage) in stages.into_iter().enumerate() {
            for block in stage {
                x = block.forward(x, statistics);
            }
            trace.record(format_args!("layer{}", number + 1), &x);
        }
        x
    }
}
