//! Recognises images of 16 bits per sample that use only the lower bits.
//!
//! Cameras, microscopes and satellites of 10, 12 or 14 bits often store their values unchanged in files of 16 bits. Of
//! 16 bits the upper 8 are read, as OpenCV does, so such an image is nearly black.

use std::fmt;

use image::DynamicImage;

/// Values of 16 bits that are all below this make an image nearly black.
const DARK: u16 = 4096;

/// The bits that the samples of an image of 16 bits use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedBits {
    /// The largest sample, 1 to 4095; alpha does not count.
    pub largest: u16,
}

impl UnusedBits {
    /// Returns the bits of an image that uses at most the lower 12 of 16; `None` for all other images, and black ones.
    pub(crate) fn of(image: &DynamicImage) -> Option<Self> {
        let largest = match image {
            DynamicImage::ImageLuma16(image) => largest(image.as_raw(), 1, 1),
            DynamicImage::ImageLumaA16(image) => largest(image.as_raw(), 2, 1),
            DynamicImage::ImageRgb16(image) => largest(image.as_raw(), 3, 3),
            DynamicImage::ImageRgba16(image) => largest(image.as_raw(), 4, 3),
            _ => return None,
        };
        (1..DARK).contains(&largest).then_some(Self { largest })
    }

    /// Returns the number of bits that the samples use, 1 to 12.
    pub fn used(self) -> u32 {
        u16::BITS - self.largest.leading_zeros()
    }

    /// Returns the factor that spreads the samples over 16 bits.
    pub fn factor(self) -> u32 {
        1 << (u16::BITS - self.used())
    }
}

impl fmt::Display for UnusedBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "16 bits per sample, but the largest value is {} ({} bits); the upper 8 bits are read, so the image is \
             nearly black",
            self.largest,
            self.used()
        )
    }
}

/// Returns the largest of the first `counted` of every `channels` samples.
fn largest(samples: &[u16], channels: usize, counted: usize) -> u16 {
    let pixels = samples.chunks_exact(channels);
    let counted = pixels.flat_map(|pixel| pixel.iter().take(counted));
    counted.copied().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Luma, LumaA, Rgb};

    use super::*;

    #[test]
    fn twelve_bits_in_sixteen_are_recognised() {
        let grey =
            |value: u16| UnusedBits::of(&ImageBuffer::from_pixel(2, 1, Luma([value])).into());
        assert_eq!(
            grey(4095).map(|bits| (bits.used(), bits.factor())),
            Some((12, 16))
        );
        assert_eq!(
            grey(255).map(|bits| (bits.used(), bits.factor())),
            Some((8, 256))
        );
        assert_eq!(grey(4096), None);
        assert_eq!(grey(0), None); // black with any number of bits
        let with_alpha = ImageBuffer::from_pixel(1, 1, LumaA([300_u16, 65_535]));
        assert_eq!(
            UnusedBits::of(&with_alpha.into()),
            Some(UnusedBits { largest: 300 })
        );
        let colour = ImageBuffer::from_pixel(1, 1, Rgb([1, 60_000_u16, 2]));
        assert_eq!(UnusedBits::of(&colour.into()), None);
        let eight_bits = image::RgbImage::from_pixel(1, 1, Rgb([1, 2, 3]));
        assert_eq!(UnusedBits::of(&eight_bits.into()), None);
    }
}
