//! Plans the windows of sliding-window inference, for images larger than the model's input.
//!
//! Windows start at the top left and advance by `stride`. The last window of a row or column is shifted back so that it
//! ends at the image's edge, as in mmsegmentation's `slide_inference`. Scores of overlapping windows are averaged
//! later, so no padding is needed.

/// One window of an image: columns `x .. x + width`, rows `y .. y + height`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// First column.
    pub x: usize,
    /// First row.
    pub y: usize,
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
}

/// Plans the windows over an image of `width`×`height` pixels, row by row, each row from left to right.
///
/// `crop` is the side of the square window and `stride` the step between neighbours, both in pixels. An axis has
/// `max(0, ceil((size − crop) / stride)) + 1` windows. If the image is smaller than `crop` along an axis, the windows
/// are as long as the image there. `stride` is clamped to `1..=crop`, because a larger one would leave gaps and 0 would
/// never advance. An empty image (or `crop == 0`) has no windows.
pub fn sliding_windows(width: usize, height: usize, crop: usize, stride: usize) -> Vec<Window> {
    if width == 0 || height == 0 || crop == 0 {
        return Vec::new();
    }
    let columns = spans(width, crop, stride);
    let rows = spans(height, crop, stride);
    rows.iter()
        .flat_map(|&(y, height)| {
            columns.iter().map(move |&(x, width)| Window {
                x,
                y,
                width,
                height,
            })
        })
        .collect()
}

/// Returns the windows along one axis as `(start, length)`, in order.
fn spans(size: usize, crop: usize, stride: usize) -> Vec<(usize, usize)> {
    let stride = stride.clamp(1, crop);
    let length = crop.min(size);
    let last_start = size - length;
    let count = last_start.div_ceil(stride) + 1;
    (0..count)
        .map(|step| ((step * stride).min(last_start), length))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_window_is_shifted_back_to_the_edge() {
        let starts: Vec<_> = sliding_windows(1000, 512, 512, 426)
            .into_iter()
            .map(|w| (w.x, w.y))
            .collect();
        assert_eq!(starts, [(0, 0), (426, 0), (488, 0)]);
    }

    #[test]
    fn windows_are_ordered_row_by_row() {
        let starts: Vec<_> = sliding_windows(6, 6, 4, 2)
            .into_iter()
            .map(|w| (w.x, w.y))
            .collect();
        assert_eq!(starts, [(0, 0), (2, 0), (0, 2), (2, 2)]);
    }

    #[test]
    fn a_small_image_is_one_window_of_its_own_size() {
        let whole = Window {
            x: 0,
            y: 0,
            width: 300,
            height: 200,
        };
        assert_eq!(sliding_windows(300, 200, 512, 426), [whole]);
    }

    #[test]
    fn an_empty_image_has_no_windows() {
        assert!(sliding_windows(0, 5, 4, 2).is_empty());
        assert!(sliding_windows(5, 5, 0, 2).is_empty());
    }

    proptest! {
        #[test]
        fn windows_cover_every_pixel_and_stay_inside(
            width in 1usize..90, height in 1usize..90, crop in 1usize..40, stride in 0usize..50,
        ) {
            let windows = sliding_windows(width, height, crop, stride);
            let mut covered = vec![false; width * height];
            for w in &windows {
                prop_assert_eq!((w.width, w.height), (crop.min(width), crop.min(height)));
                prop_assert!(w.x + w.width <= width && w.y + w.height <= height);
                for y in w.y..w.y + w.height {
                    covered[y * width + w.x..y * width + w.x + w.width].fill(true);
                }
            }
            prop_assert!(covered.into_iter().all(|covered| covered));
        }

        #[test]
        fn the_number_of_windows_follows_the_published_formula(
            width in 1i64..400, height in 1i64..300, crop in 1i64..200, overlap in 0i64..199,
        ) {
            let stride = (crop - overlap).max(1);
            // The formula is from mmsegmentation 0.24, `EncoderDecoder.slide_inference`.
            let grids = |size: i64| (size - crop + stride - 1).max(0) / stride + 1;
            let windows = sliding_windows(width as usize, height as usize, crop as usize, stride as usize);
            prop_assert_eq!(windows.len() as i64, grids(width) * grids(height));
        }
    }
}
