//! Fuzzes the JPEG path with whole files, scans and segments; the first byte selects one.
//!
//! run   cargo +nightly fuzz run jpeg fuzz/corpus/jpeg fuzz/seeds/jpeg -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::jpeg(data));
