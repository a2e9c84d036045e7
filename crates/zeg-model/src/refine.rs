//! A second pass: scores of the whole image, refined once all windows have been scored.

use zeg_image::RgbImage;

use crate::{ModelError, classes::ClassQueries, score_map::ScoreMap};

/// Refines the scores of a first pass.
///
/// It sees the scores of the whole resized image at once: classes × height × width numbers in main memory.
pub trait SecondPass {
    /// Changes the scores.
    ///
    /// - `first`: `[classes, height, width]`, as the windows gave them, before offsets: scores, or logits where classes
    ///   compete
    /// - `image`: the resized image that the windows were cut from
    ///
    /// # Errors
    /// The device could not be read.
    fn refine(
        &self,
        first: ScoreMap,
        image: &RgbImage,
        classes: &ClassQueries,
    ) -> Result<ScoreMap, ModelError>;
}
