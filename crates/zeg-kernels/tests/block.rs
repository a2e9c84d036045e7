//! Compares a packed residual block with the same block of plain tensors, at every level.

mod common;

use std::sync::Arc;

use burn::tensor::{Device, Tensor, module};
use common::{assert_close, at_every_level, host, tensor, values, with_gradients};
use zeg_kernels::{Activation, Norm, PackedBlock, PackedLinear, Precision, Workspace, composed};

const EPSILON: f32 = 1e-5;

/// A block's plain tensors: weights and biases of the four linear layers and of the two norms.
struct Plain {
    heads: usize,
    linear: [(Tensor<2>, Tensor<1>); 4],
    norms: [(Tensor<1>, Tensor<1>); 2],
}

impl Plain {
    fn new(width: usize, hidden: usize, heads: usize, device: &Device) -> Self {
        let linear = |outputs: usize, inputs: usize, seed| {
            let weight = tensor([outputs, inputs], seed, device) * (inputs as f64).sqrt().recip();
            (weight, tensor([outputs], seed + 1, device))
        };
        let norm = |seed| {
            (
                tensor([width], seed, device),
                tensor([width], seed + 1, device),
            )
        };
        Self {
            heads,
            linear: [
                linear(3 * width, width, 1),
                linear(width, width, 3),
                linear(hidden, width, 5),
                linear(width, hidden, 7),
            ],
            norms: [norm(9), norm(11)],
        }
    }

    fn forward(&self, x: Tensor<3>, mask: Option<Tensor<2>>) -> Tensor<3> {
        let linear = |index: usize, x| {
            let (weight, bias) = self.linear[index].clone();
            module::linear(x, weight.transpose(), Some(bias))
        };
        let norm = |index: usize, x| {
            let (weight, bias) = self.norms[index].clone();
            composed::layer_norm(x, weight, bias, f64::from(EPSILON))
        };
        let qkv = linear(0, norm(0, x.clone()));
        let x = x + linear(1, composed::attention_packed(qkv, self.heads, mask));
        let hidden = composed::quick_gelu(linear(2, norm(1, x.clone())));
        x + linear(3, hidden)
    }

    fn packed(&self, precision: Precision) -> Arc<PackedBlock> {
        self.packed_as(|weight, bias| PackedLinear::new(weight, bias, precision))
    }

    fn packed_as(&self, pack: impl Fn(&[f32], &[f32]) -> PackedLinear) -> Arc<PackedBlock> {
        let [qkv, out, up, down] = self
            .linear
            .each_ref()
            .map(|(weight, bias)| Arc::new(pack(&host(weight.clone()), &host(bias.clone()))));
        let [attention_norm, network_norm] = self.norms.each_ref().map(|(weight, bias)| Norm {
            weight: host(weight.clone()),
            bias: host(bias.clone()),
            epsilon: EPSILON,
        });
        Arc::new(PackedBlock {
            attention_norm,
            qkv,
            heads: self.heads,
            out,
            network_norm,
            up,
            activation: Activation::QuickGelu,
            down,
            workspace: Workspace::default(),
        })
    }
}

/// Returns a mask in which tokens do not attend to later tokens.
fn causal(tokens: usize, device: &Device) -> Tensor<2> {
    let row = |q: usize| (0..tokens).map(move |k| if k > q { f32::NEG_INFINITY } else { 0.0 });
    let mask: Vec<f32> = (0..tokens).flat_map(row).collect();
    Tensor::<1>::from_floats(mask.as_slice(), device).reshape([tokens, tokens])
}

#[test]
fn a_packed_block_agrees_with_plain_tensors() {
    let device = Device::flex();
    at_every_level(|level| {
        for (shape, hidden, heads) in [
            ([1, 1, 8], 32, 1),
            ([2, 5, 24], 96, 3),
            ([3, 37, 40], 100, 2),
            ([1, 150, 64], 256, 4),
        ] {
            let plain = Plain::new(shape[2], hidden, heads, &device);
            let packed = plain.packed(Precision::Float);
            let x = tensor(shape, 20, &device);
            let what = format!("{level:?} {shape:?}");
            for mask in [None, Some(causal(shape[1], &device))] {
                let expected = host(plain.forward(x.clone(), mask.clone()));
                let found = host(packed.forward(x.clone(), mask.as_ref()));
                assert_close(&found, &expected, 1e-5, &what);
                let again = host(packed.forward(x.clone(), mask.as_ref()));
                assert_eq!(
                    found, again,
                    "{what}: the second pass with the same buffers differs"
                );
            }
            assert_eq!(
                host(x),
                values(shape.iter().product(), 20),
                "the block changed its input"
            );
        }
    });
}

