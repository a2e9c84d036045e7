//! Headers of safetensors files: whatever they claim, nothing panics and nothing grows far beyond the input.
//!
//! The input is a count of data bytes in two bytes, then the header; its length is put before it, without which
//! nearly no input would get further.
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
