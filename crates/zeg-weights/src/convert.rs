//! Converts stored bytes to `f32`.
//!
//! `f32` is read directly into the result. The 16-bit types use the processor's own conversion, on all threads for
//! large tensors. The memory allocated here is bounded by the number of bytes in the file.

use half::{
    bf16, f16,
    slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _},
};
use rayon::prelude::*;
use safetensors::Dtype;

use crate::{WeightsError, container::StoredTensor, source::Source};

/// Number of elements that one thread converts at a time.
const CHUNK: usize = 1 << 18;

/// Reads the values of a tensor in row-major order; `key` is its name for error messages.
///
/// # Errors
/// Returns an error if the stored type is not `f32`, `f16`, `bf16` or `f64`, or if the file cannot be read.
pub(crate) fn values(
    source: &Source,
    key: &str,
    stored: &StoredTensor,
) -> Result<Vec<f32>, WeightsError> {
    let read = |error| WeightsError::Read {
        path: source.path().to_owned(),
        source: error,
    };
    let span = stored.span;
    let values = match stored.dtype {
        Dtype::F32 => {
            let mut values = vec![0.0_f32; span];
            source
                .fill(stored.start, bytemuck::cast_slice_mut(&mut values))
                .map_err(read)?;
            if cfg!(target_endian = "big") {
                for value in &mut values {
                    *value = f32::from_bits(value.to_bits().swap_bytes());
                }
            }
            values
        }
        Dtype::F16 | Dtype::BF16 => {
            let mut bits = vec![0_u16; span];
            source
                .fill(stored.start, bytemuck::cast_slice_mut(&mut bits))
                .map_err(read)?;
            if cfg!(target_endian = "big") {
                for value in &mut bits {
                    *value = value.swap_bytes();
                }
            }
            let mut values = vec![0.0; span];
            if span <= CHUNK {
                widen(stored.dtype, &bits, &mut values);
            } else {
                bits.par_chunks(CHUNK)
                    .zip(values.par_chunks_mut(CHUNK))
                    .for_each(|(bits, values)| widen(stored.dtype, bits, values));
            }
            values
        }
        Dtype::F64 => {
            let mut bits = vec![0_u64; span];
            source
                .fill(stored.start, bytemuck::cast_slice_mut(&mut bits))
                .map_err(read)?;
            bits.iter()
                .map(|bits| f64::from_bits(u64::from_le(*bits)) as f32)
                .collect()
        }
        other => {
            return Err(WeightsError::Format {
                path: source.path().to_owned(),
                reason: format!(
                    "tensor {key:?} is stored as {other:?}; weights must be F32, F16, BF16, F64 or compact I8"
                ),
            });
        }
    };
    Ok(match &stored.strides {
        Some(strides) => gather(&values, &stored.shape, strides),
        None => values,
    })
}

/// Converts 16-bit numbers to `f32`.
fn widen(dtype: Dtype, bits: &[u16], values: &mut [f32]) {
    if dtype == Dtype::F16 {
        bits.reinterpret_cast::<f16>().convert_to_f32_slice(values);
    } else {
        bits.reinterpret_cast::<bf16>().convert_to_f32_slice(values);
    }
}

/// Reads the stored bytes of a tensor, or returns `None` if they are not contiguous in row-major order.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub(crate) fn bytes(
    source: &Source,
    stored: &StoredTensor,
) -> Result<Option<Vec<u8>>, WeightsError> {
    let size = stored.dtype.bitsize() / 8;
    if stored.strides.is_some() || size == 0 {
        return Ok(None);
    }
    source
        .exactly(stored.start, stored.span.saturating_mul(size))
        .map(Some)
        .map_err(|defect| defect.of(source.path()))
}

/// Gathers the elements of a strided view in row-major order.
fn gather(span: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let (Some((&size, outer_shape)), Some((&stride, outer_strides))) =
        (shape.split_last(), strides.split_last())
    else {
        return span.to_vec();
    };
    let rows: usize = outer_shape.iter().product();
    let mut values = Vec::with_capacity(rows.saturating_mul(size));
    let mut index = vec![0; outer_shape.len()];
    for _ in 0..rows {
        let first: usize = index.iter().zip(outer_strides).map(|(i, s)| i * s).sum();
        values.extend((0..size).filter_map(|i| span.get(first + i * stride)));
        // Advance the index, the last dimension fastest.
        for (i, &size) in index.iter_mut().zip(outer_shape).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
    values
}

/// Returns the transpose of a row-major matrix, `[rows, columns]` to `[columns, rows]`.
pub(crate) fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    gather(values, &[columns, rows], &[1, columns.max(1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_gathered_in_row_major_order() {
        let span: Vec<f32> = (0..12_u8).map(f32::from).collect();
        assert_eq!(gather(&span, &[2, 3], &[1, 4]), [0., 4., 8., 1., 5., 9.]);
        assert_eq!(
            gather(&span, &[2, 2, 2], &[6, 0, 2]),
            [0., 2., 0., 2., 6., 8., 6., 8.]
        );
        assert_eq!(gather(&span, &[3], &[5]), [0., 5., 10.]);
        assert_eq!(gather(&span[..6], &[0, 3], &[3, 1]), [0.0; 0]);
        assert_eq!(transpose(&span[..6], 2, 3), [0., 3., 1., 4., 2., 5.]);
    }
}
