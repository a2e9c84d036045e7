//! Fuzzes the reader of safetensors headers: no header may make it panic or use much more memory than the input's size.
//!
//! The input is the number of data bytes (two bytes), then the header. The target puts the header's length before it,
//! because otherwise nearly no input would have a valid length.
//!
//! run   cargo fuzz run safetensors_header -- -max_total_time=600 -rss_limit_mb=2048 -malloc_limit_mb=256
//! seeds python fuzz/weight_seeds.py

#![no_main]

use libfuzzer_sys::fuzz_target;
use zeg_weights::{Inspection, StateDict};

fuzz_target!(|data: &[u8]| {
    let Some((count, header)) = data.split_first_chunk::<2>() else {
        return;
    };
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + usize::from(u16::from_le_bytes(*count)), 0x3c);
    let Ok(weights) = StateDict::from_bytes("fuzz", file, &[]) else {
        return;
    };
    for key in weights.keys().take(64) {
        if let Ok(tensor) = weights.read(key) {
            assert_eq!(tensor.map(|tensor| tensor.shape), weights.shape(key));
        }
    }
    let _ = Inspection::of(&weights);
});
