//! Recomputes the reference numbers in the repository, and those of the shared folder if it exists.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use burn::tensor::Device;
use zeg_parity::{Options, Summary, run};

/// Compares paths; returns the summary and the report as text.
fn compare(paths: &[PathBuf]) -> (Summary, String) {
    let options = Options {
        device: Device::flex(),
        assets: None,
        planted: None,
    };
    let mut report = Vec::new();
    let summary = run(paths, &options, &mut report).unwrap();
    (summary, String::from_utf8(report).unwrap())
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Returns a folder of the shared vectors; `None`, with a line on standard error, if it does not exist.
fn shared(name: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = workspace.join("../shared/vectors").join(name);
    if folder.exists() {
        return Some(folder);
    }
    // Writes directly to standard error, because the test harness captures `eprintln!`.
    let line = format!("skipped: {} does not exist\n", folder.display());
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

/// Writes a copy of a golden file to `folder`, with one `f32` value of a tensor replaced.
fn corrupted(folder: &Path, file: &str, tensor: &str, position: usize, value: f32) -> PathBuf {
    let mut bytes = fs::read(golden(file)).unwrap();
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let start = 8 + header + metadata.info(tensor).unwrap().data_offsets.0 + 4 * position;
    bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
    let path = folder.join(file);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn golden_files_are_reproduced() {
    let tokenizer = golden("../../../zeg-vocab/tests/golden/tokenizer.json");
    let (summary, report) = compare(&[golden(""), tokenizer]);
    assert!(summary.passed(), "{report}");
    assert_eq!(summary.files, 9, "{report}");
    assert!(summary.tensors > 1200, "{report}");
    assert_eq!(summary.repeated, summary.tensors, "{report}");
    let last = report.lines().last().unwrap();
    assert!(last.starts_with("parity: PASS "), "{last}");
}

#[test]
fn zegformer_is_reproduced() {
    let (summary, report) = compare(&[golden("zegformer")]);
    assert!(summary.passed(), "{report}");
    assert!(summary.tensors > 100, "{report}");
    // The path of the description selects the same files.
    let (again, report) = compare(&[golden("zegformer/a_meta.json")]);
    assert_eq!(again.tensors, summary.tensors, "{report}");
    if let Some(folder) = shared("zegformer") {
        let (summary, report) = compare(&[folder]);
        assert!(summary.passed(), "{report}");
        assert!(summary.tensors > 300, "{report}");
    }
}

#[test]
fn zsseg_is_reproduced() {
    let (summary, report) = compare(&[golden("zsseg")]);
    assert!(summary.passed(), "{report}");
    assert!(summary.tensors > 100, "{report}");
    // The path of the description selects the same files.
    let (again, report) = compare(&[golden("zsseg/a_meta.json")]);
    assert_eq!(again.tensors, summary.tensors, "{report}");
    if let Some(folder) = shared("zsseg") {
        let (summary, report) = compare(&[folder]);
        assert!(summary.passed(), "{report}");
        assert!(summary.tensors > 300, "{report}");
    }
}

#[test]
fn shared_numbers_of_maskclip_plus_are_reproduced() {
    if let Some(folder) = shared("maskclip-plus") {
        let (summary, report) = compare(&[folder]);
        assert!(summary.passed(), "{report}");
        assert!(summary.tensors > 500, "{report}");
        assert_eq!(summary.repeated, summary.tensors, "{report}");
    }
}

#[test]
fn shared_files_of_small_models_are_reproduced() {
    let folders: Vec<_> = ["zegclip", "clip", "clip-rc"]
        .into_iter()
        .filter_map(shared)
        .collect();
    let files: Vec<_> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "safetensors")
        })
        .filter(|path| {
            !path
                .file_stem()
                .unwrap()
                .to_string_lossy()
                .starts_with("full_")
        })
        .collect();
    if !files.is_empty() {
        let (summary, report) = compare(&files);
        assert!(summary.passed(), "{report}");
    }
}

#[test]
fn a_shared_model_of_published_size_and_a_training_run_are_reproduced() {
    let full = shared("zegclip/full_zegclip_voc.safetensors");
    let files: Vec<_> = full.into_iter().chain(shared("training")).collect();
    if !files.is_empty() {
        let (summary, report) = compare(&files);
        assert!(summary.passed(), "{report}");
    }
}

#[test]
fn shared_numbers_of_cat_seg_are_reproduced() {
    if let Some(folder) = shared("cat-seg") {
        let (summary, report) = compare(&[folder]);
        assert!(summary.passed(), "{report}");
        assert_eq!(summary.repeated, summary.tensors, "{report}");
    }
}

#[test]
fn a_shared_clip_rc_model_of_published_size_is_reproduced() {
    if let Some(full) = shared("clip-rc/full_cliprc_voc.safetensors") {
        let (summary, report) = compare(&[full]);
        assert!(summary.passed(), "{report}");
        assert_eq!(summary.repeated, summary.tensors, "{report}");
    }
}

/// Only inputs and weights may be left without a result.
#[test]
fn a_tensor_without_a_result_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("misc_cliprc.safetensors");
    let bytes = fs::read(golden("misc_cliprc.safetensors")).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let mut tensors = stored.tensors();
    let (_, view) = tensors[0].clone();
    tensors.push(("eval.unheard_of".into(), view));
    let bytes = safetensors::serialize(tensors, header.metadata().clone()).unwrap();
    fs::write(&path, bytes).unwrap();
    let (summary, report) = compare(&[path]);
    assert_eq!(summary.failed, 1, "{report}");
    assert!(
        report.contains("FAIL eval.unheard_of: there is no result of this name"),
        "{report}"
    );
}

