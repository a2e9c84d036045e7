//! Multi-head self-attention on packed queries, keys and values, without a `tokens × tokens` tensor.
//!
//! A thread computes some query rows of one head at a time: their logits against all keys fit the cache, are turned
//! into probabilities there, and are multiplied with the values at once. The gradient recomputes the same probabilities
//! from the logits' log-sum-exp (Dao et al., FlashAttention, section 3.1), which is all that is saved besides the
//! input.

use rayon::prelude::*;

use crate::{
    level::{Level, dispatched},
    matrix::{Matrix, MatrixMut},
    panels::Panels,
    pieces::{CpuTensor, contiguous, shape, tensor, values},
    softmax::exponentials,
};

mod gradient;
pub(crate) mod half_gradient;
#[cfg(target_arch = "x86_64")]
mod half_panels;
pub(crate) mod halves;

pub(crate) use gradient::{backward, backward_on_buffers};

/// Approximate number of logits of a tile of query rows: half a megabyte.
const TILE_VALUES: usize = 128 * 1024;

/// The layout of packed tokens.
pub(crate) struct Packed {
    batch: usize,
    tokens: usize,
    /// Number of channels of all heads together.
    width: usize,
    heads: usize,
    /// Number of channels of a head.
    head: usize,
    /// Number of query rows of a tile.
    tile: usize,
}

impl Packed {
    fn of(qkv: &CpuTensor, heads: usize) -> Self {
        let shape = shape(qkv);
        Self::new(shape[0], shape[1], shape[2] / 3, heads)
    }

    /// Returns the layout of `[batch, tokens, 3·width]`.
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

    /// Returns queries, keys and values of a head: `[tokens, head]` each.
    fn parts<'a>(&self, qkv: &'a [f32], image: usize, head: usize) -> [Matrix<'a>; 3] {
        let length = self.tokens * 3 * self.width;
        let tokens = Matrix::new(&qkv[image * length..][..length], 3 * self.width);
        [0, 1, 2].map(|part| tokens.columns(part * self.width + head * self.head, self.head))
    }

    /// Returns a head's columns of a `[tokens, width]` tensor, such as the gradient of the result.
    fn columns<'a>(&self, x: &'a [f32], image: usize, head: usize) -> Matrix<'a> {
        let length = self.tokens * self.width;
        Matrix::new(&x[image * length..][..length], self.width).columns(head * self.head, self.head)
    }

    /// Returns the scale of the logits.
    fn scale(&self) -> f32 {
        1.0 / (self.head as f32).sqrt()
    }
}

/// A tile of query rows to compute.
struct Tile<'a> {
    image: usize,
    head: usize,
    first: usize,
    /// `[rows, head]`
    out: MatrixMut<'a>,
    /// `[rows]`
    log_sums: &'a mut [f32],
}

/// Computes the result, `[batch, tokens, width]`, and the log-sum-exp of every row of logits, `[batch, heads, tokens]`.
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

/// Computes attention on buffers of whole batches.
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

/// Returns all tiles of the result.
fn tiles<'a>(packed: &Packed, out: &'a mut [f32], log_sums: &'a mut [f32]) -> Vec<Tile<'a>> {
    let images = out.chunks_mut(packed.tokens * packed.width);
    let heads =
        images.flat_map(|image| MatrixMut::new(image, packed.width).split_columns(packed.head));
    let mut tiles = Vec::new();
    for (index, (out, log_sums)) in heads.zip(log_sums.chunks_mut(packed.tokens)).enumerate() {
        let rows = out.split_rows(packed.tile);
        let parts = rows.into_iter().zip(log_sums.chunks_mut(packed.tile));
        tiles.extend(parts.enumerate().map(|(tile, (out, log_sums))| Tile {
            image: index / packed.heads,
            head: index % packed.heads,
            first: tile * packed.tile,
            out,
            log_sums,
        }));
    }
    tiles
}

/// Computes one tile; `panels` are those of the scaled keys and of the values, `logits` is a scratch buffer.
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
    let [q, _, _] = packed.parts(qkv, tile.image, tile.head);
    let logits = &mut logits[..rows * tokens];
    let [keys, values] = &panels[tile.image * packed.heads + tile.head];
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

dispatched! {
    /// Turns rows of logits into e^(logit − maximum), and stores 1 / sum and the log-sum-exp of every row.
    fn probabilities(logits: &mut [f32], tokens: usize, mask: &[f32], inverses: &mut [f32], log_sums: &mut [f32]) = probabilities_kernel;
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

/// Adds row `index` of a mask, if there is a mask.
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
