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
) {
    let _ = Packed::new(batch, tokens, width, heads);
    unreachable!("no level has instructions for bf16")
}

#[cfg(target_arch = "x86_64")]
mod kernels {
    use rayon::prelude::*;

    use super::Packed;
    use crate::{
        attention::{Tile, add_mask, tiles},
        bf16,
        level::{Level, dispatched},
        linear::tile::{self, Rows, TILE, TileShape},
        math::{LANES, exp, maximum, multiply_add, total},
    };

    /// Number of query rows of a tile: whole tiles of both products, and few enough for logits, weights, keys and
    /// values of a thousand tokens to fit the second-level cache together.
    const ROWS: usize = 48;

    /// The right operand of a product: `[panels, depth / 2, columns of a panel, 2]`, padded with zeros.
    struct Panels {
        shape: TileShape,
        values: Vec<u16>,
        /// Number of pairs in a column.
        depth: usize,
    }

    impl Panels {
        fn zeros(shape: TileShape, depth: usize, columns: usize) -> Self {
            let values = vec![0; columns.next_multiple_of(shape.columns) * 2 * depth];
            Self {
                shape,
                values,
                depth,
            }
        }

        /// Packs keys, rows of `length` values.
        fn of_keys<'a>(
            level: Level,
            keys: impl ExactSizeIterator<Item = &'a [u16]>,
            length: usize,
        ) -> Self {
            let mut panels = Self::zeros(TileShape::of_floats(level), length / 2, keys.len());
            let (width, depth) = (panels.shape.columns, panels.depth);
            for (column, key) in keys.enumerate() {
                let first = column / width * width * depth + column % width;
                let (to, _) = panels.values.as_chunks_mut::<2>();
                let to = to[first..].iter_mut().step_by(width);
                to.zip(key.as_chunks::<2>().0)
                    .for_each(|(to, from)| *to = *from);
            }
            panels
        }

        /// Packs values, rows of `length`.
        fn of_values<'a>(
            level: Level,
            rows: impl ExactSizeIterator<Item = &'a [u16]>,
            length: usize,
        ) -> Self {
            let shape = TileShape::of_narrow_floats(level, length);
            let mut panels = Self::zeros(shape, rows.len().div_ceil(2), length);
            let depth = panels.depth;
            for (index, row) in rows.enumerate() {
                for (panel, from) in row.chunks(shape.columns).enumerate() {
                    let line = (panel * depth + index / 2) * shape.columns;
                    let (pairs, _) = panels.values.as_chunks_mut::<2>();
                    let pairs = pairs[line..].iter_mut();
                    pairs
                        .zip(from)
                        .for_each(|(pair, &from)| pair[index % 2] = from);
                }
            }
            panels
        }

        /// Returns the panels.
        fn iter(&self) -> impl Iterator<Item = &[u16]> {
            self.values
                .chunks_exact((2 * self.depth * self.shape.columns).max(1))
        }
    }

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
    pub(crate) fn on_buffers(
        [batch, tokens, width]: [usize; 3],
        heads: usize,
        qkv: &[u16],
        mask: &[f32],
        out: &mut [f32],
        level: Level,
    ) {
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
        let columns = tokens.next_multiple_of(keys.shape.columns);
        for (panel, left) in keys.iter().zip((0..columns).step_by(keys.shape.columns)) {
            for top in (0..rows).step_by(keys.shape.rows) {
                let count = keys.shape.rows.min(rows - top);
                let queries = Rows::new(&qkv[first + top * stride..], stride, count);
                let out = &mut scratch.logits[top * columns + left..];
                tile::halves(level, keys.shape, queries, panel, (out, columns));
            }
        }

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
            &mut scratch.inverses,
        );

        let mut sums = [0.0; TILE];
        let shape = values.shape;
        for (panel, left) in values.iter().zip((0..packed.head).step_by(shape.columns)) {
            for top in (0..rows).step_by(shape.rows) {
                let count = shape.rows.min(rows - top);
                let left_rows = Rows::new(&weights[top * pairs..], pairs, count);
                tile::halves(level, shape, left_rows, panel, (&mut sums, shape.columns));
                for (row, sums) in sums.chunks_exact(shape.columns).take(count).enumerate() {
                    let inverse = scratch.inverses[top + row];
                    let out = tile.out.row(top + row)[left..].iter_mut();
                    out.zip(sums).for_each(|(out, sum)| *out = sum * inverse);
                }
            }
        }
    }

    dispatched! {
        /// Writes e^(scale·logit + mask − maximum) of every row, rounded, to `weights`, and 1 / sum to `inverses`.
        ///
        /// - `lengths`: number of values in a row, length of a row of `logits`, and length of a row of `weights`
        fn exponentials(logits: &mut [f32], lengths: [usize; 3], scale: f32, mask: &[f32], weights: &mut [u16], inverses: &mut [f32]) = exponentials_kernel;
    }

    #[inline(always)]
    fn exponentials_kernel<const FMA: bool>(
        logits: &mut [f32],
        [tokens, columns, pairs]: [usize; 3],
        scale: f32,
        mask: &[f32],
        weights: &mut [u16],
        inverses: &mut [f32],
    ) {
        let rows = logits
            .chunks_exact_mut(columns)
            .zip(weights.chunks_exact_mut(pairs));
        for (index, ((row, weights), inverse)) in rows.zip(inverses).enumerate() {
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
            *inverse = 1.0 / total(sums);
        }
    }
}
