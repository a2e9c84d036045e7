//! Fuzzes the label decoder: any bytes must give a label map of its stated size or an error.
//!
//! Seeds: `cargo +nightly fuzz run label_png fuzz/corpus/label_png crates/zeg-image/tests/golden`.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zeg_image::decode_labels_bytes;

fuzz_target!(|data: &[u8]| {
    if let Ok(labels) = decode_labels_bytes(data, Path::new("fuzz.png")) {
        assert_eq!(labels.labels().len(), labels.width() * labels.height());
    }
});
