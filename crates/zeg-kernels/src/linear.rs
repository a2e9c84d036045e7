//! Linear layers whose weights are laid out once for the kernels: y = x·Wᵀ + b, with the operation that follows.
//!
//! A matrix product of two plain matrices spends its time on rearranging them, at every call. A [`PackedLinear`] stores
//! its weights in the layout that the kernels read ([`tile`]), in 32-bit floats, in bf16 or in 8-bit integers, and
//! finishes a tile of the result (bias, activation, residual) while it is in the first-level cache. If the next layer
//! reads rounded rows, a block of the result is rounded while it is in the second-level cache ([`rounded`]).
//!
//! In bf16, weights and activations are rounded, and sums are 32-bit floats in a fixed order: a row's products with a
//! panel are bit-identical at every level.
//!
//! In integers, a weight is w ≈ s·q with one scale s per output. An activation is x ≈ r·(p − z) with a scale and a zero
//! point per row and group of inputs, which are found when the row is read ([`quantized`]). Sums of (p − z)·q over a
//! group are exact, and the operations after them have a fixed order without multiply-adds, so results are
//! bit-identical at every level.

use std::fmt;

use rayon::prelude::*;

use crate::{
    activation::Activation,
    level::{Level, dispatched},
    linear::{
        pack::{pack, transposed},
        quantized::{GROUP, RoundedRows},
        rounded::Rounded,
        tile::{Integers, Rows, TILE, TileShape},
    },
    matrix::MatrixMut,
};

mod pack;
mod quantized;
pub(crate) mod rounded;
pub(crate) mod tile;

/// Most rows in a block of the result: their inputs stay in the outer caches while the panels are processed.
const BLOCK_ROWS: usize = 264;

/// Number of panels in a block of the result.
const BLOCK_PANELS: usize = 4;

/// The number type of the weights of a [`PackedLinear`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats; results differ from a plain product only by rounding.
    #[default]
    Float,
    /// bf16: weights and activations rounded to 8 bits of precision, sums in 32-bit floats.
    ///
    /// A processor with instructions for bf16 ([`Level::has_bf16`]) needs half of the time; elsewhere the same values
    /// are computed with 32-bit floats, in their time.
    Bf16,
    /// 8-bit integers, with activations rounded to 8 bits when they are read; this takes a quarter of the memory and of
    /// the arithmetic.
    ///
    /// With the step s of an output's weights and the step r of a group of 96 inputs, every weight w is off by at most
    /// s/2 and every input x by at most r/2. A result is therefore within Σ |w|·r/2 + |x|·s/2 + r·s/4, summed over the
    /// inputs, of the exact product.
    Int8,
}

impl Precision {
    /// Returns the precision that is faster on this processor at nearly the same results: bf16 on AMD's processors with
    /// instructions for it, else 32-bit floats.
    ///
    /// The choice follows from the kind of processor and not from a measurement, so that results repeat. On Zen 4, one
    /// core reaches 117 GFLOP/s in floats and 234 in bf16. Intel's processors are not chosen: some run the instruction
    /// at half of that rate, and none was measured.
    pub fn automatic() -> Self {
        if Level::current().has_bf16() && crate::level::is_amd() {
            Self::Bf16
        } else {
            Self::Float
        }
    }

    /// Returns whether this machine computes in this precision without its instructions, and so not faster than with
    /// 32-bit floats.
    pub fn is_emulated(self) -> bool {
        self == Self::Bf16 && !Level::current().has_bf16()
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        })
    }
}

/// Returns the display name of the instructions that integer products use at a level.
pub fn integer_instructions(level: Level) -> String {
    #[cfg(target_arch = "x86_64")]
    if tile::has_bytes(level) {
        return "AVX-512 VNNI".to_owned();
    }
    level.to_string()
}

/// The operation that follows a product and its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Write the result.
    Store,
    /// Write the activation of the result.
    Activate(Activation),
    /// Add the result to the values in the output.
    Add,
}

/// A linear layer packed for the kernels of one level.
#[derive(Clone)]
pub struct PackedLinear {
    inputs: usize,
    outputs: usize,
    level: Level,
    shape: TileShape,
    weights: Weights,
    /// Bias, one value per output, padded to whole panels; scales and offsets are padded in the same way.
    bias: Vec<f32>,
    /// The transposed layer, if the layer has gradients: it maps gradients of the outputs to those of the inputs.
    backward: Option<Box<PackedLinear>>,
}

