//! Scores of single images, which show the images that a model fails on.

use serde::{Deserialize, Serialize};

use crate::confusion::check_labels;
use crate::{EvalError, Metric};

/// The metrics of one image, 0..=1. Means are over the classes in its ground truth or in its prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageScore {
    /// Id of the image.
    pub id: String,
    /// Pixel accuracy; `None` if all pixels are ignored.
    #[serde(rename = "pAcc")]
    pub p_acc: Option<f64>,
    /// Mean IoU; `None` if all pixels are ignored.
    #[serde(rename = "mIoU")]
    pub miou: Option<f64>,
    /// Mean Dice coefficient; `None` if all pixels are ignored.
    #[serde(rename = "mDice", default)]
    pub mdice: Option<f64>,
    /// Number of scored pixels: those whose true label is not the ignore label.
    pub pixels: u64,
}

/// Pixels of a class in an image.
#[derive(Clone, Copy, Default)]
struct Counts {
    truth: u64,
    prediction: u64,
    both: u64,
}

impl ImageScore {
    /// Scores an image.
    ///
    /// - `truth`, `prediction`: one label per pixel, `0..classes`, of equal length and order
    /// - `ignore`: the true label of pixels that are not scored
    ///
    /// # Errors
    /// Returns [`EvalError::Length`], [`EvalError::Label`] or [`EvalError::Prediction`].
    pub fn of(
        id: impl Into<String>,
        (truth, prediction): (&[u16], &[u16]),
        classes: usize,
        ignore: u16,
    ) -> Result<Self, EvalError> {
        let pixels = check_labels(truth, prediction, ignore, classes)?;
        // Three counts per class suffice: the whole matrix of 847 classes would hold 717,409 counts for every image.
        let mut counts = vec![Counts::default(); classes];
        for (&label, &predicted) in truth.iter().zip(prediction) {
            if label == ignore {
                continue;
            }
            if let Some(of) = counts.get_mut(usize::from(label)) {
                of.truth += 1;
                of.both += u64::from(label == predicted);
            }
            if let Some(of) = counts.get_mut(usize::from(predicted)) {
                of.prediction += 1;
            }
        }
        let (mut right, mut present, mut iou, mut dice) = (0, 0_u64, 0.0, 0.0);
        for of in counts.iter().filter(|of| of.truth + of.prediction > 0) {
            let sum = of.truth + of.prediction;
            right += of.both;
            present += 1;
            iou += of.both as f64 / (sum - of.both) as f64;
            dice += 2.0 * of.both as f64 / sum as f64;
        }
        let counted = |value: f64| (pixels > 0).then_some(value);
        Ok(Self {
            id: id.into(),
            p_acc: counted(right as f64 / pixels as f64),
            miou: counted(iou / present as f64),
            mdice: counted(dice / present as f64),
            pixels,
        })
    }

    /// Returns the score by which images of a benchmark are ordered.
    pub fn score(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::MeanIou => self.miou,
            Metric::Dice => self.mdice,
        }
    }
}
