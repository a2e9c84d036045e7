//! Thumbnails of the images.

use std::io::{self, Cursor};

use image::codecs::jpeg::JpegEncoder;
use image::{ImageError, ImageFormat, Rgb, imageops};
use zeg_image::{IGNORE_LABEL, RgbImage};

use crate::{Classes, SegmentedImage};

/// Longest side in pixels: twice the 280 points of a card, for screens with two pixels per point.
const LONGEST_SIDE: u32 = 560;
/// JPEG quality, 1..=100; class contours have no visible artefacts from about 80 on.
const QUALITY: u8 = 82;
/// Colour of unlabelled pixels in a thumbnail without overlay.
const UNLABELLED: [u8; 3] = [92, 97, 108];

/// A thumbnail as an encoded file.
pub(super) struct Thumbnail {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: &'static str,
    /// File extension with its dot.
    pub(super) extension: &'static str,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Thumbnail {
    /// Encodes the overlay as a JPEG, or the class colours as a PNG if there is no overlay.
    pub(super) fn of(segmented: &SegmentedImage<'_>, classes: &Classes) -> io::Result<Self> {
        let overlay = segmented.overlay.filter(|overlay| !overlay.is_empty());
        match overlay {
            Some(overlay) => Self::of_overlay(overlay, segmented),
            None => Self::of_labels(segmented, classes),
        }
    }

    fn of_overlay(overlay: &RgbImage, segmented: &SegmentedImage<'_>) -> io::Result<Self> {
        let (mut width, mut height) = overlay.dimensions();
        // Leaves out a legend below the image.
        if width >= segmented.width() && height >= segmented.height() {
            (width, height) = (segmented.width(), segmented.height());
        }
        let image = imageops::crop_imm(overlay, 0, 0, width, height);
        let (small_width, small_height) = fitted(width, height);
        let small = if small_width < width || small_height < height {
            imageops::thumbnail(&*image, small_width, small_height)
        } else {
            image.to_image()
        };
        let mut bytes = Vec::new();
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
        encoder.encode_image(&small).map_err(into_io)?;
        Ok(Self {
            bytes,
            media_type: "image/jpeg",
            extension: ".jpg",
            width: small.width(),
            height: small.height(),
        })
    }

    fn of_labels(segmented: &SegmentedImage<'_>, classes: &Classes) -> io::Result<Self> {
        let (width, height) = fitted(segmented.width(), segmented.height());
        // Nearest neighbour: the pixel of the map at the centre of each thumbnail pixel.
        let nearest = |place: u32, small: u32, large: usize| {
            (2 * place as usize + 1) * large / (2 * small as usize)
        };
        let small = RgbImage::from_fn(width, height, |x, y| {
            let x = nearest(x, width, segmented.labels.width());
            let y = nearest(y, height, segmented.labels.height());
            let label = segmented
                .labels
                .get(x, y)
                .filter(|&label| label != IGNORE_LABEL);
            Rgb(label.map_or(UNLABELLED, |label| classes.colour(label)))
        });
        let mut bytes = Cursor::new(Vec::new());
        small
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(into_io)?;
        Ok(Self {
            bytes: bytes.into_inner(),
            media_type: "image/png",
            extension: ".png",
            width,
            height,
        })
    }
}

/// Returns a size within [`LONGEST_SIDE`], at least one pixel wide and high; small images keep their size.
fn fitted(width: u32, height: u32) -> (u32, u32) {
    let longest = width.max(height);
    if longest <= LONGEST_SIDE {
        return (width, height);
    }
    let scale = f64::from(LONGEST_SIDE) / f64::from(longest);
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    (side(width), side(height))
}

fn into_io(error: ImageError) -> io::Error {
    match error {
        ImageError::IoError(source) => source,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use zeg_image::LabelMap;

    #[test]
    fn thumbnails_fit_and_never_vanish() {
        assert_eq!(fitted(100, 60), (100, 60));
        assert_eq!(fitted(1120, 700), (560, 350));
        assert_eq!(fitted(30_000, 2), (560, 1));
        assert_eq!(fitted(2, 30_000), (1, 560));
    }

    #[test]
    fn a_legend_below_the_image_is_cut_off() {
        let labels = LabelMap::filled(20, 10, 0);
        let overlay = RgbImage::new(190, 50);
        let segmented = SegmentedImage {
            overlay: Some(&overlay),
            ..SegmentedImage::new(Path::new("a"), &labels)
        };
        let thumbnail = Thumbnail::of(&segmented, &Classes::default()).unwrap();
        assert_eq!((thumbnail.width, thumbnail.height), (20, 10));
        let decoded = image::load_from_memory(&thumbnail.bytes).unwrap();
        assert_eq!((decoded.width(), decoded.height()), (20, 10));
    }

    #[test]
    fn without_an_overlay_the_classes_are_shown() {
        let labels = LabelMap::new(2, 1, vec![0, IGNORE_LABEL]).unwrap();
        let classes = Classes::new(vec!["a".into()], vec![[255, 0, 9]]).unwrap();
        let thumbnail =
            Thumbnail::of(&SegmentedImage::new(Path::new("a"), &labels), &classes).unwrap();
        let decoded = image::load_from_memory(&thumbnail.bytes)
            .unwrap()
            .into_rgb8();
        assert_eq!(decoded.get_pixel(0, 0).0, [255, 0, 9]);
        assert_eq!(decoded.get_pixel(1, 0).0, UNLABELLED);
    }
}