/// Packed weights ([`tile`]) with their scales.
#[derive(Clone)]
enum Weights {
    Floats(Vec<f32>),
    #[cfg(target_arch = "x86_64")]
    Halves(Vec<u16>),
    /// Values of bf16 as floats, the two values of each pair swapped, for levels without instructions for bf16.
    Swapped(Vec<f32>),
    Pairs {
        panels: Vec<i16>,
        scales: Vec<f32>,
    },
    #[cfg(target_arch = "x86_64")]
    Bytes {
        panels: Vec<i8>,
        scales: Vec<f32>,
        /// Sums of the weights over each group of inputs, whole numbers: `[panels, groups, columns]`
        sums: Vec<f32>,
    },
}

/// A layer's inputs: rows of floats, or rounded to the number type of its weights.
#[derive(Clone, Copy)]
pub(crate) enum Inputs<'a> {
    Floats(&'a [f32]),
    Rounded(&'a Rounded),
}

impl PackedLinear {
    /// Packs a layer for the current level.
    ///
    /// - `weight`: `[outputs, inputs]`, row-major
    /// - `bias`: `[outputs]`
    ///
    /// # Panics
    /// Panics if there are no outputs, or the lengths do not match each other.
    pub fn new(weight: &[f32], bias: &[f32], precision: Precision) -> Self {
        let outputs = bias.len();
        assert!(
            outputs > 0 && weight.len().is_multiple_of(outputs),
            "{} weights cannot be divided into {outputs} rows",
            weight.len()
        );
        let inputs = weight.len() / outputs;
        let level = Level::current();
        let (shape, weights) = pack(weight, inputs, outputs, level, precision);
        let mut bias = bias.to_vec();
        bias.resize(outputs.next_multiple_of(shape.columns), 0.0);
        Self {
            inputs,
            outputs,
            level,
            shape,
            weights,
            bias,
            backward: None,
        }
    }

    /// Packs a frozen layer that has something trained before it, for both directions: gradients are rounded as
    /// activations are, and sums are of 32-bit floats.
    ///
    /// # Panics
    /// Panics as [`PackedLinear::new`] does, or if there are no inputs.
    pub fn with_gradient(weight: &[f32], bias: &[f32], precision: Precision) -> Self {
        let forward = Self::new(weight, bias, precision);
        let transposed = transposed(weight, forward.inputs);
        let backward = Self::new(&transposed, &vec![0.0; forward.inputs], precision);
        Self {
            backward: Some(Box::new(backward)),
            ..forward
        }
    }

    /// Returns the layer that maps gradients of the outputs to gradients of the inputs, if there is one.
    pub(crate) fn backward(&self) -> Option<&Self> {
        self.backward.as_deref()
    }

    /// Returns the length of an input row.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Returns the length of an output row.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Returns the number type of the weights.
    fn precision(&self) -> Precision {
        match self.weights {
            Weights::Floats(_) => Precision::Float,
            #[cfg(target_arch = "x86_64")]
            Weights::Halves(_) => Precision::Bf16,
            Weights::Swapped(_) => Precision::Bf16,
            Weights::Pairs { .. } => Precision::Int8,
            #[cfg(target_arch = "x86_64")]
            Weights::Bytes { .. } => Precision::Int8,
        }
    }

    /// Applies the layer to rows.
    ///
    /// - `x`: `[rows, inputs]`
    /// - `out`: `[rows, outputs]`
    ///
    /// # Panics
    /// Panics if the lengths do not match each other.
    pub fn apply(&self, x: &[f32], out: &mut [f32], then: Then) {
        let rows = out.len() / self.outputs;
        assert!(
            x.len() == rows * self.inputs && out.len() == rows * self.outputs,
            "{} input and {} output values do not fit a layer {}→{}",
            x.len(),
            out.len(),
            self.inputs,
            self.outputs
        );
        let mut rounded = Rounded::default();
        self.apply_to(self.inputs_of(x, &mut rounded), out, then);
    }

    /// Returns whether the layer reads rounded inputs.
    pub(crate) fn rounds(&self) -> bool {
        self.precision() != Precision::Float
    }

    /// Returns rows of floats as inputs of this layer, rounded into the buffer if the layer rounds.
    pub(crate) fn inputs_of<'a>(&self, x: &'a [f32], rounded: &'a mut Rounded) -> Inputs<'a> {
        if !self.rounds() {
            return Inputs::Floats(x);
        }
        let rows = x.len() / self.inputs.max(1);
        rounded.fill(self, rows, |first, out| {
            out.copy_from_slice(&x[first * self.inputs..][..out.len()]);
        });
        Inputs::Rounded(rounded)
    }

    /// Applies the layer to its inputs, as [`PackedLinear::apply`] does.
    pub(crate) fn apply_to(&self, inputs: Inputs<'_>, out: &mut [f32], then: Then) {
        let (columns, block) = self.block_size(out.len() / self.outputs, BLOCK_PANELS);
        let blocks = MatrixMut::new(out, self.outputs).blocks(columns, block);
        let per_column = blocks.len() / self.outputs.div_ceil(columns);
        let blocks = blocks.into_par_iter().enumerate();
        blocks.for_each(|(index, mut out)| {
            let (panel, row) = (
                index / per_column * BLOCK_PANELS,
                index % per_column * block,
            );
            self.block(inputs, panel, row, &mut out, then);
        });
    }

    /// Applies the layer to its inputs and rounds the results into `out`, which has room for `rows` of them.
    pub(crate) fn apply_rounding(
        &self,
        inputs: Inputs<'_>,
        rows: usize,
        out: &mut Rounded,
        then: Then,
    ) {
        // A block consists of whole groups.
        let panels = BLOCK_PANELS.max(GROUP.div_ceil(self.shape.columns));
        let (columns, block) = self.block_size(rows, panels);
        let blocks = out.blocks(columns, block);
        let per_column = rows.div_ceil(block).max(1);
        blocks.into_par_iter().enumerate().for_each_init(
            || vec![0.0; block * columns],
            |scratch, (index, mut out)| {
                let (group, row) = (index / per_column, index % per_column * block);
                let width = columns.min(self.outputs - group * columns);
                let scratch = &mut scratch[..block.min(rows - row) * width];
                let mut floats = MatrixMut::new(scratch, width);
                self.block(inputs, group * panels, row, &mut floats, then);
                out.round(self.level, scratch, width);
            },
        );
    }

    /// Returns the numbers of columns and rows of a block of the result. They depend on the shape only; rows are
    /// divided evenly, in whole tiles.
    fn block_size(&self, rows: usize, panels: usize) -> (usize, usize) {
        let blocks = rows.div_ceil(BLOCK_ROWS).max(1);
        let block = rows.div_ceil(blocks).next_multiple_of(self.shape.rows);
        (panels * self.shape.columns, block.max(1))
    }

    /// Computes the block of the result that starts at the given panel's column and the given row.
    fn block(
        &self,
        inputs: Inputs<'_>,
        first_panel: usize,
        first_row: usize,
        out: &mut MatrixMut<'_>,
        then: Then,
    ) {
        let (rows, width) = out.size();
        let shape = self.shape;
        let mut tile = [0.0; TILE];
        for (index, left) in (0..width).step_by(shape.columns).enumerate() {
            let panel = first_panel + index;
            let columns = panel * shape.columns..(panel + 1) * shape.columns;
            let finish = Finish {
                scales: self.scales().get(columns.clone()),
                bias: &self.bias[columns],
                then,
                left,
            };
            for top in (0..rows).step_by(shape.rows) {
                let count = shape.rows.min(rows - top);
                self.tile(inputs, first_row + top, count, panel, &mut tile);
                let tile = &mut tile[..count * shape.columns];
                finish_tile(self.level, tile, &finish, out, top);
            }
        }
    }

    /// Returns the scales of the outputs; empty if weights are not scaled.
    fn scales(&self) -> &[f32] {
        match &self.weights {
            Weights::Pairs { scales, .. } => scales,
            #[cfg(target_arch = "x86_64")]
            Weights::Bytes { scales, .. } => scales,
            _ => &[],
        }
    }

    /// Computes the products of `count` rows from `first` on with a panel, without scales and bias, in the first
    /// `count` rows of `tile`.
    fn tile(
        &self,
        inputs: Inputs<'_>,
        first: usize,
        count: usize,
        panel: usize,
        tile: &mut [f32; TILE],
    ) {
        let (level, shape, columns) = (self.level, self.shape, self.shape.columns);
        let part = |stride: usize| panel * stride * columns..(panel + 1) * stride * columns;
        match (&self.weights, inputs) {
            (Weights::Floats(panels), Inputs::Floats(x)) => {
                let rows = Rows::new(&x[first * self.inputs..], self.inputs, count);
                tile::floats(
                    level,
                    shape,
                    rows,
                    &panels[part(self.inputs)],
                    (tile, columns),
                );
            }
            (Weights::Swapped(panels), Inputs::Rounded(Rounded::Swapped(x))) => {
                let rows = Rows::new(&x.values[first * x.stride..], x.stride, count);
                tile::floats(level, shape, rows, &panels[part(x.stride)], (tile, columns));
            }
            #[cfg(target_arch = "x86_64")]
            (Weights::Halves(panels), Inputs::Rounded(Rounded::Halves(x))) => {
                let rows = Rows::new(&x.values[first * x.stride..], x.stride, count);
                tile::halves(level, shape, rows, &panels[part(x.stride)], (tile, columns));
            }
            (Weights::Pairs { panels, .. }, Inputs::Rounded(Rounded::Pairs(x))) => {
                tile::pairs(
                    level,
                    integers(x, first, count),
                    &panels[part(x.stride)],
                    tile,
                );
            }
            #[cfg(target_arch = "x86_64")]
            (Weights::Bytes { panels, sums, .. }, Inputs::Rounded(Rounded::Bytes(x))) => {
                let rows = integers(x, first, count);
                tile::bytes(rows, &panels[part(x.stride)], &sums[part(x.groups)], tile);
            }
            _ => unreachable!("inputs are rounded to the number type of the weights"),
        }
    }
}

/// Returns `count` rows from `first` on.
fn integers<T>(x: &RoundedRows<T>, first: usize, count: usize) -> Integers<'_, T> {
    let notes = first * x.groups..(first + count) * x.groups;
    Integers {
        rows: Rows::new(&x.values[first * x.stride..], x.stride, count),
        groups: x.groups,
        scales: &x.scales[notes.clone()],
        zeros: &x.zeros[notes],
    }
}

