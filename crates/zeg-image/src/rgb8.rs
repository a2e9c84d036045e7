//! The step from any depth and channels to RGB of 8 bits.

use image::{DynamicImage, ImageBuffer, Pixel, RgbImage};

/// Reduces to RGB of 8 bits; 16 bits are cut to their upper 8, as libpng does it for OpenCV.
///
/// Alpha is dropped: a transparent pixel shows the colour that the file stores for it. This is what OpenCV does by
/// default, and with it the reference pipelines.
pub(crate) fn to_rgb8(image: DynamicImage) -> RgbImage {
    match image {
        DynamicImage::ImageRgb8(image) => image,
        DynamicImage::ImageLuma16(image) => cut(&image),
        DynamicImage::ImageLumaA16(image) => cut(&image),
        DynamicImage::ImageRgb16(image) => cut(&image),
        DynamicImage::ImageRgba16(image) => cut(&image),
        other => other.into_rgb8(),
    }
}

fn cut<P: Pixel<Subpixel = u16>>(image: &ImageBuffer<P, Vec<u16>>) -> RgbImage {
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
    fn depth_is_cut_and_alpha_dropped() {
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
