//! Computes the set criterion: mask queries are matched to target masks and compared with class and mask of their
//! match.
//!
//! As in MaskFormer, ZegFormer and zsseg: cross-entropy over the classes and "no object" for all mask queries; sigmoid focal
//! and dice for the matched ones at the targets' full size; the same after every decoder layer (deep supervision).
//! Unlabelled pixels and padding are negatives for every mask.

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};
use zeg_model::{mask_transformer::QueryOutput, resize::bilinear};

use super::{
    mask_targets::MaskTargets,
    matching::{Matches, match_batch},
};
use crate::{
    TrainError,
    loss::{dice, focal},
};

/// Weights of the terms, for both the matching costs and the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SetLoss {
    /// Factor of the cross-entropy.
    pub class: f64,
    /// Factor of the focal term.
    pub focal: f64,
    /// Factor of the dice term.
    pub dice: f64,
    /// Weight of an unmatched mask query in the cross-entropy; a matched one has weight 1.
    pub no_object: f64,
}

/// The released weights.
impl Default for SetLoss {
    fn default() -> Self {
        Self {
            class: 1.0,
            focal: 20.0,
            dice: 1.0,
            no_object: 0.1,
        }
    }
}

/// The numbers that the terms of a batch are divided by; the parts of a batch share those of the whole batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SetNormalizer {
    /// Sum of the weights of all mask queries in the cross-entropy.
    pub queries: f64,
    /// Number of target masks, at least 1.
    pub masks: f64,
}

/// The weighted terms after one decoder layer: `[1]` each.
#[derive(Debug, Clone)]
pub struct SetTerms {
    /// Cross-entropy term.
    pub class: Tensor<1>,
    /// Sigmoid focal term.
    pub focal: Tensor<1>,
    /// Dice term.
    pub dice: Tensor<1>,
}

impl SetTerms {
    /// Returns the sum of the terms: `[1]`.
    pub fn total(&self) -> Tensor<1> {
        self.class.clone() + self.focal.clone() + self.dice.clone()
    }

    /// Adds the terms after another layer.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            class: self.class + other.class,
            focal: self.focal + other.focal,
            dice: self.dice + other.dice,
        }
    }
}

impl SetLoss {
    /// Returns the normaliser of a whole batch.
    ///
    /// - `masks`: number of target masks of each image
    /// - `queries`: number of mask queries per image
    pub fn normalizer(&self, masks: &[usize], queries: usize) -> SetNormalizer {
        let matched = |masks: usize| masks.min(queries) as f64;
        let weight =
            |masks: usize| matched(masks) + (queries as f64 - matched(masks)) * self.no_object;
        SetNormalizer {
            queries: masks.iter().map(|&masks| weight(masks)).sum(),
            masks: masks.iter().sum::<usize>().max(1) as f64,
        }
    }

    /// Matches the output of one decoder layer and computes its terms.
    ///
    /// # Errors
    /// Returns an error if the model's outputs are not finite or the device cannot be read.
    pub fn forward(
        &self,
        output: QueryOutput,
        targets: &MaskTargets,
        normalizer: SetNormalizer,
    ) -> Result<SetTerms, TrainError> {
        let matches = match_batch(&output, targets, self)?;
        Ok(self.terms(output, targets, &matches, normalizer))
    }

    /// Computes the terms of [`SetLoss::forward`] for a given assignment.
    pub fn terms(
        &self,
        output: QueryOutput,
        targets: &MaskTargets,
        matches: &[Matches],
        normalizer: SetNormalizer,
    ) -> SetTerms {
        let class = self.cross_entropy(output.classes, targets, matches, normalizer);
        let (focal, dice) = mask_terms(output.masks, targets, matches);
        SetTerms {
            class: class * self.class,
            focal: focal * (self.focal / normalizer.masks),
            dice: dice * (self.dice / normalizer.masks),
        }
    }

    /// Returns the weighted cross-entropy of logits `[batch, queries, classes + 1]`: `[1]`.
    fn cross_entropy(
        &self,
        logits: Tensor<3>,
        targets: &MaskTargets,
        matches: &[Matches],
        normalizer: SetNormalizer,
    ) -> Tensor<1> {
        let [batch, queries, columns] = logits.dims();
        let mut weights = vec![0.0_f32; batch * queries * columns];
        for (image, matches) in matches.iter().enumerate() {
            let row = |query: usize| (image * queries + query) * columns;
            for query in 0..queries {
                weights[row(query) + columns - 1] = self.no_object as f32;
            }
            for &(query, mask) in &matches.pairs {
                weights[row(query) + columns - 1] = 0.0;
                weights[row(query) + targets.images[image].classes[mask]] = 1.0;
            }
        }
        let data = TensorData::new(weights, [batch, queries, columns]);
        let weights = Tensor::<3>::from_data(data, &logits.device());
        (activation::log_softmax(logits, 2) * weights).sum() * (-1.0 / normalizer.queries)
    }
}

/// Returns the sums of the focal and the dice terms of the matched mask queries: `[1]` each.
///
/// - `masks`: logits `[batch, queries, h, w]`
fn mask_terms(
    masks: Tensor<4>,
    targets: &MaskTargets,
    matches: &[Matches],
) -> (Tensor<1>, Tensor<1>) {
    let [batch, queries, h, w] = masks.dims();
    let (mut rows, mut chosen) = (Vec::new(), Vec::new());
    for (image, matches) in matches.iter().enumerate() {
        for &(query, mask) in &matches.pairs {
            rows.push((image * queries + query) as i32);
            chosen.push((image, mask));
        }
    }
    if rows.is_empty() {
        // Gradients are then zero instead of absent, as in the reference.
        let zero = masks.sum() * 0.0;
        return (zero.clone(), zero);
    }
    let device: Device = masks.device();
    let count = rows.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &device);
    let z = masks.reshape([batch * queries, h, w]).select(0, rows); // [matched, h, w]
    let [height, width] = targets.size;
    let z = bilinear(z.unsqueeze_dim::<4>(0), [height, width]); // [1, matched, height, width]
    let z = z.reshape([1, count, height * width]);
    let truth = targets.select(&chosen, &device); //                 [1, matched, height·width]
    let present = Tensor::ones([1, count], &device);
    (focal(z.clone(), truth.clone()), dice(z, truth, present))
}
