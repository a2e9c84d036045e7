//! Multi-head self-attention on packed queries, keys and values, without a `tokens × tokens` tensor.
//!
//! A thread takes some query rows of one head at a time: their logits against all keys fit the cache, become
//! probabilities there and are multiplied with the values at once. The gradient makes the same probabilities again
//! from the logits' log-sum-exp (Dao et al., FlashAttention, section 3.1), which is all that is kept besides the
//! input.

use rayon::prelude::*;

use crate::{
    level::{Level, dispatched},
    math::exp,
    matrix::{Matrix, MatrixMut},
    panels::Panels,
    pieces::{CpuTensor, contiguous, shape, tensor, values},
    softmax::{exponentials, through_softmax},
};

/// Logits of a tile of query rows, about: half a megabyte.
const TILE_VALUES: usize = 128 * 1024;

/// Packed tokens and what is needed to read them.
pub(crate) struct Packed {
    batch: usize,
    tokens: usize,
    /// Channels of all heads together.
    width: usize,
    heads: usize,
    /// Channels of a head.
    head: usize,
    /// Query rows of a tile.
    tile: usize,
}

impl Packed {
    fn of(qkv: &CpuTensor, heads: usize) -> Self {
        let shape = shape(qkv);
        Self::new(shape[0], shape[1], shape[2] / 3, heads)
    }

    /// Of `[batch, tokens, 3·width]`.
    pub(crate) fn new(batch: usize, tokens: usize, width: usize, heads: usize) -> Self {
        let tile = (TILE_VALUES / tokens.max(1)).clamp(24, 192) / 12 * 12;
        Self {
            batch,
            tokens,
            width,
            heads,
            head: width / heads,
            tile: tile.min(tokens).max(1),
        }
    }

    /// Queries, keys and values of a head: `[tokens, head]` each.
    fn parts<'a>(&self, qkv: &'a [f32], picture: usize, head: usize) -> [Matrix<'a>; 3] {
        let length = self.tokens * 3 * self.width;
        let tokens = Matrix::new(&qkv[picture * length..][..length], 3 * self.width);
        [0, 1, 2].map(|part| tokens.columns(part * self.width + head * self.head, self.head))
    }

    /// A head's columns of `[tokens, width]` tensors such as the gradient of the result.
    fn columns<'a>(&self, x: &'a [f32], picture: usize, head: usize) -> Matrix<'a> {
        let length = self.tokens * self.width;
        Matrix::new(&x[picture * length..][..length], self.width)
            .columns(head * self.head, self.head)
    }

    /// Scale of the logits.
    fn scale(&self) -> f32 {
        1.0 / (self.head as f32).sqrt()
    }
}

/// A tile of query rows to compute.
struct Tile<'a> {
    picture: usize,
    head: usize,
    first: usize,
    /// `[rows, head]`
    out: MatrixMut<'a>,
    /// `[rows]`
    log_sums: &'a mut [f32],
}

/// The result, `[batch, tokens, width]`, and the log-sum-exp of every row of logits, `[batch, heads, tokens]`.
///
/// - `qkv`: `[batch, tokens, 3·width]`
/// - `mask`: `[tokens, tokens]`, added to the logits
pub(crate) fn forward(
    qkv: CpuTensor,
    mask: Option<CpuTensor>,
    heads: usize,
    level: Level,
) -> (CpuTensor, CpuTensor) {
    let packed = Packed::of(&qkv, heads);
    let (batch, tokens, width) = (packed.batch, packed.tokens, packed.width);
    let qkv = contiguous(qkv);
    let mask = mask.map(contiguous);
    let (qkv, mask) = (values(&qkv), mask.as_ref().map_or(&[][..], values));

    let mut out = vec![0.0; batch * tokens * width];
    let shape = [batch, tokens, width];
    let log_sums = on_buffers(shape, heads, qkv, mask, &mut out, level);
    (
        tensor(out, &shape),
        tensor(log_sums, &[batch, heads, tokens]),
    )
}

/// Attention on buffers of whole batches.
///
/// - `qkv`: `[batch, tokens, 3·width]`
/// - `mask`: `[tokens, tokens]` or empty
/// - `out`: `[batch, tokens, width]`
///
/// Returns the log-sum-exp of every row of logits, `[batch, heads, tokens]`.
pub(crate) fn on_buffers(
    [batch, tokens, width]: [usize; 3],
    heads: usize,
    qkv: &[f32],
    mask: &[f32],
    out: &mut [f32],
    level: Level,
) -> Vec<f32> {
    let packed = Packed::new(batch, tokens, width, heads);
    let mut log_sums = vec![0.0; batch * heads * tokens];
    attend_all(&packed, qkv, mask, out, &mut log_sums, level);
    log_sums
}

fn attend_all(
    packed: &Packed,
    qkv: &[f32],
    mask: &[f32],
    out: &mut [f32],
    log_sums: &mut [f32],
    level: Level,
) {
    if out.is_empty() {
        return;
    }
    let panels: Vec<[Panels; 2]> = (0..packed.batch * packed.heads)
        .into_par_iter()
        .map(|index| {
            let [_, k, v] = packed.parts(qkv, index / packed.heads, index % packed.heads);
            [
                Panels::transposed(level, k, packed.scale()),
                Panels::new(level, v),
            ]
        })
        .collect();
    tiles(packed, out, log_sums).into_par_iter().for_each_init(
        || vec![0.0; packed.tile * packed.tokens],
        |logits, tile| attend(packed, &panels, qkv, mask, logits, tile, level),
    );
}

