//! Compares models with packed weights with the same models with plain tensors.
#![allow(clippy::unwrap_used)] // helper functions of a test

use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use zeg_model::{
    ModelError, Precision,
    classes::ClassQueries,
    config::{HeadConfig, PromptConfig, PromptDepth, VisionConfig},
    method::{Architecture, Model, PlainTower, WindowBatch},
    methods::{Methods, clip_rc::ClipRcConfig, zegclip::ZegClipConfig},
    params::kept_values,
    recognize::Recognized,
    scores::WindowScores,
    weights::{HostTensor, StateDict},
};

/// Returns the small CLIP tower on which the training-free methods are compared.
fn tower() -> (StateDict, VisionConfig) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/training_free.safetensors");
    let golden = StateDict::open(&path, &Methods::default().key_tables()).unwrap();
    let mut weights = StateDict::default();
    for key in golden.keys() {
        if let Some(name) = key.strip_prefix("weights.visual.") {
            let tensor = golden.read(key).unwrap().unwrap();
            weights.insert(format!("backbone.{name}"), tensor);
        }
    }
    let Recognized::Clip(PlainTower { encoder, .. }) =
        Recognized::from_weights(&weights, &Methods::default()).unwrap()
    else {
        panic!("the tower is not recognized as CLIP's");
    };
    (weights, encoder)
}

/// Returns models of both methods on the tower, with prompts in two blocks, and region tokens for CLIP-RC.
fn methods(encoder: &VisionConfig) -> [Box<dyn Architecture>; 2] {
    let prompted = VisionConfig {
        prompts: Some(PromptConfig {
            tokens: 3,
            depth: PromptDepth::First(2),
            dropout: 0.0,
        }),
        ..encoder.clone()
    };
    let head = HeadConfig {
        heads: 2,
        feed_forward: 24,
        ..HeadConfig::default()
    };
    [
        Box::new(ZegClipConfig {
            tune_encoder: false,
            head: head.clone(),
            encoder: prompted.clone(),
        }),
        Box::new(ClipRcConfig {
            tune_encoder: false,
            head,
            encoder: VisionConfig {
                regions: Some(4),
                ..prompted
            },
        }),
    ]
}

/// Returns the weights of a model with initial prompts and head: a model for inference must be whole.
fn whole(config: &dyn Architecture, weights: &StateDict) -> StateDict {
    let (model, provenance) = config.build(weights, &Device::flex(), 0).unwrap();
    let mut weights = weights.clone();
    for param in kept_values(&*model, |_| true) {
        if provenance.initialized.contains(&param.name) {
            let (shape, values) = (param.shape, param.values);
            weights.insert(
                config.weight_name(&param.name),
                HostTensor { shape, values },
            );
        }
    }
    weights
}

/// Computes masks of two images, `[2, 5, h, w]`.
fn masks(model: &dyn Model, images: &Tensor<4>, text: &Tensor<2>) -> Vec<f32> {
    let windows = WindowBatch {
        images: images.clone(),
        pixels: &[],
    };
    let classes = ClassQueries::new(text.clone(), vec![false; text.dims()[0]]);
    let encodings = model.encode(&windows).unwrap();
    let masks = encodings.iter().flat_map(|encoding| {
        let WindowScores::Logits(logits) = model.score(encoding, &classes).unwrap() else {
            panic!("these methods give logits");
        };
        let values: Vec<f32> = logits.into_data().convert::<f32>().try_into_vec().unwrap();
        values
    });
    masks.collect()
}

fn worst(found: &[f32], expected: &[f32]) -> f32 {
    let scale = expected.iter().fold(0.0_f32, |scale, v| scale.max(v.abs()));
    let distances = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    distances.fold(0.0, f32::max) / scale
}

#[test]
fn packed_models_agree_with_plain_ones() {
    let device = Device::flex();
    let (weights, encoder) = tower();
    let side = 5 * encoder.patch;
    let random = Distribution::Normal(0.0, 1.0);
    let images = Tensor::<4>::random([2, 3, side, side + encoder.patch], random, &device);
    let text = Tensor::<2>::random([5, encoder.embed_dim], random, &device);
    for config in methods(&encoder) {
        let method = config.title();
        let weights = whole(&*config, &weights);
        let plain = config.build(&weights, &device, 0).unwrap().0;
        let expected = masks(&*plain, &images, &text);
        let packed = config
            .build_packed(&weights, &device, Precision::Float)
            .unwrap();
        let found = masks(&*packed, &images, &text);
        assert_eq!(found.len(), expected.len());
        let distance = worst(&found, &expected);
        assert!(distance < 2e-5, "{method}: {distance}");
        assert_eq!(
            found,
            masks(&*packed, &images, &text),
            "{method}: the second pass differs from the first"
        );

        let rounded = config
            .build_packed(&weights, &device, Precision::Bf16)
            .unwrap();
        let distance = worst(&masks(&*rounded, &images, &text), &expected);
        assert!(distance < 0.02, "{method}, bf16: {distance}");
        assert!(distance > 1e-4, "{method}, bf16 was not used: {distance}");

        let integers = config
            .build_packed(&weights, &device, Precision::Int8)
            .unwrap();
        let distance = worst(&masks(&*integers, &images, &text), &expected);
        assert!(distance < 0.1, "{method}, int8: {distance}");
        assert!(distance > 1e-4, "{method}, int8 was not used: {distance}");
    }
}

#[test]
fn a_trained_model_that_lacks_any_parameter_is_not_opened() {
    let device = Device::flex();
    let (weights, encoder) = tower();
    for config in methods(&encoder) {
        let whole = whole(&*config, &weights);
        assert_eq!(config.missing(&whole).unwrap(), [""; 0]);
        let names = config.params().unwrap().into_iter().map(|param| param.name);
        let stored: Vec<String> = names.filter(|name| config.trains(name)).collect();
        assert!(stored.len() > 20, "{stored:?}");
        for name in stored {
            let mut rest = StateDict::default();
            for key in whole.keys().filter(|key| *key != name) {
                rest.insert(key.to_owned(), whole.read(key).unwrap().unwrap());
            }
            assert_eq!(config.missing(&rest).unwrap(), [name.as_str()]);
            let error = config
                .build_packed(&rest, &device, Precision::Float)
                .unwrap_err();
            assert!(
                matches!(&error, ModelError::MissingTensor { key, .. } if *key == name),
                "{name}: {error}"
            );
        }
    }
}

#[test]
fn integers_are_only_for_inference_on_the_cpu() {
    let (weights, encoder) = tower();
    let device = Device::flex().autodiff();
    for config in methods(&encoder) {
        let weights = whole(&*config, &weights);
        let error = config
            .build_packed(&weights, &device, Precision::Int8)
            .unwrap_err();
        assert!(error.to_string().contains("on the CPU"), "{error}");
        assert!(
            config
                .build_packed(&weights, &device, Precision::Float)
                .is_ok()
        );
    }
}
