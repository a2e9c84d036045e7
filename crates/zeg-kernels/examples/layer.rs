//! Times one ViT-B/16 layer with the fused and with the composed operations, interleaved.
//!
//! `cargo run --workspace --example layer` prints medians in milliseconds: of the forward pass, and of the forward pass
//! with the gradient of the tokens (frozen weights).

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor, module};
use zeg_kernels::{attention_packed, composed, layer_norm, quick_gelu};

const WIDTH: usize = 768;
const HEADS: usize = 12;

struct Layer {
    packed: [Tensor<2>; 4],
    biases: [Tensor<1>; 4],
    norm: [Tensor<1>; 2],
}

impl Layer {
    fn new(device: &Device) -> Self {
        let shapes = [
            [3 * WIDTH, WIDTH],
            [WIDTH, WIDTH],
            [4 * WIDTH, WIDTH],
            [WIDTH, 4 * WIDTH],
        ];
        let random = Distribution::Normal(0.0, 0.02);
        Self {
            packed: shapes.map(|shape| Tensor::random(shape, random, device)),
            biases: shapes.map(|shape| Tensor::random([shape[0]], random, device)),
            norm: [
                Tensor::ones([WIDTH], device),
                Tensor::zeros([WIDTH], device),
            ],
        }
    }

    fn linear(&self, index: usize, x: Tensor<3>) -> Tensor<3> {
        let weight = self.packed[index].clone().transpose();
        module::linear(x, weight, Some(self.biases[index].clone()))
    }

    fn fused(&self, x: Tensor<3>) -> Tensor<3> {
        let norm = |x| layer_norm(x, self.norm[0].clone(), self.norm[1].clone(), 1e-5);
        let attended = attention_packed(self.linear(0, norm(x.clone())), HEADS, None);
        let x = x + self.linear(1, attended);
        let hidden = quick_gelu(self.linear(2, norm(x.clone())));
        x + self.linear(3, hidden)
    }

    fn composed(&self, x: Tensor<3>) -> Tensor<3> {
        let norm = |x| composed::layer_norm(x, self.norm[0].clone(), self.norm[1].clone(), 1e-5);
        let attended = composed::attention_packed(self.linear(0, norm(x.clone())), HEADS, None);
        let x = x + self.linear(1, attended);
        let hidden = composed::quick_gelu(self.linear(2, norm(x.clone())));
        x + self.linear(3, hidden)
    }
}

fn milliseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let plain = Device::flex();
    let autodiff = Device::flex().autodiff();
    let (inference, training) = (Layer::new(&plain), Layer::new(&autodiff));
    for (batch, tokens) in [(1, 110), (1, 207), (1, 1035), (4, 110), (4, 207)] {
        let shape = [batch, tokens, WIDTH];
        let x = Tensor::random(shape, Distribution::Normal(0.0, 1.0), &plain);
        let tracked =
            Tensor::random(shape, Distribution::Normal(0.0, 1.0), &autodiff).require_grad();
        let mut times: [Vec<f64>; 4] = Default::default();
        for _ in 0..9 {
            times[0].push(milliseconds(|| drop(inference.composed(x.clone()))));
            times[1].push(milliseconds(|| drop(inference.fused(x.clone()))));
            times[2].push(milliseconds(|| {
                drop(training.composed(tracked.clone()).sum().backward());
            }));
            times[3].push(milliseconds(|| {
                drop(training.fused(tracked.clone()).sum().backward());
            }));
        }
        let [before, after, before_both, after_both] = times.map(median);
        println!(
            "{batch}×{tokens:4} tokens: forward {before:6.1} -> {after:6.1}, with gradient {before_both:6.1} -> {after_both:6.1}"
        );
    }
}
