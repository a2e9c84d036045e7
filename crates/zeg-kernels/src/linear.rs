//! Linear layers whose weights are laid out once for the kernels: y = x·Wᵀ + b, with the operation that follows.
//!
//! A matrix product of two plain matrices spends its time on rearranging them, at every call. A [`PackedLinear`] stores
//! its weights in the layout that the kernels read ([`tile`]), in 32-bit floats or in 8-bit integers, and finishes a
//! tile of the result (bias, activation, residual) while it is in the first-level cache.
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
        quantized::{GROUP, RoundedRows, quantize_weights},
        tile::{Integers, Rows, TILE, TileShape},
    },
    matrix::MatrixMut,
};

mod quantized;
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
    /// 8-bit integers, with activations rounded to 8 bits when they are read; this takes a quarter of the memory and of
    /// the arithmetic.
    ///
    /// With the step s of an output's weights and the step r of a group of 96 inputs, every weight w is off by at most
    /// s/2 and every input x by at most r/2. A result is therefore within Σ |w|·r/2 + |x|·s/2 + r·s/4, summed over the
    /// inputs, of the exact product.
    Int8,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float => "f32",
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

/// A layer's inputs in the number type that its weights need.
enum Inputs<'a> {
    Floats(&'a [f32]),
    Pairs(RoundedRows<i16>),
    #[cfg(target_arch = "x86_64")]
    Bytes(RoundedRows<u8>),
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

    /// Packs a frozen layer that has something trained before it: in 32-bit floats, for both directions.
    ///
    /// # Panics
    /// Panics as [`PackedLinear::new`] does, or if there are no inputs.
    pub fn with_gradient(weight: &[f32], bias: &[f32]) -> Self {
        let forward = Self::new(weight, bias, Precision::Float);
        let transposed = transposed(weight, forward.inputs);
        let backward = Self::new(&transposed, &vec![0.0; forward.inputs], Precision::Float);
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
            _ => Precision::Int8,
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
        let inputs = match &self.weights {
            Weights::Floats(_) => Inputs::Floats(x),
            Weights::Pairs { .. } => Inputs::Pairs(RoundedRows::pairs(x, self.inputs, self.level)),
            #[cfg(target_arch = "x86_64")]
            Weights::Bytes { .. } => Inputs::Bytes(RoundedRows::bytes(x, self.inputs, self.level)),
        };
        // Blocks depend on the shape only; rows are divided evenly, in whole tiles.
        let blocks = rows.div_ceil(BLOCK_ROWS).max(1);
        let block = rows.div_ceil(blocks).next_multiple_of(self.shape.rows);
        let columns = BLOCK_PANELS * self.shape.columns;
        let tasks: Vec<_> = MatrixMut::new(out, self.outputs)
            .split_columns(columns)
            .into_iter()
            .enumerate()
            .flat_map(|(group, out)| {
                let parts = out.split_rows(block).into_iter().enumerate();
                parts.map(move |(index, out)| (group * BLOCK_PANELS, index * block, out))
            })
            .collect();
        tasks.into_par_iter().for_each(|(panel, row, out)| {
            self.block(&inputs, panel, row, out, then);
        });
    }

    /// Computes the block of the result that starts at the given panel's column and the given row.
    fn block(
        &self,
        inputs: &Inputs<'_>,
        first_panel: usize,
        first_row: usize,
        mut out: MatrixMut<'_>,
        then: Then,
    ) {
        let (rows, width) = out.size();
        let shape = self.shape;
        let mut tile = [0.0; TILE];
        for (index, left) in (0..width).step_by(shape.columns).enumerate() {
            let valid = shape.columns.min(width - left);
            let panel = first_panel + index;
            let bias = &self.bias[panel * shape.columns..][..shape.columns];
            for top in (0..rows).step_by(shape.rows) {
                let count = shape.rows.min(rows - top);
                self.tile(inputs, first_row + top, count, panel, &mut tile);
                let tile = &mut tile[..count * shape.columns];
                add_bias(self.level, tile, bias);
                if let Then::Activate(activation) = then {
                    activation.apply(self.level, tile);
                }
                for (row, values) in tile.chunks_exact(shape.columns).enumerate() {
                    let out = &mut out.row(top + row)[left..left + valid];
                    if then == Then::Add {
                        out.iter_mut()
                            .zip(values)
                            .for_each(|(out, value)| *out += value);
                    } else {
                        out.copy_from_slice(&values[..valid]);
                    }
                }
            }
        }
    }

    /// Computes the products of `count` rows from `first` on with a panel, without bias, in the first `count` rows of
    /// `tile`.
    fn tile(
        &self,
        inputs: &Inputs<'_>,
        first: usize,
        count: usize,
        panel: usize,
        tile: &mut [f32; TILE],
    ) {
        let columns = self.shape.columns;
        match (&self.weights, inputs) {
            (Weights::Floats(panels), Inputs::Floats(x)) => {
                let length = self.inputs * columns;
                let rows = Rows::new(&x[first * self.inputs..], self.inputs, count);
                tile::floats(
                    self.level,
                    self.shape,
                    rows,
                    &panels[panel * length..][..length],
                    (tile, columns),
                );
            }
            (Weights::Pairs { panels, scales }, Inputs::Pairs(x)) => {
                let length = x.stride * columns;
                let panel_values = &panels[panel * length..][..length];
                tile::pairs(self.level, integers(x, first, count), panel_values, tile);
                scale_outputs(self.level, tile, &scales[panel * columns..][..columns]);
            }
            #[cfg(target_arch = "x86_64")]
            (
                Weights::Bytes {
                    panels,
                    scales,
                    sums,
                },
                Inputs::Bytes(x),
            ) => {
                let length = x.stride * columns;
                let panel_values = &panels[panel * length..][..length];
                let sums = &sums[panel * x.groups * columns..][..x.groups * columns];
                tile::bytes(integers(x, first, count), panel_values, sums, tile);
                scale_outputs(self.level, tile, &scales[panel * columns..][..columns]);
            }
            _ => unreachable!("inputs are converted to the number type of the weights"),
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

/// Transposes weights: `[outputs, inputs]` → `[inputs, outputs]`
fn transposed(weight: &[f32], inputs: usize) -> Vec<f32> {
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
fn pack(
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

dispatched! {
    /// Adds the bias to every line of a tile.
    fn add_bias(tile: &mut [f32], bias: &[f32]) = add_bias_kernel;
}
dispatched! {
    /// Multiplies every line of a tile with the scales.
    fn scale_outputs(tile: &mut [f32], scales: &[f32]) = scale_outputs_kernel;
}

#[inline(always)]
fn add_bias_kernel<const FMA: bool>(tile: &mut [f32], bias: &[f32]) {
    for row in tile.chunks_exact_mut(bias.len()) {
        for (value, &bias) in row.iter_mut().zip(bias) {
            *value += bias;
        }
    }
}

#[inline(always)]
fn scale_outputs_kernel<const FMA: bool>(tile: &mut [f32], scales: &[f32]) {
    for row in tile.chunks_exact_mut(scales.len()) {
        for (value, &scale) in row.iter_mut().zip(scales) {
            *value *= scale;
        }
    }
}
