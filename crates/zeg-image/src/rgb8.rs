//! Converts images of any bit depth and channels to 8-bit RGB.

use image::{DynamicImage, ImageBuffer, Pixel, RgbImage};

/// Converts an image to 8-bit RGB; of 16 bits the upper 8 are kept, as libpng does for OpenCV.
///
/// Alpha is dropped: a transparent pixel gets the colour that the file stores for it. This is the default of OpenCV and
/// thus of the reference pipelines.
pub(crate) fn to_rgb8(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma16(image) => upper_bytes(&image),
        DynamicImage::ImageLumaA16(image) => upper_bytes(&image),
        DynamicImage::ImageRgb16(image) => upper_bytes(&image),
        DynamicImage::ImageRgba16(image) => upper_bytes(&image),
        other => other.into_rgb8(),
    }
}

fn upper_bytes<P: Pixel<Subpixel = u16>>(image: &ImageBuffer<P, Vec<u16>>) -> RgbImage {
    let mut rgb = RgbImage::new(image.width(), image.height());
    for (target, source) in rgb.pixels_mut().zip(image.pixels()) {
        target.0 = source.to_rgb().0.map(|value| (value >> 8) as u8);
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{LumaA, Rgb, Rgba};

    #[test]
    fn the_upper_bits_are_kept_and_alpha_is_dropped() {
        let deep = ImageBuffer::from_pixel(1, 1, Rgba([0x80ff_u16, 0, 0xffff, 0]));
        assert_eq!(to_rgb8(deep.into()).as_raw(), &[128, 0, 255]);
        let grey = ImageBuffer::from_pixel(1, 1, LumaA([0x1234_u16, 7]));
        assert_eq!(to_rgb8(grey.into()).as_raw(), &[0x12; 3]);
        let half = ImageBuffer::from_pixel(1, 1, LumaA([100_u8, 128]));
        assert_eq!(to_rgb8(half.into()).as_raw(), &[100; 3]);
        let opaque = RgbImage::from_pixel(1, 1, Rgb([1, 2, 3]));
        assert_eq!(to_rgb8(opaque.into()).as_raw(), &[1, 2, 3]);
    }
}
