//! Decoding: the bytes of a file to RGB pixels, or to class indices.
//!
//! Images follow OpenCV's `imread` with its default flags, since the reference pipeline reads with it:
//! three channels of 8 bits, grey repeated, alpha dropped, 16 bits cut to the
//! upper 8, the EXIF orientation applied. The one difference is on purpose: a damaged or cut-off file is an error,
//! where OpenCV returns an image that is grey from the damage on. `tests/formats.rs` compares every variety.
//!
//! Label maps are read as the indices the file stores; a palette only says how a viewer shows them.
//!
//! Memory is bounded by the size of the file where its format bounds it (JPEG, PNG, GIF, PNM, QOI), and by
//! [`MAX_PIXELS`] in any case.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::error::ImageError as DecoderError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::rgb8::to_rgb8;
use crate::{
    ImageError, LabelMap, RgbImage, jpeg, label_png, label_tiff, png_chunks, source,
    tiff_varieties, webp_chunks,
};

/// Images with more pixels than this are refused before their memory is allocated (2²⁸: 16384×16384).
pub const MAX_PIXELS: usize = 1 << 28;

/// Bytes a decoder may allocate beside the pixels.
const DECODER_BYTES: u64 = 1 << 26;
/// Bytes of the deepest pixel that is decoded: four channels of 32 bits.
const DEEPEST_PIXEL: u64 = 16;

/// Reads a JPEG, PNG, WebP, TIFF, BMP, GIF, PNM or QOI image (its first frame) as RGB, upright, alpha dropped.
///
/// The format is recognised by the file's content, whatever its name says.
///
/// # Errors
/// [`ImageError::Unreadable`], [`ImageError::NotRegular`], [`ImageError::FileTooLarge`],
/// [`ImageError::UnsupportedFormat`], [`ImageError::UnsupportedVariety`], [`ImageError::Corrupt`] for damaged and
/// cut-off files, [`ImageError::TooLarge`], [`ImageError::ZeroSize`].
pub fn decode_rgb(path: &Path) -> Result<RgbImage, ImageError> {
    let (bytes, format) = source::read(path)?;
    Ok(to_rgb8(decode(&bytes, format, path)?))
}

/// Decodes the content of an image file; `name` is only used in errors. See [`decode_rgb`].
pub fn decode_rgb_bytes(bytes: &[u8], name: &Path) -> Result<RgbImage, ImageError> {
    let format = source::recognise(bytes, name)?;
    Ok(to_rgb8(decode(bytes, format, name)?))
}

/// Reads a label PNG or TIFF as raw indices, one `u16` a pixel, exactly as the file stores them.
///
/// Accepted are palette images (the palette is not looked at) of 1, 2, 4 and 8 bits in PNG and 8 bits in TIFF, and
/// grey images of 8 and 16 bits. Values keep their numbers: 255 stays 255, and what it means is up to the data set.
///
/// # Errors
/// Those of [`decode_rgb`], [`ImageError::LabelsInColour`] for RGB and alpha, [`ImageError::LabelBitDepth`]
/// for grey of fewer than 8 bits, and [`ImageError::LabelsNotPng`] for any other format.
pub fn decode_labels(path: &Path) -> Result<LabelMap, ImageError> {
    let (bytes, _) = source::read(path)?;
    decode_labels_bytes(&bytes, path)
}

/// Decodes the content of a label PNG or TIFF; `name` is only used in errors. See [`decode_labels`].
///
/// # Errors
/// As [`decode_labels`].
pub fn decode_labels_bytes(bytes: &[u8], name: &Path) -> Result<LabelMap, ImageError> {
    match source::recognise(bytes, name)? {
        ImageFormat::Png => guarded(name, || label_png::decode(bytes, name)),
        ImageFormat::Tiff => guarded(name, || label_tiff::decode(bytes, name)),
        _ => Err(ImageError::LabelsNotPng { path: name.into() }),
    }
}

/// Decodes at the file's own depth and channels, upright.
fn decode(bytes: &[u8], format: ImageFormat, name: &Path) -> Result<DynamicImage, ImageError> {
    guarded(name, || match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, name),
        ImageFormat::Tiff => match tiff_varieties::decode(bytes, name)? {
            Some(decoded) => Ok(decoded),
            None => decode_other(bytes, format, name),
        },
        other => decode_other(bytes, other, name),
    })
}

