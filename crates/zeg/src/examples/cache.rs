//! Keeps encoded examples on disk; as with class embeddings, a cache that cannot be read or written only costs time.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use zeg_base::fingerprint::Fingerprint;
use zeg_model::examples::{ExampleFeatures, PATCHES_INSIDE, PATCHES_OUTSIDE};

use crate::embedding_cache::store;

/// Length in bytes of the checksum in front of the numbers.
const CHECKSUM: usize = 32;
/// Number of values before the features: channels and numbers of patches.
const SIZES: usize = 3;
/// Most channels that are read back, far beyond those of any CLIP.
const MOST_CHANNELS: usize = 1 << 14;

/// The place of one encoded example.
///
/// The file holds a SHA-256 of all that follows, then channels, patches inside and patches outside, each as `u32`, then
/// the patches, as `f32`; all little endian.
pub(super) struct FeatureCache(PathBuf);

impl FeatureCache {
    /// Returns the place in a cache folder of an example with these facts.
    pub(super) fn new(folder: &Path, facts: &Fingerprint) -> Self {
        Self(
            folder
                .join("examples")
                .join(format!("{}.bin", facts.digest())),
        )
    }

    /// Returns the example, if it was stored and its file is intact.
    pub(super) fn get(&self) -> Option<ExampleFeatures> {
        let most = CHECKSUM + 4 * (SIZES + MOST_CHANNELS * (PATCHES_INSIDE + PATCHES_OUTSIDE));
        if std::fs::metadata(&self.0).ok()?.len() > most as u64 {
            return None;
        }
        let bytes = std::fs::read(&self.0).ok()?;
        let (checksum, content) = bytes.split_at_checked(CHECKSUM)?;
        if Sha256::digest(content).as_slice() != checksum {
            return None;
        }
        let (words, rest) = content.as_chunks::<4>();
        let (sizes, numbers) = words.split_at_checked(SIZES)?;
        let size = |index: usize| Some(u32::from_le_bytes(*sizes.get(index)?) as usize);
        let (dim, inside, outside) = (size(0)?, size(1)?, size(2)?);
        let fits = dim <= MOST_CHANNELS && inside <= PATCHES_INSIDE && outside <= PATCHES_OUTSIDE;
        if !fits || !rest.is_empty() || numbers.len() != dim * (inside + outside) {
            return None;
        }
        let floats =
            |words: &[[u8; 4]]| words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let (inside, outside) = numbers.split_at_checked(dim * inside)?;
        Some(ExampleFeatures::new(dim, floats(inside), floats(outside)))
    }

    /// Stores the example.
    pub(super) fn put(&self, example: &ExampleFeatures) {
        let sizes = [
            example.dim(),
            example.inside().count(),
            example.outside().count(),
        ];
        let mut content: Vec<u8> = sizes
            .iter()
            .flat_map(|&size| (size as u32).to_le_bytes())
            .collect();
        let numbers = example.inside().chain(example.outside()).flatten();
        content.extend(numbers.flat_map(|number| number.to_le_bytes()));
        let mut bytes = Sha256::digest(&content).to_vec();
        bytes.extend(content);
        // If the disk is full or read-only, the example is encoded again at the next start; that is not an error.
        let _ = store(&self.0, &bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_example_comes_back_and_a_damaged_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = FeatureCache::new(folder.path(), &Fingerprint::new().with("pair", "a"));
        assert_eq!(place.get(), None);
        let example = ExampleFeatures::new(2, vec![1.0, 0.0, 0.5, -0.5], vec![0.0, 1.0]);
        place.put(&example);
        assert_eq!(place.get(), Some(example.clone()));
        let other = FeatureCache::new(folder.path(), &Fingerprint::new().with("pair", "b"));
        assert_eq!(other.get(), None);
        let mut bytes = std::fs::read(&place.0).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&place.0, bytes).unwrap();
        assert_eq!(place.get(), None);
        place.put(&example);
        assert_eq!(place.get(), Some(example));
    }
}
