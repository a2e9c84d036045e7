//! How often confidence is right: counts of pixels by confidence, calibration error, and the calibration that fits best.
//!
//! The counts are kept by the log-odds of the confidence, in steps of 0.05, so that a calibration can be fitted and any
//! other can be tried without the model. The expected calibration error (Guo et al., "On calibration of modern neural
//! networks", ICML 2017) is the mean of |accuracy − confidence| over 15 equal parts of the confidence, weighted by pixels.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeg_base::calibration::{Calibration, log_odds, probability};

/// Width of a bin, in log-odds.
const WIDTH: f64 = 0.05;
/// Number of parts of the confidence from 0 to 1 in the calibration error and the plot.
pub const PARTS: usize = 15;
/// Most steps of Newton's method; it needs about ten.
const STEPS: usize = 100;
/// Change of the parameters below which they are found.
const ENOUGH: f64 = 1e-9;

/// Pixels of a range of confidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ConfidenceCount {
    /// Pixels whose true class is in the list.
    pub pixels: u64,
    /// Those of them whose best class is the true one.
    pub correct: u64,
    /// Pixels whose true class was left out of the list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub absent: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What a pixel's best class is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// The best class is the true one.
    Right,
    /// Another class of the list is the true one.
    Wrong,
    /// The true class was left out of the list.
    Absent,
}

/// Counts of pixels by the confidence of their best class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Reliability {
    /// By log-odds in steps of 0.05, rounded to the nearest.
    bins: BTreeMap<i16, ConfidenceCount>,
}

/// A part of the confidence from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReliabilityPart {
    /// Mean confidence of its pixels, 0 to 1.
    pub confidence: f64,
    /// Share of its pixels whose best class is right, 0 to 1.
    pub accuracy: f64,
    /// Number of its pixels.
    pub pixels: u64,
}

/// Thresholds that reports show.
const THRESHOLDS: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];

/// How far the confidence of an evaluation is right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ConfidenceReport {
    /// Expected calibration error of the confidence as it was counted, 0 to 1; `None` without pixels.
    pub calibration_error: Option<f64>,
    /// The same without the calibration of the settings; `None` without pixels or without a calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uncalibrated_error: Option<f64>,
    /// The same with the calibration that fits these pixels best; `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_error: Option<f64>,
    /// Parts of the confidence, lowest first.
    pub parts: Vec<ReliabilityPart>,
    /// What thresholds on the confidence leave unlabelled.
    pub thresholds: Vec<Rejection>,
}

impl ConfidenceReport {
    /// Computes the report.
    ///
    /// - `calibration`: the calibration that the confidence was counted with
    pub fn of(counts: &Reliability, calibration: Option<Calibration>) -> Self {
        let before = calibration.map(Calibration::inverse);
        let best = counts.fit();
        Self {
            calibration_error: counts.calibration_error(None),
            uncalibrated_error: before.and_then(|before| counts.calibration_error(Some(before))),
            best_error: best.and_then(|best| counts.calibration_error(Some(best))),
            parts: counts.parts(None),
            thresholds: THRESHOLDS
                .map(|threshold| counts.rejection(threshold, None))
                .to_vec(),
        }
    }

    /// Returns the lines that commands print.
    pub fn lines(&self) -> Vec<String> {
        let percent = |share: Option<f64>| {
            share.map_or_else(|| "–".to_owned(), |share| format!("{:.2} %", 100.0 * share))
        };
        let mut line = format!(
            "expected calibration error {}",
            percent(self.calibration_error)
        );
        if self.uncalibrated_error.is_some() {
            let before = percent(self.uncalibrated_error);
            line = format!("{line}, without the calibration {before}");
        }
        let mut lines = vec![line];
        for found in &self.thresholds {
            let absent = match found.absent {
                Some(_) => format!(", of absent classes {}", percent(found.absent)),
                None => String::new(),
            };
            lines.push(format!(
                "threshold {}: unlabelled {}{absent}; right among labelled {}",
                found.threshold,
                percent(Some(found.known)),
                percent(found.right)
            ));
        }
        lines
    }
}

/// What a threshold leaves unlabelled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Rejection {
    /// The threshold on the confidence.
    pub threshold: f64,
    /// Share of the pixels of classes in the list that stay unlabelled, 0 to 1.
    pub known: f64,
    /// Share of the pixels of classes left out of the list that stay unlabelled, 0 to 1; `None` without such pixels.
    pub absent: Option<f64>,
    /// Share of the labelled pixels of all classes that are right, 0 to 1; `None` if none is labelled.
    pub right: Option<f64>,
}

