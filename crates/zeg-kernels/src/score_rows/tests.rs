//! Compares every level with plain formulas, to the bit.

use super::*;

fn noise(count: usize) -> Vec<f32> {
    let values = (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) >> 8);
    values.map(|value| value as f32 / 1e6 - 8.0).collect()
}

/// Every level gives the numbers of the plain formula, to the bit.
#[test]
fn every_level_interpolates_as_the_formula_does() {
    let (classes, length, stride) = (3, 6, 40);
    let (top, bottom) = (noise(classes * length), noise(2 * classes * length));
    let bottom = &bottom[classes * length..];
    for per_cell in [1, 2, 7, 16] {
        let taps: Vec<(usize, usize, f32)> = (0..37)
            .map(|x| {
                let low = (x / per_cell) % length;
                (low, (low + 1).min(length - 1), (x % 5) as f32 * 0.19)
            })
            .collect();
        let columns = Columns::new(taps.iter().copied());
        let rows = RowPair {
            top: &top,
            bottom,
            length,
            stride: length,
            fraction: 0.3,
        };
        for level in Level::available() {
            let mut out = vec![7.0; classes * stride];
            interpolate(level, &rows, &columns, &mut out, stride);
            for class in 0..classes {
                let at = |x: usize| {
                    let index = class * length + x;
                    top[index] * (1.0 - 0.3) + bottom[index] * 0.3
                };
                for (x, &(low, high, fraction)) in taps.iter().enumerate() {
                    let expected = at(low) * (1.0 - fraction) + at(high) * fraction;
                    let found = out[class * stride + x];
                    assert_eq!(found.to_bits(), expected.to_bits(), "{level:?} {per_cell}");
                }
                let beyond = out[class * stride + taps.len()];
                assert_eq!(beyond.to_bits(), 7.0_f32.to_bits(), "{level:?}");
            }
        }
    }
}

#[test]
fn the_best_class_is_the_first_of_the_highest_at_every_width() {
    let (classes, stride) = (9, 50);
    let mut scores = noise(classes * stride);
    for x in 0..stride {
        scores[4 * stride + x] = scores[2 * stride + x]; // ties
        scores[stride + x] = if x % 3 == 0 { f32::NAN } else { 9.0 };
    }
    let lowered = [0.0, 1.5, 0.0, 0.25, 0.0, 0.0, 3.0, 0.0, 0.0];
    for width in [1, 15, 16, 17, 48, 50] {
        for level in Level::available() {
            let (mut best, mut found) = (vec![0.0; width], vec![9; width]);
            best_classes(level, &scores, stride, &lowered, &mut best, &mut found);
            for x in 0..width {
                let mut expected = (f32::NEG_INFINITY, 0);
                for class in 0..classes {
                    let score = scores[class * stride + x] - lowered[class];
                    if score > expected.0 {
                        expected = (score, class as u16);
                    }
                }
                assert_eq!((best[x], found[x]), expected, "{level:?} {width} {x}");
            }
        }
    }
}

/// Labels and scores stay what they were with the C library's function.
#[test]
fn exponentials_are_those_of_the_library_to_the_bit() {
    let mut x: Vec<f32> = (0..2_000_000_u32)
        .map(|i| i.wrapping_mul(2_654_435_761))
        .map(|hash| (hash >> 8) as f32 / (1 << 24) as f32 * 200.0 - 105.0)
        .collect();
    x.extend((0..200_000).map(|i| f32::from_bits(i * 21_001)));
    x.extend([
        0.0,
        -0.0,
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
    ]);
    x.extend([f32::MIN, 87.0, -87.0, 88.7, -103.9, 1e-45]);
    for level in Level::available() {
        let mut found = x.clone();
        exponentials(level, &mut found);
        for (x, found) in x.iter().zip(&found) {
            assert_eq!(found.to_bits(), x.exp().to_bits(), "{level:?} {x:e}");
        }
    }
}

#[test]
fn weighted_shares_are_added_query_after_query() {
    let (classes, queries, length, stride, first) = (5, 7, 21, 30, 4);
    let (shares, weights) = (noise(queries * length), noise(queries * classes));
    for level in Level::available() {
        let mut sums = noise(classes * stride);
        let before = sums.clone();
        add_weighted(level, &mut sums, stride, first, &shares, length, &weights);
        for (index, (&sum, &before)) in sums.iter().zip(&before).enumerate() {
            let (class, x) = (index / stride, index % stride);
            let mut expected = before;
            if (first..first + length).contains(&x) {
                for query in 0..queries {
                    expected +=
                        weights[query * classes + class] * shares[query * length + x - first];
                }
            }
            assert_eq!(sum.to_bits(), expected.to_bits(), "{level:?}");
        }
    }
}
