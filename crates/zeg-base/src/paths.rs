//! Paths as text for JSON, annotation files and addresses, which must be UTF-8.
//!
//! A file name may hold any bytes, such as `\xE9` from an archive in Latin-1. A message may show such a byte as a
//! question mark; a program that reads JSON needs to find the file, so every byte that is not UTF-8 is written as
//! `\xE9`, with two hexadecimal digits.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serializer;

/// Returns a path as text; bytes that are not UTF-8 are escaped as `\xE9`.
pub fn path_text(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02X}"); // writing to a string does not fail
        }
    }
    text
}

/// Serialises a path as [`path_text`], for serde's `serialize_with`; serde's own form is an error for such names.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path_text(path))
}

/// Serialises an optional path as [`serialize`] does.
pub fn serialize_option<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serialize(path, serializer),
        None => serializer.serialize_none(),
    }
}

/// Serialises a list of paths as [`serialize`] does.
pub fn serialize_all<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path_text(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_unchanged() {
        assert_eq!(path_text(Path::new("a b/é.jpg")), "a b/é.jpg");
    }

    #[cfg(unix)]
    #[test]
    fn file_names_that_are_not_utf8_stay_distinct() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let text = |bytes| path_text(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(text(b"in/latin1_\xE9.jpg"), "in/latin1_\\xE9.jpg");
        assert_eq!(text(b"\xC3\xA9\xFF\xFE"), "é\\xFF\\xFE");
    }
}
