//! Tests that one random CLIP has the same values in every published format.
//!
//! `reference/clip_formats.py` makes the files under `golden` with torch, transformers and open_clip. The script
//! computes features with each package and fails unless they agree, so the files are known to be equal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::excessive_precision,
    reason = "test helpers may panic, like the tests; constants are as published"
)]

mod common;

use std::path::Path;

use common::{golden, inspect};
use zeg_weights::{
    Architecture, Basis, ContainerFormat, HostTensor, Inspection, StateDict, StatedActivation,
    TextShape, VisionShape, WeightsError, WeightsPart, image_facts, text_facts,
};

fn open(name: &str) -> StateDict {
    common::open(&golden(name)).unwrap()
}

fn format_of(weights: &StateDict) -> ContainerFormat {
    Inspection::of(weights).unwrap().format
}

fn read(weights: &StateDict, key: &str) -> HostTensor {
    weights
        .read(key)
        .unwrap()
        .unwrap_or_else(|| panic!("{}: {key} is missing", weights.origin()))
}

/// Returns the bits of the values, because -0.0 == 0.0 would hide a wrong sign.
fn bits(tensor: &HostTensor) -> Vec<u32> {
    tensor.values.iter().map(|value| value.to_bits()).collect()
}

fn assert_same(a: &StateDict, b: &StateDict, key: &str) {
    let (left, right) = (read(a, key), read(b, key));
    assert_eq!(left.shape, right.shape, "{key}");
    assert_eq!(Some(&left.shape), a.shape(key).as_ref(), "{key}");
    assert!(
        bits(&left) == bits(&right),
        "{key}: {} and {} differ",
        a.origin(),
        b.origin()
    );
}

#[test]
fn every_format_has_the_same_values() {
    let openai = open("openai/vit.pt");
    // The image tower has 8 tensors and 12 in each of 2 blocks, the text tower 5 and 12 in its single block.
    assert_eq!(openai.keys().count(), 8 + 2 * 12 + 5 + 12);
    assert!(
        read(&openai, "backbone.proj")
            .values
            .iter()
            .any(|value| *value != 0.0)
    );
    for (name, format, family) in [
        (
            "huggingface",
            ContainerFormat::Safetensors,
            "Hugging Face CLIP",
        ),
        (
            "huggingface/model.safetensors",
            ContainerFormat::Safetensors,
            "Hugging Face CLIP",
        ),
        (
            "open_clip/open_clip_model.safetensors",
            ContainerFormat::Safetensors,
            "OpenAI CLIP",
        ),
        (
            "open_clip_gelu_custom_text/open_clip_pytorch_model.bin",
            ContainerFormat::TorchZip,
            "open_clip",
        ),
    ] {
        let other = open(name);
        assert_eq!(format_of(&other), format, "{name}");
        assert_eq!(other.family(), family, "{name}");
        assert!(openai.keys().eq(other.keys()), "{name}");
        for key in openai.keys() {
            assert_same(&openai, &other, key);
        }
    }
    assert_eq!(format_of(&openai), ContainerFormat::TorchScript);
    assert_eq!(openai.family(), "OpenAI CLIP");
}

#[test]
fn checkpoints_of_mmcv_are_read_in_both_formats_of_torch_save() {
    let openai = open("openai/vit.pt");
    let head = open("mmcv/head.safetensors");
    for (name, format) in [
        ("mmcv/zegclip.pth", ContainerFormat::TorchZip),
        ("mmcv/zegclip_legacy.pth", ContainerFormat::TorchLegacy),
    ] {
        let checkpoint = open(name);
        assert_eq!(format_of(&checkpoint), format, "{name}");
        assert_eq!(checkpoint.family(), "ZegCLIP", "{name}");
        let mut compared = 0;
        for key in checkpoint.keys() {
            // The positional embedding is the resized one; of the decoder, one layer is stored for comparison.
            let source = if head.contains(key) { &head } else { &openai };
            if !source.contains(key) {
                assert!(key.starts_with("decode_head.decoder_1.layers."), "{key}");
                continue;
            }
            assert_same(source, &checkpoint, key);
            compared += 1;
        }
        assert!(compared >= 20, "{name}: {compared}");
        assert!(!checkpoint.contains("decode_head.loss_decode.criterion.empty_weight"));
    }
    let checkpoint = open("mmcv/zegclip.pth");
    assert!(openai.keys().all(|key| checkpoint.contains(key)));
    assert!(head.keys().all(|key| checkpoint.contains(key)));
}

