//! Right operands of the products of attention in bf16, packed for the tiles.

use crate::{
    level::Level,
    linear::tile::{self, Rows, TILE, TileShape},
};

/// The right operand of a product: `[panels, depth / 2, columns of a panel, 2]`, padded with zeros.
pub(super) struct Panels {
    pub(super) shape: TileShape,
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
    pub(super) fn of_keys<'a>(
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
    pub(super) fn of_values<'a>(
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

    /// Returns the columns of the panels together, the padded ones included.
    pub(super) fn columns(&self) -> usize {
        self.values.len() / (2 * self.depth).max(1)
    }

    /// Writes the products with `rows` rows to `out`, `[rows, columns]`, the padded columns included.
    ///
    /// - `left`: the rows, `stride` values apart
    pub(super) fn multiply_into(
        &self,
        level: Level,
        left: &[u16],
        stride: usize,
        rows: usize,
        out: &mut [f32],
    ) {
        let (shape, columns) = (self.shape, self.columns());
        for (panel, left_column) in self.iter().zip((0..).step_by(shape.columns)) {
            for top in (0..rows).step_by(shape.rows) {
                let count = shape.rows.min(rows - top);
                let operand = Rows::new(&left[top * stride..], stride, count);
                let out = &mut out[top * columns + left_column..];
                tile::halves(level, shape, operand, panel, (out, columns));
            }
        }
    }

    /// Computes the products with `rows` rows, and passes each part of a result's row with its row and first column to
    /// `write`; padded columns come as well.
    ///
    /// - `left`: the rows, `stride` values apart, and their pairs `step` pairs apart
    pub(super) fn multiply(
        &self,
        level: Level,
        left: &[u16],
        [stride, step]: [usize; 2],
        rows: usize,
        mut write: impl FnMut(usize, usize, &[f32]),
    ) {
        let mut sums = [0.0; TILE];
        let shape = self.shape;
        for (panel, first) in self.iter().zip((0..).step_by(shape.columns)) {
            for top in (0..rows).step_by(shape.rows) {
                let count = shape.rows.min(rows - top);
                let operand = Rows::new(&left[top * stride..], stride, count).with_step(step);
                tile::halves(level, shape, operand, panel, (&mut sums, shape.columns));
                for (row, sums) in sums.chunks_exact(shape.columns).take(count).enumerate() {
                    write(top + row, first, sums);
                }
            }
        }
    }
}
