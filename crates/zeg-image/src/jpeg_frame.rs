//! Reads what a JPEG states before its pixels: the frame header and the first EXIF segment.
//!
//! The decoder calls valid files that it does not support damaged. Here they are told apart by their frame header
//! (ITU T.81, B.2.2), before the decoder sees them.

use std::io::{BufRead, Seek, SeekFrom};
use std::path::Path;

use crate::ImageError;

/// Markers of the segments that are read.
const APP1: u8 = 0xE1;
const START_OF_SCAN: u8 = 0xDA;
const END_OF_IMAGE: u8 = 0xD9;
/// The text at the start of an EXIF segment (Exif 2.3, 4.7.2).
const EXIF: &[u8] = b"Exif\0\0";

/// A component of a frame: brightness, a colour difference, or an ink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Component {
    pub(crate) id: u8,
    /// Horizontal sampling factor, 1..=4.
    pub(crate) across: usize,
    /// Vertical sampling factor, 1..=4.
    pub(crate) down: usize,
    /// Number of its quantisation table.
    pub(crate) table: u8,
}

/// The contents of a frame header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The second byte of its marker, 0xC0..=0xCF, which stands for the coding process.
    pub(crate) marker: u8,
    /// Number of bits per sample.
    pub(crate) bits: u8,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) components: Vec<Component>,
}

/// What a JPEG states before its first scan; a part that is missing or damaged is `None`.
#[derive(Debug, Default)]
pub(crate) struct Preamble {
    pub(crate) frame: Option<Frame>,
    /// Content of the first EXIF segment, behind its text `Exif`.
    pub(crate) exif: Option<Vec<u8>>,
}

impl Preamble {
    /// Reads the segments before the first scan; it stops without an error where the file is damaged.
    ///
    /// If there are several EXIF segments, the first one counts, as in OpenCV and Pillow.
    pub(crate) fn read(file: &mut (impl BufRead + Seek)) -> Self {
        let mut preamble = Self::default();
        let _ = preamble.read_segments(file);
        preamble
    }

    fn read_segments(&mut self, file: &mut (impl BufRead + Seek)) -> Option<()> {
        file.seek(SeekFrom::Start(2)).ok()?; // behind the start-of-image marker
        loop {
            let marker = next_marker(file)?;
            if matches!(marker, START_OF_SCAN | END_OF_IMAGE) {
                return None;
            }
            if matches!(marker, 0x01 | 0xD0..=0xD8) {
                continue; // markers without a segment
            }
            let mut length = [0; 2];
            file.read_exact(&mut length).ok()?;
            let length = usize::from(u16::from_be_bytes(length)).checked_sub(2)?;
            let is_wanted = is_frame(marker) || (marker == APP1 && self.exif.is_none());
            if !is_wanted {
                file.seek_relative(length as i64).ok()?;
                continue;
            }
            let mut content = vec![0; length];
            file.read_exact(&mut content).ok()?;
            if marker == APP1 {
                self.exif = content.strip_prefix(EXIF).map(<[u8]>::to_vec);
            } else if self.frame.is_none() {
                self.frame = Frame::parse(marker, &content);
            }
        }
    }
}

impl Frame {
    /// Parses the content of a frame header, behind its length.
    pub(crate) fn parse(marker: u8, content: &[u8]) -> Option<Self> {
        let (&[bits, h1, h0, w1, w0, count], rest) = content.split_first_chunk()?;
        let components: Vec<Component> = rest
            .as_chunks::<3>()
            .0
            .iter()
            .map(|&[id, factors, table]| Component {
                id,
                across: usize::from(factors >> 4),
                down: usize::from(factors & 0xF),
                table,
            })
            .collect();
        (components.len() == usize::from(count)).then_some(Self {
            marker,
            bits,
            width: usize::from(u16::from_be_bytes([w1, w0])),
            height: usize::from(u16::from_be_bytes([h1, h0])),
            components,
        })
    }

    /// Returns whether the coefficients of a block are all in one scan, coded with Huffman's codes.
    pub(crate) fn is_sequential(&self) -> bool {
        matches!(self.marker, 0xC0 | 0xC1)
    }

