//! Draws a segmentation for viewing: class colours blended over the image, with names and shares below it.

use image::imageops;

use crate::palette::class_colour;
use crate::text::blend;
use crate::{IGNORE_LABEL, LabelMap, RgbImage, legend, resize_nearest};

/// Width in pixels above which text and lines have double size, because such images are mostly viewed scaled down.
const WIDE: u32 = 1200;
/// Opacity of the class colour in contours, 0..=1.
const CONTOUR_OPACITY: f32 = 0.95;

/// Bytes a pixel that [`overlay`] needs at least beside the image and its labels: a copy of the labels, the painted
/// image, and the canvas with the legend.
pub const OVERLAY_BYTES: usize = size_of::<u16>() + 3 + 3;

/// Blends class colours over an image, outlines the regions and appends a legend.
///
/// - `labels`: the class of each pixel; a map of another size is resized to the size of the image
/// - `names`: one name per class; a class without a name is shown with its label
/// - `palette`: one colour per class, repeated if it is too short
/// - `opacity`: opacity of the class colour inside a region, clamped to 0..=1
///
/// Pixels with [`IGNORE_LABEL`] keep the colours of the image. Returns the image with a strip below it, which lists the
/// classes in the image, largest first, with their share of all pixels. If the image is narrower than the legend, the
/// canvas is wider than the image. An image without pixels is returned unchanged.
pub fn overlay(
    image: &RgbImage,
    labels: &LabelMap,
    names: &[String],
    palette: &[[u8; 3]],
    opacity: f32,
) -> RgbImage {
    if image.is_empty() {
        return image.clone();
    }
    let (width, height) = (image.width() as usize, image.height() as usize);
    let labels = resize_nearest(labels, width, height);
    let scale = if image.width() > WIDE { 2 } else { 1 };
    let opacity = if opacity.is_nan() {
        0.0
    } else {
        opacity.clamp(0.0, 1.0)
    };

    let mut painted = image.clone();
    paint_regions(&mut painted, &labels, palette, opacity);
    paint_contours(&mut painted, &labels, palette, scale);

    let entries = legend::entries(&labels, names, palette);
    let strip = legend::draw_strip(&entries, width, scale);
    let mut canvas = RgbImage::from_pixel(
        image.width().max(strip.width()),
        image.height() + strip.height(),
        image::Rgb(legend::BACKGROUND),
    );
    imageops::replace(&mut canvas, &painted, 0, 0);
    imageops::replace(&mut canvas, &strip, 0, i64::from(image.height()));
    canvas
}

/// Blends every region with its class colour.
fn paint_regions(canvas: &mut RgbImage, labels: &LabelMap, palette: &[[u8; 3]], opacity: f32) {
    let steps = (opacity * 256.0).round() as u32;
    for (pixel, &label) in canvas.pixels_mut().zip(labels.labels()) {
        if label == IGNORE_LABEL {
            continue;
        }
        for (value, tint) in pixel.0.iter_mut().zip(class_colour(label, palette)) {
            let mixed = u32::from(*value) * (256 - steps) + u32::from(tint) * steps;
            *value = ((mixed + 128) >> 8) as u8;
        }
    }
}

/// Draws a contour along the inner edge of each region in its class colour, so that both neighbours show their colours.
fn paint_contours(canvas: &mut RgbImage, labels: &LabelMap, palette: &[[u8; 3]], thickness: usize) {
    for y in 0..labels.height() {
        for x in 0..labels.width() {
            let Some(label) = labels.get(x, y) else {
                continue;
            };
            if label != IGNORE_LABEL && touches_another(labels, x, y, label, thickness) {
                blend(canvas, x, y, class_colour(label, palette), CONTOUR_OPACITY);
            }
        }
    }
}

/// Returns whether a pixel with another label lies within `reach` pixels above, below, left or right.
///
/// The edge of the image does not count.
fn touches_another(labels: &LabelMap, x: usize, y: usize, label: u16, reach: usize) -> bool {
    let differs = |x: Option<usize>, y: Option<usize>| {
        let neighbour = x.zip(y).and_then(|(x, y)| labels.get(x, y));
        neighbour.is_some_and(|other| other != label)
    };
    (1..=reach).any(|step| {
        differs(x.checked_sub(step), Some(y))
            || differs(Some(x + step), Some(y))
            || differs(Some(x), y.checked_sub(step))
            || differs(Some(x), Some(y + step))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::voc_palette;
    use image::Rgb;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_legend_is_below_the_image_and_class_colours_are_blended() {
        let image = RgbImage::from_pixel(300, 100, Rgb([200; 3]));
        let labels = LabelMap::filled(300, 100, 1);
        let drawn = overlay(
            &image,
            &labels,
            &names(&["sky", "sea"]),
            &voc_palette(2),
            0.5,
        );
        assert_eq!(drawn.width(), 300);
        assert!(drawn.height() > 100);
        // The result is half grey 200 and half (128, 0, 0). There is one region only, so there is no contour.
        assert!(
            drawn
                .rows()
                .take(100)
                .flatten()
                .all(|pixel| pixel.0 == [164, 100, 100])
        );
    }

    #[test]
    fn ignored_pixels_keep_the_colours_of_the_image() {
        let image = RgbImage::from_pixel(200, 50, Rgb([10, 20, 30]));
        let labels = LabelMap::filled(200, 50, IGNORE_LABEL);
        let drawn = overlay(&image, &labels, &[], &[], 1.0);
        assert!(
            drawn
                .rows()
                .take(50)
                .flatten()
                .all(|pixel| pixel.0 == [10, 20, 30])
        );
    }

    #[test]
    fn contours_lie_inside_each_region() {
        let image = RgbImage::from_pixel(4, 1, Rgb([0; 3]));
        let labels = LabelMap::new(4, 1, vec![0, 0, 1, 1]).unwrap();
        let drawn = overlay(&image, &labels, &[], &[[255, 0, 0], [0, 255, 0]], 0.0);
        let row: Vec<_> = drawn.pixels().take(4).map(|pixel| pixel.0).collect();
        assert_eq!(row, [[0, 0, 0], [242, 0, 0], [0, 242, 0], [0, 0, 0]]);
    }

    #[test]
    fn unusual_inputs_do_not_panic() {
        let one = RgbImage::new(1, 1);
        let label = LabelMap::filled(1, 1, 65534);
        for opacity in [f32::NAN, -1.0, 2.0, f32::INFINITY] {
            assert!(overlay(&one, &label, &names(&["a"]), &[], opacity).height() > 1);
        }
        assert!(overlay(&RgbImage::new(0, 3), &label, &[], &[], 0.5).is_empty());
        let empty = LabelMap::filled(0, 0, 0);
        assert!(overlay(&one, &empty, &[], &[], 0.5).height() > 1);
        let wide = RgbImage::new(1300, 2);
        let labels = LabelMap::new(2, 1, vec![0, 1]).unwrap();
        assert_eq!(
            overlay(&wide, &labels, &names(&["", "人"]), &[], 0.5).width(),
            1300
        );
    }
}
