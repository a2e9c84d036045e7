//! Fuzzes the image decoder of all formats; a WebP or TIFF file of a few bytes can encode an image of one colour and any size,
//! so the memory limit must be 3 GB.
//!
//! run   cargo +nightly fuzz run image fuzz/corpus/image fuzz/seeds/image -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::image(data));
