//! The student's decoders: from the backbone's maps to features in the joint image-text space.
//!
//! The features end in a ReLU and are neither normalised nor scaled; the batch normalisations learn their size.

use burn::{module::Module, tensor::Tensor};

use super::{
    batch_norm::Statistics,
    config::{MaskClipPlusConfig, StudentHead},
    convolution::{ConvolutionModule, Kernel, SeparableConvolution},
};
use crate::{ModelError, resize::bilinear, trace::Trace, weights::ParamBuilder};

/// Dilations of DeepLabV2's branches.
const PARALLEL: [usize; 4] = [6, 12, 18, 24];
/// Dilations of DeepLabV3+'s separable branches.
const SEPARABLE: [usize; 3] = [12, 24, 36];

/// The decoder.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // handles of tensors
pub enum DecodeModule {
    /// DeepLabV2.
    V2(DeepLabV2),
    /// DeepLabV3+.
    V3Plus(DeepLabV3Plus),
}

/// Dilated convolutions whose results are added.
#[derive(Module, Debug)]
pub struct DeepLabV2 {
    /// 3×3 at dilations 6, 12, 18 and 24
    pub aspp_modules: Vec<ConvolutionModule>,
}

/// A branch of DeepLabV3+.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // handles of tensors
pub enum Branch {
    /// 1×1
    Plain(ConvolutionModule),
    /// 3×3, dilated
    Separable(SeparableConvolution),
}

/// Branches side by side, refined with a map of the backbone's first stage.
#[derive(Module, Debug)]
pub struct DeepLabV3Plus {
    /// At 1: 1×1 on the mean of the map
    pub image_pool: Vec<Option<ConvolutionModule>>,
    /// 1×1, and 3×3 at dilations 12, 24 and 36
    pub aspp_modules: Vec<Branch>,
    /// 3×3 from all branches
    pub bottleneck: ConvolutionModule,
    /// 1×1 from the backbone's first stage
    pub c1_bottleneck: ConvolutionModule,
    /// Two separable convolutions on both
    pub sep_bottleneck: Vec<SeparableConvolution>,
}

impl DecodeModule {
    /// Reads or initialises the decoder.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, config: &MaskClipPlusConfig) -> Result<Self, ModelError> {
        let (input, dim) = (config.student.stage_output(3), config.embed_dim());
        let branches = params.at("aspp_modules");
        if config.head == StudentHead::DeeplabV2 {
            let branch = |(index, dilation): (usize, usize)| {
                let kernel = Kernel {
                    dilation,
                    ..Kernel::new(input, dim, 3)
                };
                ConvolutionModule::build(&branches.at(index), kernel)
            };
            let aspp_modules = PARALLEL.into_iter().enumerate().map(branch);
            return Ok(Self::V2(DeepLabV2 {
                aspp_modules: aspp_modules.collect::<Result<_, _>>()?,
            }));
        }
        let module = |name, kernel| ConvolutionModule::build(&params.at(name), kernel);
        let plain = Kernel::new(input, dim, 1);
        let mut aspp_modules = vec![Branch::Plain(ConvolutionModule::build(
            &branches.at(0),
            plain,
        )?)];
        for (index, dilation) in SEPARABLE.into_iter().enumerate() {
            let params = branches.at(index + 1);
            let branch = SeparableConvolution::build(&params, input, dim, dilation)?;
            aspp_modules.push(Branch::Separable(branch));
        }
        let (low, low_level) = (config.student.stage_output(0), config.low_level);
        let separable = params.at("sep_bottleneck");
        Ok(Self::V3Plus(DeepLabV3Plus {
            image_pool: vec![
                None, // the mean
                Some(ConvolutionModule::build(
                    &params.at("image_pool").at(1),
                    plain,
                )?),
            ],
            aspp_modules,
            bottleneck: module("bottleneck", Kernel::new(5 * dim, dim, 3))?,
            c1_bottleneck: module("c1_bottleneck", Kernel::new(low, low_level, 1))?,
            sep_bottleneck: vec![
                SeparableConvolution::build(&separable.at(0), dim + low_level, dim, 1)?,
                SeparableConvolution::build(&separable.at(1), dim, dim, 1)?,
            ],
        }))
    }

    /// Computes features from the backbone's first and last map: `[batch, dim, h, w]`, at the size of the last map
    /// (DeepLabV2) or of the first (DeepLabV3+).
    pub fn forward(
        &self,
        [low, high]: [Tensor<4>; 2],
        statistics: &mut Statistics,
        trace: &mut Trace,
    ) -> Tensor<4> {
        match self {
            Self::V2(head) => head.forward(&high, statistics, trace),
            Self::V3Plus(head) => head.forward(low, high, statistics, trace),
        }
    }
}

impl DeepLabV2 {
    fn forward(&self, x: &Tensor<4>, statistics: &mut Statistics, trace: &mut Trace) -> Tensor<4> {
        let mut sum: Option<Tensor<4>> = None;
        for (index, branch) in self.aspp_modules.iter().enumerate() {
            let y = branch.forward(x.clone(), statistics);
            trace.record(format_args!("aspp{index}"), &y);
            sum = Some(match sum {
                Some(sum) => sum + y,
                None => y,
            });
        }
        sum.unwrap_or_else(|| x.clone())
    }
}

impl DeepLabV3Plus {
    fn forward(
        &self,
        low: Tensor<4>,
        x: Tensor<4>,
        statistics: &mut Statistics,
        trace: &mut Trace,
    ) -> Tensor<4> {
        let [batch, channels, h, w] = x.dims();
        let mut branches = Vec::with_capacity(1 + self.aspp_modules.len());
        if let Some(Some(pool)) = self.image_pool.get(1) {
            let cells = x.clone().reshape([batch, channels, h * w]);
            let mean = cells.mean_dim(2).reshape([batch, channels, 1, 1]);
            let pooled = pool.forward(mean, statistics); // [batch, dim, 1, 1]
            trace.record("image_pool", &pooled);
            let [_, dim, _, _] = pooled.dims();
            branches.push(pooled.expand([batch, dim, h, w]));
        }
        for (index, branch) in self.aspp_modules.iter().enumerate() {
            let y = match branch {
                Branch::Plain(branch) => branch.forward(x.clone(), statistics),
                Branch::Separable(branch) => branch.forward(x.clone(), statistics),
            };
            trace.record(format_args!("aspp{index}"), &y);
            branches.push(y);
        }
        let x = self
            .bottleneck
            .forward(Tensor::cat(branches, 1), statistics);
        trace.record("bottleneck", &x);
        let low = self.c1_bottleneck.forward(low, statistics); // [batch, low level, height/4, width/4]
        trace.record("c1_bottleneck", &low);
        let [_, _, height, width] = low.dims();
        let mut x = Tensor::cat(vec![bilinear(x, [height, width]), low], 1);
        for layer in &self.sep_bottleneck {
            x = layer.forward(x, statistics);
        }
        trace.record("sep_bottleneck", &x);
        x
    }
}
