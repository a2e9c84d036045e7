//! Matrices inside larger ones, and their products.
//!
//! Attention works on blocks of packed tensors: one head's columns, some of its rows. A [`Matrix`] is such a block
//! to read, a [`MatrixMut`] one to write; the blocks to write are made by splitting, so that threads can hold
//! neighbours.

use std::marker::PhantomData;

/// A block of 32-bit floats to read.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    /// From the block's first value on.
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Distance of values that follow each other in a column, and in a row.
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// All of a row-major matrix with rows of `columns`.
    pub(crate) fn new(values: &'a [f32], columns: usize) -> Self {
        assert!(columns > 0, "a matrix has columns");
        Self {
            values,
            rows: values.len() / columns,
            columns,
            strides: [columns, 1],
        }
    }

    /// `count` rows from `first` on.
    pub(crate) fn rows(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows, "rows past the end");
        Self {
            values: &self.values[first * self.strides[0]..],
            rows: count,
            ..self
        }
    }

    /// `count` columns from `first` on.
    pub(crate) fn columns(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.columns, "columns past the end");
        Self {
            values: &self.values[first * self.strides[1]..],
            columns: count,
            ..self
        }
    }

    /// Rows as columns.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            strides: [self.strides[1], self.strides[0]],
            ..self
        }
    }

    /// Whether every value of the block lies in the slice.
    fn fits(&self) -> bool {
        let last = self.rows.saturating_sub(1) * self.strides[0]
            + self.columns.saturating_sub(1) * self.strides[1];
        self.rows == 0 || self.columns == 0 || last < self.values.len()
    }
}

/// A block of 32-bit floats to write; its rows are contiguous.
pub(crate) struct MatrixMut<'a> {
    first: *mut f32,
    rows: usize,
    columns: usize,
    /// From one row to the next; at least `columns`.
    stride: usize,
    /// The block has its values, and no others, as if it held a `&mut` to each.
    values: PhantomData<&'a mut [f32]>,
}

// SAFETY: a block alone reaches its values, like a `&mut [f32]`, which may go to another thread.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// All of a row-major matrix with rows of `columns`.
    pub(crate) fn new(values: &'a mut [f32], columns: usize) -> Self {
        assert!(columns > 0, "a matrix has columns");
        Self {
            rows: values.len() / columns,
            first: values.as_mut_ptr(),
            columns,
            stride: columns,
            values: PhantomData,
        }
    }

    /// Blocks of `count` columns, side by side; the last may have fewer.
    pub(crate) fn split_columns(self, count: usize) -> Vec<MatrixMut<'a>> {
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

    /// Blocks of `count` rows, one below the other; the last may have fewer.
    pub(crate) fn split_rows(self, count: usize) -> Vec<MatrixMut<'a>> {
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

    /// `count` rows from `first` on, for as long as this block is borrowed.
    pub(crate) fn rows(&mut self, first: usize, count: usize) -> MatrixMut<'_> {
        assert!(first + count <= self.rows, "rows past the end");
        MatrixMut {
            first: self.first.wrapping_add(first * self.stride),
            rows: count,
            columns: self.columns,
            stride: self.stride,
            values: PhantomData,
        }
    }

    /// All of the block, for as long as it is borrowed.
    pub(crate) fn all(&mut self) -> MatrixMut<'_> {
        let rows = self.rows;
        self.rows(0, rows)
    }

    /// Rows and columns.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// One row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row's values are in the matrix that this block was split from, nobody else reaches them while
        // the block lives, and the result borrows the block.
        unsafe {
            std::slice::from_raw_parts_mut(self.first.wrapping_add(row * self.stride), self.columns)
        }
    }
}

/// What a product does with the values that were there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// Replaces them.
    Overwrite,
    /// Is added to them.
    Add,
}

/// `scale · a · b`, on the calling thread.
///
/// # Panics
/// The shapes do not fit each other.
pub(crate) fn product(out: MatrixMut<'_>, mode: Store, scale: f32, a: Matrix<'_>, b: Matrix<'_>) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert!(
        out.rows == m && out.columns == n && b.rows == k,
        "{m}×{k} times {}×{n} into {}×{}",
        b.rows,
        out.rows,
        out.columns
    );
    assert!(a.fits() && b.fits(), "a block leaves its matrix");
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: `gemm` reads `m × k` values of `a` and `k × n` of `b` at these strides, which lie in their slices
    // (`fits`), and reads and writes `m × n` values of `out`, which it alone reaches; reads and writes cannot
    // overlap, as `out` is exclusive. Strides are below the slices' lengths, hence below `isize::MAX`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.first,
            1,
            out.stride as isize,
            mode == Store::Add,
            a.values.as_ptr(),
            a.strides[1] as isize,
            a.strides[0] as isize,
            b.values.as_ptr(),
            b.strides[1] as isize,
            b.strides[0] as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // whole numbers, exact in any order of sums
mod tests {
    use super::*;

    fn counting(length: usize) -> Vec<f32> {
        (0..length).map(|i| ((i * 37) % 19) as f32 - 9.0).collect()
    }

    #[test]
    fn blocks_of_a_matrix_multiply_like_matrices() {
        let (rows, columns, inner) = (7, 12, 5);
        let (a, b) = (counting(rows * 20), counting(columns * 9));
        let left = Matrix::new(&a, 20).columns(3, inner);
        let right = Matrix::new(&b, 9).columns(2, inner).transposed(); // [inner, columns]
        let mut out = vec![1.0; rows * columns];
        for block in MatrixMut::new(&mut out, columns)
            .split_columns(4)
            .into_iter()
            .enumerate()
        {
            let (index, mut block) = block;
            let right = right.columns(4 * index, 4);
            product(
                block.rows(0, 2),
                Store::Overwrite,
                2.0,
                left.rows(0, 2),
                right,
            );
            product(block.rows(2, 5), Store::Add, 2.0, left.rows(2, 5), right);
        }
        for r in 0..rows {
            for c in 0..columns {
                let sum: f32 = (0..inner)
                    .map(|i| a[r * 20 + 3 + i] * b[c * 9 + 2 + i])
                    .sum();
                let before = if r < 2 { 0.0 } else { 1.0 };
                assert_eq!(out[r * columns + c], before + 2.0 * sum, "{r} {c}");
            }
        }
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
    #[should_panic(expected = "2×3 times 4×5 into 2×5")]
    fn shapes_that_do_not_fit_are_refused() {
        let (a, b) = (counting(6), counting(20));
        let mut out = [0.0; 10];
        product(
            MatrixMut::new(&mut out, 5),
            Store::Overwrite,
            1.0,
            Matrix::new(&a, 3),
            Matrix::new(&b, 5),
        );
    }
}
