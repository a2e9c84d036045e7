//! Compares the training-free modes with an independent PyTorch computation.
//!
//! Golden file: `python reference/training_free.py golden` (float64, on a small random CLIP tower and an image that
//! is not square, so that the position table is resized).

#![allow(clippy::unwrap_used)] // helper functions of a test

mod common;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use common::assert_close;
use zeg_image::normalize::Normalization;
use zeg_model::{
    Precision,
    classes::ClassQueries,
    inference::Inference,
    method::{PlainTower, SegmentationModel as _, WindowBatch},
    methods::{
        Methods,
        training_free::{
            DenseAttention, LastBlock, TrainingFree, TrainingFreeConfig,
            refinement::MaskClipRefinement,
        },
    },
    recognize::Recognized,
    scores::WindowScores,
    weights::StateDict,
};

fn golden() -> StateDict {
    file("training_free.safetensors")
}

fn file(name: &str) -> StateDict {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    StateDict::open(&path, &Methods::default().key_tables()).unwrap()
}

/// Returns the file's tower under the names of the reference checkpoints.
fn tower(golden: &StateDict) -> StateDict {
    let mut weights = StateDict::default();
    for key in golden.keys() {
        if let Some(name) = key.strip_prefix("weights.visual.") {
            let tensor = golden.read(key).unwrap().unwrap();
            weights.insert(format!("backbone.{name}"), tensor);
        }
    }
    weights
}

fn tensor<const D: usize>(golden: &StateDict, name: &str) -> Tensor<D> {
    let host = golden.read(name).unwrap().unwrap();
    Tensor::from_data(TensorData::new(host.values, host.shape), &Device::flex())
}

#[test]
fn every_mode_gives_the_reference_numbers() {
    let golden = golden();
    let weights = tower(&golden);
    let Recognized::Clip(PlainTower { encoder, .. }) =
        Recognized::from_weights(&weights, &Methods::default()).unwrap()
    else {
        panic!("the tower is not recognized as CLIP's");
    };
    assert_eq!((encoder.layers, encoder.heads, encoder.patch), (3, 2, 8));
    for (name, attention) in [
        ("clip", DenseAttention::Plain),
        ("maskclip", DenseAttention::MaskClip),
        ("sclip", DenseAttention::Sclip),
        ("naclip", DenseAttention::Naclip),
        ("clearclip", DenseAttention::ClearClip),
    ] {
        for (block, last_block) in [
            ("attention-only", LastBlock::AttentionOnly),
            ("full", LastBlock::Full),
        ] {
            let config = TrainingFreeConfig {
                last_block,
                ..TrainingFreeConfig::new(attention)
            };
            let model = TrainingFree::build(
                &weights,
                &encoder,
                config,
                Normalization::CLIP,
                &Device::flex(),
                Precision::Float,
            )
            .unwrap();
            let windows = WindowBatch {
                images: tensor(&golden, "image"),
                pixels: &[],
            };
            let encoding = model.encode(&windows).unwrap().remove(0);
            assert_close(
                encoding.encoded.patches.clone(),
                &golden,
                &format!("{name}.{block}.patches"),
                name,
            );
            let text = tensor::<2>(&golden, "text");
            let seen = vec![false; text.dims()[0]];
            let classes = ClassQueries::new(text, seen);
            let WindowScores::Logits(logits) = model.score(&encoding, &classes).unwrap() else {
                panic!("{name} has logits");
            };
            assert_close(logits, &golden, &format!("{name}.{block}.logits"), name);
        }
    }
}

#[test]
fn modes_give_different_scores() {
    let golden = golden();
    let of = |mode: &str| {
        golden
            .read(&format!("{mode}.attention-only.logits"))
            .unwrap()
            .unwrap()
    };
    for (a, b) in [
        ("clip", "maskclip"),
        ("maskclip", "sclip"),
        ("sclip", "naclip"),
    ] {
        assert_ne!(of(a).values, of(b).values);
    }
}

/// Golden file: `python reference/training_free_refined.py` (float64, a tower of six blocks).
#[test]
fn the_later_methods_give_the_reference_numbers() {
    let golden = file("training_free_refined.safetensors");
    let weights = tower(&golden);
    let Recognized::Clip(PlainTower { encoder, .. }) =
        Recognized::from_weights(&weights, &Methods::default()).unwrap()
    else {
        panic!("the tower is not recognized as CLIP's");
    };
    assert_eq!((encoder.layers, encoder.heads, encoder.patch), (6, 1, 8));
    for (name, attention) in [
        ("sc-clip", DenseAttention::ScClip),
        ("pearl", DenseAttention::Pearl),
        ("combined", DenseAttention::Combined),
    ] {
        let model = TrainingFree::build(
            &weights,
            &encoder,
            TrainingFreeConfig::new(attention),
            Normalization::CLIP,
            &Device::flex(),
            Precision::Float,
        )
        .unwrap();
        let windows = WindowBatch {
            images: tensor(&golden, "image"),
            pixels: &[],
        };
        let encoding = model.encode(&windows).unwrap().remove(0);
        let of = |part: &str| format!("{name}.{part}");
        assert_close(
            encoding.encoded.patches.clone(),
            &golden,
            &of("patches"),
            name,
        );
        assert_close(
            encoding.encoded.global.clone(),
            &golden,
            &of("global"),
            name,
        );
        let text = tensor::<2>(&golden, "text");
        let seen = vec![false; text.dims()[0]];
        let classes = ClassQueries::new(text, seen);
        let WindowScores::Logits(logits) = model.score(&encoding, &classes).unwrap() else {
            panic!("{name} has logits");
        };
        assert_close(logits, &golden, &of("logits"), name);
    }
}

