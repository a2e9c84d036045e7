//! The folder of downloaded models, with a manifest per model.
//!
//! ```text
//! MODELS/NAME/ViT-B-16.pt       a complete file, renamed to this name after its digest was verified
//! MODELS/NAME/ViT-B-16.pt.part  an incomplete download, with ViT-B-16.pt.part.json beside it
//! MODELS/NAME/manifest.json     length, digest, source and time of each complete file
//! MODELS/NAME.lock              lock file, held while a program writes into the folder
//! ```
//!
//! A model counts as downloaded if its manifest says that all files have arrived and all of them have the recorded
//! length. A file that no digest vouches for must also look like what its name says. Digests are verified when a file arrives, not each time it is used.

use std::{
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use zeg_base::file::{self, Overwrite};

use crate::{
    Entry, HubError, content,
    error::write_error,
    list::{is_file_name, read_short},
    registry::RemoteFile,
    settings::variable,
};

/// The name of the file that describes a model's folder.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The largest size of a manifest, in bytes; a longer one is ignored.
const LONGEST_MANIFEST: u64 = 1 << 20;
/// Pause between two attempts to take a lock that another program holds.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The folder of downloaded models.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// How much of a model is downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// All files are downloaded.
    Here,
    /// Some files, or a part of a file, are downloaded.
    Partial,
    /// Nothing is downloaded.
    Absent,
}

/// The digest that a downloaded file was verified against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The digest in the list of models.
    Published,
    /// The digest that Hugging Face announced with the file.
    Server,
    /// The digest of the first download.
    FirstUse,
    /// None: this was the first download, and its digest is now recorded.
    None,
}

/// The record of a file that was downloaded completely.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FileRecord {
    /// The name of the file in the model's folder.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 as 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The digest that the file was verified against.
    pub proof: Proof,
    /// The address that the file was downloaded from.
    pub source: String,
    /// When the download finished, in the form `2026-11-20T19:26:22Z`.
    pub time: String,
}

/// The records of all downloaded files of one model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whether all files are downloaded. The first one contains the weights.
    pub complete: bool,
    /// The downloaded files, in the order of the list of models.
    pub files: Vec<FileRecord>,
}

impl Manifest {
    /// Returns the record of the file with this name, if there is one.
    pub fn file(&self, name: &str) -> Option<&FileRecord> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Inserts or replaces a record at the position that its file has in `order`, the files of the list of models.
    ///
    /// Records of files that are not in `order` are dropped.
    pub(crate) fn put(&mut self, record: FileRecord, order: &[RemoteFile]) {
        let position = |name: &str| order.iter().position(|file| file.name == name);
        self.files.retain(|file| file.name != record.name);
        self.files.push(record);
        self.files.retain(|file| position(&file.name).is_some());
        self.files.sort_by_key(|file| position(&file.name));
        self.complete = self.files.len() == order.len();
    }
}

impl Cache {
    /// Opens the user's cache: the folder that `ZEG_CACHE` names, or else `zeg` in the system's cache folder.
    ///
    /// # Errors
    /// Returns [`HubError::NoFolder`] if the system reports no such folder.
    pub fn open() -> Result<Self, HubError> {
        if let Some(path) = variable("ZEG_CACHE") {
            return Ok(Self::at(path));
        }
        let folders = etcetera::choose_base_strategy().map_err(|_| HubError::NoFolder)?;
        Ok(Self::at(folders.cache_dir().join("zeg")))
    }

