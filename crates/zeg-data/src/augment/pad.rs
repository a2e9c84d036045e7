//! Pad: what a small picture does not fill has a label of its own, which no class has.
//!
//! The picture itself is padded while it is normalised
//! ([`Normalization::to_chw_padded`](zeg_image::Normalization::to_chw_padded)), with 0 after normalisation.

use zeg_image::{LabelMap, PADDING_LABEL};

/// Puts labels into the top left of a field of `[height, width]`, row-major.
///
/// The rest, at the right and at the bottom, is [`PADDING_LABEL`]; what sticks out is cut off.
pub fn pad_labels(labels: &LabelMap, width: usize, height: usize) -> Vec<u16> {
    let mut padded = vec![PADDING_LABEL; width * height]; // [height, width]
    let sources = labels.labels().chunks_exact(labels.width().max(1));
    for (target, source) in padded.chunks_exact_mut(width.max(1)).zip(sources) {
        let common = target.len().min(source.len());
        target[..common].copy_from_slice(&source[..common]);
    }
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_padding_and_the_surplus_cut() {
        const P: u16 = PADDING_LABEL;
        let labels = LabelMap::new(2, 2, vec![1, 2, 3, 4]).unwrap();
        assert_eq!(pad_labels(&labels, 3, 3), [1, 2, P, 3, 4, P, P, P, P]);
        assert_eq!(pad_labels(&labels, 1, 3), [1, 3, P]);
        assert!(pad_labels(&labels, 0, 0).is_empty());
    }
}
