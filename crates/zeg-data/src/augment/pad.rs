//! Padding of small images: padded pixels have a label of their own that no class has.
//!
//! The image itself is padded during normalisation
//! ([`Normalization::to_chw_padded`](zeg_image::Normalization::to_chw_padded)), with 0 after normalisation.

use zeg_image::{LabelMap, PADDING_LABEL, RgbImage};

/// Value of every channel of ZegFormer's padding.
const GREY: u8 = 128;

/// Copies labels into the top left of a buffer `[height, width]`, row-major.
///
/// The rest, at the right and at the bottom, is [`PADDING_LABEL`]; labels beyond `width` or `height` are cut off.
pub(crate) fn pad_labels(labels: &LabelMap, width: usize, height: usize) -> Vec<u16> {
    let mut padded = vec![PADDING_LABEL; width * height]; // [height, width]
    let sources = labels.labels().chunks_exact(labels.width().max(1));
    for (target, source) in padded.chunks_exact_mut(width.max(1)).zip(sources) {
        let common = target.len().min(source.len());
        target[..common].copy_from_slice(&source[..common]);
    }
    padded
}

/// Copies an image into the top left of a grey square; pixels beyond `side` are cut off.
pub(crate) fn pad_grey(image: &RgbImage, side: usize) -> RgbImage {
    let mut padded = RgbImage::from_pixel(side as u32, side as u32, [GREY; 3].into());
    let sources = image.chunks_exact((3 * image.width() as usize).max(1));
    for (target, source) in padded.chunks_exact_mut((3 * side).max(1)).zip(sources) {
        let common = target.len().min(source.len());
        target[..common].copy_from_slice(&source[..common]);
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_maps_are_padded_and_large_ones_cut_off() {
        const P: u16 = PADDING_LABEL;
        let labels = LabelMap::new(2, 2, vec![1, 2, 3, 4]).unwrap();
        assert_eq!(pad_labels(&labels, 3, 3), [1, 2, P, 3, 4, P, P, P, P]);
        assert_eq!(pad_labels(&labels, 1, 3), [1, 3, P]);
        assert!(pad_labels(&labels, 0, 0).is_empty());
    }

    #[test]
    fn a_small_image_is_padded_to_a_grey_square() {
        let image = RgbImage::from_pixel(2, 1, [7, 8, 9].into());
        let padded = pad_grey(&image, 3);
        assert_eq!(padded.dimensions(), (3, 3));
        assert_eq!(padded.get_pixel(1, 0).0, [7, 8, 9]);
        assert_eq!(padded.get_pixel(2, 0).0, [GREY; 3]);
        assert_eq!(padded.get_pixel(0, 2).0, [GREY; 3]);
    }
}
