//! Tests that hostile files are refused or read within bounds, and that none executes anything.
//!
//! `reference/hostile_weights.py` makes `golden/hostile` with a `manifest.json`, which says what each file does and
//! what the expected result is. The other tests damage valid files of every format at every position.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test helpers may panic, like the tests"
)]

mod common;

use common::{TABLES, golden};
use proptest::prelude::*;
use zeg_weights::{Inspection, StateDict, WeightsError};

/// Opens the content of a file and reads every tensor, as a program that trusts the file would.
fn read_all(bytes: Vec<u8>) -> Result<usize, WeightsError> {
    let size = bytes.len();
    let weights = StateDict::from_bytes("test", bytes, TABLES)?;
    let mut values = 0;
    for key in weights.keys() {
        let tensor = weights.read(key)?.expect("a listed tensor is there");
        assert_eq!(
            tensor.values.len(),
            tensor.shape.iter().product::<usize>(),
            "{key}"
        );
        // A view may repeat up to a million elements; the size of any other tensor is bounded by that of the file.
        assert!(tensor.values.len() <= size.max(1 << 20), "{key}");
        values += tensor.values.len();
    }
    // The inspection must not panic either.
    let _ = Inspection::of(&weights);
    Ok(values)
}

#[test]
fn hostile_files_have_the_result_stated_in_their_manifest() {
    let manifest = std::fs::read(golden("hostile/manifest.json")).unwrap();
    let manifest: Vec<serde_json::Value> = serde_json::from_slice(&manifest).unwrap();
    assert!(manifest.len() > 60, "{}", manifest.len());
    let mut named = 0;
    for case in manifest {
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let (file, verdict) = (text("file"), text("verdict"));
        let bytes = std::fs::read(golden("hostile").join(&file)).unwrap();
        let result = read_all(bytes);
        match verdict.as_str() {
            "read" => assert!(result.unwrap() > 0, "{file}"),
            // The file may be refused or read, within the bounds that `read_all` checks.
            "bounded" => {}
            "refused" => {
                let error = result.expect_err(&file);
                let names = text("names");
                if !names.is_empty() {
                    let WeightsError::ForbiddenCall { callable, .. } = &error else {
                        panic!("{file}: {error}");
                    };
                    assert!(callable.contains(&names), "{file}: {error}");
                    named += 1;
                }
            }
            other => panic!("{file}: verdict {other:?}"),
        }
    }
    assert!(named >= 14, "{named}");
}

#[test]
fn a_refusal_names_the_function_that_would_be_called() {
    let error = common::open(&golden("hostile/meta_os_system.pth")).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("would call os.system"), "{text}");
}

