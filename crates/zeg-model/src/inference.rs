//! Inference settings: the size of an image, its windows, and the calibration of its scores.
//!
//! [`crate::encoded`] cuts and encodes the windows, [`crate::scan`] combines their scores strip by strip, and
//! [`crate::test_time`] sets the scales of test-time augmentation.

use serde::{Deserialize, Serialize};
use zeg_base::{
    calibration::Calibration,
    memory::{amount, check, product},
    numbers::Legal,
};
use zeg_image::{Window, fit_short_side, sliding_windows};

pub use crate::refine::Refinement;
use crate::{ModelError, section::Section};
pub use crate::{
    classes::{ClassNeeds, ClassQueries},
    encoded::EncodedWindows,
    scan::{Scan, Source, Stages, scan},
    score_map::{ScoreMap, lower_seen, score_windows},
    test_time::TestTime,
};

/// Most patches of an image that is encoded at once; the cost of attention grows with the square of this number.
const MOST_PATCHES: usize = 9216; // 96×96, a square of 1536 pixels with patches of 16
/// Largest ratio of long to short side; in longer images, the long side is resized to this many times the short side
/// setting.
const MOST_ELONGATED: usize = 16;

/// Most pixels that an image is resized to: four times those of the largest image file.
const MOST_PIXELS: u64 = 1 << 30;

/// Whether the encoder processes sliding windows or the whole image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum InferenceMode {
    /// Square overlapping windows, whose scores are averaged.
    #[default]
    Slide,
    /// The whole image; the encoder's position table is resized to it.
    Whole,
}

/// The calibration in the schema of files; [`Calibration`] itself belongs to a crate without schemas.
#[cfg(feature = "schema")]
#[derive(schemars::JsonSchema)]
#[schemars(rename_all = "kebab-case", deny_unknown_fields)]
#[allow(dead_code)] // only its schema is used
struct CalibrationSchema {
    /// Factor on the log-odds of a score; above 0.
    slope: f64,
    /// Added to the log-odds afterwards.
    shift: f64,
}

