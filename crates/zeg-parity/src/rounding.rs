//! Results that hang on the last digit of their inputs.
//!
//! A gradient jumps where the input of a ReLU or of an absolute value is 0, and AdamW's first step moves a value by the
//! learning rate in the direction of its gradient however small that is. In a model of published size a few of millions
//! of such numbers lie within rounding of 0, so that two right computations of one formula can differ there by more
//! than the limits. (In `full_cliprc_voc`, in double precision: unit 845 of `decoder_q.layers.0.linear1` at one token,
//! which changes the gradient before it by a matrix of rank one and 5e-3 of its RMS, in the reference's own rounding,
//! too; and row 194 of `decoder_v.layers.2.multihead_attn.v.weight`, whose gradient is 1.5e-5 of the tensor's RMS and
//! whose sign decides over 1.4e-4 of the loss behind the step.)
//!
//! Limits stay as they are. Where such a result deviates, the same is computed for pictures that equal the given one
//! but for the last bits of some values, which is less than two right computations differ by in the encoder's result. Any
//! of these results may be the reference's, and so may a sum of their jumps ([`with_jumps`]): what one ReLU adds to a
//! gradient does not depend on another one. What is wrong is wrong for all of them. Models small enough that no value
//! lies so near to 0 are compared once.

use burn::tensor::{Device, Tensor};

use super::{ParityError, array::Array, check::Check, generator};

/// Pictures with other last bits that are tried.
const TRIALS: u64 = 10;
/// Units in the last place that a value is moved by, at most.
const UNITS: f32 = 8.0;
/// Values that a tensor must have so that no sum of [`TRIALS`] jumps can be like it by chance.
const MANY: usize = 64;
/// Changes below this share of the RMS are no jumps.
const NO_JUMP: f64 = 1e-5;

/// Calls `compare` with pictures; if a result whose name starts with one of `prefixes` deviates, again with pictures of
/// other last digits, as long as one does. Other comparisons count the first time alone.
pub(crate) fn compare_in_any_rounding(
    check: &mut Check,
    pictures: &Array,
    device: &Device,
    prefixes: &[&str],
    mut compare: impl FnMut(&mut Check, Tensor<4>) -> Result<(), ParityError>,
) -> Result<(), ParityError> {
    let mut trial = 0;
    loop {
        let Some(tensor) = rounded(pictures, trial).to_tensor(device) else {
            return Err(check.tensor_error("in.image", "has another number of axes than a picture"));
        };
        compare(check, tensor)?;
        let deviating = check.deviating(prefixes);
        if trial == 0 && deviating > 0 {
            check.note(format!(
                "{deviating} results are compared in other roundings of the picture, too"
            ));
        }
        if deviating == 0 || trial == TRIALS {
            check.retry(None);
            return Ok(());
        }
        trial += 1;
        check.retry(Some(prefixes));
    }
}

/// The pictures, every value moved by some units in the last place; trial 0 leaves them as they are.
fn rounded(pictures: &Array, trial: u64) -> Array {
    if trial == 0 {
        return pictures.clone();
    }
    let draws = generator::uniform("last digits", trial, pictures.values.len());
    let values = pictures.values.iter().zip(draws).map(|(&value, draw)| {
        let value = value as f32;
        f64::from(value + (draw * UNITS).round() * value.abs() * f32::EPSILON)
    });
    Array {
        shape: pictures.shape.clone(),
        values: values.collect(),
    }
}

