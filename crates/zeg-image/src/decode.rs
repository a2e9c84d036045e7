//! Decodes image files to RGB pixels and label files to class indices.
//!
//! Images follow OpenCV's `imread` with its default flags, because the reference pipeline uses it: there are three
//! channels of 8 bits, grey is repeated, alpha is dropped, 16 bits are reduced to the upper 8, and the EXIF orientation
//! is applied. There is one deliberate difference: a damaged or truncated file is an error, while OpenCV returns an
//! image that is grey from the damage on. `tests/formats.rs` compares every variety.
//!
//! Label maps are read as the indices that the file stores; a palette only says how a viewer shows them.
//!
//! Memory is bounded by the size of the file for formats that allow it (JPEG, PNG, GIF, PNM, QOI), and by
//! [`MAX_PIXELS`] in any case.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use image::error::ImageError as DecoderError;
use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use zeg_base::memory;

use crate::rgb8::to_rgb8;
use crate::{
    ImageError, LabelMap, RgbImage, UnusedBits, float_samples, frames, jpeg, label_png, label_raw,
    label_tiff, png_chunks, source, tiff_pages, tiff_varieties, webp_chunks,
};

/// The largest number of pixels, 2²⁸ = 16384×16384; larger images are refused before memory is allocated for them.
pub const MAX_PIXELS: usize = 1 << 28;

/// Number of bytes that a decoder may allocate in addition to the pixels.
const DECODER_BYTES: u64 = 1 << 26;
/// Size in bytes of the largest pixel that is decoded: four channels of 32 bits.
const DEEPEST_PIXEL: u64 = 16;

/// Reads the first frame of a JPEG, PNG, WebP, TIFF, BMP, GIF, PNM or QOI image as upright RGB without alpha.
///
/// The format is recognised from the content of the file, not from its name. Of a TIFF, the first page that is neither
/// a thumbnail nor a mask is read.
///
/// # Errors
/// Returns [`ImageError::Unreadable`], [`ImageError::NotRegular`] or [`ImageError::FileTooLarge`] if the file cannot be
/// read; [`ImageError::UnsupportedFormat`] or [`ImageError::UnsupportedVariety`] if it cannot be decoded;
/// [`ImageError::Corrupt`] if it is damaged or truncated; [`ImageError::TooLarge`], [`ImageError::ZeroSize`] or
/// [`ImageError::Memory`] if its number of pixels is out of range; and [`ImageError::SampleRange`] or
/// [`ImageError::SampleNotFinite`] if it has floating-point samples that are not from 0 to 1.
pub fn decode_rgb(path: &Path) -> Result<RgbImage, ImageError> {
    Ok(decode_image(path)?.rgb)
}

/// Decodes the content of an image file as [`decode_rgb`] does; `name` is used in error messages only.
///
/// # Errors
/// Returns the errors of [`decode_rgb`], except for those of reading the file.
pub fn decode_rgb_bytes(bytes: &[u8], name: &Path) -> Result<RgbImage, ImageError> {
    Ok(decode_image_bytes(bytes, name)?.rgb)
}

/// An image with what is unusual about its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedImage {
    /// The pixels.
    pub rgb: RgbImage,
    /// The bits that the file uses, if it has 16 bits per sample and uses so few that the pixels are nearly black.
    pub unused_bits: Option<UnusedBits>,
    /// The number of pages or frames, if the file has several; the first one is decoded. Thumbnails and masks in a TIFF
    /// do not count.
    pub frames: Option<usize>,
}

/// Reads an image as [`decode_rgb`] does, and says whether it has unused bits or several frames.
///
/// # Errors
/// Returns the errors of [`decode_rgb`].
pub fn decode_image(path: &Path) -> Result<DecodedImage, ImageError> {
    let (bytes, format) = source::read(path)?;
    described(&bytes, format, path)
}

