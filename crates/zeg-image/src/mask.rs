//! Decodes label files whose colours or brightness stand for classes, and refuses those whose labels would be lost.
//!
//! An image without alpha and with 8 bits per sample is what [`decode_rgb`](crate::decode_rgb) returns. For an image to
//! look at, dropping alpha and the lower 8 of 16 bits does little harm; of a mask, it may leave a single value.

use std::path::Path;

use image::{DynamicImage, RgbImage};

use crate::rgb8::to_rgb8;
use crate::{ImageError, decode, decode_labels_bytes, source};

/// The first bytes of a PNG, and the place and value of the colour type of one with a palette.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const PNG_COLOUR_TYPE: usize = 25;
const PNG_PALETTE: u8 = 3;

/// Reads a label file as RGB, like [`decode_rgb`](crate::decode_rgb).
///
/// # Errors
/// Returns the errors of [`decode_rgb`](crate::decode_rgb), [`ImageError::MaskInAlpha`] if only the alpha channel
/// distinguishes pixels, [`ImageError::MaskBelowUpperBits`] if all samples of 16 bits are 0 in their upper 8, and
/// [`ImageError::MaskInPalette`] if the palette of a PNG gives different values the same colour everywhere.
pub fn decode_mask(path: &Path) -> Result<RgbImage, ImageError> {
    let (bytes, _) = source::read(path)?;
    decode_mask_bytes(&bytes, path)
}

/// Decodes the content of a label file as [`decode_mask`] does; `name` is used in error messages only.
///
/// # Errors
/// Returns the errors of [`decode_mask`], except for those of reading the file.
pub fn decode_mask_bytes(bytes: &[u8], name: &Path) -> Result<RgbImage, ImageError> {
    let format = source::recognise(bytes, name)?;
    let image = decode::decode(bytes, format, name)?;
    if is_in_alpha(&image) {
        return Err(ImageError::MaskInAlpha { path: name.into() });
    }
    if let Some(largest @ 1..=255) = largest_of_16_bits(&image) {
        return Err(ImageError::MaskBelowUpperBits {
            path: name.into(),
            largest,
        });
    }
    let rgb = to_rgb8(image);
    if is_in_palette(bytes, &rgb, name) {
        return Err(ImageError::MaskInPalette { path: name.into() });
    }
    Ok(rgb)
}

/// Returns whether a PNG with a palette has different values, but one colour everywhere.
fn is_in_palette(bytes: &[u8], rgb: &RgbImage, name: &Path) -> bool {
    let has_palette = bytes.starts_with(PNG) && bytes.get(PNG_COLOUR_TYPE) == Some(&PNG_PALETTE);
    let pixels = rgb.as_raw().as_chunks::<3>().0;
    if !has_palette || pixels.iter().any(|pixel| Some(pixel) != pixels.first()) {
        return false;
    }
    let labels = decode_labels_bytes(bytes, name);
    labels.is_ok_and(|labels| {
        let values = labels.labels();
        values.iter().any(|value| Some(value) != values.first())
    })
}

/// Returns whether the colour is the same everywhere and alpha is not.
fn is_in_alpha(image: &DynamicImage) -> bool {
    let channels = usize::from(image.color().channel_count());
    let samples: Vec<u16> = match image {
        DynamicImage::ImageLumaA8(image) => image.iter().copied().map(u16::from).collect(),
        DynamicImage::ImageRgba8(image) => image.iter().copied().map(u16::from).collect(),
        DynamicImage::ImageLumaA16(image) => image.to_vec(),
        DynamicImage::ImageRgba16(image) => image.to_vec(),
        _ => return false,
    };
    let pixels = || samples.chunks_exact(channels);
    let first = pixels().next().and_then(|pixel| pixel.split_last());
    let Some((first_alpha, first_colour)) = first else {
        return false;
    };
    let differ = |pixel: &[u16]| {
        pixel
            .split_last()
            .map(|(a, c)| (a != first_alpha, c != first_colour))
    };
    let mut differs = (false, false);
    for (alpha, colour) in pixels().filter_map(differ) {
        differs = (differs.0 || alpha, differs.1 || colour);
    }
    differs == (true, false)
}