/// Inference settings; the defaults are the published protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Inference {
    /// Length that the short side of an image is resized to, in pixels; 0 keeps the image's own size.
    pub short_side: usize,
    /// Side of a window in pixels.
    pub crop: usize,
    /// Step between windows in pixels.
    pub stride: usize,
    /// Offset subtracted from the scores of seen classes, which training favours (calibrated stacking).
    pub seen_offset: f32,
    /// Score threshold: pixels whose best class scores less get the ignore index. If `None`, every pixel gets its best
    /// class, as in the published protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Inference mode: sliding windows or the whole image.
    #[serde(skip_serializing_if = "is_slide")]
    pub mode: InferenceMode,
    /// Longest side of a resized image in pixels. It takes precedence over `short-side`. 0 limits the long side only to
    /// 16 times the short side.
    #[serde(skip_serializing_if = "is_zero")]
    pub longest_side: usize,
    /// Refinement of the scores by the colours of the image. It holds the scores of the whole resized image in memory.
    #[serde(skip_serializing_if = "Refinement::is_none")]
    pub refine: Refinement,
    /// Calibration of the confidence, as `zeg eval --fit-calibration` writes it; thresholds are then probabilities.
    /// Without it, the confidence is the score.
    #[cfg_attr(feature = "schema", schemars(with = "Option<CalibrationSchema>"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// Options of the model's method.
    #[serde(skip_serializing_if = "Section::is_empty")]
    pub method: Section,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(pixels: &usize) -> bool {
    *pixels == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_slide(mode: &InferenceMode) -> bool {
    *mode == InferenceMode::Slide
}

impl Default for Inference {
    fn default() -> Self {
        Self {
            short_side: 512,
            crop: 512,
            stride: 426,
            seen_offset: 0.1,
            threshold: None,
            mode: InferenceMode::Slide,
            longest_side: 0,
            refine: Refinement::None,
            calibration: None,
            method: Section::default(),
        }
    }
}

impl Inference {
    /// Checks that window size and stride are possible, and that the numbers that change scores are finite.
    ///
    /// # Errors
    /// Returns an error if one of them is zero, the windows would leave gaps, an offset or threshold is not finite, or a
    /// threshold is negative.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.crop == 0 || self.stride == 0 || self.stride > self.crop {
            return Err(ModelError::Config(format!(
                "inference: crop {}, stride {}: both must be at least 1, the stride at most the crop",
                self.crop, self.stride
            )));
        }
        for (name, value, legal) in [
            ("seen-offset", Some(self.seen_offset), Legal::Finite),
            ("threshold", self.threshold, Legal::NotNegative),
        ] {
            if let Some(value) = value.filter(|value| !legal.accepts(f64::from(*value))) {
                return Err(ModelError::Config(format!(
                    "inference.{name} = {value}: {}",
                    legal.text()
                )));
            }
        }
        match self.calibration {
            Some(calibration) if !calibration.is_legal() => Err(ModelError::Config(format!(
                "inference.calibration: slope {}, shift {}: the slope must be above 0, and both must be finite",
                calibration.slope, calibration.shift
            ))),
            _ => Ok(()),
        }
    }

    /// Returns the size that an image is resized to, `(width, height)`.
    ///
    /// The short side becomes [`Inference::short_side`], unless the long side would then exceed 16 times that: without
    /// this limit, an image of 30000×2 pixels would become one of four billion pixels.
    pub fn resized(&self, width: usize, height: usize) -> (usize, usize) {
        if self.short_side == 0 {
            return (width, height);
        }
        let (long, short) = (width.max(height), width.min(height));
        let most = match self.longest_side {
            0 => self.short_side.saturating_mul(MOST_ELONGATED),
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

    /// Checks that an image of this size, resized by the settings, can be held in memory.
    ///
    /// # Errors
    /// Returns an error with both sizes and the limit if it cannot.
    pub fn check_resized(&self, width: usize, height: usize) -> Result<(), ModelError> {
        let (resized_width, resized_height) = self.resized(width, height);
        let pixels = product(&[resized_width, resized_height]);
        let what = || {
            format!(
                "resizing an image of {width}×{height} to {resized_width}×{resized_height} pixels"
            )
        };
        if pixels > MOST_PIXELS {
            return Err(ModelError::Config(format!(
                "{} needs {} of memory; at most {MOST_PIXELS} pixels are possible; use a smaller `short-side`",
                what(),
                amount(pixels.saturating_mul(3))
            )));
        }
        check(pixels.saturating_mul(3)).map_err(|source| ModelError::Memory {
            what: what(),
            source,
        })
    }

    /// Checks that the list of sliding windows can be held in memory: with a stride of 1, every pixel has a window.
    fn check_number_of_windows(&self, size: [usize; 2]) -> Result<(), ModelError> {
        let along = |side: usize| {
            let rest = side.saturating_sub(self.crop);
            rest.div_ceil(self.stride.max(1)).saturating_add(1)
        };
        let [rows, columns] = size.map(along);
        let bytes = size_of::<Window>() + size_of::<PlannedWindow>();
        check(product(&[rows, columns, bytes])).map_err(|source| ModelError::Memory {
            what: format!("a stride of {} gives {rows}×{columns} windows", self.stride),
            source,
        })
    }

    /// Checks that the pixels of the largest window can be held in memory.
    ///
    /// - `stride`: the model's stride
    ///
    /// # Errors
    /// Returns an error with the estimate if it cannot.
    pub(crate) fn check_windows(
        &self,
        plan: &[PlannedWindow],
        stride: usize,
    ) -> Result<(), ModelError> {
        let bytes = |planned: &PlannedWindow| {
            let [height, width] = planned.encoded_size(stride);
            product(&[height, width, 3 * size_of::<f32>()])
        };
        let needed = plan.iter().map(bytes).max().unwrap_or(0);
        check(needed).map_err(|source| ModelError::Memory {
            what: format!("a window of the crop {}", self.crop),
            source,
        })
    }

    /// Plans the windows of an image of `[height, width]` pixels, from top to bottom: sliding windows or the whole
    /// image.
    ///
    /// # Errors
    /// Returns an error if the whole image has too many patches to be encoded at once, or if there are too many windows
    /// to be listed.
    pub fn plan(
        &self,
        [height, width]: [usize; 2],
        stride: usize,
    ) -> Result<Vec<PlannedWindow>, ModelError> {
        if self.mode == InferenceMode::Slide {
            self.check_number_of_windows([height, width])?;
            let windows = sliding_windows(width, height, self.crop, self.stride);
            return Ok(windows.into_iter().map(PlannedWindow::from).collect());
        }
        let patches = width.div_ceil(stride) * height.div_ceil(stride);
        if patches > MOST_PATCHES {
            return Err(ModelError::Config(format!(
                "a whole image of {width}×{height} pixels has {patches} patches; at most {MOST_PATCHES} are possible. \
                Use a smaller `short-side`, or mode `slide`"
            )));
        }
        Ok(vec![PlannedWindow::whole([height, width])])
    }
}

/// A part of the resized image after bilinear interpolation to another size, in floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StretchedPart {
    /// Height and width that the resized image is interpolated to.
    pub image: [usize; 2],
    /// The part of it that is encoded.
    pub part: Window,
}

