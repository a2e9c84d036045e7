//! CLIP-RC's attention mask: a region token and the patches of its cell attend to each other.

use zeg_model::{regions::allowed, vision::TokenPlan};

use crate::{
    graph::Graph,
    shapes::Size,
    tower::{Grid, Tokens},
    value::{Dim, Value},
};

/// Returns the additive mask of tokens with region tokens: `[tokens, tokens]`, 0 or −∞.
pub(crate) fn mask(g: &mut Graph, tokens: &Tokens) -> Value {
    match tokens.grid.known() {
        Some(grid) => {
            let plan = TokenPlan {
                prompts: tokens.prompts,
                grid,
                regions: tokens.regions,
            };
            let length = plan.len();
            let values: Vec<f32> = (0..length * length)
                .map(|i| {
                    if allowed(&plan, i / length, i % length) {
                        0.0
                    } else {
                        f32::NEG_INFINITY
                    }
                })
                .collect();
            let kind = g.float();
            g.constants("region_mask", &values, &[length, length], kind)
        }
        None => g.scope("region_mask", |g| computed(g, tokens)),
    }
}

/// Computes the mask for a grid that is known only when the model runs.
///
/// Every token has the number of a cell: a region token its own, a patch that of its cell, all others −1. Two tokens
/// attend to each other if neither is a region token, or if their numbers are equal.
fn computed(g: &mut Graph, tokens: &Tokens) -> Value {
    let side = tokens.regions.isqrt().max(1);
    let others = 1 + tokens.prompts;
    let patches = cells(g, &tokens.grid, side);
    let first = g.integers(&vec![-1; others]);
    let numbers: Vec<i64> = (0..tokens.regions as i64).collect();
    let regions = g.integers(&numbers);
    let cell = g.concat(&[&first, &patches, &regions], 0); // [tokens]
    let zero = g.integers(&[0]);
    let one = g.integers(&[1]);
    let no_patch = g.expand(&zero, &[Size::Of(&patches, 0)], vec![patches.dim(0)]);
    let none = g.integers(&vec![0; others]);
    let all = g.integers(&vec![1; tokens.regions]);
    let is_region = g.concat(&[&none, &no_patch, &all], 0); // [tokens], 0 or 1
    let rows = |g: &mut Graph, x: &Value| g.unsqueeze(x, 1);
    let (cell_rows, region_rows) = (rows(g, &cell), rows(g, &is_region));
    let same = g.equal(&cell_rows, &cell);
    let regions = g.add(&region_rows, &is_region);
    let neither = g.less(&regions, &one);
    let allowed = g.or(&same, &neither);
    let kind = g.float();
    let (open, closed) = (g.number(0.0, kind), g.number(f64::NEG_INFINITY, kind));
    g.choose(&allowed, &open, &closed)
}

/// Returns the number of every patch's cell: `[h·w]`; −1 beyond the last whole cell.
fn cells(g: &mut Graph, grid: &Grid, side: usize) -> Value {
    let along = |g: &mut Graph, axis: i64, length: Dim| {
        let count = g.sizes(&[Size::Of(&grid.maps, axis)]);
        let lattice = g.integers(&[side as i64]);
        let least = g.integers(&[1]);
        let cell = g.divide(&count, &lattice);
        let cell = g.larger(&cell, &least);
        let places = g.range(&count, length);
        g.divide(&places, &cell) // [length]
    };
    let rows = along(g, 2, grid.rows.clone());
    let columns = along(g, 3, grid.columns.clone());
    let lattice = g.integers(&[side as i64]);
    let rows = g.unsqueeze(&rows, 1);
    let first = g.multiply(&rows, &lattice);
    let cell = g.add(&first, &columns); // [h, w]
    let inside_rows = g.less(&rows, &lattice);
    let inside_columns = g.less(&columns, &lattice);
    let inside = g.and(&inside_rows, &inside_columns);
    let outside = g.integers(&[-1]);
    let cell = g.choose(&inside, &cell, &outside);
    g.reshape(&cell, &[-1])
}
