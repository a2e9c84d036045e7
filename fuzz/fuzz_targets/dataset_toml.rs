//! Fuzzes the parser of data set descriptions.
//!
//! run   cargo +nightly fuzz run dataset_toml fuzz/corpus/dataset_toml fuzz/seeds/dataset_toml -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::dataset_toml(data));