impl Reliability {
    /// Counts a pixel.
    ///
    /// - `confidence`: 0 to 1
    pub fn add(&mut self, confidence: f32, truth: Truth) {
        let bin = (log_odds(f64::from(confidence)) / WIDTH).round() as i16;
        let count = self.bins.entry(bin).or_default();
        match truth {
            Truth::Right => {
                count.pixels += 1;
                count.correct += 1;
            }
            Truth::Wrong => count.pixels += 1,
            Truth::Absent => count.absent += 1,
        }
    }

    /// Adds other counts.
    pub fn merge(&mut self, other: &Self) {
        for (&bin, other) in &other.bins {
            let count = self.bins.entry(bin).or_default();
            count.pixels = count.pixels.saturating_add(other.pixels);
            count.correct = count.correct.saturating_add(other.correct);
            count.absent = count.absent.saturating_add(other.absent);
        }
    }

    /// Returns whether counts fit together: no more right pixels than pixels.
    pub fn is_valid(&self) -> bool {
        self.bins
            .values()
            .all(|count| count.correct <= count.pixels)
    }

    /// Returns confidence and counts of every bin, with another calibration of the confidence if one is given.
    fn counts(
        &self,
        calibration: Option<Calibration>,
    ) -> impl Iterator<Item = (f64, ConfidenceCount)> {
        self.bins.iter().map(move |(&bin, &count)| {
            let z = f64::from(bin) * WIDTH;
            let z = calibration.map_or(z, |it| it.slope * z + it.shift);
            (probability(z), count)
        })
    }

    /// Returns the parts of the confidence that have pixels, lowest first.
    ///
    /// - `calibration`: another calibration of the confidence; `None` for the confidence as it was counted
    pub fn parts(&self, calibration: Option<Calibration>) -> Vec<ReliabilityPart> {
        let mut sums = [(0.0, 0_u64, 0_u64); PARTS];
        for (confidence, count) in self.counts(calibration) {
            let part = ((confidence * PARTS as f64) as usize).min(PARTS - 1);
            let (sum, pixels, correct) = &mut sums[part];
            *sum += confidence * count.pixels as f64;
            *pixels += count.pixels;
            *correct += count.correct;
        }
        let filled = sums.into_iter().filter(|(_, pixels, _)| *pixels > 0);
        filled
            .map(|(sum, pixels, correct)| ReliabilityPart {
                confidence: sum / pixels as f64,
                accuracy: correct as f64 / pixels as f64,
                pixels,
            })
            .collect()
    }

    /// Returns the expected calibration error, 0 to 1; `None` without pixels.
    pub fn calibration_error(&self, calibration: Option<Calibration>) -> Option<f64> {
        let parts = self.parts(calibration);
        let pixels: u64 = parts.iter().map(|part| part.pixels).sum();
        let error =
            |part: &ReliabilityPart| part.pixels as f64 * (part.accuracy - part.confidence).abs();
        (pixels > 0).then(|| parts.iter().map(error).sum::<f64>() / pixels as f64)
    }

    /// Returns what a threshold on the confidence leaves unlabelled.
    pub fn rejection(&self, threshold: f64, calibration: Option<Calibration>) -> Rejection {
        let mut all = ConfidenceCount::default();
        let mut kept = ConfidenceCount::default();
        for (confidence, count) in self.counts(calibration) {
            let sums = [
                Some(&mut all),
                (confidence >= threshold).then_some(&mut kept),
            ];
            for sum in sums.into_iter().flatten() {
                sum.pixels += count.pixels;
                sum.correct += count.correct;
                sum.absent += count.absent;
            }
        }
        let share = |kept: u64, all: u64| (all > 0).then(|| 1.0 - kept as f64 / all as f64);
        let labelled = kept.pixels + kept.absent;
        Rejection {
            threshold,
            known: share(kept.pixels, all.pixels).unwrap_or(0.0),
            absent: share(kept.absent, all.absent),
            right: (labelled > 0).then(|| kept.correct as f64 / labelled as f64),
        }
    }

