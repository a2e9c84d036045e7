//! Views of rectangular blocks inside larger matrices.
//!
//! Attention works on blocks of packed tensors: one head's columns, some of its rows. A [`Matrix`] is such a block to
//! read, a [`MatrixMut`] one to write. Blocks to write are made by splitting, so that threads can hold neighbouring
//! blocks.

use std::marker::PhantomData;

use crate::linear::tile::Rows;

/// A block of 32-bit floats to read.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// Values, beginning with the block's first one.
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Distances between neighbouring values of a column, and of a row.
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Returns the whole of a row-major matrix with rows of `columns`.
    pub(crate) fn new(values: &'a [f32], columns: usize) -> Self {
        assert!(columns > 0, "a matrix needs at least one column");
        Self {
            values,
            rows: values.len() / columns,
            columns,
            strides: [columns, 1],
        }
    }

    /// Returns `count` rows from `first` on.
    pub(crate) fn rows(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows, "rows past the end");
        Self {
            values: &self.values[first * self.strides[0]..],
            rows: count,
            ..self
        }
    }

    /// Returns `count` columns from `first` on.
    pub(crate) fn columns(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.columns, "columns past the end");
        Self {
            values: &self.values[first * self.strides[1]..],
            columns: count,
            ..self
        }
    }

    /// Returns one row; the rows of the matrix must be contiguous.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        assert!(
            row < self.rows && self.strides[1] == 1,
            "row {row} of {}",
            self.rows
        );
        &self.values[row * self.strides[0]..][..self.columns]
    }

    /// Returns `count` rows from `first` on, for the tile kernels.
    pub(crate) fn tile_rows(&self, first: usize, count: usize) -> Rows<'a, f32> {
        assert!(first + count <= self.rows, "rows past the end");
        let [stride, step] = self.strides;
        Rows::new(&self.values[first * stride..], stride, count).with_step(step)
    }

    /// Returns the numbers of rows and columns.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Returns the transpose.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            strides: [self.strides[1], self.strides[0]],
            ..self
        }
    }
}

/// A block of values to write, 32-bit floats unless stated otherwise; its rows are contiguous.
pub(crate) struct MatrixMut<'a, T = f32> {
    first: *mut T,
    rows: usize,
    columns: usize,
    /// Distance from one row to the next; at least `columns`.
    stride: usize,
    /// Marks that the block owns its values and no others, as if it held a `&mut` to each.
    values: PhantomData<&'a mut [T]>,
}

// SAFETY: only this block can access its values, like a `&mut [T]`, which may go to another thread.
unsafe impl<T: Send> Send for MatrixMut<'_, T> {}

impl<'a, T> MatrixMut<'a, T> {
    /// Returns the whole of a row-major matrix with rows of `columns`.
    pub(crate) fn new(values: &'a mut [T], columns: usize) -> Self {
        assert!(columns > 0, "a matrix needs at least one column");
        Self {
            rows: values.len() / columns,
            first: values.as_mut_ptr(),
            columns,
            stride: columns,
            values: PhantomData,
        }
    }

    /// Splits the block into blocks of `count` columns, side by side; the last may have fewer.
    pub(crate) fn split_columns(self, count: usize) -> Vec<MatrixMut<'a, T>> {
        let starts = (0..self.columns).step_by(count.max(1));
        starts
            .map(|start| MatrixMut {
                // Inside the first row, since `start < columns`. Blocks share no column, hence no value.
                first: self.first.wrapping_add(start),
                columns: count.min(self.columns - start),
                values: PhantomData,
                ..self
            })
            .collect()
    }

    /// Splits the block into blocks of `count` rows, one below the other; the last may have fewer.
    pub(crate) fn split_rows(self, count: usize) -> Vec<MatrixMut<'a, T>> {
        let starts = (0..self.rows).step_by(count.max(1));
        starts
            .map(|start| MatrixMut {
                // Inside the matrix, since `start < rows`. Blocks share no row, hence no value.
                first: self.first.wrapping_add(start * self.stride),
                rows: count.min(self.rows - start),
                values: PhantomData,
                ..self
            })
            .collect()
    }

    /// Splits the block into blocks of `columns` by `rows`; the blocks of the first columns come first.
    pub(crate) fn blocks(self, columns: usize, rows: usize) -> Vec<MatrixMut<'a, T>> {
        let parts = self.split_columns(columns).into_iter();
        parts.flat_map(|part| part.split_rows(rows)).collect()
    }

    /// Returns `count` rows from `first` on, for as long as this block is borrowed.
    pub(crate) fn rows(&mut self, first: usize, count: usize) -> MatrixMut<'_, T> {
        assert!(first + count <= self.rows, "rows past the end");
        MatrixMut {
            first: self.first.wrapping_add(first * self.stride),
            rows: count,
            columns: self.columns,
            stride: self.stride,
            values: PhantomData,
        }
    }

    /// Returns the numbers of rows and columns.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Returns one row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row's values are in the matrix that this block was split from, nothing else accesses them while
        // the block lives, and the result borrows the block.
        unsafe {
            std::slice::from_raw_parts_mut(self.first.wrapping_add(row * self.stride), self.columns)
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // values are written and read back
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_matrix_are_its_values() {
        let values: Vec<f32> = (0..7 * 20).map(|i| i as f32).collect();
        let block = Matrix::new(&values, 20).columns(3, 5).rows(2, 4);
        assert_eq!(block.size(), (4, 5));
        assert_eq!(block.row(1), &values[63..68]);
        assert_eq!(block.transposed().size(), (5, 4));
    }

    #[test]
    fn split_blocks_cover_every_value_once() {
        let mut values = vec![0.0; 7 * 6];
        for half in MatrixMut::new(&mut values, 6).split_columns(4) {
            for mut tile in half.split_rows(3) {
                for row in 0..tile.rows {
                    tile.row(row).iter_mut().for_each(|value| *value += 1.0);
                }
            }
        }
        assert_eq!(values, [1.0; 42]);
    }

    #[test]
    #[should_panic(expected = "columns past the end")]
    fn columns_past_the_end_are_refused() {
        Matrix::new(&[0.0; 6], 3).columns(1, 3);
    }
}
