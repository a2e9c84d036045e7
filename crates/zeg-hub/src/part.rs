//! The beginning of a file: what has arrived, its running digest, and which version of the file it is of.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeg_base::{file, hex};

use crate::{HubError, cache::write_json, error::write_error, list::read_short};

/// Bytes that are read, hashed and written at a time.
pub(crate) const CHUNK: usize = 1 << 16;
/// No note beside a part is longer.
const LONGEST_NOTE: u64 = 1 << 16;

/// Which version of the file a part is of. Kept beside it, so that another run can go on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The address that was asked for.
    address: String,
    /// The server's strong validator of the version (RFC 9110, section 8.8.3).
    etag: Option<String>,
}

/// The beginning of a file.
#[derive(Debug)]
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    len: u64,
    hasher: Sha256,
    note: Note,
    /// Whether some of it came from an earlier run.
    inherited: bool,
}

impl Part {
    /// Opens what an earlier run left, if it can be gone on with: it is of the same address and has a validator, or
    /// the digest of the whole file is known and will tell.
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

    /// Reads what is there into the digest.
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

    /// Throws away what is there.
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

    /// Bytes that are here.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether some of it came from an earlier run.
    pub(crate) fn is_inherited(&self) -> bool {
        self.inherited
    }

    /// The validator of the version that is here.
    pub(crate) fn etag(&self) -> Option<&str> {
        self.note.etag.as_deref()
    }

    /// Remembers which version the coming bytes are of.
    pub(crate) fn set_etag(&mut self, etag: Option<&str>) -> Result<(), HubError> {
        if self.etag() == etag && note_path(&self.path).is_file() {
            return Ok(());
        }
        self.note.etag = etag.map(str::to_owned);
        write_json(&note_path(&self.path), &self.note)
    }

    /// Adds the next bytes; `missing` is how many are still to come, these included.
    pub(crate) fn push(&mut self, bytes: &[u8], missing: u64) -> Result<(), HubError> {
        self.file
            .write_all(bytes)
            .map_err(write_error(&self.path, missing))?;
        self.hasher.update(bytes);
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// The digest of all bytes, 64 lower-case hexadecimal digits.
    pub(crate) fn sha256(&self) -> String {
        hex::encode(self.hasher.clone().finalize())
    }

    /// Gives the file its final name.
    pub(crate) fn finish(self, target: &Path) -> Result<(), HubError> {
        file::put_in_place(self.file, &self.path, target).map_err(write_error(target, 0))?;
        remove_note(&self.path);
        Ok(())
    }

    /// Throws the file away.
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

/// A note without a part says nothing, so that one that cannot be removed does no harm.
fn remove_note(part: &Path) {
    let _ = fs::remove_file(note_path(part));
}

fn file_name(part: &Path) -> String {
    let name = part.file_stem().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
