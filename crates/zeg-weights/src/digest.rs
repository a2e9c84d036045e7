//! Digests of files, by which weights are recognised.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use zeg_base::{fingerprint::digest, hex};

use crate::{WeightsError, container};

/// All files that weights are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightFiles {
    /// The file, or the index of several files.
    first: PathBuf,
    /// The files that the index lists, sorted by name; empty if there is no index.
    shards: Vec<PathBuf>,
}

impl WeightFiles {
    /// Finds the files of weights.
    ///
    /// - `path`: a file, an index of several files, or a folder with weights, as [`StateDict::open`] takes it
    ///
    /// [`StateDict::open`]: crate::StateDict::open
    ///
    /// # Errors
    /// Returns an error if there is no such file, if a folder has no weights, or if an index is damaged.
    pub fn of(path: &Path) -> Result<Self, WeightsError> {
        let mut files = container::files(path)?.into_iter();
        Ok(Self {
            first: files.next().unwrap_or_else(|| path.to_owned()),
            shards: files.collect(),
        })
    }

    /// Returns the paths of all files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let shards = self.shards.iter();
        std::iter::once(&self.first)
            .chain(shards)
            .map(PathBuf::as_path)
    }

    /// Returns whether the weights are in several files with an index.
    pub fn is_sharded(&self) -> bool {
        !self.shards.is_empty()
    }

    /// Returns the SHA-256 of the weights in lower-case hexadecimal digits: that of the file, or, of several files, one
    /// that follows from the contents of the index and of every file that it lists.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn sha256(&self) -> Result<String, WeightsError> {
        if !self.is_sharded() {
            return file_sha256(&self.first);
        }
        let paths: Vec<&Path> = self.paths().collect();
        let digests: Result<Vec<String>, WeightsError> =
            paths.par_iter().map(|path| file_sha256(path)).collect();
        // The index names the shards and is the first file, so the order of the digests says which is whose.
        Ok(digest(digests?))
    }

    /// Returns the SHA-256 of the file, or of the index alone, as earlier versions computed it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn first_sha256(&self) -> Result<String, WeightsError> {
        file_sha256(&self.first)
    }
}

/// Returns the SHA-256 of a single file in lower-case hexadecimal digits; [`WeightFiles::sha256`] is that of weights.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn file_sha256(path: &Path) -> Result<String, WeightsError> {
    let mut hasher = Sha256::new();
    hash_file(path, &mut hasher, &mut |_| {})?;
    Ok(hex::encode(hasher.finalize()))
}

/// Feeds a file to a digest and calls `fed` with the number of bytes after every piece.
pub(crate) fn hash_file(
    path: &Path,
    hasher: &mut Sha256,
    fed: &mut dyn FnMut(u64),
) -> Result<(), WeightsError> {
    let read = |error| WeightsError::Read {
        path: path.to_owned(),
        source: zeg_base::file::read_error(path, error),
    };
    let mut file = File::open(path).map_err(read)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(read)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        hasher.update(bytes);
        fed(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// An index of a fine-tuned model is mostly the same text as that of the original.
    #[test]
    fn the_digest_of_sharded_weights_depends_on_every_shard() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
        let by_index = path("model.safetensors.index.json");
        fs::write(&by_index, index).unwrap();
        fs::write(path("one.safetensors"), "one").unwrap();
        fs::write(path("two.safetensors"), "two").unwrap();
        let sha256 = |path: &Path| WeightFiles::of(path).unwrap().sha256().unwrap();
        let before = sha256(&by_index);
        assert_eq!(before.len(), 64);
        assert_eq!(
            before,
            sha256(folder.path()),
            "a folder stands for the weights in it"
        );
        for (shard, text) in [("one.safetensors", "1"), ("two.safetensors", "2")] {
            let old = fs::read(path(shard)).unwrap();
            fs::write(path(shard), text).unwrap();
            assert_ne!(before, sha256(&by_index), "{shard}");
            fs::write(path(shard), old).unwrap();
        }
        assert_eq!(before, sha256(&by_index));
        assert_eq!(
            WeightFiles::of(&by_index).unwrap().first_sha256().unwrap(),
            file_sha256(&by_index).unwrap()
        );
        fs::remove_file(path("two.safetensors")).unwrap();
        let error = WeightFiles::of(&by_index).unwrap().sha256().unwrap_err();
        assert!(error.to_string().contains("two.safetensors"), "{error}");
    }

    #[test]
    fn the_digest_of_one_file_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, "abc").unwrap();
        let files = WeightFiles::of(folder.path()).unwrap();
        assert!(!files.is_sharded());
        assert_eq!(
            files.sha256().unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(WeightFiles::of(&folder.path().join("none")).is_err());
    }
}