/// Tokens before, at and after the sizes of the attention's tiles, odd numbers of tokens, and heads of other lengths
/// than 64.
#[test]
fn rounded_results_are_close() {
    let device = Device::flex();
    for (shape, hidden, heads) in [
        ([2, 50, 64], 256, 4),
        ([1, 97, 128], 300, 2),
        ([3, 1, 48], 96, 3),
        ([1, 48, 30], 50, 2),  // heads without whole pairs
        ([2, 31, 128], 64, 2), // odd, and a whole number of registers with the padding
        ([1, 63, 32], 128, 2),
        ([2, 34, 16], 64, 2),
        ([2, 34, 24], 48, 4),
        ([2, 17, 128], 512, 2),
        ([5, 77, 64], 256, 4), // more rows than in a block
    ] {
        let plain = Plain::new(shape[2], hidden, heads, &device);
        let x = tensor(shape, 20, &device);
        for mask in [None, Some(causal(shape[1], &device))] {
            let expected = host(plain.forward(x.clone(), mask.clone()));
            at_every_level(|level| {
                for (precision, tolerance) in [(Precision::Bf16, 0.03), (Precision::Int8, 0.05)] {
                    let block = plain.packed(precision);
                    let found = host(block.forward(x.clone(), mask.as_ref()));
                    let what = format!("{level:?} {shape:?} {precision} {}", mask.is_some());
                    assert_close(&found, &expected, tolerance, &what);
                    // The buffers hold values of the call before.
                    let again = host(block.forward(x.clone(), mask.as_ref()));
                    assert_eq!(again, found, "{what}");
                }
            });
        }
    }
}

#[test]
fn the_gradient_of_a_packed_block_agrees_with_plain_tensors() {
    let device = Device::flex().autodiff();
    at_every_level(|level| {
        for (shape, hidden, heads) in [
            ([1, 1, 8], 32, 1),
            ([2, 5, 24], 96, 3),
            ([3, 37, 40], 100, 2),
            ([1, 150, 64], 256, 4),
        ] {
            let plain = Plain::new(shape[2], hidden, heads, &device);
            let packed =
                plain.packed_as(|w, b| PackedLinear::with_gradient(w, b, Precision::Float));
            let x = tensor(shape, 20, &device);
            for mask in [None, Some(causal(shape[1], &device))] {
                let what = format!("{level:?} {shape:?} {}", mask.is_some());
                let expected = with_gradients([x.clone()], |[x]| plain.forward(x, mask.clone()));
                let found = with_gradients([x.clone()], |[x]| packed.forward(x, mask.as_ref()));
                assert_close(&found.0, &expected.0, 1e-5, &what);
                assert_close(&found.1[0], &expected.1[0], 2e-5, &what);
                let constant = host(packed.forward(x.clone().detach(), mask.as_ref()));
                assert_close(&constant, &expected.0, 1e-5, &what);
            }
        }
    });
}

/// Rounding to bf16 is off by at most 2⁻⁹ of every factor, and the sums are of 32-bit floats.
#[test]
fn gradients_in_bf16_stay_close_to_those_in_floats() {
    let device = Device::flex().autodiff();
    at_every_level(|level| {
        // Heads of an odd number of channels attend in floats; 48 query rows are a tile of bf16.
        for (shape, hidden, heads) in [
            ([2, 5, 24], 96, 3),
            ([2, 5, 9], 96, 3),
            ([3, 37, 40], 100, 2),
            ([1, 97, 64], 100, 4),
            ([1, 150, 64], 256, 4),
        ] {
            let plain = Plain::new(shape[2], hidden, heads, &device);
            let pack = |precision| {
                plain.packed_as(move |w, b| PackedLinear::with_gradient(w, b, precision))
            };
            let (exact, rounded) = (pack(Precision::Float), pack(Precision::Bf16));
            let x = tensor(shape, 20, &device);
            for mask in [None, Some(causal(shape[1], &device))] {
                let mask = mask.as_ref();
                let what = format!("{level:?} {shape:?} {}", mask.is_some());
                let expected = with_gradients([x.clone()], |[x]| exact.forward(x, mask));
                let found = with_gradients([x.clone()], |[x]| rounded.forward(x, mask));
                assert_close(&found.0, &expected.0, 0.03, &what);
                assert_close(&found.1[0], &expected.1[0], 0.03, &what);
                assert_ne!(found.1[0], expected.1[0], "{what}: nothing was rounded");
            }
        }
    });
}

#[test]
fn the_gradient_of_a_packed_layer_agrees_with_plain_tensors() {
    let device = Device::flex().autodiff();
    at_every_level(|level| {
        for (inputs, outputs) in [(1, 1), (7, 50), (33, 97), (64, 192)] {
            let weight = tensor([outputs, inputs], 1, &device);
            let bias = tensor([outputs], 2, &device);
            let layer = PackedLinear::with_gradient(
                &host(weight.clone()),
                &host(bias.clone()),
                Precision::Float,
            );
            let layer = Arc::new(layer);
            let x = tensor([3, 5, inputs], 3, &device);
            let plain = |[x]: [Tensor<3>; 1]| {
                module::linear(x, weight.clone().transpose(), Some(bias.clone()))
            };
            let expected = with_gradients([x.clone()], plain);
            let found = with_gradients([x], |[x]| layer.forward(x));
            let what = format!("{level:?} {inputs}→{outputs}");
            assert_close(&found.0, &expected.0, 1e-5, &what);
            assert_close(&found.1[0], &expected.1[0], 1e-5, &what);
        }
    });
}
