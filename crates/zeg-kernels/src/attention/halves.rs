//! Attention in bf16 with sums in 32-bit floats, for inference where the processor has instructions for bf16.
//!
//! Queries, keys and values are already rounded. Logits and their exponentials are 32-bit floats; an exponential is
//! rounded by the pass that computes it.

use super::Packed;
use crate::level::Level;

/// Returns whether attention can run in bf16: the level has instructions, and heads consist of whole pairs.
pub(crate) fn runs_at(level: Level, [_, tokens, width]: [usize; 3], heads: usize) -> bool {
    level.has_bf16() && (width / heads).is_multiple_of(2) && tokens > 0
}

#[cfg(target_arch = "x86_64")]
pub(crate) use kernels::on_buffers;

/// Not called: no level of this processor has instructions for bf16.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn on_buffers(
    [batch, tokens, width]: [usize; 3],
    heads: usize,
    _qkv: &[u16],
    _mask: &[f32],
    _out: &mut [f32],
    _level: Level,
) -> Vec<f32> {
    let _ = Packed::new(batch, tokens, width, heads);
    unreachable!("no level has instructions for bf16")
}

#[cfg(target_arch = "x86_64")]
mod kernels {
    use rayon::prelude::*;

    use super::Packed;
    use crate::{
        attention::{Tile, add_mask, half_panels::Panels, tiles},
        bf16,
        level::{Level, dispatched},
        linear::tile::TileShape,
        math::{LANES, exp, maximum, multiply_add, total},
    };

    /// Number of query rows of a tile: whole tiles of both products, and few enough for logits, weights, keys and
    /// values of a thousand tokens to fit the second-level cache together.
    const ROWS: usize = 48;

    /// Buffers of a thread.
    struct Scratch {
        /// `[rows, keys]`, keys padded to whole panels
        logits: Vec<f32>,
        /// `[rows, keys]`, keys padded to whole pairs
        weights: Vec<u16>,
        /// Reciprocal sums of the weights: `[rows]`
        inverses: Vec<f32>,
    }

    /// Computes attention on buffers of whole batches.
    ///
    /// - `qkv`: bf16, `[batch, tokens, 3·width]`
    /// - `mask`: `[tokens, tokens]` or empty
    /// - `out`: `[batch, tokens, width]`
    ///
    /// Returns the log-sum-exp of every row of logits, `[batch, heads, tokens]`.
    pub(crate) fn on_buffers(
        [batch, tokens, width]: [usize; 3],
        heads: usize,
        qkv: &[u16],
        mask: &[f32],
        out: &mut [f32],
        level: Level,
    ) -> Vec<f32> {
        let mut packed = Packed::new(batch, tokens, width, heads);
        packed.tile = ROWS;
        let head = packed.head;
        let panels: Vec<[Panels; 2]> = (0..batch * heads)
            .into_par_iter()
            .map(|index| {
                let image = &qkv[index / heads * tokens * 3 * width..][..tokens * 3 * width];
                let part = |part: usize| {
                    let first = part * width + index % heads * head;
                    image
                        .chunks_exact(3 * width)
                        .map(move |row| &row[first..first + head])
                };
                [
                    Panels::of_keys(level, part(1), head),
                    Panels::of_values(level, part(2), head),
                ]
            })
            .collect();
        let (keys, pairs) = (
            tokens.next_multiple_of(TileShape::of_floats(level).columns),
            tokens.next_multiple_of(2),
        );
        let scratch = || Scratch {
            logits: vec![0.0; ROWS * keys],
            weights: vec![0; ROWS * pairs],
            inverses: vec![0.0; ROWS],
        };
        let mut log_sums = vec![0.0; batch * heads * tokens];
        let tiles = tiles(&packed, out, &mut log_sums).into_par_iter();
        tiles.for_each_init(scratch, |scratch, tile| {
            let panels = &panels[tile.image * heads + tile.head];
            attend(&packed, panels, qkv, mask, scratch, tile, level);
        });
        log_sums
    }

    /// Computes one tile; `panels` are those of the head's keys and values.
    fn attend(
        packed: &Packed,
        [keys, values]: &[Panels; 2],
        qkv: &[u16],
        mask: &[f32],
        scratch: &mut Scratch,
        mut tile: Tile<'_>,
        level: Level,
    ) {
        let (tokens, (rows, _)) = (packed.tokens, tile.out.size());
        let stride = 3 * packed.width;
        let first = (tile.image * tokens + tile.first) * stride + tile.head * packed.head;
        let columns = keys.columns();
        keys.multiply_into(level, &qkv[first..], stride, rows, &mut scratch.logits);

        let pairs = tokens.next_multiple_of(2);
        let mask = mask.get(tile.first * tokens..).unwrap_or_default();
        let logits = &mut scratch.logits[..rows * columns];
        let weights = &mut scratch.weights[..rows * pairs];
        let lengths = [tokens, columns, pairs];
        exponentials(
            level,
            logits,
            lengths,
            packed.scale(),
            mask,
            weights,
            [&mut scratch.inverses, &mut *tile.log_sums],
        );

        let inverses = &scratch.inverses;
        values.multiply(level, weights, [pairs, 1], rows, |row, first, sums| {
            let out = tile.out.row(row)[first..].iter_mut();
            out.zip(sums)
                .for_each(|(out, sum)| *out = sum * inverses[row]);
        });
    }

    dispatched! {
        /// Writes e^(scale·logit + mask − maximum) of every row, rounded, to `weights`.
        ///
        /// - `lengths`: number of values in a row, length of a row of `logits`, and length of a row of `weights`
        /// - `notes`: 1 / sum, and the log-sum-exp, of every row; overwritten
        fn exponentials(logits: &mut [f32], lengths: [usize; 3], scale: f32, mask: &[f32], weights: &mut [u16], notes: [&mut [f32]; 2]) = exponentials_kernel;
    }

    #[inline(always)]
    fn exponentials_kernel<const FMA: bool>(
        logits: &mut [f32],
        [tokens, columns, pairs]: [usize; 3],
        scale: f32,
        mask: &[f32],
        weights: &mut [u16],
        [inverses, log_sums]: [&mut [f32]; 2],
    ) {
        let rows = logits
            .chunks_exact_mut(columns)
            .zip(weights.chunks_exact_mut(pairs));
        let notes = inverses.iter_mut().zip(log_sums);
        for (index, ((row, weights), (inverse, log_sum))) in rows.zip(notes).enumerate() {
            let row = &mut row[..tokens];
            let mut scale = scale;
            if !mask.is_empty() {
                for value in row.iter_mut() {
                    *value *= scale;
                }
                add_mask(row, mask, index);
                scale = 1.0;
            }
            let greatest = maximum(row) * scale;
            let mut sums = [0.0_f32; LANES];
            let (chunks, rest) = row.as_chunks::<LANES>();
            let (to, to_rest) = weights[..tokens].as_chunks_mut::<LANES>();
            for (chunk, to) in chunks.iter().zip(to) {
                for ((sum, &value), to) in sums.iter_mut().zip(chunk).zip(to) {
                    let weight = exp::<FMA>(multiply_add::<FMA>(value, scale, -greatest));
                    *sum += weight;
                    *to = bf16::round(weight);
                }
            }
            for ((sum, &value), to) in sums.iter_mut().zip(rest).zip(to_rest) {
                let weight = exp::<FMA>(multiply_add::<FMA>(value, scale, -greatest));
                *sum += weight;
                *to = bf16::round(weight);
            }
            let sum = total(sums);
            *inverse = 1.0 / sum;
            *log_sum = greatest + sum.ln();
        }
    }
}
