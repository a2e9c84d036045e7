//! A strip of rows of an image's scores, and the labels computed from it.

use rayon::prelude::*;
use zeg_base::calibration::Calibration;
use zeg_image::IGNORE_LABEL;

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
    /// Returns the strip of the mirrored image, with the order of columns reversed.
    #[must_use]
    pub fn mirrored(mut self) -> Self {
        self.values
            .par_chunks_mut(self.width.max(1))
            .for_each(<[f32]>::reverse);
        self
    }

    /// Adds the values of a strip of the same rows and classes.
    pub fn add(&mut self, other: &Self) {
        self.values
            .par_iter_mut()
            .zip(&other.values)
            .for_each(|(value, other)| *value += other);
    }

    /// Divides the values by a count; a count of 1 leaves them bit-identical.
    pub fn divide(&mut self, count: usize) {
        if count > 1 {
            let count = count as f32;
            self.values.par_iter_mut().for_each(|value| *value /= count);
        }
    }

    /// Returns the strip with the scores of some classes lowered, which changes the calibration of the same scores.
    ///
    /// - `lowered`: `[classes]`
    #[must_use]
    pub fn lowered(&self, lowered: &[bool], by: f32) -> Self {
        let mut strip = self.clone();
        let length = self.classes * self.width;
        strip.values.par_chunks_mut(length.max(1)).for_each(|row| {
            for (scores, _) in row
                .chunks_exact_mut(self.width.max(1))
                .zip(lowered)
                .filter(|(_, lowered)| **lowered)
            {
                for score in scores {
                    *score -= by;
                }
            }
        });
        strip
    }

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
        /// Relative difference that rounding explains.
        const ROUNDING: f32 = 1e-5;
        let length = self.classes * self.width;
        if self.classes < 2 || length == 0 {
            return false;
        }
        // A softmax depends on differences of logits; other scores are compared by their ratios.
        let least = match self.scoring {
            Scoring::Softmax => 1.0,
            Scoring::Sigmoid | Scoring::MaskSum => 0.0,
        };
        // Digits that values lose when an offset is subtracted and added again.
        let largest = offsets.iter().fold(0.0_f32, |most, by| most.max(by.abs()));
        let lost = 4.0 * largest * f32::EPSILON;
        let offset = |class: usize| offsets.get(class).copied().unwrap_or(0.0);
        let is_tied_at = |row: &[f32], x: usize| {
            let values = row.iter().skip(x).step_by(self.width).enumerate();
            let ends = (f32::INFINITY, f32::NEG_INFINITY);
            let (low, high) = values.fold(ends, |(low, high), (class, value)| {
                let value = value + offset(class);
                (low.min(value), high.max(value))
            });
            high - low <= ROUNDING * high.abs().max(least) + lost
        };
        let mut rows = self.values.chunks_exact(length);
        rows.all(|row| (0..self.width).all(|x| is_tied_at(row, x)))
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / (self.classes * self.width).max(1)
    }

    /// Computes the scores of one row from 0 to 1, `[classes, width]`; `row` counts from the strip's first row.
    pub fn scores(&self, row: usize) -> Vec<f32> {
        let length = self.classes * self.width;
        let mut scores = self.values[row * length..][..length].to_vec();
        match self.scoring {
            Scoring::Sigmoid | Scoring::MaskSum => scores
                .iter_mut()
                .for_each(|score| *score = score.clamp(0.0, 1.0)),
            Scoring::Softmax => softmax_columns(&mut scores, self.width),
        }
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
        let rows = self.values.par_chunks(length.max(1));
        let labels = labels.par_chunks_mut(self.width.max(1));
        match confidence {
            Some(confidence) => rows
                .zip(labels)
                .zip(confidence.par_chunks_mut(self.width.max(1)))
                .for_each(|((scores, labels), confidence)| {
                    self.label_row(scores, rule, labels, Some(confidence));
                }),
            None => rows
                .zip(labels)
                .for_each(|(scores, labels)| self.label_row(scores, rule, labels, None)),
        }
    }

    fn label_row(
        &self,
        scores: &[f32],
        rule: &Labelling,
        labels: &mut [u16],
        confidence: Option<&mut [f32]>,
    ) {
        let mut best = vec![f32::NEG_INFINITY; self.width];
        for (class, scores) in scores.chunks_exact(self.width).enumerate() {
            for ((label, best), &score) in labels.iter_mut().zip(&mut best).zip(scores) {
                if score > *best {
                    (*label, *best) = (class as u16, score);
                }
            }
        }
        if confidence.is_some() || rule.needs_scores() {
            self.best_to_scores(scores, &mut best);
            if let Some(calibration) = rule.calibration {
                for score in &mut best {
                    *score = calibration.apply(score.clamp(0.0, 1.0));
                }
            }
        }
        for (label, &score) in labels.iter_mut().zip(&best) {
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

    /// Turns the best values of a row into scores: with competing classes, 1 / Σ exp(logit − best).
    fn best_to_scores(&self, scores: &[f32], best: &mut [f32]) {
        if self.scoring != Scoring::Softmax {
            return;
        }
        let mut sums = vec![0.0_f32; self.width];
        for scores in scores.chunks_exact(self.width) {
            for ((sum, best), score) in sums.iter_mut().zip(best.iter()).zip(scores) {
                *sum += (score - best).exp();
            }
        }
        for (best, sum) in best.iter_mut().zip(sums) {
            *best = 1.0 / sum;
        }
    }
}

/// Computes a softmax over the first axis of `[classes, width]`, in place.
fn softmax_columns(values: &mut [f32], width: usize) {
    let mut highest = vec![f32::NEG_INFINITY; width];
    for row in values.chunks_exact(width) {
        for (highest, value) in highest.iter_mut().zip(row) {
            *highest = highest.max(*value);
        }
    }
    let mut sums = vec![0.0_f32; width];
    for row in values.chunks_exact_mut(width) {
        for ((value, highest), sum) in row.iter_mut().zip(&highest).zip(&mut sums) {
            *value = (*value - highest).exp();
            *sum += *value;
        }
    }
    for row in values.chunks_exact_mut(width) {
        for (value, sum) in row.iter_mut().zip(&sums) {
            *value /= sum;
        }
    }
}
