//! Spatial aggregation: two blocks of attention in windows, for every class by itself, guided by the image.
//!
//! Queries and keys see the class's token and the guidance side by side. Their weights are linear, so the share of the
//! guidance, which all classes have in common, is computed once.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData, module},
};
use zeg_kernels::{PackedLinear, Precision, attention_packed, gelu};

use crate::{
    ModelError,
    layers::{LAYER_NORM_EPSILON, LayerNorm, Linear, Start},
    packing::host,
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Added to the logits of tokens that are no neighbours in the image.
const APART: f32 = -100.0;

/// A linear layer on a token and guidance side by side; the columns of the guidance come last.
#[derive(Module, Debug)]
pub struct GuidedLinear {
    /// `[out, width + guidance]`
    pub weight: Param<Tensor<2>>,
    /// `[out]`
    pub bias: Param<Tensor<1>>,
}

impl GuidedLinear {
    /// Reads or initialises the layer, as PyTorch's `nn.Linear` starts.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, width: usize, guidance: usize) -> Result<Self, ModelError> {
        let start = Init::Uniform(1.0 / ((width + guidance) as f64).sqrt());
        Ok(Self {
            weight: params.param("weight", [width, width + guidance], start)?,
            bias: params.param("bias", [width], start)?,
        })
    }

    /// Returns the weights of the token: `[out, width]`
    pub fn own(&self) -> Tensor<2> {
        let weight = self.weight.val();
        let [width, _] = weight.dims();
        weight.narrow(1, 0, width)
    }

    /// Returns the share of the guidance, and the bias: `[1, rows, guidance]` → `[1, rows, out]`; `[1, 1, out]` without
    /// guidance.
    pub fn shared(&self, guidance: Option<&Tensor<3>>) -> Tensor<3> {
        let weight = self.weight.val();
        let [width, all] = weight.dims();
        match guidance {
            Some(guidance) => module::linear(
                guidance.clone(),
                weight.narrow(1, width, all - width).transpose(),
                Some(self.bias.val()),
            ),
            None => self.bias.val().reshape([1, 1, width]),
        }
    }
}

/// The layout of windows on a grid of tokens.
#[derive(Debug, Clone)]
pub struct Windows {
    /// Position in the grid of each token, window after window: `[tokens]`
    order: Tensor<1, Int>,
    /// Inverse of `order`.
    back: Tensor<1, Int>,
    /// Number of windows.
    count: usize,
    /// Additive masks, `[length, length]` for each window; empty without a shift.
    masks: Vec<Tensor<2>>,
}

impl Windows {
    /// Returns the side of the windows on a grid: the given one, or the grid's shorter side if that is not larger.
    pub fn side([h, w]: [usize; 2], window: usize) -> usize {
        window.min(h).min(w)
    }

    /// Lays out windows without a shift.
    pub fn aligned(grid: [usize; 2], window: usize, device: &Device) -> Self {
        Self::new(grid, Self::side(grid, window), 0, device)
    }

    /// Lays out windows that are shifted by half their side, cyclically; a grid of one window has no shift.
    pub fn shifted(grid: [usize; 2], window: usize, device: &Device) -> Self {
        let side = Self::side(grid, window);
        let shift = if grid[0].min(grid[1]) <= window {
            0
        } else {
            side / 2
        };
        Self::new(grid, side, shift, device)
    }

    fn new([h, w]: [usize; 2], side: usize, shift: usize, device: &Device) -> Self {
        let (rows, columns) = (h / side.max(1), w / side.max(1));
        let mut order: Vec<usize> = Vec::with_capacity(h * w);
        // Tokens at both ends of the image are in one window after the shift, but are no neighbours.
        let band = |place: usize, length: usize| {
            usize::from(place + side >= length) + usize::from(place + shift >= length)
        };
        let mut regions: Vec<usize> = Vec::with_capacity(h * w);
        for (row, column) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
            for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
                let (y, x) = (row * side + y, column * side + x);
                order.push((y + shift) % h * w + (x + shift) % w);
                regions.push(3 * band(y, h) + band(x, w));
            }
        }
        let mut back = vec![0; order.len()];
        for (position, &token) in order.iter().enumerate() {
            back[token] = position;
        }
        let length = side * side;
        let mask = |regions: &[usize]| {
            let rows = regions.iter();
            let values = rows.flat_map(|a| {
                regions
                    .iter()
                    .map(move |b| if a == b { 0.0 } else { APART })
            });
            let values: Vec<f32> = values.collect();
            Tensor::from_data(TensorData::new(values, [length, length]), device)
        };
        let masks = if shift == 0 {
            Vec::new()
        } else {
            regions.chunks_exact(length.max(1)).map(mask).collect()
        };
        let indices = |values: Vec<usize>| {
            let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
            let count = values.len();
            Tensor::from_data(TensorData::new(values, [count]), device)
        };
        Self {
            order: indices(order),
            back: indices(back),
            count: rows * columns,
            masks,
        }
    }

    /// Returns the position in the grid of each token, window after window.
    pub fn order(&self) -> &Tensor<1, Int> {
        &self.order
    }

    /// Returns the number of windows.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the additive masks of shifted windows, `[length, length]` each; empty without a shift.
    pub fn masks(&self) -> &[Tensor<2>] {
        &self.masks
    }

    /// Computes attention in every window: `[classes, tokens, 3·width]`, row-major over the grid → `[classes, tokens,
    /// width]`.
    fn attend(&self, qkv: Tensor<3>, heads: usize) -> Tensor<3> {
        let [classes, tokens, packed] = qkv.dims();
        let length = tokens / self.count.max(1);
        let qkv = qkv.select(1, self.order.clone());
        let attended = if self.masks.is_empty() {
            let qkv = qkv.reshape([classes * self.count, length, packed]);
            attention_packed(qkv, heads, None).reshape([classes, tokens, packed / 3])
        } else {
            let window = |(index, mask): (usize, &Tensor<2>)| {
                let qkv = qkv.clone().narrow(1, index * length, length);
                attention_packed(qkv, heads, Some(mask.clone()))
            };
            Tensor::cat(self.masks.iter().enumerate().map(window).collect(), 1)
        };
        attended.select(1, self.back.clone())
    }
}

