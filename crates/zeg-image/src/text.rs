//! Draws text on images with compiled-in glyphs, so that neither fonts nor a layout engine are needed.

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

/// Returns whether the character has a visible glyph.
pub(crate) fn is_drawable(character: char) -> bool {
    !character.is_whitespace() && get_raster(character, WEIGHT, HEIGHT).is_some()
}

/// Draws `text` with its top left corner at `(x, y)`, blended onto the canvas.
///
/// `scale` enlarges the glyphs by an integer factor. Text outside of the canvas is not drawn; a character without a
/// glyph becomes an empty box.
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

/// Returns the share of a pixel that the glyph covers, 0..=255.
fn coverage(glyph: Option<RasterizedChar>, column: usize, row: usize) -> u8 {
    match glyph {
        Some(glyph) => glyph.pixel(column, row).unwrap_or(0),
        None if in_box_outline(column, row) => 200,
        None => 0,
    }
}

/// Returns whether the pixel is part of the box for unknown characters, which is as high as a capital letter.
fn in_box_outline(column: usize, row: usize) -> bool {
    const LEFT: usize = 1;
    const RIGHT: usize = CHARACTER_WIDTH - 2;
    const TOP: usize = 3;
    const BOTTOM: usize = 12;
    let inside = (LEFT..=RIGHT).contains(&column) && (TOP..=BOTTOM).contains(&row);
    inside && (column == LEFT || column == RIGHT || row == TOP || row == BOTTOM)
}

/// Blends `colour` into one pixel with opacity `amount`, 0..=1; pixels outside of the canvas are ignored.
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
    fn unknown_characters_are_drawn_as_boxes() {
        assert_eq!(ink("人"), ink("犬"));
        assert!(ink("人") > 10);
        assert_eq!(ink(" "), 0);
        assert!(ink("é") > ink("e"));
    }

    #[test]
    fn text_outside_of_the_canvas_is_not_drawn() {
        let mut canvas = RgbImage::new(3, 2);
        draw(&mut canvas, 0, 0, "Wide", [255; 3], 2);
        draw(&mut canvas, 90, 90, "gone", [255; 3], 1);
    }
}
