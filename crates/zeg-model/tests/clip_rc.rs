//! Tests of a freshly initialised CLIP-RC model on a small reference encoder; `zeg-parity` compares its numbers.
#![allow(clippy::unwrap_used)] // in tests

use std::path::Path;

use burn::tensor::Device;
use zeg_model::{
    config::{Activation, HeadConfig, VisionConfig},
    methods::{
        Methods,
        clip_rc::{ClipRc, ClipRcConfig},
    },
    params::trained_values,
    weights::StateDict,
};

/// Returns the frozen encoder of the reference vectors, without region tokens, prompts and head.
fn encoder() -> StateDict {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../zeg-parity/tests/golden/cliprc_eps_a.safetensors");
    let vectors = StateDict::open(&file, &Methods::default().key_tables()).unwrap();
    let mut weights = StateDict::default();
    for key in vectors.keys() {
        if let Some(name) = key.strip_prefix("state.")
            && name.starts_with("backbone.")
            && !name.contains("prompt")
            && !name.contains("region")
        {
            weights.insert(name.to_owned(), vectors.read(key).unwrap().unwrap());
        }
    }
    weights
}

fn config(regions: Option<usize>) -> ClipRcConfig {
    ClipRcConfig {
        encoder: VisionConfig {
            patch: 8,
            width: 24,
            layers: 2,
            heads: 2,
            embed_dim: 16,
            input_resolution: 32,
            double_class_embedding: true,
            activation: Activation::default(),
            prompts: None,
            regions,
        },
        head: HeadConfig {
            heads: 2,
            ..HeadConfig::default()
        },
        tune_encoder: false,
    }
}

#[test]
fn region_tokens_start_as_class_token_and_position_and_are_never_trained() {
    let weights = encoder();
    let (model, provenance) =
        ClipRc::build(&weights, &config(Some(4)), &Device::flex().autodiff(), 7).unwrap();
    let tokens = model.backbone.region_level_bridge.as_ref().unwrap();
    assert!(!tokens.is_require_grad());
    let tokens: Vec<f32> = tokens.val().into_data().try_into_vec().unwrap();
    let read = |name: &str| weights.read(name).unwrap().unwrap().values;
    let (class, positions) = (
        read("backbone.class_embedding"),
        read("backbone.positional_embedding"),
    );
    let first: Vec<f32> = class.iter().zip(&positions).map(|(c, p)| c + p).collect();
    assert_eq!(tokens, first.repeat(4));
    let fresh = provenance.initialized.iter();
    assert!(
        fresh
            .into_iter()
            .all(|name| name.starts_with("decode_head."))
    );
}

#[test]
fn decoders_start_as_in_the_reference() {
    let device = Device::flex().autodiff();
    let (model, _) = ClipRc::build(&encoder(), &config(Some(4)), &device, 7).unwrap();
    let values = trained_values(&model);
    let of = |name: &str| {
        let name = format!("decode_head.{name}");
        let found = values.iter().find(|param| param.name == name);
        found.unwrap_or_else(|| panic!("{name}")).values.clone()
    };
    // The layers of one decoder are copies of its first layer; the two decoders are different.
    let weight =
        |decoder: &str, layer: usize| of(&format!("{decoder}.layers.{layer}.linear1.weight"));
    assert_eq!(weight("decoder_q", 0), weight("decoder_q", 2));
    assert_ne!(weight("decoder_q", 0), weight("decoder_v", 0));
    // 1/√in bounds the weights of the layer with 2048 hidden channels as input.
    let largest = |values: Vec<f32>| values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let bound = largest(of("decoder_v.layers.1.linear2.weight"));
    assert!((0.0219..0.0221).contains(&bound), "{bound}");
    // Recovery decoder: weights normal with a standard deviation of 0.02, biases 0.
    let wide = of("recovery_decoder.decouple_v.0.linear1.weight");
    let deviation = (wide.iter().map(|v| v * v).sum::<f32>() / wide.len() as f32).sqrt();
    assert!((deviation - 0.02).abs() < 5e-4, "{deviation}");
    assert!(largest(of("recovery_decoder.linear_q_out.bias")) < f32::MIN_POSITIVE);
}

#[test]
fn clip_rc_without_region_tokens_is_refused() {
    for regions in [None, Some(0)] {
        let error = ClipRc::build(&encoder(), &config(regions), &Device::flex(), 0).unwrap_err();
        assert!(error.to_string().contains("region tokens"), "{error}");
    }
}
