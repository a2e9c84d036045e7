//! Tests that every format is imported to the same values, and that no incomplete file is ever left.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test helpers may panic, like the tests"
)]

mod common;

use std::path::Path;

use common::{TABLES, golden};
use zeg_weights::{
    Basis, ContainerFormat, ImportPrecision, Inspection, StateDict, StatedActivation, StatedHeads,
    WeightsError, WeightsPart, file_sha256, import, import_opened,
};

fn run(name: &str, output: &Path, precision: ImportPrecision) -> Result<Inspection, WeightsError> {
    import(&golden(name), TABLES, output, precision, &mut |_, _| {})
}

fn assert_same_values(a: &StateDict, b: &StateDict) {
    assert!(a.keys().eq(b.keys()));
    for key in a.keys() {
        let (left, right) = (a.read(key).unwrap().unwrap(), b.read(key).unwrap().unwrap());
        assert!(left == right, "{key}");
    }
}

#[test]
fn every_format_is_imported_without_changing_a_value() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "openai/vit.pt",
        "huggingface",
        "open_clip",
        "open_clip_gelu_custom_text/open_clip_pytorch_model.bin",
        "mmcv/zegclip.pth",
    ] {
        let source = common::open(&golden(name)).unwrap();
        let before = Inspection::of(&source).unwrap();
        for precision in [
            ImportPrecision::Same,
            ImportPrecision::F32,
            ImportPrecision::F16,
        ] {
            // All values in these files are representable as f16.
            let output = folder.path().join("imported.safetensors");
            let after = run(name, &output, precision).unwrap();
            assert_same_values(&source, &common::open(&output).unwrap());
            assert_eq!(after.architecture, before.architecture, "{name}");
            assert_eq!(after.parts, before.parts, "{name}");
            assert_eq!(after.family, before.family, "{name}");
            assert_eq!(after.format, ContainerFormat::Safetensors, "{name}");
            let types: Vec<&str> = after.types.keys().map(String::as_str).collect();
            match precision {
                ImportPrecision::Same => {}
                ImportPrecision::F32 => assert_eq!(types, ["F32"]),
                ImportPrecision::F16 => assert_eq!(types, ["F16"]),
            }
            // The reference implementation of the format can read the file.
            let bytes = std::fs::read(&output).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(tensors.len(), source.keys().count());
            // No temporary file is left in the folder.
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}

#[test]
fn an_imported_file_states_its_source_and_can_be_imported_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = "open_clip_gelu_custom_text/open_clip_pytorch_model.bin";
    let first = folder.path().join("first.safetensors");
    let found = run(source, &first, ImportPrecision::Same).unwrap();
    let from = found.imported_from.unwrap();
    assert_eq!(from.file, "open_clip_pytorch_model.bin");
    assert_eq!(from.sha256, file_sha256(&golden(source)).unwrap());
    // There is no configuration file beside the new file, so only the metadata state that the activation is GELU.
    let architecture = found.architecture.unwrap();
    assert_eq!(architecture.activation, StatedActivation::Gelu);
    let second = folder.path().join("second.safetensors");
    let again = import(
        &first,
        TABLES,
        &second,
        ImportPrecision::F32,
        &mut |_, _| {},
    )
    .unwrap();
    assert_eq!(again.architecture, Some(architecture));
    assert_eq!(again.family, "open_clip");
    assert_same_values(
        &common::open(&first).unwrap(),
        &common::open(&second).unwrap(),
    );
}

#[test]
fn metadata_that_contradict_the_tensors_give_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("imported.safetensors");
    run("open_clip", &file, ImportPrecision::F16).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    for (from, to, says) in [
        (
            r#"\"layers\":2"#,
            r#"\"layers\":3"#,
            "its own metadata states 3",
        ),
        (r#"\"heads\":1"#, r#"\"heads\":7"#, "7 heads"),
        ("quick-gelu", "quick-golu", "unknown variant"),
    ] {
        let mut changed = bytes.clone();
        let at = bytes
            .windows(from.len())
            .position(|window| window == from.as_bytes())
            .expect(from);
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&file, changed).unwrap();
        let error = common::inspect(&file).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn progress_increases_up_to_the_total() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("imported.safetensors");
    let mut calls = Vec::new();
    let mut progress = |done, total| calls.push((done, total));
    import(
        &golden("openai/vit.pt"),
        TABLES,
        &output,
        ImportPrecision::Same,
        &mut progress,
    )
    .unwrap();
    let expected = calls[0].1;
    assert_eq!(calls[0].0, 0);
    assert!(calls.is_sorted_by_key(|(done, _)| *done));
    assert!(calls.iter().all(|(_, total)| *total == expected));
    assert_eq!(calls.last(), Some(&(expected, expected)));
}

