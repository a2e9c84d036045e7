//! Kernels of 32-bit floats.

use super::Rows;

pub(super) fn portable_floats<const M: usize>(
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

/// Defines the kernel of floats of a level.
#[cfg(target_arch = "x86_64")]
macro_rules! float_kernel {
    ($name:ident, $features:literal, $lanes:literal, $vectors:literal, $load:ident, $store:ident, $splat:ident, $zero:ident, $multiply_add:ident) => {
        /// # Safety
        /// `M ≤ rows.count`, each row has `depth` values in its slice (`Rows::check`), `panel` has `depth` lines, and
        /// `M` rows of a line's length, `stride` apart, fit `out`.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name<const M: usize>(
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