    /// Returns a cache in a given folder, which is created by the first download.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        let folder: PathBuf = folder.into();
        Self {
            root: folder.join("models"),
        }
    }

    /// Returns the folder that contains the folder of models.
    ///
    /// Other data that can be computed again is stored there, too.
    pub fn base(&self) -> &Path {
        self.root.parent().unwrap_or(&self.root)
    }

    /// Returns the folder of one model, whether it exists or not.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns the path of a model's weights, if all files of the model are downloaded.
    ///
    /// This does not consult the list of models, so it also finds models that only an older list contained.
    pub fn locate(&self, name: &str) -> Option<PathBuf> {
        let manifest = self.manifest(name)?;
        let is_complete = manifest.complete && manifest.files.iter().all(|f| self.has(name, f));
        let weights = manifest.files.first().filter(|_| is_complete)?;
        Some(self.folder(name).join(&weights.name))
    }

    /// Returns how much of a model is downloaded.
    ///
    /// A file counts only if its recorded digest is the one that the entry publishes, if it publishes one.
    pub fn presence(&self, entry: &Entry) -> Presence {
        let manifest = self.manifest(&entry.name).unwrap_or_default();
        let files = entry.files();
        let missing = files
            .iter()
            .filter(|file| self.record_of(&entry.name, file, &manifest).is_none())
            .count();
        if missing == 0 && !files.is_empty() {
            Presence::Here
        } else if missing < files.len() || self.begun(entry) > 0 {
            Presence::Partial
        } else {
            Presence::Absent
        }
    }

    /// Returns the total size of a model's incomplete downloads, in bytes.
    pub fn begun(&self, entry: &Entry) -> u64 {
        let folder = self.folder(&entry.name);
        let parts = entry.files().iter().map(|file| part_path(&folder, file));
        let lengths = parts.filter_map(|path| fs::metadata(path).ok());
        lengths.fold(0, |sum, part| sum.saturating_add(part.len()))
    }

    /// Returns the manifest of a model, or `None` if it is missing or invalid.
    pub fn manifest(&self, name: &str) -> Option<Manifest> {
        if !is_file_name(name) {
            return None;
        }
        let text = read_short(&self.folder(name).join(MANIFEST), LONGEST_MANIFEST).ok()?;
        let manifest: Manifest = serde_json::from_str(&text).ok()?;
        // Names from the manifest become paths, so a name that leads to another folder must not be accepted.
        let is_plain = manifest.files.iter().all(|file| is_file_name(&file.name));
        is_plain.then_some(manifest)
    }

    pub(crate) fn write_manifest(&self, name: &str, manifest: &Manifest) -> Result<(), HubError> {
        write_json(&self.folder(name).join(MANIFEST), manifest)
    }

    /// Returns the record of a file if it is downloaded and has the published digest, if there is one.
    pub(crate) fn record_of<'a>(
        &self,
        model: &str,
        file: &RemoteFile,
        manifest: &'a Manifest,
    ) -> Option<&'a FileRecord> {
        let record = manifest.file(&file.name)?;
        let is_expected = file.sha256.as_ref().is_none_or(|sha| *sha == record.sha256);
        (is_expected && self.has(model, record)).then_some(record)
    }

    /// Returns whether the file exists with the recorded length, and can be what its name says.
    fn has(&self, model: &str, record: &FileRecord) -> bool {
        let path = self.folder(model).join(&record.name);
        let is_whole =
            fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == record.size);
        is_whole && !self.is_foreign(model, record)
    }

    /// Returns whether a file that no digest vouches for exists, but is something else, such as a web page.
    pub(crate) fn is_foreign(&self, model: &str, record: &FileRecord) -> bool {
        let is_proven = matches!(record.proof, Proof::Published | Proof::Server);
        let path = self.folder(model).join(&record.name);
        !is_proven && matches!(content::foreign(&path, &record.name), Ok(Some(_)))
    }

    /// Creates a model's folder and locks it against other programs until the returned file is dropped.
    ///
    /// Calls `waiting` once if another program holds the lock.
    pub(crate) fn lock(
        &self,
        name: &str,
        cancel: &AtomicBool,
        mut waiting: impl FnMut(),
    ) -> Result<File, HubError> {
        let folder = self.folder(name);
        fs::create_dir_all(&folder).map_err(write_error(&folder, 0))?;
        let path = self.root.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(write_error(&path, 0))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                // Some network file systems do not support locks. There, running two programs at once is the user's
                // own risk.
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
                    return Ok(file);
                }
                Err(TryLockError::Error(e)) => return Err(write_error(&path, 0)(e)),
            }
            if !told {
                waiting();
                told = true;
            }
            if cancel.load(Ordering::Relaxed) {
                return Err(HubError::Cancelled {
                    file: name.to_owned(),
                    done: 0,
                });
            }
            thread::sleep(LOCK_PAUSE);
        }
    }
}

/// Returns the path of the incomplete download of a file.
pub(crate) fn part_path(folder: &Path, file: &RemoteFile) -> PathBuf {
    folder.join(format!("{}.part", file.name))
}

