//! A strip of rows of an image's scores, and the labels computed from it.

use rayon::prelude::*;
use zeg_base::calibration::Calibration;
use zeg_image::IGNORE_LABEL;
use zeg_kernels::{
    Level,
    score_rows::{best_classes, exponentials},
};

use crate::method::Scoring;

/// The scores of some rows of an image, for every class.
#[derive(Debug, Clone)]
pub struct Strip {
    /// Index of the first row in the image.
    pub first_row: usize,
    /// Number of classes.
    pub classes: usize,
    /// Number of columns.
    pub width: usize,
    pub(crate) scoring: Scoring,
    pub(crate) level: Level,
    /// `[rows, classes, width]`: averaged scores, or logits where classes compete.
    pub(crate) values: Vec<f32>,
}

/// The conditions under which a pixel gets its best class; all other pixels get the ignore index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labelling {
    /// Threshold on the score of the best class, for all classes.
    pub threshold: Option<f32>,
    /// `[classes]`: thresholds of single classes, which replace the general one; may be empty.
    pub class_thresholds: Vec<Option<f32>>,
    /// `[classes]`: background classes, which compete for pixels but are never given as a label; may be empty.
    pub background: Vec<bool>,
    /// Calibration of the best class's score, which makes the confidence; `None`: the score is the confidence. Thresholds
    /// apply to the confidence.
    pub calibration: Option<Calibration>,
}

impl Labelling {
    /// Returns the rule that labels every pixel whose best class reaches the threshold, or every pixel if there is
    /// none.
    pub fn threshold(threshold: Option<f32>) -> Self {
        Self {
            threshold,
            ..Self::default()
        }
    }

    fn admits(&self, class: u16, score: f32) -> bool {
        let class = usize::from(class);
        if self.background.get(class) == Some(&true) {
            return false;
        }
        let needed = self.class_thresholds.get(class).copied().flatten();
        needed.or(self.threshold).is_none_or(|t| score >= t)
    }

    /// Returns whether scores must be computed to apply the rule.
    fn needs_scores(&self) -> bool {
        self.threshold.is_some() || self.class_thresholds.iter().any(Option::is_some)
    }
}

impl Strip {
    /// Returns the values that are compared between classes, `[rows, classes, width]`: averaged scores, which can
    /// exceed 1 with [`Scoring::MaskSum`], or logits with [`Scoring::Softmax`].
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns whether all classes have the same value at every pixel, up to rounding, so that labels mean nothing;
    /// `false` for a single class.
    ///
    /// - `offsets`: `[classes]`, what was subtracted from the values; empty for nothing
    pub fn is_tied(&self, offsets: &[f32]) -> bool {
        let ties = Ties::new(self.scoring, offsets);
        let length = self.classes * self.width;
        let mut rows = self.values.chunks_exact(length.max(1));
        self.classes > 1 && length > 0 && rows.all(|row| ties.hold(&self.rows_of(row)))
    }

    fn rows_of<'r>(&self, values: &'r [f32]) -> Rows<'r> {
        Rows {
            level: self.level,
            scoring: self.scoring,
            values,
            stride: self.width,
        }
    }

    /// Copies values of the strip, `[rows, classes, width]`, into those of an image of `height` rows:
    /// `[classes, height, width]`.
    pub(crate) fn copy_into(&self, values: &[f32], image: &mut [f32], height: usize) {
        let width = self.width.max(1);
        let rows = values.chunks_exact((self.classes * width).max(1));
        for (row, values) in (self.first_row..).zip(rows) {
            for (class, values) in values.chunks_exact(width).enumerate() {
                image[(class * height + row) * width..][..width].copy_from_slice(values);
            }
        }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / (self.classes * self.width).max(1)
    }

    /// Computes the scores of one row from 0 to 1, `[classes, width]`; `row` counts from the strip's first row.
    pub fn scores(&self, row: usize) -> Vec<f32> {
        let length = self.classes * self.width;
        let mut scores = self.values[row * length..][..length].to_vec();
        to_scores(self.level, self.scoring, &mut scores, self.width);
        scores
    }

    /// Labels every pixel with its best class, or with [`IGNORE_LABEL`] where the rule does not admit it; ties go to
    /// the lower class.
    ///
    /// - `labels`: `[rows, width]`
    /// - `confidence`: `[rows, width]`, receives the best class's score from 0 to 1, also where the rule does not admit
    ///   it
    pub fn label(&self, rule: &Labelling, labels: &mut [u16], confidence: Option<&mut [f32]>) {
        let length = self.classes * self.width;
        let width = self.width.max(1);
        let lowered = &[][..];
        let request = LabelRows { rule, lowered };
        let rows = self.values.par_chunks(length.max(1));
        let labels = labels.par_chunks_mut(width);
        match confidence {
            Some(confidence) => rows
                .zip(labels)
                .zip(confidence.par_chunks_mut(width))
                .for_each_init(Vec::new, |best, ((row, labels), confidence)| {
                    let rows = self.rows_of(row);
                    rows.label(&request, best, labels, Some(confidence));
                }),
            None => rows
                .zip(labels)
                .for_each_init(Vec::new, |best, (row, labels)| {
                    self.rows_of(row).label(&request, best, labels, None);
                }),
        }
    }
}

/// How some columns are labelled.
pub(crate) struct LabelRows<'t> {
    pub(crate) rule: &'t Labelling,
    /// `[classes]`, subtracted from the scores first; empty for nothing.
    pub(crate) lowered: &'t [f32],
}

