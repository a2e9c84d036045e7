//! The regions of the ground truth that prompts are learned on: a random part of the box of one class in an image.

use zeg_image::Window;
use zeg_model::resize::nearest_sources;

/// Bounds of the share of the box that a part covers.
const SHARE: (f64, f64) = (0.08, 1.0);
/// Bounds of a part's ratio of width to height, drawn on a logarithmic scale.
const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);
/// Number of parts that are tried.
const TRIES: usize = 10;
/// Number of random numbers that [`part`] takes.
pub const NUMBERS: usize = 2 * TRIES + 2;

/// Returns the box of a class in a label map `[height, width]`; `None` if the class does not occur.
///
/// As in the reference, a box that touches the right or lower border loses its last column or row, unless it has only
/// one.
pub fn class_box(labels: &[u16], class: u16, [height, width]: [usize; 2]) -> Option<Window> {
    let (mut left, mut right, mut top, mut bottom) = (width, 0, height, 0);
    for (y, row) in labels.chunks_exact(width.max(1)).enumerate() {
        let Some(first) = row.iter().position(|label| *label == class) else {
            continue;
        };
        let last = row.iter().rposition(|label| *label == class);
        (left, right) = (left.min(first), right.max(last.unwrap_or(first) + 1));
        (top, bottom) = (top.min(y), y + 1);
    }
    let (right, bottom) = (right.min(width - 1), bottom.min(height - 1));
    (left < width && top < height).then(|| Window {
        x: left,
        y: top,
        width: right.saturating_sub(left).max(1),
        height: bottom.saturating_sub(top).max(1),
    })
}

/// Draws a part of a box: its share of the area, its shape and its place are random.
///
/// If none of ten parts fits into the box, it is the largest centred one whose shape is allowed.
///
/// - `numbers`: uniform in 0..1, [`NUMBERS`] of them
pub fn part(within: Window, numbers: &[f32]) -> Window {
    let number = |index: usize| f64::from(numbers.get(index).copied().unwrap_or(0.5));
    let between = |(low, high): (f64, f64), share: f64| low + (high - low) * share;
    let (w, h) = (within.width as f64, within.height as f64);
    for attempt in 0..TRIES {
        let area = w * h * between(SHARE, number(2 * attempt));
        let ratio = between((RATIO.0.ln(), RATIO.1.ln()), number(2 * attempt + 1)).exp();
        let width = (area * ratio).sqrt().round() as usize;
        let height = (area / ratio).sqrt().round() as usize;
        if (1..=within.width).contains(&width) && (1..=within.height).contains(&height) {
            let place = |room: usize, share: f64| ((room + 1) as f64 * share) as usize;
            let (rows, columns) = (within.height - height, within.width - width);
            return Window {
                x: within.x + place(columns, number(2 * TRIES)).min(columns),
                y: within.y + place(rows, number(2 * TRIES + 1)).min(rows),
                width,
                height,
            };
        }
    }
    let ratio = (w / h).clamp(RATIO.0, RATIO.1);
    let width = ((h * ratio).round() as usize).clamp(1, within.width);
    let height = ((w / ratio).round() as usize).clamp(1, within.height);
    Window {
        x: within.x + (within.width - width) / 2,
        y: within.y + (within.height - height) / 2,
        width,
        height,
    }
}

/// Cuts a window out of an image `[3, height, width]` and resizes it, as Pillow does: bilinear, over all pixels that an
/// output pixel covers where it shrinks. Returns `[3, to.0, to.1]`.
pub fn cut_image(image: &[f32], size: [usize; 2], window: Window, to: [usize; 2]) -> Vec<f32> {
    let (rows, columns) = (cells(window.height, to[0]), cells(window.width, to[1]));
    let mut values = Vec::with_capacity(3 * to[0] * to[1]);
    for plane in image.chunks_exact((size[0] * size[1]).max(1)) {
        let lines = plane.chunks_exact(size[1].max(1));
        let lines = lines.skip(window.y).take(window.height);
        let wide: Vec<Vec<f32>> = lines
            .map(|line| {
                let line = &line[window.x..][..window.width];
                let value = |(first, weights): &(usize, Vec<f32>)| {
                    let pairs = weights.iter().zip(&line[*first..]);
                    pairs.map(|(weight, value)| weight * value).sum()
                };
                columns.iter().map(value).collect()
            })
            .collect();
        for (first, weights) in &rows {
            values.extend((0..to[1]).map(|x| {
                let pairs = weights.iter().zip(&wide[*first..]);
                pairs.map(|(weight, line)| weight * line[x]).sum::<f32>()
            }));
        }
    }
    values
}

