//! Finds the page of a TIFF that is read: the first that is neither a thumbnail nor a mask.
//!
//! A TIFF is a chain of directories, each with a page. Cameras and scanners put a thumbnail before the image, and map
//! programs put smaller copies and masks after it; the tag `NewSubfileType` says which is which (TIFF 6.0, section 8).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use crate::ImageError;
use crate::source::is_big_tiff;

/// The largest number of directories that are followed.
const MAX_DIRECTORIES: usize = 1000;
/// The largest number of entries of a directory that are examined; they are sorted by their tags.
const MAX_ENTRIES: u64 = 64;
/// Tags that say what a page is, and the tag of directories within a directory.
const NEW_SUBFILE_TYPE: u64 = 254;
const SUBFILE_TYPE: u64 = 255;
const SUB_DIRECTORIES: u64 = 330;
/// Bits of `NewSubfileType`: a copy of reduced size, and a mask.
const REDUCED_OR_MASK: u64 = 1 | 4;
/// Value of the older `SubfileType` for a copy of reduced size.
const REDUCED: u64 = 2;
/// Number of the type of 16-bit values.
const SHORT: u64 = 3;

/// The pages of a TIFF.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pages {
    /// Number of the directory of the page that is read, from 0.
    pub(crate) index: usize,
    /// Position of this directory in the file.
    offset: u64,
    /// Number of pages that are neither thumbnails nor masks, at most 1000.
    pub(crate) count: usize,
    /// Whether the full image is in a directory within the directory of a thumbnail, as in raw images of cameras.
    is_nested: bool,
}

/// Follows the directories of a TIFF; returns `None` if its header cannot be read.
///
/// If every page is a thumbnail or a mask, the first one is read.
pub(crate) fn pages(file: &mut (impl Read + Seek)) -> Option<Pages> {
    let mut numbers = Numbers::new(file)?;
    let mut offset = numbers.at(numbers.layout.first, numbers.layout.offset_length)?;
    let mut pages = Pages {
        index: 0,
        offset,
        count: 0,
        is_nested: false,
    };
    let mut seen = BTreeSet::new();
    for index in 0..MAX_DIRECTORIES {
        if offset == 0 || !seen.insert(offset) {
            break;
        }
        let Some(directory) = numbers.directory(offset) else {
            break;
        };
        if directory.is_full {
            if pages.count == 0 {
                (pages.index, pages.offset) = (index, offset);
            }
            pages.count += 1;
        }
        pages.is_nested |= !directory.is_full && directory.has_directories;
        offset = directory.next;
    }
    pages.is_nested &= pages.count == 0;
    Some(pages)
}

/// Returns the file with a header that leads to the page that is read, for decoders that read the first directory.
///
/// # Errors
/// Returns [`ImageError::UnsupportedVariety`] if only thumbnails can be reached.
pub(crate) fn with_main_page_first<'a>(
    bytes: &'a [u8],
    name: &Path,
) -> Result<Cow<'a, [u8]>, ImageError> {
    let Some(pages) = pages(&mut Cursor::new(bytes)) else {
        return Ok(Cow::Borrowed(bytes));
    };
    if pages.is_nested {
        return Err(ImageError::UnsupportedVariety {
            path: name.into(),
            reason: "the pages of the TIFF are thumbnails; the full image is in a directory within a directory, \
                     as in raw images of cameras"
                .into(),
        });
    }
    if pages.index == 0 {
        return Ok(Cow::Borrowed(bytes));
    }
    let layout = Layout::of(is_big_tiff(bytes));
    let place = layout.first as usize;
    let mut digits = pages.offset.to_le_bytes()[..layout.offset_length].to_vec();
    if !bytes.starts_with(b"II") {
        digits.reverse();
    }
    let mut changed = bytes.to_vec();
    if let Some(target) = changed.get_mut(place..place + layout.offset_length) {
        target.copy_from_slice(&digits);
    }
    Ok(Cow::Owned(changed))
}

/// Positions and lengths in bytes, which are larger in a BigTIFF.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Position of the offset of the first directory.
    first: u64,
    offset_length: usize,
    count_length: usize,
    entry_length: u64,
    /// Position of the value within an entry.
    value: u64,
}

impl Layout {
    fn of(is_big: bool) -> Self {
        if is_big {
            Self {
                first: 8,
                offset_length: 8,
                count_length: 8,
                entry_length: 20,
                value: 12,
            }
        } else {
            Self {
                first: 4,
                offset_length: 4,
                count_length: 2,
                entry_length: 12,
                value: 8,
            }
        }
    }
}

/// What a directory says about its page.
struct Directory {
    /// Whether the page is neither a thumbnail nor a mask.
    is_full: bool,
    has_directories: bool,
    /// Position of the next directory; 0 if there is none.
    next: u64,
}

/// A reader of the numbers of a TIFF.
struct Numbers<'a, F> {
    file: &'a mut F,
    is_little: bool,
    layout: Layout,
}

impl<'a, F: Read + Seek> Numbers<'a, F> {
    fn new(file: &'a mut F) -> Option<Self> {
        let mut head = [0; 4];
        file.seek(SeekFrom::Start(0)).ok()?;
        file.read_exact(&mut head).ok()?;
        Some(Self {
            file,
            is_little: head.starts_with(b"II"),
            layout: Layout::of(is_big_tiff(&head)),
        })
    }

