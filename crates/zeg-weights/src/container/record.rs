//! Checks the records of an archive against their checksums, when a tensor in them is read for the first time.

use std::sync::atomic::{AtomicBool, Ordering};

use crc32fast::Hasher;

use crate::{error::Defect, source::Source};

/// Number of bytes that are read at a time.
const CHUNK: usize = 1 << 20;

/// A record of an archive: a range of bytes in the file, with its checksum.
#[derive(Debug)]
pub(crate) struct Record {
    /// Name in the archive.
    pub(crate) name: String,
    /// Position of the first byte in the file.
    pub(crate) start: u64,
    /// Number of bytes.
    pub(crate) bytes: u64,
    /// CRC-32 of the bytes; 0 if the writer left it out, as PyTorch can.
    pub(crate) crc32: u32,
    /// Whether the bytes were found to be right.
    pub(crate) is_checked: AtomicBool,
}

impl Record {
    /// Returns whether a position in the file lies in the record.
    pub(crate) fn holds(&self, position: u64) -> bool {
        position
            .checked_sub(self.start)
            .is_some_and(|offset| offset < self.bytes)
    }

    /// Checks the bytes of the record, once.
    ///
    /// # Errors
    /// Returns an error that names the record if the file cannot be read, or the bytes are not those that were written.
    pub(crate) fn check(&self, source: &Source) -> Result<(), Defect> {
        if self.crc32 == 0 || self.is_checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut hasher = Hasher::new();
        let mut done = 0;
        while done < self.bytes {
            let left = usize::try_from(self.bytes - done).unwrap_or(CHUNK);
            let chunk = source.exactly(self.start.saturating_add(done), left.min(CHUNK))?;
            hasher.update(&chunk);
            done += chunk.len() as u64;
        }
        let found = hasher.finalize();
        if found != self.crc32 {
            return Err(Defect::Format(format!(
                "the record {} is damaged: its checksum is {found:08x} instead of {:08x}",
                self.name, self.crc32
            )));
        }
        self.is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }
}
