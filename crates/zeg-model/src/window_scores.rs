//! The scores of one window: logits on its patch grid, or masks of mask queries with class scores.

use burn::tensor::Tensor;
use zeg_image::Window;

use crate::{ModelError, resize::taps};

/// For each output position, its lower neighbour, its upper neighbour, and the weight of the upper one.
type Taps = Vec<(usize, usize, f32)>;

/// A model's scores of one window for some classes.
#[derive(Debug, Clone)]
pub enum WindowScores {
    /// Logits of one window on the patch grid: `[1, classes, h, w]`
    Logits(Tensor<4>),
    /// Masks of mask queries, with the class scores of each query.
    Masks {
        /// The masks.
        masks: QueryMasks,
        /// Class scores: `[queries, classes]`
        scores: Vec<f32>,
    },
}

/// The mask logits of the mask queries of one window.
#[derive(Debug, Clone)]
pub struct QueryMasks {
    /// Mask logits: `[queries, h, w]`
    pub values: Vec<f32>,
    /// Number of mask queries.
    pub queries: usize,
    /// Rows and columns of the masks.
    pub grid: [usize; 2],
}

impl QueryMasks {
    /// Returns the mask logits of one query: `[h, w]`.
    pub fn of(&self, query: usize) -> &[f32] {
        let cells = self.grid[0] * self.grid[1];
        &self.values[query * cells..][..cells]
    }

    /// Returns the highest mask logit of a query; bilinear resizing never exceeds it.
    pub fn peak(&self, query: usize) -> f32 {
        let logits = self.of(query).iter().copied();
        logits.fold(f32::NEG_INFINITY, f32::max)
    }

    /// Returns whether a query's mask covers no pixel at any size.
    pub fn is_empty(&self, query: usize) -> bool {
        self.peak(query) <= 0.0
    }
}

/// The logits of one window on its patch grid.
#[derive(Debug, Clone)]
pub struct WindowLogits {
    pub(crate) window: Window,
    /// `[classes, h, w]`
    pub(crate) values: Vec<f32>,
    pub(crate) grid: [usize; 2],
    pub(crate) rows: Taps,
    pub(crate) columns: Taps,
    /// Rows and columns of the grid at which logits become scores, if that is not the window's own size; `rows` and
    /// `columns` then start from these.
    pub(crate) scored: Option<[Taps; 2]>,
}

impl WindowLogits {
    /// Returns the logits of a window.
    ///
    /// - `values`: `[classes, h, w]` on a patch grid of `grid` = `[h, w]`
    /// - `padded`: height and width in pixels that the grid covers, the window in its top left corner
    pub fn new(window: Window, values: Vec<f32>, grid: [usize; 2], padded: [usize; 2]) -> Self {
        Self {
            rows: taps(grid[0], padded[0]),
            columns: taps(grid[1], padded[1]),
            window,
            values,
            grid,
            scored: None,
        }
    }

    /// Sets height and width at which logits become scores, which are then interpolated.
    ///
    /// - `padded`: as in [`WindowLogits::new`]
    #[must_use]
    pub fn scored_at(mut self, [height, width]: [usize; 2], padded: [usize; 2]) -> Self {
        self.scored = Some([taps(self.grid[0], height), taps(self.grid[1], width)]);
        (self.rows, self.columns) = (taps(height, padded[0]), taps(width, padded[1]));
        self
    }

    /// Computes a row of a class's scores at the size of [`WindowLogits::scored_at`] into `line`.
    ///
    /// - `score`: from a logit to a score
    pub(crate) fn scored_row(
        &self,
        class: usize,
        row: usize,
        [rows, columns]: &[Taps; 2],
        score: impl Fn(f32) -> f32,
        line: &mut Vec<f32>,
    ) {
        let [h, w] = self.grid;
        let (top, bottom, fraction) = rows[row];
        let of_row = |r: usize| &self.values[(class * h + r) * w..][..w];
        let (top, bottom) = (of_row(top), of_row(bottom));
        let at = |x: usize| top[x] * (1.0 - fraction) + bottom[x] * fraction;
        line.clear();
        line.extend(columns.iter().map(|&(left, right, fraction)| {
            score(at(left) * (1.0 - fraction) + at(right) * fraction)
        }));
    }
}

/// Masks that can belong to several classes at once: a pixel's score for a class is the sum over mask queries of σ(mask
/// logit) times the query's class score. It can exceed 1.
#[derive(Debug, Clone)]
pub struct WeightedMasks {
    masks: QueryMasks,
    /// `[queries, classes]`
    scores: Vec<f32>,
    rows: Taps,
    columns: Taps,
}

impl WeightedMasks {
    /// Returns the weighted masks of one window.
    ///
    /// - `scores`: `[queries, classes]`
    /// - `padded`: height and width in pixels that the masks cover, the window in the top left corner
    pub fn new(masks: QueryMasks, scores: Vec<f32>, padded: [usize; 2]) -> Self {
        Self {
            rows: taps(masks.grid[0], padded[0]),
            columns: taps(masks.grid[1], padded[1]),
            masks,
            scores,
        }
    }

    /// Adds one row to `scores`, `[classes, row width]`; `line` and `shares` are scratch buffers, `shares` as long as
    /// the window's row.
    pub(crate) fn add_row(
        &self,
        at: MaskRow,
        scores: &mut [f32],
        line: &mut Vec<f32>,
        shares: &mut [f32],
    ) {
        let (top, bottom, fraction) = self.rows[at.row];
        let [_, w] = self.masks.grid;
        let width = at.row_width.max(1);
        let classes = scores.len() / width;
        for query in 0..self.masks.queries {
            let mask = self.masks.of(query);
            line.clear();
            line.extend(
                mask[top * w..][..w]
                    .iter()
                    .zip(&mask[bottom * w..][..w])
                    .map(|(a, b)| a * (1.0 - fraction) + b * fraction),
            );
            for (share, &(left, right, fraction)) in shares.iter_mut().zip(&self.columns) {
                *share = sigmoid(line[left] * (1.0 - fraction) + line[right] * fraction);
            }
            let weights = &self.scores[query * classes..][..classes];
            for (scores, weight) in scores.chunks_exact_mut(width).zip(weights) {
                for (score, share) in scores[at.first_column..].iter_mut().zip(shares.iter()) {
                    *score += weight * share;
                }
            }
        }
    }
}

/// The position of a row of masks in the field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskRow {
    /// Row, counted from the window's top.
    pub(crate) row: usize,
    /// First column of the window in the field.
    pub(crate) first_column: usize,
    /// Number of columns of the field.
    pub(crate) row_width: usize,
}

/// Copies the values of a tensor to main memory, row-major.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| ModelError::Config(format!("{error:?}")))
}

/// Computes σ(x).
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