/// Every tile of the result.
fn tiles<'a>(packed: &Packed, out: &'a mut [f32], log_sums: &'a mut [f32]) -> Vec<Tile<'a>> {
    let pictures = out.chunks_mut(packed.tokens * packed.width);
    let heads = pictures
        .flat_map(|picture| MatrixMut::new(picture, packed.width).split_columns(packed.head));
    let mut tiles = Vec::new();
    for (index, (out, log_sums)) in heads.zip(log_sums.chunks_mut(packed.tokens)).enumerate() {
        let rows = out.split_rows(packed.tile);
        let parts = rows.into_iter().zip(log_sums.chunks_mut(packed.tile));
        tiles.extend(parts.enumerate().map(|(tile, (out, log_sums))| Tile {
            picture: index / packed.heads,
            head: index % packed.heads,
            first: tile * packed.tile,
            out,
            log_sums,
        }));
    }
    tiles
}

/// Computes one tile; `panels` are those of scaled keys and of values, `logits` is scratch.
fn attend(
    packed: &Packed,
    panels: &[[Panels; 2]],
    qkv: &[f32],
    mask: &[f32],
    logits: &mut [f32],
    mut tile: Tile<'_>,
    level: Level,
) {
    let (tokens, rows) = (packed.tokens, tile.log_sums.len());
    let [q, _, _] = packed.parts(qkv, tile.picture, tile.head);
    let logits = &mut logits[..rows * tokens];
    let [keys, values] = &panels[tile.picture * packed.heads + tile.head];
    keys.multiply_into(level, q.rows(tile.first, rows), logits);
    let mut inverses = vec![0.0; rows];
    let mask = mask.get(tile.first * tokens..).unwrap_or_default();
    probabilities(level, logits, tokens, mask, &mut inverses, tile.log_sums);
    let weights = Matrix::new(logits, tokens);
    values.multiply(level, weights, |row, first, values| {
        let out = &mut tile.out.row(row)[first..][..values.len()];
        for (out, value) in out.iter_mut().zip(values) {
            *out = value * inverses[row];
        }
    });
}

/// Gradient of the packed tokens, from that of the result.
///
/// - `qkv`, `mask`, `heads`: as given to [`forward`]
/// - `log_sums`: as returned by it
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

/// As [`backward`], on buffers.
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
    let (tokens, width, heads) = (packed.tokens, packed.width, packed.heads);
    let pictures = out.chunks_mut((tokens * 3 * width).max(1));
    let heads_of_parts: Vec<_> = pictures
        .enumerate()
        .flat_map(|(picture, out)| {
            let parts = MatrixMut::new(out, 3 * width).split_columns(width);
            let mut parts = parts
                .into_iter()
                .map(|part| part.split_columns(packed.head));
            let [q, k, v] = [(); 3].map(|()| parts.next().unwrap_or_default());
            let parts = q.into_iter().zip(k).zip(v).enumerate();
            parts.map(move |(head, ((q, k), v))| (picture, head, [q, k, v]))
        })
        .collect();
    heads_of_parts.into_par_iter().for_each_init(
        || [(); 2].map(|()| vec![0.0; packed.tile * tokens]),
        |scratch, (picture, head, out)| {
            let head = Head {
                qkv: packed.parts(qkv, picture, head),
                gradient: packed.columns(gradient, picture, head),
                log_sums: &log_sums[(picture * heads + head) * tokens..][..tokens],
                mask,
            };
            head.backward(packed, scratch, out, level);
        },
    );
}

/// What the gradient of one head needs.
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
    /// Writes the gradients of queries, keys and values, `[tokens, head]` each, tile by tile of query rows.
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
fn write(out: &mut [f32], values: &[f32], scale: f32, add: bool) {
    for (out, value) in out.iter_mut().zip(values) {
        let before = if add { *out } else { 0.0 };
        *out = before + scale * value;
    }
}

dispatched! {
    /// Turns rows of logits into e^(logit − greatest), and notes one over each row's sum and its log-sum-exp.
    fn probabilities(logits: &mut [f32], tokens: usize, mask: &[f32], inverses: &mut [f32], log_sums: &mut [f32]) = probabilities_kernel;
}
dispatched! {
    /// Turns rows of logits into probabilities, from their log-sum-exp.
    fn probabilities_again(logits: &mut [f32], tokens: usize, mask: &[f32], log_sums: &[f32]) = probabilities_again_kernel;
}
dispatched! {
    /// Turns gradients of probabilities into those of logits.
    fn logit_gradients(gradient: &mut [f32], p: &[f32], tokens: usize) = logit_gradients_kernel;
}

#[inline(always)]
fn probabilities_kernel<const FMA: bool>(
    logits: &mut [f32],
    tokens: usize,
    mask: &[f32],
    inverses: &mut [f32],
    log_sums: &mut [f32],
) {
    let notes = inverses.iter_mut().zip(log_sums);
    for (index, (row, (inverse, log_sum))) in logits.chunks_exact_mut(tokens).zip(notes).enumerate()
    {
        add_mask(row, mask, index);
        let (greatest, sum) = exponentials::<FMA>(row);
        *inverse = 1.0 / sum;
        *log_sum = greatest + sum.ln();
    }
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

/// Adds row `index` of a mask, if there is one.
#[inline(always)]
fn add_mask(row: &mut [f32], mask: &[f32], index: usize) {
    if mask.is_empty() {
        return;
    }
    let mask = &mask[index * row.len()..];
    for (value, &mask) in row.iter_mut().zip(mask) {
        *value += mask;
    }
}
