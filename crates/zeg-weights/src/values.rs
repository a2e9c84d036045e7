//! Finds values that no weights of a working model have.

/// Number of values that are looked at together.
const BLOCK: usize = 4096;

/// Why the values of a tensor cannot be those of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueDefect {
    /// A value is infinite or not a number, which spreads to every score.
    NotFinite {
        /// Index of the first such value, row-major.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A matrix holds nothing but zeros, which makes all scores equal. Vectors of zeros, such as biases, are common.
    AllZero,
}

/// Returns why values cannot be those of a model; `None` if nothing speaks against them.
///
/// - `shape`: sizes of the dimensions
/// - `values`: as many as the product of `shape`
pub fn value_defect(shape: &[usize], values: &[f32]) -> Option<ValueDefect> {
    if let Some(index) = first_not_finite(values) {
        let value = values[index];
        return Some(ValueDefect::NotFinite { index, value });
    }
    let is_matrix = shape.len() > 1 && !values.is_empty();
    (is_matrix && values.iter().all(|value| *value == 0.0)).then_some(ValueDefect::AllZero)
}

/// Returns the index of the first value that is infinite or not a number.
pub fn first_not_finite(values: &[f32]) -> Option<usize> {
    // Without an early end the check of a block takes one instruction for many values.
    let is_bad = |block: &[f32]| block.iter().fold(false, |bad, v| bad | !v.is_finite());
    let block = values.chunks(BLOCK).position(is_bad)?;
    values
        .iter()
        .enumerate()
        .skip(block * BLOCK)
        .find_map(|(index, value)| (!value.is_finite()).then_some(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_that_is_not_finite_is_found_in_any_block() {
        let mut values = vec![1.0; 10_000];
        assert_eq!(first_not_finite(&values), None);
        values[9_999] = f32::NAN;
        assert_eq!(first_not_finite(&values), Some(9_999));
        values[4_096] = f32::INFINITY;
        assert_eq!(first_not_finite(&values), Some(4_096));
    }

    #[test]
    fn only_matrices_may_not_be_zero() {
        assert_eq!(value_defect(&[4], &[0.0; 4]), None);
        assert_eq!(value_defect(&[2, 2], &[0.0; 4]), Some(ValueDefect::AllZero));
        assert_eq!(value_defect(&[2, 2], &[0.0, 0.0, 1e-30, 0.0]), None);
        assert_eq!(value_defect(&[0, 2], &[]), None);
        let defect = value_defect(&[2], &[1.0, f32::INFINITY]);
        let expected = ValueDefect::NotFinite {
            index: 1,
            value: f32::INFINITY,
        };
        assert_eq!(defect, Some(expected));
    }
}
