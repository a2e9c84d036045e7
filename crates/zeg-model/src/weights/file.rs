//! A safetensors file of which single tensors are read when they are asked for.
//!
//! The `safetensors` crate parses and validates the header; reading by position instead of mapping keeps a file that
//! another program shortens an error, where a map would end this program with a signal.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use safetensors::tensor::{Metadata, TensorInfo};

use crate::ModelError;

/// Bytes that state the length of the header.
const LENGTH_BYTES: u64 = 8;
/// Longest header that the format allows.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// An open file.
#[derive(Debug)]
pub(super) struct WeightFile {
    path: PathBuf,
    metadata: Metadata,
    /// Position of the first tensor's first byte.
    data_start: u64,
    file: Mutex<File>,
}

impl WeightFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// The file cannot be read, is no safetensors file, or has another length than its header says.
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let read = |source| ModelError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let incomplete = |reason: String| ModelError::Format {
            path: path.to_owned(),
            reason: format!("not a complete safetensors file ({reason}; {length} bytes)"),
        };
        if length < LENGTH_BYTES {
            return Err(incomplete("it ends before its header".into()));
        }
        let mut size = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut size).map_err(read)?;
        let size = u64::from_le_bytes(size);
        if size > MOST_HEADER_BYTES.min(length - LENGTH_BYTES) {
            return Err(incomplete(format!("its header would have {size} bytes")));
        }
        let mut header = vec![0; size as usize];
        file.read_exact(&mut header).map_err(read)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|error| incomplete(error.to_string()))?;
        let data_start = LENGTH_BYTES + size;
        let expected = data_start + metadata.data_len() as u64;
        if expected != length {
            return Err(incomplete(format!("its header tells of {expected} bytes")));
        }
        Ok(Self {
            path: path.to_owned(),
            metadata,
            data_start,
            file: Mutex::new(file),
        })
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Names, types, shapes and places of the tensors, and the header's free text.
    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The bytes of one tensor, as stored.
    ///
    /// # Errors
    /// The file cannot be read, or was shortened since it was opened.
    pub(super) fn read(&self, tensor: &TensorInfo) -> Result<Vec<u8>, ModelError> {
        let (start, end) = tensor.data_offsets;
        let mut bytes = vec![0; end - start];
        // A panic while the lock was held leaves only the position undefined, and that is set anew.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fill = || -> io::Result<()> {
            file.seek(SeekFrom::Start(self.data_start + start as u64))?;
            file.read_exact(&mut bytes)
        };
        fill().map_err(|source| ModelError::Read {
            path: self.path.clone(),
            source,
        })?;
        Ok(bytes)
    }
}
