//! Products with the tiles of the packed layers, for operands that are packed at each call: those of attention.

use crate::{
    level::Level,
    linear::tile::{self, TILE, TileShape},
    matrix::Matrix,
};

/// The right operand of a product, in the layout that the tile kernels read: `[panels, depth, columns of a panel]`.
pub(crate) struct Panels {
    shape: TileShape,
    values: Vec<f32>,
    depth: usize,
    columns: usize,
}

impl Panels {
    /// Packs the transpose of `m`, `[columns, depth]`, times `scale`.
    pub(crate) fn transposed(level: Level, m: Matrix<'_>, scale: f32) -> Self {
        let (columns, depth) = m.size();
        let mut panels = Self::zeros(TileShape::of_floats(level), depth, columns);
        let width = panels.shape.columns;
        for column in 0..columns {
            let panel = &mut panels.values[column / width * width * depth..];
            let values = panel[column % width..].iter_mut().step_by(width);
            for (to, from) in values.zip(m.row(column)) {
                *to = from * scale;
            }
        }
        panels
    }

    /// Packs `m`, `[depth, columns]`, which has few columns.
    pub(crate) fn new(level: Level, m: Matrix<'_>) -> Self {
        let (depth, columns) = m.size();
        let shape = TileShape::of_narrow_floats(level, columns);
        let mut panels = Self::zeros(shape, depth, columns);
        for index in 0..depth {
            for (panel, from) in m.row(index).chunks(shape.columns).enumerate() {
                let line = &mut panels.values[(panel * depth + index) * shape.columns..];
                line[..from.len()].copy_from_slice(from);
            }
        }
        panels
    }

    fn zeros(shape: TileShape, depth: usize, columns: usize) -> Self {
        Self {
            shape,
            values: vec![0.0; columns.next_multiple_of(shape.columns) * depth],
            depth,
            columns,
        }
    }

    /// Computes the product `left` · these panels; `write` receives pieces of its rows, with row and first column.
    pub(crate) fn multiply(
        &self,
        level: Level,
        left: Matrix<'_>,
        mut write: impl FnMut(usize, usize, &[f32]),
    ) {
        let shape = self.shape;
        let mut tile = [0.0; TILE];
        self.for_each_tile(left, |panel, first, valid, top, count| {
            let rows = left.tile_rows(top, count);
            tile::floats(level, shape, rows, panel, (&mut tile, shape.columns));
            let rows = tile.chunks_exact(shape.columns).take(count);
            for (row, values) in rows.enumerate() {
                write(top + row, first, &values[..valid]);
            }
        });
    }

    /// Computes the product `left` · these panels as row-major values.
    pub(crate) fn multiply_into(&self, level: Level, left: Matrix<'_>, out: &mut [f32]) {
        let (shape, stride) = (self.shape, self.columns);
        let mut tile = [0.0; TILE];
        self.for_each_tile(left, |panel, first, valid, top, count| {
            let rows = left.tile_rows(top, count);
            let out = &mut out[top * stride + first..];
            if valid == shape.columns {
                tile::floats(level, shape, rows, panel, (out, stride));
                return;
            }
            tile::floats(level, shape, rows, panel, (&mut tile, shape.columns));
            let rows = tile.chunks_exact(shape.columns).take(count);
            for (row, values) in rows.enumerate() {
                out[row * stride..][..valid].copy_from_slice(&values[..valid]);
            }
        });
    }

    /// Calls a function with panel, first column, number of columns, first row and number of rows of every tile.
    fn for_each_tile(
        &self,
        left: Matrix<'_>,
        mut work: impl FnMut(&[f32], usize, usize, usize, usize),
    ) {
        let (rows, depth) = left.size();
        assert_eq!(depth, self.depth, "columns of the left operand");
        let length = (depth * self.shape.columns).max(1);
        let firsts = (0..self.columns).step_by(self.shape.columns);
        for (panel, first) in self.values.chunks_exact(length).zip(firsts) {
            let valid = self.shape.columns.min(self.columns - first);
            for top in (0..rows).step_by(self.shape.rows) {
                work(panel, first, valid, top, self.shape.rows.min(rows - top));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // whole numbers, exact in any order of sums
mod tests {
    use super::*;

    fn counting(length: usize) -> Vec<f32> {
        (0..length).map(|i| ((i * 37) % 19) as f32 - 9.0).collect()
    }

    fn plain(
        left: &[f32],
        right: impl Fn(usize, usize) -> f32,
        depth: usize,
        n: usize,
    ) -> Vec<f32> {
        let rows = left.chunks_exact(depth);
        rows.flat_map(|row| {
            let right = &right;
            (0..n).map(move |c| row.iter().enumerate().map(|(k, x)| x * right(k, c)).sum())
        })
        .collect()
    }

    #[test]
    fn products_with_panels_agree_with_plain_products() {
        for level in Level::available() {
            for (rows, depth, columns) in [(1, 1, 1), (7, 5, 9), (13, 64, 100), (8, 33, 64)] {
                let (a, b) = (counting(rows * depth), counting(depth * columns));
                let what = format!("{level:?} {rows}×{depth}×{columns}");
                // `b` is stored as `[depth, columns]`, then as `[columns, depth]`.
                let expected = plain(&a, |k, c| b[k * columns + c], depth, columns);
                let mut found = vec![1.0; rows * columns];
                let panels = Panels::new(level, Matrix::new(&b, columns));
                panels.multiply(level, Matrix::new(&a, depth), |row, first, values| {
                    found[row * columns + first..][..values.len()].copy_from_slice(values);
                });
                assert_eq!(found, expected, "{what}");

                let expected = plain(&a, |k, c| 2.0 * b[c * depth + k], depth, columns);
                let panels = Panels::transposed(level, Matrix::new(&b, depth), 2.0);
                panels.multiply_into(level, Matrix::new(&a, depth), &mut found);
                assert_eq!(found, expected, "{what}, transposed");

                // This left operand is stored transposed.
                let turned: Vec<f32> = (0..depth * rows)
                    .map(|i| a[i % rows * depth + i / rows])
                    .collect();
                let left = Matrix::new(&turned, rows).transposed();
                panels.multiply_into(level, left, &mut found);
                assert_eq!(found, expected, "{what}, both transposed");
            }
        }
    }
}
