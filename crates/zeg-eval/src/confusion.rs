//! Counts of (true class, predicted class) over pixels, from which every metric follows.

use serde::{Deserialize, Serialize};

use crate::EvalError;

/// A square table of pixel counts, one row a true class, one column a predicted class.
///
/// Pixels whose truth is the ignore label are not counted, whatever was predicted there. Counts are exact 64-bit
/// integers, so the order in which images are added makes no difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    classes: usize,
    /// `classes × classes`, row-major.
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// An empty table.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes * classes],
        }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Counts the pixels of one image, or of a part of it.
    ///
    /// - `truth`, `prediction`: one label a pixel, `0..classes`, of equal length and order
    /// - `ignore`: the truth label of pixels that do not count, commonly 255
    ///
    /// # Errors
    /// [`EvalError::Length`] if the lengths differ; [`EvalError::Label`] or [`EvalError::Prediction`] for the first
    /// counted pixel with a label out of range. After an error nothing was counted.
    pub fn add(&mut self, truth: &[u16], prediction: &[u16], ignore: u16) -> Result<(), EvalError> {
        if truth.len() != prediction.len() {
            return Err(EvalError::Length {
                truth: truth.len(),
                prediction: prediction.len(),
            });
        }
        let classes = self.classes;
        let counted = || {
            let pixels = truth.iter().zip(prediction).enumerate();
            pixels.filter(|(_, (label, _))| **label != ignore)
        };
        for (position, (&label, &predicted)) in counted() {
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
        }
        for (_, (&label, &predicted)) in counted() {
            self.counts[usize::from(label) * classes + usize::from(predicted)] += 1;
        }
        Ok(())
    }

    /// Adds the counts of another table.
    ///
    /// # Errors
    /// [`EvalError::Classes`] if it has another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<(), EvalError> {
        if self.classes != other.classes {
            return Err(EvalError::Classes {
                expected: self.classes,
                found: other.classes,
            });
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        Ok(())
    }

    /// Pixels of class `truth` that were predicted as `prediction`; 0 for classes out of range.
    pub fn count(&self, truth: usize, prediction: usize) -> u64 {
        if truth < self.classes && prediction < self.classes {
            self.counts[truth * self.classes + prediction]
        } else {
            0
        }
    }

    /// All counted pixels.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Pixels of the class that were predicted as it.
    pub fn intersect(&self, class: usize) -> u64 {
        self.count(class, class)
    }

    /// Pixels of the class in the truth.
    pub fn label(&self, class: usize) -> u64 {
        (0..self.classes)
            .map(|other| self.count(class, other))
            .sum()
    }

    /// Pixels that were predicted as the class.
    pub fn pred(&self, class: usize) -> u64 {
        (0..self.classes)
            .map(|other| self.count(other, class))
            .sum()
    }

    /// Pixels that have the class in the truth, in the prediction, or in both.
    pub fn union(&self, class: usize) -> u64 {
        self.label(class) + self.pred(class) - self.intersect(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_counted_by_row_and_column() {
        let mut matrix = ConfusionMatrix::new(3);
        matrix
            .add(&[0, 0, 1, 255, 2], &[0, 1, 1, 9, 1], 255)
            .unwrap();
        assert_eq!(
            (matrix.count(0, 1), matrix.count(1, 0), matrix.total()),
            (1, 0, 4)
        );
        assert_eq!(
            (
                matrix.intersect(1),
                matrix.label(1),
                matrix.pred(1),
                matrix.union(1)
            ),
            (1, 1, 3, 3)
        );
        assert_eq!(
            (
                matrix.intersect(2),
                matrix.label(2),
                matrix.pred(2),
                matrix.union(2)
            ),
            (0, 1, 0, 1)
        );
        assert_eq!(matrix.count(3, 0), 0);
    }

    #[test]
    fn illegal_labels_are_named_and_nothing_is_counted() {
        let mut matrix = ConfusionMatrix::new(2);
        let label = matrix.add(&[0, 7], &[0, 0], 255).unwrap_err();
        assert_eq!(
            label,
            EvalError::Label {
                value: 7,
                position: 1,
                classes: 2
            }
        );
        let prediction = matrix.add(&[0, 1, 1], &[0, 0, 2], 255).unwrap_err();
        assert_eq!(
            prediction,
            EvalError::Prediction {
                value: 2,
                position: 2,
                classes: 2
            }
        );
        let length = matrix.add(&[0], &[], 255).unwrap_err();
        assert_eq!(
            length,
            EvalError::Length {
                truth: 1,
                prediction: 0
            }
        );
        let classes = matrix.merge(&ConfusionMatrix::new(3)).unwrap_err();
        assert_eq!(
            classes,
            EvalError::Classes {
                expected: 2,
                found: 3
            }
        );
        assert_eq!(matrix, ConfusionMatrix::new(2));
    }
}
