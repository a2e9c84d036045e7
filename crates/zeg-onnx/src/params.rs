//! The parameters of a model in main memory, by the names of the reference checkpoints.

use std::collections::BTreeMap;

use zeg_model::{method::Model, params::AnyParam};

use crate::OnnxError;

/// A parameter: shape and values, row-major.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Lengths of the axes, slowest first.
    pub shape: Vec<usize>,
    /// Values.
    pub values: Vec<f32>,
}

impl Parameter {
    /// Returns the matrix with rows and columns exchanged.
    pub(crate) fn transposed(&self) -> Self {
        let [rows, columns] = self.shape[..] else {
            return self.clone();
        };
        let mut values = Vec::with_capacity(self.values.len());
        for column in 0..columns {
            values.extend((0..rows).map(|row| self.values[row * columns + column]));
        }
        Self {
            shape: vec![columns, rows],
            values,
        }
    }

    /// Returns some rows: the parts of the first axis.
    pub(crate) fn rows(&self, start: usize, count: usize) -> Self {
        let row: usize = self.shape.iter().skip(1).product();
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = count;
        }
        Self {
            shape,
            values: self.values[start * row..(start + count) * row].to_vec(),
        }
    }

    /// Returns some columns of a matrix, or channels of a kernel: the parts of the second axis.
    pub(crate) fn columns(&self, start: usize, count: usize) -> Self {
        let (rows, columns) = (self.shape[0], self.shape.get(1).copied().unwrap_or(1));
        let inner: usize = self.shape.iter().skip(2).product();
        let mut values = Vec::with_capacity(rows * count * inner);
        for row in 0..rows {
            let first = (row * columns + start) * inner;
            values.extend_from_slice(&self.values[first..first + count * inner]);
        }
        let mut shape = self.shape.clone();
        if let Some(second) = shape.get_mut(1) {
            *second = count;
        }
        Self { shape, values }
    }

    /// Applies a linear layer to rows, in double precision: `[rows, in]` → `[rows, out]`.
    ///
    /// - `weight`: `[out, in]`
    pub(crate) fn linear(&self, weight: &Self, bias: &Self) -> Self {
        let input = weight.shape.get(1).copied().unwrap_or(1).max(1);
        let output = weight.shape[0];
        let rows = self.values.chunks_exact(input);
        let values = rows.flat_map(|row| {
            let weights = weight.values.chunks_exact(input).zip(&bias.values);
            weights.map(move |(weights, bias)| {
                let products = row.iter().zip(weights);
                let sum: f64 = products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                (sum + f64::from(*bias)) as f32
            })
        });
        let values: Vec<f32> = values.collect();
        Self {
            shape: vec![values.len() / output.max(1), output],
            values,
        }
    }
}

/// All parameters of a model.
#[derive(Debug, Clone, Default)]
pub struct ParameterSet(BTreeMap<String, Parameter>);

impl ParameterSet {
    /// Reads the parameters of a model, which must not be packed.
    ///
    /// - `wanted`: returns by name whether a parameter is read
    pub fn of_model(model: &dyn Model, wanted: impl Fn(&str) -> bool) -> Self {
        let mut all = BTreeMap::new();
        model.each(&mut |name: &str, param: &dyn AnyParam| {
            if wanted(name) {
                let values = param.flat().into_data().convert::<f32>();
                let values = values.try_to_vec().unwrap_or_default();
                let shape = param.shape();
                all.insert(name.to_owned(), Parameter { shape, values });
            }
        });
        Self(all)
    }

    /// Returns a parameter by its name.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn get(&self, name: &str) -> Result<&Parameter, OnnxError> {
        self.0.get(name).ok_or_else(|| OnnxError::MissingParameter {
            name: name.to_owned(),
        })
    }

    /// Puts a parameter into the set.
    pub(crate) fn put(&mut self, name: String, parameter: Parameter) {
        self.0.insert(name, parameter);
    }

    /// Returns whether there is a parameter of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_matrix_are_cut_and_turned() {
        let matrix = Parameter {
            shape: vec![2, 3],
            values: vec![1., 2., 3., 4., 5., 6.],
        };
        assert_eq!(matrix.transposed().values, [1., 4., 2., 5., 3., 6.]);
        assert_eq!(matrix.rows(1, 1).values, [4., 5., 6.]);
        assert_eq!(matrix.columns(1, 2).values, [2., 3., 5., 6.]);
        let bias = Parameter {
            shape: vec![2],
            values: vec![0.5, -1.0],
        };
        let row = Parameter {
            shape: vec![1, 3],
            values: vec![1., 0., -1.],
        };
        assert_eq!(row.linear(&matrix, &bias).values, [-1.5, -3.0]);
    }
}
