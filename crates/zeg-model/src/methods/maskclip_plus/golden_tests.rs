//! Compares a small model with an independent PyTorch computation.
//!
//! Golden file: `python reference/maskclip_plus.py` (float64; weights under the names of the published checkpoints).

use std::{collections::HashMap, path::Path};

use burn::tensor::{Device, Tensor, TensorData, activation::softmax};
use safetensors::{Dtype, tensor::TensorView};

use super::*;
use crate::{
    Precision,
    method::Architecture as _,
    methods::{Methods, training_free::refinement::MaskClipRefinement},
    params::{add_observations, kept_values},
    weights::StateDict,
};

fn golden() -> StateDict {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/maskclip_plus.safetensors");
    StateDict::open(&path, &[]).unwrap()
}

/// Returns the weights as they are read from a published checkpoint.
fn published(golden: &StateDict) -> StateDict {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = (golden.keys())
        .filter_map(|key| {
            let tensor = golden.read(key).unwrap()?;
            let bytes = tensor.values.iter().flat_map(|value| value.to_le_bytes());
            let name = key.strip_prefix("state.")?.to_owned();
            Some((name, tensor.shape, bytes.collect()))
        })
        .collect();
    let entries = tensors.iter().map(|(name, shape, bytes)| {
        let entry = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.as_str(), entry)
    });
    let bytes = safetensors::serialize(entries, None::<HashMap<String, String>>).unwrap();
    StateDict::from_bytes("published", bytes, &Methods::default().key_tables()).unwrap()
}

fn tensor<const D: usize>(golden: &StateDict, name: &str) -> Tensor<D> {
    let host = golden.read(name).unwrap().unwrap();
    Tensor::from_data(TensorData::new(host.values, host.shape), &Device::flex())
}

/// Compares values with a tensor of the golden file, as a share of its largest value.
fn assert_close(golden: &StateDict, name: &str, found: &[f32], limit: f32) {
    let expected = golden.read(name).unwrap().unwrap().values;
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(&expected) {
        let difference = (found - expected).abs();
        assert!(difference <= limit * largest, "{name}: {found} {expected}");
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.without_autodiff().into_data().try_to_vec().unwrap()
}

/// Takes the reference's values where a class has all but 1e-6 of the probability.
///
/// Key smoothing leaves a position as it is if its largest probability is 1. Single precision rounds to 1 where the
/// reference's double precision does not, so that these positions cannot be compared.
fn take_saturated(golden: &StateDict, name: &str, found: &mut [f32]) {
    let plain = tensor::<4>(golden, "guide.plain");
    let [batch, classes, h, w] = plain.dims();
    let largest = values(softmax(plain * 100.0, 1).max_dim(1)); // [batch, 1, h, w]
    let expected = golden.read(name).unwrap().unwrap().values;
    let position = |index: usize| index / (classes * h * w) * h * w + index % (h * w);
    let is_compared = |index: usize| largest[position(index)] < 1.0 - 1e-6;
    assert!(
        (0..batch * classes * h * w)
            .filter(|&index| is_compared(index))
            .count()
            >= 3 * classes
    );
    for (index, (found, expected)) in found.iter_mut().zip(expected).enumerate() {
        if !is_compared(index) {
            *found = expected;
        }
    }
}

fn config(weights: &StateDict) -> MaskClipPlusConfig {
    assert_eq!(weights.family(), "MaskCLIP+");
    MaskClipPlusConfig::from_weights(weights).unwrap()
}

#[test]
fn training_gives_the_reference_numbers() {
    let golden = golden();
    let weights = published(&golden);
    let (model, provenance) =
        (config(&weights).build(&weights, &Device::flex().autodiff(), 0)).unwrap();
    assert_eq!(provenance.initialized, [""; 0]);
    let mut model = model
        .as_any()
        .downcast_ref::<MaskClipPlus>()
        .unwrap()
        .clone();
    let mut statistics = Statistics::of_batch();
    let images = tensor::<4>(&golden, "images");
    let features = model.features(images.clone(), &mut statistics, &mut Trace::off());
    assert_close(&golden, "train.features", &values(features), 2e-5);
    let observed = statistics.collected();
    add_observations(&mut model, observed);
    let mut compared = 0;
    for param in kept_values(&model, MaskClipPlus::is_running) {
        let name = param.name.replace("student.", "backbone.");
        let name = format!("train.{name}");
        if golden.contains(&name) {
            assert_close(&golden, &name, &param.values, 2e-5);
            compared += 1;
        }
    }
    assert_eq!(compared, 6);

    let guide = model.decode_head.clip.as_ref().unwrap();
    let seen = guide.forward(images, &mut Trace::off());
    for (name, prompt_denoising, key_smoothing) in [
        ("plain", 0.0, 0.0),
        ("pd", 0.5, 0.0),
        ("ks", 0.0, 1.0),
        ("kspd", 0.5, 1.0),
    ] {
        let refinement = MaskClipRefinement {
            prompt_denoising,
            key_smoothing,
        };
        let mut scores = values(seen.scores(tensor(&golden, "text"), &refinement));
        let name = format!("guide.{name}");
        if name == "guide.ks" {
            take_saturated(&golden, &name, &mut scores);
        }
        assert_close(&golden, &name, &scores, 1e-4);
    }
}

/// Normalisations that are multiplied into the kernels, and those that are not, give the same numbers.
#[test]
fn inference_gives_the_reference_numbers() {
    let golden = golden();
    let weights = published(&golden);
    let config = config(&weights);
    let device = Device::flex();
    let packed = config
        .build_packed(&weights, &device, Precision::Float)
        .unwrap();
    let (plain, _) = config.build(&weights, &device, 0).unwrap();
    for model in [packed, plain] {
        let model = model.as_any().downcast_ref::<MaskClipPlus>().unwrap();
        let images = tensor::<4>(&golden, "images");
        let features = model.features(images, &mut Statistics::Stored, &mut Trace::off());
        let logits = model.logits(features, tensor(&golden, "text"), Some(1));
        assert_close(&golden, "eval.logits", &values(logits), 2e-5);
    }
}

#[test]
fn a_model_for_inference_has_no_guide_and_needs_no_statistics_of_it() {
    let weights = published(&golden());
    let config = config(&weights);
    assert!(config.background && config.head == StudentHead::DeeplabV3Plus);
    let packed = config
        .build_packed(&weights, &Device::flex(), Precision::Float)
        .unwrap();
    let mut names = Vec::new();
    packed.each(&mut |name, _| names.push(name.to_owned()));
    assert!(
        names.iter().all(|name| MaskClipPlus::is_students(name)),
        "{names:?}"
    );
    let missing = (&config as &dyn crate::method::Architecture)
        .missing(&weights)
        .unwrap();
    assert_eq!(missing, [""; 0]);
}
