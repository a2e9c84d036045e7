//! Element-wise functions and their derivatives.

use rayon::prelude::*;

use crate::{
    level::{Level, dispatched},
    math::{multiply_add, normal, sigmoid},
    pieces::{CpuTensor, change, change_by, piece_of_rows},
};

/// An element-wise function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// σ(x)
    Sigmoid,
    /// x·σ(1.702 x), CLIP's activation
    QuickGelu,
    /// x·Φ(x)
    Gelu,
}

/// Factor inside the sigmoid of CLIP's activation.
const QUICK: f32 = 1.702;

impl Activation {
    /// Applies the function to every value of a tensor.
    pub(crate) fn forward(self, x: CpuTensor, level: Level) -> CpuTensor {
        change(x, 1, |values| self.apply(level, values))
    }

    /// Applies the function to every value, in place.
    pub(crate) fn apply(self, level: Level, values: &mut [f32]) {
        match self {
            Self::Sigmoid => sigmoids(level, values),
            Self::QuickGelu => quick_gelus(level, values),
            Self::Gelu => gelus(level, values),
        }
    }

    /// Applies the function to every value, in place, as a part of a dispatched kernel.
    #[inline(always)]
    pub(crate) fn apply_within<const FMA: bool>(self, values: &mut [f32]) {
        match self {
            Self::Sigmoid => sigmoids_kernel::<FMA>(values),
            Self::QuickGelu => quick_gelus_kernel::<FMA>(values),
            Self::Gelu => gelus_kernel::<FMA>(values),
        }
    }

    /// Applies the function to every value of `x` and writes the results to `out`.
    pub(crate) fn apply_to(self, level: Level, x: &[f32], out: &mut [f32]) {
        let piece = piece_of_rows(1);
        let parts = out.par_chunks_mut(piece).zip(x.par_chunks(piece));
        parts.for_each(|(out, x)| {
            out.copy_from_slice(x);
            self.apply(level, out);
        });
    }

    /// Multiplies each gradient with the derivative at its `x`, on all threads.
    pub(crate) fn gradient_on_buffers(self, level: Level, gradient: &mut [f32], x: &[f32]) {
        let piece = piece_of_rows(1);
        let parts = gradient.par_chunks_mut(piece).zip(x.par_chunks(piece));
        parts.for_each(|(gradient, x)| self.apply_gradient(level, gradient, x));
    }

    /// Returns `gradient`, that of the result, times the derivative at `x`.
    pub(crate) fn backward(self, x: &CpuTensor, gradient: CpuTensor, level: Level) -> CpuTensor {
        change_by(gradient, x, 1, |gradient, x| {
            self.apply_gradient(level, gradient, x);
        })
    }

    /// Multiplies each gradient with the derivative at its `x`.
    fn apply_gradient(self, level: Level, gradient: &mut [f32], x: &[f32]) {
        match self {
            Self::Sigmoid => sigmoid_gradients(level, gradient, x),
            Self::QuickGelu => quick_gelu_gradients(level, gradient, x),
            Self::Gelu => gelu_gradients(level, gradient, x),
        }
    }
}

dispatched! { fn sigmoids(values: &mut [f32]) = sigmoids_kernel; }
dispatched! { fn quick_gelus(values: &mut [f32]) = quick_gelus_kernel; }
dispatched! { fn gelus(values: &mut [f32]) = gelus_kernel; }
dispatched! { fn sigmoid_gradients(gradient: &mut [f32], x: &[f32]) = sigmoid_gradients_kernel; }
dispatched! { fn quick_gelu_gradients(gradient: &mut [f32], x: &[f32]) = quick_gelu_gradients_kernel; }
dispatched! { fn gelu_gradients(gradient: &mut [f32], x: &[f32]) = gelu_gradients_kernel; }

#[inline(always)]
fn sigmoids_kernel<const FMA: bool>(values: &mut [f32]) {
    for x in values {
        *x = sigmoid::<FMA>(*x);
    }
}

#[inline(always)]
fn quick_gelus_kernel<const FMA: bool>(values: &mut [f32]) {
    for x in values {
        *x *= sigmoid::<FMA>(QUICK * *x);
    }
}

#[inline(always)]
fn gelus_kernel<const FMA: bool>(values: &mut [f32]) {
    for x in values {
        *x *= normal::<FMA>(*x).0;
    }
}

#[inline(always)]
fn sigmoid_gradients_kernel<const FMA: bool>(gradient: &mut [f32], x: &[f32]) {
    for (gradient, &x) in gradient.iter_mut().zip(x) {
        let s = sigmoid::<FMA>(x);
        *gradient *= s * (1.0 - s);
    }
}

#[inline(always)]
fn quick_gelu_gradients_kernel<const FMA: bool>(gradient: &mut [f32], x: &[f32]) {
    for (gradient, &x) in gradient.iter_mut().zip(x) {
        let s = sigmoid::<FMA>(QUICK * x);
        *gradient *= s * multiply_add::<FMA>(QUICK * x, 1.0 - s, 1.0);
    }
}

#[inline(always)]
fn gelu_gradients_kernel<const FMA: bool>(gradient: &mut [f32], x: &[f32]) {
    for (gradient, &x) in gradient.iter_mut().zip(x) {
        let (distribution, density) = normal::<FMA>(x);
        *gradient *= multiply_add::<FMA>(x, density, distribution);
    }
}
