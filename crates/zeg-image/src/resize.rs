//! Resizes images and label maps with the arithmetic of the reference pipeline, and computes its target sizes.
//!
//! Published scores were measured on images that OpenCV had resized as bytes (`cv2.resize`, called by mmcv).
//! Both interpolations are implemented here with OpenCV's fixed-point arithmetic, so that every pixel is equal, not
//! merely close.

use crate::{LabelMap, RgbImage};

/// Number of fractional bits of a bilinear weight: OpenCV's `INTER_RESIZE_COEF_BITS`.
const WEIGHT_BITS: u32 = 11;
/// The fixed-point weight that represents 1.
const WEIGHT_ONE: f32 = (1 << WEIGHT_BITS) as f32;
/// Number of channels of an image.
const CHANNELS: usize = 3;

/// Resizes an image to `width`×`height` as `cv2.resize(…, INTER_LINEAR)` does on bytes.
///
/// Pixel centres are at half-integer coordinates, edges are clamped, and there is no antialiasing. Weights have 11
/// fractional bits. The same size gives an exact copy; an image without pixels gives a black one.
pub fn resize_bilinear(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    let (source_width, source_height) = (image.width() as usize, image.height() as usize);
    if (source_width, source_height) == (width, height) {
        return image.clone();
    }
    let mut resized = RgbImage::new(width as u32, height as u32);
    if source_width == 0 || source_height == 0 || width == 0 || height == 0 {
        return resized;
    }
    let columns = column_taps(source_width, width);
    let rows = row_taps(source_height, height);
    let pixels = image.as_raw().as_slice(); //               [source_height, source_width, 3]
    let mut upper = StretchedRow::new(width);
    let mut lower = StretchedRow::new(width);
    for (tap, target) in rows.iter().zip(resized.chunks_exact_mut(width * CHANNELS)) {
        // The lower neighbour of one output row is often the upper neighbour of the next one.
        if upper.row != Some(tap.first) && lower.row == Some(tap.first) {
            std::mem::swap(&mut upper, &mut lower);
        }
        upper.stretch(pixels, source_width, tap.first, &columns);
        lower.stretch(pixels, source_width, tap.second, &columns);
        for ((value, &above), &below) in target.iter_mut().zip(&upper.values).zip(&lower.values) {
            *value = blend_rows(above, below, tap.weights);
        }
    }
    resized
}

/// Two source pixels along one axis and their weights, which add up to 2048.
#[derive(Debug, Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weights: [u32; 2],
}

/// Returns the neighbours of every output column. OpenCV drops the second neighbour if it is outside of the image.
fn column_taps(source: usize, target: usize) -> Vec<Tap> {
    let last = source - 1;
    (0..target)
        .map(|index| {
            let (floor, fraction) = source_position(index, source, target);
            let inside = (0..last as i64).contains(&floor);
            let first = (floor.max(0) as usize).min(last);
            Tap {
                first,
                second: (first + 1).min(last),
                weights: weights(if inside { fraction } else { 0.0 }),
            }
        })
        .collect()
}

/// Returns the neighbours of every output row.
///
/// For rows, OpenCV keeps the weights and clamps both neighbours instead, which rounds differently at the edges.
fn row_taps(source: usize, target: usize) -> Vec<Tap> {
    let last = source as i64 - 1;
    (0..target)
        .map(|index| {
            let (floor, fraction) = source_position(index, source, target);
            Tap {
                first: floor.clamp(0, last) as usize,
                second: (floor + 1).clamp(0, last) as usize,
                weights: weights(fraction),
            }
        })
        .collect()
}

/// Returns the source position of output pixel `index`, as integer part and fraction.
///
/// As in OpenCV, the scale is the reciprocal of a quotient, and the position is an `f32`.
fn source_position(index: usize, source: usize, target: usize) -> (i64, f32) {
    let scale = 1.0 / (target as f64 / source as f64);
    let position = ((index as f64 + 0.5) * scale - 0.5) as f32;
    let floor = position.floor();
    (floor as i64, position - floor)
}

/// Returns the fixed-point weights of the first and the second neighbour.
fn weights(fraction: f32) -> [u32; 2] {
    [1.0 - fraction, fraction].map(|weight| (weight * WEIGHT_ONE).round_ties_even() as u32)
}

