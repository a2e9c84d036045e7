//! Fuzzes the reader of split lists.
//!
//! run   cargo +nightly fuzz run split_list fuzz/corpus/split_list fuzz/seeds/split_list -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::split_list(data));
