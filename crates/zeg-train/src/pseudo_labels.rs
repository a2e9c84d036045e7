//! The rule by which self-training labels pixels with the model's own scores.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};
use zeg_image::IGNORE_LABEL;

use crate::TrainError;

/// The classes that a pseudo label can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Candidates {
    /// Unseen classes alone, as in the released code.
    #[default]
    Unseen,
    /// All classes. Among unlabelled pixels there are some of seen classes and of none, so that a rule that offers
    /// unseen classes alone labels all background as unseen.
    All,
    /// Unseen classes, but only where their score beats that of every seen class; a pixel where a seen class wins gets no
    /// pseudo label.
    UnseenWinners,
}

/// What a pixel that could have got a pseudo label, but did not, is in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Unlabelled {
    /// A negative for every class, as ignored pixels are in the released loss.
    #[default]
    Negative,
    /// A negative for seen classes, whose pixels are all labelled; left out of the loss of unseen classes.
    SeenNegative,
    /// Left out of the loss.
    Excluded,
}

/// The model whose scores become pseudo labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Teacher {
    /// The model in training, with dropout, as in the released code.
    #[default]
    Running,
    /// The model of the checkpoint that the run started from, without dropout. Its labels do not drift.
    Start,
}

/// The rule that turns scores into pseudo labels: which classes can win, and how high the winner's score must be.
///
/// The default is the released rule: the unseen class with the highest score, however low. The other settings belong to
/// pseudo labels on all unlabelled pixels, of which no code was released; they are a reconstruction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PseudoLabelRule {
    /// The model whose scores become pseudo labels.
    pub teacher: Teacher,
    /// The classes that a pseudo label can take.
    pub candidates: Candidates,
    /// Score (after the sigmoid, 0 to 1) below which a pixel stays unlabelled.
    pub min_score: f32,
    /// What a pixel is in the loss if it stays unlabelled.
    pub unlabelled: Unlabelled,
    /// Value that is subtracted from the scores of seen classes before they are compared with those of unseen ones, as
    /// in calibrated inference.
    pub seen_offset: f32,
}

impl PseudoLabelRule {
    /// Returns whether this is the default, which is left out of files.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns an error if the minimum score is not in 0..=1 or the offset is not in -1..=1.
    pub fn check(&self) -> Result<(), TrainError> {
        let range = |key: &str, value: f32, low: f32| {
            if (low..=1.0).contains(&value) {
                return Ok(());
            }
            Err(TrainError::Config(format!(
                "training.self-training.{key} = {value}: expected a number from {low} to 1"
            )))
        };
        range("min-score", self.min_score, 0.0)?;
        range("seen-offset", self.seen_offset, -1.0)
    }

    /// Returns the winning class of a pixel, or [`IGNORE_LABEL`] if no score is high enough.
    ///
    /// Ties go to the lowest class index.
    fn winner(&self, seen: &[bool], score: impl Fn(usize) -> f32) -> u16 {
        let (mut best, mut label) = (f32::NEG_INFINITY, IGNORE_LABEL);
        for (class, &seen) in seen.iter().enumerate() {
            if seen && self.candidates == Candidates::Unseen {
                continue;
            }
            let compared = score(class) - if seen { self.seen_offset } else { 0.0 };
            if compared > best {
                (best, label) = (compared, class as u16);
            }
        }
        match label {
            IGNORE_LABEL => IGNORE_LABEL,
            class if self.candidates == Candidates::UnseenWinners && seen[usize::from(class)] => {
                IGNORE_LABEL
            }
            class if score(usize::from(class)) < self.min_score => IGNORE_LABEL,
            class => class,
        }
    }

    /// Returns whether each class has no loss at the pixels that are left out, `[classes]`.
    pub(crate) fn left_out_classes(&self, seen: &[bool]) -> Vec<bool> {
        let excluded = |seen: &bool| match self.unlabelled {
            Unlabelled::Negative => false,
            Unlabelled::SeenNegative => !seen,
            Unlabelled::Excluded => true,
        };
        seen.iter().map(excluded).collect()
    }