#[test]
fn a_failed_import_leaves_the_previous_file_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("imported.safetensors");
    std::fs::write(&output, "old").unwrap();
    let error = run("dtypes.pth", &output, ImportPrecision::Same).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("none of the tensors belongs to CLIP"),
        "{error}"
    );

    // With a layer scale, a tower would compute something else.
    let weights = std::fs::read(golden("open_clip/open_clip_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let file = folder.path().join("foreign.safetensors");
    let scale = tensors.tensor("visual.ln_post.weight").unwrap();
    let all = tensors.tensors();
    let with = all.clone().into_iter().chain([(
        "visual.transformer.resblocks.0.ls_1.gamma".to_owned(),
        scale,
    )]);
    std::fs::write(&file, safetensors::serialize(with, None).unwrap()).unwrap();
    let error = import(
        &file,
        TABLES,
        &output,
        ImportPrecision::Same,
        &mut |_, _| {},
    )
    .unwrap_err();
    assert!(matches!(error, WeightsError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("ls_1.gamma"), "{error}");

    // A tensor of a tower is missing.
    let without = all
        .into_iter()
        .filter(|(name, _)| name != "visual.transformer.resblocks.1.mlp.c_fc.bias");
    std::fs::write(&file, safetensors::serialize(without, None).unwrap()).unwrap();
    let error = import(
        &file,
        TABLES,
        &output,
        ImportPrecision::Same,
        &mut |_, _| {},
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("resblocks.1.mlp.c_fc.bias"),
        "{error}"
    );

    // The output is the source.
    let error = import(&file, TABLES, &file, ImportPrecision::Same, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("missing") || matches!(error, WeightsError::Write { .. }));
    assert_eq!(std::fs::read(&output).unwrap(), b"old");
    let copy = folder.path().join("copy.safetensors");
    std::fs::copy(golden("open_clip/open_clip_model.safetensors"), &copy).unwrap();
    let error = import(&copy, TABLES, &copy, ImportPrecision::F32, &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, WeightsError::Write { .. }), "{error}");
    assert_eq!(std::fs::read(&copy).unwrap(), weights);
    // The folder of the output does not exist.
    let nowhere = folder.path().join("no/such/folder.safetensors");
    let error = run("openai/vit.pt", &nowhere, ImportPrecision::Same).unwrap_err();
    assert!(matches!(error, WeightsError::Write { .. }), "{error}");
}

#[test]
fn values_too_large_for_f16_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.safetensors");
    let value = 70_000.0_f32.to_le_bytes();
    let view =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &value).unwrap();
    let bytes = safetensors::serialize([("decode_head.q_proj.bias", view)], None).unwrap();
    std::fs::write(&file, bytes).unwrap();
    let output = folder.path().join("imported.safetensors");
    let error = import(&file, TABLES, &output, ImportPrecision::F16, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("the value 70000"), "{error}");
    assert!(!output.exists());
    let found = import(
        &file,
        TABLES,
        &output,
        ImportPrecision::Same,
        &mut |_, _| {},
    )
    .unwrap();
    assert_eq!(found.part(WeightsPart::DecodeHead).parameters, 1);
}

/// Writes the open_clip model of the golden files with other values of one tensor.
fn with_values(file: &Path, name: &str, values: impl Fn(usize) -> f32) {
    let weights = std::fs::read(golden("open_clip/open_clip_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let shape = tensors.tensor(name).unwrap().shape().to_vec();
    let count: usize = shape.iter().product();
    let bytes: Vec<u8> = (0..count).flat_map(|i| values(i).to_le_bytes()).collect();
    let changed =
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes).unwrap();
    let others = tensors.tensors().into_iter();
    let all = others
        .filter(|(other, _)| other != name)
        .chain([(name.to_owned(), changed)]);
    std::fs::write(file, safetensors::serialize(all, None).unwrap()).unwrap();
}

#[test]
fn values_that_no_model_has_are_errors_that_name_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let output = folder.path().join("imported.safetensors");
    let matrix = "visual.transformer.resblocks.0.mlp.c_fc.weight";
    let name_in_zeg = "backbone.transformer.resblocks.0.mlp.c_fc.weight";
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        with_values(&file, matrix, |i| if i == 7 { bad } else { 0.1 });
        for precision in [ImportPrecision::Same, ImportPrecision::F16] {
            let error = import(&file, TABLES, &output, precision, &mut |_, _| {}).unwrap_err();
            assert!(
                matches!(&error, WeightsError::NotFinite { key, index: 7, .. } if key == name_in_zeg),
                "{error}"
            );
            assert!(!output.exists());
        }
    }
    with_values(&file, matrix, |_| 0.0);
    let error = import(
        &file,
        TABLES,
        &output,
        ImportPrecision::Same,
        &mut |_, _| {},
    )
    .unwrap_err();
    assert!(
        matches!(&error, WeightsError::AllZero { key, .. } if key == name_in_zeg),
        "{error}"
    );
    // A bias of zeros is common.
    with_values(&file, "visual.ln_post.bias", |_| 0.0);
    import(
        &file,
        TABLES,
        &output,
        ImportPrecision::Same,
        &mut |_, _| {},
    )
    .unwrap();
}

