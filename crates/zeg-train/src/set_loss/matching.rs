//! Matches mask queries to target masks: the one-to-one assignment of least cost.
//!
//! As in DETR and MaskFormer. The costs are the terms of the loss, but on the small grid of the predicted masks; no
//! gradient flows through them.

use burn::tensor::{Tensor, TensorData, activation};
use pathfinding::{kuhn_munkres::kuhn_munkres_min, matrix::Matrix};
use zeg_model::mask_transformer::QueryOutput;

use super::{mask_targets::MaskTargets, set_criterion::SetLoss};
use crate::{
    TrainError,
    loss::{ALPHA, DICE_SMOOTHING},
};

/// Largest cost after rounding to integers, so that the assignment is exact and its sums cannot overflow.
const LARGEST: f64 = (1_u64 << 50) as f64;

/// The assignment of one image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matches {
    /// Pairs of a mask query and a target mask, in ascending order of the queries.
    pub pairs: Vec<(usize, usize)>,
}

/// Costs of one image: `[queries, masks]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// Costs, `[queries, masks]`.
    pub values: Vec<f32>,
    /// Number of mask queries (rows).
    pub queries: usize,
    /// Number of target masks (columns).
    pub masks: usize,
}

/// Matches mask queries to target masks in every image of a batch.
///
/// # Errors
/// Returns an error if a cost is not finite or the device cannot be read.
pub fn match_batch(
    output: &QueryOutput,
    targets: &MaskTargets,
    weights: &SetLoss,
) -> Result<Vec<Matches>, TrainError> {
    (0..targets.images.len())
        .map(|image| costs(output, targets, image, weights)?.solve())
        .collect()
}

/// Returns the cost of every mask query for every target mask of an image.
///
/// # Errors
/// Returns an error if the device cannot be read.
pub fn costs(
    output: &QueryOutput,
    targets: &MaskTargets,
    image: usize,
    weights: &SetLoss,
) -> Result<Costs, TrainError> {
    let classes = &targets.images[image].classes;
    let [_, queries, h, w] = output.masks.dims();
    if classes.is_empty() {
        return Ok(Costs {
            values: Vec::new(),
            queries,
            masks: 0,
        });
    }
    let z = output.masks.clone().without_autodiff(); // [batch, queries, h, w]
    let z = z.narrow(0, image, 1).reshape([queries, h * w]);
    let device = z.device();
    let truth = targets.thinned(image, [h, w], &device).transpose(); // [h·w, masks]
    let p = activation::sigmoid(z.clone());
    let softplus = |x: Tensor<2>| -activation::log_sigmoid(-x);
    let missed = (-p.clone() + 1.0).square() * softplus(-z.clone()) * ALPHA; //     [queries, h·w]
    let wrong = p.clone().square() * softplus(z) * (1.0 - ALPHA); //                [queries, h·w]
    let pixels = missed.matmul(truth.clone()) + wrong.matmul(-truth.clone() + 1.0);
    let focal = pixels / (h * w) as f64; // [queries, masks]
    let overlap = p.clone().matmul(truth.clone()) * 2.0 + DICE_SMOOTHING;
    let area = p.sum_dim(1) + truth.sum_dim(0) + DICE_SMOOTHING; // [queries, masks]
    let dice = -(overlap / area) + 1.0;

    let logits = output.classes.clone().without_autodiff(); // [batch, queries, classes + 1]
    let columns = logits.dims()[2];
    let logits = logits.narrow(0, image, 1).reshape([queries, columns]);
    let chosen: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
    let chosen = Tensor::from_data(TensorData::new(chosen, [classes.len()]), &device);
    let probability = activation::softmax(logits, 1).select(1, chosen); // [queries, masks]
    let total = focal * weights.focal + dice * weights.dice - probability * weights.class;
    let values = total
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| TrainError::Backend(format!("{error:?}")))?;
    Ok(Costs {
        values,
        queries,
        masks: classes.len(),
    })
}

impl Costs {
    /// Returns the assignment of least cost: every mask gets its own query, or every query its own mask if there are
    /// more masks than queries.
    ///
    /// Costs are scaled and rounded to integers of at most 2⁵⁰, which is far finer than their own precision. On
    /// integers the Hungarian algorithm is exact and deterministic.
    ///
    /// # Errors
    /// Returns an error if a cost is not finite.
    pub fn solve(&self) -> Result<Matches, TrainError> {
        let (queries, masks) = (self.queries, self.masks);
        if queries == 0 || masks == 0 {
            return Ok(Matches::default());
        }
        if let Some(value) = self.values.iter().find(|value| !value.is_finite()) {
            return Err(TrainError::Backend(format!(
                "the cost of a mask query is {value}; the model's outputs are no longer finite"
            )));
        }
        let largest = self
            .values
            .iter()
            .fold(0.0_f32, |most, v| most.max(v.abs()));
        let scale = LARGEST / f64::from(largest.max(f32::MIN_POSITIVE));
        let cost = |query: usize, mask: usize| {
            (f64::from(self.values[query * masks + mask]) * scale).round() as i64
        };
        // The algorithm needs at least as many columns as rows.
        let transposed = masks > queries;
        let (rows, columns) = if transposed {
            (queries, masks)
        } else {
            (masks, queries)
        };
        let table = Matrix::from_fn(rows, columns, |(row, column)| {
            if transposed {
                cost(row, column)
            } else {
                cost(column, row)
            }
        });
        let (_, assigned) = kuhn_munkres_min(&table);
        let pairs = assigned.into_iter().enumerate();
        let mut pairs: Vec<(usize, usize)> = if transposed {
            pairs.collect()
        } else {
            pairs.map(|(mask, query)| (query, mask)).collect()
        };
        pairs.sort_unstable();
        Ok(Matches { pairs })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn costs(queries: usize, masks: usize, values: Vec<f32>) -> Costs {
        Costs {
            values,
            queries,
            masks,
        }
    }

    /// Returns the least cost of all assignments, by trying each.
    fn least(costs: &Costs, mask: usize, used: &mut Vec<bool>) -> f64 {
        if mask == costs.masks {
            return 0.0;
        }
        let mut best = f64::INFINITY;
        for query in 0..costs.queries {
            if !used[query] {
                used[query] = true;
                let own = f64::from(costs.values[query * costs.masks + mask]);
                best = best.min(own + least(costs, mask + 1, used));
                used[query] = false;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn no_other_assignment_costs_less(
            (queries, masks, values) in (1_usize..6, 1_usize..5).prop_filter("enough queries", |(q, m)| q >= m).prop_flat_map(
                |(q, m)| (Just(q), Just(m), prop::collection::vec(-30.0_f32..30.0, q * m)))
        ) {
            let costs = costs(queries, masks, values);
            let found = costs.solve().unwrap();
            prop_assert_eq!(found.pairs.len(), masks);
            prop_assert!(found.pairs.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let sum: f64 = found.pairs.iter().map(|&(q, m)| f64::from(costs.values[q * masks + m])).sum();
            prop_assert!((sum - least(&costs, 0, &mut vec![false; queries])).abs() < 1e-6);
        }
    }

    #[test]
    fn with_more_masks_than_queries_some_masks_stay_unmatched() {
        let found = costs(1, 3, vec![2.0, 1.0, 3.0]).solve().unwrap();
        assert_eq!(found.pairs, [(0, 1)]);
        assert_eq!(costs(4, 0, Vec::new()).solve().unwrap(), Matches::default());
    }

    #[test]
    fn a_cost_that_is_not_finite_is_an_error() {
        assert!(costs(1, 1, vec![f32::NAN]).solve().is_err());
    }
}
