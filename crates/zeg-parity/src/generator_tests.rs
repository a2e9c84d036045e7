//! Tests the weight generator against the weights that the small files store.

use std::path::Path;

use zeg_model::generated::parameter;

use crate::file::VectorFile;

/// Compares generated weights with the stored weights of a small file, which came from the same generator.
fn compare_with_stored(file: &str, skipped: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let file = VectorFile::open(&folder.join(file)).unwrap();
    let config = file.meta().find("config");
    let entry = |name: &str| {
        let inner = config.as_ref().and_then(|config| config.find(name));
        inner.or_else(|| file.meta().find(name))
    };
    let seed = entry("seed").unwrap().count().unwrap() as u64;
    let shrink = entry("shrink").map_or(1.0, |shrink| shrink.number().unwrap() as f32);
    let mut compared = 0;
    for (name, stored) in &file.tensors {
        let Some(name) = name.strip_prefix("state.") else {
            continue;
        };
        if skipped.iter().any(|skipped| name.ends_with(skipped)) {
            continue;
        }
        let generated = parameter(name, seed, &stored.shape).values;
        let stored = stored.to_f32();
        let shrunk: Vec<f32> = generated.iter().map(|v| v * shrink).collect();
        assert!(stored == generated || stored == shrunk, "{name}");
        compared += 1;
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn generated_weights_are_those_of_the_reference() {
    compare_with_stored("text_encoder_a.safetensors", &[]);
    // In this file, the bare `proj` follows the general rule (see the README of the vectors).
    compare_with_stored("variants_a.safetensors", &["proj"]);
    compare_with_stored("zegclip_eps_a.safetensors", &["empty_weight"]);
}