/// Runs a decoder and makes its panic an error.
///
/// Fuzzing found one decoder that panics on damaged files. That one is kept from it ([`png_chunks::check_palette`]); the
/// next one shall not take a run over thousands of images with it. Nothing outlives a decoder that panicked.
pub(crate) fn guarded<T>(
    name: &Path,
    decoder: impl FnOnce() -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(decoder))
        .unwrap_or_else(|_| Err(corrupt(name, "the decoder gave up on it")))
}

/// Decodes everything that has no module of its own here.
fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    name: &Path,
) -> Result<DynamicImage, ImageError> {
    let refuse = |error: DecoderError| refusal(error, name);
    if format == ImageFormat::Png {
        // The PNG decoder allocates a row as soon as it knows the size; the size is checked before that.
        label_png::check_header(bytes, name)?;
        png_chunks::check_palette(bytes, name)?;
    }
    if format == ImageFormat::WebP {
        webp_chunks::check(&mut Cursor::new(bytes), name)?;
    }
    let mut limits = Limits::default();
    // The PNG decoder counts its rows, colour profiles and texts against this, others the pixels as well.
    limits.max_alloc = Some(match format {
        ImageFormat::Png => DECODER_BYTES,
        _ => DECODER_BYTES + 8 * MAX_PIXELS as u64,
    });
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize, name)?;
    if format == ImageFormat::Tiff {
        // The longest tag may take what is left of this beside the pixels.
        let mut limits = Limits::default();
        let pixels = u64::from(width) * u64::from(height);
        limits.max_alloc = Some(DECODER_BYTES + DEEPEST_PIXEL * pixels);
        decoder.set_limits(limits).map_err(refuse)?;
    }
    if let Some(most) = most_pixels_a_byte(format) {
        check_plausible(width as usize, height as usize, most, bytes.len(), name)?;
    }
    let orientation = orientation(&mut decoder, format, || png_chunks::exif(bytes));
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(refuse)?;
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

/// How an image is to be turned; a note that cannot be read is no reason to refuse the image.
pub(crate) fn orientation(
    decoder: &mut impl ImageDecoder,
    format: ImageFormat,
    png_exif: impl FnOnce() -> Option<Vec<u8>>,
) -> Orientation {
    let noted = match format {
        // The decoder sees only what stands before the pixels.
        ImageFormat::Png => png_exif().and_then(|exif| Orientation::from_exif_chunk(&exif)),
        _ => decoder.orientation().ok(),
    };
    noted.unwrap_or(Orientation::NoTransforms)
}

/// A decoder's error as ours.
pub(crate) fn refusal(error: DecoderError, name: &Path) -> ImageError {
    match error {
        DecoderError::Unsupported(reason) => ImageError::UnsupportedVariety {
            path: name.into(),
            reason: reason.to_string(),
        },
        other => corrupt(name, &other),
    }
}

/// Pixels that one byte of a file can hold at most, generously; `None` where the format sets no bound.
fn most_pixels_a_byte(format: ImageFormat) -> Option<usize> {
    match format {
        // A code of at most 12 bits stands for at most 4096 pixels.
        ImageFormat::Gif => Some(8192),
        // A run of 62 pixels is a byte.
        ImageFormat::Qoi => Some(64),
        // A bitmap has 8 pixels in a byte.
        ImageFormat::Pnm => Some(8),
        _ => None,
    }
}

/// Refuses a file that is too short for the size it states, before anything of that size is allocated.
pub(crate) fn check_plausible(
    width: usize,
    height: usize,
    most_a_byte: usize,
    bytes: usize,
    name: &Path,
) -> Result<(), ImageError> {
    if width.saturating_mul(height) > bytes.saturating_mul(most_a_byte) {
        let reason = format!("{bytes} bytes cannot hold {width}×{height} pixels");
        return Err(corrupt(name, reason));
    }
    Ok(())
}

/// Refuses images without pixels and those with more than [`MAX_PIXELS`].
pub(crate) fn check_size(width: usize, height: usize, name: &Path) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::ZeroSize {
            path: name.into(),
            width,
            height,
        });
    }
    if width.saturating_mul(height) > MAX_PIXELS {
        return Err(ImageError::TooLarge {
            path: name.into(),
            width,
            height,
            limit: MAX_PIXELS,
        });
    }
    Ok(())
}

/// The error of a damaged file.
pub(crate) fn corrupt(name: &Path, reason: impl ToString) -> ImageError {
    ImageError::Corrupt {
        path: name.into(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_decoder_is_an_error() {
        let result: Result<(), _> = guarded(Path::new("x.png"), || panic!("index out of range"));
        assert_eq!(
            result.unwrap_err().to_string(),
            "x.png: corrupt or cut-off image: the decoder gave up on it"
        );
    }
}
