//! Caches class embeddings on disk, so that a class name is encoded once and not at every start.
//!
//! A file's name is a digest of everything its embedding depends on: the text tower's weights, the prompt templates and
//! the names of the class. The file starts with a SHA-256 of its numbers; a damaged file counts as absent. Nothing here
//! returns an error: a cache that cannot be read or written only costs time.

use std::{
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use zeg_base::{
    file::{Overwrite, make_folder_of, write},
    hex,
};
use zeg_vocab::templates::TemplateSet;

/// Length in bytes of the checksum in front of the numbers.
const CHECKSUM: usize = 32;
/// Longest embedding that is read back, in channels; far beyond that of any CLIP.
const MOST_CHANNELS: u64 = 1 << 16;

/// A folder of cached class embeddings of one text tower.
#[derive(Debug, Clone)]
pub struct EmbeddingCache {
    folder: PathBuf,
    tower: String,
}

impl EmbeddingCache {
    /// Opens the cache of the text tower in a weights file.
    ///
    /// - `folder`: the folder of all caches; created when the first embedding is stored
    ///
    /// The file's contents are hashed once; later, its path, length and modification time identify it. Returns `None`
    /// if the file cannot be read.
    pub fn of_file(folder: &Path, weights: &Path) -> Option<Self> {
        Some(Self {
            folder: folder.join("embeddings"),
            tower: remembered_digest(&folder.join("digests"), weights)?,
        })
    }

    /// Returns the embedding of a class, `[dim]`, if it was stored.
    pub fn get(&self, templates: &TemplateSet, names: &[String]) -> Option<Vec<f32>> {
        let path = self.path(templates, names);
        if std::fs::metadata(&path).ok()?.len() > CHECKSUM as u64 + 4 * MOST_CHANNELS {
            return None;
        }
        let bytes = std::fs::read(path).ok()?;
        let (checksum, numbers) = bytes.split_at_checked(CHECKSUM)?;
        let (numbers, rest) = numbers.as_chunks::<4>();
        let intact = rest.is_empty()
            && !numbers.is_empty()
            && Sha256::digest(numbers.as_flattened()).as_slice() == checksum;
        intact.then(|| numbers.iter().map(|n| f32::from_le_bytes(*n)).collect())
    }

    /// Stores the embedding of a class.
    pub fn put(&self, templates: &TemplateSet, names: &[String], embedding: &[f32]) {
        let numbers: Vec<u8> = embedding.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut bytes = Sha256::digest(&numbers).to_vec();
        bytes.extend(numbers);
        // If the disk is full or read-only, the class is encoded again at the next start; that is not an error.
        let _ = store(&self.path(templates, names), &bytes);
    }

    fn path(&self, templates: &TemplateSet, names: &[String]) -> PathBuf {
        let mut hasher = Sha256::new();
        // Each text is preceded by its length, so that no two lists of texts give the same bytes.
        let mut add = |text: &str| {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(&self.tower);
        for template in templates.templates() {
            add(&template.to_string());
        }
        add("names");
        for name in names {
            add(name);
        }
        self.folder
            .join(format!("{}.f32", hex::encode(hasher.finalize())))
    }
}

/// Returns the SHA-256 of a file; if the file is unchanged since it was last hashed, from a note in the cache.
fn remembered_digest(notes: &Path, file: &Path) -> Option<String> {
    let file = file.canonicalize().ok()?;
    let metadata = std::fs::metadata(&file).ok()?;
    let changed = metadata
        .modified()
        .ok()?
        .duration_since(std::time::UNIX_EPOCH)
        .ok()?;
    let key = format!(
        "{}\0{}\0{}",
        file.display(),
        metadata.len(),
        changed.as_nanos()
    );
    let note = notes.join(hex::encode(Sha256::digest(key)));
    if let Some(digest) = std::fs::read_to_string(&note).ok()
        && digest.len() == 64
        && digest.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Some(digest);
    }
    let digest = zeg_model::weights::file_sha256(&file).ok()?;
    let _ = store(&note, digest.as_bytes());
    Some(digest)
}

/// Writes an entry atomically, so that several programs can use one cache.
fn store(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_folder_of(path)?;
    write(path, bytes, Overwrite::Replace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_embedding_is_found_again_only_for_the_same_names_templates_and_tower() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights");
        std::fs::write(&weights, "a tower").unwrap();
        let cache = EmbeddingCache::of_file(folder.path(), &weights).unwrap();
        let (single, multi) = (TemplateSet::single(), TemplateSet::multi());
        let dog = names(&["dog", "puppy"]);
        assert_eq!(cache.get(&single, &dog), None);
        cache.put(&single, &dog, &[1.0, -2.5]);
        assert_eq!(cache.get(&single, &dog), Some(vec![1.0, -2.5]));
        assert_eq!(cache.get(&multi, &dog), None);
        assert_eq!(cache.get(&single, &names(&["dogpuppy"])), None);
        assert_eq!(cache.get(&single, &names(&["dog"])), None);

        std::fs::write(&weights, "another tower").unwrap();
        let other = EmbeddingCache::of_file(folder.path(), &weights).unwrap();
        assert_eq!(other.get(&single, &dog), None);
    }

    #[test]
    fn a_damaged_entry_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights");
        std::fs::write(&weights, "a tower").unwrap();
        let cache = EmbeddingCache::of_file(folder.path(), &weights).unwrap();
        let (single, dog) = (TemplateSet::single(), names(&["dog"]));
        cache.put(&single, &dog, &[1.0, 2.0]);
        let path = cache.path(&single, &dog);
        let good = std::fs::read(&path).unwrap();
        for cut in 0..good.len() {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert_eq!(cache.get(&single, &dog), None, "{cut} bytes");
        }
        let mut flipped = good.clone();
        flipped[35] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert_eq!(cache.get(&single, &dog), None);
        std::fs::write(&path, good).unwrap();
        assert!(cache.get(&single, &dog).is_some());
    }
}
