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
    method::{PlainTower, SegmentationModel as _, WindowBatch},
    methods::{
        Methods,
        training_free::{DenseAttention, LastBlock, TrainingFree, TrainingFreeConfig},
    },
    recognize::Recognized,
    scores::WindowScores,
    weights::StateDict,
};

fn golden() -> StateDict {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/training_free.safetensors");
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
            let encoded = model.encode(&windows).unwrap().remove(0);
            assert_close(
                encoded.patches.clone(),
                &golden,
                &format!("{name}.{block}.patches"),
                name,
            );
            let text = tensor::<2>(&golden, "text");
            let seen = vec![false; text.dims()[0]];
            let classes = ClassQueries::new(text, seen);
            let WindowScores::Logits(logits) = model.score(&encoded, &classes).unwrap() else {
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
