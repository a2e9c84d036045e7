//! Fuzzes the parsers of class files (text and TOML), class lists and template files; the first byte modulo 4 selects one.
//!
//! run   cargo +nightly fuzz run class_file fuzz/corpus/class_file fuzz/seeds/class_file -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::class_file(data));
