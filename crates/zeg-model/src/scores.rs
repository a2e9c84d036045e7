//! Converts masks on the windows' patch grids to pixel scores, one strip of rows at a time.
//!
//! The scores of an image are classes × height × width numbers: 68 GB for 171 classes on an image of 100 megapixels. A
//! [`ScoreField`] therefore stores the logits on the patch grids of the windows in use (700 kB for a window of 512×512
//! with 171 classes), and computes a strip of rows on demand.

use std::{collections::VecDeque, ops::Range};

use zeg_base::memory::product;
use zeg_image::Window;

mod mean;
mod resampled;

pub use self::mean::{Found, LabelTask, MeanScores};
pub(crate) use crate::window_scores::host;
use crate::{
    ModelError, inference::PlannedWindow, method::Scoring, resize::taps, weights::first_not_finite,
};
pub use crate::{
    strip::{Labelling, Strip},
    window_scores::{QueryMasks, WeightedMasks, WindowLogits, WindowScores},
};

/// Most bytes of scores in a strip; a single row may exceed it.
const STRIP_BYTES: usize = 16 << 20;
/// Most rows of a strip; longer strips would only need more windows at once.
pub const MOST_ROWS: usize = 128;

/// The scores of one window and its place in the image.
#[derive(Debug, Clone)]
struct PlacedScores {
    window: Window,
    layer: usize,
    content: Content,
}

/// The data that a window's scores are computed from.
#[derive(Debug, Clone)]
enum Content {
    /// Logits on the patch grid.
    Logits(WindowLogits),
    /// Masks of mask queries.
    Masks(Box<WeightedMasks>),
}

/// Checks the scores of a window; `class_of` returns the class of a score from its index.
///
/// A score that is not a number is never the highest, so every pixel would get the first class.
fn check_finite(scores: &[f32], class_of: impl Fn(usize) -> usize) -> Result<(), ModelError> {
    match first_not_finite(scores) {
        Some(index) => Err(ModelError::NotFiniteScore {
            value: scores[index],
            class: class_of(index),
        }),
        None => Ok(()),
    }
}

/// The scores of an image, computed on demand.
#[derive(Debug, Clone)]
pub struct ScoreField {
    classes: usize,
    height: usize,
    width: usize,
    scoring: Scoring,
    /// `[classes]`, subtracted from the scores; empty for none.
    offsets: Vec<f32>,
    /// Number of layers of windows, at least 1.
    layers: usize,
    windows: VecDeque<PlacedScores>,
}

impl ScoreField {
    /// Returns a field without windows.
    ///
    /// - `offsets`: `[classes]`, subtracted from the scores; empty for none
    pub fn new(
        classes: usize,
        [height, width]: [usize; 2],
        scoring: Scoring,
        offsets: Vec<f32>,
    ) -> Self {
        Self {
            classes,
            height,
            width,
            scoring,
            offsets,
            layers: 1,
            windows: VecDeque::new(),
        }
    }

    /// Sets the number of layers of windows ([`PlannedWindow::layer`]).
    #[must_use]
    pub fn with_layers(mut self, layers: usize) -> Self {
        self.layers = layers.max(1);
        self
    }

    /// Adds a window's logits to the first layer.
    pub fn push(&mut self, logits: WindowLogits) {
        self.windows.push_back(PlacedScores {
            window: logits.window,
            layer: 0,
            content: Content::Logits(logits),
        });
    }