impl fmt::Debug for PackedLinear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedLinear")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("precision", &self.precision())
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// The operations on a tile of products before it is written.
struct Finish<'a> {
    /// Factor of each column, if there are factors.
    scales: Option<&'a [f32]>,
    /// Bias of each column.
    bias: &'a [f32],
    then: Then,
    /// First column in the block of the result.
    left: usize,
}

dispatched! {
    /// Finishes the lines of a tile and writes them to a block from row `top` on, as far as the block has columns.
    fn finish_tile(tile: &mut [f32], finish: &Finish<'_>, out: &mut MatrixMut<'_>, top: usize) = finish_tile_kernel;
}

#[inline(always)]
fn finish_tile_kernel<const FMA: bool>(
    tile: &mut [f32],
    finish: &Finish<'_>,
    out: &mut MatrixMut<'_>,
    top: usize,
) {
    let columns = finish.bias.len();
    for row in tile.chunks_exact_mut(columns) {
        if let Some(scales) = finish.scales {
            for ((value, &scale), &bias) in row.iter_mut().zip(scales).zip(finish.bias) {
                *value = *value * scale + bias;
            }
        } else {
            for (value, &bias) in row.iter_mut().zip(finish.bias) {
                *value += bias;
            }
        }
    }
    if let Then::Activate(activation) = finish.then {
        activation.apply_within::<FMA>(tile);
    }
    for (row, values) in tile.chunks_exact(columns).enumerate() {
        let out = out.row(top + row)[finish.left..].iter_mut().zip(values);
        if finish.then == Then::Add {
            out.for_each(|(out, value)| *out += value);
        } else {
            out.for_each(|(out, &value)| *out = value);
        }
    }
}
