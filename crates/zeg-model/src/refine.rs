//! The second pass of a method: it refines the scores of the whole image once all windows are scored.

use zeg_image::RgbImage;

use crate::{ModelError, classes::ClassQueries, score_map::ScoreMap};

/// A second pass that refines the scores of the first.
///
/// It gets the scores of the whole resized image at once: classes × height × width numbers in main memory.
pub trait SecondPass {
    /// Returns the refined scores.
    ///
    /// - `first`: `[classes, height, width]`, as computed from the windows, before offsets: scores, or logits with
    ///   [`crate::model::Scoring::Softmax`]
    /// - `image`: the resized image that the windows were cut from
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    fn refine(
        &self,
        first: ScoreMap,
        image: &RgbImage,
        classes: &ClassQueries,
    ) -> Result<ScoreMap, ModelError>;
}