    /// Fills in the pseudo labels of all pixels with the label value `fill`.
    ///
    /// Returns the positions of the pixels that got none and are left out of the loss, as `unlabelled` says: indices of
    /// `labels`.
    ///
    /// - `masks`: logits at label size, `[batch, classes, height, width]`
    /// - `labels`: class indices, `[batch, height, width]`
    /// - `fill`: the label value of the pixels to fill
    /// - `seen`: whether each class is seen, `[classes]`
    ///
    /// # Errors
    /// Returns an error if the shapes do not fit each other, or if the device cannot be read.
    pub fn fill(
        &self,
        masks: Tensor<4>,
        labels: &mut [u16],
        fill: u16,
        seen: &[bool],
    ) -> Result<Vec<usize>, TrainError> {
        let [batch, classes, height, width] = masks.dims();
        let pixels = height * width;
        if labels.len() != batch * pixels || seen.len() != classes {
            return Err(TrainError::Config(format!(
                "masks of shape {:?} do not fit {} labels and {} classes",
                [batch, classes, height, width],
                labels.len(),
                seen.len()
            )));
        }
        // Scores are compared, not logits: the sigmoid can round two logits to one score, and then the lower class wins.
        let scores: Vec<f32> = activation::sigmoid(masks.detach().without_autodiff())
            .into_data()
            .convert::<f32>()
            .try_into_vec()
            .map_err(|error| TrainError::Backend(format!("{error:?}")))?;
        let mut left_out = Vec::new();
        let waiting = labels.iter_mut().enumerate();
        for (position, label) in waiting.filter(|(_, label)| **label == fill) {
            let (image, pixel) = (position / pixels, position % pixels);
            let score = |class| scores[(image * classes + class) * pixels + pixel];
            *label = self.winner(seen, score);
            if *label == IGNORE_LABEL && self.unlabelled != Unlabelled::Negative {
                left_out.push(position);
            }
        }
        Ok(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: [bool; 3] = [true, false, false];

    fn winner(rule: PseudoLabelRule, scores: [f32; 3]) -> u16 {
        rule.winner(&SEEN, |class| scores[class])
    }

    fn all(min_score: f32, seen_offset: f32) -> PseudoLabelRule {
        PseudoLabelRule {
            candidates: Candidates::All,
            min_score,
            seen_offset,
            ..PseudoLabelRule::default()
        }
    }

    #[test]
    fn the_released_rule_takes_the_best_unseen_class_however_low() {
        assert_eq!(winner(PseudoLabelRule::default(), [0.9, 0.01, 0.02]), 2);
        assert_eq!(winner(PseudoLabelRule::default(), [0.9, 0.02, 0.02]), 1);
    }

    #[test]
    fn a_seen_class_can_win_among_all_unless_the_offset_prevents_it() {
        assert_eq!(winner(all(0.0, 0.0), [0.6, 0.55, 0.1]), 0);
        assert_eq!(winner(all(0.0, 0.1), [0.6, 0.55, 0.1]), 1);
    }

    #[test]
    fn a_pixel_below_the_minimum_score_stays_unlabelled() {
        assert_eq!(winner(all(0.5, 0.0), [0.4, 0.3, 0.1]), IGNORE_LABEL);
        assert_eq!(winner(all(0.5, 0.0), [0.5, 0.3, 0.1]), 0);
        // The minimum applies to the score itself, not to the score less the offset.
        assert_eq!(winner(all(0.5, 0.2), [0.6, 0.3, 0.1]), 0);
        assert_eq!(winner(all(0.0, 0.0), [f32::NAN; 3]), IGNORE_LABEL);
    }

    #[test]
    fn only_unseen_winners_get_labels_if_the_rule_says_so() {
        let rule = |seen_offset| PseudoLabelRule {
            candidates: Candidates::UnseenWinners,
            ..all(0.0, seen_offset)
        };
        assert_eq!(winner(rule(0.0), [0.6, 0.55, 0.1]), IGNORE_LABEL);
        assert_eq!(winner(rule(0.1), [0.6, 0.55, 0.1]), 1);
    }

    #[test]
    fn a_pixel_without_a_label_is_left_out_only_if_the_rule_says_so() {
        let device = burn::tensor::Device::flex();
        let left_out = |unlabelled| {
            let rule = PseudoLabelRule {
                candidates: Candidates::UnseenWinners,
                unlabelled,
                ..PseudoLabelRule::default()
            };
            // An unseen class wins at the first pixel and a seen one at the others; the last has a label.
            let masks = [[[[0.0, 2.0, 2.0]], [[1.0, 1.0, 1.0]], [[0.0, 0.0, 0.0]]]];
            let mut labels = [9, 9, 0];
            let masks = Tensor::<4>::from_floats(masks, &device);
            let pixels = rule.fill(masks, &mut labels, 9, &SEEN).unwrap();
            assert_eq!(labels, [1, IGNORE_LABEL, 0]);
            (pixels, rule.left_out_classes(&SEEN))
        };
        assert_eq!(left_out(Unlabelled::Negative), (vec![], vec![false; 3]));
        let unseen = vec![false, true, true];
        assert_eq!(left_out(Unlabelled::SeenNegative), (vec![1], unseen));
        assert_eq!(left_out(Unlabelled::Excluded), (vec![1], vec![true; 3]));
    }

    #[test]
    fn settings_out_of_range_are_rejected_with_their_key() {
        let error = all(1.5, 0.0).check().unwrap_err().to_string();
        assert!(
            error.contains("training.self-training.min-score = 1.5"),
            "{error}"
        );
        let error = all(0.5, f32::NAN).check().unwrap_err().to_string();
        assert!(error.contains("seen-offset"), "{error}");
        assert!(all(0.5, 0.1).check().is_ok());
    }
}
