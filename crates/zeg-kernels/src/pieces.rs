//! Access to tensors' values, and division of work among threads.
//!
//! Element-wise and row-wise kernels change values in place. If no other tensor shares the values, they are changed
//! directly; otherwise they are copied piece by piece on the way, while the piece is in the cache.

use burn::{
    backend::{Flex, tensor::FloatTensor},
    tensor::TensorData,
};
use rayon::prelude::*;

/// A tensor of burn's CPU backend.
pub(crate) type CpuTensor = FloatTensor<Flex>;

/// Approximate number of values in a piece: few enough for the second-level cache, enough to be worth a thread.
const PIECE: usize = 16 * 1024;

/// Returns the tensor in row-major order, without values before or after it; copies it if necessary.
pub(crate) fn contiguous(x: CpuTensor) -> CpuTensor {
    let layout = x.layout();
    let whole = layout.is_contiguous()
        && layout.start_offset() == 0
        && x.bytes().len() == layout.num_elements() * size_of::<f32>();
    if whole { x } else { x.to_contiguous() }
}

/// Returns the values of a tensor that [`contiguous`] returned.
pub(crate) fn values(x: &CpuTensor) -> &[f32] {
    x.storage::<f32>()
}

/// Returns a tensor of `shape` with these values, row-major.
pub(crate) fn tensor(values: Vec<f32>, shape: &[usize]) -> CpuTensor {
    CpuTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// Returns the shape of a tensor.
pub(crate) fn shape(x: &CpuTensor) -> Vec<usize> {
    x.layout().shape().to_vec()
}

/// Returns the length of a row of a tensor of this shape, at least 1.
pub(crate) fn row_length(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1).max(1)
}

/// Returns the number of values in a piece of whole rows.
pub(crate) fn piece_of_rows(row: usize) -> usize {
    (PIECE / row).max(1) * row
}

/// Changes the values of `x`, in pieces of whole rows of `row` values.
pub(crate) fn change(
    x: CpuTensor,
    row: usize,
    kernel: impl Fn(&mut [f32]) + Send + Sync,
) -> CpuTensor {
    let mut x = contiguous(x);
    let piece = piece_of_rows(row);
    if let Some(values) = x.try_storage_mut::<f32>() {
        values.par_chunks_mut(piece).for_each(kernel);
        return x;
    }
    let from = values(&x);
    let mut changed = vec![0.0; from.len()];
    changed
        .par_chunks_mut(piece)
        .zip(from.par_chunks(piece))
        .for_each(|(to, from)| {
            to.copy_from_slice(from);
            kernel(to);
        });
    let shape = shape(&x);
    tensor(changed, &shape)
}

/// Changes the values of `x` as [`change`] does, for a kernel that reads the same piece of `other`, a tensor of the
/// same shape.
pub(crate) fn change_by(
    x: CpuTensor,
    other: &CpuTensor,
    row: usize,
    kernel: impl Fn(&mut [f32], &[f32]) + Send + Sync,
) -> CpuTensor {
    let mut x = contiguous(x);
    let other = contiguous(other.clone());
    let piece = piece_of_rows(row);
    let others = values(&other).par_chunks(piece);
    if let Some(values) = x.try_storage_mut::<f32>() {
        values
            .par_chunks_mut(piece)
            .zip(others)
            .for_each(|(to, other)| kernel(to, other));
        return x;
    }
    let from = values(&x);
    let mut changed = vec![0.0; from.len()];
    changed
        .par_chunks_mut(piece)
        .zip(from.par_chunks(piece).zip(others))
        .for_each(|(to, (from, other))| {
            to.copy_from_slice(from);
            kernel(to, other);
        });
    let shape = shape(&x);
    tensor(changed, &shape)
}
