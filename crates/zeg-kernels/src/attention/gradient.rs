//! The gradient of attention, computed head by head over the same tiles of query rows as the result.

use rayon::prelude::*;

use super::{Packed, add_mask};
use crate::{
    level::{Level, dispatched},
    math::exp,
    matrix::{Matrix, MatrixMut},
    panels::Panels,
    pieces::{CpuTensor, contiguous, tensor, values},
    softmax::through_softmax,
};

/// Computes the gradient of the packed tokens from that of the result.
///
/// - `qkv`, `mask`, `heads`: as passed to [`super::forward`]
/// - `log_sums`: as returned by [`super::forward`]
/// - `gradient`: `[batch, tokens, width]`
pub(crate) fn backward(
    qkv: CpuTensor,
    mask: Option<CpuTensor>,
    log_sums: CpuTensor,
    gradient: CpuTensor,
    heads: usize,
    level: Level,
) -> CpuTensor {
    let packed = Packed::of(&qkv, heads);
    let (batch, tokens, width) = (packed.batch, packed.tokens, packed.width);
    let (qkv, gradient) = (contiguous(qkv), contiguous(gradient));
    let (log_sums, mask) = (contiguous(log_sums), mask.map(contiguous));
    let (qkv, gradient) = (values(&qkv), values(&gradient));
    let (log_sums, mask) = (values(&log_sums), mask.as_ref().map_or(&[][..], values));

    let mut out = vec![0.0; batch * tokens * 3 * width];
    backward_on_buffers(&packed, qkv, mask, log_sums, gradient, &mut out, level);
    tensor(out, &[batch, tokens, 3 * width])
}

/// Computes the gradient as [`backward`] does, on buffers.
///
/// - `out`: `[batch, tokens, 3·width]`, overwritten
pub(crate) fn backward_on_buffers(
    packed: &Packed,
    qkv: &[f32],
    mask: &[f32],
    log_sums: &[f32],
    gradient: &[f32],
    out: &mut [f32],
    level: Level,
) {
    let (tokens, heads) = (packed.tokens, packed.heads);
    heads_of_parts(packed, out).into_par_iter().for_each_init(
        || [(); 2].map(|()| vec![0.0; packed.tile * tokens]),
        |scratch, (image, head, out)| {
            let head = Head {
                qkv: packed.parts(qkv, image, head),
                gradient: packed.columns(gradient, image, head),
                log_sums: &log_sums[(image * heads + head) * tokens..][..tokens],
                mask,
            };
            head.backward(packed, scratch, out, level);
        },
    );
}

