//! Tests of packed linear layers: floats against double precision, integers against their documented sums.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use zeg_kernels::{Activation, PackedLinear, Precision, Then};

use crate::{
    common::{at_every_level, rounded_sums, values, with_gradients},
    compare::Pinned,
    reference::{Linear, activation, add, wide},
};

/// The limits of results and of gradients.
struct Limits {
    out: f64,
    gradient: f64,
}

/// Limits at the sizes of a block. Measured: AVX-512 and AVX2 6.5e-6 and 7.5e-6, portable 6.5e-6 and 8.7e-6.
const FULL: Limits = Limits {
    out: 2e-5,
    gradient: 3e-5,
};
/// Limits of sums of at most 193 products. Measured: AVX-512 and AVX2 1.8e-6 and 1.7e-6, portable 1.8e-6 and 1.5e-6.
const TAILS: Limits = Limits {
    out: 5e-6,
    gradient: 5e-6,
};

/// A layer's parameters and inputs.
struct Case {
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Values of the output before the product.
    before: Vec<f32>,
}

impl Case {
    fn new([rows, inputs, outputs]: [usize; 3]) -> Self {
        let scale = (inputs as f32).sqrt().recip();
        let weight = values(outputs * inputs, 2).into_iter().map(|w| w * scale);
        Self {
            rows,
            inputs,
            outputs,
            x: values(rows * inputs, 1),
            weight: weight.collect(),
            bias: values(outputs, 3),
            before: values(rows * outputs, 4),
        }
    }

    /// Returns the limits for its size.
    fn limits(&self) -> Limits {
        if self.inputs < 768 { TAILS } else { FULL }
    }

    /// Returns the rows whose results are compared: all of few rows; of many, those around blocks of 264 and the last
    /// ones.
    fn sample(&self) -> Vec<usize> {
        let near =
            |row: usize| row < 9 || row + 20 > self.rows || matches!(row % 264, 0 | 1 | 262 | 263);
        (0..self.rows)
            .filter(|&row| self.rows * self.inputs * self.outputs < 1 << 26 || near(row))
            .collect()
    }

    /// Computes the packed layer's result.
    fn run(&self, precision: Precision, then: Then) -> Vec<f32> {
        let layer = PackedLinear::new(&self.weight, &self.bias, precision);
        let mut out = self.before.clone();
        layer.apply(&self.x, &mut out, then);
        out
    }

    /// Computes the expected rows of the sample.
    fn expected(&self, then: Then) -> Vec<f64> {
        let sample = self.sample();
        let layer = Linear::new(&self.weight, &self.bias);
        let mut out = layer.forward(&wide(&rows(&self.x, self.inputs, &sample)));
        match then {
            Then::Store => {}
            Then::Add => add(&mut out, &wide(&rows(&self.before, self.outputs, &sample))),
            Then::Activate(kind) => out.iter_mut().for_each(|x| *x = activation(kind, *x).0),
        }
        out
    }

    /// Checks the result against its limits at every level.
    fn pin(&self, then: Then) {
        let expected = self.expected(then);
        let sample = self.sample();
        at_every_level(|level| {
            let found = self.run(Precision::Float, then);
            Pinned {
                what: &self.what(&format!("{level:?} linear"), &format!("{then:?}")),
                found: &rows(&found, self.outputs, &sample),
                expected: &expected,
                row: self.outputs,
                head: None,
                limit: self.limits().out,
            }
            .holds();
        });
    }

    fn what(&self, what: &str, then: &str) -> String {
        format!(
            "{what} {}×{}→{} {then}",
            self.rows, self.inputs, self.outputs
        )
    }
}

/// Returns some rows of a matrix.
fn rows(matrix: &[f32], columns: usize, which: &[usize]) -> Vec<f32> {
    let row = |&row: &usize| matrix[row * columns..][..columns].iter().copied();
    which.iter().flat_map(row).collect()
}

#[test]
fn at_the_sizes_of_a_block() {
    for (shape, then) in [
        ([1035, 768, 2304], Then::Store),
        ([1035, 768, 768], Then::Add),
        ([1035, 768, 3072], Then::Activate(Activation::QuickGelu)),
        ([1051, 768, 3072], Then::Activate(Activation::Gelu)),
        ([1051, 3072, 768], Then::Add),
    ] {
        Case::new(shape).pin(then);
    }
}