/// Returns the largest colour sample of an image of 16 bits.
fn largest_of_16_bits(image: &DynamicImage) -> Option<u16> {
    let colours = |samples: &[u16], channels: usize| {
        let pixels = samples.chunks_exact(channels);
        let alpha = usize::from(channels.is_multiple_of(2));
        let samples = pixels.flat_map(move |pixel| pixel.iter().take(channels - alpha));
        samples.copied().max()
    };
    match image {
        DynamicImage::ImageLuma16(image) => colours(image, 1),
        DynamicImage::ImageLumaA16(image) => colours(image, 2),
        DynamicImage::ImageRgb16(image) => colours(image, 3),
        DynamicImage::ImageRgba16(image) => colours(image, 4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageBuffer, ImageFormat, Luma, Rgb, Rgba};

    use super::*;
    use crate::{LabelMap, write_indexed_png};

    fn decode(image: impl Into<DynamicImage>) -> Result<RgbImage, ImageError> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
        decode_mask_bytes(bytes.get_ref(), Path::new("m.png"))
    }

    #[test]
    fn masks_in_the_alpha_channel_are_refused_and_not_read_as_empty() {
        for colour in [0, 255] {
            let mask = ImageBuffer::from_fn(4, 4, |x, _| {
                Rgba([colour, colour, colour, if x < 2 { 0 } else { 255_u8 }])
            });
            assert!(matches!(decode(mask), Err(ImageError::MaskInAlpha { .. })));
        }
        let opaque = ImageBuffer::from_pixel(4, 4, Rgba([0, 0, 0, 255_u8]));
        assert_eq!(decode(opaque).unwrap().get_pixel(0, 0), &Rgb([0; 3]));
        let cut_out = ImageBuffer::from_fn(4, 4, |x, _| Rgba([200 * (x as u8 / 2), 0, 0, x as u8]));
        assert_eq!(decode(cut_out).unwrap().get_pixel(3, 0), &Rgb([200, 0, 0]));
    }

    #[test]
    fn masks_with_a_palette_of_one_colour_are_refused_and_not_read_as_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.png");
        let map = LabelMap::new(4, 1, vec![0, 0, 1, 1]).unwrap();
        for (palette, is_refused) in [
            ([[0_u8; 3], [0; 3]], true),
            ([[255; 3], [255; 3]], true),
            ([[0; 3], [255; 3]], false),
        ] {
            write_indexed_png(&path, &map, &palette).unwrap();
            let decoded = decode_mask(&path);
            let refused = matches!(decoded, Err(ImageError::MaskInPalette { .. }));
            assert_eq!(refused, is_refused, "{palette:?}");
        }
        let empty = LabelMap::new(4, 1, vec![0; 4]).unwrap();
        write_indexed_png(&path, &empty, &[[0_u8; 3], [0; 3]]).unwrap();
        assert_eq!(decode_mask(&path).unwrap().get_pixel(0, 0), &Rgb([0; 3]));
    }

    #[test]
    fn masks_of_16_bits_with_small_values_are_refused_and_not_read_as_empty() {
        for largest in [1_u16, 255] {
            let mask = ImageBuffer::from_fn(4, 4, |x, _| Luma([if x < 2 { 0 } else { largest }]));
            let error = decode(mask).unwrap_err();
            assert!(
                matches!(error, ImageError::MaskBelowUpperBits { largest: l, .. } if l == largest),
                "{error}"
            );
        }
        for value in [0_u16, 65535] {
            let mask = ImageBuffer::from_pixel(4, 4, Luma([value]));
            let upper = (value >> 8) as u8;
            assert_eq!(decode(mask).unwrap().get_pixel(0, 0), &Rgb([upper; 3]));
        }
    }
}
