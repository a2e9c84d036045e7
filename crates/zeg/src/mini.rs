//! MiniCLIP, the model that is part of the program: what `--weights mini` and `--model mini` mean.
//!
//! Its file was made by `zeg pretrain` (the command and its figures stand in the manifest beside it). Everything that
//! reads weights by a path goes through here, so that the name works wherever a file does.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use zeg_model::{
    methods::Methods,
    weights::{StateDict, WeightsError, file_sha256},
};

/// What MiniCLIP is called where weights are named.
pub const NAME: &str = "mini";
/// The weights, both towers.
const WEIGHTS: &[u8] = include_bytes!("../assets/miniclip.safetensors");
/// What made them, as JSON.
pub const MANIFEST: &str = include_str!("../assets/miniclip.json");

/// Whether a path means MiniCLIP; a file of that name is `./mini`.
pub fn is_mini(path: &Path) -> bool {
    path == Path::new(NAME)
}

/// Opens weights: a file, or MiniCLIP.
///
/// # Errors
/// The file cannot be read or is damaged.
pub fn open_weights(path: &Path, methods: &Methods) -> Result<StateDict, WeightsError> {
    let tables = methods.key_tables();
    if is_mini(path) {
        StateDict::from_bytes(NAME, WEIGHTS.to_vec(), &tables)
    } else {
        StateDict::open(path, &tables)
    }
}

/// SHA-256 of weights: of a file, or of MiniCLIP's.
///
/// # Errors
/// The file cannot be read.
pub fn weights_sha256(path: &Path) -> Result<String, WeightsError> {
    if !is_mini(path) {
        return file_sha256(path);
    }
    Ok(zeg_base::hex::encode(Sha256::digest(WEIGHTS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_small_and_what_the_manifest_says() {
        assert!(WEIGHTS.len() < 4 << 20, "{} bytes", WEIGHTS.len());
        let manifest: serde_json::Value = serde_json::from_str(MANIFEST).unwrap();
        let weights = open_weights(Path::new(NAME), &Methods::default()).unwrap();
        let own = &weights.metadata()["zeg.pretraining"];
        let own: serde_json::Value = serde_json::from_str(own).unwrap();
        assert_eq!(own, manifest);
        assert!(manifest["zero-shot-accuracy"].as_f64().unwrap() > 0.95);
        assert_eq!(weights_sha256(Path::new(NAME)).unwrap().len(), 64);
        assert!(!is_mini(Path::new("./mini")));
    }
}
