//! Tests that repeating a computation gives the same bits: a second time, on other numbers of threads, after other
//! shapes.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use zeg_kernels::{
    Activation, Level, PackedBlock, PackedLinear, Precision, Workspace, at_level, attention_packed,
    layer_norm, mask_sums, softmax,
};

use crate::{
    attention::{mask_tensor, scattered},
    common::{BlockNumbers, at_every_level, host, tensor, with_gradients},
};

/// Returns the bits of values, including those of NaNs.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Runs `work` on the given number of threads.
fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.unwrap().install(work)
}

/// Checks that `work` gives the same bits twice, and on 1, 2 and 5 threads.
fn repeats(what: &str, level: Level, work: impl Fn() -> Vec<Vec<f32>> + Sync) {
    let run = || {
        let results = at_level(level, &work);
        results
            .iter()
            .map(|values| bits(values))
            .collect::<Vec<_>>()
    };
    let first = run();
    assert!(first == run(), "{level:?} {what}: the second pass differs");
    for threads in [1, 2, 5] {
        let found = on_threads(threads, run);
        assert!(
            first == found,
            "{level:?} {what}: differs on {threads} threads"
        );
    }
}

/// Computes a block's result and gradient for a shape.
fn through(block: &Arc<PackedBlock>, shape: [usize; 3], mask: Option<&[f32]>) -> Vec<Vec<f32>> {
    let device = Device::flex().autodiff();
    let mask = mask.map(|mask| mask_tensor(mask, &device));
    let x = tensor(shape, 20, &device);
    let (out, [gradient]) = with_gradients([x], |[x]| block.forward(x, mask.as_ref()));
    vec![out, gradient]
}

#[test]
fn blocks_repeat() {
    for level in Level::available() {
        // The fastest level computes the whole width; slower ones, where that takes long, a third of it.
        let fastest = Some(&level) == Level::available().last();
        let (width, heads) = if fastest { (768, 12) } else { (256, 4) };
        let numbers = BlockNumbers::new(width, 4 * width, heads, Activation::QuickGelu);
        let block = at_level(level, || {
            numbers.packed(|w, b| PackedLinear::with_gradient(w, b, Precision::Float))
        });
        let mask = scattered(1051);
        repeats("block", level, || {
            through(&block, [1, 1051, width], Some(&mask))
        });
        let int8 = |w: &[f32], b: &[f32]| PackedLinear::new(w, b, Precision::Int8);
        let block = at_level(level, || numbers.packed(int8));
        repeats("int8 block", level, || {
            let x: Tensor<3> = tensor([1, 1035, width], 20, &Device::flex());
            vec![host(block.forward(x, None))]
        });
    }
}

#[test]
fn operations_repeat() {
    let device = Device::flex().autodiff();
    let labels: Arc<[u16]> = (0..2 * 20_000).map(|i| (i / 7 % 9) as u16).collect();
    at_every_level(|level| {
        repeats("attention", level, || {
            let qkv = tensor([2, 1035, 3 * 2 * 64], 1, &device);
            let (out, [gradient]) = with_gradients([qkv], |[x]| attention_packed(x, 2, None));
            vec![out, gradient]
        });
        repeats("layer_norm and softmax", level, || {
            let inputs = [
                tensor([1035 * 768], 1, &device),
                tensor([768], 2, &device),
                tensor([768], 3, &device),
            ];
            let (out, gradients) = with_gradients(inputs, |[x, weight, bias]| {
                softmax(layer_norm(x.reshape([1035, 768]), weight, bias, 1e-5))
            });
            [vec![out], gradients.to_vec()].concat()
        });
        repeats("mask_sums", level, || {
            let z = tensor([2, 7, 20_000], 1, &device);
            let (out, [gradient]) = with_gradients([z], |[z]| {
                let sums = mask_sums(z, Arc::clone(&labels), 0.25);
                sums.focal + sums.positives + sums.all
            });
            vec![out, gradient]
        });
    });
}

/// Values that a large computation leaves in the shared buffers, even NaN, do not affect a smaller one.
#[test]
fn a_used_workspace_gives_the_same_bits_as_a_fresh_one() {
    at_every_level(|level| {
        let numbers = BlockNumbers::new(96, 384, 3, Activation::QuickGelu);
        let plain = Device::flex();
        for graph in [false, true] {
            let used = numbers.packed(|w, b| PackedLinear::with_gradient(w, b, Precision::Float));
            let device = if graph {
                plain.clone().autodiff()
            } else {
                plain.clone()
            };
            let not_a_number = Tensor::<3>::full([1, 1051, 96], f32::NAN, &device);
            let left = if graph {
                let x = not_a_number.require_grad();
                let gradients = used.forward(x.clone(), None).sum().backward();
                host(x.grad(&gradients).unwrap())
            } else {
                host(used.forward(not_a_number, None))
            };
            assert!(left.iter().all(|value| value.is_nan()));
            for tokens in [1051, 37, 8, 1] {
                let fresh = PackedBlock {
                    workspace: Workspace::default(),
                    ..PackedBlock::clone(&used)
                };
                let fresh = Arc::new(fresh);
                let mask = scattered(tokens);
                let what = format!("{level:?}, {tokens} tokens, NaN with a graph: {graph}");
                let [found, expected] = [&used, &fresh].map(|block| {
                    let mut values = through(block, [1, tokens, 96], Some(&mask));
                    let x = || tensor([1, tokens, 96], 20, &plain);
                    values.push(host(block.forward(x(), None)));
                    values.push(host(block.feed_forward(x())));
                    values
                });
                assert!(
                    expected.iter().flatten().all(|value| value.is_finite()),
                    "{what}"
                );
                assert!(found == expected, "{what}: the bits differ");
            }
        }
    });
}
