//! Scalar functions that the compiler vectorises: no branches, no calls, no tables.
//!
//! Each takes `const FMA`, whether multiply-add is one fast instruction; otherwise multiply-add would be a call into
//! the C library, which would cost more than everything else.

/// Number of partial sums in a reduction: two registers of the widest level, four of AVX2. The number is the same at
/// every level, so the order of a sum is the same, too.
pub(crate) const LANES: usize = 32;

/// Computes `a·b + c`.
#[inline(always)]
pub(crate) fn multiply_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Computes eˣ, within 2 units in the last place; returns 0 below −87.3, and the value at 88.3 above it. NaN stays NaN.
///
/// x = n·ln 2 + r with |r| ≤ ½ ln 2; the polynomial for eʳ is that of Cephes' `expf`, and 2ⁿ is made from its bits.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -87.3;
    const HIGHEST: f32 = 88.3;
    // ln 2 in two parts; products of the first with small integers are exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // The last bits of 1.5·2²³ are integers: adding it rounds, and leaves n + 127 in the low bits.
    const ROUND: f32 = 12_582_912.0 + 127.0;

    // NaN fails these comparisons, so it is preserved.
    let bounded = if x > HIGHEST { HIGHEST } else { x };
    let bounded = if bounded < LOWEST { LOWEST } else { bounded };
    let shifted = multiply_add::<FMA>(bounded, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = multiply_add::<FMA>(n, -LN_2_HIGH, bounded);
    let r = multiply_add::<FMA>(n, -LN_2_LOW, r);

    let p = multiply_add::<FMA>(r, 1.987_569_1e-4, 1.398_199_9e-3);
    let p = multiply_add::<FMA>(p, r, 8.333_452e-3);
    let p = multiply_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = multiply_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = multiply_add::<FMA>(p, r, 5e-1);
    let p = multiply_add::<FMA>(p, r * r, r) + 1.0;

    let power = f32::from_bits(shifted.to_bits() << 23);
    if x < LOWEST { 0.0 } else { p * power }
}

/// Computes σ(x) = 1 / (1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FMA>(-x))
}

/// Computes ln(1 + u) for u from 0 to 1, within 2 units in the last place.
///
/// Above √2 − 1 the argument is halved: ln(1 + u) = ln 2 + ln(1 + (u − 1)/2). The polynomial is that of Cephes' `logf`.
#[inline(always)]
pub(crate) fn log_1_plus<const FMA: bool>(u: f32) -> f32 {
    let above = u > std::f32::consts::SQRT_2 - 1.0;
    let (y, base) = if above {
        (0.5 * (u - 1.0), std::f32::consts::LN_2)
    } else {
        (u, 0.0)
    };
    let p = multiply_add::<FMA>(y, 7.037_683_6e-2, -1.151_461e-1);
    let p = multiply_add::<FMA>(p, y, 1.167_699_9e-1);
    let p = multiply_add::<FMA>(p, y, -1.242_014_1e-1);
    let p = multiply_add::<FMA>(p, y, 1.424_932_3e-1);
    let p = multiply_add::<FMA>(p, y, -1.666_805_8e-1);
    let p = multiply_add::<FMA>(p, y, 2.000_071_5e-1);
    let p = multiply_add::<FMA>(p, y, -2.499_999_4e-1);
    let p = multiply_add::<FMA>(p, y, 3.333_333e-1);
    let square = y * y;
    base + (y + multiply_add::<FMA>(p * y, square, -0.5 * square))
}

