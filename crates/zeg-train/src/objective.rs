//! What training minimises: the paper's non-mutually exclusive loss, or what its ablation compares it with.
//!
//! | objective | classes | source |
//! |---|---|---|
//! | focal-dice | each with a mask of its own (sigmoid) | ZegCLIP, "NEL", as released |
//! | binary-cross-entropy | the same | ZegCLIP's ablation of losses, "plain"; not released |
//! | cross-entropy | exclude each other (softmax) | ZegCLIP's baseline; not released |
//!
//! A model that was trained with cross-entropy is scored by a softmax, too: `model.head.scoring = "softmax"`.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};
use zeg_image::IGNORE_LABEL;
use zeg_model::{method::Scoring, resize::bilinear};

use crate::{loss::MaskLoss, targets::Targets};

/// A loss, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Sigmoid focal and dice, with the weights of [`MaskLoss`].
    #[default]
    FocalDice,
    /// Binary cross-entropy, mean over pixels, summed over masks, divided as the focal term is. Pixels without a class
    /// are negatives for all.
    BinaryCrossEntropy,
    /// Softmax cross-entropy over the classes, mean over the labelled pixels of the batch; others do not count.
    CrossEntropy,
}

/// Terms of a loss with their names, weighted: `[1]` each.
pub type NamedTerms = Vec<(&'static str, Tensor<1>)>;

impl Objective {
    /// For leaving the usual value out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How scores must be made of a model's masks after this.
    pub fn scoring(self) -> Scoring {
        match self {
            Self::FocalDice | Self::BinaryCrossEntropy => Scoring::Sigmoid,
            Self::CrossEntropy => Scoring::Softmax,
        }
    }

    /// What the terms of a batch are divided by, at least 1; a batch that is computed in parts has one, of the whole.
    pub fn normalizer(self, parts: &[&Targets]) -> f64 {
        let counts = parts.iter().map(|targets| self.count(targets));
        counts.sum::<usize>().max(1) as f64
    }

    /// A part's share of the normaliser: pairs of an image and a class, or labelled pixels.
    pub(crate) fn count(self, targets: &Targets) -> usize {
        match self {
            Self::FocalDice | Self::BinaryCrossEntropy => targets.count(),
            Self::CrossEntropy => {
                let labels = targets.labels().iter();
                labels.filter(|label| **label != IGNORE_LABEL).count()
            }
        }
    }

    /// The loss of class masks.
    ///
    /// - `masks`: logits `[batch, classes, h, w]`, resized to the targets' size
    /// - `weights`: of the focal and dice terms
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
                // Ignored pixels have no true class, so that their terms are 0.
                let sum = (activation::log_softmax(z, 1) * truth).sum();
                vec![("cross-entropy", sum * (-1.0 / normalizer))]
            }
        }
    }
}

/// Logits and truth of every class at every pixel: `[batch, classes, pixels]` each.
fn at_target_size(masks: Tensor<4>, targets: &Targets) -> (Tensor<3>, Tensor<3>) {
    let [batch, classes, _, _] = masks.dims();
    let [height, width] = targets.size();
    let device = masks.device();
    let z = bilinear(masks, [height, width]).reshape([batch, classes, height * width]);
    (z, targets.one_hot(&device))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Two pixels, two classes: the first pixel is class 1, the second has none.
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

    /// torch.nn.functional.binary_cross_entropy_with_logits: its sum over the two maps, divided by two pixels and one
    /// (image, class) pair, which is −½(ln σ(−0.5) + ln σ(−1) + ln σ(−2) + ln σ(−0.25)).
    #[test]
    fn binary_cross_entropy_counts_pixels_without_a_class_as_negatives() {
        let log_sigmoid = |z: f64| -(1.0 + (-z).exp()).ln();
        let expected =
            -0.5 * (log_sigmoid(-0.5) + log_sigmoid(-1.0) + log_sigmoid(-2.0) + log_sigmoid(-0.25));
        assert!((value(Objective::BinaryCrossEntropy) - expected).abs() < 1e-6);
    }

    #[test]
    fn cross_entropy_leaves_pixels_without_a_class_out() {
        let expected = (0.5_f64.exp() + (-1.0_f64).exp()).ln() + 1.0;
        assert!((value(Objective::CrossEntropy) - expected).abs() < 1e-6);
    }
}