#[test]
fn the_combination_also_encodes_the_whole_image() {
    let golden = golden();
    let weights = tower(&golden);
    let Recognized::Clip(PlainTower { encoder, .. }) =
        Recognized::from_weights(&weights, &Methods::default()).unwrap()
    else {
        panic!("the tower is not recognized as CLIP's");
    };
    let config = TrainingFreeConfig::new(DenseAttention::Combined);
    let build = |config| {
        TrainingFree::build(
            &weights,
            &encoder,
            config,
            Normalization::CLIP,
            &Device::flex(),
            Precision::Float,
        )
    };
    let model = build(config).unwrap();
    let settings = Inference {
        crop: 32,
        stride: 16,
        ..config.default_inference()
    };
    let planned = model.plan([40, 56], &settings).unwrap();
    assert_eq!(planned.iter().filter(|it| it.layer == 1).count(), 1);
    assert_eq!(planned[0].resized, Some([32, 32]));
    // An image of one window has this view already.
    assert_eq!(model.plan([32, 32], &settings).unwrap().len(), 1);
    let full = TrainingFreeConfig {
        last_block: LastBlock::Full,
        ..config
    };
    let message = build(full).unwrap_err().to_string();
    assert!(message.contains("last-block full"), "{message}");
}

/// The refinements themselves are compared with the released code; here, that they get the scores and keys of any method.
#[test]
fn every_method_can_refine_its_scores_as_maskclip_does() {
    let golden = file("training_free_refined.safetensors");
    let weights = tower(&golden);
    let Recognized::Clip(PlainTower { encoder, .. }) =
        Recognized::from_weights(&weights, &Methods::default()).unwrap()
    else {
        panic!("the tower is not recognized as CLIP's");
    };
    let text = tensor::<2>(&golden, "text");
    let seen = vec![false; text.dims()[0]];
    let classes = ClassQueries::new(text, seen);
    let run = |config| {
        let model = TrainingFree::build(
            &weights,
            &encoder,
            config,
            Normalization::CLIP,
            &Device::flex(),
            Precision::Float,
        )
        .unwrap();
        let windows = WindowBatch {
            images: tensor(&golden, "image"),
            pixels: &[],
        };
        let encoding = model.encode(&windows).unwrap().remove(0);
        let WindowScores::Logits(logits) = model.score(&encoding, &classes).unwrap() else {
            panic!("a training-free method has logits");
        };
        (logits, model.encoding_bytes(&encoding))
    };
    let values = |logits: Tensor<4>| -> Vec<f32> { logits.into_data().try_to_vec().unwrap() };
    for attention in [
        DenseAttention::MaskClip,
        DenseAttention::ClearClip,
        DenseAttention::ScClip,
        DenseAttention::Combined,
    ] {
        let config = TrainingFreeConfig::new(attention);
        let (plain, bytes) = run(config);
        let [_, count, h, w] = plain.dims();
        let threshold = 0.9;
        let (denoised, same) = run(TrainingFreeConfig {
            prompt_denoising: threshold,
            ..config
        });
        assert_eq!(same, bytes, "{attention:?}");
        let refinement = MaskClipRefinement {
            prompt_denoising: threshold,
            key_smoothing: 0.0,
        };
        let cosines = plain.clone().reshape([1, count, h * w]) / config.logit_scale;
        let expected = refinement.apply(cosines, None) * config.logit_scale;
        let expected = values(expected.reshape([1, count, h, w]));
        for (found, expected) in values(denoised).into_iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-3,
                "{attention:?}: {found} {expected}"
            );
        }
        let (smoothed, more) = run(TrainingFreeConfig {
            key_smoothing: 1.0,
            ..config
        });
        assert_eq!(
            more,
            bytes + (h * w * encoder.width * 4) as u64,
            "{attention:?}"
        );
        let smoothed = values(smoothed);
        assert!(
            smoothed.iter().all(|value| value.is_finite()),
            "{attention:?}"
        );
        assert_ne!(smoothed, values(plain), "{attention:?}");
    }
}
