//! Rounding to 8 bits: weights with one scale per output, activations with a scale and a zero point per group of
//! inputs.
//!
//! Activations of transformers have channels far larger than the others, and after a GELU hardly any negative values.
//! So every [`GROUP`] of inputs of a row has its own range, from its minimum (at most 0) to its maximum (at least 0): x
//! ≈ r·(p − z), p from 0 to 255. A large channel reduces the precision of its own group only.

use crate::{
    level::{Level, dispatched},
    matrix::MatrixMut,
};

/// Number of inputs that share a scale: a multiple of 4 and of 16, and small enough that a sum of products of bytes
/// with weights, each at most 255 · 127, stays below 2²⁴, up to where floats represent every whole number.
pub(crate) const GROUP: usize = 96;

const _: () = assert!(GROUP.is_multiple_of(16) && GROUP * 255 * 127 < 1 << 24);

/// Maximum integer of a weight.
const GREATEST: f32 = 127.0;

/// The scales of weights, one per output.
pub(crate) struct WeightScales(Vec<f32>);

/// Computes the scales of weights `[outputs, inputs]`.
pub(crate) fn quantize_weights(weight: &[f32], inputs: usize) -> WeightScales {
    let scale = |row: &[f32]| row.iter().fold(0.0_f32, |most, w| most.max(w.abs())) / GREATEST;
    WeightScales(weight.chunks_exact(inputs.max(1)).map(scale).collect())
}

impl WeightScales {
    /// Rounds a weight of this output to −127..=127.
    pub(crate) fn round(&self, output: usize, weight: f32) -> i8 {
        let scale = self.0[output];
        if scale == 0.0 {
            return 0;
        }
        (weight / scale).round() as i8
    }

    /// Returns the scales, padded to whole panels of `columns` outputs.
    pub(crate) fn padded(self, columns: usize) -> Vec<f32> {
        let mut scales = self.0;
        scales.resize(scales.len().next_multiple_of(columns), 0.0);
        scales
    }
}

/// Rows of rounded activations.
#[derive(Debug, Default)]
pub(crate) struct RoundedRows<T> {
    /// `[rows, stride]`: p as bytes, or p − z as 16-bit integers. Padding after a row's last value is multiplied with
    /// weights of zero.
    pub(crate) values: Vec<T>,
    /// Length of a row.
    pub(crate) stride: usize,
    /// Number of groups in a row.
    pub(crate) groups: usize,
    /// Scales r: `[rows, groups]`
    pub(crate) scales: Vec<f32>,
    /// Zero points z: `[rows, groups]`; all 0 if they are already subtracted.
    pub(crate) zeros: Vec<i32>,
}

/// A block of rounded rows to write: some rows, some of their groups.
pub(crate) struct RoundedBlock<'a, T> {
    values: MatrixMut<'a, T>,
    scales: MatrixMut<'a>,
    zeros: MatrixMut<'a, i32>,
}

impl<T: Copy + Default> RoundedRows<T> {
    /// Makes room for rows of `length` values, whose stride is a multiple of `unit`.
    pub(crate) fn resize(&mut self, rows: usize, length: usize, unit: usize) {
        self.stride = length.next_multiple_of(unit);
        self.groups = length.div_ceil(GROUP);
        self.values.resize(rows * self.stride, T::default());
        self.scales.resize(rows * self.groups, 0.0);
        self.zeros.resize(rows * self.groups, 0);
    }

    /// Returns blocks of `columns` values, a multiple of [`GROUP`] unless it is a whole row, by `rows` rows: first the
    /// blocks of the first columns.
    pub(crate) fn blocks(&mut self, columns: usize, rows: usize) -> Vec<RoundedBlock<'_, T>> {
        let values = MatrixMut::new(&mut self.values, self.stride).blocks(columns, rows);
        let notes = columns.div_ceil(GROUP);
        let scales = MatrixMut::new(&mut self.scales, self.groups).blocks(notes, rows);
        let zeros = MatrixMut::new(&mut self.zeros, self.groups).blocks(notes, rows);
        let blocks = values.into_iter().zip(scales).zip(zeros);
        let block = |((values, scales), zeros)| RoundedBlock {
            values,
            scales,
            zeros,
        };
        blocks.map(block).collect()
    }
}

