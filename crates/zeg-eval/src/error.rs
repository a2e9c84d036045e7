//! What can be wrong with label maps and class lists.

use thiserror::Error;

/// Input that cannot be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EvalError {
    /// Truth and prediction do not cover the same pixels.
    #[error("{truth} truth labels, but {prediction} predictions")]
    Length {
        /// Pixels in the truth.
        truth: usize,
        /// Pixels in the prediction.
        prediction: usize,
    },
    /// A truth label is neither a class nor the ignore label.
    #[error(
        "truth label {value} at pixel {position}; labels are below {classes}, or the ignore label"
    )]
    Label {
        /// The label.
        value: u16,
        /// Index of its pixel.
        position: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A predicted label is not a class.
    #[error("predicted label {value} at pixel {position}; labels are below {classes}")]
    Prediction {
        /// The label.
        value: u16,
        /// Index of its pixel.
        position: usize,
        /// Number of classes.
        classes: usize,
    },
    /// Two things that belong together have different numbers of classes.
    #[error("{found} classes, expected {expected}")]
    Classes {
        /// Classes of the confusion matrix.
        expected: usize,
        /// Classes of what was to go with it.
        found: usize,
    },
}
