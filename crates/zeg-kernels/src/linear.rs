//! Linear layers with weights laid out once for the kernels: y = x·Wᵀ + b, with what follows it.
//!
//! A matrix product that is given two plain matrices spends its time on rearranging them, again at every call. A
//! [`PackedLinear`] holds its weights as the kernels read them ([`tile`]), in 32-bit floats or in 8-bit integers,
//! and finishes a tile of the result (bias, activation, residual) while it is in the first-level cache.
//!
//! Integers: a weight is w ≈ s·q with one scale s an output; an activation is x ≈ r·(p − z) with scale and zero of its
//! row and group of inputs, found when the row is read ([`quantized`]). Sums of (p − z)·q over a group are exact, and
//! what follows has one order without multiply-adds, so that results are equal to the bit at every level.

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

/// Rows of a block of the result, at most: its inputs stay in the outer caches while the panels pass.
const BLOCK_ROWS: usize = 264;

/// Panels of a block of the result.
const BLOCK_PANELS: usize = 4;

/// How the weights of a [`PackedLinear`] are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats: results differ from a plain product by rounding alone.
    #[default]
    Float,
    /// 8-bit integers, and activations rounded to 8 bits on the way: a quarter of the memory and of the arithmetic.
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

/// The instructions that products of integers use at a level, for people.
pub fn integer_instructions(level: Level) -> String {
    #[cfg(target_arch = "x86_64")]
    if tile::has_bytes(level) {
        return "AVX-512 VNNI".to_owned();
    }
    level.to_string()
}

/// What happens to a product and its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is written.
    Store,
    /// Its activation is written.
    Activate(Activation),
    /// It is added to what was there.
    Add,
}

/// A linear layer, ready for the kernels of the level that it was packed at.
#[derive(Clone)]
pub struct PackedLinear {
    inputs: usize,
    outputs: usize,
    level: Level,
    shape: TileShape,
    weights: Weights,
    /// One an output, as if there were as many outputs as in whole panels; so are scales and offsets.
    bias: Vec<f32>,
    /// The same weights the other way round, if gradients are to pass: what they become on the way to the inputs.
    backward: Option<Box<PackedLinear>>,
}

/// Panels ([`tile`]) and what is needed to read them.
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

/// A layer's inputs as its weights want them.
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
    /// There are no outputs, or the lengths contradict each other.
    pub fn new(weight: &[f32], bias: &[f32], precision: Precision) -> Self {
        let outputs = bias.len();
        assert!(
            outputs > 0 && weight.len().is_multiple_of(outputs),
            "{} weights are no {outputs} rows",
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

    /// Packs a layer whose weights stay while something before it learns: in 32-bit floats, for both directions.
    ///
    /// # Panics
    /// As [`PackedLinear::new`], or there are no inputs.
    pub fn with_gradient(weight: &[f32], bias: &[f32]) -> Self {
        let forward = Self::new(weight, bias, Precision::Float);
        let transposed = transposed(weight, forward.inputs);
        let backward = Self::new(&transposed, &vec![0.0; forward.inputs], Precision::Float);
        Self {
            backward: Some(Box::new(backward)),
            ..forward
        }
    }

    /// The layer that gradients of the outputs go through to become those of the inputs, if there is one.
    pub(crate) fn backward(&self) -> Option<&Self> {
        self.backward.as_deref()
    }

    /// Length of a row that goes in.
    pub(crate) fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of a row that comes out.
    pub(crate) fn outputs(&self) -> usize {
        self.outputs
    }

    /// How the weights are held.
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
    /// The lengths contradict each other.
    pub fn apply(&self, x: &[f32], out: &mut [f32], then: Then) {
        let rows = out.len() / self.outputs;
        assert!(
            x.len() == rows * self.inputs && out.len() == rows * self.outputs,
            "{} values in, {} out of a layer {}→{}",
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
        // Blocks follow from the shape alone; rows are shared out evenly, in whole tiles.
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

    /// Computes the block of the result that starts at this panel's column and this row.
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

    /// Products of `count` rows from `first` on with a panel, without bias: the first `count` rows of `tile`.
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
            _ => unreachable!("inputs are made for the weights"),
        }
    }
}

/// `count` rows from `first` on.
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

/// `[outputs, inputs]` → `[inputs, outputs]`
fn transposed(weight: &[f32], inputs: usize) -> Vec<f32> {
    /// Rows and columns of a block: both sides of it fit the first-level cache.
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

/// Lays out weights `[outputs, inputs]` in panels; what the last panel has too many of is zero.
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

/// Panels `[inputs / unit][columns][unit]` of weights `[outputs, inputs]`, one behind the other.
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

/// Sums of rounded weights over groups of inputs: `[panels, groups, columns]`.
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
    /// Adds a line to every line of a tile.
    fn add_bias(tile: &mut [f32], bias: &[f32]) = add_bias_kernel;
}
dispatched! {
    /// Multiplies every line of a tile with a line.
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
