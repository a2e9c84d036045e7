//! The pixel decoder: combines four feature maps into one map of mask features, from coarse to fine.
//!
//! It is a feature pyramid without attention: each finer map is added to the upsampled coarser one, and the sum is
//! smoothed.

use burn::{
    module::Module,
    tensor::{Tensor, activation::relu},
};

use super::{
    config::MaskTransformerConfig,
    convolution::{Convolution, GroupedConvolution, Kernel},
};
use crate::{ModelError, resize::nearest, trace::Trace, weights::ParamBuilder};

/// The pixel decoder; numbered as in the reference, where 1 is the finest map.
#[derive(Module, Debug)]
pub struct PixelDecoder {
    /// 1×1 convolution of the map at stride 4, without an activation after it.
    pub adapter_1: GroupedConvolution,
    /// 1×1 convolution of the map at stride 8.
    pub adapter_2: GroupedConvolution,
    /// 1×1 convolution of the map at stride 16.
    pub adapter_3: GroupedConvolution,
    /// 3×3 convolution of the sum at stride 4.
    pub layer_1: GroupedConvolution,
    /// 3×3 convolution of the sum at stride 8.
    pub layer_2: GroupedConvolution,
    /// 3×3 convolution of the sum at stride 16.
    pub layer_3: GroupedConvolution,
    /// 3×3 convolution of the map at stride 32.
    pub layer_4: GroupedConvolution,
    /// Last 3×3 convolution, at stride 4.
    pub mask_features: Convolution,
}

impl PixelDecoder {
    /// Reads or initialises the pixel decoder.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        config: &MaskTransformerConfig,
    ) -> Result<Self, ModelError> {
        let (width, groups) = (config.pixel_width, config.norm_groups);
        let stage = |stage| config.backbone.stage_output(stage);
        let conv = |name: &str, input, side| {
            GroupedConvolution::build(&params.at(name), Kernel::new(input, width, side), groups)
        };
        Ok(Self {
            adapter_1: conv("adapter_1", stage(0), 1)?,
            adapter_2: conv("adapter_2", stage(1), 1)?,
            adapter_3: conv("adapter_3", stage(2), 1)?,
            layer_1: conv("layer_1", width, 3)?,
            layer_2: conv("layer_2", width, 3)?,
            layer_3: conv("layer_3", width, 3)?,
            layer_4: conv("layer_4", stage(3), 3)?,
            mask_features: Convolution::build(
                &params.at("mask_features"),
                Kernel::new(width, config.mask_width, 3),
            )?,
        })
    }

    /// Computes mask features `[batch, mask, h/4, w/4]` from feature maps at strides 4 to 32.
    pub fn forward(
        &self,
        [res2, res3, res4, res5]: [Tensor<4>; 4],
        trace: &mut Trace,
    ) -> Tensor<4> {
        let mut y = relu(self.layer_4.forward(res5)); // [batch, pixel, h/32, w/32]
        trace.record("pixel_decoder.layer_4", &y);
        for (number, map, adapter, layer) in [
            (3, res4, &self.adapter_3, &self.layer_3),
            (2, res3, &self.adapter_2, &self.layer_2),
            (1, res2, &self.adapter_1, &self.layer_1),
        ] {
            let [_, _, height, width] = map.dims();
            let adapted = adapter.forward(map);
            trace.record(format_args!("pixel_decoder.adapter_{number}"), &adapted);
            y = relu(layer.forward(adapted + nearest(y, [height, width])));
            trace.record(format_args!("pixel_decoder.layer_{number}"), &y);
        }
        let features = self.mask_features.forward(y);
        trace.record("pixel_decoder.mask_features", &features);
        features
    }
}
