//! Scores of whole pictures in main memory, for comparing numbers with a reference.
//!
//! [`crate::scan`] is what pictures of any size go through; here every score is kept, and what goes in is
//! a tensor that was normalised elsewhere.

use burn::tensor::{Tensor, TensorData};
use zeg_image::{LabelMap, Window};

use crate::{
    ModelError,
    dense::{ClassQueries, DenseModel, Scoring},
    encoded::EncodedWindow,
    inference::Inference,
    scan::{empty_field, logits},
    scores::{Labelling, ScoreField, WindowLogits},
};

/// Scores of every class at every pixel, all in main memory: for comparing numbers; [`crate::scan`] needs less.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreMap {
    /// Number of classes.
    pub classes: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[classes, height, width]`, row-major; scores minus the offset of seen classes.
    pub values: Vec<f32>,
}

impl ScoreMap {
    /// The best class of every pixel at another size, scores interpolated bilinearly.
    ///
    /// # Errors
    /// The size is beyond what memory can be.
    pub fn labels(
        &self,
        width: usize,
        height: usize,
        threshold: Option<f32>,
    ) -> Result<LabelMap, ModelError> {
        let size = [self.height, self.width];
        let window = Window {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        };
        // The values are final: one window whose grid is the pixels themselves.
        let mut field = ScoreField::new(self.classes, size, Scoring::Softmax, Vec::new());
        field.push(WindowLogits::new(window, self.values.clone(), size, size));
        let mut labels = vec![0; width * height];
        for rows in field.strips([height, width]).collect::<Vec<_>>() {
            let part = &mut labels[rows.start * width..rows.end * width];
            field
                .strip(rows, [height, width])
                .label(&Labelling::threshold(threshold), part, None);
        }
        LabelMap::new(width, height, labels).map_err(|error| ModelError::Config(error.to_string()))
    }
}

/// Scores a normalised picture `[1, 3, height, width]` with windows, without resizing it.
///
/// # Errors
/// The settings do not fit the picture, or the device could not be read.
pub fn score_windows(
    model: &dyn DenseModel,
    image: Tensor<4>,
    queries: &ClassQueries,
    settings: &Inference,
) -> Result<ScoreMap, ModelError> {
    let [_, _, height, width] = image.dims();
    let classes = queries.seen.len();
    let patch = model.patch();
    let mut field = empty_field(model, queries, [height, width], settings);
    for window in settings.windows([height, width], patch)? {
        let padded = [
            window.height.next_multiple_of(patch),
            window.width.next_multiple_of(patch),
        ];
        let right = padded[1] - window.width;
        let bottom = padded[0] - window.height;
        let crop = image
            .clone()
            .narrow(2, window.y, window.height)
            .narrow(3, window.x, window.width)
            .pad((0, right, 0, bottom), 0.0); // left, right, top, bottom
        let encoded = model.encode(crop);
        let part = EncodedWindow {
            window,
            padded,
            encoded,
        };
        field.push(logits(model, &part, queries)?);
    }
    let rows = field.rows(0..height); // [height, classes, width]
    let mut values = Vec::with_capacity(rows.len());
    for class in 0..classes {
        for row in rows.chunks_exact((classes * width).max(1)) {
            values.extend_from_slice(&row[class * width..(class + 1) * width]);
        }
    }
    Ok(ScoreMap {
        classes,
        height,
        width,
        values,
    })
}

/// Subtracts `offset` from the scores of the seen classes, `[batch, classes, h, w]`.
pub fn lower_seen(scores: Tensor<4>, seen: &[bool], offset: f32) -> Tensor<4> {
    if offset == 0.0 {
        return scores;
    }
    let offsets: Vec<f32> = seen
        .iter()
        .map(|&seen| if seen { offset } else { 0.0 })
        .collect();
    let device = scores.device();
    scores - Tensor::<4>::from_data(TensorData::new(offsets, [1, seen.len(), 1, 1]), &device)
}