#[test]
fn bad_scales_of_compact_matrices_are_errors_that_name_the_matrix() {
    use safetensors::{Dtype, tensor::TensorView};

    let folder = tempfile::tempdir().unwrap();
    let (file, output) = (folder.path().join("a"), folder.path().join("b"));
    let matrix = "decode_head.q_proj.weight";
    let with_scale = |scale: f32| {
        let scales: Vec<u8> = [1.0, scale].iter().flat_map(|v| v.to_le_bytes()).collect();
        let tensors = [
            (
                matrix.to_owned(),
                TensorView::new(Dtype::I8, vec![2, 2], &[0, 0, 1, 2]).unwrap(),
            ),
            (
                format!("{matrix}.scale"),
                TensorView::new(Dtype::F32, vec![2], &scales).unwrap(),
            ),
        ];
        std::fs::write(&file, safetensors::serialize(tensors, None).unwrap()).unwrap();
        let precision = ImportPrecision::Same;
        import(&file, TABLES, &output, precision, &mut |_, _| {})
    };
    with_scale(0.5).unwrap();
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        let error = with_scale(bad).unwrap_err();
        assert!(
            matches!(&error, WeightsError::NotFinite { key, index: 2, .. } if key == matrix),
            "{error}"
        );
    }
    let error = with_scale(0.0).unwrap_err();
    assert!(
        matches!(&error, WeightsError::AllZero { key, .. } if key == matrix),
        "{error}"
    );
}

#[test]
fn what_was_assumed_stays_assumed_and_what_the_user_states_is_stated() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("imported.safetensors");
    let of_file = |found: Inspection| {
        let found = found.architecture.unwrap();
        let heads = found.vision.map(|tower| (tower.heads, tower.heads_basis));
        (found.activation, found.activation_basis, heads.unwrap())
    };
    let guessed = run("openai/vit.pt", &output, ImportPrecision::Same).unwrap();
    let (quick, assumed) = (StatedActivation::QuickGelu, Basis::Assumed);
    assert_eq!(of_file(guessed), (quick, assumed, (1, assumed)));
    let mut weights = common::open(&golden("openai/vit.pt")).unwrap();
    weights.state_activation(StatedActivation::Gelu);
    weights.state_heads(StatedHeads {
        image: Some(4),
        text: None,
    });
    let precision = ImportPrecision::Same;
    let found = import_opened(&weights, &output, precision, &mut |_, _| {}).unwrap();
    let text = found.architecture.as_ref().unwrap().text.clone().unwrap();
    assert_eq!((text.heads, text.heads_basis), (1, assumed));
    let (gelu, stated) = (StatedActivation::Gelu, Basis::Stated);
    assert_eq!(of_file(found), (gelu, stated, (4, stated)));
}

#[test]
fn a_strided_view_is_imported_in_row_major_order() {
    let mut file = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    file.extend(b"\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.");
    // {"decode_head.w": 2×3 of a storage of 6, strides 1 and 2}
    file.extend(b"\x80\x02}X\x0d\x00\x00\x00decode_head.wctorch._utils\n_rebuild_tensor_v2\n(");
    file.extend(b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ");
    file.extend(b"K\x00K\x02K\x03\x86K\x01K\x02\x86\x89ccollections\nOrderedDict\n)RtRs.");
    file.extend(b"\x80\x02]X\x01\x00\x00\x000a.");
    file.extend(6_u64.to_le_bytes());
    file.extend((0..6_u8).flat_map(|value| f32::from(value).to_le_bytes()));
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("view.pth");
    std::fs::write(&source, file).unwrap();
    let output = folder.path().join("imported.safetensors");
    import(
        &source,
        TABLES,
        &output,
        ImportPrecision::Same,
        &mut |_, _| {},
    )
    .unwrap();
    for path in [source, output] {
        let weights = common::open(&path).unwrap();
        let tensor = weights.read("decode_head.w").unwrap().unwrap();
        assert_eq!(tensor.shape, [2, 3]);
        assert_eq!(tensor.values, [0., 2., 4., 1., 3., 5.]);
    }
}
