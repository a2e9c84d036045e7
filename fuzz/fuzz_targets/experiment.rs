//! Fuzzes the parser of experiment files.
//!
//! run   cargo +nightly fuzz run --features models experiment fuzz/corpus/experiment fuzz/seeds/experiment -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::models::experiment(data));
