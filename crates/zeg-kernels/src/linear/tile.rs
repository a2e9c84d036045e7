//! Products of a few rows with one panel of packed weights: the inner loops of the linear layers.
//!
//! A tile of the result stays in registers while both operands are read once, so the time is spent on multiply-adds and
//! not on loads. A tile has 8 rows by 48 columns or 6 by 64 with AVX-512's 32 registers, 4 by 24 or 6 by 16 with AVX2's
//! 16 registers, and 4 by 8 where only the compiler's own vectors are available. A sum runs over the inputs in order,
//! regardless of its tile.
//!
//! This file is longer than others, because it keeps the kernels of all levels and number types beside the checks that
//! their pointers rely on.
//!
//! Panels of floats are `[in][columns]`. Panels of 8-bit weights are `[in / 4][columns][4]` bytes for the instruction
//! that sums four products of bytes (VNNI), and `[in / 2][columns][2]` 16-bit integers elsewhere.

use super::quantized::GROUP;
use crate::level::{Instructions, Level};

/// Most values in a tile at any level.
pub(crate) const TILE: usize = 8 * 48;

/// The numbers of rows and columns of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileShape {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl TileShape {
    /// Returns the shape for products of floats.
    pub(crate) fn of_floats(level: Level) -> Self {
        let (rows, columns) = match level.instructions() {
            Instructions::Portable => (4, 8),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => (4, 24),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => (8, 48),
        };
        Self { rows, columns }
    }

    /// Returns the shape for products of floats whose result has `columns` columns in total, such as the values of a
    /// head: of the level's shapes, the one that leaves fewer columns unused.
    pub(crate) fn of_narrow_floats(level: Level, columns: usize) -> Self {
        let usual = Self::of_floats(level);
        let (rows, other) = match level.instructions() {
            Instructions::Portable => return usual,
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => (6, 16),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => (6, 64),
        };
        if columns.next_multiple_of(other) < columns.next_multiple_of(usual.columns) {
            Self {
                rows,
                columns: other,
            }
        } else {
            usual
        }
    }

    /// Returns the shape for products of 16-bit integers.
    pub(crate) fn of_pairs(level: Level) -> Self {
        let (rows, columns) = match level.instructions() {
            Instructions::Portable => (4, 8),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 | Instructions::Avx512 => (4, 24),
        };
        Self { rows, columns }
    }

    /// The shape for products of bytes.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const OF_BYTES: Self = Self {
        rows: 8,
        columns: 48,
    };
}

/// The rows of the left operand of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, T> {
    /// Values, beginning with the first row's first one.
    values: &'a [T],
    /// Distance from one row to the next.
    stride: usize,
    /// Distance from one value of a row to the next; 1 except for floats.
    step: usize,
    count: usize,
}

impl<'a, T> Rows<'a, T> {
    /// Returns `count` rows that start `stride` values apart in `values`.
    pub(crate) fn new(values: &'a [T], stride: usize, count: usize) -> Self {
        Self {
            values,
            stride,
            step: 1,
            count,
        }
    }

    /// Returns the same rows with their values `step` apart.
    pub(crate) fn with_step(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// Checks what the kernels' pointers rely on: there is at least one row, and each has `length` values in the slice.
    fn check(&self, length: usize) {
        let last = (self.count.wrapping_sub(1)).checked_mul(self.stride);
        let along = length.checked_sub(1).map_or(Some(0), |steps| {
            steps.checked_mul(self.step)?.checked_add(1)
        });
        let end = last
            .zip(along)
            .and_then(|(last, along)| last.checked_add(along));
        assert!(
            self.count > 0 && end.is_some_and(|end| end <= self.values.len()),
            "{} rows of {length} values, {} apart, do not fit {}",
            self.count,
            self.stride,
            self.values.len()
        );
    }
}

/// Rows of integers, with the scales and zero points of their groups of [`GROUP`] inputs.
#[derive(Clone, Copy)]
pub(crate) struct Integers<'a, T> {
    pub(crate) rows: Rows<'a, T>,
    /// Number of groups in a row.
    pub(crate) groups: usize,
    /// Scales: `[rows, groups]`
    pub(crate) scales: &'a [f32],
    /// Zero points: `[rows, groups]`
    pub(crate) zeros: &'a [i32],
}

