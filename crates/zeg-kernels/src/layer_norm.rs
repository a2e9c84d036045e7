//! Layer normalisation over rows: (x − mean) / √(variance + ε) · weight + bias, with the population variance.
//!
//! The gradient recomputes each row's mean and variance from the input, because the row is in the cache; so only the
//! input needs to be saved.

use rayon::prelude::*;

use crate::{
    level::{Level, dispatched},
    math::{multiply_add, sum_of, sum_of_pairs},
    pieces::{
        CpuTensor, change, change_by, contiguous, piece_of_rows, row_length, shape, tensor, values,
    },
};

/// The requested gradients.
pub(crate) struct Gradients {
    /// `[…, width]`
    pub(crate) x: Option<CpuTensor>,
    /// `[width]`
    pub(crate) weight: Option<CpuTensor>,
    /// `[width]`
    pub(crate) bias: Option<CpuTensor>,
}

/// Normalises the last axis of `x` `[…, width]`; `weight` and `bias` are `[width]`.
pub(crate) fn forward(
    x: CpuTensor,
    weight: CpuTensor,
    bias: CpuTensor,
    epsilon: f32,
    level: Level,
) -> CpuTensor {
    let width = row_length(&shape(&x));
    let (weight, bias) = (contiguous(weight), contiguous(bias));
    let (weight, bias) = (values(&weight), values(&bias));
    change(x, width, |rows| {
        normalize_rows(level, rows, weight, bias, epsilon);
    })
}

