//! Fuzzes COCO's run lengths.
//!
//! run   cargo +nightly fuzz run rle fuzz/corpus/rle fuzz/seeds/rle -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::rle(data));
