//! Random crop in which no single class covers nearly all pixels.

use rand_chacha::ChaCha8Rng;
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage};

use crate::chance::below;

/// Largest number of times that a crop is drawn again.
const REDRAWS: usize = 10;

/// Random square crop (mmsegmentation's `RandomCrop` with `cat_max_ratio`).
///
/// A position is drawn; while the crop holds fewer than two classes, or one class covers `max_category_ratio` of its
/// labelled pixels or more, another position is drawn. After ten redraws the last one is used in any case. Sides
/// shorter than `size` are not cropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CategoryLimitedCrop {
    /// Width and height of the crop.
    pub(crate) size: usize,
    /// The limit, as a share of the labelled pixels; at 1 the first position is used without counting classes.
    pub(crate) max_category_ratio: f64,
}

/// A rectangle of an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CropBox {
    /// Leftmost column.
    pub(crate) x: usize,
    /// Topmost row.
    pub(crate) y: usize,
    /// Number of columns.
    pub(crate) width: usize,
    /// Number of rows.
    pub(crate) height: usize,
}

impl CategoryLimitedCrop {
    /// Draws a crop for an image with these labels.
    pub(crate) fn draw(&self, labels: &LabelMap, rng: &mut ChaCha8Rng) -> CropBox {
        let mut crop = self.draw_anywhere(labels, rng);
        if self.max_category_ratio >= 1.0 {
            return crop;
        }
        let mut counts = Vec::new();
        for _ in 0..REDRAWS {
            if self.is_mixed(labels, crop, &mut counts) {
                break;
            }
            crop = self.draw_anywhere(labels, rng);
        }
        crop
    }

    /// Draws a crop and cuts it out of image and labels.
    pub(crate) fn apply(
        &self,
        image: &RgbImage,
        labels: &LabelMap,
        rng: &mut ChaCha8Rng,
    ) -> (RgbImage, LabelMap) {
        let crop = self.draw(labels, rng);
        (crop.of_image(image), crop.of_labels(labels))
    }

    fn draw_anywhere(&self, labels: &LabelMap, rng: &mut ChaCha8Rng) -> CropBox {
        // The vertical position is drawn first, as in mmsegmentation.
        let y = below(rng, labels.height().saturating_sub(self.size) + 1);
        let x = below(rng, labels.width().saturating_sub(self.size) + 1);
        CropBox {
            x,
            y,
            width: self.size.min(labels.width()),
            height: self.size.min(labels.height()),
        }
    }

    /// Returns whether the crop holds two classes or more and none of them covers too much.
    ///
    /// `counts` is a buffer that is reused; its content on entry does not matter.
    fn is_mixed(&self, labels: &LabelMap, crop: CropBox, counts: &mut Vec<u32>) -> bool {
        counts.clear();
        // Neighbouring pixels mostly share their class, so each run of equal labels is counted at once.
        let runs = crop.rows(labels).flat_map(|row| row.chunk_by(u16::eq));
        for run in runs {
            let class = usize::from(run[0]);
            if run[0] == IGNORE_LABEL {
                continue;
            }
            if class >= counts.len() {
                counts.resize(class + 1, 0);
            }
            counts[class] += run.len() as u32;
        }
        let classes = counts.iter().filter(|&&count| count > 0).count();
        let labelled: u32 = counts.iter().sum();
        let largest = counts.iter().copied().max().unwrap_or(0);
        classes > 1 && f64::from(largest) / f64::from(labelled) < self.max_category_ratio
    }
}

impl CropBox {
    /// Returns the rows of the crop; rows that are not completely inside the map are left out.
    fn rows(self, labels: &LabelMap) -> impl Iterator<Item = &[u16]> {
        labels
            .labels()
            .chunks_exact(labels.width().max(1))
            .skip(self.y)
            .take(self.height)
            .filter_map(move |row| row.get(self.x..self.x + self.width))
    }

    /// Cuts the crop out of a label map.
    pub(crate) fn of_labels(self, labels: &LabelMap) -> LabelMap {
        let mut part = LabelMap::filled(self.width, self.height, IGNORE_LABEL);
        let rows = part.labels_mut().chunks_exact_mut(self.width.max(1));
        for (target, source) in rows.zip(self.rows(labels)) {
            target.copy_from_slice(source);
        }
        part
    }