#[test]
fn a_tar_file_is_refused_with_instructions_for_conversion() {
    let error = common::open(&golden("hostile/tar_os_system.pth")).unwrap_err();
    assert!(matches!(error, WeightsError::TarFile { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("before PyTorch 0.1.10"), "{text}");
    assert!(
        text.contains("torch.save(torch.load(OLD, weights_only=False), NEW)"),
        "{text}"
    );
}

/// Small valid files of every format.
const SEEDS: [&str; 5] = [
    "hostile/control.pth",
    "hostile/control_legacy.pth",
    "hostile/control.safetensors",
    "dtypes.pth",
    "dtypes_legacy.pth",
];

#[test]
fn a_file_truncated_anywhere_is_an_error() {
    for seed in SEEDS {
        let bytes = std::fs::read(golden(seed)).unwrap();
        assert!(read_all(bytes.clone()).is_ok(), "{seed}");
        for length in 0..bytes.len() {
            let result = read_all(bytes[..length].to_vec());
            assert!(result.is_err(), "{seed} truncated to {length} bytes");
        }
    }
}

#[test]
fn a_file_with_any_byte_changed_does_not_panic() {
    for seed in SEEDS {
        let bytes = std::fs::read(golden(seed)).unwrap();
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= change;
                let _ = read_all(damaged);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn files_with_several_changes_do_not_panic(
        seed in 0..SEEDS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = std::fs::read(golden(SEEDS[seed])).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read_all(bytes);
    }

    #[test]
    fn random_opcodes_do_not_panic(opcodes in prop::collection::vec(any::<u8>(), 0..200)) {
        // Of all formats, only the legacy one begins with a bare pickle.
        let mut bytes = vec![0x80, 2];
        bytes.extend(opcodes);
        let _ = read_all(bytes);
    }
}

#[test]
fn failed_downloads_are_named() {
    for (bytes, says) in [
        (&b""[..], "empty"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
            "Git LFS pointer",
        ),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (
            b"\x93NUMPY\x01\x00",
            "neither a safetensors nor a PyTorch file",
        ),
        (b"\x80\x04K\x01.", "torch.save has not written"),
    ] {
        let error = StateDict::from_bytes("download", bytes.to_vec(), TABLES).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// Returns a file in the legacy format whose object is this pickle, with nothing after it.
fn after_the_magic(pickle: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.".to_vec();
    bytes.extend(b"\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s.\x80\x02");
    bytes.extend(pickle);
    bytes
}

fn refusal(pickle: &[u8]) -> String {
    read_all(after_the_magic(pickle)).unwrap_err().to_string()
}

#[test]
fn small_pickles_that_expand_are_limited() {
    // This pickle converts a list of pairs to a dict once in every few bytes.
    let mut pickle = b"](".to_vec();
    pickle.extend(b"NN\x86".repeat(60_000));
    pickle.extend(b"e\x85q\x00ccollections\nOrderedDict\nq\x010");
    pickle.extend(b"h\x01h\x00R0".repeat(1000));
    pickle.extend(b"N.");
    let text = refusal(&[b"0".as_slice(), &pickle].concat());
    assert!(text.contains("the stack is empty"), "{text}");
    let text = refusal(&pickle);
    assert!(text.contains("pairs copied from lists"), "{text}");
    // This pickle has a million values.
    let text = refusal(&[b"(".as_slice(), &b"]".repeat(1 << 20), b"t."].concat());
    assert!(text.contains("524288 values"), "{text}");
    // Duplicates are not new values, so the limit on opcodes applies.
    let text = refusal(&[b"N".as_slice(), &b"2".repeat(3 << 20), b"."].concat());
    assert!(text.contains("opcodes"), "{text}");
}

#[test]
fn cyclic_and_repeated_modules_are_refused() {
    // The attribute `a` of this object is the object itself.
    let text = refusal(b"c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.\x80\x02].");
    assert!(text.contains("nested more than 64 deep"), "{text}");
    // Each of these 40 objects has the previous one as two attributes.
    let mut pickle = b"c__torch__\nM\n)\x81q\x00".to_vec();
    for _ in 0..40 {
        pickle.extend(
            b"c__torch__\nM\n)\x81}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ubq\x000",
        );
    }
    pickle.extend(b"0h\x00.\x80\x02].");
    let text = refusal(&pickle);
    assert!(text.contains("too many times"), "{text}");
}

#[test]
fn error_messages_are_short_and_without_control_characters() {
    let header = format!(
        "{{\"{}\":{{\"dtype\":\"\\u001b[2J{}\"}}}}",
        "k".repeat(9000),
        "x".repeat(9000)
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    let text = read_all(bytes).unwrap_err().to_string();
    assert!(text.contains("[2Jxxx"), "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.chars().count() < 500, "{text}");
    let text = refusal(b"c\x1b[31mos\nsystem\n)R.");
    assert!(text.contains("[31mos.system"), "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[test]
fn compressed_entries_and_big_endian_numbers_are_refused() {
    let bytes = std::fs::read(golden("hostile/zip_bomb.pth")).unwrap();
    let text = read_all(bytes).unwrap_err().to_string();
    assert!(text.contains("is compressed"), "{text}");

    let mut bytes = std::fs::read(golden("dtypes.pth")).unwrap();
    let at = bytes
        .windows(6)
        .position(|window| window == b"little")
        .unwrap();
    bytes[at..at + 6].copy_from_slice(b"big   ");
    let text = read_all(bytes).unwrap_err().to_string();
    assert!(text.contains("big-endian"), "{text}");

    let mut bytes = std::fs::read(golden("dtypes_legacy.pth")).unwrap();
    let name = b"little_endian";
    let at = bytes.windows(13).position(|window| window == name).unwrap();
    let order = bytes[at..].iter().position(|byte| *byte == 0x88).unwrap();
    bytes[at + order] = 0x89;
    let text = read_all(bytes).unwrap_err().to_string();
    assert!(text.contains("big-endian"), "{text}");
}

#[test]
fn a_pickle_that_leaves_values_on_the_stack_is_refused() {
    let text = refusal(b"N}.");
    assert!(text.contains("left on the stack"), "{text}");
    let text = refusal(b"(}.");
    assert!(text.contains("left on the stack"), "{text}");
}

#[test]
fn an_entry_that_is_compressed_to_its_own_length_is_refused() {
    let mut bytes = std::fs::read(golden("hostile/control.pth")).unwrap();
    let entries: Vec<usize> = (0..bytes.len() - 46)
        .filter(|&at| bytes[at..].starts_with(b"PK\x01\x02"))
        .collect();
    assert!(!entries.is_empty());
    for at in entries {
        bytes[at + 10] = 8; // the method deflate, in the entry of the directory
    }
    let text = read_all(bytes).unwrap_err().to_string();
    assert!(text.contains("is compressed"), "{text}");
}

#[test]
fn a_changed_value_of_an_archive_is_an_error_that_names_the_record() {
    let whole = std::fs::read(golden("wrapped/plain.pth")).unwrap();
    let weights = StateDict::from_bytes("plain.pth", whole.clone(), TABLES).unwrap();
    let values = weights.read("backbone.proj").unwrap().unwrap().values;
    let stored: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    // Several tensors may have the same values.
    let places: Vec<usize> = (0..whole.len())
        .filter(|&at| whole[at..].starts_with(&stored))
        .collect();
    assert!(!places.is_empty());
    let mut bytes = whole;
    for at in places {
        bytes[at] ^= 1;
    }
    let weights = StateDict::from_bytes("plain.pth", bytes, TABLES).unwrap();
    let text = weights.read("backbone.proj").unwrap_err().to_string();
    assert!(
        text.contains("/data/") && text.contains("checksum"),
        "{text}"
    );
}
