//! Fuzzes the reader of tables of class embeddings.
//!
//! run   cargo +nightly fuzz run --features models embedding_table fuzz/corpus/embedding_table fuzz/seeds/embedding_table -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::models::embedding_table(data));
