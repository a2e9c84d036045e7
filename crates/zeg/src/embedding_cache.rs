//! Caches class embeddings: on disk, so that a class name is encoded once and not at every start, or in memory, for a
//! program that strangers name classes to.
//!
//! On disk, a file's name is a digest of everything its embedding depends on: the version of the program, the text tower's weights
//! and what the files beside them state, the prompt templates and the names of the class. The file starts with a SHA-256
//! of its numbers; a damaged file counts as absent. Nothing here returns an error: a cache that cannot be read or written
//! only costs time.

mod memory;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use zeg_base::{
    file::{Overwrite, make_folder_of, write},
    file_state::FileState,
    fingerprint::{Fingerprint, digest},
};
use zeg_model::weights::{StateDict, WeightFiles, text_facts};
use zeg_vocab::templates::TemplateSet;

use self::memory::MemoryCache;
use crate::mini::{is_mini, weights_sha256};

/// Length in bytes of the checksum in front of the numbers.
const CHECKSUM: usize = 32;
/// Longest embedding that is read back, in channels; far beyond that of any CLIP.
const MOST_CHANNELS: u64 = 1 << 16;

/// The class embeddings of one text tower that are kept.
#[derive(Debug, Clone)]
pub struct EmbeddingCache(Place);

/// Where class embeddings are kept.
#[derive(Debug, Clone)]
enum Place {
    Folder(FolderCache),
    Memory(Arc<MemoryCache>),
}

impl EmbeddingCache {
    /// Opens the cache of a text tower on disk.
    ///
    /// - `folder`: the folder of all caches; created when the first embedding is stored
    /// - `path`: the weights that hold the tower: a file, an index of several files, a folder, or
    ///   [`NAME`](crate::mini::NAME)
    /// - `weights`: the opened weights, with the activation that a user states
    ///
    /// A checkpoint may hold a part of the tower that its training changed; it is then a part of the key.
    ///
    /// The contents of all files are hashed once; later, their paths, lengths, times and numbers identify them. Returns
    /// `None` if a file cannot be read.
    pub fn of_weights(folder: &Path, path: &Path, weights: &StateDict) -> Option<Self> {
        let mut facts = text_facts(weights);
        for tuned in tuned_files(path, weights)? {
            let sha256 = remembered_digest(&folder.join("digests"), &tuned)?;
            facts = facts.with("fine-tuned text tower: SHA-256", sha256);
        }
        let folder = FolderCache::of_tower(folder, path, facts)?;
        Some(Self(Place::Folder(folder)))
    }

    /// Creates an empty cache in memory, of one text tower.
    ///
    /// - `most`: most bytes of all embeddings; those that were stored first make room
    pub fn in_memory(most: usize) -> Self {
        Self(Place::Memory(Arc::new(MemoryCache::new(most))))
    }

    /// Returns the embedding of a class, `[dim]`, if it was stored.
    pub fn get(&self, templates: &TemplateSet, names: &[String]) -> Option<Vec<f32>> {
        match &self.0 {
            Place::Folder(folder) => folder.get(templates, names),
            Place::Memory(memory) => memory.get(&[digest_of(templates), digest(names)]),
        }
    }

    /// Stores the embedding of a class.
    pub fn put(&self, templates: &TemplateSet, names: &[String], embedding: &[f32]) {
        match &self.0 {
            Place::Folder(folder) => folder.put(templates, names, embedding),
            Place::Memory(memory) => memory.put([digest_of(templates), digest(names)], embedding),
        }
    }
}

/// Returns the SHA-256 of weights, which is hashed once as long as their files do not change; `None` if they cannot be
/// read.
///
/// - `folder`: the folder of all caches
pub(crate) fn image_tower(folder: &Path, weights: &Path) -> Option<String> {
    if is_mini(weights) {
        return weights_sha256(weights).ok();
    }
    remembered_digest(&folder.join("digests"), weights)
}

/// Returns the digest of prompt templates.
fn digest_of(templates: &TemplateSet) -> String {
    digest(templates.templates().iter().map(ToString::to_string))
}

/// A folder of cached class embeddings of one text tower.
#[derive(Debug, Clone)]
struct FolderCache {
    folder: PathBuf,
    /// Everything about the program and the text tower that an embedding follows from.
    tower: Fingerprint,
}

impl FolderCache {
    /// Opens the cache of a text tower of which these facts are known besides its files.
    fn of_tower(folder: &Path, path: &Path, facts: Fingerprint) -> Option<Self> {
        let sha256 = if is_mini(path) {
            weights_sha256(path).ok()?
        } else {
            remembered_digest(&folder.join("digests"), path)?
        };
        let tower = facts
            .with("program", env!("CARGO_PKG_VERSION"))
            .with("weights: SHA-256", sha256);
        Some(Self {
            folder: folder.join("embeddings"),
            tower,
        })
    }

