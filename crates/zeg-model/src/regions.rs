//! Region tokens: CLIP-RC's region-level bridge in the encoder (spec of the reference, section 13.1).
//!
//! R tokens, arranged as a square lattice, are appended to the sequence. A fixed mask allows attention between each
//! region token and itself and the patches of its cell, in both directions, and nothing else; there is no attention
//! between region tokens and class or prompt tokens.

use burn::{
    module::Param,
    tensor::{Device, Tensor, TensorData},
};

use crate::{
    ModelError,
    vision::TokenPlan,
    weights::{HostTensor, Init, ParamBuilder},
};

const NAME: &str = "region_level_bridge";

/// Builds the tokens `[count, width]`; fresh ones all start as class embedding + class position.
pub(crate) fn build_tokens(
    params: &ParamBuilder,
    count: usize,
    width: usize,
) -> Result<Param<Tensor<2>>, ModelError> {
    let weights = params.weights();
    if weights.contains(&params.key(NAME)) || params.must_be_read(NAME) {
        return params.param(NAME, [count, width], Init::Required);
    }
    let (class, positions) = (
        weights.read(&params.key("class_embedding"))?,
        weights.read(&params.key("positional_embedding"))?,
    );
    match (class, positions) {
        (Some(class), Some(positions)) => {
            let row: Vec<f32> = class
                .values
                .iter()
                .zip(&positions.values)
                .map(|(c, p)| c + p)
                .collect();
            params.starting_from(
                NAME,
                [count, width],
                HostTensor {
                    shape: vec![count, width],
                    values: row.repeat(count),
                },
            )
        }
        _ => params.param(NAME, [count, width], Init::Required),
    }
}

/// Returns the additive attention mask of a plan with region tokens: `[tokens, tokens]`, 0 where attention is allowed,
/// else −∞.
pub(crate) fn attention_mask(plan: &TokenPlan, device: &Device) -> Tensor<2> {
    let length = plan.len();
    let values: Vec<f32> = (0..length * length)
        .map(|i| {
            if allowed(plan, i / length, i % length) {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [length, length]), device)
}

/// Returns whether token `a` attends to token `b`; the relation is symmetric.
pub fn allowed(plan: &TokenPlan, a: usize, b: usize) -> bool {
    let (low, high) = (a.min(b), a.max(b));
    let (patches, regions) = (plan.patches_start(), plan.regions_start());
    if high < regions || low == high {
        return true;
    }
    if low >= regions || low < patches {
        return false;
    }
    let side = plan.regions.isqrt();
    let (cell_h, cell_w) = (plan.grid[0] / side, plan.grid[1] / side);
    let (patch, region) = (low - patches, high - regions);
    let (y, x) = (patch / plan.grid[1], patch % plan.grid[1]);
    // If the lattice does not divide the grid, the remaining patches belong to no cell.
    cell_h > 0 && cell_w > 0 && y / cell_h == region / side && x / cell_w == region % side
}