/// Writes a value as JSON; the file appears complete or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), HubError> {
    let write = || {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        file::write(path, text, Overwrite::Replace)
    };
    write().map_err(write_error(path, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    const LIST: &str = "
        [[model]]
        name = 'tiny'
        about = 'two files'
        family = 'clip'
        format = 'safetensors'
        licence = 'MIT'
        [[model.file]]
        name = 'model.safetensors'
        sources = ['https://host.test/model.safetensors']
        [[model.file]]
        name = 'config.json'
        sources = ['https://host.test/config.json']";

    /// Weights without a tensor.
    const WEIGHTS: &str = "\u{2}\0\0\0\0\0\0\0{}";

    fn entry() -> Entry {
        let mut registry = Registry::built_in().unwrap();
        registry.add(LIST, "test").unwrap();
        registry.find("tiny").unwrap().clone()
    }

    fn record(name: &str, size: u64) -> FileRecord {
        FileRecord {
            name: name.into(),
            size,
            sha256: "0".repeat(64),
            proof: Proof::None,
            source: "https://host.test".into(),
            time: "2026-11-20T19:26:22Z".into(),
        }
    }

    /// Returns a cache with both files of `tiny`, recorded in the wrong order.
    fn filled() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path());
        let entry = entry();
        fs::create_dir_all(cache.folder("tiny")).unwrap();
        let mut manifest = Manifest::default();
        for (name, content) in [("config.json", "{}"), ("model.safetensors", WEIGHTS)] {
            fs::write(cache.folder("tiny").join(name), content).unwrap();
            assert!(!manifest.complete);
            manifest.put(record(name, content.len() as u64), entry.files());
        }
        cache.write_manifest("tiny", &manifest).unwrap();
        (folder, cache)
    }

    #[test]
    fn locate_returns_the_weights_of_a_complete_model() {
        let (_folder, cache) = filled();
        let weights = cache.folder("tiny").join("model.safetensors");
        assert_eq!(cache.locate("tiny"), Some(weights));
        assert_eq!(cache.presence(&entry()), Presence::Here);
        assert_eq!(cache.locate("huge"), None);
    }

    #[test]
    fn a_truncated_or_missing_file_makes_a_model_partial() {
        let (_folder, cache) = filled();
        fs::write(cache.folder("tiny").join("model.safetensors"), "\0weig").unwrap();
        assert_eq!(cache.locate("tiny"), None);
        assert_eq!(cache.presence(&entry()), Presence::Partial);
        fs::remove_file(cache.folder("tiny").join("model.safetensors")).unwrap();
        assert_eq!(cache.presence(&entry()), Presence::Partial);
        fs::remove_dir_all(cache.folder("tiny")).unwrap();
        assert_eq!(cache.presence(&entry()), Presence::Absent);
        fs::create_dir_all(cache.folder("tiny")).unwrap();
        fs::write(cache.folder("tiny").join("config.json.part"), "{").unwrap();
        assert_eq!(cache.presence(&entry()), Presence::Partial);
    }

    #[test]
    fn a_file_without_the_newly_published_digest_does_not_count() {
        let (_folder, cache) = filled();
        let sha = "1".repeat(64);
        let list = LIST.replace(
            "name = 'config.json'",
            &format!("name = 'config.json'\nsha256 = '{sha}'"),
        );
        let mut registry = Registry::built_in().unwrap();
        registry.add(&list, "test").unwrap();
        assert_eq!(
            cache.presence(registry.find("tiny").unwrap()),
            Presence::Partial
        );
    }

    #[test]
    fn an_invalid_manifest_is_ignored() {
        let (_folder, cache) = filled();
        let path = cache.folder("tiny").join(MANIFEST);
        let good = fs::read_to_string(&path).unwrap();
        let climbing = good.replace("\"model.safetensors\"", "\"../../model.safetensors\"");
        assert_ne!(climbing, good);
        for text in ["", "{", "[]", "{\"complete\": true}", climbing.as_str()] {
            fs::write(&path, text).unwrap();
            assert_eq!(cache.locate("tiny"), None, "{text}");
        }
        fs::write(&path, "{\"complete\": true, \"files\": []}").unwrap();
        assert_eq!(cache.locate("tiny"), None);
        fs::write(&path, vec![b' '; (1 << 20) + 1]).unwrap();
        assert_eq!(cache.locate("tiny"), None);
    }

    #[test]
    fn names_cannot_lead_out_of_the_folder() {
        let (_folder, cache) = filled();
        for name in ["../models/tiny", "./tiny", "tiny/", "/etc", ""] {
            assert_eq!(cache.locate(name), None, "{name}");
        }
    }
}
