//! The regions of an image that CLIP classifies: masks of mask queries, their boxes, and the crops.
//!
//! Unlike ZegFormer's, a box ends after its last column and row, a mask without a pixel has no crop, and a crop is
//! resized bicubically from the pixels of the image without padding.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zeg_image::{RgbImage, normalize::Normalization};

use super::{bicubic, config::ZssegOptions};
use crate::{mask_transformer::masks::enlarge, scores::QueryMasks};

/// A box in pixels; right and bottom are exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionBox {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Column after the last one.
    pub right: usize,
    /// Row after the last one.
    pub bottom: usize,
}

/// The colour outside of a mask, before normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// CLIP's mean colour, which is 0 after normalisation.
    #[default]
    Mean,
    /// Black.
    Zero,
}

impl RegionBox {
    /// Returns the box of a mask `[height, width]`; `None` if no pixel is inside.
    pub fn of_mask(mask: &[bool], [_, width]: [usize; 2]) -> Option<Self> {
        let mut found: Option<Self> = None;
        for (y, row) in mask.chunks_exact(width.max(1)).enumerate() {
            let Some(first) = row.iter().position(|&inside| inside) else {
                continue;
            };
            let last = row.iter().rposition(|&inside| inside).unwrap_or(first);
            let before = found.unwrap_or(Self {
                left: first,
                top: y,
                right: last + 1,
                bottom: y + 1,
            });
            found = Some(Self {
                left: before.left.min(first),
                top: before.top,
                right: before.right.max(last + 1),
                bottom: y + 1,
            });
        }
        found
    }

    /// Returns the box with its sides multiplied, around the same centre and inside of an image of `[height, width]`.
    #[must_use]
    #[allow(clippy::float_cmp)] // exactly 1 means that boxes stay as they are
    pub fn expanded(self, factor: f64, [height, width]: [usize; 2]) -> Self {
        if factor == 1.0 {
            return self;
        }
        let along = |start: usize, end: usize, length: usize| {
            let (start, end) = (start as f64, end as f64);
            let (centre, half) = (f64::midpoint(start, end), (end - start) * factor / 2.0);
            let inside = |place: f64| (place.trunc().max(0.0) as usize).min(length);
            // A factor far below 1 would leave no pixel.
            let low = inside(centre - half).min(length.saturating_sub(1));
            (low, inside(centre + half).max(low + 1))
        };
        let (left, right) = along(self.left, self.right, width);
        let (top, bottom) = along(self.top, self.bottom, height);
        Self {
            left,
            top,
            right,
            bottom,
        }
    }

    /// Returns height and width.
    pub fn size(self) -> [usize; 2] {
        [self.bottom - self.top, self.right - self.left]
    }
}

/// The masks of all mask queries at the size of the image.
#[derive(Debug, Clone)]
pub struct RegionMasks {
    /// Probability of each pixel, `[queries]` masks of `[height, width]`.
    pub probabilities: Vec<Vec<f32>>,
    /// Pixels inside of each mask, `[queries]` masks of `[height, width]`.
    pub inside: Vec<Vec<bool>>,
    /// Height and width.
    pub size: [usize; 2],
}

impl RegionMasks {
    /// Resizes mask logits to the padded image, cuts them to the image and compares them with the threshold.
    ///
    /// - `padded`: height and width that the masks cover
    /// - `size`: height and width of the image, in the top left corner
    pub fn new(masks: &QueryMasks, padded: [usize; 2], size: [usize; 2], threshold: f32) -> Self {
        let queries = 0..masks.queries;
        let probabilities: Vec<Vec<f32>> = queries
            .into_par_iter()
            .map(|query| {
                let logits = enlarge(masks.of(query), masks.grid, padded);
                let rows = logits.chunks_exact(padded[1].max(1)).take(size[0]);
                let cut = rows.flat_map(|row| &row[..size[1].min(row.len())]);
                cut.map(|z| 1.0 / (1.0 + (-z).exp())).collect()
            })
            .collect();
        let inside = probabilities
            .iter()
            .map(|mask| mask.iter().map(|p| *p > threshold).collect())
            .collect();
        Self {
            probabilities,
            inside,
            size,
        }
    }

    /// Returns the queries whose masks have a pixel, in ascending order.
    pub fn valid(&self) -> Vec<usize> {
        let masks = self.inside.iter().enumerate();
        masks
            .filter(|(_, mask)| mask.contains(&true))
            .map(|(query, _)| query)
            .collect()
    }
}

/// An image whose regions are cut out.
#[derive(Debug, Clone)]
pub struct RegionImage<'a> {
    image: &'a RgbImage,
    options: &'a ZssegOptions,
}

impl<'a> RegionImage<'a> {
    /// Returns an image before normalisation and padding.
    pub fn new(image: &'a RgbImage, options: &'a ZssegOptions) -> Self {
        Self { image, options }
    }