    /// Fits the calibration with the highest likelihood, by Newton's method; `None` if all pixels are right or all are
    /// wrong, or more confidence does not mean more right pixels.
    pub fn fit(&self) -> Option<Calibration> {
        let points: Vec<(f64, f64, f64)> = self
            .bins
            .iter()
            .filter(|(_, count)| count.pixels > 0)
            .map(|(&bin, count)| {
                (
                    f64::from(bin) * WIDTH,
                    count.pixels as f64,
                    count.correct as f64,
                )
            })
            .collect();
        let pixels: f64 = points.iter().map(|(_, pixels, _)| pixels).sum();
        let right: f64 = points.iter().map(|(_, _, correct)| correct).sum();
        if right <= 0.0 || right >= pixels {
            return None;
        }
        let (mut slope, mut shift) = (1.0, 0.0);
        for _ in 0..STEPS {
            let (mut gradient, mut curvature) = ([0.0; 2], [0.0; 3]);
            for &(z, count, correct) in &points {
                let p = probability(slope * z + shift);
                let (difference, weight) = (count * p - correct, count * p * (1.0 - p));
                gradient[0] += difference * z;
                gradient[1] += difference;
                curvature[0] += weight * z * z;
                curvature[1] += weight * z;
                curvature[2] += weight;
            }
            let damping = 1e-9 * pixels;
            let (a, b, c) = (curvature[0] + damping, curvature[1], curvature[2] + damping);
            let determinant = a * c - b * b;
            let steps = [
                (c * gradient[0] - b * gradient[1]) / determinant,
                (a * gradient[1] - b * gradient[0]) / determinant,
            ];
            // A step beyond this would leave the part of the curve where Newton's method converges.
            let [by_slope, by_shift] = steps.map(|step: f64| step.clamp(-1.0, 1.0));
            slope -= by_slope;
            shift -= by_shift;
            if by_slope.abs().max(by_shift.abs()) < ENOUGH {
                break;
            }
        }
        let calibration = Calibration { slope, shift };
        calibration.is_legal().then_some(calibration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Confidence of 0.9 that is right in 6 of 10 pixels, and of 0.6 that is right in 5 of 10.
    fn overconfident() -> Reliability {
        let mut counts = Reliability::default();
        for (confidence, right) in [(0.9, 6), (0.6, 5)] {
            for pixel in 0..10 {
                let truth = if pixel < right {
                    Truth::Right
                } else {
                    Truth::Wrong
                };
                counts.add(confidence, truth);
            }
        }
        counts
    }

    #[test]
    fn the_calibration_error_is_the_mean_distance_of_accuracy_and_confidence() {
        let counts = overconfident();
        let error = counts.calibration_error(None).unwrap();
        assert!((error - 0.2).abs() < 0.005, "{error}");
        let parts = counts.parts(None);
        assert_eq!(parts.len(), 2);
        assert!((parts[0].accuracy - 0.5).abs() < 1e-9 && parts[1].pixels == 10);
        assert_eq!(Reliability::default().calibration_error(None), None);
    }

    /// With two values of confidence, a curve of two parameters fits both shares exactly.
    #[test]
    fn the_fitted_calibration_removes_the_error() {
        let counts = overconfident();
        let fitted = counts.fit().unwrap();
        assert!(fitted.slope > 0.0 && fitted.slope < 1.0, "{fitted:?}");
        let error = counts.calibration_error(Some(fitted)).unwrap();
        assert!(error < 1e-6, "{error}");
        let mut right = Reliability::default();
        right.add(0.9, Truth::Right);
        assert_eq!(right.fit(), None);
    }

    #[test]
    fn a_threshold_leaves_pixels_of_absent_classes_unlabelled() {
        let mut counts = overconfident();
        for confidence in [0.5, 0.5, 0.5, 0.95] {
            counts.add(confidence, Truth::Absent);
        }
        let found = counts.rejection(0.8, None);
        assert!((found.known - 0.5).abs() < 1e-9);
        assert!((found.absent.unwrap() - 0.75).abs() < 1e-9);
        assert!((found.right.unwrap() - 6.0 / 11.0).abs() < 1e-9);
        let all = overconfident().rejection(0.0, None);
        assert_eq!((all.known, all.absent), (0.0, None));
    }

    #[test]
    fn merged_counts_are_those_of_all_pixels() {
        let mut both = overconfident();
        both.merge(&overconfident());
        let pixels: u64 = both.parts(None).iter().map(|part| part.pixels).sum();
        assert_eq!(pixels, 40);
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<Reliability>(&text).unwrap(), both);
        assert!(both.is_valid());
    }
}
