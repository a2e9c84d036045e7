//! Numbers rounded to 8 bits: weights with a scale an output, activations with a scale a row.

use rayon::prelude::*;

use crate::{
    level::{Level, dispatched},
    math::{magnitude, sum_of},
};

/// Greatest integer that a number becomes.
const GREATEST: f32 = 127.0;

/// Values of rows that a thread rounds at a time, about.
const PIECE: usize = 32 * 1024;

/// Scales of weights, one an output.
pub(crate) struct WeightScales(Vec<f32>);

/// The scales of weights `[outputs, inputs]`.
pub(crate) fn quantize_weights(weight: &[f32], inputs: usize) -> WeightScales {
    let scale = |row: &[f32]| row.iter().fold(0.0_f32, |most, w| most.max(w.abs())) / GREATEST;
    WeightScales(weight.chunks_exact(inputs.max(1)).map(scale).collect())
}

impl WeightScales {
    /// A weight of this output, −127 to 127.
    pub(crate) fn round(&self, output: usize, weight: f32) -> i8 {
        let scale = self.0[output];
        if scale == 0.0 {
            return 0;
        }
        (weight / scale).round() as i8
    }

    /// The scales of whole panels of `columns` outputs.
    pub(crate) fn padded(self, columns: usize) -> Vec<f32> {
        let mut scales = self.0;
        scales.resize(scales.len().next_multiple_of(columns), 0.0);
        scales
    }
}

/// Rows of 16-bit integers, −127 to 127.
pub(crate) struct PairRows {
    /// `[rows, stride]`; behind a row's last value, zero.
    pub(crate) values: Vec<i16>,
    /// Length of a row, even.
    pub(crate) stride: usize,
    /// One a row.
    pub(crate) scales: Vec<f32>,
}

/// Rows of bytes, 1 to 255: 128 more than the integer that is meant.
#[cfg(target_arch = "x86_64")]
pub(crate) struct ByteRows {
    /// `[rows, stride]`; what lies behind a row's last value meets weights of zero.
    pub(crate) values: Vec<u8>,
    /// Length of a row, a multiple of 4.
    pub(crate) stride: usize,
    /// One a row.
    pub(crate) scales: Vec<f32>,
}

impl PairRows {
    /// Rounds rows of `length` values.
    pub(crate) fn quantize(x: &[f32], length: usize, level: Level) -> Self {
        let stride = length.next_multiple_of(2);
        let (values, scales) = quantize(x, length, stride, |row, out| pair_row(level, row, out));
        Self {
            values,
            stride,
            scales,
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl ByteRows {
    /// Rounds rows of `length` values.
    pub(crate) fn quantize(x: &[f32], length: usize, level: Level) -> Self {
        let stride = length.next_multiple_of(4);
        let (values, scales) = quantize(x, length, stride, |row, out| byte_row(level, row, out));
        Self {
            values,
            stride,
            scales,
        }
    }
}

/// Rounds every row by `round`, which returns its scale.
fn quantize<T: Copy + Default + Send>(
    x: &[f32],
    length: usize,
    stride: usize,
    round: impl Fn(&[f32], &mut [T]) -> f32 + Sync,
) -> (Vec<T>, Vec<f32>) {
    if length == 0 {
        return (Vec::new(), Vec::new());
    }
    let rows = x.len() / length;
    let mut values = vec![T::default(); rows * stride];
    let mut scales = vec![0.0; rows];
    let piece = (PIECE / length).max(1);
    let parts = values.par_chunks_mut(piece * stride);
    let parts = parts.zip(scales.par_chunks_mut(piece));
    parts
        .zip(x.par_chunks(piece * length))
        .for_each(|((values, scales), x)| {
            let rows = values.chunks_exact_mut(stride).zip(x.chunks_exact(length));
            for ((values, x), scale) in rows.zip(scales) {
                *scale = round(x, &mut values[..length]);
            }
        });
    (values, scales)
}

dispatched! {
    /// Rounds a row; returns its scale.
    fn pair_row(row: &[f32], out: &mut [i16]) -> f32 = pair_row_kernel;
}
#[cfg(target_arch = "x86_64")]
dispatched! {
    /// Rounds a row; returns its scale.
    fn byte_row(row: &[f32], out: &mut [u8]) -> f32 = byte_row_kernel;
}

#[inline(always)]
fn pair_row_kernel<const FMA: bool>(row: &[f32], out: &mut [i16]) -> f32 {
    let (factor, scale) = scales_of(row);
    for (out, &x) in out.iter_mut().zip(row) {
        *out = shifted(x, factor) as i16;
    }
    scale
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn byte_row_kernel<const FMA: bool>(row: &[f32], out: &mut [u8]) -> f32 {
    let (factor, scale) = scales_of(row);
    for (out, &x) in out.iter_mut().zip(row) {
        *out = (shifted(x, factor) as u8) ^ 0x80;
    }
    scale
}

/// What values are multiplied with to be rounded, and what the integers are multiplied with to come back.
///
/// A row with a value that is not finite gets a scale that is not, and so does its result.
#[inline(always)]
fn scales_of(row: &[f32]) -> (f32, f32) {
    let most = magnitude(row);
    let poison = sum_of(row, |x| x * 0.0);
    let factor = if most > 0.0 { GREATEST / most } else { 0.0 };
    (factor, most / GREATEST + poison)
}

/// x·factor rounded to the nearest integer, ties to even, in the low bits.
#[inline(always)]
fn shifted(x: f32, factor: f32) -> i32 {
    // 1.5·2²³ has integers as its last bits; those of negative ones are as in two's complement.
    const ROUND: f32 = 12_582_912.0;
    (x * factor + ROUND).to_bits() as i32
}
