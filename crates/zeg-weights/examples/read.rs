//! Opens weight files, reads every tensor, and prints how long that took.
//!
//! run  cargo run --release -p zeg-weights --example read -- FILE...
//!
//! Each file is read twice; the second time, its bytes come from the page cache.

use std::{error::Error, path::Path, time::Instant};

use zeg_weights::{Inspection, StateDict};

fn main() -> Result<(), Box<dyn Error>> {
    for name in std::env::args().skip(1) {
        let path = Path::new(&name);
        for _ in 0..2 {
            let start = Instant::now();
            let weights = StateDict::open(path, &[])?;
            let opened = start.elapsed();
            let mut values = 0;
            let mut largest = 0.0_f32;
            for key in weights.keys() {
                if let Some(tensor) = weights.read(key)? {
                    values += tensor.values.len();
                    largest = tensor
                        .values
                        .first()
                        .map_or(largest, |value| largest.max(value.abs()));
                }
            }
            let read = start.elapsed();
            println!(
                "{name}: opened in {opened:.1?}, {values} values in {read:.1?} (a first value of {largest})"
            );
        }
        println!(
            "{}",
            serde_json::to_string_pretty(&Inspection::of(&StateDict::open(path, &[])?)?)?
        );
    }
    Ok(())
}
