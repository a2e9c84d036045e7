//! Normalises RGB bytes to the floats that an image encoder takes.
//!
//! Every value becomes `(value − mean) / std` with the statistics of its channel, and the layout changes from
//! `[height, width, 3]` to `[3, height, width]`. Statistics are in units of 0..=255, as in the reference pipelines.

use crate::RgbImage;

/// Mean and standard deviation of each channel, in RGB order and units of 0..=255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalization {
    /// Mean of each channel.
    pub mean: [f32; 3],
    /// Standard deviation of each channel; an element of 0 gives infinite or undefined values.
    pub std: [f32; 3],
}

impl Normalization {
    /// The statistics of ImageNet.
    ///
    /// ZegCLIP and CLIP-RC were trained with these (`img_norm_cfg` of their configs), although they start from CLIP's
    /// image encoder.
    pub const IMAGENET: Self = Self {
        mean: [123.675, 116.28, 103.53],
        std: [58.395, 57.12, 57.375],
    };

    /// The statistics that CLIP was trained with (`_transform` in its release, there in units of 0..=1).
    pub const CLIP: Self = Self {
        mean: in_bytes([0.48145466, 0.4578275, 0.40821073]),
        std: in_bytes([0.26862954, 0.26130258, 0.27577711]),
    };

    /// Normalises `image`, `[height, width, 3]` bytes, to `[3, height, width]` floats.
    pub fn to_chw(&self, image: &RgbImage) -> Vec<f32> {
        self.to_chw_padded(image, image.width() as usize, image.height() as usize)
    }

    /// Normalises `image` into the top left of `[3, height, width]` floats.
    ///
    /// The rest, at the right and at the bottom, is padded with 0. Padding is added after normalisation, so it
    /// corresponds to the mean colour, not to black. Pixels outside of `width`×`height` are dropped.
    pub fn to_chw_padded(&self, image: &RgbImage, width: usize, height: usize) -> Vec<f32> {
        let image_width = image.width() as usize;
        let mut planes = vec![0.0; 3 * width * height]; // [3, height, width]
        if image_width == 0 || planes.is_empty() {
            return planes;
        }
        for (channel, plane) in planes.chunks_exact_mut(width * height).enumerate() {
            let table = self.table(channel);
            let rows = image.as_raw().chunks_exact(image_width * 3);
            for (row, target) in rows.zip(plane.chunks_exact_mut(width)) {
                for (pixel, value) in row.chunks_exact(3).zip(target) {
                    *value = table[usize::from(pixel[channel])];
                }
            }
        }
        planes
    }

    /// Returns the normalised value of each of the 256 bytes in one channel, which saves a division per pixel.
    ///
    /// The arithmetic is in `f32`, because a wider type would differ from the reference in the last bit.
    fn table(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|byte| (byte as f32 - self.mean[channel]) / self.std[channel])
    }
}

/// Converts statistics in units of 0..=1 to units of 0..=255.
const fn in_bytes([red, green, blue]: [f64; 3]) -> [f32; 3] {
    [
        (red * 255.0) as f32,
        (green * 255.0) as f32,
        (blue * 255.0) as f32,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_become_planes() {
        let unit = Normalization {
            mean: [0.0, 10.0, 20.0],
            std: [1.0, 2.0, 4.0],
        };
        let image = RgbImage::from_raw(2, 1, vec![1, 12, 24, 3, 14, 28]).unwrap();
        assert_eq!(unit.to_chw(&image), [1.0, 3.0, 1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn padding_is_zero_at_the_right_and_the_bottom() {
        let unit = Normalization {
            mean: [5.0; 3],
            std: [1.0; 3],
        };
        let image = RgbImage::from_pixel(1, 1, image::Rgb([6, 7, 8]));
        let padded = unit.to_chw_padded(&image, 2, 2);
        assert_eq!(padded, [1., 0., 0., 0., 2., 0., 0., 0., 3., 0., 0., 0.]);
    }

    #[test]
    fn a_larger_image_is_cropped() {
        let image = RgbImage::from_pixel(3, 3, image::Rgb([255; 3]));
        assert_eq!(Normalization::CLIP.to_chw_padded(&image, 2, 1).len(), 6);
        assert!(Normalization::CLIP.to_chw_padded(&image, 0, 1).is_empty());
        assert!(Normalization::CLIP.to_chw(&RgbImage::new(0, 0)).is_empty());
    }
}