impl<T> Integers<'_, T> {
    fn check(&self, length: usize) {
        self.rows.check(length);
        let notes = self.rows.count * self.groups;
        assert!(
            self.rows.step == 1
                && self.groups == length.div_ceil(GROUP)
                && self.scales.len() >= notes
                && self.zeros.len() >= notes,
            "{} groups do not match {length} values",
            self.groups
        );
    }
}

/// Calls a kernel that is generic over the number of rows.
macro_rules! by_rows {
    ($kernel:ident, $rows:expr, $($arg:expr),*) => {
        match $rows.count {
            1 => $kernel::<1>($($arg),*),
            2 => $kernel::<2>($($arg),*),
            3 => $kernel::<3>($($arg),*),
            4 => $kernel::<4>($($arg),*),
            5 => $kernel::<5>($($arg),*),
            6 => $kernel::<6>($($arg),*),
            7 => $kernel::<7>($($arg),*),
            _ => $kernel::<8>($($arg),*),
        }
    };
}

/// Calls a kernel as `by_rows` does, for levels whose tiles have four rows.
macro_rules! by_four_rows {
    ($kernel:ident, $rows:expr, $($arg:expr),*) => {
        match $rows.count {
            1 => $kernel::<1>($($arg),*),
            2 => $kernel::<2>($($arg),*),
            3 => $kernel::<3>($($arg),*),
            _ => $kernel::<4>($($arg),*),
        }
    };
}