/// Tiles have 4 or 8 rows and 8, 24 or 48 columns; blocks have 4 panels and at most 264 rows.
#[test]
fn around_tiles_and_blocks() {
    for rows in [3, 4, 5, 7, 8, 9, 263, 264, 265, 527, 528, 529] {
        for outputs in [7, 8, 9, 23, 24, 25, 47, 48, 49, 95, 96, 97, 191, 192, 193] {
            Case::new([rows, 97, outputs]).pin(Then::Store);
        }
    }
}

#[test]
fn gradients() {
    let device = Device::flex().autodiff();
    for shape in [
        [1035, 768, 2304],
        [1051, 3072, 768],
        [265, 191, 97],
        [264, 192, 96],
        [263, 193, 95],
        [9, 49, 25],
        [8, 48, 24],
        [7, 47, 23],
    ] {
        let case = Case::new(shape);
        let sample = case.sample();
        let [count, inputs, outputs] = shape;
        let weights = values(count * outputs, 99); // those of `with_gradients`
        let layer = Linear::new(&case.weight, &case.bias);
        let expected = layer.backward(&wide(&rows(&weights, outputs, &sample)));
        let expected_out = case.expected(Then::Store);
        let x = Tensor::<2>::from_data(TensorData::new(case.x.clone(), [count, inputs]), &device);
        at_every_level(|level| {
            let layer = Arc::new(PackedLinear::with_gradient(
                &case.weight,
                &case.bias,
                Precision::Float,
            ));
            let (out, [gradient]) = with_gradients([x.clone()], |[x]| layer.forward(x));
            for (part, found, row, expected, limit) in [
                ("result", &out, outputs, &expected_out, case.limits().out),
                (
                    "gradient",
                    &gradient,
                    inputs,
                    &expected,
                    case.limits().gradient,
                ),
            ] {
                Pinned {
                    what: &case.what(&format!("{level:?} linear"), part),
                    found: &rows(found, row, &sample),
                    expected,
                    row,
                    head: None,
                    limit,
                }
                .holds();
            }
        });
    }
}

/// Integers give the bits of the plain loops, and results within half a step of every weight and input of the exact
/// product ([`Precision::Int8`]).
#[test]
fn integers() {
    for shape in [
        [1035, 768, 2304],
        [1051, 768, 3072],
        [1051, 3072, 768],
        [265, 95, 49],
        [264, 96, 48],
        [263, 97, 47],
        [9, 191, 25],
        [8, 192, 24],
        [7, 193, 23],
    ] {
        let case = Case::new(shape);
        let sample = case.sample();
        let x = rows(&case.x, case.inputs, &sample);
        let expected = rounded_sums(&x, &case.weight, &case.bias, case.inputs);
        let exact = case.expected(Then::Store);
        let bounds = bounds(&x, &case.weight, case.inputs);
        at_every_level(|level| {
            let found = rows(
                &case.run(Precision::Int8, Then::Store),
                case.outputs,
                &sample,
            );
            let what = case.what(&format!("{level:?} int8"), "");
            let mut closest = 0.0_f64;
            for (at, found) in found.iter().enumerate() {
                assert_eq!(
                    found.to_bits(),
                    expected[at].to_bits(),
                    "{what}, value {at}"
                );
                let distance = (f64::from(*found) - exact[at]).abs();
                closest = closest.max(distance / bounds[at]);
            }
            println!("measured {closest:.2} of the bound, {what}");
            assert!(closest <= 1.0, "{what}: {closest} of the bound");
        });
    }
}

/// Returns how far the result of integers may be from the exact one: Σ |w|·r/2 + |x|·s/2 + r·s/4 over the inputs, with
/// the steps r of the input's group and s of the output's weights, and a small addition for the sums of floats.
fn bounds(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f64> {
    let most = |values: &[f32]| {
        values
            .iter()
            .fold(0.0_f64, |most, &v| most.max(f64::from(v).abs()))
    };
    let mut bounds = Vec::new();
    for x in x.chunks_exact(inputs) {
        let steps: Vec<f64> = x
            .chunks(96)
            .flat_map(|group| {
                let low = group.iter().fold(0.0_f64, |low, &x| low.min(f64::from(x)));
                let high = group
                    .iter()
                    .fold(0.0_f64, |high, &x| high.max(f64::from(x)));
                std::iter::repeat_n((high - low) / 255.0, group.len())
            })
            .collect();
        for weight in weight.chunks_exact(inputs) {
            let s = most(weight) / 127.0;
            let terms = x.iter().zip(weight).zip(&steps).map(|((&x, &w), r)| {
                let (x, w) = (f64::from(x).abs(), f64::from(w).abs());
                0.5 * (w * r + x * s) + 0.25 * r * s + 1e-6 * x * w
            });
            bounds.push(terms.sum());
        }
    }
    bounds
}