/// A source row, interpolated to the output width, with values scaled by 2048.
struct StretchedRow {
    /// The source row in `values`, or `None` at the start.
    row: Option<usize>,
    /// `[width, 3]`, range 0..=255·2048.
    values: Vec<u32>,
}

impl StretchedRow {
    fn new(width: usize) -> Self {
        Self {
            row: None,
            values: vec![0; width * CHANNELS],
        }
    }

    /// Computes the values from source row `row` of `pixels`, unless they are that row's already.
    fn stretch(&mut self, pixels: &[u8], source_width: usize, row: usize, columns: &[Tap]) {
        if self.row == Some(row) {
            return;
        }
        let stride = source_width * CHANNELS;
        let source = &pixels[row * stride..(row + 1) * stride];
        for (tap, target) in columns.iter().zip(self.values.chunks_exact_mut(CHANNELS)) {
            let first = &source[tap.first * CHANNELS..][..CHANNELS];
            let second = &source[tap.second * CHANNELS..][..CHANNELS];
            for channel in 0..CHANNELS {
                target[channel] = u32::from(first[channel]) * tap.weights[0]
                    + u32::from(second[channel]) * tap.weights[1];
            }
        }
        self.row = Some(row);
    }
}

/// Interpolates between two rows and returns a byte, with the intermediate shifts of OpenCV's vector code.
fn blend_rows(above: u32, below: u32, [above_weight, below_weight]: [u32; 2]) -> u8 {
    let scaled = |value: u32, weight: u32| ((value >> 4) * weight) >> 16;
    let sum = scaled(above, above_weight) + scaled(below, below_weight);
    ((sum + 2) >> 2).min(255) as u8
}

/// Resizes a label map to `width`×`height` as `cv2.resize(…, INTER_NEAREST)` does.
///
/// The source pixel is `floor(index · in / out)`, without a half-pixel offset. Labels are therefore shifted by up to
/// half a pixel against a bilinearly resized image, as in the reference. A map without pixels gives label 0 everywhere.
pub fn resize_nearest(labels: &LabelMap, width: usize, height: usize) -> LabelMap {
    if (labels.width(), labels.height()) == (width, height) {
        return labels.clone();
    }
    let mut resized = LabelMap::filled(width, height, 0);
    if labels.labels().is_empty() || resized.labels().is_empty() {
        return resized;
    }
    let columns = nearest_indices(labels.width(), width);
    let rows = nearest_indices(labels.height(), height);
    for (&row, target) in rows
        .iter()
        .zip(resized.labels_mut().chunks_exact_mut(width))
    {
        let source = &labels.labels()[row * labels.width()..][..labels.width()];
        for (&column, label) in columns.iter().zip(target) {
            *label = source[column];
        }
    }
    resized
}

/// Returns the source index of every output index along one axis.
fn nearest_indices(source: usize, target: usize) -> Vec<usize> {
    let scale = 1.0 / (target as f64 / source as f64);
    (0..target)
        .map(|index| ((index as f64 * scale) as usize).min(source - 1))
        .collect()
}

/// Returns the test-time size `(width, height)`: the shorter side becomes `short`, and the aspect ratio is kept.
///
/// This is `Resize(keep_ratio=True, min_size=short)` of mmsegmentation 0.24. The longer side is not limited: with
/// `short` 512, 1000×100 becomes 5120×512. An empty image stays empty.
pub fn fit_short_side(width: usize, height: usize, short: usize) -> (usize, usize) {
    if width == 0 || height == 0 {
        return (0, 0);
    }
    let (short_side, long_side) = (width.min(height) as f64, width.max(height) as f64);
    let short = short as f64;
    fit(width, height, short * long_side / short_side, short)
}

/// Returns the largest size `(width, height)` that keeps the aspect ratio and fits into a box of `long`×`short`.
///
/// `long` always limits the longer side of the image, in either orientation. This is `mmcv.rescale_size`, except that
/// every side has at least 1 pixel, where the reference would fail. An empty image stays empty.
pub fn fit_box(width: usize, height: usize, long: usize, short: usize) -> (usize, usize) {
    if width == 0 || height == 0 {
        return (0, 0);
    }
    fit(width, height, long as f64, short as f64)
}

