//! Draws maps of a patch grid as images.

use zeg::image::{RgbImage, resize_bilinear};

/// Colours of a heat map from the lowest to the highest value: the corners of matplotlib's viridis.
const HEAT: [[u8; 3]; 5] = [
    [68, 1, 84],
    [59, 82, 139],
    [33, 145, 140],
    [94, 201, 98],
    [253, 231, 37],
];
/// Share of the heat map's colours in a pixel; the rest is the image.
const OPACITY: f32 = 0.65;

/// Draws a heat map over an image.
///
/// - `values`: `[rows·columns]`, row-major, 0 to 1
/// - `grid`: rows and columns
pub(super) fn heat_map(image: &RgbImage, values: &[f32], grid: [usize; 2]) -> RgbImage {
    let colours = values.iter().flat_map(|&value| heat(value)).collect();
    let heat = enlarged(colours, grid, image);
    let mut drawn = image.clone();
    for (pixel, heat) in drawn.pixels_mut().zip(heat.pixels()) {
        for (channel, heat) in pixel.0.iter_mut().zip(heat.0) {
            *channel = mix(*channel, heat, OPACITY);
        }
    }
    drawn
}

/// Draws colours of the patches in the size of an image.
///
/// - `colours`: `[rows·columns]` of red, green and blue, 0 to 1
pub(super) fn colour_map(image: &RgbImage, colours: &[[f32; 3]], grid: [usize; 2]) -> RgbImage {
    let bytes = colours.as_flattened().iter().map(|value| byte(*value));
    enlarged(bytes.collect(), grid, image)
}

/// Enlarges patches to the size of an image.
fn enlarged(bytes: Vec<u8>, [rows, columns]: [usize; 2], image: &RgbImage) -> RgbImage {
    let small = RgbImage::from_raw(columns as u32, rows as u32, bytes).unwrap_or_default();
    resize_bilinear(&small, image.width() as usize, image.height() as usize)
}

/// Returns the colour of a value from 0 to 1; one that is not a number has the lowest colour.
fn heat(value: f32) -> [u8; 3] {
    let value = if value.is_nan() { 0.0 } else { value };
    let place = value.clamp(0.0, 1.0) * (HEAT.len() - 1) as f32;
    let lower = (place as usize).min(HEAT.len() - 2);
    let (from, to) = (HEAT[lower], HEAT[lower + 1]);
    let share = place - lower as f32;
    std::array::from_fn(|channel| mix(from[channel], to[channel], share))
}

/// Returns a mixture of two bytes.
///
/// - `share`: share of `to`, 0 to 1
fn mix(from: u8, to: u8, share: f32) -> u8 {
    let value = f32::from(from) * (1.0 - share) + f32::from(to) * share;
    value.round() as u8
}

fn byte(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_runs_from_the_first_colour_to_the_last() {
        assert_eq!(heat(0.0), HEAT[0]);
        assert_eq!(heat(0.5), HEAT[2]);
        assert_eq!(heat(1.0), HEAT[4]);
        assert_eq!(heat(-3.0), HEAT[0]);
        assert_eq!(heat(f32::NAN), HEAT[0]);
    }

    #[test]
    fn maps_have_the_size_of_the_image() {
        let image = RgbImage::from_raw(3, 2, vec![100; 18]).unwrap();
        let drawn = heat_map(&image, &[0.0, 1.0], [1, 2]);
        assert_eq!(drawn.dimensions(), (3, 2));
        assert_eq!(
            drawn.get_pixel(0, 0).0,
            HEAT[0].map(|heat| mix(100, heat, OPACITY))
        );
        assert_eq!(
            drawn.get_pixel(2, 1).0,
            HEAT[4].map(|heat| mix(100, heat, OPACITY))
        );
        let drawn = colour_map(&image, &[[1.0, 0.5, 0.0]], [1, 1]);
        assert!(drawn.pixels().all(|pixel| pixel.0 == [255, 128, 0]));
    }
}
