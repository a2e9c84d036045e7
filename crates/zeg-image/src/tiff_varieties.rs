//! Decodes three varieties of TIFF that the image library does not support: palettes, JPEG in YCbCr, and grey with alpha.
//!
//! Scanners and map programs write the first, photo archives the second, and Pillow the third. In a file with a palette, the header is
//! changed to say that the image is grey, so that the decoder returns the indices; their colours are looked up here.

use std::borrow::Cow;
use std::io::{BufRead, Cursor, Seek};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, RgbImage};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{CompressionMethod, PlanarConfiguration, Tag};
use tiff::{ColorType, TiffError};

use crate::ImageError;
use crate::decode::{MAX_PIXELS, check_memory, check_size, corrupt};
use crate::probe::ColourModel;
use crate::source::is_big_tiff;
use crate::{tiff_pages, tiff_samples};

/// Values of the tag `PhotometricInterpretation` (TIFF 6.0, section 8).
const WHITE_IS_ZERO: u16 = 0;
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;
const PHOTOMETRIC: u16 = 262;

/// Decodes an image of one of these varieties and turns it upright; returns `None` for all others.
pub(crate) fn decode(bytes: &[u8], name: &Path) -> Result<Option<DynamicImage>, ImageError> {
    let is_palette = photometric_place(bytes).is_some_and(|(_, value)| value == PALETTE);
    let bytes = if is_palette {
        as_stored(bytes)
    } else {
        Cow::Borrowed(bytes)
    };
    let refuse = |error: TiffError| refusal(error, name);
    let Ok(decoder) = Decoder::new(Cursor::new(&bytes)) else {
        return Ok(None); // the image library then reports the error in more detail
    };
    let mut limits = Limits::default();
    limits.decoding_buffer_size = 3 * MAX_PIXELS;
    let mut decoder = decoder.with_limits(limits);
    check_jpeg_parts(&mut decoder, bytes.len() as u64, name)?;
    tiff_samples::check(&mut decoder, name)?;
    let colour = match decoder.colortype() {
        Ok(ColorType::YCbCr(8)) => ColorType::YCbCr(8),
        Ok(ColorType::Gray(bits @ (1 | 2 | 4 | 8))) if is_palette => ColorType::Gray(bits),
        Ok(ColorType::Multiband {
            bit_depth: 8 | 16,
            num_samples: 2,
        }) if !is_palette => return grey_with_alpha(&mut decoder, name).map(Some),
        _ => return Ok(None),
    };
    let (width, height, orientation) = header(&mut decoder, name)?;
    check_size(width as usize, height as usize, name)?;
    check_memory(width as usize, height as usize, 4, name)?;
    let palette = match colour {
        ColorType::Gray(_) => Some(decoder.get_tag_u16_vec(Tag::ColorMap).map_err(refuse)?),
        _ => None,
    };
    let DecodingResult::U8(samples) = decoder.read_image().map_err(refuse)? else {
        return Err(ImageError::UnsupportedVariety {
            path: name.into(),
            reason: "TIFF with samples of other than 8 unsigned bits in YCbCr or with a palette is not supported".into(),
        });
    };
    let pixels = match (colour, palette) {
        (ColorType::Gray(bits), Some(palette)) => {
            let indices = unpack(&samples, bits, width as usize, height as usize);
            colours(&indices, &palette).ok_or_else(|| {
                corrupt(name, "a pixel has an index beyond the end of the palette")
            })?
        }
        _ => samples
            .as_chunks::<3>()
            .0
            .iter()
            .copied()
            .flat_map(rgb_of)
            .collect(),
    };
    let decoded = RgbImage::from_raw(width, height, pixels)
        .ok_or_else(|| corrupt(name, "the TIFF has fewer pixels than its header states"))?;
    let mut decoded = DynamicImage::from(decoded);
    decoded.apply_orientation(orientation);
    Ok(Some(decoded))
}

