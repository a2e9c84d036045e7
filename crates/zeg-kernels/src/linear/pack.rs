//! Lays out the weights of a linear layer for the kernels ([`super::tile`]).

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::quantized::GROUP;
use super::{
    Precision, Weights,
    quantized::quantize_weights,
    tile::{self, TileShape},
};
use crate::{bf16, level::Level};

/// Transposes weights: `[outputs, inputs]` → `[inputs, outputs]`
pub(super) fn transposed(weight: &[f32], inputs: usize) -> Vec<f32> {
    /// Number of rows and columns of a block; source and destination both fit the first-level cache.
    const BLOCK: usize = 32;
    let outputs = weight.len() / inputs.max(1);
    let mut turned = vec![0.0; weight.len()];
    let blocks = turned.par_chunks_mut((BLOCK * outputs).max(1)).enumerate();
    blocks.for_each(|(block, turned)| {
        let first = block * BLOCK;
        for start in (0..outputs).step_by(BLOCK) {
            for (input, row) in turned.chunks_exact_mut(outputs).enumerate() {
                for output in start..outputs.min(start + BLOCK) {
                    row[output] = weight[output * inputs + first + input];
                }
            }
        }
    });
    turned
}

/// Lays out weights `[outputs, inputs]` in panels; the last panel is padded with zeros.
pub(super) fn pack(
    weight: &[f32],
    inputs: usize,
    outputs: usize,
    level: Level,
    precision: Precision,
) -> (TileShape, Weights) {
    if precision == Precision::Float {
        let shape = TileShape::of_floats(level);
        let panels = panels(weight, inputs, outputs, shape.columns, 1, |_, w| w);
        return (shape, Weights::Floats(panels));
    }
    if precision == Precision::Bf16 {
        return pack_bf16(weight, inputs, outputs, level);
    }
    let scales = quantize_weights(weight, inputs);
    let rounded = |output: usize, w: f32| scales.round(output, w);
    #[cfg(target_arch = "x86_64")]
    if tile::has_bytes(level) {
        let shape = TileShape::OF_BYTES;
        let panels = panels(weight, inputs, outputs, shape.columns, 4, rounded);
        let sums = group_sums(weight, inputs, outputs, shape.columns, rounded);
        let scales = scales.padded(shape.columns);
        return (
            shape,
            Weights::Bytes {
                panels,
                scales,
                sums,
            },
        );
    }
    let shape = TileShape::of_pairs(level);
    let panels = panels(weight, inputs, outputs, shape.columns, 2, |output, w| {
        i16::from(rounded(output, w))
    });
    let scales = scales.padded(shape.columns);
    (shape, Weights::Pairs { panels, scales })
}

/// Lays out weights rounded to bf16: in 16 bits where the level has an instruction for them, else as floats that the
/// kernels of floats read, with the values of each pair swapped ([`tile`]).
fn pack_bf16(weight: &[f32], inputs: usize, outputs: usize, level: Level) -> (TileShape, Weights) {
    let shape = TileShape::of_floats(level);
    #[cfg(target_arch = "x86_64")]
    if level.has_bf16() {
        let halves = panels(weight, inputs, outputs, shape.columns, 2, |_, w| {
            bf16::round(w)
        });
        return (shape, Weights::Halves(halves));
    }
    let stride = inputs.next_multiple_of(2);
    let mut swapped = vec![0.0; outputs * stride];
    if stride > 0 {
        let rows = swapped.chunks_exact_mut(stride);
        for (out, row) in rows.zip(weight.chunks_exact(inputs)) {
            bf16::round_swapped(level, row, out);
        }
    }
    let panels = panels(&swapped, stride, outputs, shape.columns, 1, |_, w| w);
    (shape, Weights::Swapped(panels))
}

/// Returns panels `[inputs / unit][columns][unit]` of weights `[outputs, inputs]`, one after the other.
fn panels<T: Copy + Default + Send + Sync>(
    weight: &[f32],
    inputs: usize,
    outputs: usize,
    columns: usize,
    unit: usize,
    convert: impl Fn(usize, f32) -> T + Sync,
) -> Vec<T> {
    let length = inputs.next_multiple_of(unit) * columns;
    let mut panels = vec![T::default(); outputs.div_ceil(columns) * length];
    if length == 0 {
        return panels;
    }
    panels
        .par_chunks_exact_mut(length)
        .enumerate()
        .for_each(|(index, panel)| {
            let first = index * columns;
            for column in 0..columns.min(outputs - first) {
                let output = first + column;
                let row = &weight[output * inputs..][..inputs];
                for (line, weights) in row.chunks(unit).enumerate() {
                    let line = &mut panel[(line * columns + column) * unit..][..unit];
                    for (value, &weight) in line.iter_mut().zip(weights) {
                        *value = convert(output, weight);
                    }
                }
            }
        });
    panels
}

/// Returns the sums of rounded weights over groups of inputs: `[panels, groups, columns]`.
#[cfg(target_arch = "x86_64")]
fn group_sums(
    weight: &[f32],
    inputs: usize,
    outputs: usize,
    columns: usize,
    rounded: impl Fn(usize, f32) -> i8,
) -> Vec<f32> {
    let groups = inputs.div_ceil(GROUP);
    let mut sums = vec![0.0; outputs.div_ceil(columns) * groups * columns];
    for (output, row) in weight.chunks_exact(inputs.max(1)).enumerate() {
        let (panel, column) = (output / columns, output % columns);
        for (group, weights) in row.chunks(GROUP).enumerate() {
            let sum: i32 = weights.iter().map(|&w| i32::from(rounded(output, w))).sum();
            sums[(panel * groups + group) * columns + column] = sum as f32;
        }
    }
    sums
}
