//! Recognises that a file was written or replaced, without reading it.
//!
//! Length and modification time are not enough: `cp -p`, `touch -r` and archives set the time to any value. The time of
//! the last change of the file's entry, which no program can set, and the number of the entry are compared as well.

use std::{
    fmt,
    fs::{self, Metadata},
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Longest time in which a file can be written twice without another time of change.
///
/// The clock of a file system can be as coarse as two seconds.
const COARSEST_CLOCK: Duration = Duration::from_secs(3);

/// The state of a file; a file that was written or replaced has another one.
///
/// Two changes in quick succession can have the same time; see [`FileState::is_settled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    length: u64,
    modified: Duration,
    /// Time of the last change of the file or its entry; on systems without one, the time of the modification.
    changed: Duration,
    /// Number of the file in its file system; 0 on systems without one.
    number: u64,
}

impl FileState {
    /// Returns the state of a file; that of its target for a link.
    ///
    /// # Errors
    /// Returns the system's error if the file does not exist or its metadata cannot be read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let modified = metadata.modified()?;
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (changed, number) = entry(&metadata, modified);
        Ok(Self {
            length: metadata.len(),
            modified,
            changed,
            number,
        })
    }

    /// Returns the length of the file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns whether a later change certainly gives another state, because the last change was some seconds ago.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now();
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.changed.saturating_add(COARSEST_CLOCK) < now
    }
}

/// Returns the time of the last change of the file's entry, and the number of the file.
#[cfg(unix)]
fn entry(metadata: &Metadata, _: Duration) -> (Duration, u64) {
    use std::os::unix::fs::MetadataExt as _;
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
    let changed = Duration::new(seconds, nanoseconds.min(999_999_999));
    (changed, metadata.ino())
}

/// Returns the modification time: on other systems there is nothing better that is stable.
#[cfg(not(unix))]
fn entry(_: &Metadata, modified: Duration) -> (Duration, u64) {
    (modified, 0)
}

/// Writes all facts, for a key.
impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (modified, changed) = (self.modified.as_nanos(), self.changed.as_nanos());
        write!(f, "{} {modified} {changed} {}", self.length, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_of_the_same_size_and_time_is_recognised_as_another() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a"), folder.path().join("b"));
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (path, text) in [(&path, "one"), (&other, "two")] {
            fs::write(path, text).unwrap();
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(time).unwrap();
        }
        let before = FileState::of(&path).unwrap();
        assert_eq!(before, FileState::of(&path).unwrap());
        fs::rename(&other, &path).unwrap();
        let after = FileState::of(&path).unwrap();
        assert_eq!(
            (before.length, before.modified),
            (after.length, after.modified)
        );
        assert_ne!(before, after);
    }

    #[test]
    fn a_file_that_was_just_written_is_not_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "one").unwrap();
        let state = FileState::of(&path).unwrap();
        assert!(!state.is_settled());
        let long_ago = FileState {
            changed: Duration::from_secs(1_000_000_000),
            ..state
        };
        assert!(long_ago.is_settled());
    }
}
