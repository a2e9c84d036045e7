//! Kernels of bf16, by the instruction that adds two products of bf16 to a 32-bit float.
//!
//! For each pair the instruction adds the product of the second values, rounds, adds the product of the first values,
//! and rounds. Products of bf16 are exact in 32-bit floats. So the kernels of floats give the same bits if they read
//! rounded operands with the values of each pair swapped (tests/linear.rs).

use super::Rows;

/// Defines a kernel of bf16 with a number of registers per line.
macro_rules! half_kernel {
    ($name:ident, $vectors:literal) => {
        /// # Safety
        /// `M ≤ rows.count`, each row has `depth` pairs in its slice (`Rows::check_parts`), `panel` has `depth` lines,
        /// and `M` rows of a line's length, `stride` apart, fit `out`.
        #[target_feature(enable = "avx512f,avx512bf16")]
        pub(super) unsafe fn $name<const M: usize>(
            rows: Rows<'_, u16>,
            panel: &[u16],
            depth: usize,
            out: &mut [f32],
            stride: usize,
        ) {
            use std::arch::x86_64::{
                __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32,
                _mm512_setzero_ps, _mm512_setzero_si512, _mm512_storeu_ps,
            };
            /// Number of sums in a register.
            const LANES: usize = 16;
            const VECTORS: usize = $vectors;

            let halves = |x: __m512i| {
                // SAFETY: both types are 512 bits, and every pattern of bits is valid in both.
                unsafe { std::mem::transmute::<__m512i, __m512bh>(x) }
            };
            let mut sums = [[_mm512_setzero_ps(); VECTORS]; M];
            let values = rows.values.as_ptr();
            let mut line = panel.as_ptr();
            for index in 0..depth {
                // SAFETY: `index < depth`: this line of the panel and this pair of each of the `M` rows exist.
                unsafe {
                    let mut weights = [_mm512_setzero_si512(); VECTORS];
                    for (vector, weights) in weights.iter_mut().enumerate() {
                        *weights = _mm512_loadu_si512(line.add(vector * 2 * LANES).cast());
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let pair = values
                            .add(row * rows.stride + 2 * index * rows.step)
                            .cast::<[u8; 4]>();
                        let pair = _mm512_set1_epi32(i32::from_ne_bytes(pair.read()));
                        for (sum, &weights) in sums.iter_mut().zip(&weights) {
                            *sum = _mm512_dpbf16_ps(*sum, halves(pair), halves(weights));
                        }
                    }
                    line = line.add(VECTORS * 2 * LANES);
                }
            }
            let out = out.as_mut_ptr();
            for (row, sums) in sums.iter().enumerate() {
                for (vector, sum) in sums.iter().enumerate() {
                    // SAFETY: `row < M`: these values of `out` exist.
                    unsafe { _mm512_storeu_ps(out.add(row * stride + vector * LANES), *sum) };
                }
            }
        }
    };
}

half_kernel! { avx512_halves, 3 }
half_kernel! { avx512_narrow_halves, 4 }