/// Attention in windows, under the reference's names.
#[derive(Module, Debug)]
pub struct WindowAttention {
    /// Queries.
    pub q: GuidedLinear,
    /// Keys.
    pub k: GuidedLinear,
    /// Values, which see the token alone.
    pub v: Linear,
    /// Output projection.
    pub proj: Linear,
    #[module(skip)]
    heads: usize,
    /// The shares of the token in queries, keys and values, packed: `width → 3·width`
    #[module(skip)]
    packed: Option<Arc<PackedLinear>>,
}

impl WindowAttention {
    fn build(
        params: &ParamBuilder,
        width: usize,
        guidance: usize,
        heads: usize,
    ) -> Result<Self, ModelError> {
        let q = GuidedLinear::build(&params.at("q"), width, guidance)?;
        let k = GuidedLinear::build(&params.at("k"), width, guidance)?;
        let start = Init::Uniform(1.0 / (width as f64).sqrt());
        // The values stay unpacked: their weights are packed together with those of queries and keys.
        let v = params.at("v");
        let v = Linear {
            weight: v.param("weight", [width, width], start)?,
            bias: v.param("bias", [width], start)?,
            packed: None,
        };
        let packed = params.packing().map(|_| {
            let weight = joint(&q, &k, &v);
            let [outputs, _] = weight.dims();
            let bias = vec![0.0; outputs];
            Arc::new(PackedLinear::new(&host(weight), &bias, Precision::Float))
        });
        Ok(Self {
            q,
            k,
            v,
            proj: Linear::build(&params.at("proj"), width, width)?,
            heads,
            packed,
        })
    }

    /// Returns what all classes have in common in queries, keys and values: `[1, tokens, 3·width]`
    ///
    /// - `guidance`: `[1, tokens, guidance]`
    fn shared(&self, guidance: Option<&Tensor<3>>) -> Tensor<3> {
        let (q, k) = (self.q.shared(guidance), self.k.shared(guidance));
        let [_, tokens, width] = q.dims();
        let v = self.v.bias.val().reshape([1, 1, width]);
        Tensor::cat(vec![q, k, v.expand([1, tokens, width])], 2)
    }

    fn forward(&self, x: Tensor<3>, shared: &Tensor<3>, windows: &Windows) -> Tensor<3> {
        let own = match &self.packed {
            Some(packed) => packed.forward(x),
            None => module::linear(x, joint(&self.q, &self.k, &self.v).transpose(), None),
        };
        let attended = windows.attend(own + shared.clone(), self.heads);
        self.proj.forward(attended)
    }
}

/// Returns the weights of the token for queries, keys and values, one below the other: `[3·width, width]`
fn joint(q: &GuidedLinear, k: &GuidedLinear, v: &Linear) -> Tensor<2> {
    Tensor::cat(vec![q.own(), k.own(), v.weight.val()], 0)
}

/// The two linear layers of a window block, under the reference's names.
#[derive(Module, Debug)]
pub struct WindowMlp {
    /// `[4·width, width]`
    pub fc1: Linear,
    /// `[width, 4·width]`
    pub fc2: Linear,
}

/// A residual block of attention in windows.
#[derive(Module, Debug)]
pub struct WindowBlock {
    /// Norm before the attention.
    pub norm1: LayerNorm,
    /// Attention.
    pub attn: WindowAttention,
    /// Norm before the MLP.
    pub norm2: LayerNorm,
    /// MLP.
    pub mlp: WindowMlp,
}

/// Reads or initialises a LayerNorm.
pub(super) fn norm(params: &ParamBuilder, width: usize) -> Result<LayerNorm, ModelError> {
    LayerNorm::build(params, width, LAYER_NORM_EPSILON, Start::Fresh)
}

