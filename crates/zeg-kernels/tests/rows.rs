//! Compares activations, softmax, layer normalisation and mask sums with their composed forms, at every level.

mod common;

use burn::tensor::{DType, Device, Tensor, TensorData};
use common::{assert_close, at_every_level, host, tensor, values, with_gradients};
use proptest::prelude::*;
use zeg_kernels::{composed, gelu, layer_norm, quick_gelu, sigmoid, softmax};

const TOLERANCE: f32 = 1e-5;

type Op<const D: usize> = fn(Tensor<D>) -> Tensor<D>;

/// Name, kernel and composed form of each operation.
const OPS: [(&str, Op<3>, Op<3>); 4] = [
    ("sigmoid", sigmoid, composed::sigmoid),
    ("quick_gelu", quick_gelu, composed::quick_gelu),
    ("gelu", gelu, composed::gelu),
    ("softmax", softmax, composed::softmax),
];

fn compare(x: Tensor<3>, what: &str) {
    for (name, op, composed) in OPS {
        let found = with_gradients([x.clone()], |[x]| op(x));
        let expected = with_gradients([x.clone()], |[x]| composed(x));
        let what = format!("{name}, {what}");
        assert_close(&found.0, &expected.0, TOLERANCE, &what);
        assert_close(
            &found.1[0],
            &expected.1[0],
            TOLERANCE,
            &format!("{what}, gradient"),
        );
        let plain = host(op(x.clone().without_autodiff()));
        assert_eq!(plain, found.0, "{what}, without a graph");
    }
}

/// Compares layer normalisation; x and the parameters are reshaped from tensors of rank 1, so that all three can have
/// gradients.
fn compare_layer_norm(shape: [usize; 3], device: &Device, what: &str) {
    let width = shape[2];
    let inputs = || {
        [
            tensor([shape.iter().product()], 1, device),
            tensor([width], 2, device),
            tensor([width], 3, device),
        ]
    };
    let found = with_gradients(inputs(), |[x, w, b]| {
        layer_norm(x.reshape(shape), w, b, 1e-5)
    });
    let expected = with_gradients(inputs(), |[x, w, b]| {
        composed::layer_norm(x.reshape(shape), w, b, 1e-5)
    });
    assert_close(&found.0, &expected.0, TOLERANCE, what);
    for (name, (found, expected)) in ["x", "weight", "bias"]
        .iter()
        .zip(found.1.iter().zip(&expected.1))
    {
        // At a width of 1 the true gradient of x is 0, and at 2 nearly 0, so only rounding remains.
        let tolerance = if *name == "x" && width < 3 {
            1e-3
        } else {
            2.0 * TOLERANCE
        };
        assert_close(
            found,
            expected,
            tolerance,
            &format!("{what}, gradient of {name}"),
        );
    }
}

#[test]
fn odd_sizes_agree_with_the_composed_forms() {
    let device = Device::flex().autodiff();
    at_every_level(|level| {
        for shape in [
            [1, 1, 1],
            [2, 3, 5],
            [1, 7, 33],
            [2, 1, 139],
            [3, 50, 207],
            [2, 60, 768],
        ] {
            compare(
                tensor(shape, 1, &device) * 3.0,
                &format!("{level:?}, {shape:?}"),
            );
            compare_layer_norm(shape, &device, &format!("layer_norm, {level:?}, {shape:?}"));
        }
    });
}

#[test]
fn strided_inputs_agree_with_copies() {
    let device = Device::flex().autodiff();
    compare(tensor([9, 3, 20], 4, &device).swap_dims(0, 1), "swapped");
    compare(
        tensor([9, 5, 20], 4, &device).swap_dims(1, 2),
        "rows across",
    );
    compare(
        tensor([4, 9, 20], 5, &device).narrow(0, 1, 2),
        "narrowed batch",
    );
    compare(
        tensor([2, 9, 20], 6, &device).narrow(2, 3, 11),
        "narrowed rows",
    );
    compare(
        tensor([2, 1, 20], 7, &device).expand([2, 6, 20]),
        "expanded",
    );
}

/// A tensor that is used again must not be changed in place.
#[test]
fn an_input_keeps_its_values() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let x = tensor([2, 3, 8], 8, &device);
        let before = host(x.clone());
        for (_, op, _) in OPS {
            op(x.clone());
        }
        layer_norm(
            x.clone(),
            tensor([8], 1, &device),
            tensor([8], 2, &device),
            1e-5,
        );
        assert_eq!(host(x), before);
    }
}

