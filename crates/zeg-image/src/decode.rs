//! Decoding: the bytes of a file to RGB pixels, or to class indices.
//!
//! Pictures follow OpenCV's `imread` with its default flags, since the reference pipeline reads with it:
//! three channels of 8 bits, grey repeated, alpha dropped, 16 bits cut to the upper 8, the EXIF orientation
//! applied. The one difference is on purpose: a damaged or cut-off file is an error, where OpenCV returns a
//! picture that is grey from the damage on.
//!
//! Label maps are read as the indices the file stores; a palette only says how a viewer shows them.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::error::ImageError as DecoderError;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Pixel, Rgb};

use crate::{ImageError, LabelMap, RgbImage, jpeg, label_png};

/// Pictures with more pixels than this are refused before their memory is allocated (2²⁸: 16384×16384).
pub const MAX_PIXELS: usize = 1 << 28;

/// Bytes a decoder may allocate; [`MAX_PIXELS`] of 8-bit RGBA fit with room for its own buffers.
const MAX_DECODER_BYTES: u64 = 8 * MAX_PIXELS as u64;

/// Reads a JPEG, PNG, WebP, BMP, TIFF or GIF picture (its first frame) as RGB, upright.
///
/// The format is recognised by the file's content, whatever its name says.
///
/// # Errors
/// [`ImageError::Unreadable`], [`ImageError::UnsupportedFormat`], [`ImageError::UnsupportedVariety`],
/// [`ImageError::Corrupt`] for damaged and cut-off files, [`ImageError::TooLarge`], [`ImageError::ZeroSize`].
pub fn decode_rgb(path: &Path) -> Result<RgbImage, ImageError> {
    decode_rgb_bytes(&read(path)?, path)
}

/// Decodes the content of a picture file; `name` is only used in errors. See [`decode_rgb`].
pub fn decode_rgb_bytes(bytes: &[u8], name: &Path) -> Result<RgbImage, ImageError> {
    let format = recognise(bytes, name)?;
    let picture = match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, name)?,
        other => decode_other(bytes, other, name)?,
    };
    Ok(to_rgb8(picture))
}

/// Reads a label PNG as raw indices, one `u16` a pixel, exactly as the file stores them.
///
/// Accepted are palette images of 1, 2, 4 and 8 bits (the palette is not looked at) and grey images of 8
/// and 16 bits. Values keep their numbers: 255 stays 255, and what it means is up to the data set.
///
/// # Errors
/// Those of [`decode_rgb`], [`ImageError::LabelsInColour`] for RGB and alpha, [`ImageError::LabelBitDepth`]
/// for grey of fewer than 8 bits, and [`ImageError::LabelsNotPng`] for any other format.
pub fn decode_labels(path: &Path) -> Result<LabelMap, ImageError> {
    let bytes = read(path)?;
    match recognise(&bytes, path)? {
        ImageFormat::Png => label_png::decode(&bytes, path),
        _ => Err(ImageError::LabelsNotPng { path: path.into() }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(|source| ImageError::Unreadable {
        path: path.into(),
        source,
    })
}

/// The format the first bytes announce.
fn recognise(bytes: &[u8], name: &Path) -> Result<ImageFormat, ImageError> {
    match image::guess_format(bytes) {
        Ok(format) if format.reading_enabled() => Ok(format),
        _ if bytes.is_empty() => Err(corrupt(name, "the file is empty")),
        _ => Err(ImageError::UnsupportedFormat { path: name.into() }),
    }
}

/// Decodes everything but JPEG, at the file's own depth and channels.
fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    name: &Path,
) -> Result<DynamicImage, ImageError> {
    let refuse = |error: DecoderError| match error {
        DecoderError::Unsupported(reason) => ImageError::UnsupportedVariety {
            path: name.into(),
            reason: reason.to_string(),
        },
        other => corrupt(name, &other),
    };
    if format == ImageFormat::Png {
        // The PNG decoder allocates a row as soon as it knows the size; the size is checked before that.
        label_png::check_header(bytes, name)?;
    }
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refuse)?;
    let (width, height) = decoder.dimensions();
    check_size(width as usize, height as usize, name)?;
    let orientation = decoder.orientation().map_err(refuse)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(refuse)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Drops alpha and reduces to 8 bits.
fn to_rgb8(picture: DynamicImage) -> RgbImage {
    match picture {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageRgb16(_)
        | DynamicImage::ImageRgba16(_)
        | DynamicImage::ImageLuma16(_)
        | DynamicImage::ImageLumaA16(_) => {
            let deep = picture.into_rgb16();
            let mut image = RgbImage::new(deep.width(), deep.height());
            for (target, source) in image.pixels_mut().zip(deep.pixels()) {
                // Cut, not rounded: what libpng's `png_set_strip_16` does for OpenCV.
                *target = Rgb(source.to_rgb().0.map(|value| (value >> 8) as u8));
            }
            image
        }
        other => other.into_rgb8(),
    }
}

/// Refuses pictures without pixels and those with more than [`MAX_PIXELS`].
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