impl RoundedBlock<'_, i16> {
    /// Rounds a row for kernels that read two values at a time.
    pub(crate) fn round(&mut self, level: Level, row: usize, x: &[f32]) {
        let notes = (self.scales.row(row), self.zeros.row(row));
        pair_row(level, x, self.values.row(row), notes.0, notes.1);
    }
}

#[cfg(target_arch = "x86_64")]
impl RoundedBlock<'_, u8> {
    /// Rounds a row for kernels that read four values at a time.
    pub(crate) fn round(&mut self, level: Level, row: usize, x: &[f32]) {
        let notes = (self.scales.row(row), self.zeros.row(row));
        byte_row(level, x, self.values.row(row), notes.0, notes.1);
    }
}

dispatched! {
    fn pair_row(row: &[f32], out: &mut [i16], scales: &mut [f32], zeros: &mut [i32]) = pair_row_kernel;
}
#[cfg(target_arch = "x86_64")]
dispatched! {
    fn byte_row(row: &[f32], out: &mut [u8], scales: &mut [f32], zeros: &mut [i32]) = byte_row_kernel;
}

#[inline(always)]
fn pair_row_kernel<const FMA: bool>(
    row: &[f32],
    out: &mut [i16],
    scales: &mut [f32],
    zeros: &mut [i32],
) {
    let notes = scales.iter_mut().zip(zeros);
    for ((x, out), (scale, zero)) in row.chunks(GROUP).zip(out.chunks_mut(GROUP)).zip(notes) {
        let range = Range::of(x);
        (*scale, *zero) = (range.scale, 0);
        for (out, &x) in out.iter_mut().zip(x) {
            *out = (range.round(x) - range.zero) as i16;
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn byte_row_kernel<const FMA: bool>(
    row: &[f32],
    out: &mut [u8],
    scales: &mut [f32],
    zeros: &mut [i32],
) {
    let notes = scales.iter_mut().zip(zeros);
    for ((x, out), (scale, zero)) in row.chunks(GROUP).zip(out.chunks_mut(GROUP)).zip(notes) {
        let range = Range::of(x);
        (*scale, *zero) = (range.scale, range.zero);
        for (out, &x) in out.iter_mut().zip(x) {
            *out = range.round(x) as u8;
        }
    }
}

/// The mapping from the values of a group to integers.
struct Range {
    /// Factor from values to integers.
    factor: f32,
    /// Scale r, the factor from integers to values; NaN if a value is NaN or infinite.
    scale: f32,
    /// Zero point z, the integer of the value 0.
    zero: i32,
}

impl Range {
    #[inline(always)]
    fn of(x: &[f32]) -> Self {
        const LANES: usize = 16;
        let (mut low, mut high, mut poison) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0; LANES]);
        let (chunks, rest) = x.as_chunks::<LANES>();
        let mut note = |lane: usize, x: f32| {
            low[lane] = if x < low[lane] { x } else { low[lane] };
            high[lane] = if x > high[lane] { x } else { high[lane] };
            poison[lane] += x * 0.0;
        };
        for chunk in chunks {
            for (lane, &x) in chunk.iter().enumerate() {
                note(lane, x);
            }
        }
        for (lane, &x) in rest.iter().enumerate() {
            note(lane, x);
        }
        let low = low.into_iter().fold(0.0, f32::min);
        let high = high.into_iter().fold(0.0, f32::max);
        let poison: f32 = poison.into_iter().sum();
        let width = high - low;
        let factor = if width > 0.0 { 255.0 / width } else { 0.0 };
        Self {
            factor,
            scale: width / 255.0 + poison,
            zero: nearest(-low * factor),
        }
    }

    /// Returns p, 0 to 255.
    #[inline(always)]
    fn round(&self, x: f32) -> i32 {
        (nearest(x * self.factor) + self.zero).clamp(0, 255)
    }
}

/// Returns the nearest integer, ties to even, of a number between −2²² and 2²².
#[inline(always)]
fn nearest(x: f32) -> i32 {
    // The last bits of 1.5·2²³ are integers.
    const ROUND: f32 = 12_582_912.0;
    (x + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
}
