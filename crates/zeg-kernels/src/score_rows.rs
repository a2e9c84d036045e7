//! Loops over rows of scores, `[classes, columns]`: interpolation, sums, and the best class of every column.
//!
//! An image has classes × pixels scores, so these loops run hundreds of millions of times. They take plain slices: the
//! caller computes a part of the scores that fits into the processor's cache, reads from it what it needs, and computes
//! the next part into the same memory. Products and sums are rounded one by one, in the documented order, so that the
//! results are the same at every [`Level`].
//!
//! A row of the scores of one class follows that of the class before it at a fixed distance, the *stride*, which may
//! exceed the number of columns.

use crate::level::{Level, dispatched};

/// Number of columns whose best class is found together, which fit into the registers of every level.
const LANES: usize = 16;
/// Number of columns between the same two neighbours that are interpolated together.
const RUN: usize = 8;

/// Number of exponentials that are computed together.
const WIDE: usize = 16;
/// Bits of a 64-bit float's fraction beyond those of a 32-bit float.
const LOST_BITS: u32 = 29;
/// Distance from the middle between two 32-bit floats within which the C library may round to the other one: 0.004 units in
/// the last place.
const UNSURE: u64 = (1 << LOST_BITS) / 250;

/// Columns that are interpolated between two neighbours each.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// Lower and upper neighbour.
    neighbours: Vec<[u32; 2]>,
    /// Weight of the lower neighbour, 1 − that of the upper one.
    lower: Vec<f32>,
    /// Weight of the upper neighbour.
    upper: Vec<f32>,
    /// First columns of runs with the same neighbours.
    runs: Vec<u32>,
}

impl Columns {
    /// Returns the columns with these lower neighbours, upper neighbours, and weights of the upper ones.
    pub fn new(taps: impl IntoIterator<Item = (usize, usize, f32)>) -> Self {
        let mut columns = Self::default();
        for (low, high, fraction) in taps {
            let neighbours = [low as u32, high as u32];
            if columns.neighbours.last() != Some(&neighbours) {
                columns.runs.push(columns.neighbours.len() as u32);
            }
            columns.neighbours.push(neighbours);
            columns.lower.push(1.0 - fraction);
            columns.upper.push(fraction);
        }
        columns
    }

    /// Returns the number of columns.
    pub fn len(&self) -> usize {
        self.neighbours.len()
    }

    /// Returns whether there are no columns.
    pub fn is_empty(&self) -> bool {
        self.neighbours.is_empty()
    }
}

/// Two neighbouring rows of every class, and the weight of the lower one in the image.
#[derive(Debug, Clone, Copy)]
pub struct RowPair<'a> {
    /// Values from the first one of the upper row of the first class.
    pub top: &'a [f32],
    /// Values from the first one of the lower row of the first class.
    pub bottom: &'a [f32],
    /// Number of values in a row.
    pub length: usize,
    /// Distance from a class to the next one in `top` and `bottom`.
    pub stride: usize,
    /// Weight of `bottom`; that of `top` is 1 − it.
    pub fraction: f32,
}

/// Interpolates a row of every class: between the two rows first, then between columns, each as
/// `low · (1 − weight) + high · weight`; zeros are positive.
///
/// - `out`: `[classes, stride]`, of which the first [`Columns::len`] columns are written
///
/// # Panics
/// Panics if a slice is shorter than these sizes need.
pub fn interpolate(
    level: Level,
    rows: &RowPair,
    columns: &Columns,
    out: &mut [f32],
    stride: usize,
) {
    if !columns.is_empty() {
        interpolate_rows(level, rows, columns, out, stride);
    }
}

dispatched! {
    fn interpolate_rows(rows: &RowPair, columns: &Columns, out: &mut [f32], stride: usize) = interpolate_kernel;
}

#[inline(always)]
fn interpolate_kernel<const FMA: bool>(
    rows: &RowPair,
    columns: &Columns,
    out: &mut [f32],
    stride: usize,
) {
    let mut line = vec![0.0_f32; rows.length];
    let has_runs = columns.runs.len() * RUN <= columns.len();
    let (above, below) = (1.0 - rows.fraction, rows.fraction);
    for (class, out) in out.chunks_mut(stride).enumerate() {
        let top = &rows.top[class * rows.stride..][..rows.length];
        let bottom = &rows.bottom[class * rows.stride..][..rows.length];
        for ((value, top), bottom) in line.iter_mut().zip(top).zip(bottom) {
            *value = top * above + bottom * below;
        }
        let out = &mut out[..columns.len()];
        if has_runs {
            spread_runs(&line, columns, out);
        } else {
            let weights = columns.lower.iter().zip(&columns.upper);
            for ((out, &[low, high]), (lower, upper)) in
                out.iter_mut().zip(&columns.neighbours).zip(weights)
            {
                *out = line[low as usize] * lower + line[high as usize] * upper + 0.0;
            }
        }
    }
}

