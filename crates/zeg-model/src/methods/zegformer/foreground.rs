//! The pixels of a mask: its foreground and bounding box.

pub use crate::mask_transformer::masks::enlarge;

/// Probability above which a pixel is foreground.
const FOREGROUND: f32 = 0.5;

/// A box in pixels: left, top, right, bottom.
///
/// As in the reference, right and bottom are the *indices* of the last foreground column and row, not the edges after
/// them. A mask that is empty, or one pixel wide or high, has the whole padded image as its box.
pub type PixelBox = [f32; 4];

/// Returns which pixels a mask covers: those where σ(logit) is above one half.
pub fn foreground(logits: &[f32]) -> Vec<bool> {
    let probability = |z: f32| 1.0 / (1.0 + (-z).exp());
    logits
        .iter()
        .map(|&z| probability(z) > FOREGROUND)
        .collect()
}

/// Returns the bounding box of a mask `[height, width]`.
pub fn bounding_box(mask: &[bool], [height, width]: [usize; 2]) -> PixelBox {
    let (mut left, mut right, mut top, mut bottom) = (width, 0, height, 0);
    for (y, row) in mask.chunks_exact(width.max(1)).enumerate() {
        let Some(first) = row.iter().position(|&inside| inside) else {
            continue;
        };
        let last = row.iter().rposition(|&inside| inside).unwrap_or(first);
        (left, right) = (left.min(first), right.max(last));
        (top, bottom) = (top.min(y), y);
    }
    if right <= left || bottom <= top {
        return [0.0, 0.0, width as f32, height as f32];
    }
    [left as f32, top as f32, right as f32, bottom as f32]
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // boxes are whole numbers
mod tests {
    use super::*;

    /// Returns a mask of 5×4 pixels with `#` as foreground.
    fn mask(rows: [&str; 4]) -> Vec<bool> {
        rows.concat().chars().map(|c| c == '#').collect()
    }

    #[test]
    fn a_box_ends_at_the_last_foreground_pixel_and_thin_masks_get_the_whole_image() {
        let size = [4, 5];
        let found = bounding_box(&mask([".....", ".##..", ".#.#.", "....."]), size);
        assert_eq!(found, [1.0, 1.0, 3.0, 2.0]);
        let whole = [0.0, 0.0, 5.0, 4.0];
        for thin in [
            [".....", ".....", ".....", "....."],
            ["..#..", "..#..", "..#..", "..#.."],
            [".....", "#####", ".....", "....."],
        ] {
            assert_eq!(bounding_box(&mask(thin), size), whole);
        }
    }

    #[test]
    fn foreground_is_above_one_half() {
        assert_eq!(foreground(&[-0.1, 0.0, 0.1]), [false, false, true]);
    }
}
