//! Compares packed linear layers with plain sums, at every level.

mod common;

use common::{assert_close, at_every_level, rounded_sums, values};
use zeg_kernels::{Activation, PackedLinear, Precision, Then};

/// Rows, inputs, outputs: one, odd, and slightly more or less than tiles, panels and blocks.
const SHAPES: [[usize; 3]; 9] = [
    [1, 1, 1],
    [3, 5, 7],
    [8, 48, 48],
    [9, 33, 49],
    [7, 4, 25],
    [13, 66, 200],
    [4, 129, 385],
    [265, 17, 50],
    [270, 31, 195],
];

/// Computes x·Wᵀ + b in double precision: `[rows, outputs]`.
fn plain(x: &[f32], weight: &[f32], bias: &[f32], inputs: usize) -> Vec<f32> {
    let row = |x: &[f32]| -> Vec<f32> {
        let output = |(weights, &bias): (&[f32], &f32)| {
            let products = x.iter().zip(weights);
            let sum: f64 = products.map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
            (sum + f64::from(bias)) as f32
        };
        weight.chunks(inputs).zip(bias).map(output).collect()
    };
    x.chunks(inputs).flat_map(row).collect()
}

struct Case {
    inputs: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Values of the output before the product.
    before: Vec<f32>,
}

impl Case {
    fn new([rows, inputs, outputs]: [usize; 3]) -> Self {
        Self {
            inputs,
            x: values(rows * inputs, 1),
            weight: values(outputs * inputs, 2),
            bias: values(outputs, 3),
            before: values(rows * outputs, 4),
        }
    }

    fn run(&self, precision: Precision, then: Then) -> Vec<f32> {
        let layer = PackedLinear::new(&self.weight, &self.bias, precision);
        let mut out = self.before.clone();
        layer.apply(&self.x, &mut out, then);
        out
    }

    /// Applies the operation `then` to these products.
    fn then(&self, products: Vec<f32>, then: Then) -> Vec<f32> {
        match then {
            Then::Store => products,
            Then::Add => products
                .iter()
                .zip(&self.before)
                .map(|(a, b)| a + b)
                .collect(),
            Then::Activate(activation) => {
                let device = burn::tensor::Device::flex();
                let x = burn::tensor::Tensor::<1>::from_floats(products.as_slice(), &device);
                common::host(match activation {
                    Activation::Sigmoid => zeg_kernels::composed::sigmoid(x),
                    Activation::QuickGelu => zeg_kernels::composed::quick_gelu(x),
                    Activation::Gelu => zeg_kernels::composed::gelu(x),
                })
            }
        }
    }
}

const THENS: [Then; 5] = [
    Then::Store,
    Then::Add,
    Then::Activate(Activation::Sigmoid),
    Then::Activate(Activation::QuickGelu),
    Then::Activate(Activation::Gelu),
];

#[test]
fn floats_agree_with_plain_sums() {
    at_every_level(|level| {
        for shape in SHAPES {
            let case = Case::new(shape);
            let products = plain(&case.x, &case.weight, &case.bias, case.inputs);
            for then in THENS {
                let found = case.run(Precision::Float, then);
                let expected = case.then(products.clone(), then);
                // Sums of up to 129 products are of order 10; their sigmoids are of order 1.
                let tolerance = match then {
                    Then::Activate(Activation::Sigmoid) => 2e-5,
                    _ => 2e-6,
                };
                assert_close(
                    &found,
                    &expected,
                    tolerance,
                    &format!("{level:?} {shape:?} {then:?}"),
                );
            }
        }
    });
}

/// Sums of integers are exact, so the results are bit-identical to those of the plain loop at every level.
#[test]
fn integers_are_exact_at_every_level() {
    at_every_level(|level| {
        for shape in SHAPES {
            let mut case = Case::new(shape);
            let last = case.x.len() - 1;
            case.x[last] = 300.0; // the precision of its group decreases, not that of other groups
            let found = case.run(Precision::Int8, Then::Store);
            let expected = rounded_sums(&case.x, &case.weight, &case.bias, case.inputs);
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let what = format!("{level:?} {shape:?} {at}");
                assert_eq!(found.to_bits(), expected.to_bits(), "{what}");
            }
            assert_eq!(found.len(), expected.len());
        }
    });
}