/// Interpolates between columns, many of which have the same neighbours.
#[inline(always)]
fn spread_runs(line: &[f32], columns: &Columns, out: &mut [f32]) {
    let ends = columns.runs[1..].iter().map(|&end| end as usize);
    let ends = ends.chain([columns.len()]);
    for (start, end) in columns.runs.iter().map(|&start| start as usize).zip(ends) {
        let [low, high] = columns.neighbours[start].map(|index| line[index as usize]);
        let (out, out_rest) = out[start..end].as_chunks_mut::<RUN>();
        let (lower, lower_rest) = columns.lower[start..end].as_chunks::<RUN>();
        let (upper, upper_rest) = columns.upper[start..end].as_chunks::<RUN>();
        for ((out, lower), upper) in out.iter_mut().zip(lower).zip(upper) {
            for lane in 0..RUN {
                out[lane] = low * lower[lane] + high * upper[lane] + 0.0;
            }
        }
        for ((out, lower), upper) in out_rest.iter_mut().zip(lower_rest).zip(upper_rest) {
            *out = low * lower + high * upper + 0.0;
        }
    }
}

/// Computes eˣ of every value, in place: what [`f32::exp`] gives, to the bit, if the C library's function is within
/// 0.503 units in the last place, as that of glibc is.
///
/// The function is computed in 64 bits. Where the result is so close to the middle between two floats that the C library
/// may round to the other one, and outside of ±87, the C library computes it.
pub fn exponentials(level: Level, values: &mut [f32]) {
    exponentials_at(level, values);
}

dispatched! { fn exponentials_at(values: &mut [f32]) = exponentials_kernel; }

#[inline(always)]
fn exponentials_kernel<const FMA: bool>(values: &mut [f32]) {
    let (chunks, rest) = values.as_chunks_mut::<WIDE>();
    for chunk in chunks {
        exponentials_of::<FMA>(chunk);
    }
    let mut padded = [0.0; WIDE];
    padded[..rest.len()].copy_from_slice(rest);
    exponentials_of::<FMA>(&mut padded);
    rest.copy_from_slice(&padded[..rest.len()]);
}

#[inline(always)]
fn exponentials_of<const FMA: bool>(values: &mut [f32; WIDE]) {
    let x = *values;
    let mut is_unsure = [0_u64; WIDE];
    for lane in 0..WIDE {
        let wide = exp_in_64_bits::<FMA>(f64::from(x[lane]));
        values[lane] = wide as f32;
        // The bits that a 32-bit float lacks; the middle between two floats is the highest of them alone.
        let lost = wide.to_bits() & ((1 << LOST_BITS) - 1);
        let distance = lost.wrapping_sub((1 << (LOST_BITS - 1)) - UNSURE);
        let is_far = x[lane].abs() >= 87.0;
        is_unsure[lane] =
            u64::from(distance < 2 * UNSURE) | u64::from(is_far) | u64::from(x[lane].is_nan());
    }
    if is_unsure.iter().fold(0, |any, unsure| any | unsure) != 0 {
        for lane in 0..WIDE {
            if is_unsure[lane] != 0 {
                values[lane] = x[lane].exp();
            }
        }
    }
}

/// Computes eˣ for |x| below 88, within 10⁻¹¹ of it.
///
/// x = n·ln 2 + r with |r| ≤ ½ ln 2; eʳ is its Taylor series, and 2ⁿ is made from its bits.
#[inline(always)]
fn exp_in_64_bits<const FMA: bool>(x: f64) -> f64 {
    // Adding 1.5·2⁵² rounds to an integer, and leaves it in the low bits.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let multiply_add = |a: f64, b: f64, c: f64| if FMA { a.mul_add(b, c) } else { a * b + c };
    let shifted = multiply_add(x, std::f64::consts::LOG2_E, ROUND);
    let r = multiply_add(shifted - ROUND, -std::f64::consts::LN_2, x);
    let mut p = 1.0 / 362_880.0;
    for coefficient in [
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = multiply_add(p, r, coefficient);
    }
    p * f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52))
}

dispatched! {
    /// Turns e⁻ˣ into σ(x) = 1 / (1 + e⁻ˣ), in place.
    pub fn sigmoids_of_exponentials(values: &mut [f32]) = sigmoids_kernel;
}

#[inline(always)]
fn sigmoids_kernel<const FMA: bool>(values: &mut [f32]) {
    for value in values {
        *value = 1.0 / (1.0 + *value);
    }
}

dispatched! {
    /// Adds rows to rows.
    ///
    /// - `sums`: `[classes, stride]`; columns from `first` on change
    /// - `values`: `[classes, length]`
    pub fn add(sums: &mut [f32], stride: usize, first: usize, values: &[f32], length: usize) = add_kernel;
}