#[test]
fn the_results_nearest_to_their_limits_are_named() {
    let (_, report) = compare(&[golden("zegclip_eps_a.safetensors")]);
    let of_file = |line: &&str| line.starts_with("zegclip_eps_a: nearest to its limit: ");
    assert_eq!(report.lines().filter(of_file).count(), 3, "{report}");
    let overall = |line: &&str| line.starts_with("parity: nearest to its limit: ");
    assert_eq!(report.lines().filter(overall).count(), 5, "{report}");
    assert!(report.contains(" results equal to the bit"), "{report}");
}

/// A wrong gradient fails, and so does the parameter after the step with it.
#[test]
fn a_wrong_gradient_fails() {
    let folder = tempfile::tempdir().unwrap();
    let name = "grad.decode_head.decoder_v.layers.0.linear1.bias";
    let file = corrupted(folder.path(), "cliprc_eps_a.safetensors", name, 0, 1.0);
    let (summary, report) = compare(&[file]);
    assert_eq!(summary.failed, 2, "{report}"); // the gradient, and the step with the file's gradients
    assert!(report.contains(&format!("FAIL {name}: ")), "{report}");
}

/// Every part that CLIP-RC adds affects the numbers: region tokens, the patch stream, both decoders, the recovery.
#[test]
fn a_changed_weight_of_clip_rc_is_found() {
    let folder = tempfile::tempdir().unwrap();
    for (weight, first) in [
        ("backbone.region_level_bridge", "eval.pre_ln_tokens"),
        ("decode_head.lateral_proj.weight", "eval.lateral_proj"),
        (
            "decode_head.decoder_q.layers.1.linear2.bias",
            "eval.decq1.out",
        ),
        (
            "decode_head.decoder_v.layers.2.norm3.weight",
            "eval.decv2.out",
        ),
        (
            "decode_head.recovery_decoder.linear_q_out.bias",
            "train.rec.q",
        ),
    ] {
        let weight = format!("state.{weight}");
        let file = corrupted(folder.path(), "cliprc_st_a.safetensors", &weight, 3, 0.7);
        let (summary, report) = compare(&[file]);
        assert!(
            !summary.passed() && report.contains(&format!("FAIL {first}: ")),
            "{report}"
        );
    }
}

#[test]
fn a_wrong_value_fails_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for (tensor, value) in [
        ("eval.g", 0.5),
        ("train.total_after_step1", 9.6),
        ("eval.dec1.k", f32::NAN),
        ("step1.backbone.prompt_norm.weight", 1.0),
    ] {
        let file = corrupted(folder.path(), "zegclip_eps_a.safetensors", tensor, 0, value);
        let (summary, report) = compare(&[file]);
        assert!(!summary.passed(), "{tensor}: {report}");
        assert_eq!(summary.failed, 1, "{tensor}: {report}");
        assert_eq!(summary.worst().unwrap().name, tensor);
        assert!(report.contains(&format!("FAIL {tensor}: ")), "{report}");
        assert!(report.lines().last().unwrap().starts_with("parity: FAIL "));
    }
}

#[test]
fn a_changed_weight_is_found_in_all_later_results() {
    let folder = tempfile::tempdir().unwrap();
    let weight = "state.backbone.prompt_norm.weight";
    let file = corrupted(folder.path(), "zegclip_eps_a.safetensors", weight, 0, 2e-3);
    let (summary, report) = compare(&[file]);
    assert!(summary.failed > 3, "{report}");
    assert!(!report.contains("FAIL eval.block1"), "{report}");
}

#[test]
fn the_exit_code_is_the_verdict() {
    let zeg = |path: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_zeg-parity"))
            .arg(path)
            .output();
        output.unwrap().status.code()
    };
    assert_eq!(zeg(&golden("variants_a.safetensors")), Some(0));
    let folder = tempfile::tempdir().unwrap();
    let file = corrupted(folder.path(), "variants_a.safetensors", "plain.g", 3, 0.25);
    assert_eq!(zeg(&file), Some(1));
}

#[test]
fn nothing_compared_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (empty, report) = compare(&[path("")]);
    assert!(!empty.passed(), "{report}");
    assert!(
        report.contains("contains no file of reference numbers"),
        "{report}"
    );

    let bytes = fs::read(golden("text_encoder_a.safetensors")).unwrap();
    fs::write(path("truncated.safetensors"), &bytes[..bytes.len() - 9]).unwrap();
    fs::write(path("damaged.json"), "{\"vectors\": [").unwrap();
    fs::write(path("other.json"), "{\"colour\": \"green\"}").unwrap();
    for (name, reason) in [
        (
            "truncated.safetensors",
            "is not a complete safetensors file",
        ),
        ("damaged.json", "is not JSON"),
        ("other.json", "is not a known file of reference numbers"),
        ("absent.safetensors", "No such file"),
    ] {
        let (summary, report) = compare(&[golden("misc_cliprc.safetensors"), path(name)]);
        assert!(
            !summary.passed() && summary.unreadable == 1,
            "{name}: {report}"
        );
        assert!(report.contains(reason), "{name}: {report}");
    }
    // A folder with a damaged file among others fails too; JSON files of other kinds are skipped.
    let (summary, report) = compare(&[folder.path().to_owned()]);
    assert_eq!((summary.files, summary.unreadable), (0, 2), "{report}");
}
