//! Fuzzes the label decoder.
//!
//! run   cargo +nightly fuzz run label_png fuzz/corpus/label_png fuzz/seeds/label_png -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::label_png(data));