/// Writes rows · panel to `out`, whose rows start `stride` values apart.
///
/// # Panics
/// Panics if the level has no tile of this shape, or if there are more rows than in a tile, or if they are shorter than
/// the panel's depth or do not fit `out`.
pub(crate) fn floats(
    level: Level,
    shape: TileShape,
    rows: Rows<'_, f32>,
    panel: &[f32],
    (out, stride): (&mut [f32], usize),
) {
    let depth = panel.len() / shape.columns;
    assert!(
        rows.count <= shape.rows,
        "{} rows exceed a tile",
        rows.count
    );
    rows.check(depth);
    Rows::new(out, stride, rows.count).check(shape.columns);
    match (level.instructions(), shape.columns) {
        (Instructions::Portable, 8) => {
            by_four_rows!(portable_floats, rows, rows, panel, out, stride);
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: here and below, the level says that this machine has the instructions. The kernel reads `depth` values
        // of each of its rows, no more than `rows.count`, and `depth` lines of the panel, and writes as many rows of a
        // line's length to `out`: all were checked above.
        (Instructions::Avx2, 24) => unsafe {
            by_four_rows!(avx2_floats, rows, rows, panel, depth, out, stride);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Instructions::Avx2, 16) => unsafe {
            by_rows!(avx2_narrow_floats, rows, rows, panel, depth, out, stride);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Instructions::Avx512, 48) => unsafe {
            by_rows!(avx512_floats, rows, rows, panel, depth, out, stride);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Instructions::Avx512, 64) => unsafe {
            by_rows!(avx512_narrow_floats, rows, rows, panel, depth, out, stride);
        },
        (instructions, columns) => {
            unreachable!("{instructions:?} has no tile of {columns} columns")
        }
    }
}

/// Writes rows · panel to `out`, whose rows are as long as the tile, for 16-bit integers in pairs. The sums of a group
/// are exact; they are scaled and added in the order of the groups.
///
/// # Panics
/// Panics as [`floats`] does.
pub(crate) fn pairs(level: Level, x: Integers<'_, i16>, panel: &[i16], out: &mut [f32; TILE]) {
    let shape = TileShape::of_pairs(level);
    let depth = panel.len() / (2 * shape.columns);
    let rows = x.rows;
    assert!(
        rows.count <= shape.rows,
        "{} rows exceed a tile",
        rows.count
    );
    x.check(2 * depth);
    match level.instructions() {
        Instructions::Portable => by_four_rows!(portable_pairs, rows, x, panel, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the level says that this machine has the instructions. The kernel reads `2 · depth` values of each
        // of its rows, no more than `rows.count`, and `depth` lines of the panel: both were checked above.
        Instructions::Avx2 | Instructions::Avx512 => unsafe {
            by_four_rows!(avx2_pairs, rows, x, panel, depth, out);
        },
    }
}

/// Returns whether [`bytes`] can run at a level.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bytes(level: Level) -> bool {
    level.instructions() == Instructions::Avx512 && is_x86_feature_detected!("avx512vnni")
}

/// Writes rows · panel to `out`, whose rows are as long as the tile, for unsigned bytes with signed ones, in fours. The
/// group's zero point times the sum of its weights is subtracted from the sum of the group; otherwise the function
/// works like [`pairs`].
///
/// - `sums`: sums of the weights, `[groups, columns]`
///
/// # Panics
/// Panics as [`floats`] does, or if this machine lacks VNNI.
#[cfg(target_arch = "x86_64")]
pub(crate) fn bytes(x: Integers<'_, u8>, panel: &[i8], sums: &[f32], out: &mut [f32; TILE]) {
    let shape = TileShape::OF_BYTES;
    let depth = panel.len() / (4 * shape.columns);
    let rows = x.rows;
    assert!(
        rows.count <= shape.rows,
        "{} rows exceed a tile",
        rows.count
    );
    assert!(is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512f"));
    x.check(4 * depth);
    assert!(
        sums.len() >= x.groups * shape.columns,
        "number of sums of the weights"
    );
    // SAFETY: the machine has the instructions. The kernel reads `4 · depth` values of each of its rows, no more than
    // `rows.count`, `depth` lines of the panel and `x.groups` lines of the sums: all were checked above.
    unsafe { by_rows!(avx512_bytes, rows, x, panel, sums, depth, out) }
}

fn portable_floats<const M: usize>(
    rows: Rows<'_, f32>,
    panel: &[f32],
    out: &mut [f32],
    stride: usize,
) {
    const COLUMNS: usize = 8;
    let mut sums = [[0.0_f32; COLUMNS]; M];
    for (index, weights) in panel.as_chunks::<COLUMNS>().0.iter().enumerate() {
        for (row, sums) in sums.iter_mut().enumerate() {
            let x = rows.values[row * rows.stride + index * rows.step];
            for (sum, &weight) in sums.iter_mut().zip(weights) {
                *sum =
                    crate::math::multiply_add::<{ cfg!(target_arch = "aarch64") }>(x, weight, *sum);
            }
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        out[row * stride..][..COLUMNS].copy_from_slice(sums);
    }
}

fn portable_pairs<const M: usize>(x: Integers<'_, i16>, panel: &[i16], out: &mut [f32; TILE]) {
    const COLUMNS: usize = 8;
    let mut scaled = [[0.0_f32; COLUMNS]; M];
    for (group, lines) in panel.chunks(GROUP * COLUMNS).enumerate() {
        let mut sums = [[0_i32; COLUMNS]; M];
        for (index, weights) in lines.as_chunks::<{ 2 * COLUMNS }>().0.iter().enumerate() {
            for (row, sums) in sums.iter_mut().enumerate() {
                let first = row * x.rows.stride + group * GROUP + 2 * index;
                let pair = &x.rows.values[first..first + 2];
                let (first, second) = (i32::from(pair[0]), i32::from(pair[1]));
                for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
                    *sum += first * i32::from(weights[0]) + second * i32::from(weights[1]);
                }
            }
        }
        for (row, (scaled, sums)) in scaled.iter_mut().zip(sums).enumerate() {
            let scale = x.scales[row * x.groups + group];
            for (scaled, sum) in scaled.iter_mut().zip(sums) {
                *scaled += sum as f32 * scale;
            }
        }
    }
    for (out, scaled) in out.as_chunks_mut::<COLUMNS>().0.iter_mut().zip(scaled) {
        *out = scaled;
    }
}

/// Defines the kernel of floats of a level.
#[cfg(target_arch = "x86_64")]
macro_rules! float_kernel {
    ($name:ident, $features:literal, $lanes:literal, $vectors:literal, $load:ident, $store:ident, $splat:ident, $zero:ident, $multiply_add:ident) => {
        /// # Safety
        /// `M ≤ rows.count`, each row has `depth` values in its slice (`Rows::check`), `panel` has `depth` lines, and
        /// `M` rows of a line's length, `stride` apart, fit `out`.
        #[target_feature(enable = $features)]
        unsafe fn $name<const M: usize>(
            rows: Rows<'_, f32>,
            panel: &[f32],
            depth: usize,
            out: &mut [f32],
            stride: usize,
        ) {
            use std::arch::x86_64::{$load, $multiply_add, $splat, $store, $zero};
            const LANES: usize = $lanes;
            const VECTORS: usize = $vectors;

            let mut sums = [[$zero(); VECTORS]; M];
            let values = rows.values.as_ptr();
            let mut line = panel.as_ptr();
            for index in 0..depth {
                // SAFETY: `index < depth`: this line of the panel and this value of each of the `M` rows exist.
                unsafe {
                    let mut weights = [$zero(); VECTORS];
                    for (vector, weights) in weights.iter_mut().enumerate() {
                        *weights = $load(line.add(vector * LANES));
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let x = $splat(*values.add(row * rows.stride + index * rows.step));
                        for (sum, &weights) in sums.iter_mut().zip(&weights) {
                            *sum = $multiply_add(x, weights, *sum);
                        }
                    }
                    line = line.add(VECTORS * LANES);
                }
            }
            let out = out.as_mut_ptr();
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    // SAFETY: `row < M`: these values of `out` exist.
                    unsafe { $store(out.add(row * stride + vector * LANES), *sum) };
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
float_kernel! {
    avx512_floats, "avx512f", 16, 3,
    _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_fmadd_ps
}

#[cfg(target_arch = "x86_64")]
float_kernel! {
    avx512_narrow_floats, "avx512f", 16, 4,
    _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_fmadd_ps
}

#[cfg(target_arch = "x86_64")]
float_kernel! {
    avx2_narrow_floats, "avx2,fma", 8, 2,
    _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_fmadd_ps
}

#[cfg(target_arch = "x86_64")]
float_kernel! {
    avx2_floats, "avx2,fma", 8, 3,
    _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_fmadd_ps
}

/// # Safety
/// `M ≤ x.rows.count`, each row has `2 · depth` values in its slice (`Integers::check`), and `panel` has `depth` lines.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2_pairs<const M: usize>(
    x: Integers<'_, i16>,
    panel: &[i16],
    depth: usize,
    out: &mut [f32; TILE],
) {
    use std::arch::x86_64::{
        _mm256_add_epi32, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256,
        _mm256_storeu_ps,
    };
    /// Number of sums in a register.
    const LANES: usize = 8;
    const VECTORS: usize = 3;

    let (values, stride) = (x.rows.values.as_ptr(), x.rows.stride);
    let mut line = panel.as_ptr();
    out[..M * VECTORS * LANES].fill(0.0);
    for (group, first) in (0..depth).step_by(GROUP / 2).enumerate() {
        let mut sums = [[_mm256_setzero_si256(); VECTORS]; M];
        for index in first..depth.min(first + GROUP / 2) {
            // SAFETY: `index < depth`: this line of the panel and this pair of each of the `M` rows exist.
            unsafe {
                let mut weights = [_mm256_setzero_si256(); VECTORS];
                for (vector, weights) in weights.iter_mut().enumerate() {
                    *weights = _mm256_loadu_si256(line.add(vector * 2 * LANES).cast());
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let pair = values.add(row * stride + 2 * index).cast::<[u8; 4]>();
                    let pair = _mm256_set1_epi32(i32::from_ne_bytes(pair.read()));
                    for (sum, &weights) in sums.iter_mut().zip(&weights) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, weights));
                    }
                }
                line = line.add(VECTORS * 2 * LANES);
            }
        }
        let rows = out.as_chunks_mut::<{ VECTORS * LANES }>().0.iter_mut();
        for (row, (out, sums)) in rows.zip(sums).enumerate() {
            let scale = _mm256_set1_ps(x.scales[row * x.groups + group]);
            for (out, sum) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
                let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
                // SAFETY: `out` is an array of as many floats.
                unsafe {
                    let before = _mm256_loadu_ps(out.as_ptr());
                    _mm256_storeu_ps(out.as_mut_ptr(), _mm256_add_ps(before, scaled));
                }
            }
        }
    }
}