/// Normalises rows of `width` values of `x` into `out`.
pub(crate) fn on_buffers(
    x: &[f32],
    out: &mut [f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    level: Level,
) {
    let piece = piece_of_rows(weight.len());
    let parts = out.par_chunks_mut(piece).zip(x.par_chunks(piece));
    parts.for_each(|(out, x)| on_rows(x, out, weight, bias, epsilon, level));
}

/// Normalises a few rows of `x` into `out`, on this thread.
pub(crate) fn on_rows(
    x: &[f32],
    out: &mut [f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
    level: Level,
) {
    out.copy_from_slice(x);
    normalize_rows(level, out, weight, bias, epsilon);
}

/// Turns gradients of the result, rows of `width` values, into those of the input, and adds `rest`.
pub(crate) fn input_gradients_on_buffers(
    gradient: &mut [f32],
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
    rest: &[f32],
    level: Level,
) {
    let piece = piece_of_rows(weight.len());
    let parts = gradient.par_chunks_mut(piece);
    let parts = parts.zip(x.par_chunks(piece)).zip(rest.par_chunks(piece));
    parts.for_each(|((gradient, x), rest)| {
        input_gradients(level, gradient, x, weight, epsilon);
        for (gradient, rest) in gradient.iter_mut().zip(rest) {
            *gradient += rest;
        }
    });
}

/// Computes the gradients that `[x, weight, bias]` request.
pub(crate) fn backward(
    x: &CpuTensor,
    weight: CpuTensor,
    gradient: CpuTensor,
    epsilon: f32,
    [of_x, of_weight, of_bias]: [bool; 3],
    level: Level,
) -> Gradients {
    let width = row_length(&shape(x));
    let weight = contiguous(weight);
    let gradient = contiguous(gradient);
    let parameters = (of_weight || of_bias).then(|| {
        let x = contiguous(x.clone());
        parameter_gradients(values(&x), values(&gradient), width, epsilon, level)
    });
    let (weight_gradient, bias_gradient) = parameters.unzip();
    Gradients {
        weight: weight_gradient
            .filter(|_| of_weight)
            .map(|sums| tensor(sums, &[width])),
        bias: bias_gradient
            .filter(|_| of_bias)
            .map(|sums| tensor(sums, &[width])),
        x: of_x.then(|| {
            change_by(gradient, x, width, |gradient, x| {
                input_gradients(level, gradient, x, values(&weight), epsilon);
            })
        }),
    }
}

/// Returns the sums over rows of gradient · normalised value and of the gradient: `[width]` each.
fn parameter_gradients(
    x: &[f32],
    gradient: &[f32],
    width: usize,
    epsilon: f32,
    level: Level,
) -> (Vec<f32>, Vec<f32>) {
    let piece = piece_of_rows(width);
    let parts: Vec<(Vec<f32>, Vec<f32>)> = x
        .par_chunks(piece)
        .zip(gradient.par_chunks(piece))
        .map(|(x, gradient)| {
            let mut sums = (vec![0.0; width], vec![0.0; width]);
            parameter_sums(level, &mut sums.0, &mut sums.1, x, gradient, epsilon);
            sums
        })
        .collect();
    // The parts are added in the order of their rows, regardless of which thread finishes first.
    let mut whole = (vec![0.0; width], vec![0.0; width]);
    for (weight, bias) in parts {
        for (sum, part) in whole.0.iter_mut().zip(weight) {
            *sum += part;
        }
        for (sum, part) in whole.1.iter_mut().zip(bias) {
            *sum += part;
        }
    }
    whole
}

dispatched! { fn normalize_rows(rows: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) = normalize_rows_kernel; }
dispatched! { fn input_gradients(gradient: &mut [f32], x: &[f32], weight: &[f32], epsilon: f32) = input_gradients_kernel; }
dispatched! { fn parameter_sums(weight: &mut [f32], bias: &mut [f32], x: &[f32], gradient: &[f32], epsilon: f32) = parameter_sums_kernel; }

/// Returns mean and 1 / √(variance + ε) of a row.
#[inline(always)]
fn statistics(row: &[f32], epsilon: f32) -> (f32, f32) {
    let inverse = 1.0 / row.len() as f32;
    let mean = sum_of(row, |x| x) * inverse;
    let variance = sum_of(row, |x| (x - mean) * (x - mean)) * inverse;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

#[inline(always)]
fn normalize_rows_kernel<const FMA: bool>(
    rows: &mut [f32],
    weight: &[f32],
    bias: &[f32],
    epsilon: f32,
) {
    for row in rows.chunks_exact_mut(weight.len()) {
        let (mean, scale) = statistics(row, epsilon);
        for ((x, &weight), &bias) in row.iter_mut().zip(weight).zip(bias) {
            *x = multiply_add::<FMA>((*x - mean) * scale, weight, bias);
        }
    }
}

/// Computes (u − mean(u) − n·mean(u·n)) / √(variance + ε), with n the normalised row and u = gradient · weight.
#[inline(always)]
fn input_gradients_kernel<const FMA: bool>(
    gradient: &mut [f32],
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
) {
    let width = weight.len();
    let rows = gradient.chunks_exact_mut(width);
    for (gradient, x) in rows.zip(x.chunks_exact(width)) {
        let (mean, scale) = statistics(x, epsilon);
        for (gradient, &weight) in gradient.iter_mut().zip(weight) {
            *gradient *= weight;
        }
        let inverse = 1.0 / width as f32;
        let level = sum_of(gradient, |u| u) * inverse;
        let slope = sum_of_pairs(gradient, x, |u, x| u * ((x - mean) * scale)) * inverse;
        for (gradient, &x) in gradient.iter_mut().zip(x) {
            let normalised = (x - mean) * scale;
            *gradient = scale * multiply_add::<FMA>(-normalised, slope, *gradient - level);
        }
    }
}

#[inline(always)]
fn parameter_sums_kernel<const FMA: bool>(
    weight: &mut [f32],
    bias: &mut [f32],
    x: &[f32],
    gradient: &[f32],
    epsilon: f32,
) {
    let width = weight.len();
    for (x, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact(width)) {
        let (mean, scale) = statistics(x, epsilon);
        for (((weight, bias), &x), &gradient) in
            weight.iter_mut().zip(bias.iter_mut()).zip(x).zip(gradient)
        {
            *weight = multiply_add::<FMA>(gradient, (x - mean) * scale, *weight);
            *bias += gradient;
        }
    }
}
