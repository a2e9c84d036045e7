//! Reads and checks PNG chunks that the decoder does not handle well or does not tell of.
//!
//! - The orientation is in the chunk `eXIf`, which may follow the pixels (PNG specification, third edition, table 7).
//!   The decoder stops after the pixels and does not find it there, while OpenCV and Pillow do.
//! - A palette whose length is not a multiple of three makes the decoder panic (png 0.18.1, issue 694 of that crate).

use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use crate::ImageError;
use crate::decode::corrupt;

/// Length of the PNG signature in bytes.
const SIGNATURE: u64 = 8;
/// The largest size of an `eXIf` chunk that is read, in bytes; the chunk may contain a thumbnail.
const MAX_EXIF: u32 = 1 << 20;

/// Returns the content of the `eXIf` chunk of a file.
pub(crate) fn exif(bytes: &[u8]) -> Option<Vec<u8>> {
    exif_of(&mut Cursor::new(bytes))
}

/// Returns the content of the `eXIf` chunk of a file; of other chunks, only the head is read.
pub(crate) fn exif_of(file: &mut (impl Read + Seek)) -> Option<Vec<u8>> {
    let length = find(file, |kind, length| kind == b"eXIf" && length <= MAX_EXIF)?;
    let mut exif = Vec::new();
    file.take(u64::from(length)).read_to_end(&mut exif).ok()?;
    Some(exif)
}

/// Returns the number of frames that the chunk `acTL` of an animated PNG states.
pub(crate) fn frames(bytes: &[u8]) -> Option<usize> {
    let mut file = Cursor::new(bytes);
    find(&mut file, |kind, length| kind == b"acTL" && length == 8)?;
    let mut frames = [0; 4];
    file.read_exact(&mut frames).ok()?;
    usize::try_from(u32::from_be_bytes(frames)).ok()
}

/// Returns an error if the length of the palette is not a multiple of three bytes.
pub(crate) fn check_palette(bytes: &[u8], name: &Path) -> Result<(), ImageError> {
    let is_broken = |kind: &[u8; 4], length: u32| kind == b"PLTE" && !length.is_multiple_of(3);
    match find(&mut Cursor::new(bytes), is_broken) {
        Some(length) => {
            let reason = format!("the palette has {length} bytes, which is not a multiple of 3");
            Err(corrupt(name, reason))
        }
        None => Ok(()),
    }
}

/// Seeks to the content of the first chunk for whose kind and length `wanted` is true, and returns its length.
fn find(file: &mut (impl Read + Seek), wanted: impl Fn(&[u8; 4], u32) -> bool) -> Option<u32> {
    file.seek(SeekFrom::Start(SIGNATURE)).ok()?;
    loop {
        let mut head = [0; 8];
        file.read_exact(&mut head).ok()?;
        let [a, b, c, d, kind @ ..] = head;
        let length = u32::from_be_bytes([a, b, c, d]);
        if wanted(&kind, length) {
            return Some(length);
        }
        if &kind == b"IEND" {
            return None;
        }
        // The content is followed by a checksum of 4 bytes.
        file.seek(SeekFrom::Current(i64::from(length) + 4)).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in chunks {
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(*kind);
            bytes.extend(*data);
            bytes.extend([0; 4]);
        }
        bytes
    }

    #[test]
    fn exif_is_found_before_and_after_the_pixels() {
        let exif_chunk = (b"eXIf", &b"MM\0*"[..]);
        for chunks in [
            [(b"IDAT", &b"pixels"[..]), exif_chunk],
            [exif_chunk, (b"IDAT", b"")],
        ] {
            assert_eq!(exif(&file(&chunks)).unwrap(), b"MM\0*");
        }
        assert_eq!(exif(&file(&[(b"IEND", b""), exif_chunk])), None);
    }

    #[test]
    fn palettes_of_incomplete_colours_are_refused() {
        let check = |palette: &[u8]| {
            let bytes = file(&[(b"gAMA", b"1234"), (b"PLTE", palette)]);
            check_palette(&bytes, Path::new("x.png"))
        };
        assert!(check(&[0; 6]).is_ok() && check(&[]).is_ok());
        for length in [1, 4, 5, 767] {
            let error = check(&vec![0; length]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("palette has {length} bytes")),
                "{error}"
            );
        }
    }

    #[test]
    fn damaged_files_have_no_exif() {
        let mut long = file(&[]);
        long.extend(*b"\xFF\xFF\xFF\xFFeXIf");
        let mut beyond = file(&[]);
        beyond.extend(*b"\xFF\xFF\xFF\xFFIDAT");
        for bytes in [&b""[..], b"\x89PNG", &long, &beyond, &file(&[])] {
            assert_eq!(exif(bytes), None);
        }
    }
}