/// Rounds to bf16 by way of decimal-free arithmetic: the upper half of the bits, ties to even.
fn to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let (low, half) = (bits & 0xffff, 0x8000);
    let kept = bits & 0xffff_0000;
    let up = low > half || (low == half && kept & 0x1_0000 != 0);
    f32::from_bits(if up { kept + 0x1_0000 } else { kept })
}

/// The sum of a row's products adds those of each pair in turn, the second first, at every level.
#[test]
fn bf16_sums_have_the_same_bits_at_every_level() {
    at_every_level(|level| {
        for shape in SHAPES {
            let case = Case::new(shape);
            let found = case.run(Precision::Bf16, Then::Store);
            let sum = |x: &[f32], weights: &[f32]| -> f32 {
                let pairs = x.chunks(2).zip(weights.chunks(2));
                pairs.fold(0.0, |sum, (x, weights)| {
                    let products = x.iter().zip(weights).rev();
                    products.fold(sum, |sum, (&x, &w)| sum + to_bf16(x) * to_bf16(w))
                })
            };
            let outputs = || case.weight.chunks(case.inputs).zip(&case.bias);
            let rows = case.x.chunks(case.inputs);
            let expected = rows.flat_map(|x| outputs().map(move |(w, bias)| sum(x, w) + bias));
            let expected: Vec<u32> = expected.map(f32::to_bits).collect();
            let found: Vec<u32> = found.into_iter().map(f32::to_bits).collect();
            assert!(found == expected, "{level:?} {shape:?}");
        }
    });
}

#[test]
fn int8_results_are_close_to_floats() {
    at_every_level(|level| {
        for then in [Then::Store, Then::Add] {
            let case = Case::new([13, 66, 200]);
            let found = case.run(Precision::Int8, then);
            let expected = case.run(Precision::Float, then);
            assert_close(&found, &expected, 0.03, &format!("{level:?} {then:?}"));
        }
    });
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let case = Case::new([270, 31, 195]);
    for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
        let runs = [1, 2, 3, 7].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| case.run(precision, Then::Activate(Activation::QuickGelu)))
        });
        assert!(runs.iter().all(|run| *run == runs[0]), "{precision:?}");
    }
}

/// A row's result does not depend on the rows that are computed with it.
#[test]
fn a_row_does_not_depend_on_other_rows() {
    at_every_level(|level| {
        for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
            let case = Case::new([21, 30, 70]);
            let together = case.run(precision, Then::Store);
            let layer = PackedLinear::new(&case.weight, &case.bias, precision);
            for (x, expected) in case.x.chunks(30).zip(together.chunks(70)) {
                let mut alone = vec![0.0; 70];
                layer.apply(x, &mut alone, Then::Store);
                assert_eq!(alone, expected, "{level:?} {precision:?}");
            }
        }
    });
}

/// NaN and infinite values remain visible in the result, and rows of zeros work like others.
#[test]
fn rows_of_zeros_nan_and_infinities() {
    at_every_level(|level| {
        for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
            let mut case = Case::new([4, 40, 50]);
            case.x[..40].fill(0.0);
            case.x[41] = f32::NAN;
            case.x[85] = f32::INFINITY;
            case.weight[..40].fill(0.0);
            let found = case.run(precision, Then::Store);
            let what = format!("{level:?} {precision:?}");
            assert_eq!(found[..50], case.bias, "{what}: zeros");
            assert!(found[50..100].iter().all(|y| y.is_nan()), "{what}: NaN");
            assert!(
                found[101..150].iter().all(|y| !y.is_finite()),
                "{what}: infinite"
            );
            assert!(found[150..].iter().all(|y| y.is_finite()), "{what}: others");
        }
    });
}

#[test]
#[should_panic(expected = "6 input and 4 output values do not fit a layer 2→2")]
fn lengths_that_do_not_fit_are_refused() {
    let layer = PackedLinear::new(&[1.0; 4], &[0.0; 2], Precision::Float);
    layer.apply(&[0.0; 6], &mut [0.0; 4], Then::Store);
}

/// An input without rows gives an empty result.
#[test]
fn no_rows() {
    for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
        let layer = PackedLinear::new(&[1.0; 4], &[0.0; 2], precision);
        layer.apply(&[], &mut [], Then::Store);
    }
}
