//! Kernels of integers: 16-bit ones in pairs, and bytes in fours.

use super::{Integers, TILE};
use crate::linear::quantized::GROUP;

pub(super) fn portable_pairs<const M: usize>(
    x: Integers<'_, i16>,
    panel: &[i16],
    out: &mut [f32; TILE],
) {
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

/// # Safety
/// `M ≤ x.rows.count`, each row has `2 · depth` values in its slice (`Integers::check`), and `panel` has `depth` lines.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2_pairs<const M: usize>(
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
pub(super) unsafe fn avx512_bytes<const M: usize>(
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
