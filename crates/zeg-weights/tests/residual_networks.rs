//! Tests that residual networks with the names of torchvision, detectron2 and Caffe2 all get ZegFormer's names.
#![allow(clippy::unwrap_used, clippy::float_cmp)] // test helpers may panic; stored values must be read unchanged

mod common;

use std::collections::HashMap;

use common::TABLES;
use safetensors::{Dtype, tensor::TensorView};
use zeg_weights::StateDict;

/// Opens a file with these tensors, where each has a single value, its index in the list.
fn open(names: &[&str]) -> StateDict {
    let values: Vec<[u8; 4]> = (0..names.len()).map(|i| (i as f32).to_le_bytes()).collect();
    let views = names.iter().zip(&values).map(|(name, bytes)| {
        let view = TensorView::new(Dtype::F32, vec![1], bytes).unwrap();
        (*name, view)
    });
    let bytes = safetensors::serialize(views, None::<HashMap<String, String>>).unwrap();
    StateDict::from_bytes("resnet.safetensors", bytes, TABLES).unwrap()
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
fn a_table_of_the_caller_renames_the_names_that_match_and_keeps_the_others() {
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

/// Returns a pickle of `{"model": {name: array}}`, in protocol 2 as Python 2 writes it (with bytes as binary texts) or
/// in protocol 3.
fn pickled(name: &str, shape: [u8; 2], values: &[f32], protocol: u8) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let text = |text: &str| {
        let mut bytes = vec![b'X'];
        bytes.extend((text.len() as u32).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    };
    let global = |module: &str, name: &str| format!("c{module}\n{name}\n").into_bytes();
    let mut bytes = vec![0x80, protocol, b'}'];
    bytes.extend(text("model"));
    bytes.push(b'}');
    bytes.extend(text(name));
    // numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), "b")
    bytes.extend(global("numpy.core.multiarray", "_reconstruct"));
    bytes.extend(global("numpy", "ndarray"));
    bytes.extend([b'K', 0, 0x85]);
    bytes.extend(text("b"));
    bytes.extend([0x87, b'R']);
    // (1, shape, dtype("f4", 0, 1) with its state, False, bytes)
    bytes.extend([b'(', b'K', 1, b'K', shape[0], b'K', shape[1], 0x86]);
    bytes.extend(global("numpy", "dtype"));
    bytes.extend(text("f4"));
    bytes.extend([b'K', 0, b'K', 1, 0x87, b'R', b'(', b'K', 3]);
    bytes.extend(text("<"));
    bytes.extend(b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89");
    bytes.push(if protocol == 2 { b'T' } else { b'B' });
    bytes.extend((raw.len() as u32).to_le_bytes());
    bytes.extend(raw);
    bytes.extend(b"tbss.");
    bytes
}

#[test]
fn pickled_arrays_of_numpy_are_read() {
    let values = [1.0, -2.5, 3.0, 4.0, 5.0, 1e-3];
    for protocol in [2, 3] {
        let bytes = pickled("res2.0.conv1.weight", [2, 3], &values, protocol);
        let weights = StateDict::from_bytes("R-50.pkl", bytes, TABLES).unwrap();
        assert_eq!(weights.family(), "detectron2 ResNet");
        let tensor = weights
            .read("backbone.res2.0.conv1.weight")
            .unwrap()
            .unwrap();
        assert_eq!(tensor.shape, [2, 3]);
        assert_eq!(tensor.values, values);
    }
    // One file has fewer values than its shape states, and another one is truncated.
    let short = pickled("res2.0.conv1.weight", [2, 4], &values, 3);
    let error = StateDict::from_bytes("R-50.pkl", short, TABLES)
        .unwrap_err()
        .to_string();
    assert!(error.contains("24 bytes for the shape [2, 4]"), "{error}");
    let whole = pickled("res2.0.conv1.weight", [2, 3], &values, 3);
    assert!(StateDict::from_bytes("R-50.pkl", whole[..whole.len() - 5].to_vec(), TABLES).is_err());
}