/// The result in the first rounding, with those jumps between it and the other roundings that bring it nearest to the
/// reference (least squares). `None` where there are too few values to tell a jump from an error.
///
/// - `results`: in the roundings so far, as many values each as the reference has
pub(crate) fn with_jumps(reference: &Array, results: &[Vec<f64>]) -> Option<Array> {
    let [first, others @ ..] = results else {
        return None;
    };
    if others.is_empty() || reference.values.len() < MANY {
        return None;
    }
    let minus =
        |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let jumps: Vec<Vec<f64>> = others.iter().map(|other| minus(other, first)).collect();
    let missing = minus(&reference.values, first);
    let least = (NO_JUMP * reference.norm()).powi(2);
    let products = jumps.iter().enumerate().map(|(i, a)| {
        let row = jumps.iter().enumerate();
        row.map(|(j, b)| dot(a, b) + if i == j { least } else { 0.0 })
            .collect()
    });
    let weights = solve(
        products.collect(),
        jumps.iter().map(|jump| dot(jump, &missing)).collect(),
    );
    let mut values = first.clone();
    for (jump, weight) in jumps.iter().zip(weights) {
        for (value, jump) in values.iter_mut().zip(jump) {
            *value += weight * jump;
        }
    }
    Some(Array {
        shape: reference.shape.clone(),
        values,
    })
}

/// Solves a symmetric, positive definite system by elimination.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let count = right.len();
    for pivot in 0..count {
        let (above, below) = matrix.split_at_mut(pivot + 1);
        let pivot_row = &above[pivot];
        for (offset, row) in below.iter_mut().enumerate() {
            let factor = row[pivot] / pivot_row[pivot];
            for (value, pivot_value) in row.iter_mut().zip(pivot_row) {
                *value -= factor * pivot_value;
            }
            right[pivot + 1 + offset] -= factor * right[pivot];
        }
    }
    for row in (0..count).rev() {
        let known: f64 = (row + 1..count).map(|c| matrix[row][c] * right[c]).sum();
        right[row] = (right[row] - known) / matrix[row][row];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_digits_change_and_nothing_else() {
        let pictures = Array::from_values(&[1, 1, 20, 50], &vec![-0.3_f32; 1000]);
        let other = rounded(&pictures, 3);
        let pairs = || pictures.values.iter().zip(&other.values);
        let changed = pairs().filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert!((850..1000).contains(&changed), "{changed}");
        assert!(pairs().all(|(a, b)| (a - b).abs() < 4e-7));
        assert_eq!(rounded(&pictures, 0), pictures);
    }

    /// Values without a pattern.
    fn noise(seed: u64) -> Vec<f64> {
        generator::uniform("noise", seed, 96)
            .map(f64::from)
            .collect()
    }

    fn sum(parts: &[(f64, &[f64])]) -> Vec<f64> {
        let at = |i: usize| parts.iter().map(|(factor, part)| factor * part[i]).sum();
        (0..96).map(at).collect()
    }

    fn distance(a: &Array, b: &Array) -> f64 {
        let pairs = a.values.iter().zip(&b.values);
        pairs.fold(0.0, |most, (a, b)| f64::max(most, (a - b).abs()))
    }

    /// One rounding has one jump, another one the other, and the reference has both.
    #[test]
    fn jumps_of_different_roundings_add_up() {
        let (gradient, first, second) = (noise(1), noise(2), noise(3));
        let with = |a: f64, b: f64| sum(&[(1.0, &gradient), (a, &first), (b, &second)]);
        let reference = Array::row(with(2e-3, 5e-4));
        let found = with_jumps(
            &reference,
            &[with(0.0, 0.0), with(2e-3, 0.0), with(0.0, 5e-4)],
        )
        .unwrap();
        assert!(distance(&found, &reference) < 2e-6);
    }

    #[test]
    fn an_error_is_no_sum_of_jumps() {
        let (gradient, error) = (noise(1), noise(9));
        let reference = Array::row(gradient.clone());
        let wrong: Vec<Vec<f64>> = (0..7)
            .map(|trial| sum(&[(1.0, &gradient), (1e-3, &error), (1e-3, &noise(10 + trial))]))
            .collect();
        let found = with_jumps(&reference, &wrong).unwrap();
        assert!(distance(&found, &reference) > 5e-4);
        let few = Array::row(gradient[..8].to_vec());
        assert!(with_jumps(&few, &[gradient[..8].to_vec(), error[..8].to_vec()]).is_none());
    }
}