    /// Cuts the crops of masks that are not empty: `[queries, 3, side, side]`.
    pub fn crops(&self, masks: &RegionMasks, queries: &[usize], side: usize) -> Vec<f32> {
        let crops: Vec<Vec<f32>> = queries
            .par_iter()
            .map(|&query| self.crop(masks, query, side))
            .collect();
        crops.concat()
    }

    /// Cuts the crop of one mask, normalised for CLIP: `[3, side, side]`; an empty mask gives the colour outside.
    fn crop(&self, masks: &RegionMasks, query: usize, side: usize) -> Vec<f32> {
        let inside = &masks.inside[query];
        let found = RegionBox::of_mask(inside, masks.size).unwrap_or(RegionBox {
            left: 0,
            top: 0,
            right: 1,
            bottom: 1,
        });
        let bounds = found.expanded(self.options.expand, masks.size);
        let width = masks.size[1];
        let share = |pixel: usize| {
            if self.options.matting {
                masks.probabilities[query][pixel]
            } else {
                f32::from(u8::from(inside[pixel]))
            }
        };
        let Normalization { mean, std } = Normalization::CLIP;
        let bytes = self.image.as_raw();
        let mut crop = Vec::with_capacity(3 * side * side);
        for channel in 0..3 {
            let fill = match self.options.fill {
                Fill::Mean => mean[channel],
                Fill::Zero => 0.0,
            };
            let rows = bounds.top..bounds.bottom;
            let plane: Vec<f32> = rows
                .flat_map(|y| (bounds.left..bounds.right).map(move |x| y * width + x))
                .map(|pixel| {
                    let share = share(pixel);
                    let colour = f32::from(bytes[3 * pixel + channel]);
                    let shown = colour * share + (1.0 - share) * fill;
                    (shown - mean[channel]) / std[channel]
                })
                .collect();
            crop.extend(bicubic::resize(&plane, bounds.size(), [side, side]));
        }
        crop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: [&str; 4]) -> Vec<bool> {
        rows.concat().chars().map(|c| c == '#').collect()
    }

    fn bounds(left: usize, top: usize, right: usize, bottom: usize) -> RegionBox {
        RegionBox {
            left,
            top,
            right,
            bottom,
        }
    }

    #[test]
    fn a_box_ends_after_the_last_pixel_and_thin_masks_keep_thin_boxes() {
        let size = [4, 5];
        let found = |rows| RegionBox::of_mask(&mask(rows), size);
        assert_eq!(
            found([".....", ".##..", ".#.#.", "....."]),
            Some(bounds(1, 1, 4, 3))
        );
        assert_eq!(
            found(["..#..", "..#..", "..#..", "..#.."]),
            Some(bounds(2, 0, 3, 4))
        );
        assert_eq!(
            found([".....", "#####", ".....", "....."]),
            Some(bounds(0, 1, 5, 2))
        );
        assert_eq!(found(["....."; 4]), None);
    }

    #[test]
    fn a_box_grows_around_its_centre_and_stays_inside() {
        let size = [40, 50];
        assert_eq!(
            bounds(10, 20, 20, 30).expanded(1.5, size),
            bounds(7, 17, 22, 32)
        );
        assert_eq!(
            bounds(0, 30, 4, 40).expanded(3.0, size),
            bounds(0, 20, 8, 40)
        );
        let tiny = bounds(49, 39, 50, 40).expanded(1e-9, size);
        assert_eq!(tiny.size(), [1, 1]);
        assert_eq!(bounds(3, 3, 5, 5).expanded(1.0, size), bounds(3, 3, 5, 5));
    }

    #[test]
    fn masks_are_cut_to_the_image_before_they_count() {
        // One query whose only positive logit lies in the padding.
        let masks = QueryMasks {
            values: vec![-5.0, 5.0],
            queries: 1,
            grid: [1, 2],
        };
        let cut = RegionMasks::new(&masks, [4, 8], [4, 3], 0.5);
        assert!(cut.valid().is_empty());
        let whole = RegionMasks::new(&masks, [4, 8], [4, 8], 0.5);
        assert_eq!(whole.valid(), [0]);
    }

    #[test]
    fn outside_of_the_mask_a_crop_is_zero() {
        let image = RgbImage::from_pixel(4, 2, image::Rgb([255; 3]));
        let masks = RegionMasks {
            probabilities: vec![vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]],
            inside: vec![vec![true, false, false, true, false, false, false, false]],
            size: [2, 4],
        };
        let options = ZssegOptions::default();
        let crop = RegionImage::new(&image, &options).crops(&masks, &[0], 4);
        // The box is one row of four pixels; the crop repeats it.
        assert!(crop[0] > 1.0 && crop[1].abs() < 1e-4 && crop[3] > 1.0);
    }
}
