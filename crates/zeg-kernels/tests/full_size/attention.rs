//! Tests of attention, with and without a mask, and of its gradient.

use burn::tensor::{Device, Tensor, TensorData};
use zeg_kernels::attention_packed;

use crate::{
    common::{at_every_level, host, tensor, with_gradients},
    compare::{Deviation, Pinned},
    reference::{Attention, wide},
};

/// The limits of the result and of the gradients of queries, keys and values.
struct Limits {
    out: f64,
    qkv: [f64; 3],
}

/// Measured at the sizes of the models: AVX-512 and AVX2 9.9e-6 and 1.7e-5, 1.0e-5, 9.5e-6; portable 9.8e-6 and 1.6e-5,
/// 1.2e-5, 9.6e-6. Around tiles: 1.1e-5 and 1.5e-5, 8.9e-6, 7.5e-6; portable 1.1e-5 and 1.4e-5, 9.0e-6, 7.8e-6.
const LIMITS: Limits = Limits {
    out: 3e-5,
    qkv: [5e-5, 3e-5, 3e-5],
};

/// Returns a mask `[tokens, tokens]` that hides a third of the keys, and from some queries all keys but their own.
pub(crate) fn scattered(tokens: usize) -> Vec<f32> {
    let hidden = |query: usize, key: usize| {
        query != key && (query % 97 == 3 || (query * 31 + key * 17 + query * key).is_multiple_of(3))
    };
    (0..tokens * tokens)
        .map(|i| {
            if hidden(i / tokens, i % tokens) {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        })
        .collect()
}

/// Returns a mask in which tokens do not attend to later tokens.
pub(crate) fn causal(tokens: usize) -> Vec<f32> {
    (0..tokens * tokens)
        .map(|i| {
            if i % tokens > i / tokens {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        })
        .collect()
}

/// Returns a mask as a tensor.
pub(crate) fn mask_tensor(mask: &[f32], device: &Device) -> Tensor<2> {
    let tokens = mask.len().isqrt();
    Tensor::from_data(TensorData::new(mask.to_vec(), [tokens, tokens]), device)
}

/// Returns `[batch, tokens, 3·width]` with queries so large that each attends to few keys, as in trained models.
fn packed(batch: usize, attention: &Attention, device: &Device) -> Tensor<3> {
    let width = attention.width();
    let qkv = tensor([batch, attention.tokens, 3 * width], 1, device);
    let scales: Vec<f32> = (0..3 * width)
        .map(|channel| if channel < width { 2.5 } else { 1.0 })
        .collect();
    qkv * Tensor::<1>::from_floats(scales.as_slice(), device).reshape([1, 1, 3 * width])
}

/// Returns the part of `[tokens, 3·width]` that holds queries (0), keys (1) or values (2): `[tokens, width]`.
fn part<T: Copy>(packed: &[T], width: usize, part: usize) -> Vec<T> {
    let rows = packed.chunks_exact(3 * width);
    rows.flat_map(|row| row[part * width..][..width].iter().copied())
        .collect()
}

/// Checks result and gradient against their limits at every level.
fn pin(batch: usize, attention: &Attention, mask: Option<&[f32]>) {
    let device = Device::flex().autodiff();
    let width = attention.width();
    let qkv = packed(batch, attention, &device);
    let exact = wide(&host(qkv.clone()));
    let weights: Tensor<3> = tensor([batch, attention.tokens, width], 99, &device);
    let expected = attention.forward(&exact);
    let expected_gradient = attention.backward(&exact, &wide(&host(weights)));
    let mask = mask.map(|mask| mask_tensor(mask, &device));
    at_every_level(|level| {
        let found = with_gradients([qkv.clone()], |[x]| {
            attention_packed(x, attention.heads, mask.clone())
        });
        let Attention {
            tokens,
            heads,
            head,
            ..
        } = attention;
        let what = format!(
            "{level:?} attention {batch}×{tokens} tokens, {heads}×{head}, mask {}",
            mask.is_some()
        );
        Pinned {
            what: &format!("{what}: result"),
            found: &found.0,
            expected: &expected,
            row: width,
            head: Some(*head),
            limit: LIMITS.out,
        }
        .holds();
        for (index, name) in ["queries", "keys", "values"].into_iter().enumerate() {
            Pinned {
                what: &format!("{what}: gradient of {name}"),
                found: &part(&found.1[0], width, index),
                expected: &part(&expected_gradient, width, index),
                row: width,
                head: Some(*head),
                limit: LIMITS.qkv[index],
            }
            .holds();
        }
    });
}

#[test]
fn at_the_size_of_a_crop() {
    let attention = Attention {
        tokens: 1035,
        heads: 12,
        head: 64,
        mask: None,
    };
    pin(1, &attention, None);
}

#[test]
fn at_the_size_of_a_crop_with_region_tokens_and_a_mask() {
    let mask = scattered(1051);
    let attention = Attention {
        tokens: 1051,
        heads: 12,
        head: 64,
        mask: Some(wide(&mask)),
    };
    pin(1, &attention, Some(&mask));
}

#[test]
fn at_the_size_of_texts() {
    let mask = causal(77);
    let attention = Attention {
        tokens: 77,
        heads: 8,
        head: 64,
        mask: Some(wide(&mask)),
    };
    pin(20, &attention, Some(&mask));
}

/// Tiles have 192 query rows for few tokens and 120 for a thousand; panels of keys have 8, 24 or 48 columns.
#[test]
fn around_the_tiles_of_queries_and_keys() {
    for tokens in [
        191, 192, 193, 383, 384, 385, 1055, 1056, 1057, 1079, 1080, 1081,
    ] {
        let attention = Attention {
            tokens,
            heads: 1,
            head: 64,
            mask: None,
        };
        pin(1, &attention, None);
    }
}

/// Tiles have 4, 6 or 8 rows and 8, 16, 24, 48 or 64 columns.
#[test]
fn around_the_tiles_of_tokens_and_channels() {
    for tokens in [7, 8, 9, 11, 12, 13, 23, 24, 25, 47, 48, 49] {
        let mask = scattered(tokens);
        for head in [7, 8, 9, 15, 16, 17, 23, 24, 25, 47, 48, 49, 63, 64, 65] {
            let mut attention = Attention {
                tokens,
                heads: 2,
                head,
                mask: None,
            };
            pin(2, &attention, None);
            attention.mask = Some(wide(&mask));
            pin(2, &attention, Some(&mask));
        }
    }
}

/// The results of some wrong kernels are far from the right one: without the mask, with the mask transposed, without
/// the values of the last token.
#[test]
fn a_wrong_mask_and_a_lost_token_are_found() {
    let device = Device::flex();
    let mask = scattered(1051);
    let mut attention = Attention {
        tokens: 1051,
        heads: 2,
        head: 64,
        mask: Some(wide(&mask)),
    };
    let qkv = packed(1, &attention, &device);
    let mut exact = wide(&host(qkv.clone()));
    let found = host(attention_packed(qkv, 2, Some(mask_tensor(&mask, &device))));
    let deviation = |expected: &[f64]| Deviation::of(&found, expected).worst;
    assert!(deviation(&attention.forward(&exact)) < LIMITS.out);

    attention.mask = None;
    assert!(
        deviation(&attention.forward(&exact)) > 1e3 * LIMITS.out,
        "no mask"
    );
    attention.mask = Some(crate::reference::transposed(&wide(&mask), 1051));
    assert!(
        deviation(&attention.forward(&exact)) > 1e3 * LIMITS.out,
        "transposed mask"
    );
    attention.mask = Some(wide(&mask));
    exact[1050 * 3 * 128 + 256..].fill(0.0);
    assert!(
        deviation(&attention.forward(&exact)) > 1e2 * LIMITS.out,
        "last token's values"
    );
}
