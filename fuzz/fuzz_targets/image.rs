//! Images of all formats: any bytes are an image or an error.
//!
//! Seeds: `cargo +nightly fuzz run image fuzz/corpus/image crates/zeg-image/tests/golden/formats`. A WebP or TIFF of
//! some bytes can be an image of one colour and any size, so the limit on memory must be 3 GB.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zeg_image::decode_rgb_bytes;

fuzz_target!(|data: &[u8]| {
    if let Ok(image) = decode_rgb_bytes(data, Path::new("fuzz")) {
        assert!(image.width() > 0 && image.height() > 0);
    }
});
