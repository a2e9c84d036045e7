//! Compares a tiny CAT-Seg with an independent PyTorch computation.
//!
//! Golden file: `python reference/cat_seg.py golden` (float64; weights under the published names).

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::{
    AggregatorConfig, CatSeg, CatSegConfig, Tuning,
    class_attention::ClassAttentionKind,
    config::{PixelStatistics, TextSizes},
    keys::CAT_SEG,
};
use crate::{
    ModelError, Precision,
    config::{Activation, VisionConfig},
    inference::{Inference, InferenceMode},
    method::{Architecture as _, Model, SegmentationModel, WindowBatch},
    trace::Trace,
    weights::StateDict,
};

fn config() -> CatSegConfig {
    CatSegConfig {
        encoder: VisionConfig {
            patch: 4,
            width: 32,
            layers: 4,
            heads: 2,
            embed_dim: 12,
            input_resolution: 12,
            double_class_embedding: false,
            activation: Activation::QuickGelu,
            prompts: None,
            regions: None,
        },
        text: TextSizes {
            width: 8,
            layers: 1,
            heads: 1,
        },
        side: 24,
        crop: 32,
        taps: [0, 2],
        aggregator: AggregatorConfig {
            width: 16,
            layers: 2,
            heads: 2,
            window: 3,
            appearance: 6,
            text: 8,
            decoder: [32, 16],
            decoder_features: [10, 6],
            decoder_guidance: [4, 4],
            classes: 6,
            pooling: [2, 2],
            attention: ClassAttentionKind::Linear,
            templates: 1,
        },
        tuning: Tuning::None,
        statistics: PixelStatistics::Clip,
    }
}

fn golden() -> StateDict {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cat_seg.safetensors");
    StateDict::open(&path, &[]).unwrap()
}

/// Returns the file's weights as a published checkpoint gives them.
fn weights(golden: &StateDict) -> StateDict {
    let mut stored: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for key in golden.keys() {
        if let Some(name) = key.strip_prefix("weights.") {
            let tensor = golden.read(key).unwrap().unwrap();
            let bytes = tensor.values.iter().flat_map(|v| v.to_le_bytes());
            stored.push((name.to_owned(), tensor.shape, bytes.collect()));
        }
    }
    let tensors = stored.iter().map(|(name, shape, bytes)| {
        let dtype = safetensors::Dtype::F32;
        let tensor = safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).unwrap();
        (name.as_str(), tensor)
    });
    let bytes =
        safetensors::serialize(tensors, None::<std::collections::HashMap<String, String>>).unwrap();
    StateDict::from_bytes("golden", bytes, &[CAT_SEG]).unwrap()
}

fn tensor<const D: usize>(golden: &StateDict, name: &str) -> Tensor<D> {
    let host = golden.read(name).unwrap().unwrap();
    Tensor::from_data(TensorData::new(host.values, host.shape), &Device::flex())
}

fn assert_close(found: Tensor<4>, golden: &StateDict, name: &str) {
    let expected = golden.read(name).unwrap().unwrap().values;
    let found: Vec<f32> = found.into_data().convert::<f32>().try_into_vec().unwrap();
    assert_eq!(found.len(), expected.len(), "{name}");
    let kept: Vec<f32> = expected.iter().copied().filter(|v| *v > -99.0).collect();
    let rms = (kept.iter().map(|v| v * v).sum::<f32>() / kept.len() as f32).sqrt();
    for (position, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(
            difference < 5e-5 * rms,
            "{name} at {position}: {found} {expected}, rms {rms}"
        );
    }
}

fn packed(weights: &StateDict) -> Box<dyn Model> {
    config()
        .build_packed(weights, &Device::flex(), Precision::Float)
        .unwrap()
}

#[test]
fn logits_are_those_of_an_independent_computation() {
    let golden = golden();
    let weights = weights(&golden);
    let packed = packed(&weights);
    let packed = packed.as_any().downcast_ref::<CatSeg>().unwrap();
    let (plain, _) = CatSeg::build(&weights, &config(), &Device::flex(), 0).unwrap();
    for model in [packed, &plain] {
        let features = model.features(tensor(&golden, "image"), &mut Trace::off());
        for (text, pooling, name) in [
            ("text", [1, 1], "logits"),
            ("text", [2, 2], "logits_pooled"),
            ("many", [1, 1], "logits_many"),
        ] {
            let text = tensor::<2>(&golden, text);
            let found = model
                .decode(&features, text.clone(), pooling, &mut Trace::off())
                .unwrap();
            assert_close(found, &golden, name);
            // A trace, for which all classes are computed together, changes nothing.
            let traced = model
                .decode(&features, text, pooling, &mut Trace::on())
                .unwrap();
            assert_close(traced, &golden, name);
        }
    }
}

