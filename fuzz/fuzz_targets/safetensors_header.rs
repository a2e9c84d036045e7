//! Fuzzes the reader of safetensors headers.
//!
//! run   cargo +nightly fuzz run safetensors_header fuzz/corpus/safetensors_header fuzz/seeds/safetensors_header -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::safetensors_header(data));
