//! Fuzzes the reader of whole weight files, mainly PyTorch's zip files.
//!
//! run   cargo +nightly fuzz run torch_archive fuzz/corpus/torch_archive fuzz/seeds/torch_archive -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::torch_archive(data));
