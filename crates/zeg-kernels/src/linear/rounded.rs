//! A layer's inputs, rounded to the number type of its weights by the work that makes them.
//!
//! Rows are rounded piece by piece while the piece is in the cache, so that no pass over main memory only rounds. The
//! buffers are used again by the next layer of the same type.

use rayon::prelude::*;

use super::{
    PackedLinear, Weights,
    quantized::{RoundedBlock, RoundedRows},
};
use crate::{bf16, level::Level, matrix::MatrixMut};

/// Approximate number of values that a thread rounds at a time.
const PIECE: usize = 32 * 1024;

/// Rows in the number type of a layer's weights.
#[derive(Debug)]
pub(crate) enum Rounded {
    /// bf16
    Halves(HalfRows<u16>),
    /// Values of bf16 as 32-bit floats, the two values of each pair swapped ([`bf16::round_swapped`])
    Swapped(HalfRows<f32>),
    Pairs(RoundedRows<i16>),
    #[cfg(target_arch = "x86_64")]
    Bytes(RoundedRows<u8>),
}

/// Rows of values rounded to bf16.
#[derive(Debug, Default)]
pub(crate) struct HalfRows<T> {
    /// `[rows, stride]`; padding is 0.
    pub(crate) values: Vec<T>,
    /// Length of a row, an even number.
    pub(crate) stride: usize,
}

impl<T: Copy + Default> HalfRows<T> {
    fn resize(&mut self, rows: usize, length: usize) {
        self.stride = length.next_multiple_of(2);
        self.values.resize(rows * self.stride, T::default());
        if self.stride > length {
            let rows = self.values.chunks_exact_mut(self.stride);
            rows.for_each(|row| row[length..].fill(T::default()));
        }
    }
}

impl Default for Rounded {
    fn default() -> Self {
        Self::Halves(HalfRows::default())
    }
}

/// A block of rounded rows to write.
pub(crate) enum Block<'a> {
    Halves(MatrixMut<'a, u16>),
    Swapped(MatrixMut<'a>),
    Pairs(RoundedBlock<'a, i16>),
    #[cfg(target_arch = "x86_64")]
    Bytes(RoundedBlock<'a, u8>),
}

impl Block<'_> {
    /// Rounds rows of `width` values into the block.
    pub(crate) fn round(&mut self, level: Level, x: &[f32], width: usize) {
        for (row, x) in x.chunks_exact(width).enumerate() {
            match self {
                Self::Halves(out) => bf16::round_values(level, x, out.row(row)),
                Self::Swapped(out) => bf16::round_swapped(level, x, out.row(row)),
                Self::Pairs(out) => out.round(level, row, x),
                #[cfg(target_arch = "x86_64")]
                Self::Bytes(out) => out.round(level, row, x),
            }
        }
    }
}

impl Rounded {
    /// Makes room for `rows` rows of bf16.
    pub(crate) fn resize_halves(&mut self, rows: usize, length: usize) {
        if !matches!(self, Self::Halves(_)) {
            *self = Self::Halves(HalfRows::default());
        }
        if let Self::Halves(out) = self {
            out.resize(rows, length);
        }
    }

    /// Makes room for `rows` rows of inputs of a layer.
    pub(crate) fn resize_for(&mut self, layer: &PackedLinear, rows: usize) {
        let length = layer.inputs;
        match (&layer.weights, &mut *self) {
            (Weights::Floats(_), _) => unreachable!("a layer of floats reads them as they are"),
            #[cfg(target_arch = "x86_64")]
            (Weights::Halves(_), _) => self.resize_halves(rows, length),
            (Weights::Swapped(_), Self::Swapped(out)) => out.resize(rows, length),
            (Weights::Pairs { .. }, Self::Pairs(out)) => out.resize(rows, length, 2),
            #[cfg(target_arch = "x86_64")]
            (Weights::Bytes { .. }, Self::Bytes(out)) => out.resize(rows, length, 4),
            // The buffer was of another type.
            (Weights::Swapped(_), _) => {
                *self = Self::Swapped(HalfRows::default());
                self.resize_for(layer, rows);
            }
            (Weights::Pairs { .. }, _) => {
                *self = Self::Pairs(RoundedRows::default());
                self.resize_for(layer, rows);
            }
            #[cfg(target_arch = "x86_64")]
            (Weights::Bytes { .. }, _) => {
                *self = Self::Bytes(RoundedRows::default());
                self.resize_for(layer, rows);
            }
        }
    }

    /// Returns blocks of `columns` values, a multiple of [`super::quantized::GROUP`] unless it is a whole row, by `rows`
    /// rows: first the blocks of the first columns.
    pub(crate) fn blocks(&mut self, columns: usize, rows: usize) -> Vec<Block<'_>> {
        match self {
            Self::Halves(out) => {
                let blocks = MatrixMut::new(&mut out.values, out.stride).blocks(columns, rows);
                blocks.into_iter().map(Block::Halves).collect()
            }
            Self::Swapped(out) => {
                let blocks = MatrixMut::new(&mut out.values, out.stride).blocks(columns, rows);
                blocks.into_iter().map(Block::Swapped).collect()
            }
            Self::Pairs(out) => {
                let blocks = out.blocks(columns, rows);
                blocks.into_iter().map(Block::Pairs).collect()
            }
            #[cfg(target_arch = "x86_64")]
            Self::Bytes(out) => {
                let blocks = out.blocks(columns, rows);
                blocks.into_iter().map(Block::Bytes).collect()
            }
        }
    }

    /// Rounds the inputs of a layer, `[rows, inputs]`, that `make` writes: it takes the first row and values to write.
    pub(crate) fn fill(
        &mut self,
        layer: &PackedLinear,
        rows: usize,
        make: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        self.resize_for(layer, rows);
        let (length, level) = (layer.inputs, layer.level);
        if rows == 0 || length == 0 {
            return;
        }
        let piece = (PIECE / length).max(1);
        let whole = length.next_multiple_of(4); // with padding: one block is as wide as a row
        let blocks = self.blocks(whole, piece);
        blocks.into_par_iter().enumerate().for_each_init(
            || vec![0.0; piece * length],
            |scratch, (index, mut block)| {
                let first = index * piece;
                let scratch = &mut scratch[..piece.min(rows - first) * length];
                make(first, scratch);
                block.round(level, scratch, length);
            },
        );
    }
}
