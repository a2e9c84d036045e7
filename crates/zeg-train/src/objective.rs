//! Defines the objectives for class masks: ZegCLIP's non-mutually exclusive loss and the losses of its ablation.
//!
//! | objective | classes | source |
//! |---|---|---|
//! | focal-dice | independent masks (sigmoid) | ZegCLIP, "NEL", as released |
//! | binary-cross-entropy | independent masks (sigmoid) | ZegCLIP's ablation of losses, "plain"; not released |
//! | cross-entropy | mutually exclusive (softmax) | ZegCLIP's baseline; not released |
//!
//! A model that was trained with cross-entropy also needs a softmax at inference: `model.head.scoring = "softmax"`.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};
use zeg_image::IGNORE_LABEL;
use zeg_model::{method::Scoring, resize::bilinear};

use crate::{loss::MaskLoss, targets::Targets};

/// A training objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Sigmoid focal and dice, with the weights of [`MaskLoss`].
    #[default]
    FocalDice,
    /// Binary cross-entropy, averaged over pixels, summed over masks, and divided by the number of (image, class)
    /// pairs. Unlabelled pixels are negatives for every class.
    BinaryCrossEntropy,
    /// Softmax cross-entropy over the classes, averaged over the labelled pixels of the batch.
    CrossEntropy,
}

/// Weighted terms of a loss with their names: `[1]` each.
pub type NamedTerms = Vec<(&'static str, Tensor<1>)>;

impl Objective {
    /// Returns whether this is the default, which is left out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the scoring that a model trained with this objective needs.
    pub fn scoring(self) -> Scoring {
        match self {
            Self::FocalDice | Self::BinaryCrossEntropy => Scoring::Sigmoid,
            Self::CrossEntropy => Scoring::Softmax,
        }
    }

    /// Returns the number that the terms of a batch are divided by, at least 1; the parts of a batch share it.
    pub fn normalizer(self, parts: &[&Targets]) -> f64 {
        let counts = parts.iter().map(|targets| self.count(targets));
        counts.sum::<usize>().max(1) as f64
    }

    /// Returns a part's contribution to the normaliser: (image, class) pairs, or labelled pixels.
    pub(crate) fn count(self, targets: &Targets) -> usize {
        match self {
            Self::FocalDice | Self::BinaryCrossEntropy => targets.count(),
            Self::CrossEntropy => {
                let labels = targets.labels().iter();
                labels.filter(|label| **label != IGNORE_LABEL).count()
            }
        }
    }

    /// Computes the loss of class masks.
    ///
    /// - `masks`: logits `[batch, classes, h, w]`, resized to the targets' size
    /// - `weights`: weights of the focal and dice terms
    pub fn forward(
        self,
        masks: Tensor<4>,
        targets: &Targets,
        weights: &MaskLoss,
        normalizer: f64,
    ) -> NamedTerms {
        match self {
            Self::FocalDice => {
                let terms = weights.forward(masks, targets, normalizer);
                vec![("focal", terms.focal), ("dice", terms.dice)]
            }
            Self::BinaryCrossEntropy => {
                let [height, width] = targets.size();
                let (z, truth) = at_target_size(masks, targets);
                // −ln σ(z) for positives and −ln σ(−z) for negatives.
                let signed = z * (truth * 2.0 - 1.0); // [batch, classes, pixels]
                let sum = activation::log_sigmoid(signed).sum();
                vec![("bce", sum * (-1.0 / ((height * width) as f64 * normalizer)))]
            }
            Self::CrossEntropy => {
                let (z, truth) = at_target_size(masks, targets);
                // Ignored pixels have no true class, so their terms are 0.
                let sum = (activation::log_softmax(z, 1) * truth).sum();
                vec![("cross-entropy", sum * (-1.0 / normalizer))]
            }
        }
    }
}

/// Returns logits and truth of every class at every pixel: `[batch, classes, pixels]` each.
pub(crate) fn at_target_size(masks: Tensor<4>, targets: &Targets) -> (Tensor<3>, Tensor<3>) {
    let [batch, classes, _, _] = masks.dims();
    let [height, width] = targets.size();
    let device = masks.device();
    let z = bilinear(masks, [height, width]).reshape([batch, classes, height * width]);
    (targets.mask_logits(z), targets.one_hot(&device))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Returns two pixels with two classes: the first pixel is class 1, the second is unlabelled.
    fn case() -> (Tensor<4>, Targets) {
        let masks = Tensor::from_floats([[[[0.5, 2.0]], [[-1.0, 0.25]]]], &Device::flex());
        let targets = Targets::new(vec![1, IGNORE_LABEL], 1, [1, 2], 2).unwrap();
        (masks, targets)
    }

    fn value(objective: Objective) -> f64 {
        let (masks, targets) = case();
        let normalizer = objective.normalizer(&[&targets]);
        let mut terms = objective.forward(masks, &targets, &MaskLoss::default(), normalizer);
        f64::from(terms.remove(0).1.into_scalar::<f32>())
    }

    /// The expected value is the sum of `torch.nn.functional.binary_cross_entropy_with_logits` over the two masks,
    /// divided by two pixels and one (image, class) pair: −½(ln σ(−0.5) + ln σ(−1) + ln σ(−2) + ln σ(−0.25)).
    #[test]
    fn binary_cross_entropy_counts_unlabelled_pixels_as_negatives() {
        let log_sigmoid = |z: f64| -(1.0 + (-z).exp()).ln();
        let expected =
            -0.5 * (log_sigmoid(-0.5) + log_sigmoid(-1.0) + log_sigmoid(-2.0) + log_sigmoid(-0.25));
        assert!((value(Objective::BinaryCrossEntropy) - expected).abs() < 1e-6);
    }

    #[test]
    fn cross_entropy_leaves_unlabelled_pixels_out() {
        let expected = (0.5_f64.exp() + (-1.0_f64).exp()).ln() + 1.0;
        assert!((value(Objective::CrossEntropy) - expected).abs() < 1e-6);
    }
}
