//! The confusion matrix: counts of pixels by true and predicted class, from which all metrics are computed.

mod form;
mod pairs;

use crate::EvalError;

pub use pairs::{PairCount, count_pairs};

/// Largest number of counted pixels, 2⁵³: up to this number every count is exact as a JSON number and as a 64-bit
/// float. This is a hundred thousand data sets of COCO-Stuff's size.
pub const MAX_PIXELS: u64 = 1 << 53;
/// Largest number of classes of a matrix that is read from a file; its counts take 128 MiB.
pub const MAX_CLASSES: usize = 4096;

/// A square matrix of pixel counts: one row per true class, one column per predicted class.
///
/// Pixels whose true label is the ignore label are not counted, whatever was predicted there. Counts are exact
/// integers, so the order in which images are added does not matter.
///
/// The JSON form is sparse: `{"classes": 3, "rows": [[[0, 17], [2, 5]], [], [[2, 9]]]}` has one list per true class,
/// with pairs of a predicted class and its count. The dense form `{"classes": n, "counts": [n² numbers]}` can be read
/// as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    /// `classes × classes`, row-major.
    counts: Vec<u64>,
    /// Sum of all counts, at most [`MAX_PIXELS`].
    total: u64,
}

impl ConfusionMatrix {
    /// Creates a matrix without counts.
    pub fn new(classes: usize) -> Self {
        Self {
            classes,
            counts: vec![0; classes * classes],
            total: 0,
        }
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Counts the pixels of one image, or of a part of it.
    ///
    /// - `truth`, `prediction`: one label per pixel, `0..classes`, of equal length and order
    /// - `ignore`: the true label of pixels that are not counted, commonly 255
    ///
    /// # Errors
    /// Returns [`EvalError::Length`] if the lengths differ, [`EvalError::Label`] or [`EvalError::Prediction`] for the
    /// first counted pixel with a label out of range, and [`EvalError::TooManyPixels`]. After an error no pixel is
    /// counted.
    pub fn add(&mut self, truth: &[u16], prediction: &[u16], ignore: u16) -> Result<(), EvalError> {
        let classes = self.classes;
        let counted = check_labels(truth, prediction, ignore, classes)?;
        self.total = total(self.total, counted)?;
        // Adjacent pixels mostly have equal labels, so runs of equal pairs are counted at once.
        let mut current = (ignore, 0);
        let mut run = 0_u64;
        for pair in truth.iter().copied().zip(prediction.iter().copied()) {
            if pair != current {
                self.count_run(current, run, ignore);
                (current, run) = (pair, 0);
            }
            run += 1;
        }
        self.count_run(current, run, ignore);
        Ok(())
    }

    fn count_run(&mut self, (label, predicted): (u16, u16), run: u64, ignore: u16) {
        let cell = usize::from(label) * self.classes + usize::from(predicted);
        if label != ignore
            && let Some(count) = self.counts.get_mut(cell)
        {
            *count += run;
        }
    }

    /// Adds the counts of another matrix.
    ///
    /// # Errors
    /// Returns [`EvalError::Classes`] if it has another number of classes, and [`EvalError::TooManyPixels`]. After an
    /// error the counts are unchanged.
    pub fn merge(&mut self, other: &Self) -> Result<(), EvalError> {
        if self.classes != other.classes {
            return Err(EvalError::Classes {
                expected: self.classes,
                found: other.classes,
            });
        }
        self.total = total(self.total, other.total)?;
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        Ok(())
    }

    /// Returns the counts of one true class, one number per predicted class; empty for a class out of range.
    pub fn row(&self, truth: usize) -> &[u64] {
        let start = truth.saturating_mul(self.classes);
        let end = start.saturating_add(self.classes);
        self.counts.get(start..end).unwrap_or_default()
    }

    /// Returns the number of pixels of class `truth` that were predicted as `prediction`; 0 for classes out of range.
    pub fn count(&self, truth: usize, prediction: usize) -> u64 {
        self.row(truth).get(prediction).copied().unwrap_or(0)
    }

    /// Returns the number of all counted pixels.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Returns the number of correctly predicted pixels of the class.
    pub fn intersect(&self, class: usize) -> u64 {
        self.count(class, class)
    }

    /// Returns the number of pixels of the class in the ground truth.
    pub fn label(&self, class: usize) -> u64 {
        self.row(class).iter().sum()
    }

    /// Returns the number of pixels that were predicted as the class.
    pub fn pred(&self, class: usize) -> u64 {
        (0..self.classes)
            .map(|other| self.count(other, class))
            .sum()
    }

    /// Returns the number of pixels with the class in the ground truth, in the prediction, or in both.
    pub fn union(&self, class: usize) -> u64 {
        self.label(class) + self.pred(class) - self.intersect(class)
    }

    /// Returns the mean IoU, weighted by each class's share of the true pixels; `None` without pixels.
    pub fn frequency_weighted_iou(&self) -> Option<f64> {
        let share = |class: usize| {
            let (label, union) = (self.label(class), self.union(class));
            let iou = self.intersect(class) as f64 / union.max(1) as f64;
            iou * label as f64 / self.total as f64
        };
        (self.total > 0).then(|| (0..self.classes).map(share).sum())
    }
}

/// Returns the sum of two pixel counts, if it is at most [`MAX_PIXELS`].
fn total(pixels: u64, more: u64) -> Result<u64, EvalError> {
    pixels
        .checked_add(more)
        .filter(|sum| *sum <= MAX_PIXELS)
        .ok_or(EvalError::TooManyPixels { limit: MAX_PIXELS })
}

/// Checks the input of [`ConfusionMatrix::add`] and returns the number of pixels that are not ignored.
///
/// # Errors
/// Returns [`EvalError::Length`], [`EvalError::Label`] or [`EvalError::Prediction`].
pub(crate) fn check_labels(
    truth: &[u16],
    prediction: &[u16],
    ignore: u16,
    classes: usize,
) -> Result<u64, EvalError> {
    if truth.len() != prediction.len() {
        return Err(EvalError::Length {
            truth: truth.len(),
            prediction: prediction.len(),
        });
    }
    let mut counted = 0_u64;
    for (position, (&label, &predicted)) in truth.iter().zip(prediction).enumerate() {
        if label == ignore {
            continue;
        }
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
        counted += 1;
    }
    Ok(counted)
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
        let mut error = |truth: &[u16], prediction: &[u16]| {
            let error = matrix.add(truth, prediction, 255).unwrap_err();
            (error.to_string(), error)
        };
        assert!(matches!(
            error(&[0, 7], &[0, 0]).1,
            EvalError::Label {
                value: 7,
                position: 1,
                classes: 2
            }
        ));
        assert!(matches!(
            error(&[0, 1, 1], &[0, 0, 2]).1,
            EvalError::Prediction {
                value: 2,
                position: 2,
                classes: 2
            }
        ));
        assert_eq!(error(&[0], &[]).0, "1 truth labels, but 0 predictions");
        let classes = matrix.merge(&ConfusionMatrix::new(3)).unwrap_err();
        assert_eq!(classes.to_string(), "3 classes, expected 2");
        assert_eq!(matrix, ConfusionMatrix::new(2));
    }

    #[test]
    fn a_class_may_have_the_number_of_the_ignore_label() {
        // With more than 255 classes the ignore label is not 255, and 255 is an ordinary class.
        let mut matrix = ConfusionMatrix::new(300);
        matrix
            .add(&[255, 299, u16::MAX], &[255, 255, 0], u16::MAX)
            .unwrap();
        assert_eq!(
            (
                matrix.count(255, 255),
                matrix.count(299, 255),
                matrix.total()
            ),
            (1, 1, 2)
        );
    }

    #[test]
    fn too_many_pixels_are_refused() {
        let full = format!(r#"{{"classes": 1, "rows": [[[0, {MAX_PIXELS}]]]}}"#);
        let mut matrix: ConfusionMatrix = serde_json::from_str(&full).unwrap();
        let before = matrix.clone();
        assert!(matches!(
            matrix.add(&[0], &[0], 255),
            Err(EvalError::TooManyPixels { .. })
        ));
        assert!(matches!(
            matrix.merge(&before),
            Err(EvalError::TooManyPixels { .. })
        ));
        assert_eq!(matrix, before);
    }
}
