//! What the tests share: values without a pattern, comparison at the scale of the values.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use burn::tensor::{Device, Tensor, TensorData};
use zeg_kernels::{Level, at_level};

/// Values between −2 and 2 that repeat after 2³² steps (a linear congruential generator, its high bits).
pub(crate) fn values(length: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.0
        })
        .collect()
}

/// A tensor of [`values`].
pub(crate) fn tensor<const D: usize>(shape: [usize; D], seed: u32, device: &Device) -> Tensor<D> {
    let values = values(shape.iter().product(), seed);
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The tensor's values, row-major.
pub(crate) fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().unwrap()
}

/// Checks that no value is further from the expected one than `tolerance` times the greatest expected magnitude, which
/// counts as 0.1 at least (inputs are of order 1).
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

/// A result and its gradients for the sum of its products with fixed weights.
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