#[test]
fn all_types_views_and_shared_storages_are_read_as_by_torch() {
    let expected = open("dtypes.safetensors");
    let integers = ["bool", "int8", "int16", "int32", "int64", "uint8"];
    for name in ["dtypes.pth", "dtypes_legacy.pth"] {
        let found = open(name);
        let mut compared = 0;
        for key in expected.keys() {
            if integers.contains(&key) {
                assert!(!found.contains(key), "{name}: {key} is not a weight");
                continue;
            }
            assert_same(&expected, &found, key);
            compared += 1;
        }
        assert_eq!(compared, 11, "{name}");
        assert_eq!(read(&found, "empty").shape, [0, 6]);
        assert_eq!(read(&found, "scalar").shape, [0_usize; 0]);
    }
}

fn small() -> Architecture {
    Architecture {
        vision: Some(VisionShape {
            patch: 8,
            width: 64,
            layers: 2,
            heads: 1,
            heads_basis: Basis::Stated,
            embed_dim: Some(32),
            input_resolution: 32,
        }),
        text: Some(TextShape {
            width: 64,
            layers: 1,
            heads: 1,
            heads_basis: Basis::Stated,
            embed_dim: Some(32),
            context_length: 16,
            vocabulary: 96,
        }),
        activation: StatedActivation::QuickGelu,
        activation_basis: Basis::Stated,
        layer_norm_epsilon: 1e-5,
        image_mean: Some([0.48145466, 0.4578275, 0.40821073]),
        image_std: Some([0.26862954, 0.26130258, 0.27577711]),
    }
}

#[test]
fn the_architecture_is_inferred_from_shapes_and_configuration_files() {
    let found = |name: &str| Architecture::infer(&open(name)).unwrap();
    assert_eq!(found("huggingface"), small());
    assert_eq!(found("open_clip"), small());
    let gelu = Architecture {
        activation: StatedActivation::Gelu,
        ..small()
    };
    assert_eq!(found("open_clip_gelu_custom_text"), gelu);
    let mut assumed = Architecture {
        activation_basis: Basis::Assumed,
        image_mean: None,
        image_std: None,
        ..small()
    };
    if let (Some(vision), Some(text)) = (&mut assumed.vision, &mut assumed.text) {
        vision.heads_basis = Basis::Assumed;
        text.heads_basis = Basis::Assumed;
    }
    assert_eq!(found("openai/vit.pt"), assumed);
    let mut resized = assumed;
    if let Some(vision) = &mut resized.vision {
        vision.input_resolution = 48;
    }
    assert_eq!(found("mmcv/zegclip.pth"), resized);
}

#[test]
fn an_inspection_has_parts_types_and_ignored_tensors() {
    let found = inspect(&golden("openai/vit.pt")).unwrap();
    assert_eq!(found.part(WeightsPart::ImageTower).tensors, 8 + 2 * 12);
    assert_eq!(found.part(WeightsPart::TextTower).tensors, 5 + 12);
    assert_eq!(found.part(WeightsPart::DecodeHead).tensors, 0);
    let block = 12 * 64 * 64 + 13 * 64;
    let own = 64 + 17 * 64 + 64 * 3 * 64 + 4 * 64 + 64 * 32;
    assert_eq!(
        found.part(WeightsPart::ImageTower).parameters,
        2 * block + own
    );
    assert_eq!(found.missing, [""; 0]);
    assert_eq!(found.left_over, []);
    let ignored: Vec<&str> = found.ignored.iter().map(|one| one.key.as_str()).collect();
    assert_eq!(
        ignored,
        [
            "context_length",
            "input_resolution",
            "vocab_size",
            "logit_scale"
        ]
    );
    assert_eq!(found.types.keys().collect::<Vec<_>>(), ["F16", "F32"]);

    let found = inspect(&golden("mmcv/zegclip.pth")).unwrap();
    assert!(found.part(WeightsPart::DecodeHead).tensors > 10);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["format"], "torch-zip");
    assert_eq!(json["architecture"]["vision"]["input_resolution"], 48);
    assert_eq!(json["parts"]["image_tower"]["tensors"], 8 + 2 * 12 + 6);
}

