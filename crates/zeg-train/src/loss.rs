//! Computes the non-mutually exclusive loss (NEL) of ZegCLIP: sigmoid focal plus dice over independent class masks.
//!
//! This follows the released code (its "plus" loss), which differs from the paper's equations 4 and 5: the focal term
//! has α = 0.25 for positives and 0.75 for negatives; the dice term has no squares and covers only classes that occur
//! in the image; both are divided by the number of (image, class) pairs in the batch. Ignored pixels, unseen classes
//! and padding are negatives for every class.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};
use zeg_kernels::mask_sums;
use zeg_model::resize::bilinear;

use crate::targets::Targets;

/// Focal weight α of a positive; a negative has weight 1 − α.
pub(crate) const ALPHA: f64 = 0.25;
/// Smoothing that is added to numerator and denominator of the dice.
pub(crate) const DICE_SMOOTHING: f64 = 1.0;

/// Weights of the loss terms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MaskLoss {
    /// Factor of the focal term.
    pub focal: f64,
    /// Factor of the dice term.
    pub dice: f64,
}

/// The released weights.
impl Default for MaskLoss {
    fn default() -> Self {
        Self {
            focal: 100.0,
            dice: 1.0,
        }
    }
}

/// The weighted terms of a loss.
#[derive(Debug, Clone)]
pub struct LossTerms {
    /// Focal term, `[1]`.
    pub focal: Tensor<1>,
    /// Dice term, `[1]`.
    pub dice: Tensor<1>,
}

impl LossTerms {
    /// Returns the sum of the terms: `[1]`.
    pub fn total(&self) -> Tensor<1> {
        self.focal.clone() + self.dice.clone()
    }
}

/// Returns the number that the terms are divided by: the count of (image, class) pairs, at least 1.
///
/// The parts of a batch share one normaliser, that of the whole batch.
pub fn normalizer(parts: &[&Targets]) -> f64 {
    parts
        .iter()
        .map(|targets| targets.count())
        .sum::<usize>()
        .max(1) as f64
}

impl MaskLoss {
    /// Computes the loss of class masks.
    ///
    /// - `masks`: logits `[batch, classes, h, w]`, resized to the targets' size
    /// - `normalizer`: see [`normalizer`]
    pub fn forward(&self, masks: Tensor<4>, targets: &Targets, normalizer: f64) -> LossTerms {
        let [batch, classes, _, _] = masks.dims();
        let [height, width] = targets.size();
        let device = masks.device();
        let pixels = height * width;
        let z = bilinear(masks, [height, width]).reshape([batch, classes, pixels]); // [batch, classes, pixels]
        let z = targets.mask_logits(z);
        let sums = mask_sums(z, targets.labels().into(), ALPHA as f32);
        let focal = sums.focal.sum() * (1.0 / pixels as f64); // mean over pixels, sum over maps
        let overlap = sums.positives * 2.0 + DICE_SMOOTHING; //  [batch, classes]
        let area = sums.all + targets.areas(&device) + DICE_SMOOTHING; // [batch, classes]
        let present = targets.present_tensor(&device);
        let dice = ((overlap / area * -1.0 + 1.0) * present).sum();
        LossTerms {
            focal: focal * (self.focal / normalizer),
            dice: dice * (self.dice / normalizer),
        }
    }
}

/// Returns the focal terms, averaged over pixels and summed over all masks: `[1]`.
pub(crate) fn focal(z: Tensor<3>, truth: Tensor<3>) -> Tensor<1> {
    let pixels = z.dims()[2];
    // With s = −z for positives and z for negatives, 1 − p_t = σ(s) and the cross-entropy is −ln σ(−s).
    let s = z * (truth.clone() * -2.0 + 1.0); //                     [batch, classes, pixels]
    let alpha = truth * (2.0 * ALPHA - 1.0) + (1.0 - ALPHA); //      [batch, classes, pixels]
    let weight = activation::sigmoid(s.clone()).square() * alpha;
    (weight * activation::log_sigmoid(-s)).sum() * (-1.0 / pixels as f64)
}

