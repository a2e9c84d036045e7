//! Tests of activations, softmax and layer normalisation, and of their gradients.

use burn::tensor::{Device, Tensor};
use zeg_kernels::{Activation, gelu, layer_norm, quick_gelu, sigmoid, softmax};

use crate::{
    common::{at_every_level, host, tensor, with_gradients},
    compare::Pinned,
    reference::{self, Norm, wide},
};

/// The limits of a result and of its gradient.
struct Limits {
    out: f64,
    gradient: f64,
}

/// Measured at every level: 1.4e-7 and 1.3e-6.
const SIGMOID: Limits = Limits {
    out: 4e-7,
    gradient: 4e-6,
};
/// Measured at every level: 2.8e-7 and 1.8e-6.
const QUICK_GELU: Limits = Limits {
    out: 8e-7,
    gradient: 5e-6,
};
/// Measured: AVX-512 and AVX2 1.7e-7 and 6.2e-7, portable 1.7e-7 and 6.5e-7.
const GELU: Limits = Limits {
    out: 5e-7,
    gradient: 2e-6,
};
/// Measured at every level: 1.2e-6 and 2.3e-6.
const SOFTMAX: Limits = Limits {
    out: 4e-6,
    gradient: 7e-6,
};

type Op = fn(Tensor<3>) -> Tensor<3>;

/// Checks an operation on rows against its limits at every level.
fn pin(name: &str, op: Op, x: Tensor<3>, expected: &(Vec<f64>, Vec<f64>), limits: &Limits) {
    let shape = x.dims();
    at_every_level(|level| {
        let (out, [gradient]) = with_gradients([x.clone()], |[x]| op(x));
        for (part, found, expected, limit) in [
            ("result", &out, &expected.0, limits.out),
            ("gradient", &gradient, &expected.1, limits.gradient),
        ] {
            Pinned {
                what: &format!("{level:?} {name} {shape:?}: {part}"),
                found,
                expected,
                row: shape[2],
                head: None,
                limit,
            }
            .holds();
        }
    });
}

/// Returns the weights of [`with_gradients`] for a result of this shape.
fn weights(shape: [usize; 3]) -> Vec<f64> {
    wide(&host(tensor(shape, 99, &Device::flex())))
}

/// Sizes are the hidden layer of a block, and one below, at and one above pieces of 16,384 values with 32 at a time.
#[test]
fn activations() {
    let device = Device::flex().autodiff();
    for (name, kind, op, limits) in [
        ("sigmoid", Activation::Sigmoid, sigmoid as Op, SIGMOID),
        ("quick_gelu", Activation::QuickGelu, quick_gelu, QUICK_GELU),
        ("gelu", Activation::Gelu, gelu, GELU),
    ] {
        for shape in [
            [1, 1035, 3072],
            [1, 1, 31],
            [1, 1, 32],
            [1, 1, 33],
            [1, 1, 16_383],
            [1, 1, 16_384],
            [1, 1, 16_385],
        ] {
            let x = tensor(shape, 1, &device) * 3.0; // −6 to 6
            let values = wide(&host(x.clone()));
            let pairs = values.iter().map(|&x| reference::activation(kind, x));
            let (out, slopes): (Vec<f64>, Vec<f64>) = pairs.unzip();
            let gradient = slopes
                .iter()
                .zip(weights(shape))
                .map(|(s, w)| s * w)
                .collect();
            pin(name, op, x, &(out, gradient), &limits);
        }
    }
}

/// Sizes are scores of 20 and 171 classes at 32×32 patches, by class and by patch, and rows around 32 values.
#[test]
fn softmaxes() {
    let device = Device::flex().autodiff();
    for shape in [
        [1, 1024, 20],
        [1, 1024, 171],
        [1, 20, 1024],
        [1, 171, 1024],
        [1, 1051, 1051],
        [1, 513, 31],
        [1, 512, 32],
        [1, 511, 33],
    ] {
        let x = tensor(shape, 1, &device) * 3.0;
        let mut out = wide(&host(x.clone()));
        reference::softmax(&mut out, shape[2]);
        let mut gradient = weights(shape);
        reference::through_softmax(&mut gradient, &out, shape[2]);
        pin("softmax", softmax, x, &(out, gradient), &SOFTMAX);
    }
}

/// Limits of a normalisation's result and of the gradients of input, weight and bias. Measured: AVX-512 and AVX2
/// 4.9e-7, 6.6e-7, 9.5e-7, 1.2e-6; portable 5.4e-7 and the same.
const NORM: [f64; 4] = [2e-6, 2e-6, 3e-6, 4e-6];

/// Sizes are the tokens of a crop; one below, at and one above pieces of 21 rows of 768; widths around 32 and 768.
#[test]
fn layer_norms() {
    let device = Device::flex().autodiff();
    for [rows, width] in [
        [1035, 768],
        [1051, 768],
        [20, 768],
        [21, 768],
        [22, 768],
        [43, 767],
        [43, 769],
        [100, 31],
        [100, 32],
        [100, 33],
    ] {
        let inputs = || {
            [
                tensor([rows * width], 1, &device),
                tensor([width], 2, &device),
                tensor([width], 3, &device),
            ]
        };
        let [x, weight, bias] = inputs().map(host);
        let norm = Norm::new(&weight, &bias, 1e-5);
        let x = wide(&x);
        let weights: Tensor<2> = tensor([rows, width], 99, &device);
        let gradients = norm.backward(&x, &wide(&host(weights)));
        let expected = [vec![norm.forward(&x)], gradients.to_vec()].concat();
        at_every_level(|level| {
            let (out, gradients) = with_gradients(inputs(), |[x, weight, bias]| {
                layer_norm(x.reshape([rows, width]), weight, bias, 1e-5)
            });
            let found = [vec![out], gradients.to_vec()].concat();
            let names = [
                "result",
                "gradient of x",
                "gradient of weight",
                "gradient of bias",
            ];
            for (index, name) in names.into_iter().enumerate() {
                Pinned {
                    what: &format!("{level:?} layer_norm {rows}×{width}: {name}"),
                    found: &found[index],
                    expected: &expected[index],
                    row: width,
                    head: None,
                    limit: NORM[index],
                }
                .holds();
            }
        });
    }
}
