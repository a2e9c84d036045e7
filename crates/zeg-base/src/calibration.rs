//! Calibration of confidence: a logistic curve that turns a score into the probability that it is right.
//!
//! Platt, "Probabilistic outputs for support vector machines", 1999. With the log-odds z = ln(p / (1 − p)) of a score p, the
//! probability is 1 / (1 + exp(−(slope·z + shift))). A temperature T without a shift is the slope 1/T of two classes.

use serde::{Deserialize, Serialize};

/// Largest log-odds that are told apart: probabilities of 6e-6 and 1 − 6e-6.
const MOST: f64 = 12.0;

/// A calibration of confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Calibration {
    /// Factor on the log-odds of a score; above 0, so that the order of scores stays.
    pub slope: f64,
    /// Added to the log-odds afterwards.
    pub shift: f64,
}

impl Calibration {
    /// Returns whether the slope is above 0 and both numbers are finite.
    pub fn is_legal(self) -> bool {
        self.slope.is_finite() && self.slope > 0.0 && self.shift.is_finite()
    }

    /// Returns the calibrated probability of a score from 0 to 1.
    pub fn apply(self, score: f32) -> f32 {
        probability(self.slope * log_odds(f64::from(score)) + self.shift) as f32
    }

    /// Returns the calibration that undoes this one.
    #[must_use]
    pub fn inverse(self) -> Self {
        Self {
            slope: 1.0 / self.slope,
            shift: -self.shift / self.slope,
        }
    }
}

/// Returns the log-odds of a probability, at most 12 and at least −12.
pub fn log_odds(probability: f64) -> f64 {
    let odds = probability / (1.0 - probability);
    if odds > 0.0 {
        odds.ln().clamp(-MOST, MOST)
    } else {
        -MOST
    }
}

/// Returns the probability of log-odds.
pub fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calibration_is_undone_by_its_inverse_and_keeps_the_order() {
        let calibration = Calibration {
            slope: 0.5,
            shift: -1.0,
        };
        let mut last = 0.0;
        for score in [0.001, 0.2, 0.5, 0.9, 0.999] {
            let calibrated = calibration.apply(score);
            assert!(calibrated > last && calibrated < 1.0);
            last = calibrated;
            assert!((calibration.inverse().apply(calibrated) - score).abs() < 1e-5);
        }
        assert!((calibration.apply(0.5) - 0.268_94).abs() < 1e-4);
        assert!(calibration.apply(0.0) > 0.0 && calibration.apply(1.0) < 1.0);
    }
}
