//! An incomplete download: the bytes that have arrived, their running digest, and the version of the file.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeg_base::{file, hex};

use crate::{HubError, cache::write_json, content, error::write_error, list::read_short};

/// Number of bytes that are read, hashed and written at a time.
pub(crate) const CHUNK: usize = 1 << 16;
/// The largest size of the note beside a part, in bytes; a longer one is ignored.
const LONGEST_NOTE: u64 = 1 << 16;

/// The version of the file that a part belongs to, stored beside the part so that a later run can resume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The requested address.
    address: String,
    /// The server's strong validator of this version (RFC 9110, section 8.8.3).
    etag: Option<String>,
}

/// The first bytes of a file that is being downloaded.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Sha256,
    note: Note,
    /// Whether some of the bytes come from an earlier run.
    inherited: bool,
}

impl Part {
    /// Opens the part that an earlier run left, or an empty one.
    ///
    /// A part is resumed if it comes from the same address and has a validator, or if the digest of the whole file is
    /// known, so that a wrong part will be noticed. Otherwise it is emptied.
    pub(crate) fn open(
        path: PathBuf,
        address: &str,
        digest_is_known: bool,
        cancel: &AtomicBool,
    ) -> Result<Self, HubError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(write_error(&path, 0))?;
        let note = read_note(&path).unwrap_or_default();
        let is_same = note.address == address && note.etag.is_some();
        let mut part = Self {
            path,
            file,
            len: 0,
            hasher: Sha256::new(),
            note,
            inherited: false,
        };
        let found = part.file.metadata().map_err(write_error(&part.path, 0))?;
        if found.len() == 0 {
            part.note = Note::default();
        } else if is_same || digest_is_known {
            part.inherit(cancel)?;
        } else {
            part.restart()?;
        }
        if part.note.address != address {
            part.note = Note {
                address: address.to_owned(),
                etag: None,
            };
        }
        Ok(part)
    }

    /// Adds the existing bytes to the digest.
    fn inherit(&mut self, cancel: &AtomicBool) -> Result<(), HubError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(source) => {
                    let path = self.path.clone();
                    return Err(HubError::Read { path, source });
                }
            };
            self.hasher.update(buffer.get(..count).unwrap_or_default());
            self.len = self.len.saturating_add(count as u64);
            if cancel.load(Ordering::Relaxed) {
                return Err(HubError::Cancelled {
                    file: file_name(&self.path),
                    done: self.len,
                });
            }
        }
        self.inherited = true;
        Ok(())
    }

    /// Deletes all bytes and starts again from the first one.
    pub(crate) fn restart(&mut self) -> Result<(), HubError> {
        self.inherited = false;
        self.note.etag = None;
        self.hasher = Sha256::new();
        if self.len > 0 || self.file.metadata().is_ok_and(|found| found.len() > 0) {
            self.len = 0;
            self.file.set_len(0).map_err(write_error(&self.path, 0))?;
            self.file
                .seek(SeekFrom::Start(0))
                .map_err(write_error(&self.path, 0))?;
        }
        Ok(())
    }

    /// Returns the number of bytes that have arrived.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether some of the bytes come from an earlier run.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// Returns the validator of the version that the bytes belong to.
    pub(crate) fn etag(&self) -> Option<&str> {
        self.note.etag.as_deref()
    }

    /// Records the version that the following bytes belong to.
    pub(crate) fn set_etag(&mut self, etag: Option<&str>) -> Result<(), HubError> {
        if self.etag() == etag && note_path(&self.path).is_file() {
            return Ok(());
        }
        self.note.etag = etag.map(str::to_owned);
        write_json(&note_path(&self.path), &self.note)
    }

    /// Appends bytes; `missing` is the number of bytes still to come, including these.
    pub(crate) fn push(&mut self, bytes: &[u8], missing: u64) -> Result<(), HubError> {
        self.file
            .write_all(bytes)
            .map_err(write_error(&self.path, missing))?;
        self.hasher.update(bytes);
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Returns the digest of all bytes as 64 lower-case hexadecimal digits.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }

    /// Returns what the complete file is instead of the file of this name, if its first bytes tell.
    pub(crate) fn foreign(&self, name: &str) -> Result<Option<&'static str>, HubError> {
        content::foreign(&self.path, name).map_err(|source| HubError::Read {
            path: self.path.clone(),
            source,
        })
    }

    /// Moves the complete file to its final path.
    pub(crate) fn finish(self, target: &Path) -> Result<(), HubError> {
        file::put_in_place(self.file, &self.path, target).map_err(write_error(target, 0))?;
        remove_note(&self.path);
        Ok(())
    }

    /// Deletes the file.
    pub(crate) fn remove(self) -> Result<(), HubError> {
        drop(self.file);
        fs::remove_file(&self.path).map_err(write_error(&self.path, 0))?;
        remove_note(&self.path);
        Ok(())
    }
}

fn note_path(part: &Path) -> PathBuf {
    let mut path = part.as_os_str().to_owned();
    path.push(".json");
    path.into()
}

fn read_note(part: &Path) -> Option<Note> {
    let text = read_short(&note_path(part), LONGEST_NOTE).ok()?;
    serde_json::from_str(&text).ok()
}

/// Deletes the note beside a part. A failure is ignored, because a note without a part has no effect.
fn remove_note(part: &Path) {
    let _ = fs::remove_file(note_path(part));
}

/// Returns the name of the file that a part belongs to: the part's name without `.part`.
fn file_name(part: &Path) -> String {
    let name = part.file_stem().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
