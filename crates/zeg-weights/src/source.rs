//! Reads the bytes of a file at given positions.
//!
//! The file is not memory-mapped: if another program truncates it, a read is an error, while access to a map would
//! kill this program with a signal. Explicit positions instead of a cursor let several threads read at once.

#[cfg(not(unix))]
use std::sync::{Mutex, PoisonError};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use rayon::prelude::*;

use crate::{WeightsError, error::Defect};

/// Number of bytes that one thread reads at a time; larger reads are split among threads.
const READ_CHUNK: usize = 1 << 20;
/// Number of bytes that [`Cursor`] reads ahead.
const WINDOW: usize = 1 << 16;

/// An open file, or the content of a file in memory.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    length: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    #[cfg(unix)]
    File(File),
    #[cfg(not(unix))]
    File(Mutex<File>),
    Memory(Vec<u8>),
}

impl Source {
    /// Opens a file.
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        let read = |error| WeightsError::Read {
            path: path.to_owned(),
            source: zeg_base::file::read_error(path, error),
        };
        let file = File::open(path).map_err(read)?;
        let about = file.metadata().map_err(read)?;
        if about.is_dir() {
            return Err(read(io::ErrorKind::IsADirectory.into()));
        }
        #[cfg(not(unix))]
        let file = Mutex::new(file);
        Ok(Self {
            path: path.to_owned(),
            length: about.len(),
            bytes: Bytes::File(file),
        })
    }

    /// Wraps bytes in memory; `name` is used as the path in error messages.
    pub(crate) fn memory(name: &Path, bytes: Vec<u8>) -> Self {
        Self {
            path: name.to_owned(),
            length: bytes.len() as u64,
            bytes: Bytes::Memory(bytes),
        }
    }

    /// Returns the path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length of the file in bytes, as it was when the file was opened.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fills a buffer with the bytes from a position on, with several threads if it is large.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or ends before the buffer is full.
    pub(crate) fn fill(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        if buffer.len() <= READ_CHUNK {
            return self.fill_at(position, buffer);
        }
        buffer
            .par_chunks_mut(READ_CHUNK)
            .enumerate()
            .try_for_each(|(i, chunk)| {
                let start = position.saturating_add((i * READ_CHUNK) as u64);
                self.fill_at(start, chunk)
            })
    }

    /// Reads up to `most` bytes from a position on, fewer if the file ends before.
    pub(crate) fn up_to(&self, position: u64, most: usize) -> Result<Vec<u8>, Defect> {
        let left = self.length.saturating_sub(position);
        let count = usize::try_from(left).map_or(most, |left| left.min(most));
        let mut bytes = vec![0; count];
        self.fill(position, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads exactly `count` bytes from a position on.
    ///
    /// # Errors
    /// Returns an error, without allocating memory, if the file ends before.
    pub(crate) fn exactly(&self, position: u64, count: usize) -> Result<Vec<u8>, Defect> {
        if count as u64 > self.length.saturating_sub(position) {
            return Err(Defect::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        self.up_to(position, count)
    }

    #[cfg(unix)]
    fn fill_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        match &self.bytes {
            Bytes::File(file) => file.read_exact_at(buffer, position),
            Bytes::Memory(bytes) => copy_from(bytes, position, buffer),
        }
    }

    #[cfg(not(unix))]
    fn fill_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.bytes {
            Bytes::File(file) => {
                // After a panic with the lock held, only the position is undefined, and it is set here.
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(position))?;
                file.read_exact(buffer)
            }
            Bytes::Memory(bytes) => copy_from(bytes, position, buffer),
        }
    }
}

fn copy_from(bytes: &[u8], position: u64, buffer: &mut [u8]) -> io::Result<()> {
    let found = usize::try_from(position)
        .ok()
        .and_then(|start| bytes.get(start..start.checked_add(buffer.len())?))
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    buffer.copy_from_slice(found);
    Ok(())
}

/// A cursor over a [`Source`], for libraries that need one; it reads ahead and has a budget of bytes.
pub(crate) struct Cursor<'a> {
    source: &'a Source,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
    budget: u64,
}

impl<'a> Cursor<'a> {
    /// Returns a cursor at the start of the file that reads at most `budget` bytes; bytes read twice count twice.
    pub(crate) fn new(source: &'a Source, budget: u64) -> Self {
        Self {
            source,
            position: 0,
            window: Vec::new(),
            window_start: 0,
            budget,
        }
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.budget == 0 {
            return Err(io::Error::other(
                "its directory is larger than that of any weight file",
            ));
        }
        let inside = self
            .position
            .checked_sub(self.window_start)
            .and_then(|offset| usize::try_from(offset).ok())
            .filter(|&offset| offset < self.window.len());
        let offset = if let Some(offset) = inside {
            offset
        } else {
            let left = self.source.length.saturating_sub(self.position);
            let count = usize::try_from(left).map_or(WINDOW, |left| left.min(WINDOW));
            self.window.resize(count, 0);
            self.window_start = self.position;
            self.source.fill(self.position, &mut self.window)?;
            0
        };
        let ready = self.window.get(offset..).unwrap_or_default();
        let allowed = usize::try_from(self.budget).unwrap_or(usize::MAX);
        let count = ready.len().min(buffer.len()).min(allowed);
        for (to, from) in buffer.iter_mut().zip(&ready[..count]) {
            *to = *from;
        }
        self.position = self.position.saturating_add(count as u64);
        self.budget -= count as u64;
        Ok(count)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.source.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
