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
//! but for the last digit of some values, and the result of any of them may be the reference's. What is wrong is wrong
//! for all of them. Models small enough that no value lies so near to 0 are compared once.

use burn::tensor::{Device, Tensor};

use super::{ParityError, array::Array, check::Check, generator};

/// Other last digits that are tried.
const TRIALS: u64 = 6;

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

/// The pictures, of a third of the values the next number up or down; trial 0 leaves them as they are.
fn rounded(pictures: &Array, trial: u64) -> Array {
    if trial == 0 {
        return pictures.clone();
    }
    let draws = generator::uniform("last digits", trial, pictures.values.len());
    let values = pictures.values.iter().zip(draws).map(|(&value, draw)| {
        let value = value as f32;
        f64::from(match draw {
            ..-0.67 => value.next_down(),
            0.67.. => value.next_up(),
            _ => value,
        })
    });
    Array {
        shape: pictures.shape.clone(),
        values: values.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_digits_change_and_nothing_else() {
        let pictures = Array::from_values(&[1, 1, 20, 50], &vec![0.3_f32; 1000]);
        let other = rounded(&pictures, 3);
        let changed = pictures
            .values
            .iter()
            .zip(&other.values)
            .filter(|(a, b)| a.to_bits() != b.to_bits());
        let changed: Vec<_> = changed.collect();
        assert!((200..450).contains(&changed.len()), "{}", changed.len());
        assert!(changed.iter().all(|(a, b)| (*a - *b).abs() < 4e-8));
        assert_eq!(rounded(&pictures, 0), pictures);
    }
}