/// Returns the normal distribution Φ(x) and its density φ(x).
///
/// The error function in Φ is formula 7.1.26 of Abramowitz and Stegun, within 1.5·10⁻⁷.
#[inline(always)]
pub(crate) fn normal<const FMA: bool>(x: f32) -> (f32, f32) {
    const INVERSE_SQRT_2_PI: f32 = 0.398_942_3;
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / multiply_add::<FMA>(z, 0.327_591_1, 1.0);
    let p = multiply_add::<FMA>(t, 1.061_405_4, -1.453_152_1);
    let p = multiply_add::<FMA>(p, t, 1.421_413_8);
    let p = multiply_add::<FMA>(p, t, -0.284_496_72);
    let p = multiply_add::<FMA>(p, t, 0.254_829_6) * t;
    let bell = exp::<FMA>(-z * z);
    let tail = 0.5 * p * bell; // 1 − Φ(|x|)
    let distribution = if x < 0.0 { tail } else { 1.0 - tail };
    (distribution, bell * INVERSE_SQRT_2_PI)
}

/// Returns the sum of `f` over values, in a fixed order.
#[inline(always)]
pub(crate) fn sum_of(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f(value);
    }
    total(lanes)
}

/// Returns the sum of `f` over pairs of values, in a fixed order.
#[inline(always)]
pub(crate) fn sum_of_pairs(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a, b);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += f(a, b);
    }
    total(lanes)
}

/// Returns the maximum of the values; NaN is ignored.
#[inline(always)]
pub(crate) fn maximum(values: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = greater(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = greater(*lane, value);
    }
    lanes.into_iter().fold(f32::NEG_INFINITY, greater)
}

/// Returns the sum of the lanes; the two halves are added first.
#[inline(always)]
pub(crate) fn total(lanes: [f32; LANES]) -> f32 {
    let mut lanes = lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // whole numbers, exact in any order of sums
mod tests {
    use super::*;

    /// Returns values over the whole range, dense where the functions bend.
    fn samples() -> impl Iterator<Item = f32> {
        (-8800..=8800)
            .map(|i| i as f32 * 0.01)
            .chain((-4000..=4000).map(|i| i as f32 * 0.001))
    }

    fn check_exp<const FMA: bool>() {
        for x in samples().filter(|x| (-87.2..88.2).contains(x)) {
            let exact = f64::from(x).exp();
            let error = (f64::from(exp::<FMA>(x)) - exact).abs() / exact;
            assert!(error < 2.0 * f64::from(f32::EPSILON), "{x}: {error:e}");
        }
        assert_eq!(exp::<FMA>(0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(exp::<FMA>(f32::NEG_INFINITY).to_bits(), 0);
        assert!(exp::<FMA>(f32::INFINITY) > 1e38);
        assert!(exp::<FMA>(f32::NAN).is_nan());
    }

    #[test]
    fn exp_is_within_two_units_of_the_last_place() {
        check_exp::<true>();
        check_exp::<false>();
    }

    /// The reference is Simpson's rule on the density, in double precision.
    #[test]
    fn the_normal_distribution_is_the_integral_of_its_density() {
        let density = |x: f64| (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (mut integral, step) = (0.0, 1e-3);
        for i in 0..6000 {
            let x = f64::from(i) * step;
            for (sign, exact) in [(1.0, 0.5 + integral), (-1.0, 0.5 - integral)] {
                let (p, d) = normal::<false>((sign * x) as f32);
                assert!((f64::from(p) - exact).abs() < 3e-7, "{x} {p} {exact}");
                assert!((f64::from(d) - density(x)).abs() < 1e-7, "{x} {d}");
            }
            let middle = density(x + 0.5 * step);
            integral += step / 6.0 * (density(x) + 4.0 * middle + density(x + step));
        }
    }

    #[test]
    fn reductions_agree_with_plain_loops_at_every_length() {
        for length in [0, 1, 5, 31, 32, 33, 64, 100] {
            let a: Vec<f32> = (0..length).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
            let b: Vec<f32> = a.iter().rev().copied().collect();
            assert_eq!(sum_of(&a, |v| v), a.iter().sum::<f32>());
            let products: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            assert_eq!(sum_of_pairs(&a, &b, |a, b| a * b), products);
            let greatest = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(maximum(&a), greatest);
        }
    }
}