    /// Returns the embedding of a class, `[dim]`, if it was stored.
    fn get(&self, templates: &TemplateSet, names: &[String]) -> Option<Vec<f32>> {
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
    fn put(&self, templates: &TemplateSet, names: &[String], embedding: &[f32]) {
        let numbers: Vec<u8> = embedding.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut bytes = Sha256::digest(&numbers).to_vec();
        bytes.extend(numbers);
        // If the disk is full or read-only, the class is encoded again at the next start; that is not an error.
        let _ = store(&self.path(templates, names), &bytes);
    }

    fn path(&self, templates: &TemplateSet, names: &[String]) -> PathBuf {
        let tower = self.tower.clone();
        let key = tower
            .with("prompt templates", digest_of(templates))
            .with("class names", digest(names));
        self.folder.join(format!("{}.f32", key.digest()))
    }
}

/// Returns the files that hold a part of the text tower but do not belong to the weights at `path`; `None` if the files of
/// those cannot be listed.
fn tuned_files(path: &Path, weights: &StateDict) -> Option<Vec<PathBuf>> {
    let absolute = |path: &Path| path.canonicalize().ok();
    let base: Vec<PathBuf> = if is_mini(path) {
        Vec::new() // in memory
    } else {
        let files = WeightFiles::of(path).ok()?;
        files.paths().filter_map(absolute).collect()
    };
    let of_tower = weights.paths_of("text_encoder.");
    let tuned = of_tower.iter().filter(|file| !is_mini(file));
    let tuned = tuned.filter_map(|file| absolute(file));
    Some(tuned.filter(|file| !base.contains(file)).collect())
}

/// Returns the SHA-256 of weights; if all their files are unchanged since they were last hashed, from a note in the
/// cache.
fn remembered_digest(notes: &Path, weights: &Path) -> Option<String> {
    let files = WeightFiles::of(weights).ok()?;
    let mut states = Vec::new();
    for path in files.paths() {
        let path = path.canonicalize().ok()?;
        states.push((FileState::of(&path).ok()?, path));
    }
    let key = states.iter().flat_map(|(state, path)| {
        let path = path.as_os_str().as_encoded_bytes().to_vec();
        [path, state.to_string().into_bytes()]
    });
    let note = notes.join(digest(key));
    if let Some(noted) = std::fs::read_to_string(&note).ok()
        && noted.len() == 64
        && noted.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Some(noted);
    }
    let found = files.sha256().ok()?;
    // A file that was written a moment ago can be written again without another state, and one that was written
    // meanwhile has another state.
    let is_unchanged = |(state, path): &(FileState, PathBuf)| {
        state.is_settled() && FileState::of(path).is_ok_and(|now| now == *state)
    };
    if states.iter().all(is_unchanged) {
        let _ = store(&note, found.as_bytes());
    }
    Some(found)
}

/// Writes an entry atomically, so that several programs can use one cache.
pub(crate) fn store(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_folder_of(path)?;
    write(path, bytes, Overwrite::Replace)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, SystemTime},
    };

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    /// Opens the cache of a file in which the text tower cannot be recognised.
    fn of_file(folder: &Path, weights: &Path) -> FolderCache {
        FolderCache::of_tower(folder, weights, Fingerprint::new()).unwrap()
    }

    #[test]
    fn an_embedding_is_found_again_only_for_the_same_names_templates_and_tower() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights");
        std::fs::write(&weights, "a tower").unwrap();
        let cache = of_file(folder.path(), &weights);
        let (single, multi) = (TemplateSet::single(), TemplateSet::multi());
        let dog = names(&["dog", "puppy"]);
        assert_eq!(cache.get(&single, &dog), None);
        cache.put(&single, &dog, &[1.0, -2.5]);
        assert_eq!(cache.get(&single, &dog), Some(vec![1.0, -2.5]));
        assert_eq!(cache.get(&multi, &dog), None);
        assert_eq!(cache.get(&single, &names(&["dogpuppy"])), None);
        assert_eq!(cache.get(&single, &names(&["dog"])), None);

        std::fs::write(&weights, "another tower").unwrap();
        assert_eq!(of_file(folder.path(), &weights).get(&single, &dog), None);
    }

    #[test]
    fn everything_that_an_embedding_follows_from_is_in_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let index = path("model.safetensors.index.json");
        let shards = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
        std::fs::write(&index, shards).unwrap();
        std::fs::write(path("one.safetensors"), "one").unwrap();
        std::fs::write(path("two.safetensors"), "two").unwrap();
        let (single, dog) = (TemplateSet::single(), names(&["dog"]));
        let facts = |activation: &str| Fingerprint::new().with("weights: activation", activation);
        let open = |activation: &str| {
            FolderCache::of_tower(folder.path(), &index, facts(activation)).unwrap()
        };
        open("gelu").put(&single, &dog, &[1.0]);
        assert!(open("gelu").get(&single, &dog).is_some());
        assert_eq!(open("quick-gelu").get(&single, &dog), None);
        std::fs::write(path("two.safetensors"), "TWO").unwrap();
        assert_eq!(open("gelu").get(&single, &dog), None);
    }

    /// Images of containers have fixed times, and `cp -p` keeps the time of a file.
    #[test]
    fn a_file_replaced_by_one_of_the_same_size_and_time_has_other_embeddings() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let write = |text: &str| {
            std::fs::write(&weights, text).unwrap();
            let file = File::options().write(true).open(&weights).unwrap();
            file.set_modified(time).unwrap();
        };
        let (single, dog) = (TemplateSet::single(), names(&["dog"]));
        write("one");
        of_file(folder.path(), &weights).put(&single, &dog, &[1.0]);
        assert!(
            of_file(folder.path(), &weights)
                .get(&single, &dog)
                .is_some()
        );
        write("two");
        assert_eq!(of_file(folder.path(), &weights).get(&single, &dog), None);
    }

    /// A file of this name in the current folder is another model.
    #[test]
    fn the_embedded_model_has_its_own_digest() {
        let folder = tempfile::tempdir().unwrap();
        let cache = of_file(folder.path(), Path::new(crate::mini::NAME));
        let sha256 = weights_sha256(Path::new(crate::mini::NAME)).unwrap();
        assert_eq!(cache.tower.get("weights: SHA-256"), Some(sha256.as_str()));
    }

    #[test]
    fn a_damaged_entry_counts_as_absent() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights");
        std::fs::write(&weights, "a tower").unwrap();
        let cache = of_file(folder.path(), &weights);
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
