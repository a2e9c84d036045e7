//! Recognises files that stand in the place of others: pages and pointers that a failed download leaves.
//!
//! No format of weights, images or tables begins like one of these, so a reader that does not recognise a file asks here
//! to say what it is instead.

use std::fmt;

/// Number of first bytes that are looked at.
pub const START: usize = 512;

/// A kind of file that is often found in the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// Nothing but white space.
    Empty,
    /// The text that Git LFS stores in the place of a large file.
    GitLfsPointer,
    /// HTML.
    WebPage,
    /// XML other than HTML, such as the error of a file server.
    Xml,
    /// JSON.
    Json,
    /// A compressed file.
    Gzip,
    /// Zeros only: a file whose content was never written.
    Zeros,
    /// Any other text.
    Text,
}

impl StandIn {
    /// Returns the name in messages, after "but".
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "an empty file",
            Self::GitLfsPointer => "a Git LFS pointer; `git lfs pull` fetches the file",
            Self::WebPage => "a web page",
            Self::Xml => "an XML document",
            Self::Json => "a JSON document",
            Self::Gzip => "a gzip file",
            Self::Zeros => "a file of zeros",
            Self::Text => "text",
        }
    }
}

impl fmt::Display for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns what a file is from its first bytes, if it is one of the kinds that stand in the place of others.
///
/// - `start`: the first bytes, at best [`START`] of them
///
/// ```
/// use zeg_base::content::{StandIn, stand_in};
///
/// assert_eq!(stand_in(b"<!DOCTYPE html>\n<html>"), Some(StandIn::WebPage));
/// assert_eq!(stand_in(b"\x89PNG\r\n\x1a\n"), None);
/// ```
pub fn stand_in(start: &[u8]) -> Option<StandIn> {
    let start = start.get(..START).unwrap_or(start);
    let text = start.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(start);
    let first = text.trim_ascii_start();
    if first.is_empty() {
        Some(StandIn::Empty)
    } else if start.starts_with(b"\x1F\x8B") {
        Some(StandIn::Gzip)
    } else if start.len() > 8 && start.iter().all(|byte| *byte == 0) {
        Some(StandIn::Zeros)
    } else if !is_text(text) {
        None
    } else if first.starts_with(b"version https://git-lfs") {
        Some(StandIn::GitLfsPointer)
    } else if first.starts_with(b"<?xml") || first.starts_with(b"<Error") {
        Some(StandIn::Xml)
    } else if first.starts_with(b"<") {
        Some(StandIn::WebPage)
    } else if first.starts_with(b"{") || first.starts_with(b"[") {
        Some(StandIn::Json)
    } else {
        Some(StandIn::Text)
    }
}

/// Returns whether no byte is a control character other than white space, and the bytes are UTF-8 up to a character that
/// the end cuts off.
fn is_text(bytes: &[u8]) -> bool {
    let is_plain = |byte: &u8| !byte.is_ascii_control() || byte.is_ascii_whitespace();
    let is_utf8 = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    is_utf8 && bytes.iter().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_download_leaves_is_named() {
        for (start, expected) in [
            (&b""[..], Some(StandIn::Empty)),
            (b" \n", Some(StandIn::Empty)),
            (b"<html>sign in</html>", Some(StandIn::WebPage)),
            (b"\xEF\xBB\xBF\n <!DOCTYPE html>", Some(StandIn::WebPage)),
            (b"<?xml version=\"1.0\"?><Error>", Some(StandIn::Xml)),
            (b"<Error><Code>AccessDenied", Some(StandIn::Xml)),
            (b"{\"error\": \"not found\"}", Some(StandIn::Json)),
            (b"[1, 2]", Some(StandIn::Json)),
            (b"Access denied", Some(StandIn::Text)),
            ("gesperrt für Gäste".as_bytes(), Some(StandIn::Text)),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
                Some(StandIn::GitLfsPointer),
            ),
            (b"\x1F\x8B\x08\0", Some(StandIn::Gzip)),
            (&[0; 600], Some(StandIn::Zeros)),
            (b"PK\x03\x04\0\0", None),
            (b"\x80\x02}q\0.", None),
            (b"\x40\0\0\0\0\0\0\0{\"a\":1}", None),
            (b"\x93NUMPY\x01\0", None),
            (b"\xFF\xD8\xFF\xE0", None),
        ] {
            assert_eq!(stand_in(start), expected, "{start:?}");
        }
        // The end of the first bytes may cut a character.
        let long = "ä".repeat(START);
        assert_eq!(stand_in(&long.as_bytes()[..START - 1]), Some(StandIn::Text));
    }
}
