//! Counts the pages or frames of an image file without decoding them; only the first one is ever decoded.

use std::io::Cursor;

use image::ImageFormat;

use crate::{png_chunks, tiff_pages, webp_chunks};

/// Length in bytes of a GIF's head before its colour table.
const GIF_HEAD: usize = 13;

/// Returns the number of pages or frames of a file that has several; `None` if it has one, or does not say.
pub(crate) fn count(bytes: &[u8], format: ImageFormat) -> Option<usize> {
    let frames = match format {
        ImageFormat::Gif => gif_frames(bytes),
        ImageFormat::Png => png_chunks::frames(bytes)?,
        ImageFormat::Tiff => tiff_pages::pages(&mut Cursor::new(bytes))?.count,
        ImageFormat::WebP => webp_chunks::frames(bytes),
        _ => return None,
    };
    (frames > 1).then_some(frames)
}

/// Counts the image descriptors of a GIF (GIF89a, sections 18 to 26).
fn gif_frames(bytes: &[u8]) -> usize {
    let mut place = GIF_HEAD + colour_table(bytes.get(10));
    let mut frames = 0;
    while let Some(&kind) = bytes.get(place) {
        match kind {
            // An extension: its kind and its blocks.
            0x21 => place = after_blocks(bytes, place + 2),
            // An image: nine bytes, the last with flags, a colour table, the size of codes, and its blocks.
            0x2C => {
                frames += 1;
                let table = colour_table(bytes.get(place + 9));
                place = after_blocks(bytes, place + 10 + table + 1);
            }
            _ => break,
        }
    }
    frames
}

/// Returns the length in bytes of the colour table that flags announce.
fn colour_table(flags: Option<&u8>) -> usize {
    match flags {
        Some(flags) if flags & 0x80 != 0 => 3_usize << ((flags & 7) + 1),
        _ => 0,
    }
}

/// Returns the place after a sequence of blocks, each with its length in the first byte; an empty one is the last.
fn after_blocks(bytes: &[u8], mut place: usize) -> usize {
    while let Some(&length) = bytes.get(place) {
        place += 1 + usize::from(length);
        if length == 0 {
            break;
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a GIF of 1×1 pixels with a colour table of two colours, and with as many frames.
    fn gif(frames: usize) -> Vec<u8> {
        let mut bytes = b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xFF\xFF\xFF".to_vec();
        for _ in 0..frames {
            bytes.extend(b"\x21\xF9\x04\0\0\0\0\0");
            bytes.extend(b"\x2C\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0");
        }
        bytes.push(0x3B);
        bytes
    }

    #[test]
    fn frames_of_a_gif_are_counted() {
        assert_eq!(count(&gif(0), ImageFormat::Gif), None);
        assert_eq!(count(&gif(1), ImageFormat::Gif), None);
        assert_eq!(count(&gif(3), ImageFormat::Gif), Some(3));
        let cut = gif(2);
        for length in 0..cut.len() {
            assert!(gif_frames(&cut[..length]) <= 2);
        }
    }

    #[test]
    fn frames_of_an_animated_png_and_webp_are_counted() {
        let png = |frames: &[u8]| {
            let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x08acTL".to_vec();
            bytes.extend(frames);
            bytes.extend([0; 8]); // repetitions and checksum
            bytes
        };
        assert_eq!(count(&png(&[0, 0, 0, 5]), ImageFormat::Png), Some(5));
        assert_eq!(count(&png(&[0, 0, 0, 1]), ImageFormat::Png), None);
        assert_eq!(count(b"\x89PNG\r\n\x1a\n", ImageFormat::Png), None);
        let webp = |frames: usize| {
            let mut bytes = b"RIFF\0\0\0\0WEBPVP8X\x01\0\0\0\0\0".to_vec();
            for _ in 0..frames {
                bytes.extend(b"ANMF\x02\0\0\0\0\0");
            }
            bytes
        };
        assert_eq!(count(&webp(2), ImageFormat::WebP), Some(2));
        assert_eq!(count(&webp(0), ImageFormat::WebP), None);
    }
}
