//! Fuzzes the pickle reader: no opcodes may make it use much more memory than the size of the input.
//!
//! run   cargo +nightly fuzz run pickle fuzz/corpus/pickle fuzz/seeds/pickle -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::pickle(data));
