//! Checks the chunk lengths of a WebP before it is decoded.
//!
//! If a file ends early, the decoder of lossy images continues with zeros, and the decoder of metadata allocates as
//! much memory as a chunk states. A WebP must therefore be as long as its container and each of its chunks state (RIFF
//! container of the WebP specification).

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use crate::ImageError;
use crate::decode::corrupt;

/// Length of a chunk's head in bytes: its kind and its length.
const HEAD: u64 = 8;
/// Length in bytes of the container's head before the first chunk.
const CONTAINER_HEAD: u64 = 12;

/// Returns an error if the file is shorter than its container or one of its chunks states.
pub(crate) fn check(file: &mut (impl Read + Seek), name: &Path) -> Result<(), ImageError> {
    let unreadable = |source| ImageError::Unreadable {
        path: name.into(),
        source,
    };
    let length = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    let mut stated_at = |place: u64| -> Option<u64> {
        let mut size = [0; 4];
        file.seek(SeekFrom::Start(place + 4)).ok()?;
        file.read_exact(&mut size).ok()?;
        Some(place + HEAD + u64::from(u32::from_le_bytes(size)))
    };
    let too_short = |end: u64| {
        let reason = format!("the header states {end} bytes, but the file has {length}");
        Err(corrupt(name, reason))
    };
    let Some(end) = stated_at(0) else {
        return Err(corrupt(name, "the WebP ends within its header"));
    };
    if end > length {
        return too_short(end);
    }
    let mut place = CONTAINER_HEAD;
    while place + HEAD <= end {
        match stated_at(place) {
            Some(chunk_end) if chunk_end > length => return too_short(chunk_end),
            // Chunks of an odd length are followed by a byte of padding.
            Some(chunk_end) => place = chunk_end.next_multiple_of(2),
            None => break,
        }
    }
    Ok(())
}

/// Returns whether the first image of a WebP is coded without loss: its first chunk of pixels is `VP8L`.
pub(crate) fn is_lossless(bytes: &[u8]) -> bool {
    // A chunk of animation holds the frames, each with a head of 16 bytes.
    let first = kinds(bytes).find(|kind| [b"VP8L", b"VP8 ", b"ANMF"].contains(&kind));
    first == Some(*b"VP8L")
}

/// Returns the number of frames of an animated WebP; 0 if it is not animated.
pub(crate) fn frames(bytes: &[u8]) -> usize {
    kinds(bytes).filter(|kind| kind == b"ANMF").count()
}

/// Returns the kinds of the chunks of a WebP, in their order.
fn kinds(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + '_ {
    let mut place = CONTAINER_HEAD as usize;
    std::iter::from_fn(move || {
        let rest = bytes.get(place..)?;
        let [kind @ .., a, b, c, d] = *rest.first_chunk::<{ HEAD as usize }>()?;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        // Chunks of an odd length are followed by a byte of padding.
        place = place.saturating_add(HEAD as usize + length.next_multiple_of(2));
        Some(kind)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn file(size: u32, chunks: &[(u32, usize)]) -> Vec<u8> {
        let mut bytes = [b"RIFF", &size.to_le_bytes()[..], b"WEBP"].concat();
        for (stated, length) in chunks {
            bytes.extend([b"EXIF", &stated.to_le_bytes()[..], &vec![0; *length]].concat());
        }
        bytes
    }

    #[test]
    fn a_file_shorter_than_stated_is_refused() {
        let check = |bytes: Vec<u8>| check(&mut Cursor::new(bytes), Path::new("x.webp"));
        for bytes in [
            file(4, &[]),
            file(4 + 8 + 4 + 8, &[(3, 4), (0, 0)]),
            // Bytes after the container, and a remainder that is too short for a chunk.
            file(4, &[(u32::MAX, 0)]),
            file(4 + 5, &[(u32::MAX, 0)]),
        ] {
            assert!(check(bytes.clone()).is_ok(), "{bytes:?}");
        }
        for (bytes, stated) in [
            (file(5, &[]), 13),
            (file(u32::MAX, &[]), 8 + u64::from(u32::MAX)),
            // Found by fuzzing: a metadata chunk of 2.7 GB in a file of 208 bytes.
            (file(12, &[(2_705_587_994, 0)]), 20 + 2_705_587_994),
            (file(4 + 8 + 4 + 8, &[(4, 4), (1, 0)]), 33),
        ] {
            let error = check(bytes.clone()).unwrap_err().to_string();
            assert!(
                error.contains(&format!(
                    "states {stated} bytes, but the file has {}",
                    bytes.len()
                )),
                "{error}"
            );
        }
    }
}
