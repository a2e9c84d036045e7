//! Rounding to bf16, the upper half of a 32-bit float: 8 bits of exponent, 8 of precision.

use crate::level::dispatched;

/// Returns the nearest bf16, ties to even; NaN stays NaN. Values below the smallest normal number (1.2·10⁻³⁸) become 0,
/// as the processors' instructions treat them.
#[inline(always)]
pub(crate) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    let nearest = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let kept = if x.is_nan() {
        bits | 0x40_0000
    } else {
        nearest
    };
    let kept = if x.abs() < f32::MIN_POSITIVE { 0 } else { kept };
    (kept >> 16) as u16
}

/// Returns the value of a bf16.
#[inline(always)]
pub(crate) fn value(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

dispatched! {
    /// Rounds values.
    pub(crate) fn round_values(x: &[f32], out: &mut [u16]) = round_values_kernel;
}
dispatched! {
    /// Rounds values, but keeps them as 32-bit floats, with the two values of each pair swapped. A last value without
    /// a partner is paired with 0.
    pub(crate) fn round_swapped(x: &[f32], out: &mut [f32]) = round_swapped_kernel;
}

#[inline(always)]
fn round_values_kernel<const FMA: bool>(x: &[f32], out: &mut [u16]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = round(x);
    }
}

#[inline(always)]
fn round_swapped_kernel<const FMA: bool>(x: &[f32], out: &mut [f32]) {
    let (pairs, rest) = x.as_chunks::<2>();
    let (out, _) = out.as_chunks_mut::<2>();
    for (out, pair) in out.iter_mut().zip(pairs) {
        *out = [value(round(pair[1])), value(round(pair[0]))];
    }
    if let ([last], Some(out)) = (rest, out.get_mut(pairs.len())) {
        *out = [0.0, value(round(*last))];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    #[test]
    fn values_become_the_nearest_bf16() {
        let cases = [
            (1.0, 0x3f80),
            (1.003_906_2, 0x3f80), // halfway: to even
            (1.011_718_8, 0x3f82), // halfway: to even
            (1.004, 0x3f81),
            (-std::f32::consts::PI, 0xc049),
            (f32::MAX, 0x7f80),
            (f32::INFINITY, 0x7f80),
            (f32::NEG_INFINITY, 0xff80),
            (1e-40, 0),
            (0.0, 0),
        ];
        for (x, expected) in cases {
            assert_eq!(round(x), expected, "{x}");
        }
        assert!(value(round(f32::NAN)).is_nan());
        assert!(value(round(f32::from_bits(0x7f80_0001))).is_nan());
    }

    #[test]
    fn pairs_are_swapped_and_a_last_value_is_padded() {
        let mut out = [9.0; 4];
        round_swapped(Level::current(), &[1.0, 2.0, 3.0], &mut out);
        assert_eq!(
            out.map(f32::to_bits),
            [2.0, 1.0, 0.0, 3.0].map(f32::to_bits)
        );
    }
}