#[test]
fn a_configuration_file_that_contradicts_the_tensors_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let weights = golden("open_clip/open_clip_model.safetensors");
    std::fs::copy(weights, folder.path().join("open_clip_model.safetensors")).unwrap();
    let config = folder.path().join("open_clip_config.json");
    let text = std::fs::read_to_string(golden("open_clip/open_clip_config.json")).unwrap();
    let infer = |config_text: String| {
        std::fs::write(&config, config_text).unwrap();
        Architecture::infer(&common::open(folder.path()).unwrap())
    };
    assert_eq!(infer(text.clone()).unwrap(), small());
    for (from, to, says) in [
        ("\"patch_size\": 8", "\"patch_size\": 16", "states 16"),
        ("\"layers\": 2", "\"layers\": 3", "states 3"),
        ("\"heads\": 1", "\"heads\": 5", "5 heads"),
        (
            "\"width\": 64,\n      \"patch",
            "\"ls_init_value\": 0.1,\n      \"width\": 64,\n      \"patch",
            "ls_init_value is 0.1",
        ),
        ("0.26862954", "0.0", "deviation"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = infer(text.replace(from, to)).unwrap_err();
        assert!(matches!(error, WeightsError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
    // open_clip's own configurations have no outer object; what is not stated there is not compared.
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let bare = infer(value["model_cfg"].to_string()).unwrap();
    assert_eq!((bare.vision, bare.text), (small().vision, small().text));
    let error = infer("<html>404</html>".to_owned()).unwrap_err();
    assert!(error.to_string().contains("but a web page"), "{error}");
    let error = infer("{".to_owned()).unwrap_err();
    assert!(
        error.to_string().contains("open_clip_config.json"),
        "{error}"
    );
}

/// A changed configuration changes the results of the same tensors, so keys of stored results name what it states.
#[test]
fn the_facts_of_weights_are_those_of_the_files_beside_them_and_of_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let weights = golden("open_clip/open_clip_model.safetensors");
    std::fs::copy(weights, folder.path().join("open_clip_model.safetensors")).unwrap();
    let config = folder.path().join("open_clip_config.json");
    let text = std::fs::read_to_string(golden("open_clip/open_clip_config.json")).unwrap();
    let opened = |config_text: &str| {
        std::fs::write(&config, config_text).unwrap();
        common::open(folder.path()).unwrap()
    };
    let differing = |then: &StateDict, now: &StateDict| {
        let mismatch = image_facts(then).check(&image_facts(now)).unwrap_err();
        let differences = mismatch.differences.into_iter();
        differences.map(|found| found.name).collect::<Vec<_>>()
    };
    let then = opened(&text);
    // The file is read when the facts are asked for.
    let facts = image_facts(&then);
    assert_eq!(facts.get("weights: text heads"), Some("1"));
    let mut stated = opened(&text);
    stated.state_activation(StatedActivation::Gelu);
    assert_eq!(differing(&then, &stated), ["weights: activation"]);
    let deviation = opened(&text.replace("0.26862954", "0.25"));
    assert_eq!(text_facts(&deviation).check(&facts), Ok(()));
    let mismatch = facts.check(&image_facts(&deviation)).unwrap_err();
    assert_eq!(mismatch.differences[0].name, "weights: image deviation");
    let heads = opened(&text.replace("\"heads\": 1", "\"heads\": 2"));
    let mismatch = facts.check(&text_facts(&heads)).unwrap_err();
    assert_eq!(mismatch.to_string(), "weights: text heads 1 then, 2 now");
}

#[test]
fn an_index_of_several_files_is_read_as_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(golden("huggingface/model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let mut map = serde_json::Map::new();
    for part in 0..3 {
        let views = tensors.tensors().into_iter().enumerate();
        let mine = views.filter(|(i, _)| i % 3 == part).map(|(_, view)| view);
        let name = format!("model-{part}.safetensors");
        for (key, _) in mine.clone() {
            map.insert(key, name.clone().into());
        }
        let file = safetensors::serialize(mine, None).unwrap();
        std::fs::write(folder.path().join(&name), file).unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    let write = |map: &serde_json::Map<String, serde_json::Value>| {
        let json = serde_json::json!({"metadata": {}, "weight_map": map});
        std::fs::write(&index, json.to_string()).unwrap();
    };
    write(&map);
    let whole = open("huggingface");
    let sharded = common::open(folder.path()).unwrap();
    assert_eq!(format_of(&sharded), ContainerFormat::Sharded);
    assert!(whole.keys().eq(sharded.keys()));
    for key in whole.keys() {
        assert_same(&whole, &sharded, key);
    }
    map.insert("x".into(), "../model-0.safetensors".into());
    write(&map);
    let error = common::open(folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("not a plain file name"),
        "{error}"
    );
    map.insert("x".into(), "model-0.safetensors".into());
    write(&map);
    let error = common::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("does not have it"), "{error}");
}

#[test]
fn a_file_that_is_truncated_after_it_was_opened_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["dtypes.pth", "dtypes_legacy.pth", "dtypes.safetensors"] {
        let copy = folder.path().join(name);
        std::fs::copy(golden(name), &copy).unwrap();
        let weights = common::open(&copy).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&copy).unwrap();
        file.set_len(600).unwrap();
        let results: Vec<_> = weights.keys().map(|key| weights.read(key)).collect();
        assert!(
            results
                .iter()
                .any(|result| matches!(result, Err(WeightsError::Read { .. }))),
            "{name}"
        );
    }
}

#[test]
fn the_compact_image_tower_has_the_architecture_of_vit_b_16() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/weights/clip_vitb16_image_int8.safetensors");
    if !file.exists() {
        eprintln!("skipped: {} is not there", file.display());
        return;
    }
    let found = inspect(&file).unwrap();
    assert_eq!(found.part(WeightsPart::ImageTower).parameters, 86_192_640);
    let vision = found.architecture.unwrap().vision.unwrap();
    assert_eq!((vision.patch, vision.width, vision.layers), (16, 768, 12));
    assert_eq!((vision.heads, vision.embed_dim), (12, Some(512)));
    assert_eq!(vision.input_resolution, 224);
}