impl WindowBlock {
    fn build(
        params: &ParamBuilder,
        width: usize,
        guidance: usize,
        heads: usize,
    ) -> Result<Self, ModelError> {
        let mlp = params.at("mlp");
        Ok(Self {
            norm1: norm(&params.at("norm1"), width)?,
            attn: WindowAttention::build(&params.at("attn"), width, guidance, heads)?,
            norm2: norm(&params.at("norm2"), width)?,
            mlp: WindowMlp {
                fc1: Linear::build(&mlp.at("fc1"), width, 4 * width)?,
                fc2: Linear::build(&mlp.at("fc2"), 4 * width, width)?,
            },
        })
    }

    fn forward(&self, x: Tensor<3>, shared: &Tensor<3>, windows: &Windows) -> Tensor<3> {
        let attended = self
            .attn
            .forward(self.norm1.forward(x.clone()), shared, windows);
        let x = x + attended;
        let hidden = gelu(self.mlp.fc1.forward(self.norm2.forward(x.clone()))); // [classes, tokens, 4·width]
        x + self.mlp.fc2.forward(hidden)
    }
}

/// The spatial half of a layer: a block of aligned windows and one of shifted windows, which share the guidance.
#[derive(Module, Debug)]
pub struct SwinPair {
    /// Block of aligned windows.
    pub block_1: WindowBlock,
    /// Block of shifted windows.
    pub block_2: WindowBlock,
    /// Norm of the guidance, if there is guidance.
    pub guidance_norm: Option<LayerNorm>,
}

/// What all classes have in common in the spatial half of a layer.
#[derive(Debug, Clone)]
pub struct SharedGuidance([Tensor<3>; 2]);

impl SwinPair {
    /// Reads or initialises both blocks.
    ///
    /// - `guidance`: channels of the guidance; 0 for none
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        width: usize,
        guidance: usize,
        heads: usize,
    ) -> Result<Self, ModelError> {
        let block = |name| WindowBlock::build(&params.at(name), width, guidance, heads);
        let guidance_norm = (guidance > 0).then(|| norm(&params.at("guidance_norm"), guidance));
        Ok(Self {
            block_1: block("block_1")?,
            block_2: block("block_2")?,
            guidance_norm: guidance_norm.transpose()?,
        })
    }

    /// Computes what all classes have in common.
    ///
    /// - `appearance`: guidance from the image, `[1, tokens, guidance]`
    /// - `classes`: number of classes, for the trace
    pub fn shared(
        &self,
        appearance: Option<&Tensor<3>>,
        classes: usize,
        trace: &mut Trace,
        name: &str,
    ) -> SharedGuidance {
        let guidance = self.guidance_norm.as_ref().zip(appearance);
        let guidance = guidance.map(|(norm, appearance)| norm.forward(appearance.clone()));
        if let (true, Some(guidance)) = (trace.is_on(), &guidance) {
            let [_, tokens, width] = guidance.dims();
            let of_all = guidance.clone().expand([classes, tokens, width]);
            trace.record(format_args!("{name}.guidance_norm"), &of_all);
        }
        SharedGuidance([
            self.block_1.attn.shared(guidance.as_ref()),
            self.block_2.attn.shared(guidance.as_ref()),
        ])
    }

    /// Applies both blocks: `[classes, tokens, width]` → the same shape
    pub fn forward(
        &self,
        x: Tensor<3>,
        SharedGuidance(shared): &SharedGuidance,
        [aligned, shifted]: &[Windows; 2],
        trace: &mut Trace,
        name: &str,
    ) -> Tensor<3> {
        let x = self.block_1.forward(x, &shared[0], aligned);
        trace.record(format_args!("{name}.swin1"), &x);
        let x = self.block_2.forward(x, &shared[1], shifted);
        trace.record(format_args!("{name}.swin2"), &x);
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifted_windows_keep_the_ends_of_the_image_apart() {
        let windows = Windows::shifted([4, 4], 2, &Device::flex());
        let read = |x: &Tensor<1, Int>| x.to_data().try_to_vec::<i32>().unwrap_or_default();
        let order = read(&windows.order);
        let order: Vec<i64> = if order.is_empty() {
            windows.order.to_data().try_to_vec::<i64>().unwrap()
        } else {
            order.into_iter().map(i64::from).collect()
        };
        // Row 1 of the image comes first; the last window joins the corners.
        assert_eq!(order[..4], [5, 6, 9, 10]);
        assert_eq!(order[12..], [15, 12, 3, 0]);
        let mask = |index: usize| {
            windows.masks()[index]
                .to_data()
                .try_to_vec::<f32>()
                .unwrap()
        };
        assert!(mask(0).iter().all(|v| *v == 0.0));
        let last = mask(3);
        assert!(
            (0..16).all(|i| (last[i] == 0.0) == (i % 5 == 0)),
            "{last:?}"
        );
        assert!(
            Windows::shifted([4, 4], 4, &Device::flex())
                .masks()
                .is_empty()
        );
    }
}
