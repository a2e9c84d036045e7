//! Compares packed attention with its composed form at every level, and tests its further guarantees.

mod common;

use burn::tensor::{DType, Device, Tensor, TensorData};
use common::{assert_close, at_every_level, host, tensor, values, with_gradients};
use proptest::prelude::*;
use zeg_kernels::{attention_packed, composed};

const TOLERANCE: f32 = 1e-5;

/// Returns a mask in which a query attends to the keys up to its own position.
fn causal(tokens: usize, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..tokens * tokens)
        .map(|i| {
            if i % tokens > i / tokens {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [tokens, tokens]), device)
}

/// Compares result and gradient of the kernel with the composed form.
fn compare(qkv: Tensor<3>, heads: usize, mask: Option<Tensor<2>>, what: &str) {
    let plain = qkv.clone().without_autodiff();
    let plain_mask = mask.clone().map(Tensor::without_autodiff);
    let found = with_gradients([qkv.clone()], |[x]| {
        attention_packed(x, heads, mask.clone())
    });
    let expected = with_gradients([qkv], |[x]| {
        composed::attention_packed(x, heads, mask.clone())
    });
    assert_close(&found.0, &expected.0, TOLERANCE, &format!("{what}, result"));
    let [found_gradient] = found.1;
    let [expected_gradient] = expected.1;
    assert_close(
        &found_gradient,
        &expected_gradient,
        TOLERANCE,
        &format!("{what}, gradient"),
    );
    // Without an autodiff graph, the result has the same bits.
    assert_eq!(
        host(attention_packed(plain, heads, plain_mask)),
        found.0,
        "{what}"
    );
}

#[test]
fn odd_sizes_agree_with_the_composed_form() {
    let device = Device::flex().autodiff();
    at_every_level(|level| {
        for (batch, tokens, heads, head) in [
            (1, 1, 1, 1),
            (2, 1, 3, 5),
            (1, 7, 2, 5),
            (3, 33, 2, 8),
            (2, 139, 3, 64),
            (1, 207, 1, 64),
            (1, 1035, 1, 16),
        ] {
            let qkv = tensor([batch, tokens, 3 * heads * head], 1, &device);
            let what = format!("{level:?}, {batch}×{tokens} tokens, {heads}×{head}");
            compare(qkv, heads, None, &what);
        }
    });
}

#[test]
fn a_mask_hides_keys() {
    let device = Device::flex().autodiff();
    at_every_level(|level| {
        for tokens in [1, 7, 77, 700] {
            let qkv = tensor([2, tokens, 3 * 2 * 8], 2, &device);
            let mask = Some(causal(tokens, &device));
            compare(qkv, 2, mask, &format!("{level:?}, {tokens} tokens, causal"));
        }
    });
}

#[test]
fn a_hidden_key_does_not_affect_the_result() {
    let device = Device::flex();
    let mask = causal(5, &device);
    let mut changed = values(5 * 24, 3);
    let before = attention_packed(
        Tensor::from_data(TensorData::new(changed.clone(), [1, 5, 24]), &device),
        2,
        Some(mask.clone()),
    );
    changed[4 * 24..].fill(1e4);
    let after = attention_packed(
        Tensor::from_data(TensorData::new(changed, [1, 5, 24]), &device),
        2,
        Some(mask),
    );
    assert_eq!(host(before.narrow(1, 0, 4)), host(after.narrow(1, 0, 4)));
}

/// Inputs that are not contiguous, in every layout: transposed axes, a part of a batch, a part of the channels.
#[test]
fn strided_inputs_agree_with_copies() {
    let device = Device::flex().autodiff();
    let swapped = tensor([9, 3, 48], 4, &device).swap_dims(0, 1); // [3, 9, 48]
    compare(swapped, 2, None, "swapped");
    compare(
        tensor([4, 9, 48], 5, &device).narrow(0, 1, 2),
        2,
        None,
        "narrowed batch",
    );
    compare(
        tensor([2, 9, 96], 6, &device).narrow(2, 24, 48),
        2,
        None,
        "narrowed channels",
    );
}

/// Logits of any size are possible, because the maximum is subtracted first.
#[test]
fn large_logits_do_not_overflow() {
    let device = Device::flex();
    let qkv = tensor([1, 12, 24], 7, &device) * 100.0;
    at_every_level(|level| {
        let found = host(attention_packed(qkv.clone(), 1, None));
        let expected = host(composed::attention_packed(qkv.clone(), 1, None));
        assert_close(&found, &expected, TOLERANCE, &format!("{level:?}"));
    });
}

#[test]
fn another_float_type_takes_the_composed_form() {
    let device = Device::flex();
    let qkv = tensor::<3>([1, 7, 24], 8, &device).cast(DType::F64);
    let found = attention_packed(qkv.clone(), 2, None);
    assert_eq!(found.dtype(), DType::F64);
    assert_eq!(host(found), host(composed::attention_packed(qkv, 2, None)));
}

#[test]
#[should_panic(expected = "24 channels cannot be divided into queries, keys and values of 3 heads")]
fn channels_that_heads_do_not_divide_are_refused() {
    attention_packed(tensor([1, 2, 24], 9, &Device::flex()), 3, None);
}

/// Compares the gradient with central differences of the weighted sum that `with_gradients` computes.
#[test]
fn the_gradient_agrees_with_central_differences() {
    let device = Device::flex().autodiff();
    let shape = [1, 3, 12];
    let start = values(36, 10);
    let at = |values: Vec<f32>| Tensor::<3>::from_data(TensorData::new(values, shape), &device);
    let (_, [gradient]) = with_gradients([at(start.clone())], |[x]| attention_packed(x, 2, None));
    let weights = host(tensor([1, 3, 4], 99, &device));
    let sum = |values: Vec<f32>| -> f64 {
        let out = host(attention_packed(at(values), 2, None));
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
        assert!(error < 1e-3, "{i}: slope {slope}, gradient {}", gradient[i]);
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
            let qkv = tensor([3, 300, 3 * 4 * 16], 11, &device);
            with_gradients([qkv], |[x]| attention_packed(x, 4, None))
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5) && one == run(5));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_agrees_with_the_composed_form(
        batch in 1_usize..4,
        tokens in 1_usize..50,
        heads in 1_usize..5,
        head in 1_usize..20,
        masked: bool,
        seed: u32,
    ) {
        let device = Device::flex().autodiff();
        let qkv = tensor([batch, tokens, 3 * heads * head], seed, &device);
        let mask = masked.then(|| causal(tokens, &device));
        at_every_level(|level| compare(qkv.clone(), heads, mask.clone(), &format!("{level:?}")));
    }

    /// Each token's result is a mean of values, so it lies between their minimum and maximum.
    #[test]
    fn results_lie_between_values(tokens in 1_usize..40, seed: u32) {
        let qkv = tensor([1, tokens, 3], seed, &Device::flex());
        let v = host(qkv.clone().narrow(2, 2, 1));
        let (low, high) = v.iter().fold((f32::MAX, f32::MIN), |(l, h), &v| (l.min(v), h.max(v)));
        for value in host(attention_packed(qkv, 1, None)) {
            prop_assert!(low - 1e-5 <= value && value <= high + 1e-5);
        }
    }
}
