//! Resizes images as Pillow does with its bilinear filter, which averages all pixels that a smaller one covers.
//!
//! Detectron2 loads images with it. Weights are whole numbers of 2⁻²² and the rows between both passes are bytes, as in
//! Pillow's `Resample.c`, so that results are equal to the last bit. Enlarged images differ from those of
//! [`crate::resize_bilinear`] by rounding only.

use std::borrow::Cow;

use crate::RgbImage;

/// Number of fractional bits of a weight.
const BITS: u32 = 22;
/// Number of channels of an image.
const CHANNELS: usize = 3;

/// The pixels that one output pixel is a mean of, along one axis.
struct Window {
    first: usize,
    /// Weights of `first` and the pixels after it, in units of 2⁻²²; their sum is about 2²².
    weights: Vec<i64>,
}

/// Resizes an image to `width`×`height` as `Image.resize((width, height), Image.BILINEAR)` does.
///
/// The same size gives an exact copy; an image without pixels gives a black one.
pub fn resize_antialiased(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    let (from_width, from_height) = (image.width() as usize, image.height() as usize);
    if (from_width, from_height) == (width, height) {
        return image.clone();
    }
    if [from_width, from_height, width, height].contains(&0) {
        return RgbImage::new(width as u32, height as u32);
    }
    let mut pixels = Cow::Borrowed(image.as_raw().as_slice()); // [from_height, from_width, 3]
    if from_width != width {
        let windows = windows(from_width, width);
        let rows = pixels.chunks_exact(from_width * CHANNELS);
        let narrowed = rows.flat_map(|row| {
            windows.iter().flat_map(move |window| {
                (0..CHANNELS)
                    .map(move |channel| mean(window, |pixel| row[pixel * CHANNELS + channel]))
            })
        });
        pixels = Cow::Owned(narrowed.collect()); // [from_height, width, 3]
    }
    if from_height != height {
        let line = width * CHANNELS;
        let rows = windows(from_height, height);
        let shortened = rows.iter().flat_map(|window| {
            let pixels = &*pixels;
            (0..line).map(move |column| mean(window, |row| pixels[row * line + column]))
        });
        pixels = Cow::Owned(shortened.collect()); // [height, width, 3]
    }
    RgbImage::from_raw(width as u32, height as u32, pixels.into_owned()).unwrap_or_default()
}

/// Returns the weighted mean of the bytes of a window.
fn mean(window: &Window, byte: impl Fn(usize) -> u8) -> u8 {
    let half = 1_i64 << (BITS - 1);
    let weights = window.weights.iter().enumerate();
    let sum: i64 = weights
        .map(|(offset, weight)| i64::from(byte(window.first + offset)) * weight)
        .sum();
    ((sum + half) >> BITS).clamp(0, 255) as u8
}

/// Returns the windows of all pixels of an axis: a triangle over the pixel's own extent, at least one pixel to each side.
fn windows(from: usize, to: usize) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let support = scale.max(1.0);
    (0..to)
        .map(|index| {
            let centre = (index as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let shares: Vec<f64> = (first..end)
                .map(|pixel| (1.0 - ((pixel as f64 - centre + 0.5) / support).abs()).max(0.0))
                .collect();
            let sum: f64 = shares.iter().sum();
            let one = f64::from(1_u32 << BITS);
            let weights = shares.iter().map(|share| (share / sum * one + 0.5) as i64);
            Window {
                first,
                weights: weights.collect(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected bytes were computed by Pillow 13.
    #[test]
    fn a_row_is_averaged_when_it_is_narrowed_and_interpolated_when_it_is_widened() {
        let row: Vec<u8> = [0, 40, 200, 80].into_iter().flat_map(|v| [v; 3]).collect();
        let image = RgbImage::from_raw(4, 1, row).unwrap();
        let channel = |width| -> Vec<u8> {
            let resized = resize_antialiased(&image, width, 1);
            resized.as_raw().iter().step_by(3).copied().collect()
        };
        assert_eq!(channel(4), [0, 40, 200, 80]);
        assert_eq!(channel(2), [46, 126]);
        assert_eq!(channel(8), [0, 10, 30, 80, 160, 170, 110, 80]);
        assert!(
            resize_antialiased(&RgbImage::new(0, 0), 2, 2)
                .as_raw()
                .iter()
                .all(|v| *v == 0)
        );
    }
}