/// Decodes the content of an image file as [`decode_image`] does; `name` is used in error messages only.
///
/// # Errors
/// Returns the errors of [`decode_rgb`], except for those of reading the file.
pub fn decode_image_bytes(bytes: &[u8], name: &Path) -> Result<DecodedImage, ImageError> {
    let format = source::recognise(bytes, name)?;
    described(bytes, format, name)
}

fn described(bytes: &[u8], format: ImageFormat, name: &Path) -> Result<DecodedImage, ImageError> {
    let image = decode(bytes, format, name)?;
    Ok(DecodedImage {
        unused_bits: UnusedBits::of(&image),
        frames: frames::count(bytes, format),
        rgb: to_rgb8(image),
    })
}

/// Reads a label file as raw indices, one `u16` per pixel, exactly as the file stores them.
///
/// The file must be an indexed image (1, 2, 4 or 8 bits in PNG and BMP, 8 bits in TIFF), whose palette is ignored, a grey
/// PNG, TIFF or PGM of 8 or 16 bits, or a lossless WebP or a QOI with three equal channels. Values are unchanged: 255
/// stays 255, and its meaning depends on the data set.
///
/// # Errors
/// Returns the errors of [`decode_rgb`], [`ImageError::LabelsInColour`] if the image has colours or alpha,
/// [`ImageError::LabelBitDepth`] if it is grey with another number of bits, and [`ImageError::LabelsLossy`] if its
/// format changes values.
pub fn decode_labels(path: &Path) -> Result<LabelMap, ImageError> {
    let (bytes, _) = source::read(path)?;
    decode_labels_bytes(&bytes, path)
}

/// Decodes the content of a label file as [`decode_labels`] does; `name` is used in error messages only.
///
/// # Errors
/// Returns the errors of [`decode_labels`], except for those of reading the file.
pub fn decode_labels_bytes(bytes: &[u8], name: &Path) -> Result<LabelMap, ImageError> {
    match source::recognise(bytes, name)? {
        ImageFormat::Png => guarded(name, || label_png::decode(bytes, name)),
        ImageFormat::Tiff => guarded(name, || label_tiff::decode(bytes, name)),
        ImageFormat::Bmp => label_raw::decode_bmp(bytes, name),
        ImageFormat::Pnm => label_raw::decode_pnm(bytes, name),
        format @ (ImageFormat::WebP | ImageFormat::Qoi) => {
            label_raw::decode_equal_channels(bytes, format, name)
        }
        ImageFormat::Jpeg => Err(ImageError::LabelsLossy {
            path: name.into(),
            format: "JPEG",
        }),
        _ => Err(ImageError::UnsupportedVariety {
            path: name.into(),
            reason: "labels in this format are not read; save them as PNG".into(),
        }),
    }
}

/// Decodes an image with the bit depth and channels of the file, and turns it upright.
pub(crate) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &Path,
) -> Result<DynamicImage, ImageError> {
    let decoded = guarded(name, || match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, name),
        ImageFormat::Tiff => {
            let bytes = tiff_pages::with_main_page_first(bytes, name)?;
            match tiff_varieties::decode(&bytes, name)? {
                Some(decoded) => Ok(decoded),
                None => decode_other(&bytes, format, name),
            }
        }
        other => decode_other(bytes, other, name),
    })?;
    float_samples::check(&decoded, name)?;
    Ok(decoded)
}

/// Runs a decoder and turns a panic into an error.
///
/// Fuzzing found one decoder that panics on damaged files. A check prevents that panic
/// ([`png_chunks::check_palette`]), but an unknown one must not end a run over thousands of images. No state outlives a
/// decoder that panicked.
pub(crate) fn guarded<T>(
    name: &Path,
    decoder: impl FnOnce() -> Result<T, ImageError>,
) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(decoder))
        .unwrap_or_else(|_| Err(corrupt(name, "the decoder panicked")))
}

