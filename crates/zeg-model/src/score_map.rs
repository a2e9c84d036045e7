//! Scores of whole images in main memory, for comparing numbers with a reference.
//!
//! [`crate::scan`] processes images of any size; this module keeps every score, and its input is a tensor that was
//! normalised elsewhere.

use burn::tensor::{Tensor, TensorData};
use zeg_image::{LabelMap, Window};

use crate::{
    ModelError,
    classes::ClassQueries,
    encoded::{EncodedWindow, layers},
    inference::Inference,
    method::{Model, Scoring, WindowBatch},
    scan::{empty_field, push_scores},
    scores::{Labelling, ScoreField, WindowLogits},
};

/// The scores of every class at every pixel, all in main memory; for comparing numbers. [`crate::scan`] needs less
/// memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreMap {
    /// Number of classes.
    pub classes: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
    /// `[classes, height, width]`, row-major; the offset of seen classes is already subtracted.
    pub values: Vec<f32>,
}

impl ScoreMap {
    /// Computes all scores of a field.
    pub(crate) fn of_field(field: &ScoreField) -> Self {
        let [height, width] = field.size();
        let classes = field.classes();
        let mut values = vec![0.0; classes * height * width];
        field.each_strip(field.size(), |strip| {
            strip.copy_into(strip.values(), &mut values, height);
        });
        Self {
            classes,
            height,
            width,
            values,
        }
    }

    /// Returns a field with these scores as final values: one window whose grid is the pixels themselves.
    ///
    /// - `scoring`: the model's scoring; values that are already scores, not logits, stay as they are
    pub(crate) fn into_field(self, scoring: Scoring, offsets: Vec<f32>) -> ScoreField {
        let size = [self.height, self.width];
        let window = Window {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        };
        let scoring = match scoring {
            Scoring::Softmax => Scoring::Softmax,
            Scoring::Sigmoid | Scoring::MaskSum => Scoring::MaskSum,
        };
        let mut field = ScoreField::new(self.classes, size, scoring, offsets);
        field.push(WindowLogits::new(window, self.values, size, size));
        field
    }

    /// Returns the best class of every pixel at another image size, with scores interpolated bilinearly.
    ///
    /// # Errors
    /// Returns an error if the size exceeds what memory can hold.
    pub fn labels(
        &self,
        width: usize,
        height: usize,
        threshold: Option<f32>,
    ) -> Result<LabelMap, ModelError> {
        let field = self.clone().into_field(Scoring::MaskSum, Vec::new());
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

/// Scores the windows of a normalised image `[1, 3, height, width]`, without resizing the image.
///
/// # Errors
/// Returns an error if the settings do not suit the image size, or the device cannot be read.
pub fn score_windows(
    model: &dyn Model,
    image: Tensor<4>,
    queries: &ClassQueries,
    settings: &Inference,
) -> Result<ScoreMap, ModelError> {
    let [_, _, height, width] = image.dims();
    let stride = model.stride();
    let plan = model.plan([height, width], settings)?;
    let mut field =
        empty_field(model, queries, [height, width], settings).with_layers(layers(plan.iter()));
    for planned in plan {
        let window = planned.window;
        if planned.resized.is_some() || planned.input.is_some() {
            return Err(ModelError::Config(
                "this method resizes its windows; that needs an image, not a normalised tensor"
                    .into(),
            ));
        }
        let [padded_height, padded_width] = planned.encoded_size(stride);
        let right = padded_width - window.width;
        let bottom = padded_height - window.height;
        let images = image
            .clone()
            .narrow(2, window.y, window.height)
            .narrow(3, window.x, window.width)
            .pad((0, right, 0, bottom), 0.0); // left, right, top, bottom
        let encodings = model.encode(&WindowBatch {
            images,
            pixels: &[],
        })?;
        for encoding in encodings {
            push_scores(
                &mut field,
                model,
                &EncodedWindow { planned, encoding },
                queries,
            )?;
        }
    }
    Ok(ScoreMap::of_field(&field))
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