    /// Returns the number of 2, 4 or 8 bytes at a position.
    fn at(&mut self, place: u64, length: usize) -> Option<u64> {
        let mut digits = [0; 8];
        let digits = digits.get_mut(..length)?;
        self.file.seek(SeekFrom::Start(place)).ok()?;
        self.file.read_exact(digits).ok()?;
        if self.is_little {
            digits.reverse();
        }
        let join = |value: u64, digit: &u8| value << 8 | u64::from(*digit);
        Some(digits.iter().fold(0, join))
    }

    fn directory(&mut self, offset: u64) -> Option<Directory> {
        let layout = self.layout;
        let count = self.at(offset, layout.count_length)?;
        let first = offset.checked_add(layout.count_length as u64)?;
        let mut directory = Directory {
            is_full: true,
            has_directories: false,
            next: 0,
        };
        for index in 0..count.min(MAX_ENTRIES) {
            let entry = first.checked_add(index * layout.entry_length)?;
            let tag = self.at(entry, 2)?;
            if tag > SUB_DIRECTORIES {
                break;
            }
            directory.has_directories |= tag == SUB_DIRECTORIES;
            if tag == NEW_SUBFILE_TYPE || tag == SUBFILE_TYPE {
                let length = if self.at(entry.checked_add(2)?, 2)? == SHORT {
                    2
                } else {
                    4
                };
                let value = self.at(entry.checked_add(layout.value)?, length)?;
                let is_part = match tag {
                    NEW_SUBFILE_TYPE => value & REDUCED_OR_MASK != 0,
                    _ => value == REDUCED,
                };
                directory.is_full &= !is_part;
            }
        }
        let end = first.checked_add(count.checked_mul(layout.entry_length)?)?;
        directory.next = self.at(end, layout.offset_length).unwrap_or(0);
        Some(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode_image_bytes;

    /// Returns a little-endian TIFF of grey pages of 1×1 pixels, each with its `NewSubfileType` and its value.
    fn tiff(pages: &[(u32, u8)]) -> Vec<u8> {
        const ENTRIES: u16 = 9;
        let length = 2 + 12 * u32::from(ENTRIES) + 4;
        let mut bytes = b"II*\0\x08\0\0\0".to_vec();
        for (number, (subfile, _)) in pages.iter().enumerate() {
            let is_last = number + 1 == pages.len();
            let next = if is_last {
                0
            } else {
                8 + length * (number as u32 + 1)
            };
            bytes.extend(ENTRIES.to_le_bytes());
            for (tag, kind, value) in [
                (254_u16, 4_u16, *subfile),
                (256, 3, 1),                                               // width
                (257, 3, 1),                                               // height
                (258, 3, 8),                                               // bits per sample
                (259, 3, 1),                                               // no compression
                (262, 3, 1),                                               // black is zero
                (273, 4, 8 + length * pages.len() as u32 + number as u32), // offset of the strip
                (277, 3, 1),                                               // samples per pixel
                (279, 4, 1),                                               // bytes of the strip
            ] {
                bytes.extend(tag.to_le_bytes());
                bytes.extend(kind.to_le_bytes());
                bytes.extend(1_u32.to_le_bytes());
                bytes.extend(value.to_le_bytes());
            }
            bytes.extend(next.to_le_bytes());
        }
        bytes.extend(pages.iter().map(|(_, value)| *value));
        bytes
    }

    #[test]
    fn the_first_page_that_is_no_thumbnail_is_read() {
        let read = |pages: &[(u32, u8)]| {
            let decoded = decode_image_bytes(&tiff(pages), Path::new("x.tif")).unwrap();
            (decoded.rgb.as_raw()[0], decoded.frames)
        };
        assert_eq!(read(&[(0, 10)]), (10, None));
        assert_eq!(read(&[(1, 10), (0, 20)]), (20, None));
        assert_eq!(read(&[(1, 10), (4, 20), (0, 30), (2, 40)]), (30, Some(2)));
        // Smaller copies after the image are no pages of their own.
        assert_eq!(read(&[(0, 10), (1, 20), (1, 30)]), (10, None));
        assert_eq!(read(&[(2, 10), (2, 20), (2, 30)]), (10, Some(3)));
        assert_eq!(read(&[(1, 10), (1, 20)]), (10, None));
    }

    #[test]
    fn the_size_in_the_header_is_that_of_the_page_that_is_read() {
        let mut bytes = tiff(&[(1, 10), (0, 20)]);
        // The width of the first page, in the second entry.
        bytes[8 + 2 + 12 + 8] = 200;
        let header = crate::image_header(&bytes, Path::new("x.tif")).unwrap();
        assert_eq!(header.stored, (1, 1));
    }

    #[test]
    fn a_chain_that_goes_in_circles_ends() {
        let mut bytes = tiff(&[(0, 10), (0, 20)]);
        let next_of_second = 8 + 2 * (2 + 12 * 9 + 4) - 4;
        bytes[next_of_second..next_of_second + 4].copy_from_slice(&8_u32.to_le_bytes());
        assert_eq!(pages(&mut Cursor::new(&bytes)).unwrap().count, 2);
        for length in 0..bytes.len() {
            let _ = pages(&mut Cursor::new(&bytes[..length]));
        }
    }

    #[test]
    fn thumbnails_of_a_nested_image_are_refused() {
        let mut bytes = tiff(&[(1, 10)]);
        // The tag of the last entry becomes that of directories within the directory.
        let last = 8 + 2 + 12 * 8;
        bytes[last..last + 2].copy_from_slice(&330_u16.to_le_bytes());
        let error = decode_image_bytes(&bytes, Path::new("x.tif")).unwrap_err();
        assert!(error.to_string().contains("thumbnails"), "{error}");
    }
}
