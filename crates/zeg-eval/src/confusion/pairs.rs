//! Counts of one image as a short list, which is kept where a whole matrix per image would be too large.

use std::collections::BTreeMap;

use super::{ConfusionMatrix, check_labels, total};
use crate::EvalError;

/// A true class, a predicted class, and the number of pixels that have both.
pub type PairCount = (u16, u16, u64);

/// Counts the pixels of one image by true and predicted class, sorted by the classes.
///
/// The arguments and errors are those of [`ConfusionMatrix::add`]; `classes` is the number of classes.
///
/// # Errors
/// Returns [`EvalError::Length`], [`EvalError::Label`] or [`EvalError::Prediction`].
pub fn count_pairs(
    truth: &[u16],
    prediction: &[u16],
    ignore: u16,
    classes: usize,
) -> Result<Vec<PairCount>, EvalError> {
    check_labels(truth, prediction, ignore, classes)?;
    let mut counts: BTreeMap<(u16, u16), u64> = BTreeMap::new();
    let mut pairs = truth.iter().copied().zip(prediction.iter().copied());
    // Adjacent pixels mostly have equal labels, so runs of equal pairs are counted at once.
    let Some(mut current) = pairs.next() else {
        return Ok(Vec::new());
    };
    let mut run = 1;
    for pair in pairs {
        if pair != current {
            *counts.entry(current).or_default() += run;
            (current, run) = (pair, 0);
        }
        run += 1;
    }
    *counts.entry(current).or_default() += run;
    let counted = counts
        .into_iter()
        .filter(|((label, _), _)| *label != ignore);
    Ok(counted
        .map(|((label, predicted), count)| (label, predicted, count))
        .collect())
}

impl ConfusionMatrix {
    /// Adds the counts of one image, as [`count_pairs`] returns them.
    ///
    /// # Errors
    /// Returns [`EvalError::Label`] or [`EvalError::Prediction`] for a class out of range, with the number of the pair
    /// in place of a pixel, and [`EvalError::TooManyPixels`]. After an error no pixel is counted.
    pub fn add_pairs(&mut self, pairs: &[PairCount]) -> Result<(), EvalError> {
        let classes = self.classes;
        let mut sum = self.total;
        for (position, &(label, predicted, count)) in pairs.iter().enumerate() {
            if usize::from(label) >= classes {
                return Err(EvalError::Label {
                    value: label,
                    position,
                    classes,
                });
            }
            if usize::from(predicted) >= classes {
                return Err(EvalError::Prediction {
                    value: predicted,
                    position,
                    classes,
                });
            }
            sum = total(sum, count)?;
        }
        for &(label, predicted, count) in pairs {
            let cell = usize::from(label) * classes + usize::from(predicted);
            if let Some(counted) = self.counts.get_mut(cell) {
                *counted += count;
            }
        }
        self.total = sum;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_give_the_same_matrix_as_the_pixels() {
        let truth = [0, 0, 1, 1, 1, 255, 2, 0];
        let prediction = [0, 0, 1, 0, 1, 9, 2, 0];
        let pairs = count_pairs(&truth, &prediction, 255, 3).unwrap();
        assert_eq!(pairs, [(0, 0, 3), (1, 0, 1), (1, 1, 2), (2, 2, 1)]);
        let mut expected = ConfusionMatrix::new(3);
        expected.add(&truth, &prediction, 255).unwrap();
        let mut matrix = ConfusionMatrix::new(3);
        matrix.add_pairs(&pairs).unwrap();
        assert_eq!(matrix, expected);
        assert!(count_pairs(&[], &[], 255, 3).unwrap().is_empty());
        assert!(
            count_pairs(&[255, 255], &[0, 1], 255, 3)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn false_pairs_are_refused_and_nothing_is_counted() {
        assert!(count_pairs(&[3], &[0], 255, 3).is_err());
        assert!(count_pairs(&[0], &[3], 255, 3).is_err());
        assert!(count_pairs(&[0, 0], &[0], 255, 3).is_err());
        let mut matrix = ConfusionMatrix::new(2);
        for pairs in [
            vec![(0, 0, 1), (2, 0, 1)],
            vec![(0, 0, 1), (0, 2, 1)],
            vec![(0, 0, 1), (1, 1, u64::MAX)],
        ] {
            assert!(matrix.add_pairs(&pairs).is_err(), "{pairs:?}");
        }
        assert_eq!(matrix, ConfusionMatrix::new(2));
    }
}