    /// Adds a planned window's scores.
    ///
    /// - `covered`: height and width in pixels that the scores cover, the window in the top left corner
    ///
    /// # Errors
    /// Returns an error if the device cannot be read, or if a score is not finite.
    pub fn push_window(
        &mut self,
        planned: &PlannedWindow,
        scores: WindowScores,
        covered: [usize; 2],
    ) -> Result<(), ModelError> {
        let content = match scores {
            WindowScores::Logits(logits) => {
                let [_, _, h, w] = logits.dims();
                let values = host(logits)?; // [1, classes, h, w]
                check_finite(&values, |index| index / (h * w).max(1))?;
                let logits = WindowLogits::new(planned.window, values, [h, w], covered);
                Content::Logits(match planned.scored_at {
                    Some(size) => logits.scored_at(size, covered),
                    None => logits,
                })
            }
            WindowScores::Masks { masks, scores } => {
                let classes = self.classes.max(1);
                check_finite(&scores, |index| index % classes)?; // [queries, classes]
                check_finite(&masks.values, |_| 0)?; // a mask belongs to every class
                Content::Masks(Box::new(WeightedMasks::new(masks, scores, covered)))
            }
        };
        self.windows.push_back(PlacedScores {
            window: planned.window,
            layer: planned.layer,
            content,
        });
        Ok(())
    }

    /// Drops the windows that end above a row.
    pub fn forget_above(&mut self, row: usize) {
        self.windows
            .retain(|placed| placed.window.y + placed.window.height > row);
    }

    /// Removes and returns the offsets; scores computed afterwards are not lowered.
    pub(crate) fn take_offsets(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.offsets)
    }

    /// Sets the offsets that scores are lowered by: `[classes]`; empty for none.
    pub(crate) fn set_offsets(&mut self, offsets: Vec<f32>) {
        self.offsets = offsets;
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns height and width in pixels.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Computes rows of scores: `[rows, classes, width]`. Rows that no window covers are 0.
    pub fn rows(&self, rows: Range<usize>) -> Vec<f32> {
        self.strip(rows, self.size()).values
    }

    /// Returns whether a part of a row costs as much as the whole row.
    fn has_whole_rows(&self) -> bool {
        let is_whole = |placed: &PlacedScores| match &placed.content {
            Content::Logits(logits) => logits.scored.is_some(),
            Content::Masks(_) => false,
        };
        self.windows.iter().any(is_whole)
    }

    /// Returns the strips that an image of `size` = `[height, width]` is divided into, from top to bottom, for a reader
    /// of all scores.
    pub fn strips(
        &self,
        [height, width]: [usize; 2],
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let row_bytes = self.classes * width * size_of::<f32>();
        let rows = (STRIP_BYTES / row_bytes.max(1)).clamp(1, MOST_ROWS);
        (0..height)
            .step_by(rows)
            .map(move |first| first..(first + rows).min(height))
    }

    /// Computes all rows at the size of an image, a strip at a time, in the same memory.
    pub(crate) fn each_strip(&self, size: [usize; 2], mut visit: impl FnMut(&Strip)) {
        let mean = MeanScores::new(&[(false, self)], size);
        let mut buffer = Vec::new();
        for rows in self.strips(size) {
            let strip = mean.strip(rows, buffer);
            visit(&strip);
            buffer = strip.values;
        }
    }

    /// Returns the bytes of the scores of some rows of an image.
    ///
    /// - `width`: number of columns of the image
    pub(crate) fn bytes_of_rows(&self, rows: usize, width: usize) -> u64 {
        product(&[rows, self.classes, width, size_of::<f32>()])
    }

    /// Returns the rows of the field from which the given rows of an image of `height` rows are interpolated.
    pub fn source_rows(&self, rows: &Range<usize>, height: usize) -> Range<usize> {
        let taps = taps(self.height, height);
        match (taps.get(rows.start), taps.get(rows.end.saturating_sub(1))) {
            (Some(&(first, _, _)), Some(&(_, last, _))) => first..last + 1,
            _ => 0..0,
        }
    }

    /// Computes rows of the scores at another image size, `[height, width]`, interpolated bilinearly.
    pub fn strip(&self, rows: Range<usize>, size: [usize; 2]) -> Strip {
        MeanScores::new(&[(false, self)], size).strip(rows, Vec::new())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod volume_tests;