    /// Cuts the crop out of an image.
    pub(crate) fn of_image(self, image: &RgbImage) -> RgbImage {
        let mut part = RgbImage::new(self.width as u32, self.height as u32);
        let stride = 3 * image.width() as usize;
        let (from, to) = (3 * self.x, 3 * (self.x + self.width));
        let sources = image.chunks_exact(stride.max(1)).skip(self.y);
        let targets = part.chunks_exact_mut((3 * self.width).max(1));
        for (target, source) in targets.zip(sources) {
            if let Some(source) = source.get(from..to) {
                target.copy_from_slice(source);
            }
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Purpose, stream};
    use rand::Rng;

    const CROP: CategoryLimitedCrop = CategoryLimitedCrop {
        size: 8,
        max_category_ratio: 0.75,
    };

    /// 32×24 pixels: class 0, and class 1 from column `from` on.
    fn halves(from: usize) -> LabelMap {
        let labels = (0..32 * 24).map(|i| u16::from(i % 32 >= from)).collect();
        LabelMap::new(32, 24, labels).unwrap()
    }

    #[test]
    fn crops_stay_inside_and_reach_every_border() {
        let (labels, mut rng) = (halves(16), stream(1, Purpose::Sample, 0));
        let crops: Vec<CropBox> = (0..2000)
            .map(|_| CROP.draw_anywhere(&labels, &mut rng))
            .collect();
        for crop in &crops {
            assert_eq!((crop.width, crop.height), (8, 8));
            assert!(crop.x + crop.width <= 32 && crop.y + crop.height <= 24);
        }
        assert!(crops.iter().any(|crop| (crop.x, crop.y) == (0, 0)));
        assert!(crops.iter().any(|crop| crop.x == 24) && crops.iter().any(|crop| crop.y == 16));
    }

    #[test]
    fn one_class_does_not_cover_nearly_everything() {
        let labels = halves(16);
        let good = |crop: CropBox| (3..=5).contains(&(16_usize.saturating_sub(crop.x)));
        let count = |limit: f64| {
            let crop = CategoryLimitedCrop {
                max_category_ratio: limit,
                ..CROP
            };
            let mut rng = stream(2, Purpose::Sample, 0);
            (0..1000)
                .filter(|_| good(crop.draw(&labels, &mut rng)))
                .count()
        };
        // 3 of 25 positions are good: 12 % of single draws, and 1 − 0.88¹¹ = 75.5 % of eleven.
        assert!((90..150).contains(&count(1.0)), "{}", count(1.0));
        assert!((715..795).contains(&count(0.75)), "{}", count(0.75));
    }

    #[test]
    fn images_of_one_class_take_the_eleventh_draw() {
        let labels = LabelMap::filled(32, 24, 3);
        let (mut rng, mut expected) =
            (stream(4, Purpose::Sample, 0), stream(4, Purpose::Sample, 0));
        let crop = CROP.draw(&labels, &mut rng);
        let mut last = crop;
        for _ in 0..11 {
            last = CROP.draw_anywhere(&labels, &mut expected);
        }
        assert_eq!(crop, last);
        assert_eq!(rng.next_u64(), expected.next_u64());
    }

    #[test]
    fn ignored_pixels_do_not_count() {
        let mut labels = LabelMap::filled(8, 8, IGNORE_LABEL);
        let whole = CropBox {
            x: 0,
            y: 0,
            width: 8,
            height: 8,
        };
        let mut counts = Vec::new();
        assert!(!CROP.is_mixed(&labels, whole, &mut counts));
        labels.labels_mut()[..3].copy_from_slice(&[5, 5, 9]);
        assert!(CROP.is_mixed(&labels, whole, &mut counts));
        // Three of four pixels are not below the limit of 0.75.
        labels.labels_mut()[3] = 5;
        assert!(!CROP.is_mixed(&labels, whole, &mut counts));
    }

    #[test]
    fn small_images_are_not_cropped() {
        let labels = LabelMap::new(3, 2, vec![0, 1, 2, 3, 4, 5]).unwrap();
        let image = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, y as u8, 7]));
        let mut rng = stream(5, Purpose::Sample, 0);
        assert_eq!(CROP.apply(&image, &labels, &mut rng), (image, labels));
    }
}