/// A window that is encoded at once, with its size at the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedWindow {
    /// The position of the window in the image.
    pub window: Window,
    /// Height and width in pixels that the window is resized to before it is encoded, multiples of the model's stride.
    /// If `None`, the window keeps its size and is padded.
    pub resized: Option<[usize; 2]>,
    /// Where the pixels come from, if not from the window's own place in the resized image.
    pub input: Option<StretchedPart>,
    /// Height and width at which logits become scores, which are then interpolated to the window. If `None`, that is the
    /// window's own size.
    pub scored_at: Option<[usize; 2]>,
    /// Index of the layer of windows: overlapping windows of one layer are averaged first, then the layers are
    /// averaged.
    pub layer: usize,
}

impl From<Window> for PlannedWindow {
    fn from(window: Window) -> Self {
        Self {
            window,
            resized: None,
            input: None,
            scored_at: None,
            layer: 0,
        }
    }
}

impl PlannedWindow {
    /// Returns the whole image of `[height, width]` pixels as one window.
    pub fn whole([height, width]: [usize; 2]) -> Self {
        Self::from(Window {
            x: 0,
            y: 0,
            width,
            height,
        })
    }

    /// Returns the height and width in pixels of the encoder's input.
    ///
    /// - `stride`: the model's stride; a window that is not resized is padded to multiples of it
    pub fn encoded_size(&self, stride: usize) -> [usize; 2] {
        self.resized.unwrap_or_else(|| {
            let Window { width, height, .. } = self.input.map_or(self.window, |input| input.part);
            [height, width].map(|side| side.next_multiple_of(stride))
        })
    }

    /// Returns the height and width in image pixels that the encoder's input covers; the window is in its top left
    /// corner.
    pub fn covered_size(&self, stride: usize) -> [usize; 2] {
        if self.resized.is_some() || self.input.is_some() {
            return [self.window.height, self.window.width];
        }
        self.encoded_size(stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elongated_images_stay_small() {
        let settings = Inference::default();
        assert_eq!(settings.resized(500, 375), (683, 512));
        // The reference leaves the long side free: 100×1000 becomes 512×5120.
        assert_eq!(settings.resized(1000, 100), (5120, 512));
        assert_eq!(settings.resized(30_000, 2), (8192, 1));
        assert_eq!(settings.resized(2, 30_000), (1, 8192));
        assert_eq!(settings.resized(1, 1), (512, 512));
        let own = Inference {
            short_side: 0,
            ..settings.clone()
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
    fn sizes_beyond_every_memory_are_refused_before_anything_is_allocated() {
        let with = |short_side| Inference {
            short_side,
            ..Inference::default()
        };
        assert!(with(512).check_resized(640, 480).is_ok());
        assert!(with(0).check_resized(12_000, 9000).is_ok());
        for short_side in [100_000, 100_000_000, usize::MAX] {
            let error = with(short_side).check_resized(640, 480).unwrap_err();
            assert!(error.to_string().contains("640×480 to"), "{error}");
        }
        let every_pixel = Inference {
            stride: 1,
            ..Inference::default()
        };
        assert!(every_pixel.plan([1 << 30, 1 << 30], 16).is_err());
        let window = PlannedWindow::whole([usize::MAX / 64, usize::MAX / 64]);
        let error = with(512).check_windows(&[window], 16).unwrap_err();
        assert!(error.to_string().contains("this machine has"), "{error}");
    }

    #[test]
    fn numbers_that_are_not_finite_or_negative_thresholds_are_refused() {
        let refused = |inference: Inference| inference.check().unwrap_err().to_string();
        let seen_offset = |seen_offset| Inference {
            seen_offset,
            ..Inference::default()
        };
        assert!(seen_offset(-0.1).check().is_ok());
        assert!(refused(seen_offset(f32::NAN)).starts_with("inference.seen-offset = NaN"));
        let threshold = Inference {
            threshold: Some(-0.5),
            ..Inference::default()
        };
        assert!(refused(threshold).starts_with("inference.threshold = -0.5"));
    }

    #[test]
    fn a_whole_image_has_a_size_limit() {
        let whole = Inference {
            mode: InferenceMode::Whole,
            ..Inference::default()
        };
        assert_eq!(whole.plan([512, 700], 16).unwrap().len(), 1);
        let error = whole.plan([2000, 2000], 16).unwrap_err().to_string();
        assert!(error.contains("15625 patches"), "{error}");
    }
}
