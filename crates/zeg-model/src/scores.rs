//! Converts masks on the windows' patch grids to pixel scores, one strip of rows at a time.
//!
//! The scores of an image are classes × height × width numbers: 68 GB for 171 classes on an image of 100 megapixels. A
//! [`ScoreField`] therefore stores the logits on the patch grids of the windows in use (700 kB for a window of 512×512
//! with 171 classes), and computes a strip of rows on demand.

use std::{collections::VecDeque, ops::Range};

use rayon::prelude::*;
use zeg_base::memory::product;
use zeg_image::Window;

pub(crate) use crate::window_scores::host;
use crate::{
    ModelError,
    inference::PlannedWindow,
    method::Scoring,
    resize::taps,
    weights::first_not_finite,
    window_scores::{MaskRow, sigmoid},
};
pub use crate::{
    strip::{Labelling, Strip},
    window_scores::{QueryMasks, WeightedMasks, WindowLogits, WindowScores},
};

/// Most bytes of scores in a strip; a single row may exceed it.
const STRIP_BYTES: usize = 32 << 20;
/// Most rows of a strip; longer strips would only distribute the work less evenly over threads.
const MOST_ROWS: usize = 128;

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
        let length = self.classes * self.width;
        let mut values = vec![0.0; rows.len() * length];
        values
            .par_chunks_mut(length.max(1))
            .zip(rows)
            .for_each_init(
                || (Vec::new(), vec![0.0_f32; self.width]),
                |(line, counts), (scores, row)| self.fill_row(row, scores, line, counts),
            );
        values
    }

    /// Computes one row into `scores`, `[classes, width]` of zeros on entry; `line` and `counts` are scratch buffers.
    fn fill_row(&self, row: usize, scores: &mut [f32], line: &mut Vec<f32>, counts: &mut [f32]) {
        self.average(0, row, scores, line, counts);
        if self.layers > 1 {
            let mut layer_scores = vec![0.0; scores.len()];
            for layer in 1..self.layers {
                layer_scores.fill(0.0);
                self.average(layer, row, &mut layer_scores, line, counts);
                for (sum, score) in scores.iter_mut().zip(&layer_scores) {
                    *sum += score;
                }
            }
            let layers = self.layers as f32;
            for score in scores.iter_mut() {
                *score /= layers;
            }
        }
        for (class, scores) in scores.chunks_exact_mut(self.width).enumerate() {
            let offset = self.offsets.get(class).copied().unwrap_or(0.0);
            for score in scores.iter_mut() {
                *score -= offset;
            }
        }
    }

    /// Computes one row of the mean over a layer's windows into `scores`, `[classes, width]` of zeros on entry; `line`
    /// and `counts` are scratch buffers.
    fn average(
        &self,
        layer: usize,
        row: usize,
        scores: &mut [f32],
        line: &mut Vec<f32>,
        counts: &mut [f32],
    ) {
        counts.fill(0.0);
        let covers = |placed: &&PlacedScores| {
            let Window { y, height, .. } = placed.window;
            placed.layer == layer && (y..y + height).contains(&row)
        };
        for placed in self.windows.iter().filter(covers) {
            let Window { x, y, width, .. } = placed.window;
            match &placed.content {
                Content::Logits(logits) => self.add_logits(logits, row - y, scores, line),
                Content::Masks(masks) => {
                    let mut shares = vec![0.0; width];
                    let place = MaskRow {
                        row: row - y,
                        first_column: x,
                        row_width: self.width,
                    };
                    masks.add_row(place, scores, line, &mut shares);
                }
            }
            for count in &mut counts[x..x + width] {
                *count += 1.0;
            }
        }
        for scores in scores.chunks_exact_mut(self.width) {
            for (score, count) in scores.iter_mut().zip(counts.iter()) {
                *score /= count.max(1.0);
            }
        }
    }

    /// Adds one row of a window, counted from the window's top, to `scores`, `[classes, width]` of the field.
    fn add_logits(&self, part: &WindowLogits, row: usize, scores: &mut [f32], line: &mut Vec<f32>) {
        let Window { x, width, .. } = part.window;
        if let Some(scored) = &part.scored {
            let (top, bottom, fraction) = part.rows[row];
            let score = |logit: f32| match self.scoring {
                Scoring::Sigmoid => sigmoid(logit),
                Scoring::Softmax | Scoring::MaskSum => logit,
            };
            let mut below = Vec::new();
            for (class, scores) in scores.chunks_exact_mut(self.width).enumerate() {
                part.scored_row(class, top, scored, score, line);
                part.scored_row(class, bottom, scored, score, &mut below);
                for (value, below) in line.iter_mut().zip(&below) {
                    *value = *value * (1.0 - fraction) + below * fraction;
                }
                let columns = part.columns[..width].iter();
                for (score, &(left, right, fraction)) in
                    scores[x..x + width].iter_mut().zip(columns)
                {
                    *score += line[left] * (1.0 - fraction) + line[right] * fraction;
                }
            }
            return;
        }
        let (top, bottom, fraction) = part.rows[row];
        let [h, w] = part.grid;
        let grid_row = |class: usize, r: usize| &part.values[(class * h + r) * w..][..w];
        for (class, scores) in scores.chunks_exact_mut(self.width).enumerate() {
            line.clear();
            line.extend(
                grid_row(class, top)
                    .iter()
                    .zip(grid_row(class, bottom))
                    .map(|(a, b)| a * (1.0 - fraction) + b * fraction),
            );
            let logits = part.columns[..width]
                .iter()
                .map(|&(left, right, fraction)| {
                    line[left] * (1.0 - fraction) + line[right] * fraction
                });
            let scores = &mut scores[x..x + width];
            match self.scoring {
                Scoring::Sigmoid => {
                    for (score, logit) in scores.iter_mut().zip(logits) {
                        *score += sigmoid(logit);
                    }
                }
                Scoring::Softmax | Scoring::MaskSum => {
                    for (score, logit) in scores.iter_mut().zip(logits) {
                        *score += logit;
                    }
                }
            }
        }
    }

    /// Returns the strips that an image of `size` = `[height, width]` is divided into, from top to bottom.
    pub fn strips(&self, [height, width]: [usize; 2]) -> impl Iterator<Item = Range<usize>> {
        // When the field is larger than the image, a strip needs more rows of the field than it has itself.
        let shrink = self.height.div_ceil(height.max(1)).max(1);
        let row_bytes = self.classes * width.max(self.width * shrink) * size_of::<f32>();
        let rows = (STRIP_BYTES / row_bytes.max(1)).clamp(1, MOST_ROWS);
        (0..height)
            .step_by(rows)
            .map(move |first| first..(first + rows).min(height))
    }

    /// Returns the bytes of the scores of some rows of an image, and those of the rows of the field that they are
    /// interpolated from, of which there may be one or two more.
    ///
    /// - `size`: height and width of the image
    pub(crate) fn bytes_of_rows(&self, rows: usize, [height, width]: [usize; 2]) -> [u64; 2] {
        let source = rows.saturating_mul(self.height) / height.max(1);
        let bytes = |rows, width| product(&[rows, self.classes, width, size_of::<f32>()]);
        [bytes(rows, width), bytes(source.max(1), self.width)]
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
    pub fn strip(&self, rows: Range<usize>, [height, width]: [usize; 2]) -> Strip {
        let source = self.source_rows(&rows, height);
        let scores = self.rows(source.clone()); // [source rows, classes, self.width]
        let vertical = taps(self.height, height);
        let horizontal = taps(self.width, width);
        let length = self.classes * width;
        let mut values = vec![0.0; rows.len() * length];
        values
            .par_chunks_mut(length.max(1))
            .zip(&vertical[rows.clone()])
            .for_each_init(
                || vec![0.0_f32; self.width],
                |line, (strip, &(top, bottom, fraction))| {
                    for (class, strip) in strip.chunks_exact_mut(width).enumerate() {
                        let row = |y: usize| {
                            let start = ((y - source.start) * self.classes + class) * self.width;
                            &scores[start..start + self.width]
                        };
                        for ((value, a), b) in line.iter_mut().zip(row(top)).zip(row(bottom)) {
                            *value = a * (1.0 - fraction) + b * fraction;
                        }
                        for (value, &(left, right, fraction)) in strip.iter_mut().zip(&horizontal) {
                            *value = line[left] * (1.0 - fraction) + line[right] * fraction;
                        }
                    }
                },
            );
        Strip {
            first_row: rows.start,
            classes: self.classes,
            width,
            scoring: self.scoring,
            values,
        }
    }
}

#[cfg(test)]
mod tests;
