//! Fuzzes the parser of class files under the names of all forms: text, CSV, JSON, YAML, TOML; the first byte selects one.
//!
//! run   cargo +nightly fuzz run class_forms fuzz/corpus/class_forms fuzz/seeds/class_forms -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::class_forms(data));