/// Returns image, head, and the gradients of queries, keys and values to write, `[tokens, head]` each, of every head.
///
/// - `out`: `[batch, tokens, 3·width]`
pub(super) fn heads_of_parts<'a>(
    packed: &Packed,
    out: &'a mut [f32],
) -> Vec<(usize, usize, [MatrixMut<'a>; 3])> {
    let (tokens, width) = (packed.tokens, packed.width);
    let images = out.chunks_mut((tokens * 3 * width).max(1));
    images
        .enumerate()
        .flat_map(|(image, out)| {
            let parts = MatrixMut::new(out, 3 * width).split_columns(width);
            let mut parts = parts
                .into_iter()
                .map(|part| part.split_columns(packed.head));
            let [q, k, v] = [(); 3].map(|()| parts.next().unwrap_or_default());
            let parts = q.into_iter().zip(k).zip(v).enumerate();
            parts.map(move |(head, ((q, k), v))| (image, head, [q, k, v]))
        })
        .collect()
}

/// The inputs of one head's gradient.
struct Head<'a> {
    /// `[tokens, head]` each
    qkv: [Matrix<'a>; 3],
    /// `[tokens, head]`
    gradient: Matrix<'a>,
    /// `[tokens]`
    log_sums: &'a [f32],
    /// `[tokens, tokens]` or empty
    mask: &'a [f32],
}

impl Head<'_> {
    /// Writes the gradients of queries, keys and values, `[tokens, head]` each, one tile of query rows at a time.
    ///
    /// With probabilities P = softmax(S), S = s·Q·Kᵀ and result O = P·V: ∂V = Pᵀ·∂O, ∂P = ∂O·Vᵀ, ∂S follows from
    /// ∂P through the softmax, ∂Q = s·∂S·K, ∂K = s·∂Sᵀ·Q.
    fn backward(
        &self,
        packed: &Packed,
        scratch: &mut [Vec<f32>; 2],
        out: [MatrixMut<'_>; 3],
        level: Level,
    ) {
        let (tokens, scale) = (packed.tokens, packed.scale());
        let [q, k, v] = self.qkv;
        let [mut q_gradient, mut k_gradient, mut v_gradient] = out;
        let [p, s_gradient] = scratch;
        let keys = Panels::transposed(level, k, scale);
        let values = Panels::transposed(level, v, 1.0);
        let key_lines = Panels::new(level, k);
        for first in (0..tokens).step_by(packed.tile) {
            let rows = packed.tile.min(tokens - first);
            let add = first > 0;
            let (q, gradient) = (q.rows(first, rows), self.gradient.rows(first, rows));
            let p = &mut p[..rows * tokens];
            let s_gradient = &mut s_gradient[..rows * tokens];

            keys.multiply_into(level, q, p);
            let mask = self.mask.get(first * tokens..).unwrap_or_default();
            probabilities_again(level, p, tokens, mask, &self.log_sums[first..][..rows]);
            let weights = Matrix::new(p, tokens).transposed();
            let lines = Panels::new(level, gradient);
            lines.multiply(level, weights, |row, first, values| {
                write(&mut v_gradient.row(row)[first..], values, 1.0, add);
            });

            values.multiply_into(level, gradient, s_gradient);
            logit_gradients(level, s_gradient, p, tokens);
            let s_gradient = Matrix::new(s_gradient, tokens);
            let mut q_gradient = q_gradient.rows(first, rows);
            key_lines.multiply(level, s_gradient, |row, first, values| {
                write(&mut q_gradient.row(row)[first..], values, scale, false);
            });
            let lines = Panels::new(level, q);
            lines.multiply(level, s_gradient.transposed(), |row, first, values| {
                write(&mut k_gradient.row(row)[first..], values, scale, add);
            });
        }
    }
}

/// Writes `scale · values`, or adds them.
pub(super) fn write(out: &mut [f32], values: &[f32], scale: f32, add: bool) {
    for (out, value) in out.iter_mut().zip(values) {
        let before = if add { *out } else { 0.0 };
        *out = before + scale * value;
    }
}

dispatched! {
    /// Recomputes probabilities from rows of logits and their log-sum-exp.
    fn probabilities_again(logits: &mut [f32], tokens: usize, mask: &[f32], log_sums: &[f32]) = probabilities_again_kernel;
}
dispatched! {
    /// Turns gradients of probabilities into those of the logits.
    fn logit_gradients(gradient: &mut [f32], p: &[f32], tokens: usize) = logit_gradients_kernel;
}

#[inline(always)]
fn probabilities_again_kernel<const FMA: bool>(
    logits: &mut [f32],
    tokens: usize,
    mask: &[f32],
    log_sums: &[f32],
) {
    for (index, (row, &log_sum)) in logits.chunks_exact_mut(tokens).zip(log_sums).enumerate() {
        add_mask(row, mask, index);
        for value in row {
            *value = exp::<FMA>(*value - log_sum);
        }
    }
}

#[inline(always)]
fn logit_gradients_kernel<const FMA: bool>(gradient: &mut [f32], p: &[f32], tokens: usize) {
    let rows = gradient.chunks_exact_mut(tokens);
    for (gradient, p) in rows.zip(p.chunks_exact(tokens)) {
        through_softmax::<FMA>(gradient, p);
    }
}