/// Where eˣ leaves the range of floats, the results stay in their own range.
#[test]
fn extreme_values_stay_in_range() {
    let x = [
        f32::NEG_INFINITY,
        -1e30,
        -200.0,
        -90.0,
        0.0,
        90.0,
        200.0,
        1e30,
    ];
    let row = || Tensor::<3>::from_data(TensorData::new(x.to_vec(), [1, 1, 8]), &Device::flex());
    at_every_level(|level| {
        let scores = host(sigmoid(row()));
        assert!(scores.is_sorted(), "{level:?}: {scores:?}");
        assert_eq!((scores[4], scores[7]), (0.5, 1.0), "{level:?}");
        assert!(scores[0] < 1e-37, "{level:?}: {scores:?}");
        assert_eq!(
            host(softmax(row())),
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
            "{level:?}"
        );
        assert_eq!(host(quick_gelu(row()))[7..], [1e30], "{level:?}");
        assert_eq!(host(gelu(row()))[7..], [1e30], "{level:?}");
    });
}

/// Training stops at a loss that is NaN, so no kernel may turn a NaN into a number.
#[test]
fn nan_is_preserved() {
    let mut x = values(70, 9);
    x[40] = f32::NAN;
    let x = || Tensor::<3>::from_data(TensorData::new(x.clone(), [1, 2, 35]), &Device::flex());
    at_every_level(|level| {
        for (name, op, _) in OPS {
            assert!(host(op(x()))[40].is_nan(), "{name}, {level:?}");
        }
        let ones = || Tensor::ones([35], &Device::flex());
        let normed = host(layer_norm(x(), ones(), ones(), 1e-5));
        assert!(normed[35..].iter().all(|v| v.is_nan()), "{level:?}");
        assert!(normed[..35].iter().all(|v| v.is_finite()), "{level:?}");
    });
}

/// A frozen LayerNorm passes a gradient on and has no gradients itself.
#[test]
fn only_requested_gradients_are_computed() {
    let device = Device::flex().autodiff();
    let x = tensor::<2>([4, 6], 1, &device).require_grad();
    let (weight, bias) = (tensor::<1>([6], 2, &device), tensor::<1>([6], 3, &device));
    let out = layer_norm(x.clone(), weight.clone(), bias.clone(), 1e-5);
    let gradients = out.powf_scalar(2.0).sum().backward();
    assert!(x.grad(&gradients).is_some());
    assert!(weight.grad(&gradients).is_none() && bias.grad(&gradients).is_none());

    let weight = weight.require_grad();
    let out = layer_norm(x.detach(), weight.clone(), bias.clone(), 1e-5);
    let gradients = out.powf_scalar(2.0).sum().backward();
    assert!(weight.grad(&gradients).is_some() && bias.grad(&gradients).is_none());
}

#[test]
fn another_float_type_takes_the_composed_form() {
    let x = || tensor::<3>([2, 3, 5], 1, &Device::flex()).cast(DType::F64);
    for (name, op, composed) in OPS {
        let found = op(x());
        assert_eq!(found.dtype(), DType::F64, "{name}");
        assert_eq!(host(found), host(composed(x())), "{name}");
    }
    let ones = || Tensor::<1>::ones([5], &Device::flex()).cast(DType::F64);
    let found = layer_norm(x(), ones(), ones(), 1e-5);
    assert_eq!(
        host(found),
        host(composed::layer_norm(x(), ones(), ones(), 1e-5))
    );
}