#[test]
fn the_projections_of_a_checkpoint_replace_those_of_the_frozen_weights() {
    let golden = golden();
    let published = weights(&golden);
    // Frozen weights with one joint projection, and a checkpoint with the trained parts.
    let mut joint = published.clone();
    for block in 0..4 {
        let at = format!("backbone.transformer.resblocks.{block}.attn.");
        let read = |part: &str| {
            published
                .read(&format!("{at}{part}_proj_weight"))
                .unwrap()
                .unwrap()
        };
        let mut all = read("q");
        all.values.iter_mut().for_each(|value| *value = 1.0); // replaced by the checkpoint
        for part in ["k", "v"] {
            all.values.extend(read(part).values);
        }
        all.shape[0] *= 3;
        joint.insert(format!("{at}in_proj_weight"), all);
    }
    let found = packed(&joint);
    let model = found.as_any().downcast_ref::<CatSeg>().unwrap();
    let features = model.features(tensor(&golden, "image"), &mut Trace::off());
    let text = tensor::<2>(&golden, "text");
    let logits = model.decode(&features, text, [1, 1], &mut Trace::off());
    assert_close(logits.unwrap(), &golden, "logits");
}

#[test]
fn weights_of_several_embeddings_a_class_are_refused() {
    let mut several = config();
    several.check().unwrap();
    several.aggregator.templates = 2;
    let error = several.check().unwrap_err().to_string();
    assert!(error.contains("2 embeddings a class"), "{error}");
}

#[test]
fn weights_without_filling_tokens_have_no_limit_on_the_classes() {
    let whole = weights(&golden());
    let mut unfilled = StateDict::default();
    for key in whole.keys().filter(|key| !key.contains(".padding_")) {
        unfilled.insert(key.to_owned(), whole.read(key).unwrap().unwrap());
    }
    let classes = |weights: &StateDict| {
        let prefix = "sem_seg_head.predictor.transformer.";
        AggregatorConfig::from_weights(weights, prefix)
            .unwrap()
            .classes
    };
    assert_eq!((classes(&whole), classes(&unfilled)), (256, 0));
}

#[test]
fn windows_that_would_be_padded_are_refused() {
    let model = packed(&weights(&golden()));
    let plan = |crop: usize, mode: InferenceMode| {
        let settings = Inference {
            crop,
            stride: crop / 2,
            mode,
            ..Inference::default()
        };
        model.plan([480, 640], &settings)
    };
    assert_eq!(plan(352, InferenceMode::Slide).unwrap().len(), 5);
    let error = plan(370, InferenceMode::Slide).unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::WindowSide {
                crop: 370,
                multiple: 32
            }
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.starts_with("inference.crop = 370") && text.contains("multiple of 32"));
    assert_eq!(plan(370, InferenceMode::Whole).unwrap().len(), 1);
}

#[test]
fn an_encoding_counts_the_joint_map_and_all_guides() {
    let golden = golden();
    let model = packed(&weights(&golden));
    let windows = WindowBatch {
        images: tensor(&golden, "image"),
        pixels: &[],
    };
    let encodings = model.encode(&windows).unwrap();
    // On a grid of 6×6 patches: 12 joint channels, 6 of appearance; 4 at twice and 4 at four times the side.
    let values = 36 * (12 + 6) + 4 * 36 * 4 + 16 * 36 * 4;
    for encoding in &encodings {
        assert_eq!(model.encoding_bytes(encoding).unwrap(), 4 * values);
    }
}

#[test]
fn windows_cover_the_canvas_and_the_whole_image_is_a_layer_of_its_own() {
    let (model, _) = CatSeg::build(&weights(&golden()), &config(), &Device::flex(), 0).unwrap();
    let settings = Inference {
        crop: 384,
        stride: 256,
        ..Inference::default()
    };
    assert_eq!(
        SegmentationModel::canvas(&model, [480, 640], &settings),
        [640, 640]
    );
    let plan = SegmentationModel::plan(&model, [480, 640], &settings).unwrap();
    assert_eq!(plan.len(), 5);
    assert!(
        plan.windows(2)
            .all(|pair| pair[0].window.y <= pair[1].window.y)
    );
    let whole = plan.iter().find(|planned| planned.layer == 1).unwrap();
    assert_eq!(
        (whole.window.width, whole.encoded_size(32)),
        (640, [384, 384])
    );
    assert_eq!(whole.scored_at, Some([384, 384]));
}