/// Returns, for each of `output` positions, the first of the `input` positions that it is the mean of, and their weights.
fn cells(input: usize, output: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = input as f64 / output as f64;
    let reach = scale.max(1.0); // half of a triangle's base
    let cell = |position: usize| {
        let centre = (position as f64 + 0.5) * scale;
        let first = ((centre - reach + 0.5).max(0.0)) as usize;
        let end = ((centre + reach + 0.5) as usize).min(input);
        let first = first.min(end.saturating_sub(1));
        let weight = |place: usize| (1.0 - ((place as f64 + 0.5 - centre) / reach).abs()).max(0.0);
        let sum: f64 = (first..end).map(weight).sum();
        let weights = (first..end).map(|place| (weight(place) / sum.max(f64::MIN_POSITIVE)) as f32);
        (first, weights.collect())
    };
    (0..output).map(cell).collect()
}

/// Returns which pixels of a resized window have a class, by sampling pixels as PyTorch's `nearest` does: `[to.0, to.1]`.
pub fn cut_class(
    labels: &[u16],
    class: u16,
    width: usize,
    window: Window,
    to: [usize; 2],
) -> Vec<bool> {
    let rows = nearest_sources(window.height, to[0]);
    let columns = nearest_sources(window.width, to[1]);
    let mut inside = Vec::with_capacity(to[0] * to[1]);
    for row in rows {
        let line = &labels[(window.y + row) * width + window.x..][..window.width];
        inside.extend(columns.iter().map(|&column| line[column] == class));
    }
    inside
}

/// Gives all pixels outside of a mask a colour, in place.
///
/// - `region`: `[3, height, width]`
/// - `inside`: `[height, width]`
pub fn mask_out(region: &mut [f32], inside: &[bool], colour: [f32; 3]) {
    let planes = region.chunks_exact_mut(inside.len().max(1));
    for (plane, colour) in planes.zip(colour) {
        for (value, inside) in plane.iter_mut().zip(inside) {
            if !inside {
                *value = colour;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(x: usize, y: usize, width: usize, height: usize) -> Window {
        Window {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn a_box_holds_the_class_and_loses_a_line_at_the_lower_right_border() {
        let mut labels = vec![0; 20];
        for place in [6, 7, 12] {
            labels[place] = 3;
        }
        assert_eq!(class_box(&labels, 3, [4, 5]), Some(window(1, 1, 2, 2)));
        assert_eq!(class_box(&labels, 0, [4, 5]), Some(window(0, 0, 4, 3)));
        assert_eq!(class_box(&labels, 9, [4, 5]), None);
        labels[19] = 4;
        assert_eq!(class_box(&labels, 4, [4, 5]), Some(window(4, 3, 1, 1)));
    }

    #[test]
    fn a_part_stays_inside_of_its_box() {
        for seed in 0_u8..200 {
            let number = |index: usize| {
                let mixed = (index * 2_654_435_761 + usize::from(seed) * 40_503) % 1000;
                mixed as f32 / 1000.0
            };
            let numbers: Vec<f32> = (0..NUMBERS).map(number).collect();
            for within in [
                window(3, 5, 40, 30),
                window(0, 0, 1, 90),
                window(2, 2, 1, 1),
            ] {
                let part = part(within, &numbers);
                assert!(part.width >= 1 && part.height >= 1);
                assert!(part.x >= within.x && part.y >= within.y);
                assert!(part.x + part.width <= within.x + within.width, "{part:?}");
                assert!(part.y + part.height <= within.y + within.height, "{part:?}");
            }
        }
    }

    #[test]
    fn shrinking_takes_all_pixels_and_copies_stay_equal() {
        let image: Vec<f32> = (0..3 * 16).map(|v| v as f32).collect();
        let copy = cut_image(&image, [4, 4], window(0, 0, 4, 4), [4, 4]);
        assert_eq!(copy, image);
        let inner = cut_image(&image, [4, 4], window(1, 2, 2, 2), [2, 2]);
        assert_eq!(inner[..4], [9.0, 10.0, 13.0, 14.0]);
        let mean = cut_image(&image, [4, 4], window(0, 0, 4, 4), [1, 1]);
        assert!((mean[0] - 7.5).abs() < 1e-5, "{mean:?}");
    }

    #[test]
    fn pixels_outside_get_the_colour() {
        let labels = [1, 2, 2, 1];
        let inside = cut_class(&labels, 2, 2, window(0, 0, 2, 2), [2, 2]);
        assert_eq!(inside, [false, true, true, false]);
        let mut region = vec![9.0; 12];
        mask_out(&mut region, &inside, [0.5, 0.25, 0.0]);
        assert_eq!(region[..4], [0.5, 9.0, 9.0, 0.5]);
        assert_eq!(region[8..], [0.0, 9.0, 9.0, 0.0]);
    }
}
