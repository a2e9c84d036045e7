//! Encodes windows with the changed last block, and keeps its keys where scores are smoothed.

use std::cell::RefCell;

use burn::tensor::Tensor;

use super::{
    TrainingFree,
    calibrated::{Before, Steps, middle_blocks},
};
use crate::{
    ModelError,
    layers::l2_normalize,
    method::WindowBatch,
    trace::Trace,
    transformer::ResidualBlock,
    vision::{Encoded, EncoderHooks, TokenPlan},
};

/// The encoding of a window.
#[derive(Debug, Clone)]
pub struct DenseEncoding {
    /// The tower's output.
    pub encoded: Encoded,
    /// Keys of the last block if scores are smoothed: `[1, h·w, width]`
    pub(super) keys: Option<Tensor<3>>,
}

impl DenseEncoding {
    /// Returns the memory that the tensors take, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let keys = (self.keys.as_ref()).map_or(0, |keys| keys.shape().num_elements());
        self.encoded.bytes() + (keys * size_of::<f32>()) as u64
    }
}

/// The hook that replaces the last block.
struct LastBlockHook<'a> {
    model: &'a TrainingFree,
    last: usize,
    /// Keys of the last block once it is computed, `[batch, h·w, width]`.
    keys: RefCell<Option<Tensor<3>>>,
}

impl EncoderHooks for LastBlockHook<'_> {
    fn replace(
        &self,
        layer: usize,
        block: &ResidualBlock,
        tokens: &Tensor<3>,
        plan: TokenPlan,
    ) -> Option<Tensor<3>> {
        if layer != self.last {
            return None;
        }
        self.keys.replace(self.model.keys(block, tokens));
        Some(self.model.last_block(block, tokens.clone(), plan.grid))
    }
}

/// The hooks that keep what the steps of the last block need, and leave that block out.
struct KeepHooks {
    middle: std::ops::Range<usize>,
    last: usize,
}

impl EncoderHooks for KeepHooks {
    fn keeps(&self, layer: usize) -> bool {
        layer + 1 == self.last || self.middle.contains(&layer)
    }

    fn replace(
        &self,
        layer: usize,
        _block: &ResidualBlock,
        tokens: &Tensor<3>,
        _plan: TokenPlan,
    ) -> Option<Tensor<3>> {
        (layer == self.last).then(|| tokens.clone())
    }
}

impl TrainingFree {
    /// Encodes windows, each on its own.
    pub(super) fn encode_windows(
        &self,
        windows: &WindowBatch,
    ) -> Result<Vec<DenseEncoding>, ModelError> {
        let images = windows.images.clone();
        let [count, _, _, _] = images.dims();
        let (encoded, keys) = match self.config.attention.steps() {
            Some(steps) => self.encode_in_steps(images, steps)?,
            None => self.encode_with_attention(images),
        };
        let encoding = |index: usize| DenseEncoding {
            encoded: encoded.image(index),
            keys: keys.clone().map(|keys| keys.narrow(0, index, 1)),
        };
        Ok((0..count).map(encoding).collect())
    }

    /// Returns the keys of the patches in the last block if scores are smoothed, each after the output projection, as
    /// released: `[batch, h·w, width]`
    ///
    /// - `tokens`: input of the block, `[batch, 1 + h·w, width]`
    fn keys(&self, block: &ResidualBlock, tokens: &Tensor<3>) -> Option<Tensor<3>> {
        if self.config.key_smoothing == 0.0 {
            return None;
        }
        let [_, length, _] = tokens.dims();
        let [_, keys, _] = block.attn.project(block.ln_1.forward(tokens.clone()));
        Some(block.attn.merge(keys).narrow(1, 1, length - 1))
    }

    /// Encodes images `[batch, 3, height, width]` with another attention in the last block; also returns the keys.
    fn encode_with_attention(&self, images: Tensor<4>) -> (Encoded, Option<Tensor<3>>) {
        let hooks = LastBlockHook {
            model: self,
            last: self.backbone.transformer.resblocks.len().saturating_sub(1),
            keys: RefCell::new(None),
        };
        let features = self
            .backbone
            .forward_with(images, &hooks, &mut Trace::off());
        (features.encoded, hooks.keys.into_inner())
    }

    /// Encodes images `[batch, 3, height, width]` with the steps of the later methods; also returns the keys. The image
    /// embedding is CLIP's own: the class token after the unchanged last block.
    fn encode_in_steps(
        &self,
        images: Tensor<4>,
        steps: &Steps,
    ) -> Result<(Encoded, Option<Tensor<3>>), ModelError> {
        let blocks = &self.backbone.transformer.resblocks;
        let last = blocks.len().saturating_sub(1);
        let hooks = KeepHooks {
            middle: if steps.needs_middle() {
                middle_blocks(blocks.len())
            } else {
                0..0
            },
            last,
        };
        let features = self
            .backbone
            .forward_with(images, &hooks, &mut Trace::off());
        let grid = features.encoded.grid;
        let kept = |layer: usize| features.middle.iter().find(|kept| kept.layer == layer);
        let (Some(block), Some(penultimate)) = (blocks.last(), kept(last.saturating_sub(1))) else {
            return Err(ModelError::Config("the image tower has no blocks".into()));
        };
        let middle: Vec<Tensor<3>> = hooks
            .middle
            .clone()
            .filter_map(kept)
            .map(|kept| kept.tokens.clone())
            .collect();
        let penultimate = penultimate.tokens.clone(); // [batch, 1 + h·w, width]
        let keys = self.keys(block, &penultimate);
        let class = block.forward_first(penultimate.clone()); // [batch, 1, width]
        let before = Before {
            penultimate,
            middle: &middle,
            grid,
        };
        let tokens = steps.last_block(block, &before)?;
        let [batch, length, _] = tokens.dims();
        let tokens = Tensor::cat(vec![class, tokens.narrow(1, 1, length - 1)], 1);
        let joint = self.backbone.project(self.backbone.ln_post.forward(tokens));
        let unit = l2_normalize(joint); // [batch, 1 + h·w, dim]
        let [_, _, dim] = unit.dims();
        let encoded = Encoded {
            global: unit.clone().narrow(1, 0, 1).reshape([batch, dim]),
            patches: unit.narrow(1, 1, length - 1),
            regions: None,
            grid,
        };
        Ok((encoded, keys))
    }
}
