//! Strict JPEG decoder: a truncated file is an error, not an image with a grey lower half.
//!
//! Decoders usually fill in missing data, because for viewing half an image is better than none. In training and
//! evaluation that would be worse, because nobody would notice that an incomplete download was used. A file that lost
//! data but still has its end marker is not noticed, since the format has no checksum.

use std::io::{BufRead, Cursor, Seek, SeekFrom};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::{ZByteReaderTrait, ZCursor};
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::ImageError;
use crate::decode::{check_memory, check_plausible, check_size, corrupt};
use crate::jpeg_frame::Preamble;
use crate::jpeg_scans::as_one_scan;
use crate::probe::ColourModel;

/// Upper bound on the number of pixels per byte: every block of 8×8 takes at least one bit (ITU T.81, F.1.2).
const MOST_PIXELS_A_BYTE: usize = 1024;

/// Decodes a JPEG to grey or RGB and turns it upright by its EXIF orientation.
///
/// CMYK and YCCK are converted to RGB.
pub(crate) fn decode(bytes: &[u8], name: &Path) -> Result<DynamicImage, ImageError> {
    if !reaches_end_marker(bytes) {
        return Err(corrupt(name, "the JPEG ends before its end marker"));
    }
    let preamble = Preamble::read(&mut Cursor::new(bytes));
    let Header {
        width,
        height,
        orientation,
        colours,
    } = header(&mut open(ZCursor::new(bytes)), &preamble, name)?;
    check_size(width, height, name)?;
    check_plausible(width, height, MOST_PIXELS_A_BYTE, bytes.len(), name)?;
    check_memory(width, height, 3, name)?;
    let bytes = match &preamble.frame {
        Some(frame) => as_one_scan(bytes, frame, name)?,
        None => bytes.into(),
    };

    let refuse = |error| refusal(error, name);
    let mut decoder = open(ZCursor::new(&bytes[..]));
    decoder.decode_headers().map_err(refuse)?;
    let grey = colours == ColourModel::Grey;
    let output = if grey {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    };
    decoder.set_options(options().jpeg_set_out_colorspace(output));
    let pixels = decoder.decode().map_err(refuse)?; // [height, width, 1 or 3]
    let (width, height) = (width as u32, height as u32);
    let pixels = if grey {
        GrayImage::from_raw(width, height, pixels).map(DynamicImage::from)
    } else {
        RgbImage::from_raw(width, height, pixels).map(DynamicImage::from)
    };
    let mut pixels =
        pixels.ok_or_else(|| corrupt(name, "the JPEG has fewer pixels than its header states"))?;
    pixels.apply_orientation(orientation);
    Ok(pixels)
}

/// The contents of a JPEG header.
pub(crate) struct Header {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) orientation: Orientation,
    pub(crate) colours: ColourModel,
}

/// Reads the header of a JPEG without decoding pixels.
pub(crate) fn read_header(
    mut file: impl BufRead + Seek,
    name: &Path,
) -> Result<Header, ImageError> {
    let preamble = Preamble::read(&mut file);
    let start = file.seek(SeekFrom::Start(0));
    start.map_err(|source| ImageError::Unreadable {
        path: name.into(),
        source,
    })?;
    header(&mut open(file), &preamble, name)
}

fn open<T: ZByteReaderTrait>(file: T) -> JpegDecoder<T> {
    JpegDecoder::new_with_options(file, options())
}

fn options() -> DecoderOptions {
    DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
}

fn header<T: ZByteReaderTrait>(
    decoder: &mut JpegDecoder<T>,
    preamble: &Preamble,
    name: &Path,
) -> Result<Header, ImageError> {
    if let Some(frame) = &preamble.frame {
        frame.check_supported(name)?;
    }
    decoder
        .decode_headers()
        .map_err(|error| refusal(error, name))?;
    let (width, height) = decoder
        .dimensions()
        .ok_or_else(|| corrupt(name, "the JPEG states no size"))?;
    let orientation = preamble
        .exif
        .as_deref()
        .and_then(Orientation::from_exif_chunk);
    Ok(Header {
        width,
        height,
        orientation: orientation.unwrap_or(Orientation::NoTransforms),
        colours: match decoder.input_colorspace() {
            Some(ColorSpace::Luma) => ColourModel::Grey,
            Some(ColorSpace::CMYK | ColorSpace::YCCK) => ColourModel::Cmyk,
            _ => ColourModel::Rgb,
        },
    })
}

fn refusal(error: DecodeErrors, name: &Path) -> ImageError {
    match error {
        DecodeErrors::Unsupported(scheme) => ImageError::UnsupportedVariety {
            path: name.into(),
            reason: format!("JPEG with the feature {scheme:?} is not supported"),
        },
        other => corrupt(name, format!("{other:?}")),
    }
}

/// Returns whether following the markers of the file leads to an end-of-image marker.
///
/// Segments are skipped by their stated length, so the end marker of a thumbnail inside a segment does not count.
/// In entropy-coded data, a byte 0xFF is always followed by 0 or a restart marker (ITU T.81, B.1.1.5), so the same loop
/// can walk through it.
fn reaches_end_marker(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    let mut rest = bytes;
    while let Some(start) = rest.iter().position(|&byte| byte == 0xFF) {
        rest = &rest[start + 1..];
        let Some(&marker) = rest.first() else {
            return false;
        };
        match marker {
            END_OF_IMAGE => return true,
            // This is a fill byte; the next iteration begins at it.
            0xFF => {}
            // This is a stuffed zero or a marker without a segment: temporary, restart, start of image.
            0x00 | 0x01 | 0xD0..=0xD8 => rest = &rest[1..],
            _ => {
                let Some(&[_, high, low]) = rest.first_chunk() else {
                    return false;
                };
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(after) = rest.get(1 + length..) else {
                    return false;
                };
                rest = after;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_marker_of_a_thumbnail_does_not_count() {
        let segment = [0xFF, 0xE1, 0, 6, 0xFF, 0xD8, 0xFF, 0xD9];
        let start = [0xFF, 0xD8];
        let scan = [0xFF, 0xDA, 0, 2, 1, 0xFF, 0x00, 2, 0xFF, 0xD0, 3];
        let mut file = [&start[..], &segment, &scan].concat();
        assert!(!reaches_end_marker(&file));
        file.extend([0xFF, 0xFF, 0xD9]);
        assert!(reaches_end_marker(&file));
    }

    #[test]
    fn a_segment_beyond_the_end_of_the_file_has_no_end_marker() {
        for file in [
            &[0xFF][..],
            &[0xFF, 0xE1, 0],
            &[0xFF, 0xE1, 0xFF, 0xFF, 0xFF, 0xD9],
            &[],
        ] {
            assert!(!reaches_end_marker(file));
        }
    }
}