/// The scores of some columns of an image's row.
pub(crate) struct Rows<'r> {
    pub(crate) level: Level,
    pub(crate) scoring: Scoring,
    /// `[classes, stride]`
    pub(crate) values: &'r [f32],
    /// Distance from a class to the next one, at least the number of columns.
    pub(crate) stride: usize,
}

impl Rows<'_> {
    /// Labels the columns, as [`Strip::label`] does; `best` is a scratch buffer.
    pub(crate) fn label(
        &self,
        request: &LabelRows,
        best: &mut Vec<f32>,
        labels: &mut [u16],
        confidence: Option<&mut [f32]>,
    ) {
        let LabelRows { rule, lowered } = *request;
        best.resize(labels.len(), 0.0);
        best_classes(self.level, self.values, self.stride, lowered, best, labels);
        if confidence.is_some() || rule.needs_scores() {
            self.best_to_scores(lowered, best);
            if let Some(calibration) = rule.calibration {
                for score in best.iter_mut() {
                    *score = calibration.apply(score.clamp(0.0, 1.0));
                }
            }
        }
        for (label, &score) in labels.iter_mut().zip(best.iter()) {
            if !rule.admits(*label, score) {
                *label = IGNORE_LABEL;
            }
        }
        if let Some(confidence) = confidence {
            for (confidence, score) in confidence.iter_mut().zip(best) {
                *confidence = score.clamp(0.0, 1.0);
            }
        }
    }

    /// Turns the best values into scores: with competing classes, 1 / Σ exp(logit − best).
    fn best_to_scores(&self, lowered: &[f32], best: &mut [f32]) {
        if self.scoring != Scoring::Softmax {
            return;
        }
        let mut sums = vec![0.0_f32; best.len()];
        let mut powers = sums.clone();
        for (class, scores) in self.values.chunks(self.stride.max(1)).enumerate() {
            let by = lowered.get(class).copied().unwrap_or(0.0);
            for ((power, best), score) in powers.iter_mut().zip(best.iter()).zip(scores) {
                *power = (score - by) - best;
            }
            exponentials(self.level, &mut powers);
            for (sum, power) in sums.iter_mut().zip(&powers) {
                *sum += power;
            }
        }
        for (best, sum) in best.iter_mut().zip(sums) {
            *best = 1.0 / sum;
        }
    }
}

/// Recognises pixels at which all classes have the same value, up to rounding.
#[derive(Debug)]
pub(crate) struct Ties<'t> {
    /// `[classes]`, what was subtracted from the values; empty for nothing.
    offsets: &'t [f32],
    /// Size of a value that the difference is compared with, at least.
    least: f32,
    /// Digits that values lose when an offset is subtracted and added again.
    lost: f32,
}

impl<'t> Ties<'t> {
    pub(crate) fn new(scoring: Scoring, offsets: &'t [f32]) -> Self {
        let largest = offsets.iter().fold(0.0_f32, |most, by| most.max(by.abs()));
        Self {
            offsets,
            // A softmax depends on differences of logits; other scores are compared by their ratios.
            least: match scoring {
                Scoring::Softmax => 1.0,
                Scoring::Sigmoid | Scoring::MaskSum => 0.0,
            },
            lost: 4.0 * largest * f32::EPSILON,
        }
    }

    /// Returns whether all classes have the same value in every column.
    pub(crate) fn hold(&self, rows: &Rows) -> bool {
        /// Relative difference that rounding explains.
        const ROUNDING: f32 = 1e-5;
        let offset = |class: usize| self.offsets.get(class).copied().unwrap_or(0.0);
        (0..rows.stride).all(|x| {
            let values = rows.values.iter().skip(x).step_by(rows.stride).enumerate();
            let ends = (f32::INFINITY, f32::NEG_INFINITY);
            let (low, high) = values.fold(ends, |(low, high), (class, value)| {
                let value = value + offset(class);
                (low.min(value), high.max(value))
            });
            high - low <= ROUNDING * high.abs().max(self.least) + self.lost
        })
    }
}

/// Turns values of `[classes, width]` into scores from 0 to 1, in place.
pub(crate) fn to_scores(level: Level, scoring: Scoring, values: &mut [f32], width: usize) {
    match scoring {
        Scoring::Sigmoid | Scoring::MaskSum => values
            .iter_mut()
            .for_each(|score| *score = score.clamp(0.0, 1.0)),
        Scoring::Softmax => softmax_columns(level, values, width.max(1)),
    }
}

/// Computes a softmax over the first axis of `[classes, width]`, in place.
fn softmax_columns(level: Level, values: &mut [f32], width: usize) {
    let mut highest = vec![f32::NEG_INFINITY; width];
    for row in values.chunks_exact(width) {
        for (highest, value) in highest.iter_mut().zip(row) {
            *highest = highest.max(*value);
        }
    }
    let mut sums = vec![0.0_f32; width];
    for row in values.chunks_exact_mut(width) {
        for (value, highest) in row.iter_mut().zip(&highest) {
            *value -= highest;
        }
        exponentials(level, row);
        for (value, sum) in row.iter().zip(&mut sums) {
            *sum += value;
        }
    }
    for row in values.chunks_exact_mut(width) {
        for (value, sum) in row.iter_mut().zip(&sums) {
            *value /= sum;
        }
    }
}
