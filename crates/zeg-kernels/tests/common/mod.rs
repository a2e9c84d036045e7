//! Shared helpers of the tests: pseudo-random values, and comparison relative to the scale of the values.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use zeg_kernels::{Activation, Level, Norm, PackedBlock, PackedLinear, Workspace, at_level};

/// Returns values between −2 and 2 that repeat after 2³² steps (the high bits of a linear congruential generator).
pub(crate) fn values(length: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}

/// Returns a tensor of [`values`].
pub(crate) fn tensor<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    let values = values(shape.iter().product(), seed);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Returns the tensor's values, row-major.
pub(crate) fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().unwrap()
}

/// Checks that no value differs from the expected one by more than `tolerance` times the largest expected magnitude,
/// which counts as at least 0.1 (inputs are of order 1).
pub(crate) fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    let scale = expected.iter().fold(0.1_f32, |scale, v| scale.max(v.abs()));
    for (at, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!(
            (a - b).abs() <= tolerance * scale,
            "{what}: {a} is not {b} at {at} (scale {scale})"
        );
    }
}

/// Runs a check at every level of this machine.
pub(crate) fn at_every_level(check: impl Fn(Level)) {
    for level in Level::available() {
        at_level(level, || check(level));
    }
}

/// Computes a result and its gradients for the sum of its products with fixed weights.
pub(crate) fn with_gradients<const D: usize, const O: usize, const N: usize>(
    inputs: [Tensor<D>; N],
    op: impl Fn([Tensor<D>; N]) -> Tensor<O>,
) -> (Vec<f32>, [Vec<f32>; N]) {
    let inputs = inputs.map(|x| x.detach().require_grad());
    let out = op(inputs.clone());
    let weights = tensor(out.dims(), 99, &out.device());
    let gradients = (out.clone() * weights).sum().backward();
    (host(out), inputs.map(|x| host(x.grad(&gradients).unwrap())))
}

/// Computes a layer of 8-bit integers in plain loops, in the order that its documentation gives. Every sum of integers
/// is exact, so a kernel's results have the same bits.
///
/// - `x`: `[rows, inputs]`
/// - `weight`: `[outputs, inputs]`
///
/// Returns `[rows, outputs]`.
pub(crate) fn rounded_sums(x: &[f32], weight: &[f32], bias: &[f32], inputs: usize) -> Vec<f32> {
    let weights = weight.chunks(inputs).map(|row| {
        let most = row.iter().fold(0.0_f32, |most, w| most.max(w.abs()));
        let scale = most / 127.0;
        let integers = row.iter().map(|w| (w / scale).round() as i32);
        (scale, integers.collect::<Vec<_>>())
    });
    let weights: Vec<_> = weights.collect();
    let mut sums = Vec::with_capacity(x.len() / inputs * bias.len());
    for x in x.chunks(inputs) {
        let groups: Vec<_> = x.chunks(96).map(rounded).collect();
        for ((scale, weights), bias) in weights.iter().zip(bias) {
            let mut sum = 0.0;
            for ((group_scale, x), weights) in groups.iter().zip(weights.chunks(96)) {
                let products: i32 = x.iter().zip(weights).map(|(x, w)| x * w).sum();
                sum += products as f32 * group_scale;
            }
            sums.push(sum * scale + bias);
        }
    }
    sums
}

/// Returns the scale of a group of activations, and its integers minus the zero point, as documented.
fn rounded(group: &[f32]) -> (f32, Vec<i32>) {
    let low = group.iter().fold(0.0_f32, |low, &x| low.min(x));
    let high = group.iter().fold(0.0_f32, |high, &x| high.max(x));
    let factor = 255.0 / (high - low);
    let zero = (-low * factor).round_ties_even();
    let integer = |x: f32| ((x * factor).round_ties_even() + zero).clamp(0.0, 255.0) - zero;
    let integers = group.iter().map(|&x| integer(x) as i32).collect();
    ((high - low) / 255.0, integers)
}

/// The parameters of a residual block.
pub(crate) struct BlockNumbers {
    pub(crate) heads: usize,
    /// Weights `[outputs, inputs]` and biases of the four linear layers: projection to queries, keys and values; output
    /// projection of the attention; first and second layer of the MLP.
    pub(crate) linear: [(Vec<f32>, Vec<f32>); 4],
    /// Norms before the attention and before the MLP.
    pub(crate) norms: [Norm; 2],
    pub(crate) activation: Activation,
}

impl BlockNumbers {
    /// Returns parameters with which a query attends to few keys, and no layer makes its inputs much larger or smaller.
    pub(crate) fn new(width: usize, hidden: usize, heads: usize, activation: Activation) -> Self {
        let linear = |outputs: usize, inputs: usize, gain: f32, seed| {
            let scale = gain * (inputs as f32).sqrt().recip();
            let weight = values(outputs * inputs, seed)
                .into_iter()
                .map(|w| w * scale);
            (weight.collect(), values(outputs, seed + 1))
        };
        let norm = |seed| Norm {
            weight: values(width, seed),
            bias: values(width, seed + 1),
            epsilon: 1e-5,
        };
        Self {
            heads,
            linear: [
                linear(3 * width, width, 1.0, 1),
                linear(width, width, 1.0, 3),
                linear(hidden, width, 1.0, 5),
                linear(width, hidden, 1.0, 7),
            ],
            norms: [norm(9), norm(11)],
            activation,
        }
    }

    /// Returns the block with layers that `pack` makes from weights and biases.
    pub(crate) fn packed(&self, pack: impl Fn(&[f32], &[f32]) -> PackedLinear) -> Arc<PackedBlock> {
        let [qkv, out, up, down] = self
            .linear
            .each_ref()
            .map(|(weight, bias)| Arc::new(pack(weight, bias)));
        let [attention_norm, network_norm] = self.norms.clone();
        Arc::new(PackedBlock {
            attention_norm,
            qkv,
            heads: self.heads,
            out,
            network_norm,
            up,
            activation: self.activation,
            down,
            workspace: Workspace::default(),
        })
    }
}
