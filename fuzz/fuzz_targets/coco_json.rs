//! Fuzzes the conversion of annotations in COCO's JSON.
//!
//! run   cargo +nightly fuzz run coco_json fuzz/corpus/coco_json fuzz/seeds/coco_json -- -max_total_time=600 -rss_limit_mb=3072

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| zeg_fuzz::files::coco_json(data));
