//! Reads the bytes of an image file: regular files of bounded size, with a format recognised from the content.
//!
//! A path comes from a user's pattern or a data set's list, so it may name a pipe that never ends or a video of many
//! gigabytes. A file that is not an image is refused from its first bytes, before the rest is read.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use image::ImageFormat;
use zeg_base::content::{StandIn, stand_in};
use zeg_base::file::read_error;

use crate::ImageError;
use crate::decode::corrupt;

/// The largest size of an image file, in bytes: [`MAX_PIXELS`](crate::decode::MAX_PIXELS) at 8 bytes each.
pub const MAX_FILE_BYTES: u64 = 1 << 31;
/// Number of first bytes that are enough to recognise every format.
const HEAD: u64 = 32;

/// Opens a regular file and recognises its format; also returns the first bytes, which have been read.
pub(crate) fn open(path: &Path) -> Result<(File, Vec<u8>, ImageFormat), ImageError> {
    let unreadable = |error| ImageError::Unreadable {
        path: path.into(),
        source: read_error(path, error),
    };
    // This is checked before opening, because opening a pipe without a writer would wait forever.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ImageError::NotRegular { path: path.into() });
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(ImageError::FileTooLarge {
            path: path.into(),
            bytes: metadata.len(),
            limit: MAX_FILE_BYTES,
        });
    }
    let file = File::open(path).map_err(unreadable)?;
    let mut head = Vec::new();
    (&file)
        .take(HEAD)
        .read_to_end(&mut head)
        .map_err(unreadable)?;
    let format = recognise(&head, path)?;
    Ok((file, head, format))
}

/// Reads the whole content of an image file and recognises its format.
pub(crate) fn read(path: &Path) -> Result<(Vec<u8>, ImageFormat), ImageError> {
    let (file, mut bytes, format) = open(path)?;
    file.take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|source: io::Error| ImageError::Unreadable {
            path: path.into(),
            source,
        })?;
    Ok((bytes, format))
}

/// Recognises the format from the first bytes of a file.
pub(crate) fn recognise(bytes: &[u8], name: &Path) -> Result<ImageFormat, ImageError> {
    if is_big_tiff(bytes) {
        return Ok(ImageFormat::Tiff);
    }
    match image::guess_format(bytes) {
        // Many texts begin with the same two characters as a PNM file; in a PNM file, white space follows them.
        Ok(ImageFormat::Pnm) if !bytes.get(2).is_some_and(u8::is_ascii_whitespace) => {}
        Ok(format) if format.reading_enabled() => return Ok(format),
        _ => {}
    }
    if bytes.is_empty() {
        return Err(corrupt(name, "the file is empty"));
    }
    Err(ImageError::UnsupportedFormat {
        path: name.into(),
        found: foreign(bytes),
    })
}

/// Returns whether the file is a BigTIFF: a TIFF with 64-bit offsets, which has version 43 instead of 42.
pub(crate) fn is_big_tiff(bytes: &[u8]) -> bool {
    bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+")
}

/// Returns the name of an unsupported format that users may take for an image format.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    const SIGNATURES: [(usize, &[u8], &str); 12] = [
        (4, b"ftypavif", "AVIF"),
        (4, b"ftypavis", "AVIF"),
        (4, b"ftyphei", "HEIC"),
        (4, b"ftyphev", "HEIC"),
        (4, b"ftypmif1", "HEIC"),
        (4, b"ftyp", "a video"),
        (0, b"\xFF\x0A", "JPEG XL"),
        (4, b"JXL \r\n", "JPEG XL"),
        (4, b"jP  \r\n", "JPEG 2000"),
        (0, b"8BPS", "Photoshop"),
        (0, b"%PDF", "PDF"),
        (0, b"<svg", "SVG"),
    ];
    let found = SIGNATURES.iter().find(|(offset, signature, _)| {
        let rest = bytes.get(*offset..);
        rest.is_some_and(|rest| rest.starts_with(signature))
    });
    let known = found.map(|(_, _, kind)| *kind);
    known.or_else(|| stand_in(bytes).map(StandIn::name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognised_from_the_content() {
        let name = Path::new("x");
        for (bytes, format) in [
            (&b"\x89PNG\r\n\x1a\n"[..], ImageFormat::Png),
            (b"II+\0\x08\0\0\0", ImageFormat::Tiff),
            (b"MM\0+", ImageFormat::Tiff),
            (b"P6\n1 1", ImageFormat::Pnm),
            (b"qoif", ImageFormat::Qoi),
        ] {
            assert_eq!(recognise(bytes, name).unwrap(), format);
        }
        assert!(matches!(
            recognise(b"", name),
            Err(ImageError::Corrupt { .. })
        ));
    }

    #[test]
    fn unsupported_formats_are_named() {
        for (bytes, expected) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0"[..], "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
            (b"\0\0\0\x20ftypisom", "a video"),
            (b"%PDF-1.7", "PDF"),
            (b"P1xels are small squares", "but text"),
            (b"# notes", "but text"),
            (b"<!DOCTYPE html><html>", "but a web page"),
            (b"{\"error\": 404}", "but a JSON document"),
            (
                b"version https://git-lfs.github.com/spec/v1",
                "but a Git LFS pointer",
            ),
        ] {
            let error = recognise(bytes, Path::new("x.jpg")).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(expected), "{text}");
            assert!(text.starts_with("x.jpg: "), "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn devices_and_folders_are_refused() {
        for path in ["/dev/zero", "."] {
            assert!(matches!(
                read(Path::new(path)),
                Err(ImageError::NotRegular { .. })
            ));
        }
    }

    /// A video with an image extension is refused from its first bytes, and a file over the limit from its size.
    #[test]
    fn large_files_are_refused_without_reading_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.png");
        let file = File::create(&path).unwrap();
        file.set_len(MAX_FILE_BYTES + 1).unwrap(); // a sparse file, which takes no disk space
        assert!(matches!(
            read(&path),
            Err(ImageError::FileTooLarge { bytes, .. }) if bytes == MAX_FILE_BYTES + 1
        ));
        file.set_len(MAX_FILE_BYTES).unwrap();
        assert!(matches!(
            read(&path),
            Err(ImageError::UnsupportedFormat { .. })
        ));
    }
}
