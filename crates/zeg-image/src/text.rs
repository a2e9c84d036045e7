//! Text on images, with glyphs that are part of the program: no fonts to find, no layout engine.

use image::{Rgb, RgbImage};
use noto_sans_mono_bitmap::{
    FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width,
};

const WEIGHT: FontWeight = FontWeight::Regular;
const HEIGHT: RasterHeight = RasterHeight::Size16;

/// Height of a line of text in pixels, at scale 1.
pub(crate) const LINE_HEIGHT: usize = HEIGHT.val();
/// Width of every character in pixels, at scale 1.
pub(crate) const CHARACTER_WIDTH: usize = get_raster_width(WEIGHT, HEIGHT);

/// Whether there is a glyph for the character that shows something.
pub(crate) fn is_drawable(character: char) -> bool {
    !character.is_whitespace() && get_raster(character, WEIGHT, HEIGHT).is_some()
}

/// Draws `text` with its top left corner at `(x, y)`, blended onto what is there.
///
/// `scale` enlarges by whole steps. What would leave the canvas is cut off; characters without a glyph
/// become an empty box.
pub(crate) fn draw(
    canvas: &mut RgbImage,
    x: usize,
    y: usize,
    text: &str,
    colour: [u8; 3],
    scale: usize,
) {
    for (index, character) in text.chars().enumerate() {
        let left = x + index * CHARACTER_WIDTH * scale;
        let glyph = get_raster(character, WEIGHT, HEIGHT);
        for row in 0..LINE_HEIGHT * scale {
            for column in 0..CHARACTER_WIDTH * scale {
                let coverage = coverage(glyph, column / scale, row / scale);
                if coverage > 0 {
                    blend(
                        canvas,
                        left + column,
                        y + row,
                        colour,
                        f32::from(coverage) / 255.0,
                    );
                }
            }
        }
    }
}

/// How much of a pixel the glyph covers, 0..=255.
fn coverage(glyph: Option<RasterizedChar>, column: usize, row: usize) -> u8 {
    match glyph {
        Some(glyph) => glyph.pixel(column, row).unwrap_or(0),
        None if in_box_outline(column, row) => 200,
        None => 0,
    }
}

/// The box for unknown characters, as high as a capital letter.
fn in_box_outline(column: usize, row: usize) -> bool {
    const LEFT: usize = 1;
    const RIGHT: usize = CHARACTER_WIDTH - 2;
    const TOP: usize = 3;
    const BOTTOM: usize = 12;
    let inside = (LEFT..=RIGHT).contains(&column) && (TOP..=BOTTOM).contains(&row);
    inside && (column == LEFT || column == RIGHT || row == TOP || row == BOTTOM)
}

/// Mixes `colour` into one pixel, `amount` 0..=1 of it; outside the canvas nothing happens.
pub(crate) fn blend(canvas: &mut RgbImage, x: usize, y: usize, colour: [u8; 3], amount: f32) {
    if let Some(Rgb(pixel)) = canvas.get_pixel_mut_checked(x as u32, y as u32) {
        for (value, target) in pixel.iter_mut().zip(colour) {
            let (from, to) = (f32::from(*value), f32::from(target));
            *value = (from + (to - from) * amount).round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ink(text: &str) -> usize {
        let mut canvas = RgbImage::new(40, 20);
        draw(&mut canvas, 0, 0, text, [255; 3], 1);
        canvas.pixels().filter(|pixel| pixel.0 != [0; 3]).count()
    }

    #[test]
    fn unknown_characters_are_boxes() {
        assert_eq!(ink("人"), ink("犬"));
        assert!(ink("人") > 10);
        assert_eq!(ink(" "), 0);
        assert!(ink("é") > ink("e"));
    }

    #[test]
    fn text_that_leaves_the_canvas_is_cut() {
        let mut canvas = RgbImage::new(3, 2);
        draw(&mut canvas, 0, 0, "Wide", [255; 3], 2);
        draw(&mut canvas, 90, 90, "gone", [255; 3], 1);
    }
}