/// Returns the sum of the dice terms of the present classes: `[1]`.
pub(crate) fn dice(z: Tensor<3>, truth: Tensor<3>, present: Tensor<2>) -> Tensor<1> {
    let [batch, classes, _] = z.dims();
    let p = activation::sigmoid(z); //                                                                [batch, classes, pixels]
    let per_map = |x: Tensor<3>| x.sum_dim(2).reshape([batch, classes]); //                           [batch, classes]
    let overlap = per_map(p.clone() * truth.clone()) * 2.0 + DICE_SMOOTHING;
    let area = per_map(p) + per_map(truth) + DICE_SMOOTHING;
    ((overlap / area * -1.0 + 1.0) * present).sum()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use zeg_image::IGNORE_LABEL;

    use super::*;
    use crate::{objective::Objective, targets::LeftOut};

    /// Returns the gradient of the logits of classes 0 (seen), 1 and 2 (unseen) at two pixels, of which the first is
    /// class 1 and the second is unlabelled.
    fn gradient(objective: Objective, left_out: LeftOut) -> Vec<f32> {
        let device = Device::flex().autodiff();
        let masks = [[[[0.5, 2.0]], [[-1.0, 0.25]], [[0.0, 1.0]]]];
        let masks = Tensor::<4>::from_floats(masks, &device).require_grad();
        let labels = vec![1, IGNORE_LABEL];
        let targets = Targets::new(labels, 1, [1, 2], 3).unwrap();
        let terms = objective.forward(
            masks.clone(),
            &targets.without(left_out),
            &MaskLoss::default(),
            1.0,
        );
        let total = terms.into_iter().map(|(_, term)| term);
        let gradients = total.reduce(|sum, term| sum + term).unwrap().backward();
        let gradient = masks.grad(&gradients).unwrap();
        gradient.into_data().try_into_vec().unwrap()
    }

    /// With logits of one class alone the values can be worked out by hand: the focal loss of a positive with logit 0.5
    /// is ¼ σ(−0.5)² ln(1 + e^−0.5), and the pixel that is left out counts in the number of pixels alone.
    #[test]
    fn unlabelled_pixels_can_be_left_out() {
        let device = Device::flex();
        let masks = Tensor::<4>::from_floats([[[[0.5, 2.0]]]], &device);
        let targets = Targets::new(vec![0, IGNORE_LABEL], 1, [1, 2], 1).unwrap();
        let weights = MaskLoss::default();
        let all = weights.forward(masks.clone(), &targets, 1.0);
        let labelled = weights.forward(masks, &targets.without_unlabelled(), 1.0);
        let value = |term: Tensor<1>| f64::from(term.into_scalar::<f32>());
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        let positive = 0.25 * sigmoid(-0.5).powi(2) * -sigmoid(0.5).ln();
        let negative = 0.75 * sigmoid(2.0).powi(2) * -sigmoid(-2.0).ln();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * b.abs();
        assert!(close(value(labelled.focal), 100.0 * positive / 2.0));
        assert!(close(value(all.focal), 100.0 * (positive + negative) / 2.0));
        let dice = |z: f64| 1.0 - (2.0 * sigmoid(0.5) + 1.0) / (sigmoid(0.5) + z + 2.0);
        assert!(close(value(labelled.dice), dice(0.0)));
        assert!(close(value(all.dice), dice(sigmoid(2.0))));
    }

    #[test]
    fn a_withheld_pixel_gives_no_gradient_to_unseen_classes() {
        let withheld = LeftOut {
            pixels: vec![1],
            classes: vec![false, true, true],
        };
        for objective in [Objective::FocalDice, Objective::BinaryCrossEntropy] {
            // By the released rule it is a negative for every class.
            let released = gradient(objective, LeftOut::default());
            assert!(
                [1, 3, 5].iter().all(|&place| released[place] > 0.0),
                "{released:?}"
            );
            let gradient = gradient(objective, withheld.clone());
            let bits = |places: [f32; 2]| places.map(f32::to_bits);
            assert_eq!(gradient[1].to_bits(), released[1].to_bits());
            assert_eq!(bits([gradient[3], gradient[5]]), bits([0.0, 0.0]));
            assert!(gradient[2] < 0.0 && gradient[4] > 0.0, "{gradient:?}");
        }
    }
}
