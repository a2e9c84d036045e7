//! Fuzzes the pickle reader: no opcodes may make it panic or use much more memory than the size of the input.
//!
//! The input replaces the object in the legacy format of `torch.save`, followed by the storage keys and the storages.
//!
//! run   cargo fuzz run pickle -- -max_total_time=600 -rss_limit_mb=2048 -malloc_limit_mb=256
//! seeds python fuzz/weight_seeds.py

#![no_main]

use libfuzzer_sys::fuzz_target;
use zeg_weights::{Inspection, StateDict};

/// The pickles before the object: the magic number, the version, and the information that the machine is little-endian.
const BEFORE: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\
    \x80\x02}X\x0d\x00\x00\x00little_endian\x88s.";

fuzz_target!(|data: &[u8]| {
    let Ok(weights) = StateDict::from_bytes("fuzz", [BEFORE, data].concat(), &[]) else {
        return;
    };
    for key in weights.keys().take(64) {
        let tensor = weights.read(key).ok().flatten();
        assert_eq!(tensor.map(|tensor| tensor.shape), weights.shape(key));
    }
    let _ = Inspection::of(&weights);
});
