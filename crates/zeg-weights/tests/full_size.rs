//! Tests the formats at the size of ViT-B/16, with a folder that `reference/clip_formats.py --size full` has written.
//!
//! run  ZEG_FULL_SIZE=FOLDER cargo test --release -p zeg-weights --test full_size -- --ignored --nocapture

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test helpers may panic, like the tests"
)]

use std::{path::PathBuf, time::Instant};

use zeg_weights::{ImportPrecision, StateDict, WeightsPart, import};

#[test]
#[ignore = "needs 2.6 GB of files in the folder ZEG_FULL_SIZE"]
fn every_format_is_imported_to_the_same_values() {
    let folder = PathBuf::from(std::env::var_os("ZEG_FULL_SIZE").expect("ZEG_FULL_SIZE is set"));
    let scratch = tempfile::tempdir().unwrap();
    let mut data: Option<Vec<u8>> = None;
    for name in [
        "openai/vit.pt",
        "huggingface",
        "huggingface_sharded",
        "open_clip",
        "open_clip_gelu_custom_text",
    ] {
        let output = scratch.path().join("imported.safetensors");
        let start = Instant::now();
        let mut calls = 0;
        let found = import(
            &folder.join(name),
            &[],
            &output,
            ImportPrecision::F32,
            &mut |_, _| {
                calls += 1;
            },
        );
        let found = found.unwrap();
        let took = start.elapsed();
        println!("{name}: imported in {took:.2?}, progress reported {calls} times");
        assert_eq!(found.part(WeightsPart::ImageTower).parameters, 86_192_640);
        assert_eq!(found.part(WeightsPart::TextTower).parameters, 63_428_096);
        // The headers differ in the source that they state; the values after them have the same order.
        let bytes = std::fs::read(&output).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let values = bytes[8 + header..].to_vec();
        drop(bytes);
        match &data {
            None => data = Some(values),
            Some(first) => assert!(*first == values, "{name}"),
        }
        let start = Instant::now();
        let weights = StateDict::open(&output, &[]).unwrap();
        let values: usize = weights
            .keys()
            .map(|key| weights.read(key).unwrap().unwrap().values.len())
            .sum();
        println!(
            "{name}: {values} values of the result read in {:.2?}",
            start.elapsed()
        );
    }
}