/// Computes `mmcv.rescale_size` for sides of at least 1 pixel.
fn fit(width: usize, height: usize, long: f64, short: f64) -> (usize, usize) {
    let (width, height) = (width as f64, height as f64);
    let by_long = long.max(short) / width.max(height);
    let by_short = long.min(short) / width.min(height);
    let scale = by_long.min(by_short);
    let side = |size: f64| ((size * scale + 0.5) as usize).max(1);
    (side(width), side(height))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn halving_the_size_averages_four_pixels() {
        let image =
            RgbImage::from_raw(2, 2, vec![0, 10, 255, 1, 20, 255, 2, 30, 255, 4, 41, 255]).unwrap();
        assert_eq!(resize_bilinear(&image, 1, 1).into_raw(), [2, 25, 255]);
    }

    #[test]
    fn empty_images_and_targets_do_not_panic() {
        let image = RgbImage::from_pixel(3, 2, image::Rgb([9, 9, 9]));
        assert!(resize_bilinear(&image, 0, 5).is_empty());
        assert_eq!(resize_bilinear(&RgbImage::new(0, 0), 2, 1).len(), 6);
        let labels = LabelMap::filled(0, 4, 7);
        assert_eq!(resize_nearest(&labels, 2, 1).labels(), [0, 0]);
        assert!(
            resize_nearest(&LabelMap::filled(2, 2, 7), 0, 3)
                .labels()
                .is_empty()
        );
        assert_eq!(fit_box(0, 7, 20, 10), (0, 0));
        assert_eq!(fit_short_side(7, 0, 10), (0, 0));
        assert_eq!(fit_box(10_000, 1, 100, 50), (100, 1));
    }

    proptest! {
        #[test]
        fn an_image_of_one_colour_keeps_its_colour(
            colour: [u8; 3], from in (1u32..40, 1u32..40), to in (1usize..90, 1usize..90),
        ) {
            let image = RgbImage::from_pixel(from.0, from.1, image::Rgb(colour));
            let resized = resize_bilinear(&image, to.0, to.1);
            prop_assert_eq!((resized.width() as usize, resized.height() as usize), to);
            for pixel in resized.pixels() {
                prop_assert_eq!(pixel.0, colour);
            }
        }

        #[test]
        fn the_same_size_is_a_copy(width in 1u32..30, height in 1u32..30, seed: u32) {
            let image = RgbImage::from_fn(width, height, |x, y| {
                image::Rgb([0, 8, 16].map(|shift| ((x * 7919 + y * 104_729).wrapping_mul(seed) >> shift) as u8))
            });
            prop_assert_eq!(&resize_bilinear(&image, width as usize, height as usize), &image);
        }

        #[test]
        fn nearest_creates_no_new_label(
            (width, height, labels) in (1usize..30, 1usize..30).prop_flat_map(|(w, h)| {
                (Just(w), Just(h), proptest::collection::vec(any::<u16>(), w * h))
            }),
            to in (1usize..70, 1usize..70),
        ) {
            let map = LabelMap::new(width, height, labels).unwrap();
            let resized = resize_nearest(&map, to.0, to.1);
            prop_assert_eq!((resized.width(), resized.height()), to);
            let known: HashSet<_> = map.labels().iter().collect();
            prop_assert!(resized.labels().iter().all(|label| known.contains(label)));
        }

        #[test]
        fn the_shorter_side_has_the_requested_length(width in 1usize..5000, height in 1usize..5000, short in 1usize..2000) {
            let (w, h) = fit_short_side(width, height, short);
            prop_assert_eq!(w.min(h), short);
            prop_assert_eq!(width < height && w > h, false);
        }

        #[test]
        fn the_size_never_exceeds_the_box(
            width in 1usize..5000, height in 1usize..5000, long in 1usize..4000, short in 1usize..2000,
        ) {
            let (w, h) = fit_box(width, height, long, short);
            prop_assert!(w.max(h) <= long.max(short) && w.min(h) <= long.min(short));
        }
    }
}
