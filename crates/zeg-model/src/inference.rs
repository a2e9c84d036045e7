//! From a picture of any size to class scores and labels: windows, averaged scores, labels at the original size.

use burn::tensor::{Device, Tensor, TensorData, activation};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zeg_image::{
    IGNORE_LABEL, LabelMap, RgbImage, fit_short_side, normalize::Normalization, resize_bilinear,
    sliding_windows,
};

use crate::{ModelError, resize::bilinear, resize::taps, trace::Trace, zegclip::ZegClip};

/// How pictures go through a model; the defaults are the published protocol.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Inference {
    /// Length that the short side of a picture is resized to, in pixels.
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
}

impl Default for Inference {
    fn default() -> Self {
        Self {
            short_side: 512,
            crop: 512,
            stride: 426,
            seen_offset: 0.1,
            threshold: None,
        }
    }
}

impl Inference {
    /// Checks the numbers.
    ///
    /// # Errors
    /// One is zero, or windows would leave gaps.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.short_side == 0 || self.crop == 0 || self.stride == 0 || self.stride > self.crop {
            return Err(ModelError::Config(format!(
                "inference: short-side {}, crop {}, stride {}: all must be at least 1, the stride at most the crop",
                self.short_side, self.crop, self.stride
            )));
        }
        Ok(())
    }
}

/// Scores of every class at every pixel of the resized picture, in main memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreMap {
    /// Number of classes.
    pub classes: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// `[classes, height, width]`, row-major; sigmoid scores minus the offset of seen classes, so −1 to 1.
    pub values: Vec<f32>,
}

impl ScoreMap {
    /// The best class of every pixel at another size, scores interpolated bilinearly; ties go to the lower class,
    /// and pixels where no score reaches `threshold` to [`IGNORE_LABEL`].
    ///
    /// One row of one class is in memory at a time, so that a large picture with many classes costs nothing extra.
    pub fn labels(
        &self,
        width: usize,
        height: usize,
        threshold: Option<f32>,
    ) -> Result<LabelMap, ModelError> {
        let (rows, columns) = (taps(self.height, height), taps(self.width, width));
        let mut labels = vec![0_u16; width * height];
        labels
            .par_chunks_mut(width.max(1))
            .zip(&rows)
            .for_each_init(
                || (vec![0.0_f32; self.width], vec![0.0_f32; width]),
                |(line, best), (labels, &(y0, y1, fraction))| {
                    best.fill(f32::NEG_INFINITY);
                    for class in 0..self.classes {
                        let row = |y: usize| {
                            &self.values[(class * self.height + y) * self.width..][..self.width]
                        };
                        for ((value, top), bottom) in line.iter_mut().zip(row(y0)).zip(row(y1)) {
                            *value = top * (1.0 - fraction) + bottom * fraction;
                        }
                        for ((label, best), &(x0, x1, fraction)) in
                            labels.iter_mut().zip(best.iter_mut()).zip(&columns)
                        {
                            let score = line[x0] * (1.0 - fraction) + line[x1] * fraction;
                            if score > *best {
                                (*label, *best) = (class as u16, score);
                            }
                        }
                    }
                    if let Some(threshold) = threshold {
                        for (label, _) in labels
                            .iter_mut()
                            .zip(best.iter())
                            .filter(|(_, best)| **best < threshold)
                        {
                            *label = IGNORE_LABEL;
                        }
                    }
                },
            );
        LabelMap::new(width, height, labels).map_err(|error| ModelError::Config(error.to_string()))
    }
}

/// Classes to tell apart, ready for a model.
#[derive(Debug, Clone)]
pub struct ClassQueries {
    /// Class embeddings `[classes, dim]`.
    pub text: Tensor<2>,
    /// `[classes]`: whether the class was seen in training, so that its scores are lowered.
    pub seen: Vec<bool>,
}

/// Scores a normalised picture `[1, 3, height, width]` with windows.
///
/// Scores of overlapping windows are averaged. A window that is no multiple of the patch is padded with zeros and
/// the padding's scores are dropped.
///
/// # Errors
/// The device could not be read.
pub fn score_windows(
    model: &ZegClip,
    image: Tensor<4>,
    queries: &ClassQueries,
    settings: &Inference,
) -> Result<ScoreMap, ModelError> {
    let [_, _, height, width] = image.dims();
    let classes = queries.seen.len();
    let pixels = height * width;
    let mut sums = vec![0.0_f32; classes * pixels];
    let mut counts = vec![0.0_f32; pixels];
    for window in sliding_windows(width, height, settings.crop, settings.stride) {
        let crop =
            image
                .clone()
                .narrow(2, window.y, window.height)
                .narrow(3, window.x, window.width);
        let scores = window_scores(model, crop, queries, settings.seen_offset); // [1, classes, window.height, window.width]
        let scores: Vec<f32> = scores
            .into_data()
            .convert::<f32>()
            .try_into_vec()
            .map_err(|e| ModelError::Config(format!("{e:?}")))?;
        let window_pixels = window.height * window.width;
        sums.par_chunks_mut(pixels)
            .zip(scores.par_chunks(window_pixels))
            .for_each(|(sums, scores)| {
                for (row, scores) in scores.chunks_exact(window.width).enumerate() {
                    let start = (window.y + row) * width + window.x;
                    for (sum, score) in sums[start..start + window.width].iter_mut().zip(scores) {
                        *sum += score;
                    }
                }
            });
        for row in 0..window.height {
            let start = (window.y + row) * width + window.x;
            counts[start..start + window.width]
                .iter_mut()
                .for_each(|count| *count += 1.0);
        }
    }
    sums.par_chunks_mut(pixels).for_each(|sums| {
        for (sum, count) in sums.iter_mut().zip(&counts) {
            *sum /= count;
        }
    });
    Ok(ScoreMap {
        classes,
        height,
        width,
        values: sums,
    })
}

/// Scores of one window: `[1, 3, h, w]` → `[1, classes, h, w]`.
fn window_scores(
    model: &ZegClip,
    crop: Tensor<4>,
    queries: &ClassQueries,
    seen_offset: f32,
) -> Tensor<4> {
    let [_, _, h, w] = crop.dims();
    let patch = model.config().encoder.patch;
    let (padded_h, padded_w) = (h.next_multiple_of(patch), w.next_multiple_of(patch));
    let crop = if (padded_h, padded_w) == (h, w) {
        crop
    } else {
        crop.pad((0, padded_w - w, 0, padded_h - h), 0.0) // left, right, top, bottom
    };
    let masks = model.forward(crop, queries.text.clone(), &mut Trace::off()); // [1, classes, grid, grid]
    let logits = bilinear(masks, [padded_h, padded_w])
        .narrow(2, 0, h)
        .narrow(3, 0, w);
    lower_seen(activation::sigmoid(logits), &queries.seen, seen_offset)
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

/// Labels a picture at its own size: resize to the short side, normalise, windows, best class.
///
/// # Errors
/// The device could not be read.
pub fn segment(
    model: &ZegClip,
    picture: &RgbImage,
    queries: &ClassQueries,
    settings: &Inference,
    device: &Device,
) -> Result<LabelMap, ModelError> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let (resized_width, resized_height) = fit_short_side(width, height, settings.short_side);
    let resized = resize_bilinear(picture, resized_width, resized_height);
    // The reference normalises with ImageNet's statistics, not CLIP's.
    let values = Normalization::IMAGENET.to_chw(&resized);
    let image = Tensor::from_data(
        TensorData::new(values, [1, 3, resized_height, resized_width]),
        device,
    );
    score_windows(model, image, queries, settings)?.labels(width, height, settings.threshold)
}
