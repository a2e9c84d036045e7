//! Compares features of weights in every published format with the packages that made the files.
//!
//! Small files: `python reference/clip_formats.py --size small crates/zeg-weights/tests/golden`. The same at the size
//! of ViT-B/16 is an ignored test: `python reference/clip_formats.py --size full DIR`, then
//! `ZEG_CLIP_FORMATS=DIR cargo test -p zeg-model --test published_formats -- --ignored`.

#![allow(clippy::unwrap_used)] // helper functions of a test

mod common;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use common::assert_close;
use zeg_model::{
    Precision,
    method::{PlainTower, SegmentationModel as _, WindowBatch},
    methods::{
        Methods,
        training_free::{DenseAttention, LastBlock, TrainingFree, TrainingFreeConfig},
        zegclip::ZegClip,
    },
    params::list_params,
    recognize::{Recognized, text_config},
    text::TextTower,
    trace::Trace,
    weights::{ParamBuilder, StateDict},
};

/// Files with both towers, and the prefix of the names of their expected features.
const TOWERS: [(&str, &str); 5] = [
    ("openai/vit.pt", ""),
    ("huggingface/model.safetensors", ""),
    ("open_clip/open_clip_model.safetensors", ""),
    (
        "open_clip_gelu_custom_text/open_clip_pytorch_model.bin",
        "gelu.",
    ),
    ("mmcv/zegclip.pth", ""),
];

fn small() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../zeg-weights/tests/golden")
}

/// Compares image and text features of one file with the expected ones.
fn compare(folder: &Path, file: &str, prefix: &str) {
    let device = Device::flex();
    let expected = StateDict::open(
        &folder.join("expected.safetensors"),
        &Methods::default().key_tables(),
    )
    .unwrap();
    let images = expected.read("images").unwrap().unwrap();
    let images = Tensor::<4>::from_data(TensorData::new(images.values, images.shape), &device);
    let weights = StateDict::open(&folder.join(file), &Methods::default().key_tables()).unwrap();

    // A released ZegCLIP checkpoint adds prompts to CLIP's tower, so its image features are not CLIP's.
    if let Recognized::Clip(PlainTower {
        encoder,
        normalization,
    }) = Recognized::from_weights(&weights, &Methods::default()).unwrap()
    {
        let config = TrainingFreeConfig {
            last_block: LastBlock::Full,
            ..TrainingFreeConfig::new(DenseAttention::Plain)
        };
        let model = TrainingFree::build(
            &weights,
            &encoder,
            config,
            normalization,
            &device,
            Precision::Float,
        )
        .unwrap();
        let [count, dim] = expected
            .shape(&format!("{prefix}image_features_normalised"))
            .unwrap()[..]
        else {
            panic!("image features must be a matrix");
        };
        let pixels = &[];
        let encoded = model.encode(&WindowBatch { images, pixels }).unwrap();
        let rows = encoded
            .into_iter()
            .map(|encoded| encoded.encoded.global)
            .collect();
        let features = Tensor::cat(rows, 0).reshape([count, dim]);
        assert_close(
            features,
            &expected,
            &format!("{prefix}image_features_normalised"),
            file,
        );
    }

    let config = text_config(&weights).unwrap().unwrap();
    let frozen = |_: &str| false;
    let params = ParamBuilder::new(&weights, &device, 0, &frozen);
    let tower = TextTower::build(&params.at("text_encoder"), &config).unwrap();
    let tokens = token_ids(folder);
    let features = tower.forward(&tokens, &mut Trace::off());
    assert_close(features, &expected, &format!("{prefix}text_features"), file);
}

/// Reads `tokens` of the expected features; they are integers and so are not read as weights.
fn token_ids(folder: &Path) -> Vec<Vec<u32>> {
    let bytes = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tokens = file.tensor("tokens").unwrap();
    let length = tokens.shape()[1];
    let ids: Vec<u32> = tokens
        .data()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|id| i64::from_le_bytes(*id) as u32)
        .collect();
    ids.chunks(length).map(<[u32]>::to_vec).collect()
}

#[test]
fn features_agree_with_the_packages() {
    for (file, prefix) in TOWERS {
        compare(&small(), file, prefix);
    }
}

#[test]
fn a_released_checkpoint_is_recognized_with_its_prompts_and_head() {
    let methods = Methods::default();
    let file = small().join("mmcv/zegclip.pth");
    let weights = StateDict::open(&file, &methods.key_tables()).unwrap();
    let Recognized::Trained(found) = Recognized::from_weights(&weights, &methods).unwrap() else {
        panic!("not recognized as a trained model");
    };
    assert_eq!(found.method(), "zegclip");
    let encoder = found.encoder().unwrap();
    assert!(encoder.prompts.is_some() && encoder.double_class_embedding);
    let (model, provenance) = found.build(&weights, &Device::flex(), 0).unwrap();
    assert!(model.as_any().is::<ZegClip>());
    let layers = list_params(&*model, |_| false);
    let third = |name: &str| name.starts_with("decode_head.decoder_1.layers.2.");
    assert!(layers.iter().any(|param| third(&param.name)));
    assert!(
        provenance
            .initialized
            .iter()
            .all(|name| !third(name) || name.contains("self_attn"))
    );
}

#[test]
#[ignore = "needs the files of reference/clip_formats.py --size full"]
fn features_agree_with_the_packages_at_full_size() {
    let folder = PathBuf::from(std::env::var_os("ZEG_CLIP_FORMATS").unwrap());
    for (file, prefix) in TOWERS {
        compare(&folder, file, prefix);
    }
    let sharded = "huggingface_sharded/model.safetensors.index.json";
    compare(&folder, sharded, "");
}