/// # Safety
/// `M ≤ x.rows.count`, each row has `4 · depth` values in its slice (`Integers::check`), `panel` has `depth` lines, and
/// `sums` has one line per group.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_bytes<const M: usize>(
    x: Integers<'_, u8>,
    panel: &[i8],
    sums_of_weights: &[f32],
    depth: usize,
    out: &mut [f32; TILE],
) {
    use std::arch::x86_64::{
        _mm512_add_ps, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fnmadd_ps, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_storeu_ps,
    };
    /// Number of sums in a register.
    const LANES: usize = 16;
    const VECTORS: usize = 3;

    let (values, stride) = (x.rows.values.as_ptr(), x.rows.stride);
    let mut line = panel.as_ptr();
    out[..M * VECTORS * LANES].fill(0.0);
    for (group, first) in (0..depth).step_by(GROUP / 4).enumerate() {
        let mut sums = [[_mm512_setzero_si512(); VECTORS]; M];
        for index in first..depth.min(first + GROUP / 4) {
            // SAFETY: `index < depth`: this line of the panel and these four values of each of the `M` rows exist.
            unsafe {
                let mut weights = [_mm512_setzero_si512(); VECTORS];
                for (vector, weights) in weights.iter_mut().enumerate() {
                    *weights = _mm512_loadu_si512(line.add(vector * 4 * LANES).cast());
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let four = values.add(row * stride + 4 * index).cast::<[u8; 4]>();
                    let four = _mm512_set1_epi32(i32::from_ne_bytes(four.read()));
                    for (sum, &weights) in sums.iter_mut().zip(&weights) {
                        *sum = _mm512_dpbusd_epi32(*sum, four, weights);
                    }
                }
                line = line.add(VECTORS * 4 * LANES);
            }
        }
        let mut of_weights = [_mm512_setzero_ps(); VECTORS];
        for (vector, of_weights) in of_weights.iter_mut().enumerate() {
            let first = (group * VECTORS + vector) * LANES;
            // SAFETY: `sums_of_weights` has a line for this group.
            *of_weights = unsafe { _mm512_loadu_ps(sums_of_weights.as_ptr().add(first)) };
        }
        let rows = out.as_chunks_mut::<{ VECTORS * LANES }>().0.iter_mut();
        for (row, (out, sums)) in rows.zip(sums).enumerate() {
            let note = row * x.groups + group;
            let (scale, zero) = (
                _mm512_set1_ps(x.scales[note]),
                _mm512_set1_ps(x.zeros[note] as f32),
            );
            let outs = out.as_chunks_mut::<LANES>().0.iter_mut();
            for ((out, sum), &of_weights) in outs.zip(sums).zip(&of_weights) {
                // Whole numbers below 2²⁴ ([`GROUP`]): exact in floats.
                let sum = _mm512_fnmadd_ps(zero, of_weights, _mm512_cvtepi32_ps(sum));
                let scaled = _mm512_mul_ps(sum, scale);
                // SAFETY: `out` is an array of as many floats.
                unsafe {
                    let before = _mm512_loadu_ps(out.as_ptr());
                    _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(before, scaled));
                }
            }
        }
    }
}
