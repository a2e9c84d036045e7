//! Softmax over rows.

use crate::{
    level::{Level, dispatched},
    math::{LANES, exp, maximum, sum_of_pairs},
    pieces::{CpuTensor, change, change_by, row_length, shape},
};

/// Computes the softmax over the last axis.
pub(crate) fn forward(x: CpuTensor, level: Level) -> CpuTensor {
    let row = row_length(&shape(&x));
    change(x, row, |rows| softmax_rows(level, rows, row))
}

/// Computes the gradient of the input from the result `y` and its gradient.
pub(crate) fn backward(y: &CpuTensor, gradient: CpuTensor, level: Level) -> CpuTensor {
    let row = row_length(&shape(y));
    change_by(gradient, y, row, |gradient, y| {
        softmax_gradients(level, gradient, y, row);
    })
}

dispatched! { fn softmax_rows(rows: &mut [f32], length: usize) = softmax_rows_kernel; }
dispatched! { fn softmax_gradients(gradient: &mut [f32], y: &[f32], length: usize) = softmax_gradients_kernel; }

#[inline(always)]
fn softmax_rows_kernel<const FMA: bool>(rows: &mut [f32], length: usize) {
    for row in rows.chunks_exact_mut(length) {
        let (_, sum) = exponentials::<FMA>(row);
        let inverse = 1.0 / sum;
        for value in row {
            *value *= inverse;
        }
    }
}

#[inline(always)]
fn softmax_gradients_kernel<const FMA: bool>(gradient: &mut [f32], y: &[f32], length: usize) {
    let rows = gradient.chunks_exact_mut(length);
    for (gradient, y) in rows.zip(y.chunks_exact(length)) {
        through_softmax::<FMA>(gradient, y);
    }
}

/// Turns a row into e^(value − maximum); returns the maximum and the sum of the new row.
#[inline(always)]
pub(crate) fn exponentials<const FMA: bool>(row: &mut [f32]) -> (f32, f32) {
    let greatest = maximum(row);
    let mut sums = [0.0_f32; LANES];
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *value = exp::<FMA>(*value - greatest);
            *sum += *value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *value = exp::<FMA>(*value - greatest);
        *sum += *value;
    }
    (greatest, crate::math::total(sums))
}

/// Turns the gradient of a row of probabilities `p` into that of the logits: p·(g − Σ p·g).
#[inline(always)]
pub(crate) fn through_softmax<const FMA: bool>(gradient: &mut [f32], p: &[f32]) {
    let mean = sum_of_pairs(gradient, p, |gradient, p| gradient * p);
    for (gradient, &p) in gradient.iter_mut().zip(p) {
        *gradient = p * (*gradient - mean);
    }
}
