//! Tests of a whole packed block: its result with and without an autodiff graph, and the gradient of its tokens.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use zeg_kernels::{Activation, PackedBlock, PackedLinear, Precision};

use crate::{
    attention::{causal, mask_tensor, scattered},
    common::{BlockNumbers, at_every_level, host, tensor, with_gradients},
    compare::{Deviation, Pinned},
    reference::{self, Attention, Linear, Norm, add, wide},
};

/// The limits of a block's result and of the gradient of its tokens.
struct Limits {
    out: f64,
    gradient: f64,
}

/// Measured: AVX-512 and AVX2 7.8e-6 and 5.5e-5, portable 7.8e-6 and 5.2e-5.
const FULL: Limits = Limits {
    out: 3e-5,
    gradient: 2e-4,
};
/// Measured: AVX-512 and AVX2 4.1e-6 and 4.0e-5, portable 4.2e-6 and 3.5e-5.
const TAILS: Limits = Limits {
    out: 1.5e-5,
    gradient: 1.5e-4,
};
/// Limit of the result of a block of 8-bit integers, which is due to their rounding and not to that of floats.
/// Measured: 4.1e-2 at all levels.
const INT8: f64 = 0.1;

/// A block in double precision.
struct Block {
    attention_norm: Norm,
    qkv: Linear,
    attention: Attention,
    out: Linear,
    network_norm: Norm,
    up: Linear,
    activation: Activation,
    down: Linear,
}

/// The values that the gradient needs.
struct Kept {
    qkv: Vec<f64>,
    middle: Vec<f64>,
    hidden: Vec<f64>,
}

impl Block {
    fn new(numbers: &BlockNumbers, tokens: usize, mask: Option<&[f32]>) -> Self {
        let [qkv, out, up, down] = numbers.linear.each_ref().map(|(w, b)| Linear::new(w, b));
        let [attention_norm, network_norm] = numbers
            .norms
            .each_ref()
            .map(|norm| Norm::new(&norm.weight, &norm.bias, norm.epsilon));
        let attention = Attention {
            tokens,
            heads: numbers.heads,
            head: out.inputs / numbers.heads,
            mask: mask.map(wide),
        };
        Self {
            attention_norm,
            qkv,
            attention,
            out,
            network_norm,
            up,
            activation: numbers.activation,
            down,
        }
    }

    /// Computes x + down(activation(up(norm(x)))), and the inputs of the activation.
    fn feed(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let hidden = self.up.forward(&self.network_norm.forward(x));
        let active = hidden
            .iter()
            .map(|&h| reference::activation(self.activation, h).0);
        let mut out = self.down.forward(&active.collect::<Vec<_>>());
        add(&mut out, x);
        (out, hidden)
    }

    /// Applies the block: `[batch·tokens, width]` → the same shape
    fn forward(&self, x: &[f64]) -> (Vec<f64>, Kept) {
        let qkv = self.qkv.forward(&self.attention_norm.forward(x));
        let mut middle = self.out.forward(&self.attention.forward(&qkv));
        add(&mut middle, x);
        let (out, hidden) = self.feed(&middle);
        (
            out,
            Kept {
                qkv,
                middle,
                hidden,
            },
        )
    }

    /// Computes the gradient of `x` from that of the result.
    fn backward(&self, x: &[f64], kept: &Kept, gradient: &[f64]) -> Vec<f64> {
        let mut of_hidden = self.down.backward(gradient);
        for (g, &h) in of_hidden.iter_mut().zip(&kept.hidden) {
            *g *= reference::activation(self.activation, h).1;
        }
        let of_norm = self.up.backward(&of_hidden);
        let [mut of_middle, ..] = self.network_norm.backward(&kept.middle, &of_norm);
        add(&mut of_middle, gradient);

        let of_attended = self.out.backward(&of_middle);
        let of_qkv = self.attention.backward(&kept.qkv, &of_attended);
        let of_norm = self.qkv.backward(&of_qkv);
        let [mut of_x, ..] = self.attention_norm.backward(x, &of_norm);
        add(&mut of_x, &of_middle);
        of_x
    }
}

