//! Some rows of an image's scores, and the labels that follow from them.

use rayon::prelude::*;
use zeg_image::IGNORE_LABEL;

use crate::method::Scoring;

/// Some rows of an image's scores, every class.
#[derive(Debug, Clone)]
pub struct Strip {
    /// The first row's number in the image.
    pub first_row: usize,
    /// Number of classes.
    pub classes: usize,
    /// Columns.
    pub width: usize,
    pub(crate) scoring: Scoring,
    /// `[rows, classes, width]`: averaged scores, or logits where classes compete.
    pub(crate) values: Vec<f32>,
}

/// When a pixel is given its best class.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labelling {
    /// The score that the best class needs, for every class.
    pub threshold: Option<f32>,
    /// `[classes]`: scores that single classes need instead; may be empty.
    pub class_thresholds: Vec<Option<f32>>,
    /// `[classes]`: classes that compete for pixels but are no answer, such as `background`; may be empty.
    pub background: Vec<bool>,
}

impl Labelling {
    /// Every pixel whose best class scores this much, or every pixel.
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

    /// Whether scores must be computed to apply the rule.
    fn needs_scores(&self) -> bool {
        self.threshold.is_some() || self.class_thresholds.iter().any(Option::is_some)
    }
}

impl Strip {
    /// The strip of the mirrored image: columns in the other order.
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

    /// Divides the values by a count; by 1 they stay as they are, to the bit.
    pub fn divide(&mut self, count: usize) {
        if count > 1 {
            let count = count as f32;
            self.values.par_iter_mut().for_each(|value| *value /= count);
        }
    }

    /// The strip with the scores of some classes lowered: another calibration of the same scores.
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

    /// The values as they are compared between classes, `[rows, classes, width]`: averaged scores, which can exceed 1 where
    /// queries' masks are summed, or logits where classes compete.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / (self.classes * self.width).max(1)
    }

    /// Scores of one row from 0 to 1, `[classes, width]`; `row` counts from the strip's first.
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

    /// The best class of every pixel, [`IGNORE_LABEL`] where the rule does not admit it; ties go to the lower class.
    ///
    /// - `labels`: `[rows, width]`
    /// - `confidence`: `[rows, width]`, takes the best class's score from 0 to 1, also where it is not admitted
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

/// A softmax over the first axis of `[classes, width]`, in place.
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
