//! Residual networks in the names of torchvision, detectron2 and Caffe2 all end under ZegFormer's names.
#![allow(clippy::unwrap_used)] // in tests

use std::collections::HashMap;

use safetensors::{Dtype, tensor::TensorView};
use zeg_weights::StateDict;

/// A file with these tensors, each one number: its place in the list.
fn open(names: &[&str]) -> StateDict {
    let values: Vec<[u8; 4]> = (0..names.len()).map(|i| (i as f32).to_le_bytes()).collect();
    let views = names.iter().zip(&values).map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F32, vec![1], bytes).unwrap();
        (*name, view)
    });
    let bytes = safetensors::serialize(views, None::<HashMap<String, String>>).unwrap();
    StateDict::from_bytes("resnet.safetensors", bytes).unwrap()
}

fn compare(family: &str, pairs: &[(&str, &str)]) {
    let names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    let weights = open(&names);
    assert_eq!(weights.family(), family);
    let mut expected: Vec<&str> = pairs
        .iter()
        .map(|(_, ours)| *ours)
        .filter(|n| !n.is_empty())
        .collect();
    expected.sort_unstable();
    assert_eq!(weights.keys().collect::<Vec<_>>(), expected);
    for (number, (_, ours)) in pairs.iter().enumerate() {
        if let Some(tensor) = weights.read(ours).unwrap() {
            assert!((tensor.values[0] - number as f32).abs() < 1e-6, "{ours}");
        }
    }
}

#[test]
fn torchvision() {
    compare(
        "torchvision ResNet",
        &[
            ("conv1.weight", "backbone.stem.conv1.weight"),
            ("bn1.running_var", "backbone.stem.conv1.norm.running_var"),
            ("layer1.0.conv1.weight", "backbone.res2.0.conv1.weight"),
            ("layer1.0.bn3.weight", "backbone.res2.0.conv3.norm.weight"),
            (
                "layer1.0.downsample.0.weight",
                "backbone.res2.0.shortcut.weight",
            ),
            (
                "layer1.0.downsample.1.bias",
                "backbone.res2.0.shortcut.norm.bias",
            ),
            ("layer3.22.conv2.weight", "backbone.res4.22.conv2.weight"),
            (
                "layer4.2.bn2.running_mean",
                "backbone.res5.2.conv2.norm.running_mean",
            ),
            ("fc.weight", ""),
            ("fc.bias", ""),
        ],
    );
}

#[test]
fn detectron2() {
    compare(
        "detectron2 ResNet",
        &[
            ("stem.conv1.weight", "backbone.stem.conv1.weight"),
            ("stem.conv1.norm.bias", "backbone.stem.conv1.norm.bias"),
            ("res2.0.conv1.weight", "backbone.res2.0.conv1.weight"),
            (
                "res5.0.shortcut.norm.running_mean",
                "backbone.res5.0.shortcut.norm.running_mean",
            ),
            ("stem.fc.weight", ""),
        ],
    );
}

#[test]
fn caffe2() {
    compare(
        "Caffe2 ResNet",
        &[
            ("conv1_w", "backbone.stem.conv1.weight"),
            ("res_conv1_bn_s", "backbone.stem.conv1.norm.weight"),
            ("res_conv1_bn_b", "backbone.stem.conv1.norm.bias"),
            ("res2_0_branch2a_w", "backbone.res2.0.conv1.weight"),
            ("res2_0_branch1_w", "backbone.res2.0.shortcut.weight"),
            (
                "res4_22_branch2c_bn_s",
                "backbone.res4.22.conv3.norm.weight",
            ),
            ("res5_1_branch2b_bn_b", "backbone.res5.1.conv2.norm.bias"),
            ("fc1000_w", ""),
        ],
    );
}

#[test]
fn a_released_zegformer_keeps_its_names_and_its_text_tower_is_found() {
    compare(
        "ZegFormer",
        &[
            (
                "sem_seg_head.predictor.query_embed.weight",
                "sem_seg_head.predictor.query_embed.weight",
            ),
            (
                "backbone.res2.0.conv1.weight",
                "backbone.res2.0.conv1.weight",
            ),
            (
                "sem_seg_head.predictor.clip_model.visual.conv1.weight",
                "sem_seg_head.predictor.clip_model.visual.conv1.weight",
            ),
            (
                "sem_seg_head.predictor.clip_model.token_embedding.weight",
                "text_encoder.token_embedding.weight",
            ),
            ("criterion.empty_weight", ""),
        ],
    );
}
