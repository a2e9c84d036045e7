//! Products of a few rows with one panel of packed weights: the inner loops of the linear layers.
//!
//! A tile of the result stays in registers while both operands are read once, so the time is spent on multiply-adds and
//! not on loads. A tile has 8 rows by 48 columns or 6 by 64 with AVX-512's 32 registers, 4 by 24 or 6 by 16 with AVX2's
//! 16 registers, and 4 by 8 where only the compiler's own vectors are available. A sum runs over the inputs in order,
//! regardless of its tile.
//!
//! This file holds the checks that the kernels' pointers rely on; the kernels are in the modules `floats`,
//! `halves` and `integers`.
//!
//! Panels of floats are `[in][columns]`. Panels of 8-bit weights are `[in / 4][columns][4]` bytes for the instruction
//! that sums four products of bytes (VNNI), and `[in / 2][columns][2]` 16-bit integers elsewhere. Panels of bf16 are
//! `[in / 2][columns][2]`.

use super::quantized::GROUP;
use crate::level::{Instructions, Level};
use floats::portable_floats;
#[cfg(target_arch = "x86_64")]
use floats::{avx2_floats, avx2_narrow_floats, avx512_floats, avx512_narrow_floats};
#[cfg(target_arch = "x86_64")]
use halves::{avx512_halves, avx512_narrow_halves};
use integers::portable_pairs;
#[cfg(target_arch = "x86_64")]
use integers::{avx2_pairs, avx512_bytes};

mod floats;
#[cfg(target_arch = "x86_64")]
mod halves;
mod integers;

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
            Instructions::Avx512 | Instructions::Avx512Bf16 => (8, 48),
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
            Instructions::Avx512 | Instructions::Avx512Bf16 => (6, 64),
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
            Instructions::Avx2 | Instructions::Avx512 | Instructions::Avx512Bf16 => (4, 24),
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
    /// Distance from one value of a row to the next, or of bf16 from one pair to the next in pairs; 1 except for floats
    /// and bf16.
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

    /// Returns the same rows with their values, or their pairs of bf16, `step` apart.
    pub(crate) fn with_step(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// Checks what the kernels' pointers rely on: there is at least one row, and each has `length` values in the slice.
    fn check(&self, length: usize) {
        self.check_parts(length, 1);
    }

    /// Checks as [`Rows::check`] does that each row has `count` parts of `size` values in the slice, `step` parts apart.
    fn check_parts(&self, count: usize, size: usize) {
        let last = (self.count.wrapping_sub(1)).checked_mul(self.stride);
        let along = count.checked_sub(1).map_or(Some(0), |steps| {
            let parts = steps.checked_mul(self.step)?.checked_add(1)?;
            parts.checked_mul(size)
        });
        let end = last
            .zip(along)
            .and_then(|(last, along)| last.checked_add(along));
        assert!(
            self.count > 0 && end.is_some_and(|end| end <= self.values.len()),
            "{} rows of {count} × {size} values, {} apart, do not fit {}",
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
        (Instructions::Avx512 | Instructions::Avx512Bf16, 48) => unsafe {
            by_rows!(avx512_floats, rows, rows, panel, depth, out, stride);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        (Instructions::Avx512 | Instructions::Avx512Bf16, 64) => unsafe {
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
        Instructions::Avx2 | Instructions::Avx512 | Instructions::Avx512Bf16 => unsafe {
            by_four_rows!(avx2_pairs, rows, x, panel, depth, out);
        },
    }
}

/// Writes rows · panel to `out` as [`floats()`] does, for bf16 in pairs; see the module `halves` for the order of a sum.
///
/// # Panics
/// Panics as [`floats()`] does, or if the level has no instruction for bf16 ([`Level::has_bf16`]).
#[cfg(target_arch = "x86_64")]
pub(crate) fn halves(
    level: Level,
    shape: TileShape,
    rows: Rows<'_, u16>,
    panel: &[u16],
    (out, stride): (&mut [f32], usize),
) {
    let depth = panel.len() / (2 * shape.columns);
    assert!(
        rows.count <= shape.rows,
        "{} rows exceed a tile",
        rows.count
    );
    rows.check_parts(depth, 2);
    Rows::new(out, stride, rows.count).check(shape.columns);
    match (level.instructions(), shape.columns) {
        // SAFETY: here and below, the level says that this machine has the instructions. The kernel reads `depth`
        // pairs of each of its rows, no more than `rows.count`, and `depth` lines of the panel, and writes as many rows
        // of a line's length to `out`: all were checked above.
        (Instructions::Avx512Bf16, 48) => unsafe {
            by_rows!(avx512_halves, rows, rows, panel, depth, out, stride);
        },
        // SAFETY: as above.
        (Instructions::Avx512Bf16, 64) => unsafe {
            by_rows!(avx512_narrow_halves, rows, rows, panel, depth, out, stride);
        },
        (instructions, columns) => {
            unreachable!("{instructions:?} has no tile of bf16 with {columns} columns")
        }
    }
}

/// Returns whether [`bytes`] can run at a level.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_bytes(level: Level) -> bool {
    match level.instructions() {
        Instructions::Avx512Bf16 => true,
        Instructions::Avx512 => is_x86_feature_detected!("avx512vnni"),
        _ => false,
    }
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