/// Returns a safetensors file with one tensor, whose header has `length` bytes.
fn safetensors_with_header_of(length: usize) -> Vec<u8> {
    let header =
        "{\"backbone.conv1.weight\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    let mut bytes = (length as u64).to_le_bytes().to_vec();
    bytes.extend(
        header
            .bytes()
            .chain(std::iter::repeat_n(b' ', length - header.len())),
    );
    bytes.extend(1.5_f32.to_le_bytes());
    bytes
}

#[test]
fn a_safetensors_file_is_recognised_whatever_the_length_of_its_header() {
    // A pickle begins with 0x80 and its version, and 384 = 0x0180.
    let pickle_like = [65_664, 65_920, 66_176, 66_432, 66_688, 66_944, 131_200];
    for length in (80..2048).step_by(8).chain(pickle_like) {
        let bytes = safetensors_with_header_of(length);
        let weights = StateDict::from_bytes("test", bytes, &[])
            .unwrap_or_else(|error| panic!("header of {length} bytes: {error}"));
        assert_eq!(read(&weights, "backbone.conv1.weight").values, [1.5]);
    }
}

#[test]
fn a_truncated_safetensors_file_is_never_called_a_damaged_pickle() {
    let mut bytes = safetensors_with_header_of(384);
    bytes.truncate(200);
    let error = StateDict::from_bytes("test", bytes, &[]).unwrap_err();
    assert!(error.to_string().contains("safetensors"), "{error}");
}

#[test]
fn wrappers_and_prefixes_of_training_programs_are_read_as_the_model() {
    let plain = open("wrapped/plain.pth");
    let key = "backbone.proj";
    let values = read(&plain, key).values;
    for name in WRAPPED {
        let weights = open(&format!("wrapped/{name}.pth"));
        assert_eq!(read(&weights, key).values, values, "{name}");
        assert_eq!(
            weights.notices().len(),
            usize::from(name == "model_and_ema"),
            "{name}"
        );
    }
    let error = common::open(&golden("wrapped/unknown_key.pth")).unwrap_err();
    assert!(matches!(error, WeightsError::Unsupported { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("\"epoch\", \"stuff\""), "{text}");
}

/// Files of `reference/wrapped_weights.py`.
const WRAPPED: [&str; 11] = [
    "compiled_ddp",
    "lightning",
    "ema",
    "state_dict_ema",
    "net",
    "weights",
    "params",
    "deepspeed",
    "nested",
    "list",
    "model_and_ema",
];
