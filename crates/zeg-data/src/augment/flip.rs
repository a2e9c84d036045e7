//! Random horizontal flip.

use rand_chacha::ChaCha8Rng;
use zeg_image::{LabelMap, RgbImage};

use crate::chance::happens;

/// Random horizontal flip (mmsegmentation's `RandomFlip`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Flip {
    /// Probability of a flip.
    pub(crate) probability: f64,
}

impl Flip {
    /// Flips image and labels in place with the probability, both or neither.
    pub(crate) fn apply(self, image: &mut RgbImage, labels: &mut LabelMap, rng: &mut ChaCha8Rng) {
        if happens(rng, self.probability) {
            mirror(image, labels);
        }
    }
}

/// Flips image and labels horizontally, in place.
pub(crate) fn mirror(image: &mut RgbImage, labels: &mut LabelMap) {
    let stride = (3 * image.width() as usize).max(1);
    for row in image.chunks_exact_mut(stride) {
        let (pixels, _) = row.as_chunks_mut::<3>();
        pixels.reverse();
    }
    let width = labels.width().max(1);
    for row in labels.labels_mut().chunks_exact_mut(width) {
        row.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_reversed_and_channels_keep_their_order() {
        let mut image = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, 10 + y as u8, 20]));
        let mut labels = LabelMap::new(3, 2, vec![0, 1, 2, 3, 4, 5]).unwrap();
        mirror(&mut image, &mut labels);
        assert_eq!(labels.labels(), [2, 1, 0, 5, 4, 3]);
        assert_eq!(image.get_pixel(0, 1).0, [2, 11, 20]);
        assert_eq!(image.get_pixel(2, 0).0, [0, 10, 20]);
    }
}
