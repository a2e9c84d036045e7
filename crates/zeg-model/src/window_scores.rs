//! The scores of one window: logits on its patch grid, or masks of mask queries with class scores.

use std::ops::Range;

use burn::tensor::Tensor;

use zeg_image::Window;
use zeg_kernels::{
    Level,
    score_rows::{RowPair, exponentials, sigmoids_of_exponentials},
};

use crate::{ModelError, resize::taps};

/// For each output position, its lower neighbour, its upper neighbour, and the weight of the upper one.
pub(crate) type Taps = Vec<(usize, usize, f32)>;

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

    /// Computes a row of a class's logits at the size of [`WindowLogits::scored_at`] into `line`.
    pub(crate) fn scored_row(
        &self,
        class: usize,
        row: usize,
        [rows, columns]: &[Taps; 2],
        line: &mut Vec<f32>,
    ) {
        let [h, w] = self.grid;
        let (top, bottom, fraction) = rows[row];
        let of_row = |r: usize| &self.values[(class * h + r) * w..][..w];
        let (top, bottom) = (of_row(top), of_row(bottom));
        let at = |x: usize| top[x] * (1.0 - fraction) + bottom[x] * fraction;
        line.clear();
        line.extend(
            columns
                .iter()
                .map(|&(left, right, fraction)| at(left) * (1.0 - fraction) + at(right) * fraction),
        );
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

    /// Returns, for each column of the window, the columns of the masks.
    pub(crate) fn columns(&self) -> &Taps {
        &self.columns
    }

    /// Returns the rows of all masks that a row of the window is interpolated from, and the number of masks.
    ///
    /// - `cells`: the columns of the masks that are needed
    pub(crate) fn row(&self, row: usize, cells: &Range<usize>) -> (RowPair<'_>, usize) {
        let (top, bottom, fraction) = self.rows[row];
        let [h, w] = self.masks.grid;
        let of_row = |row: usize| self.masks.values.get(row * w + cells.start..);
        let pair = RowPair {
            top: of_row(top).unwrap_or_default(),
            bottom: of_row(bottom).unwrap_or_default(),
            length: cells.len(),
            stride: h * w,
            fraction,
        };
        (pair, self.masks.queries)
    }

    /// Returns the class scores of the masks: `[queries, classes]`.
    pub(crate) fn class_scores(&self) -> &[f32] {
        &self.scores
    }
}

/// Copies the values of a tensor to main memory, row-major.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| ModelError::Config(format!("{error:?}")))
}

/// Computes σ(x) = 1 / (1 + e⁻ˣ) of every value, in place.
pub(crate) fn sigmoids(level: Level, values: &mut [f32]) {
    for value in values.iter_mut() {
        *value = -*value;
    }
    exponentials(level, values);
    sigmoids_of_exponentials(level, values);
}