/// Compares gradients with central differences, at a width where the variance is larger than rounding errors.
#[test]
fn gradients_agree_with_central_differences() {
    let device = Device::flex().autodiff();
    let normed: Op<3> = |x| {
        let device = x.device();
        layer_norm(x, tensor([5], 2, &device), tensor([5], 3, &device), 1e-5)
    };
    let ops = OPS.map(|(name, op, _)| (name, op));
    for (name, op) in ops.into_iter().chain([("layer_norm", normed)]) {
        let start = values(20, 10);
        let at = |values| Tensor::<3>::from_data(TensorData::new(values, [1, 4, 5]), &device);
        let (_, [gradient]) = with_gradients([at(start.clone())], |[x]| op(x));
        let weights = host(tensor([1, 4, 5], 99, &device));
        let sum = |values: Vec<f32>| -> f64 {
            let out = host(op(at(values)));
            out.iter()
                .zip(&weights)
                .map(|(a, b)| f64::from(a * b))
                .sum()
        };
        let step = 1e-2;
        for i in 0..start.len() {
            let (mut low, mut high) = (start.clone(), start.clone());
            low[i] -= step;
            high[i] += step;
            let slope = (sum(high) - sum(low)) / f64::from(2.0 * step);
            let error = (slope - f64::from(gradient[i])).abs();
            assert!(
                error < 1e-3,
                "{name} {i}: slope {slope}, gradient {}",
                gradient[i]
            );
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let device = Device::flex().autodiff();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let inputs = [
                tensor([300 * 96], 1, &device),
                tensor([96], 2, &device),
                tensor([96], 3, &device),
            ];
            with_gradients(inputs, |[x, w, b]| {
                softmax(quick_gelu(layer_norm(x.reshape([3, 100, 96]), w, b, 1e-5)))
            })
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5) && one == run(5));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_agrees_with_the_composed_forms(
        shape in (1_usize..4, 1_usize..12, 1_usize..80),
        scale in 0.01_f64..8.0,
        seed: u32,
    ) {
        let device = Device::flex().autodiff();
        let shape = [shape.0, shape.1, shape.2];
        at_every_level(|level| {
            compare(tensor(shape, seed, &device) * scale, &format!("{level:?}, {shape:?}"));
        });
    }

    #[test]
    fn rows_of_a_softmax_sum_to_one(rows in 1_usize..9, width in 1_usize..300, seed: u32) {
        let y = softmax(tensor::<2>([rows, width], seed, &Device::flex()) * 10.0);
        for sum in host(y.sum_dim(1)) {
            prop_assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        }
    }
}

/// Returns labels from 0 to `classes`, which is no class, and a few of 255.
fn labels(length: usize, classes: usize) -> std::sync::Arc<[u16]> {
    let label = |i: usize| match (i * 7 + i / 3) % 11 {
        10 => 255,
        other => (other % (classes + 1)) as u16,
    };
    (0..length).map(label).collect()
}

#[test]
fn sums_over_masks_agree_with_the_composed_form() {
    let device = Device::flex().autodiff();
    at_every_level(|level| {
        for shape in [
            [1, 1, 1],
            [2, 3, 5],
            [1, 4, 33],
            [2, 15, 1024],
            [1, 2, 9001],
        ] {
            let [batch, classes, pixels] = shape;
            let labels = labels(batch * pixels, classes);
            let z = tensor(shape, 7, &device) * 6.0; // covers both ends of the sigmoid
            for part in 0..3 {
                let pick = |sums: zeg_kernels::MaskSums| match part {
                    0 => sums.focal,
                    1 => sums.positives,
                    _ => sums.all,
                };
                let found = with_gradients([z.clone()], |[z]| {
                    pick(zeg_kernels::mask_sums(z, labels.clone(), 0.25))
                });
                let expected = with_gradients([z.clone()], |[z]| {
                    pick(composed::mask_sums(z, labels.clone(), 0.25))
                });
                let what = format!("{level:?} {shape:?}, sum {part}");
                assert_close(&found.0, &expected.0, TOLERANCE, &what);
                assert_close(&found.1[0], &expected.1[0], TOLERANCE, &what);
            }
        }
    });
}

/// Expected (p_t = σ(±z), focal term) computed by hand: z = 0 gives −¼·¼·ln ½ for a positive; far from 0 the terms are
/// exact limits.
#[test]
fn sums_over_masks_of_single_pixels() {
    let device = Device::flex();
    for (z, label, focal) in [
        (0.0, 0, 0.25 * 0.25 * 2_f32.ln()),
        (0.0, 9, 0.75 * 0.25 * 2_f32.ln()),
        (-90.0, 0, 0.25 * 90.0),
        (90.0, 9, 0.75 * 90.0),
        (90.0, 0, 0.0),
    ] {
        let logit = Tensor::<3>::from_floats([[[z]]], &device);
        let sums = zeg_kernels::mask_sums(logit, [label].into(), 0.25);
        assert_close(&host(sums.focal), &[focal], 1e-6, &format!("{z} {label}"));
    }
}
