//! What a model says of one window: logits on its patch grid, or masks of queries with what each is worth.

use burn::tensor::Tensor;
use zeg_image::Window;

use crate::{ModelError, resize::taps};

/// For each place its lower neighbour, its upper neighbour and the upper one's weight.
type Taps = Vec<(usize, usize, f32)>;

/// What a model says of one window and some classes.
#[derive(Debug, Clone)]
pub enum WindowScores {
    /// Logits on the patch grid, of one window: `[1, classes, h, w]`
    Logits(Tensor<4>),
    /// Masks of queries, and what each is worth for every class.
    Masks {
        /// The masks.
        masks: QueryMasks,
        /// `[queries, classes]`
        scores: Vec<f32>,
    },
}

/// Mask logits of one window's queries.
#[derive(Debug, Clone)]
pub struct QueryMasks {
    /// `[queries, h, w]`
    pub values: Vec<f32>,
    /// Number of queries.
    pub queries: usize,
    /// Rows and columns of the masks.
    pub grid: [usize; 2],
}

impl QueryMasks {
    /// The logits of one query: `[h, w]`.
    pub fn of(&self, query: usize) -> &[f32] {
        let cells = self.grid[0] * self.grid[1];
        &self.values[query * cells..][..cells]
    }

    /// The highest logit of a query; at no size the mask has a higher one.
    pub fn peak(&self, query: usize) -> f32 {
        let logits = self.of(query).iter().copied();
        logits.fold(f32::NEG_INFINITY, f32::max)
    }

    /// Whether a query's mask takes no pixel at any size.
    pub fn is_empty(&self, query: usize) -> bool {
        self.peak(query) <= 0.0
    }
}

/// Logits of one window on its patch grid.
#[derive(Debug, Clone)]
pub struct WindowLogits {
    pub(crate) window: Window,
    /// `[classes, h, w]`
    pub(crate) values: Vec<f32>,
    pub(crate) grid: [usize; 2],
    pub(crate) rows: Taps,
    pub(crate) columns: Taps,
}

impl WindowLogits {
    /// The logits of a window.
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
        }
    }
}

/// Masks of queries that belong to several classes at once: a pixel's score for a class is the sum over queries of the
/// mask's sigmoid times the query's score. It can exceed 1.
#[derive(Debug, Clone)]
pub struct WeightedMasks {
    masks: QueryMasks,
    /// `[queries, classes]`
    scores: Vec<f32>,
    rows: Taps,
    columns: Taps,
}

impl WeightedMasks {
    /// Masks of one image.
    ///
    /// - `scores`: `[queries, classes]`
    /// - `padded`: height and width in pixels that the masks cover, the image in the top left corner
    pub fn new(masks: QueryMasks, scores: Vec<f32>, padded: [usize; 2]) -> Self {
        Self {
            rows: taps(masks.grid[0], padded[0]),
            columns: taps(masks.grid[1], padded[1]),
            masks,
            scores,
        }
    }

    /// Adds one row to `scores`, `[classes, row width]`; `line` and `shares` are scratch, `shares` as long as the window's
    /// row.
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

/// Where a row of masks goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaskRow {
    /// Counted from the window's top.
    pub(crate) row: usize,
    /// The window's first column in the field.
    pub(crate) first_column: usize,
    /// Columns of the field.
    pub(crate) row_width: usize,
}

/// The values of a tensor in main memory, row-major.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| ModelError::Config(format!("{error:?}")))
}

/// σ(x).
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
