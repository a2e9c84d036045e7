//! Recognises files that cannot be what was asked for, such as the web page of a proxy in place of weights.
//!
//! A digest proves the content of a file. Without one, the first bytes and the structure of the container are the only
//! evidence. Weights of every format are binary, and the other files of a model are JSON or plain text.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use serde_json::Value;
use zeg_base::content::{START, StandIn, stand_in};

/// Number of bytes of the length of a safetensors header.
const LENGTH_BYTES: u64 = 8;
/// The largest size of a safetensors header, in bytes.
const MOST_HEADER_BYTES: u64 = 100 << 20;
/// The first bytes of a zip file.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
/// The first bytes of the record at the end of a zip file.
const ZIP_END_MAGIC: &[u8] = b"PK\x05\x06";
/// Size of that record without its comment, and the largest size of the comment, in bytes.
const ZIP_END_BYTES: usize = 22;
const MOST_COMMENT_BYTES: u64 = 0xFFFF;
/// The first byte of a pickle.
const PICKLE: u8 = 0x80;
/// Extensions of the files that PyTorch writes.
const TORCH_EXTENSIONS: [&str; 4] = ["pt", "pth", "bin", "ckpt"];

/// Returns what a file is instead of the file of this name, or `None` if nothing speaks against it.
///
/// # Errors
/// Returns the system's error if the file cannot be read.
pub(crate) fn foreign(path: &Path, name: &str) -> io::Result<Option<&'static str>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut start = Vec::new();
    file.by_ref().take(START as u64).read_to_end(&mut start)?;
    if let Some(found) = foreign_start(&start, name) {
        return Ok(Some(found));
    }
    foreign_container(&mut file, length, &start, name)
}

/// Returns what a file is instead of whole weights, from the structure of its container.
fn foreign_container(
    file: &mut File,
    length: u64,
    start: &[u8],
    name: &str,
) -> io::Result<Option<&'static str>> {
    const OTHER: Option<&str> = Some("a file of another format");
    let is_safetensors = start.get(LENGTH_BYTES as usize) == Some(&b'{');
    let is_zip = start.starts_with(ZIP_MAGIC);
    let is_torch = TORCH_EXTENSIONS
        .iter()
        .any(|extension| has_extension(name, extension));
    if has_extension(name, "safetensors") {
        return Ok(if !is_safetensors {
            OTHER
        } else if is_whole_safetensors(file, length)? {
            None
        } else {
            Some("an incomplete safetensors file")
        });
    }
    if is_torch && is_zip {
        let is_whole = is_whole_zip(file, length)?;
        return Ok((!is_whole).then_some("an incomplete zip file"));
    }
    let is_known = is_safetensors || start.first() == Some(&PICKLE);
    Ok(OTHER.filter(|_| is_torch && !is_known))
}

/// Returns whether a safetensors file has the length that its header states.
fn is_whole_safetensors(file: &mut File, length: u64) -> io::Result<bool> {
    let mut size = [0; LENGTH_BYTES as usize];
    file.rewind()?;
    file.read_exact(&mut size)?;
    let size = u64::from_le_bytes(size);
    if size > MOST_HEADER_BYTES.min(length.saturating_sub(LENGTH_BYTES)) {
        return Ok(false);
    }
    let mut header = Vec::new();
    file.by_ref().take(size).read_to_end(&mut header)?;
    let Ok(Value::Object(entries)) = serde_json::from_slice(&header) else {
        return Ok(false);
    };
    let mut tensors = entries.iter().filter(|(key, _)| *key != "__metadata__");
    let end = tensors.try_fold(0, |end: u64, (_, tensor)| {
        Some(end.max(tensor["data_offsets"][1].as_u64()?))
    });
    Ok(end.is_some_and(|end| end.saturating_add(LENGTH_BYTES + size) == length))
}

/// Returns whether a zip file ends with the position of a directory that lies in the file.
fn is_whole_zip(file: &mut File, length: u64) -> io::Result<bool> {
    let before = length.saturating_sub(ZIP_END_BYTES as u64 + MOST_COMMENT_BYTES);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(before))?;
    file.read_to_end(&mut tail)?;
    let mut records = tail.windows(ZIP_END_BYTES).enumerate().rev();
    let Some((at, record)) = records.find(|(_, record)| record.starts_with(ZIP_END_MAGIC)) else {
        return Ok(false);
    };
    let position = before.saturating_add(at as u64);
    let number = |at: usize| {
        let bytes = record.get(at..).and_then(<[u8]>::first_chunk::<4>);
        bytes.map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
    };
    let (size, offset) = (number(12), number(16));
    // The numbers of large files stand in another record.
    let is_large = size == u32::MAX || offset == u32::MAX;
    Ok(is_large || u64::from(size) + u64::from(offset) <= position)
}

fn has_extension(name: &str, extension: &str) -> bool {
    let found = Path::new(name).extension();
    found.is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Returns what a file is instead of the file of this name, from its first bytes.
fn foreign_start(start: &[u8], name: &str) -> Option<&'static str> {
    let is_named = |extension: &str| has_extension(name, extension);
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

    #[test]
    fn truncated_and_foreign_weights_are_never_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let kind = |bytes: &[u8], name: &str| {
            std::fs::write(&path, bytes).unwrap();
            foreign(&path, name).unwrap()
        };
        let header = br#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        let mut tensors = (header.len() as u64).to_le_bytes().to_vec();
        tensors.extend(header);
        tensors.extend([1, 2, 3, 4]);
        let cut = Some("an incomplete safetensors file");
        assert_eq!(kind(&tensors, "a.safetensors"), None);
        assert_eq!(kind(&tensors[..tensors.len() - 1], "a.safetensors"), cut);
        assert_eq!(kind(&tensors[..20], "a.safetensors"), cut);
        assert_eq!(kind(&[&tensors[..], b"x"].concat(), "a.safetensors"), cut);

        let mut zip = b"PK\x03\x04 an entry, then the directory: PK\x01\x02".to_vec();
        let whole = zip.len() as u32;
        zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x04\0\0\0");
        zip.extend((whole - 4).to_le_bytes());
        zip.extend([0, 0]);
        assert_eq!(kind(&zip, "a.pt"), None);
        let cut = Some("an incomplete zip file");
        assert_eq!(kind(&zip[..zip.len() - 1], "a.pt"), cut);
        assert_eq!(kind(&zip[..10], "a.bin"), cut);

        let other = Some("a file of another format");
        assert_eq!(kind(&zip, "a.safetensors"), other);
        assert_eq!(kind(b"\xFF\xD8\xFF\xE0 a photo", "a.pth"), other);
        assert_eq!(kind(b"\x80\x02}q\0.", "a.pt"), None);
    }
}