#[inline(always)]
fn add_kernel<const FMA: bool>(
    sums: &mut [f32],
    stride: usize,
    first: usize,
    values: &[f32],
    length: usize,
) {
    for (sums, values) in sums.chunks_mut(stride).zip(values.chunks_exact(length)) {
        for (sum, value) in sums[first..].iter_mut().zip(values) {
            *sum += value;
        }
    }
}

dispatched! {
    /// Divides every row by the same numbers.
    ///
    /// - `values`: `[classes, stride]`
    /// - `by`: `[columns]`
    pub fn divide(values: &mut [f32], stride: usize, by: &[f32]) = divide_kernel;
}

#[inline(always)]
fn divide_kernel<const FMA: bool>(values: &mut [f32], stride: usize, by: &[f32]) {
    for values in values.chunks_mut(stride) {
        for (value, by) in values.iter_mut().zip(by) {
            *value /= by;
        }
    }
}

dispatched! {
    /// Adds the shares of mask queries, weighted with the queries' class scores, query after query.
    ///
    /// - `sums`: `[classes, stride]`; columns from `first` on change
    /// - `shares`: `[queries, length]`
    /// - `weights`: `[queries, classes]`
    pub fn add_weighted(sums: &mut [f32], stride: usize, first: usize, shares: &[f32], length: usize, weights: &[f32]) =
        add_weighted_kernel;
}

#[inline(always)]
fn add_weighted_kernel<const FMA: bool>(
    sums: &mut [f32],
    stride: usize,
    first: usize,
    shares: &[f32],
    length: usize,
    weights: &[f32],
) {
    let queries = shares.len() / length.max(1);
    let classes = weights.len() / queries.max(1);
    for (class, sums) in sums.chunks_mut(stride).enumerate().take(classes) {
        let sums = &mut sums[first..][..length];
        let (chunks, rest) = sums.as_chunks_mut::<LANES>();
        let done = length - rest.len();
        for (number, sums) in chunks.iter_mut().enumerate() {
            let mut lanes = *sums;
            for query in 0..queries {
                let weight = weights[query * classes + class];
                let shares = &shares[query * length + number * LANES..][..LANES];
                for (lane, share) in lanes.iter_mut().zip(shares) {
                    *lane += weight * share;
                }
            }
            *sums = lanes;
        }
        for (number, sum) in rest.iter_mut().enumerate() {
            for query in 0..queries {
                *sum += weights[query * classes + class] * shares[query * length + done + number];
            }
        }
    }
}

/// Finds the class with the highest score in every column; ties go to the lower class. A class whose score is not a
/// number is never the best.
///
/// - `scores`: `[classes, stride]`, of which as many columns count as `best` has
/// - `lowered`: `[classes]`, subtracted from the scores first; empty for nothing
/// - `best`: receives the highest score; −∞ if there is none
/// - `classes`: receives the class; 0 if there is none
///
/// # Panics
/// Panics if a slice is shorter than these sizes need.
pub fn best_classes(
    level: Level,
    scores: &[f32],
    stride: usize,
    lowered: &[f32],
    best: &mut [f32],
    classes: &mut [u16],
) {
    find_best(level, scores, stride, lowered, best, classes);
}

dispatched! {
    fn find_best(scores: &[f32], stride: usize, lowered: &[f32], best: &mut [f32], classes: &mut [u16]) =
        find_best_kernel;
}

#[inline(always)]
fn find_best_kernel<const FMA: bool>(
    scores: &[f32],
    stride: usize,
    lowered: &[f32],
    best: &mut [f32],
    classes: &mut [u16],
) {
    let count = scores.len().div_ceil(stride.max(1));
    let parts = best.chunks_mut(LANES).zip(classes.chunks_mut(LANES));
    for (part, (best, classes)) in parts.enumerate() {
        let mut highest = [f32::NEG_INFINITY; LANES];
        let mut found = [0_u32; LANES];
        for class in 0..count {
            let scores = &scores[class * stride + part * LANES..][..best.len()];
            let by = lowered.get(class).copied().unwrap_or(0.0);
            if let Ok(scores) = <&[f32; LANES]>::try_from(scores) {
                take_better(&mut highest, &mut found, scores, by, class as u32);
            } else {
                let mut padded = [f32::NEG_INFINITY; LANES];
                padded[..scores.len()].copy_from_slice(scores);
                take_better(&mut highest, &mut found, &padded, by, class as u32);
            }
        }
        best.copy_from_slice(&highest[..best.len()]);
        for (class, found) in classes.iter_mut().zip(found) {
            *class = found as u16;
        }
    }
}

#[inline(always)]
fn take_better(
    highest: &mut [f32; LANES],
    found: &mut [u32; LANES],
    scores: &[f32; LANES],
    by: f32,
    class: u32,
) {
    for lane in 0..LANES {
        let score = scores[lane] - by;
        let is_better = score > highest[lane];
        highest[lane] = if is_better { score } else { highest[lane] };
        found[lane] = if is_better { class } else { found[lane] };
    }
}

#[cfg(test)]
mod tests;