    /// Returns [`ImageError::UnsupportedVariety`] if the file may be valid, but the decoder does not support it.
    pub(crate) fn check_supported(&self, name: &Path) -> Result<(), ImageError> {
        let Some(feature) = self.unsupported() else {
            return Ok(());
        };
        Err(ImageError::UnsupportedVariety {
            path: name.into(),
            reason: format!("JPEG with {feature} is not supported"),
        })
    }

    fn unsupported(&self) -> Option<String> {
        // The coding processes are those of ITU T.81, table B.1.
        let process = match self.marker {
            0xC0..=0xC2 => None,
            0xC3 => Some("lossless coding"),
            0xC9 | 0xCA => Some("arithmetic coding"),
            0xCB => Some("lossless arithmetic coding"),
            _ => Some("hierarchical coding"),
        };
        if let Some(process) = process {
            return Some(process.to_owned());
        }
        if self.bits != 8 && (2..=16).contains(&self.bits) {
            return Some(format!("{} bits per sample", self.bits));
        }
        if self.height == 0 {
            return Some("a height that follows the first scan (DNL)".to_owned());
        }
        if !matches!(self.components.len(), 0 | 1 | 3 | 4) {
            return Some(format!("{} components", self.components.len()));
        }
        let odd = |component: &&Component| component.across == 3 || component.down == 3;
        let odd = self.components.iter().find(odd)?;
        Some(format!("the sampling factors {}×{}", odd.across, odd.down))
    }
}

/// Returns whether a marker begins a frame header; the numbers between are those of tables and an extension.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

/// Reads up to the next marker and returns its second byte.
fn next_marker(file: &mut impl BufRead) -> Option<u8> {
    let mut byte = [0];
    loop {
        file.read_exact(&mut byte).ok()?;
        if byte != [0xFF] {
            continue;
        }
        // A marker may be preceded by any number of fill bytes.
        while byte == [0xFF] {
            file.read_exact(&mut byte).ok()?;
        }
        if byte != [0] {
            return byte.first().copied();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u16 + 2).to_be_bytes();
        [&[0xFF, marker], &length[..], content].concat()
    }

    fn frame(marker: u8, bits: u8, factors: &[u8]) -> Frame {
        let mut content = vec![bits, 0, 16, 0, 16, factors.len() as u8];
        for (id, &factors) in (1..).zip(factors) {
            content.extend([id, factors, 0]);
        }
        Frame::parse(marker, &content).unwrap()
    }

    #[test]
    fn valid_files_that_are_not_supported_are_not_called_corrupt() {
        for (frame, reason) in [
            (frame(0xC9, 8, &[0x11]), "arithmetic coding"),
            (frame(0xC3, 8, &[0x11]), "lossless coding"),
            (frame(0xC1, 12, &[0x11]), "12 bits per sample"),
            (frame(0xC5, 8, &[0x11]), "hierarchical coding"),
            (frame(0xC0, 8, &[0x31, 0x11, 0x11]), "factors 3×1"),
            (frame(0xC0, 8, &[0x11, 0x11]), "2 components"),
        ] {
            let error = frame.check_supported(Path::new("x.jpg")).unwrap_err();
            assert!(matches!(error, ImageError::UnsupportedVariety { .. }));
            let text = error.to_string();
            assert!(
                text.contains(reason) && text.contains("not supported"),
                "{text}"
            );
        }
        for factors in [&[0x11][..], &[0x22, 0x11, 0x11], &[0x11; 4]] {
            assert!(
                frame(0xC0, 8, factors)
                    .check_supported(Path::new("x"))
                    .is_ok()
            );
        }
    }

    #[test]
    fn the_first_exif_segment_counts() {
        let file = [
            vec![0xFF, 0xD8],
            segment(APP1, b"http://ns.adobe.com/xap/1.0/\0"),
            segment(APP1, b"Exif\0\0first"),
            segment(APP1, b"Exif\0\0second"),
            segment(0xC0, &[8, 0, 2, 0, 3, 1, 1, 0x11, 0]),
            segment(START_OF_SCAN, b""),
            segment(APP1, b"Exif\0\0behind"),
        ]
        .concat();
        let preamble = Preamble::read(&mut Cursor::new(&file));
        assert_eq!(preamble.exif.unwrap(), b"first");
        let frame = preamble.frame.unwrap();
        assert_eq!((frame.width, frame.height), (3, 2));
        for end in 0..file.len() {
            Preamble::read(&mut Cursor::new(&file[..end]));
        }
    }
}
