//! The result of segmenting one image.

use zeg_image::{IGNORE_LABEL, LabelMap};

use crate::session::Answer;

/// The segmentation of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentation {
    /// The class index of every pixel; [`IGNORE_LABEL`] where no class reaches its threshold.
    pub labels: LabelMap,
    /// Score of the best class at every pixel, 0 to 1, row-major; also where it is below the threshold.
    pub confidence: Vec<f32>,
    /// Whether all classes have the same score at every pixel, so that the labels mean nothing; see [`Answer::tied`].
    pub tied: bool,
}

impl Segmentation {
    /// Returns the share of the image's pixels that have this class, 0 to 1.
    pub fn share(&self, class: u16) -> f64 {
        let labels = self.labels.labels();
        let count = labels.iter().filter(|&&label| label == class).count();
        count as f64 / labels.len().max(1) as f64
    }

    /// Returns the share of the image's pixels that are unlabelled, 0 to 1.
    pub fn unlabelled(&self) -> f64 {
        self.share(IGNORE_LABEL)
    }
}

impl From<Answer> for Segmentation {
    fn from(answer: Answer) -> Self {
        let mut labels = answer.labels.into_iter();
        Self {
            tied: answer.tied,
            labels: labels
                .next()
                .unwrap_or_else(|| LabelMap::filled(0, 0, IGNORE_LABEL)),
            confidence: answer.confidence.unwrap_or_default(),
        }
    }
}
