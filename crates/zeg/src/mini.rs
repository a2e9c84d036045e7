//! Provides MiniCLIP, the small model that is embedded in the program as `--weights mini` and `--model mini`.
//!
//! `zeg pretrain` made its file; the manifest beside it records the command and the results. All code that reads
//! weights by a path calls this module, so that the name works wherever a file does.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use zeg_model::{
    methods::Methods,
    weights::{StateDict, WeightFiles, WeightsError},
};

/// Name of MiniCLIP in place of a path to weights.
pub const NAME: &str = "mini";
/// The weights of both towers.
const WEIGHTS: &[u8] = include_bytes!("../assets/miniclip.safetensors");
/// The command that made the weights and its results, as JSON.
pub const MANIFEST: &str = include_str!("../assets/miniclip.json");

/// Returns whether a path means MiniCLIP; a file of that name can be given as `./mini`.
pub fn is_mini(path: &Path) -> bool {
    path == Path::new(NAME)
}

/// Opens the weights in a file, or those of MiniCLIP.
///
/// # Errors
/// Returns an error if the file cannot be read or is damaged.
pub fn open_weights(path: &Path, methods: &Methods) -> Result<StateDict, WeightsError> {
    let tables = methods.key_tables();
    if is_mini(path) {
        StateDict::from_bytes(NAME, WEIGHTS.to_vec(), &tables)
    } else {
        StateDict::open(path, &tables)
    }
}

/// Returns the SHA-256 of the weights in a file, in all files of an index or in a folder, or of MiniCLIP's weights.
///
/// # Errors
/// Returns an error if a file cannot be read.
pub fn weights_sha256(path: &Path) -> Result<String, WeightsError> {
    if !is_mini(path) {
        return WeightFiles::of(path)?.sha256();
    }
    Ok(zeg_base::hex::encode(Sha256::digest(WEIGHTS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_weights_are_small_and_agree_with_their_manifest() {
        assert!(WEIGHTS.len() < 4 << 20, "{} bytes", WEIGHTS.len());
        let manifest: serde_json::Value = serde_json::from_str(MANIFEST).unwrap();
        let weights = open_weights(Path::new(NAME), &Methods::default()).unwrap();
        let own = &weights.metadata()["zeg.pretraining"];
        let own: serde_json::Value = serde_json::from_str(own).unwrap();
        // The file beside the weights holds the time of the run as well.
        for (key, value) in own.as_object().unwrap() {
            assert_eq!(*value, manifest[key], "{key}");
        }
        assert!(manifest["zero-shot-accuracy"].as_f64().unwrap() > 0.95);
        assert_eq!(weights_sha256(Path::new(NAME)).unwrap().len(), 64);
        assert!(!is_mini(Path::new("./mini")));
    }
}
