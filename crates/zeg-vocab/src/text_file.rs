//! Reads text files that users write: regular files of bounded size in UTF-8.
//!
//! A byte order mark is removed. Line ends are left to the caller, which trims its lines.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeg_base::content::{StandIn, stand_in};
use zeg_base::file::read_error;

/// A text file that cannot be read.
#[derive(Debug, Error)]
pub enum TextFileError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The path is a folder, a device or a pipe, which might never end.
    #[error("{}: not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The file is larger than the limit.
    #[error("{}: {bytes} bytes; the limit is {limit}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The file is what a failed download leaves, or compressed.
    #[error("{}: not a list or a description, but {found}", path.display())]
    StandIn {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: StandIn,
    },
    /// The file is not UTF-8.
    #[error("{}: line {line} is not UTF-8; save the file as UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first invalid byte, from 1.
        line: usize,
    },
}

/// Reads a text file of at most `limit` bytes, without a byte order mark.
///
/// # Errors
/// Returns an error if the file cannot be read, is not a regular file, is larger than `limit`, or is not UTF-8.
pub fn read(path: &Path, limit: u64) -> Result<String, TextFileError> {
    let unreadable = |error| TextFileError::Unreadable {
        path: path.into(),
        source: read_error(path, error),
    };
    let too_large = |bytes| TextFileError::TooLarge {
        path: path.into(),
        bytes,
        limit,
    };
    // The type is checked before opening, because opening a pipe without a writer would wait for ever.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(TextFileError::NotRegular { path: path.into() });
    }
    if metadata.len() > limit {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::new();
    // Reading one byte more detects a file that grows while it is read.
    let mut file = File::open(path).map_err(unreadable)?.take(limit + 1);
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    match stand_in(&bytes) {
        // Nothing to read is the caller's error, and JSON and other text may be what is wanted.
        None | Some(StandIn::Empty | StandIn::Json | StandIn::Text) => decode(bytes, path),
        Some(found) => Err(TextFileError::StandIn {
            path: path.into(),
            found,
        }),
    }
}

/// Decodes UTF-8, removes a byte order mark, and turns carriage returns into line ends if there are no others; `name` is
/// only used in errors.
pub(crate) fn decode(bytes: Vec<u8>, name: &Path) -> Result<String, TextFileError> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        TextFileError::NotUtf8 {
            path: name.into(),
            line: line_after(before),
        }
    })?;
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    // Old Macintosh programs end lines so.
    Ok(if text.contains('\n') {
        text
    } else {
        text.replace('\r', "\n")
    })
}

/// Returns the line number, from 1, of the text that follows these bytes.
pub(crate) fn line_after(before: &[u8]) -> usize {
    before.split(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_removed_and_invalid_bytes_have_a_line() {
        let name = Path::new("names.txt");
        assert_eq!(
            decode(b"\xEF\xBB\xBFdog\r\n".to_vec(), name).unwrap(),
            "dog\r\n"
        );
        for (bytes, line) in [
            (&b"dog\ncat\n\xE9l\xE9phant"[..], 3),
            (&b"\xFF\xFEd\0o\0g\0"[..], 1),
        ] {
            let error = decode(bytes.to_vec(), name).unwrap_err().to_string();
            let expected = format!("names.txt: line {line} is not UTF-8; save the file as UTF-8");
            assert_eq!(error, expected);
        }
    }

    #[test]
    fn folders_and_large_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(
            read(folder.path(), 10),
            Err(TextFileError::NotRegular { .. })
        ));
        let path = folder.path().join("names.txt");
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap(), "0123456789");
        assert!(matches!(
            read(&path, 9),
            Err(TextFileError::TooLarge {
                bytes: 10,
                limit: 9,
                ..
            })
        ));
        assert!(matches!(
            read(&folder.path().join("none"), 9),
            Err(TextFileError::Unreadable { .. })
        ));
    }

    #[test]
    fn what_a_failed_download_leaves_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names.txt");
        for (bytes, says) in [
            (&b"<!DOCTYPE html><html>"[..], "but a web page"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
                "but a Git LFS pointer",
            ),
            (b"\x1f\x8b\x08\0", "but a gzip file"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = read(&path, 1000).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for text in ["", "\n", "cat\n", "[1]"] {
            fs::write(&path, text).unwrap();
            assert_eq!(read(&path, 1000).unwrap(), text);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_refused_before_it_is_read() {
        assert!(matches!(
            read(Path::new("/dev/zero"), 10),
            Err(TextFileError::NotRegular { .. })
        ));
    }
}
