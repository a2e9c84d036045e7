//! Fuzzes the reader of whole weight files, mainly PyTorch's zip files: no file may make it panic or use much more
//! memory than its size.
//!
//! run   cargo fuzz run torch_archive -- -max_total_time=600 -rss_limit_mb=2048 -malloc_limit_mb=256
//! seeds python fuzz/weight_seeds.py

#![no_main]

use libfuzzer_sys::fuzz_target;
use zeg_weights::{Inspection, StateDict};

fuzz_target!(|data: &[u8]| {
    let Ok(weights) = StateDict::from_bytes("fuzz", data.to_vec(), &[]) else {
        return;
    };
    for key in weights.keys().take(64) {
        if let Ok(tensor) = weights.read(key) {
            assert_eq!(tensor.map(|tensor| tensor.shape), weights.shape(key));
        }
    }
    let _ = Inspection::of(&weights);
});
