//! Region tokens in the encoder against CLIP-RC's reference encoder, where its vectors are at hand.
#![allow(clippy::unwrap_used)] // in tests

use std::{io::Write as _, path::Path};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_model::{
    Precision,
    config::{Activation, PromptConfig, PromptDepth, VisionConfig},
    trace::Trace,
    vision::VisionTransformer,
    weights::{HostTensor, ParamBuilder, StateDict},
};

#[test]
fn an_encoder_with_region_tokens_agrees_with_the_reference() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/vectors/clip-rc/cliprc_inductive_a.safetensors");
    if !file.is_file() {
        // Straight to standard error: the test harness would swallow `eprintln!`.
        let line = format!(
            "skipped: no reference vectors of CLIP-RC at {}\n",
            file.display()
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let vectors = StateDict::open(&file).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&vectors.metadata()["meta"]).unwrap();
    let number = |name: &str| meta["config"][name].as_u64().unwrap() as usize;
    let read = |key: &str| vectors.read(key).unwrap().unwrap();
    let mut weights = StateDict::default();
    let keys: Vec<String> = vectors
        .keys()
        .filter_map(|key| key.strip_prefix("state."))
        .map(str::to_owned)
        .collect();
    for key in keys {
        let tensor = read(&format!("state.{key}"));
        weights.insert(key, tensor);
    }
    let config = VisionConfig {
        patch: number("patch"),
        width: number("width"),
        layers: number("layers"),
        heads: number("heads"),
        embed_dim: number("out_dim"),
        input_resolution: number("res"),
        double_class_embedding: true,
        activation: Activation::default(),
        prompts: Some(PromptConfig {
            tokens: number("tokens"),
            depth: PromptDepth::First(number("depth") + 1),
            dropout: 0.0,
        }),
        regions: weights
            .shape("backbone.region_level_bridge")
            .map(|shape| shape[0]),
    };
    let device = Device::flex();
    let params = ParamBuilder::packed(&weights, &device, 0, Precision::Float).unwrap();
    let encoder = VisionTransformer::build(&params.at("backbone"), &config).unwrap();

    let HostTensor { shape, values } = read("in.image");
    let mut trace = Trace::on();
    let images = Tensor::<4>::from_data(TensorData::new(values, shape), &device);
    let regions = encoder.forward(images, &mut trace).regions.unwrap(); // [batch, regions, dim]
    let [batch, count, dim] = regions.dims();
    let side = count.isqrt();
    trace.record(
        "rlb",
        &regions.swap_dims(1, 2).reshape([batch, dim, side, side]),
    );
    let found = trace.into_recorded();
    let last_block = format!("block{}", config.layers - 1);
    for name in [
        "pre_ln_tokens",
        "ln_pre",
        "block0",
        &last_block,
        "prompt_norm",
        "ln_post",
        "rlb",
    ] {
        let expected = read(&format!("eval.{name}"));
        let values: Vec<f32> = found[name].clone().try_into_vec().unwrap();
        assert_eq!(values.len(), expected.values.len(), "{name}");
        let rms = (expected.values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32).sqrt();
        let worst = values
            .iter()
            .zip(&expected.values)
            .fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst <= 3e-5 * rms, "{name}: {worst} of RMS {rms}");
    }
}
