//! Recognises files that cannot be what was asked for, such as the web page of a proxy in place of weights.
//!
//! A digest proves the content of a file. Without one, the first bytes are the only evidence. Weights of every format
//! are binary, and the other files of a model are JSON or plain text.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use zeg_base::content::{START, StandIn, stand_in};

/// Returns what a file is instead of the file of this name, or `None` if nothing speaks against it.
///
/// # Errors
/// Returns the system's error if the file cannot be read.
pub(crate) fn foreign(path: &Path, name: &str) -> io::Result<Option<&'static str>> {
    let mut start = Vec::new();
    File::open(path)?
        .take(START as u64)
        .read_to_end(&mut start)?;
    Ok(foreign_start(&start, name))
}

/// Returns what a file is instead of the file of this name, from its first bytes.
fn foreign_start(start: &[u8], name: &str) -> Option<&'static str> {
    let is_named = |extension: &str| {
        let found = Path::new(name).extension();
        found.is_some_and(|found| found.eq_ignore_ascii_case(extension))
    };
    let found = stand_in(start)?;
    let is_right = match found {
        StandIn::Json => is_named("json") || is_named("txt"),
        StandIn::Text => is_named("txt"),
        StandIn::Gzip => is_named("gz"),
        _ => false,
    };
    match found {
        _ if is_right => None,
        StandIn::Text if is_named("json") => Some("text that is not JSON"),
        found => Some(found.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_taken_for_weights() {
        for (start, name, expected) in [
            (&b"<html>sign in</html>"[..], "model.pt", Some("a web page")),
            (b"\n <!DOCTYPE html>", "config.json", Some("a web page")),
            (b"Access denied", "model.safetensors", Some("text")),
            (
                b"Access denied",
                "config.json",
                Some("text that is not JSON"),
            ),
            (
                b"{\"error\": 1}",
                "model.safetensors",
                Some("a JSON document"),
            ),
            (
                b"version https://git-lfs.github.com",
                "a.bin",
                Some(StandIn::GitLfsPointer.name()),
            ),
            (b"", "model.pt", Some("an empty file")),
            (b"{\"embed_dim\": 512}", "open_clip_config.json", None),
            (b"a list of merges", "merges.txt", None),
            (b"PK\x03\x04\0\0", "model.pt", None),
            (b"\x80\x02}q\0.", "model.pt", None),
            (b"\x40\0\0\0\0\0\0\0{\"a\":1}", "model.safetensors", None),
        ] {
            assert_eq!(foreign_start(start, name), expected, "{name}");
        }
    }
}
