//! RoIAlign: resizes the pixels of a box to a fixed size, averaging a grid of samples in each cell.
//!
//! This is the aligned variant (pixel centres at halves), with one sample per cell and axis for every pixel of the
//! cell's length, rounded up. A sample is bilinear; it is 0 more than one pixel outside of the image. Rows and columns
//! are independent, so a crop is A_rows · X · A_columnsᵀ with a few non-zero entries in each row of the two matrices.

use super::foreground::PixelBox;

/// The pixels whose weighted mean is one cell of an axis.
type Cell = Vec<(usize, f32)>;

/// The cells of one box along both axes.
#[derive(Debug)]
pub(super) struct Sampling {
    rows: Vec<Cell>,
    columns: Vec<Cell>,
}

impl Sampling {
    /// Returns the sampling of a box in an image of `[height, width]` pixels to `side`×`side` cells.
    pub(super) fn new(
        [left, top, right, bottom]: PixelBox,
        [height, width]: [usize; 2],
        side: usize,
    ) -> Self {
        Self {
            rows: cells(top, bottom, height, side),
            columns: cells(left, right, width, side),
        }
    }

    /// Computes the cells' values, row-major: `[side, side]`.
    ///
    /// - `row`: fills its argument `[width]` with a row of the image
    pub(super) fn apply(
        &self,
        width: usize,
        mut row: impl FnMut(usize, &mut [f32]),
        out: &mut Vec<f32>,
    ) {
        let (mut line, mut source) = (vec![0.0_f32; width], vec![0.0_f32; width]);
        for cell in &self.rows {
            line.fill(0.0);
            for &(y, weight) in cell {
                row(y, &mut source);
                for (value, pixel) in line.iter_mut().zip(&source) {
                    *value += weight * pixel;
                }
            }
            out.extend(self.columns.iter().map(|cell| {
                cell.iter()
                    .map(|&(x, weight)| weight * line[x])
                    .sum::<f32>()
            }));
        }
    }
}

/// Returns the cells from `start` to `end` along an axis of `length` pixels.
fn cells(start: f32, end: f32, length: usize, side: usize) -> Vec<Cell> {
    let (origin, extent) = (start - 0.5, end - start);
    let bin = extent / side as f32;
    let samples = (bin.ceil() as usize).max(1);
    let weight = 1.0 / samples as f32;
    (0..side)
        .map(|index| {
            let mut cell = Cell::new();
            for sample in 0..samples {
                let place = (sample as f32 + 0.5) * bin / samples as f32;
                let position = origin + index as f32 * bin + place;
                for (pixel, share) in neighbours(position, length) {
                    add(&mut cell, pixel, share * weight);
                }
            }
            cell
        })
        .collect()
}

/// Returns the two pixels around a position with their weights; none if the position is more than a pixel outside.
fn neighbours(position: f32, length: usize) -> Vec<(usize, f32)> {
    if position < -1.0 || position > length as f32 {
        return Vec::new();
    }
    let position = position.max(0.0);
    let low = position as usize;
    if low + 1 >= length {
        return vec![(length - 1, 1.0)];
    }
    let share = position - low as f32;
    vec![(low, 1.0 - share), (low + 1, share)]
}

fn add(cell: &mut Cell, pixel: usize, weight: f32) {
    match cell.iter_mut().find(|(known, _)| *known == pixel) {
        Some((_, sum)) => *sum += weight,
        None => cell.push((pixel, weight)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aligned(image: &[f32], size: [usize; 2], bounds: PixelBox, side: usize) -> Vec<f32> {
        let width = size[1];
        let mut out = Vec::new();
        Sampling::new(bounds, size, side).apply(
            width,
            |y, row| row.copy_from_slice(&image[y * width..][..width]),
            &mut out,
        );
        out
    }

    #[test]
    fn a_box_of_as_many_pixels_as_cells_is_copied() {
        let image: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let whole = aligned(&image, [4, 4], [0.0, 0.0, 4.0, 4.0], 4);
        assert_eq!(whole, image);
        let inner = aligned(&image, [4, 4], [1.0, 2.0, 3.0, 4.0], 2);
        assert_eq!(inner, [9.0, 10.0, 13.0, 14.0]);
    }

    #[test]
    fn large_cells_are_means_and_far_outside_is_zero() {
        let image: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let halved = aligned(&image, [4, 4], [0.0, 0.0, 4.0, 4.0], 2);
        assert_eq!(halved, [2.5, 4.5, 10.5, 12.5]);
        let beyond = aligned(&image, [4, 4], [6.0, 6.0, 8.0, 8.0], 2);
        assert_eq!(beyond, [0.0; 4]);
    }
}
