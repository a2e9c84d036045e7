//! A query's mask as pixels: which are foreground, and the box around them.

use crate::resize::taps;

/// Foreground begins above this probability.
const FOREGROUND: f32 = 0.5;

/// A box in pixels: left, top, right, bottom.
///
/// As in the reference, right and bottom are the *numbers* of the last foreground column and row, not the edges behind
/// them, and a mask that is empty or one pixel wide or high has the whole padded image as its box.
pub type PixelBox = [f32; 4];

/// Mask logits at the size of the image: `[h, w]` → `[height, width]`, bilinear.
pub fn enlarge(logits: &[f32], [h, w]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f32> {
    let (rows, columns) = (taps(h, height), taps(w, width));
    let mut values = Vec::with_capacity(height * width);
    let mut line = vec![0.0_f32; w];
    for (top, bottom, fraction) in rows {
        let (top, bottom) = (&logits[top * w..][..w], &logits[bottom * w..][..w]);
        for ((value, a), b) in line.iter_mut().zip(top).zip(bottom) {
            *value = a * (1.0 - fraction) + b * fraction;
        }
        values.extend(columns.iter().map(|&(left, right, fraction)| {
            line[left] * (1.0 - fraction) + line[right] * fraction
        }));
    }
    values
}

/// Which pixels a mask takes: those whose logit's sigmoid is above one half.
pub fn foreground(logits: &[f32]) -> Vec<bool> {
    let probability = |z: f32| 1.0 / (1.0 + (-z).exp());
    logits
        .iter()
        .map(|&z| probability(z) > FOREGROUND)
        .collect()
}

/// The box around a mask `[height, width]`.
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

    /// An image of 5×4 with `#` as foreground.
    fn mask(rows: [&str; 4]) -> Vec<bool> {
        rows.concat().chars().map(|c| c == '#').collect()
    }

    #[test]
    fn a_box_ends_at_the_last_foreground_pixel_and_thin_masks_have_none() {
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
