//! How pictures go through a model: their size, their windows, and what is done to the scores.
//!
//! What follows from it: [`crate::encoded`] cuts and encodes windows, [`crate::scan`] puts their scores together strip
//! by strip, [`crate::test_time`] looks at a picture several times.

use serde::{Deserialize, Serialize};
use zeg_image::{Window, fit_short_side, sliding_windows};

use crate::{
    ModelError,
    zegformer::{crops::CropStyle, fusion::Fusion},
};
pub use crate::{
    dense::ClassQueries,
    encoded::EncodedPicture,
    scan::{Scan, Source, Stages, scan},
    score_map::{ScoreMap, lower_seen, score_windows},
    test_time::{TestTime, segment, segment_calibrated, segment_encoded},
};

/// Patches of a picture that is encoded in one view; attention costs the square of it.
const MOST_PATCHES: usize = 9216; // 96×96, a square of 1536 pixels with patches of 16
/// A picture that is longer than this many times its short side is resized to that length instead.
const MOST_ELONGATED: usize = 16;

/// What the encoder sees at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Square windows that overlap; their scores are averaged.
    #[default]
    Windows,
    /// The whole picture, the encoder's table of positions resized to it.
    Whole,
}

/// How pictures go through a model; the defaults are the published protocol.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Inference {
    /// Length that the short side of a picture is resized to, in pixels; 0 keeps the picture's own size.
    pub short_side: usize,
    /// Side of a window in pixels.
    pub crop: usize,
    /// Step between windows in pixels.
    pub stride: usize,
    /// Subtracted from the scores of seen classes, which training favours (calibrated stacking).
    pub seen_offset: f32,
    /// Pixels where no class scores this much stay without a class; without, every pixel gets the best class, as the
    /// protocol has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Windows, or the whole picture at once.
    #[serde(skip_serializing_if = "is_windows")]
    pub view: View,
    /// Longest side of a resized picture in pixels; longer ones become smaller than `short-side` says. 0 leaves it free
    /// up to 16 times the short side.
    #[serde(skip_serializing_if = "is_zero")]
    pub longest_side: usize,
    /// Of a model of two stages: how its own scores and CLIP's are joined.
    #[serde(skip_serializing_if = "is_default")]
    pub fusion: Fusion,
    /// Of a model of two stages: what CLIP is shown of a region.
    #[serde(skip_serializing_if = "is_default")]
    pub crops: CropStyle,
    /// Of a model of two stages: a query that could not give any pixel this much of any class is not shown to CLIP and
    /// takes no part. 0 shows all, as published.
    #[serde(skip_serializing_if = "is_nothing")]
    pub least_share: f32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(pixels: &usize) -> bool {
    *pixels == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_nothing(share: &f32) -> bool {
    *share <= 0.0
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_windows(view: &View) -> bool {
    *view == View::Windows
}

impl Default for Inference {
    fn default() -> Self {
        Self {
            short_side: 512,
            crop: 512,
            stride: 426,
            seen_offset: 0.1,
            threshold: None,
            view: View::Windows,
            longest_side: 0,
            fusion: Fusion::default(),
            crops: CropStyle::default(),
            least_share: 0.0,
        }
    }
}

impl Inference {
    /// Checks the numbers.
    ///
    /// # Errors
    /// One is zero, or windows would leave gaps.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.crop == 0 || self.stride == 0 || self.stride > self.crop {
            return Err(ModelError::Config(format!(
                "inference: crop {}, stride {}: both must be at least 1, the stride at most the crop",
                self.crop, self.stride
            )));
        }
        Ok(())
    }

    /// The size a picture is resized to, `(width, height)`.
    ///
    /// The short side becomes [`Inference::short_side`], unless the long side would be longer than 16 times that:
    /// a strip of 30000×2 pixels would become four billion.
    pub fn resized(&self, width: usize, height: usize) -> (usize, usize) {
        if self.short_side == 0 {
            return (width, height);
        }
        let (long, short) = (width.max(height), width.min(height));
        let most = match self.longest_side {
            0 => self.short_side * MOST_ELONGATED,
            most => most,
        };
        let fits = |long: usize| long.saturating_mul(self.short_side) <= short.saturating_mul(most);
        if fits(long) {
            return fit_short_side(width, height, self.short_side);
        }
        let scaled =
            |side: usize| (side as f64 * most as f64 / long as f64).round().max(1.0) as usize;
        (scaled(width), scaled(height))
    }

    /// The windows over a picture of that size, top to bottom.
    pub(crate) fn windows(
        &self,
        [height, width]: [usize; 2],
        patch: usize,
    ) -> Result<Vec<Window>, ModelError> {
        if self.view == View::Windows {
            return Ok(sliding_windows(width, height, self.crop, self.stride));
        }
        let patches = width.div_ceil(patch) * height.div_ceil(patch);
        if patches > MOST_PATCHES {
            return Err(ModelError::Config(format!(
                "a whole picture of {width}×{height} pixels has {patches} patches, more than {MOST_PATCHES}; \
                 make it smaller (short-side) or use windows"
            )));
        }
        Ok(vec![Window {
            x: 0,
            y: 0,
            width,
            height,
        }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elongated_pictures_stay_small() {
        let settings = Inference::default();
        assert_eq!(settings.resized(500, 375), (683, 512));
        // The reference leaves the long side free: 100×1000 becomes 512×5120.
        assert_eq!(settings.resized(1000, 100), (5120, 512));
        assert_eq!(settings.resized(30_000, 2), (8192, 1));
        assert_eq!(settings.resized(2, 30_000), (1, 8192));
        assert_eq!(settings.resized(1, 1), (512, 512));
        let own = Inference {
            short_side: 0,
            ..settings
        };
        assert_eq!(own.resized(12_000, 9000), (12_000, 9000));
    }

    #[test]
    fn a_longest_side_limits_the_short_one() {
        let settings = Inference {
            longest_side: 2048,
            ..Inference::default()
        };
        assert_eq!(settings.resized(500, 375), (683, 512));
        assert_eq!(settings.resized(1000, 100), (2048, 205));
        assert_eq!(settings.resized(100, 400), (512, 2048));
    }

    #[test]
    fn a_whole_view_has_a_limit() {
        let whole = Inference {
            view: View::Whole,
            ..Inference::default()
        };
        assert_eq!(whole.windows([512, 700], 16).unwrap().len(), 1);
        let error = whole.windows([2000, 2000], 16).unwrap_err().to_string();
        assert!(error.contains("15625 patches"), "{error}");
    }
}