/// Decodes the formats and varieties that have no module of their own in this crate.
fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    name: &Path,
) -> Result<DynamicImage, ImageError> {
    let refuse = |error: DecoderError| refusal(error, name);
    if format == ImageFormat::Png {
        // The PNG decoder allocates a row as soon as it knows the size, so the size is checked before.
        label_png::check_header(bytes, name)?;
        png_chunks::check_palette(bytes, name)?;
    }
    if format == ImageFormat::WebP {
        webp_chunks::check(&mut Cursor::new(bytes), name)?;
    }
    let mut limits = Limits::default();
    // The PNG decoder counts its rows, colour profiles and texts against this limit; the others also count the pixels.
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
        // The limit covers the pixels and the longest tag.
        let mut limits = Limits::default();
        let pixels = u64::from(width) * u64::from(height);
        limits.max_alloc = Some(DECODER_BYTES + DEEPEST_PIXEL * pixels);
        decoder.set_limits(limits).map_err(refuse)?;
    }
    if let Some(most) = most_pixels_a_byte(format) {
        check_plausible(width as usize, height as usize, most, bytes.len(), name)?;
    }
    let colours = decoder.color_type();
    let rgb = if colours == ColorType::Rgb8 { 0 } else { 3 };
    let bytes_a_pixel = usize::from(colours.bytes_per_pixel()) + rgb;
    check_memory(width as usize, height as usize, bytes_a_pixel, name)?;
    let orientation = orientation(&mut decoder, format, || png_chunks::exif(bytes));
    let mut decoded = DynamicImage::from_decoder(decoder).map_err(refuse)?;
    decoded.apply_orientation(orientation);
    Ok(decoded)
}

/// Returns the EXIF orientation of an image; an unreadable one is ignored.
pub(crate) fn orientation(
    decoder: &mut impl ImageDecoder,
    format: ImageFormat,
    png_exif: impl FnOnce() -> Option<Vec<u8>>,
) -> Orientation {
    let noted = match format {
        // The PNG decoder sees only the chunks before the pixels.
        ImageFormat::Png => png_exif().and_then(|exif| Orientation::from_exif_chunk(&exif)),
        _ => decoder.orientation().ok(),
    };
    noted.unwrap_or(Orientation::NoTransforms)
}

/// Converts the error of a decoder.
pub(crate) fn refusal(error: DecoderError, name: &Path) -> ImageError {
    match error {
        DecoderError::Unsupported(reason) => ImageError::UnsupportedVariety {
            path: name.into(),
            reason: reason.to_string(),
        },
        other => corrupt(name, &other),
    }
}

/// Returns an upper bound on the number of pixels per byte of a file, or `None` if the format has no bound.
fn most_pixels_a_byte(format: ImageFormat) -> Option<usize> {
    match format {
        // A code takes at most 12 bits and stands for at most 4096 pixels.
        ImageFormat::Gif => Some(8192),
        // A run of up to 62 pixels takes one byte.
        ImageFormat::Qoi => Some(64),
        // A bitmap has 8 pixels per byte.
        ImageFormat::Pnm => Some(8),
        _ => None,
    }
}

/// Returns an error if the file is too short for the size that it states, before memory for it is allocated.
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

/// Returns an error if the image has no pixels or more than [`MAX_PIXELS`].
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

/// Returns an error if an image cannot be held in memory, before memory is allocated for it.
///
/// - `bytes_a_pixel`: length of a pixel as it is decoded, and of its 8-bit RGB if that is a copy
pub(crate) fn check_memory(
    width: usize,
    height: usize,
    bytes_a_pixel: usize,
    name: &Path,
) -> Result<(), ImageError> {
    let needed = memory::product(&[width, height, bytes_a_pixel]);
    memory::check(needed).map_err(|source| ImageError::Memory {
        path: name.into(),
        width,
        height,
        source,
    })
}

/// Returns the error for a damaged file.
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
            "x.png: corrupt or truncated image: the decoder panicked"
        );
    }

    #[test]
    fn an_image_that_memory_cannot_hold_is_refused_with_its_size() {
        let name = Path::new("x.png");
        assert!(check_memory(100, 100, 4, name).is_ok());
        let error = check_memory(usize::MAX, 2, 4, name)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("x.png: decoding "), "{error}");
        assert!(error.contains("this needs at least"), "{error}");
    }
}
