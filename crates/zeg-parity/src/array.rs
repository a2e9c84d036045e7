//! Holds arrays of `f64` in main memory, which can represent every type that a file of reference numbers stores.

use burn::tensor::{Device, Tensor, TensorData};
use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorView};
use zeg_model::weights::HostTensor;

use super::ParityError;

/// An array of values of any stored type, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    /// Sizes of the axes, outermost first.
    pub(crate) shape: Vec<usize>,
    /// The values, `shape.product()` of them.
    pub(crate) values: Vec<f64>,
}

impl Array {
    /// Creates an array of one number, `[1]`.
    pub(crate) fn scalar(value: f64) -> Self {
        Self::row(vec![value])
    }

    /// Creates a row of numbers, `[values.len()]`.
    pub(crate) fn row(values: Vec<f64>) -> Self {
        Self {
            shape: vec![values.len()],
            values,
        }
    }

    /// Creates an array of a shape from values of any number type.
    pub(crate) fn from_values<T: Copy + Into<f64>>(shape: &[usize], values: &[T]) -> Self {
        Self {
            shape: shape.to_vec(),
            values: values.iter().map(|&v| v.into()).collect(),
        }
    }

    /// Reads a tensor from its device.
    pub(crate) fn of<const D: usize>(tensor: Tensor<D>) -> Result<Self, ParityError> {
        Self::of_data(tensor.without_autodiff().into_data())
    }

    /// Converts the data that a trace recorded.
    pub(crate) fn of_data(data: TensorData) -> Result<Self, ParityError> {
        let data = data.convert::<f32>();
        let shape = data.shape().to_vec();
        let values: Vec<f32> = data
            .try_into_vec()
            .map_err(|error| ParityError::Backend(format!("{error:?}")))?;
        Ok(Self::from_values(&shape, &values))
    }

    /// Decodes a stored tensor; returns `None` for types that no file of reference numbers uses.
    pub(crate) fn decode(view: &TensorView) -> Option<Self> {
        let bytes = view.data();
        let values = match view.dtype() {
            Dtype::F64 => numbers::<8>(bytes, f64::from_le_bytes),
            Dtype::F32 => numbers::<4>(bytes, |b| f32::from_le_bytes(b).into()),
            Dtype::F16 => numbers::<2>(bytes, |b| f16::from_le_bytes(b).into()),
            Dtype::BF16 => numbers::<2>(bytes, |b| bf16::from_le_bytes(b).into()),
            Dtype::I64 => numbers::<8>(bytes, |b| i64::from_le_bytes(b) as f64),
            Dtype::I32 => numbers::<4>(bytes, |b| i32::from_le_bytes(b).into()),
            Dtype::I16 => numbers::<2>(bytes, |b| i16::from_le_bytes(b).into()),
            Dtype::I8 => numbers::<1>(bytes, |b| i8::from_le_bytes(b).into()),
            Dtype::U8 | Dtype::BOOL => numbers::<1>(bytes, |[b]| b.into()),
            _ => return None,
        };
        Some(Self {
            shape: view.shape().to_vec(),
            values,
        })
    }

    /// Returns the root mean square.
    pub(crate) fn rms(&self) -> f64 {
        let sum: f64 = self.values.iter().map(|v| v * v).sum();
        (sum / self.values.len().max(1) as f64).sqrt()
    }

    /// Returns the largest absolute value.
    pub(crate) fn largest(&self) -> f64 {
        self.values.iter().fold(0.0, |most, v| v.abs().max(most))
    }

    /// Returns the Euclidean norm.
    pub(crate) fn norm(&self) -> f64 {
        self.values.iter().map(|v| v * v).sum::<f64>().sqrt()
    }

    /// Returns the values as `f32`, the type of the models.
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        self.values.iter().map(|&v| v as f32).collect()
    }

    /// Returns the values as `u32`, for token ids.
    pub(crate) fn to_u32(&self) -> Vec<u32> {
        self.values.iter().map(|&v| v as u32).collect()
    }

    /// Returns the values as bytes, for grey levels and stored labels.
    pub(crate) fn to_u8(&self) -> Vec<u8> {
        self.values.iter().map(|&v| v as u8).collect()
    }

    /// Returns the array as weights of a model.
    pub(crate) fn to_host(&self) -> HostTensor {
        HostTensor {
            shape: self.shape.clone(),
            values: self.to_f32(),
        }
    }

    /// Returns the array as a tensor with `D` axes; `None` if it has another number of axes.
    pub(crate) fn to_tensor<const D: usize>(&self, device: &Device) -> Option<Tensor<D>> {
        (self.shape.len() == D).then(|| {
            let data = TensorData::new(self.to_f32(), self.shape.clone());
            Tensor::from_data(data, device)
        })
    }

    /// Returns every `step`-th entry along the given axes, starting with the first.
    pub(crate) fn every(&self, step: usize, axes: std::ops::Range<usize>) -> Self {
        let mut result = self.clone();
        for axis in axes {
            result = result.every_along(step, axis);
        }
        result
    }

    fn every_along(&self, step: usize, axis: usize) -> Self {
        let inner: usize = self.shape[axis + 1..].iter().product();
        let length = self.shape[axis];
        let mut shape = self.shape.clone();
        shape[axis] = length.div_ceil(step);
        let values = self
            .values
            .chunks_exact((inner * length).max(1))
            .flat_map(|outer| outer.chunks_exact(inner.max(1)).step_by(step).flatten())
            .copied()
            .collect();
        Self { shape, values }
    }

    /// Returns every `stride`-th value of the flattened array, at most `count` of them.
    pub(crate) fn sampled(&self, stride: usize, count: usize) -> Self {
        let values = self.values.iter().step_by(stride.max(1)).take(count);
        Self::row(values.copied().collect())
    }
}

fn numbers<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let chunks = bytes.as_chunks::<N>().0;
    chunks.iter().map(|chunk| convert(*chunk)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_row_and_column_is_taken() {
        let array = Array::from_values(&[1, 3, 4], &(0..12).collect::<Vec<i32>>());
        let thinned = array.every(2, 1..3);
        assert_eq!(thinned.shape, [1, 2, 2]);
        assert_eq!(thinned.values, [0.0, 2.0, 8.0, 10.0]);
        assert_eq!(array.sampled(5, 2).values, [0.0, 5.0]);
    }
}