/// Checks a block against its limits at every level.
fn pin(
    [batch, tokens, width]: [usize; 3],
    numbers: &BlockNumbers,
    mask: Option<&[f32]>,
    limits: &Limits,
) {
    let plain = Device::flex();
    let device = plain.clone().autodiff();
    let shape = [batch, tokens, width];
    let x: Tensor<3> = tensor(shape, 20, &device);
    let exact = wide(&host(x.clone()));
    let block = Block::new(numbers, tokens, mask);
    let (expected, kept) = block.forward(&exact);
    let weights: Tensor<3> = tensor(shape, 99, &device);
    let expected_gradient = block.backward(&exact, &kept, &wide(&host(weights)));
    let (expected_feed, _) = block.feed(&exact);
    let plain_mask = mask.map(|mask| mask_tensor(mask, &plain));
    let mask = mask.map(|mask| mask_tensor(mask, &device));
    at_every_level(|level| {
        let what = format!("{level:?} block {shape:?}, mask {}", mask.is_some());
        let check = |part: &str, found: &[f32], expected: &[f64], limit: f64| {
            Pinned {
                what: &format!("{what}: {part}"),
                found,
                expected,
                row: width,
                head: None,
                limit,
            }
            .holds();
        };
        let packed = numbers.packed(|w, b| PackedLinear::with_gradient(w, b, Precision::Float));
        let (out, [gradient]) = with_gradients([x.clone()], |[x]| packed.forward(x, mask.as_ref()));
        check("result", &out, &expected, limits.out);
        check("gradient", &gradient, &expected_gradient, limits.gradient);

        let x = x.clone().without_autodiff();
        let found = host(packed.forward(x.clone(), plain_mask.as_ref()));
        assert!(found == out, "{what}: the bits differ without a graph");
        let found = host(packed.feed_forward(x.clone()));
        check("second half", &found, &expected_feed, limits.out);

        let int8: Arc<PackedBlock> =
            numbers.packed(|w, b| PackedLinear::new(w, b, Precision::Int8));
        let found = host(int8.forward(x, plain_mask.as_ref()));
        let Deviation { worst, .. } = Deviation::of(&found, &expected);
        println!("measured {worst:.1e} (limit {INT8:.0e}) {what}, int8");
        assert!(worst <= INT8, "{what}, int8: {worst:e}");
    });
}

#[test]
fn at_the_size_of_a_crop() {
    let numbers = BlockNumbers::new(768, 3072, 12, Activation::QuickGelu);
    pin([1, 1035, 768], &numbers, None, &FULL);
}

#[test]
fn at_the_size_of_a_crop_with_region_tokens_and_a_mask() {
    let numbers = BlockNumbers::new(768, 3072, 12, Activation::QuickGelu);
    pin([1, 1051, 768], &numbers, Some(&scattered(1051)), &FULL);
}

#[test]
fn at_the_size_of_texts() {
    let numbers = BlockNumbers::new(512, 2048, 8, Activation::Gelu);
    pin([3, 77, 512], &numbers, Some(&causal(77)), &FULL);
}

/// Widths and hidden sizes are around panels and blocks of panels, numbers of tokens around tiles.
#[test]
fn around_the_tiles() {
    for (tokens, width, hidden, heads) in [
        (263, 190, 767, 2),
        (264, 192, 768, 3),
        (265, 195, 769, 3),
        (191, 48, 193, 1),
        (192, 96, 191, 2),
        (193, 49, 97, 1),
        (7, 47, 23, 1),
        (9, 25, 49, 1),
    ] {
        let numbers = BlockNumbers::new(width, hidden, heads, Activation::QuickGelu);
        pin([1, tokens, width], &numbers, None, &TAILS);
        let mask = scattered(tokens);
        pin([2, tokens, width], &numbers, Some(&mask), &TAILS);
    }
}
