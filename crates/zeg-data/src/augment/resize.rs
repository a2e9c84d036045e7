//! Random resizing that keeps the aspect ratio of the image.

use rand_chacha::ChaCha8Rng;
use zeg_image::{LabelMap, RgbImage, fit_box, resize_bilinear, resize_nearest};

use crate::chance::{below, uniform};

/// Random resize into a box of random size (mmsegmentation's `Resize` with `ratio_range` and `keep_ratio`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resize {
    /// Long and short side of the box at ratio 1.
    pub base_scale: (usize, usize),
    /// Lower and upper bound of the ratio by which both sides of the box are multiplied.
    pub ratio: (f64, f64),
}

impl Resize {
    /// Draws the size, at least 1×1, to which an image of `width`×`height` is resized.
    pub fn draw(&self, width: usize, height: usize, rng: &mut ChaCha8Rng) -> (usize, usize) {
        let ratio = uniform(rng, self.ratio.0, self.ratio.1);
        let scaled = |side: usize| (side as f64 * ratio) as usize;
        let (long, short) = (scaled(self.base_scale.0), scaled(self.base_scale.1));
        let (width, height) = fit_box(width, height, long, short);
        // The short side of a very long, thin image would become 0.
        (width.max(1), height.max(1))
    }

    /// Resizes image and labels to one random size.
    pub fn apply(
        &self,
        image: &RgbImage,
        labels: &LabelMap,
        rng: &mut ChaCha8Rng,
    ) -> (RgbImage, LabelMap) {
        let (width, height) = self.draw(labels.width(), labels.height(), rng);
        resize_pair(image, labels, width, height)
    }
}

/// Random resize to a short side from a list (detectron2's `ResizeShortestEdge` with `choice`).
///
/// Deviation: detectron2 resizes with Pillow, which averages over all covered pixels when it shrinks an image; here the
/// resize is bilinear as everywhere else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShortSide {
    /// Base length in pixels, of which the list's entries are tenths.
    pub base: usize,
    /// First and last entry of the list, in tenths of the base.
    pub tenths: (usize, usize),
    /// Largest long side in pixels; an image that would be longer is scaled down to it.
    pub longest: usize,
}

impl ShortSide {
    /// Draws the size, at least 1×1, to which an image of `width`×`height` is resized.
    pub fn draw(&self, width: usize, height: usize, rng: &mut ChaCha8Rng) -> (usize, usize) {
        let (low, high) = self.tenths;
        let tenths = low + below(rng, high - low + 1);
        let short = (tenths as f64 * 0.1 * self.base as f64) as usize;
        let (w, h) = (width.max(1) as f64, height.max(1) as f64);
        let scale = (short as f64 / w.min(h)).min(self.longest as f64 / w.max(h));
        let scaled = |side: f64| ((side * scale + 0.5) as usize).max(1);
        (scaled(w), scaled(h))
    }

    /// Resizes image and labels to one random size.
    pub fn apply(
        &self,
        image: &RgbImage,
        labels: &LabelMap,
        rng: &mut ChaCha8Rng,
    ) -> (RgbImage, LabelMap) {
        let (width, height) = self.draw(labels.width(), labels.height(), rng);
        resize_pair(image, labels, width, height)
    }
}

/// Resizes an image bilinearly, and its labels with nearest neighbour so that no new values appear.
pub fn resize_pair(
    image: &RgbImage,
    labels: &LabelMap,
    width: usize,
    height: usize,
) -> (RgbImage, LabelMap) {
    (
        resize_bilinear(image, width, height),
        resize_nearest(labels, width, height),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Purpose, stream};

    #[test]
    fn sizes_keep_the_ratio_and_spread_over_the_range() {
        let resize = Resize {
            base_scale: (2048, 512),
            ratio: (0.5, 2.0),
        };
        let mut rng = stream(3, Purpose::Sample, 0);
        let sizes: Vec<(usize, usize)> =
            (0..1000).map(|_| resize.draw(500, 375, &mut rng)).collect();
        for &(width, height) in &sizes {
            assert!((256..=1024).contains(&height));
            assert!((width as f64 * 0.75 - height as f64).abs() <= 1.0);
        }
        let mean = sizes.iter().map(|size| size.1 as f64).sum::<f64>() / sizes.len() as f64;
        assert!(
            (mean - 640.0).abs() < 25.0,
            "512 · 1.25 expected, {mean} found"
        );
        assert!(sizes.iter().any(|size| size.1 < 280));
        assert!(sizes.iter().any(|size| size.1 > 1000));
    }

    #[test]
    fn short_sides_come_from_the_list_and_long_ones_are_limited() {
        let resize = ShortSide {
            base: 512,
            tenths: (5, 20),
            longest: 2048,
        };
        let mut rng = stream(4, Purpose::Sample, 0);
        let list: Vec<usize> = (5..=20)
            .map(|k| (f64::from(k) * 0.1 * 512.0) as usize)
            .collect();
        let mut drawn: Vec<usize> = (0..500)
            .map(|_| resize.draw(500, 375, &mut rng).1)
            .collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, list);
        for _ in 0..100 {
            let (width, height) = resize.draw(1000, 100, &mut rng);
            assert!(width <= 2048 && (width as f64 / 10.0 - height as f64).abs() <= 1.0);
        }
    }

    #[test]
    fn a_thin_line_keeps_one_pixel() {
        let resize = Resize {
            base_scale: (64, 16),
            ratio: (1.0, 1.0),
        };
        let mut rng = stream(3, Purpose::Sample, 0);
        assert_eq!(resize.draw(10_000, 1, &mut rng), (64, 1));
    }
}
