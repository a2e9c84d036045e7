//! Fuzzes the image decoder of all formats: any bytes must give an image or an error.
//!
//! Seeds: `cargo +nightly fuzz run image fuzz/corpus/image crates/zeg-image/tests/golden/formats`. A WebP or TIFF file
//! of a few bytes can encode an image of one colour and any size, so the memory limit must be 3 GB.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zeg_image::decode_rgb_bytes;

fuzz_target!(|data: &[u8]| {
    if let Ok(image) = decode_rgb_bytes(data, Path::new("fuzz")) {
        assert!(image.width() > 0 && image.height() > 0);
    }
});