/// Decodes the grey samples of an image with alpha, which is dropped as in every other format.
fn grey_with_alpha<R: BufRead + Seek>(
    decoder: &mut Decoder<R>,
    name: &Path,
) -> Result<DynamicImage, ImageError> {
    let (width, height, orientation) = header(decoder, name)?;
    check_size(width as usize, height as usize, name)?;
    check_memory(width as usize, height as usize, 4, name)?;
    let planes = decoder.find_tag_unsigned::<u16>(Tag::PlanarConfiguration);
    let separate = planes.ok().flatten() == Some(PlanarConfiguration::Planar.to_u16());
    let samples = decoder.read_image();
    let decoded = match samples.map_err(|error| refusal(error, name))? {
        DecodingResult::U8(samples) => {
            GrayImage::from_raw(width, height, first_of_two(samples, separate))
                .map(DynamicImage::from)
        }
        DecodingResult::U16(samples) => {
            ImageBuffer::<Luma<u16>, _>::from_raw(width, height, first_of_two(samples, separate))
                .map(DynamicImage::from)
        }
        _ => {
            return Err(ImageError::UnsupportedVariety {
                path: name.into(),
                reason:
                    "TIFF with grey and alpha in other than 8 or 16 unsigned bits is not supported"
                        .into(),
            });
        }
    };
    let mut decoded =
        decoded.ok_or_else(|| corrupt(name, "the TIFF has fewer pixels than its header states"))?;
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

/// Returns the samples of the first of two channels, which are interleaved, or separate planes.
fn first_of_two<T>(samples: Vec<T>, separate: bool) -> Vec<T> {
    if separate {
        return samples; // the first plane comes first, and a longer buffer is legal
    }
    samples.into_iter().step_by(2).collect()
}

/// Returns the file with a header that says that the samples are grey, so that the decoder returns them unchanged.
///
/// Without this, the decoder would convert palette indices and grey values that count from white. Other files are
/// returned unchanged.
pub(crate) fn as_stored(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut bytes = Cow::Borrowed(bytes);
    if let Some((place, PALETTE | WHITE_IS_ZERO)) = photometric_place(&bytes) {
        let value = if bytes.starts_with(b"II") {
            BLACK_IS_ZERO.to_le_bytes()
        } else {
            BLACK_IS_ZERO.to_be_bytes()
        };
        if let Some(target) = bytes.to_mut().get_mut(place..place + 2) {
            target.copy_from_slice(&value);
        }
    }
    bytes
}

/// Reads width, height, orientation and colour model from the header of a TIFF of any variety.
pub(crate) fn read_header(
    mut file: impl BufRead + Seek,
    name: &Path,
) -> Result<(usize, usize, Orientation, ColourModel), ImageError> {
    let page = tiff_pages::pages(&mut file).map_or(0, |pages| pages.index);
    file.rewind().map_err(|source| ImageError::Unreadable {
        path: name.into(),
        source,
    })?;
    let mut decoder = Decoder::new(file).map_err(|error| refusal(error, name))?;
    if page > 0 {
        let found = decoder.seek_to_image(page);
        found.map_err(|error| refusal(error, name))?;
    }
    let (width, height, orientation) = header(&mut decoder, name)?;
    let colours = match decoder.colortype() {
        Ok(
            ColorType::Gray(_) | ColorType::GrayA(_) | ColorType::Multiband { num_samples: 2, .. },
        ) => ColourModel::Grey,
        Ok(ColorType::CMYK(_) | ColorType::CMYKA(_)) => ColourModel::Cmyk,
        _ => ColourModel::Rgb,
    };
    Ok((width as usize, height as usize, orientation, colours))
}

fn header<R: BufRead + Seek>(
    decoder: &mut Decoder<R>,
    name: &Path,
) -> Result<(u32, u32, Orientation), ImageError> {
    let (width, height) = decoder.dimensions().map_err(|error| refusal(error, name))?;
    let orientation = decoder.find_tag_unsigned::<u8>(Tag::Orientation);
    let orientation = orientation.ok().flatten().and_then(Orientation::from_exif);
    Ok((
        width,
        height,
        orientation.unwrap_or(Orientation::NoTransforms),
    ))
}

/// Returns an error if the file ends within its JPEG data.
///
/// There the decoder would fill the rest with grey. For all other data it reports the missing bytes itself.
fn check_jpeg_parts<R: BufRead + Seek>(
    decoder: &mut Decoder<R>,
    length: u64,
    name: &Path,
) -> Result<(), ImageError> {
    let compression = decoder.find_tag_unsigned::<u16>(Tag::Compression);
    if compression.ok().flatten() != Some(CompressionMethod::ModernJPEG.to_u16()) {
        return Ok(());
    }
    for (offsets, counts) in [
        (Tag::StripOffsets, Tag::StripByteCounts),
        (Tag::TileOffsets, Tag::TileByteCounts),
    ] {
        let mut values = |tag| {
            let values = decoder.find_tag_unsigned_vec::<u64>(tag);
            values.ok().flatten().unwrap_or_default()
        };
        for (offset, count) in values(offsets).into_iter().zip(values(counts)) {
            if offset.saturating_add(count) > length {
                let reason = format!(
                    "the JPEG data of {count} bytes at position {offset} extend beyond the end of the file"
                );
                return Err(corrupt(name, reason));
            }
        }
    }
    Ok(())
}

pub(crate) fn refusal(error: TiffError, name: &Path) -> ImageError {
    match error {
        TiffError::UnsupportedError(reason) => ImageError::UnsupportedVariety {
            path: name.into(),
            reason: format!("TIFF: {reason}"),
        },
        other => corrupt(name, other),
    }
}

/// Returns the position and the value of the photometric interpretation in the first directory.
fn photometric_place(bytes: &[u8]) -> Option<(usize, u16)> {
    let little = bytes.starts_with(b"II");
    let number = |place: usize, length: usize| -> Option<usize> {
        let digits = bytes.get(place..place.checked_add(length)?)?;
        let join = |value: u64, digit: &u8| value << 8 | u64::from(*digit);
        let value = if little {
            digits.iter().rev().fold(0, join)
        } else {
            digits.iter().fold(0, join)
        };
        usize::try_from(value).ok()
    };
    // The structure is that of TIFF 6.0, section 2; in BigTIFF, offsets, counts and entries are wider.
    let (offset, count_length, entry_length, value_offset) = if is_big_tiff(bytes) {
        (number(8, 8)?, 8, 20, 12)
    } else {
        (number(4, 4)?, 2, 12, 8)
    };
    let count = number(offset, count_length)?;
    let first = offset.checked_add(count_length)?;
    let entries = bytes.get(first..)?.chunks_exact(entry_length).take(count);
    for (index, _) in entries.enumerate() {
        let entry = first + index * entry_length;
        if number(entry, 2)? == usize::from(PHOTOMETRIC) {
            let place = entry + value_offset;
            return Some((place, u16::try_from(number(place, 2)?).ok()?));
        }
    }
    None
}

/// Unpacks rows that are padded to whole bytes into one index per byte; the leftmost pixel has the highest bits.
fn unpack(samples: &[u8], bits: u8, width: usize, height: usize) -> Vec<u8> {
    if bits == 8 {
        return samples.to_vec();
    }
    let mask = (1 << bits) - 1;
    let row_bytes = (width * usize::from(bits)).div_ceil(8);
    let rows = samples.chunks_exact(row_bytes).take(height);
    rows.flat_map(|row| {
        let places = |byte: u8| {
            (0..8 / bits)
                .rev()
                .map(move |place| byte >> (place * bits) & mask)
        };
        row.iter().copied().flat_map(places).take(width)
    })
    .collect()
}

/// Looks up the colours of indices; `map` has all 16-bit values of red, then all of green, then all of blue.
fn colours(indices: &[u8], map: &[u16]) -> Option<Vec<u8>> {
    let size = map.len() / 3;
    let mut pixels = Vec::with_capacity(3 * indices.len());
    for &index in indices {
        let index = usize::from(index);
        if index >= size {
            return None;
        }
        for channel in 0..3 {
            pixels.push((map.get(channel * size + index)? >> 8) as u8);
        }
    }
    Some(pixels)
}

/// Converts 8-bit full-range YCbCr to RGB (JFIF 1.02, page 3).
fn rgb_of([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let y = f32::from(y);
    let (cb, cr) = (f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [
        y + 1.402 * cr,
        y - 0.344_136 * cb - 0.714_136 * cr,
        y + 1.772 * cb,
    ]
    .map(|value| value.round() as u8) // the cast saturates at 0 and 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_unpacked_row_by_row() {
        assert_eq!(
            unpack(&[0b1011_0000, 0b0100_0000], 1, 3, 2),
            [1, 0, 1, 0, 1, 0]
        );
        assert_eq!(
            unpack(&[0x1f, 0x20, 0x34, 0x50], 4, 3, 2),
            [1, 15, 2, 3, 4, 5]
        );
        assert_eq!(colours(&[1, 2], &[0, 256, 0, 512, 0, 65535]), None);
    }

    /// Returns a little-endian TIFF of 2×1 pixels of grey with alpha in one strip.
    fn grey_alpha(bits: u16, separate: u16, strip: &[u8]) -> Vec<u8> {
        const ENTRIES: u16 = 10;
        let strip_place = 8 + 2 + 12 * u32::from(ENTRIES) + 4;
        let mut bytes = b"II*\0\x08\0\0\0".to_vec();
        bytes.extend(ENTRIES.to_le_bytes());
        let bits_of_both = u32::from(bits) | u32::from(bits) << 16;
        for (tag, kind, count, value) in [
            (256_u16, 3_u16, 1_u32, 2_u32),   // width
            (257, 3, 1, 1),                   // height
            (258, 3, 2, bits_of_both),        // bits per sample
            (259, 3, 1, 1),                   // no compression
            (262, 3, 1, 1),                   // black is zero
            (273, 4, 1, strip_place),         // offset of the strip
            (277, 3, 1, 2),                   // samples per pixel
            (279, 4, 1, strip.len() as u32),  // bytes of the strip
            (284, 3, 1, u32::from(separate)), // planar configuration
            (338, 3, 1, 2),                   // the extra sample is alpha
        ] {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(count.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([0; 4]);
        bytes.extend(strip);
        bytes
    }

    #[test]
    fn grey_with_alpha_is_read_without_alpha() {
        let name = Path::new("la.tif");
        let decoded = |bytes: &[u8]| decode(bytes, name).unwrap().unwrap();
        let eight = decoded(&grey_alpha(8, 1, &[10, 255, 200, 0]));
        assert_eq!(eight.as_luma8().unwrap().as_raw(), &[10, 200]);
        let sixteen = decoded(&grey_alpha(16, 1, &[1, 2, 0, 0, 3, 4, 9, 9]));
        assert_eq!(sixteen.as_luma16().unwrap().as_raw(), &[0x201, 0x403]);
        assert!(decode(&grey_alpha(8, 1, &[10]), name).is_err());
    }

    #[test]
    fn ycbcr_is_converted_as_jfif_says() {
        assert_eq!(rgb_of([255, 128, 128]), [255; 3]);
        assert_eq!(rgb_of([76, 85, 255]), [254, 0, 0]);
        assert_eq!(rgb_of([0, 255, 0]), [0, 48, 225]);
    }

    #[test]
    fn damaged_directories_have_no_photometric_interpretation() {
        for bytes in [
            &b"II*\0"[..],
            b"II*\0\xFF\xFF\xFF\xFF",
            b"II*\0\x08\0\0\0\xFF\xFF",
            b"II+\0\x08\0\0\0\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
            b"MM\0*\0\0\0\x08\0\x01\x01\x06",
            b"",
        ] {
            assert_eq!(photometric_place(bytes), None);
        }
    }
}
