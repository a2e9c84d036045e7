//! Pixel-adaptive mask refinement (PAMR): scores follow the colours of the image.
//!
//! Araslanov, Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020. Pixel i takes the
//! mean of its neighbours' scores, m_i ← Σ_j α_ij·m_j, several times. The neighbours are the eight directions at several
//! distances, and their weights follow the colours: α_ij is the softmax over j of −mean_c |x_ic − x_jc| / (s·σ_ic), where
//! x are the pixels from 0 to 1, c the colour channels, and σ_ic the standard deviation of the pixel and its neighbours.
//! A neighbour outside the image is the nearest pixel inside.

use rayon::prelude::*;
use zeg_image::RgbImage;

/// Distances of the neighbours in pixels.
const DISTANCES: [isize; 6] = [1, 2, 4, 8, 12, 24];
/// The largest of [`DISTANCES`].
const MARGIN: usize = 24;
/// Number of times that every pixel takes the mean of its neighbours.
const STEPS: usize = 10;
/// Factor s on the standard deviation: smaller values follow colours more closely.
const SOFTNESS: f32 = 0.1;
/// Added to the standard deviation, which is 0 where all pixels are equal.
const EPSILON: f32 = 1e-8;

/// The weights of all neighbours of all pixels of an image.
pub(crate) struct Pamr {
    height: usize,
    width: usize,
    /// `[height, neighbours, width]`
    weights: Vec<f32>,
}

/// Returns row and column offsets of the neighbours.
fn neighbours() -> Vec<[isize; 2]> {
    const DIRECTIONS: [[isize; 2]; 8] = [
        [-1, -1],
        [-1, 0],
        [-1, 1],
        [0, -1],
        [0, 1],
        [1, -1],
        [1, 0],
        [1, 1],
    ];
    let at = |distance: isize| DIRECTIONS.map(|sides| sides.map(|side| side * distance));
    DISTANCES.into_iter().flat_map(at).collect()
}

/// Maps whose rows have [`MARGIN`] copies of their first and last value on each side.
struct Padded {
    height: usize,
    width: usize,
    /// `[maps, height, width + 2 · MARGIN]`
    values: Vec<f32>,
}

impl Padded {
    /// Copies maps `[maps, height, width]`.
    fn new(maps: &[f32], [height, width]: [usize; 2]) -> Self {
        let stride = width + 2 * MARGIN;
        let mut values = vec![0.0; maps.len() / width.max(1) * stride];
        let rows = values.par_chunks_exact_mut(stride);
        rows.zip(maps.par_chunks_exact(width.max(1)))
            .for_each(|(padded, row)| {
                padded[MARGIN..MARGIN + width].copy_from_slice(row);
                extend_sides(padded);
            });
        Self {
            height,
            width,
            values,
        }
    }

    fn stride(&self) -> usize {
        self.width + 2 * MARGIN
    }

    /// Returns the row of a map that lies `[rows, columns]` away from row `row`, `[width]`.
    fn shifted(&self, map: usize, row: usize, [down, right]: [isize; 2]) -> &[f32] {
        let row = row
            .saturating_add_signed(down)
            .min(self.height.saturating_sub(1));
        let start = (map * self.height + row) * self.stride();
        &self.values[start + MARGIN.saturating_add_signed(right)..][..self.width]
    }
}

/// Copies the first and the last value of a padded row into its margins.
fn extend_sides(row: &mut [f32]) {
    let last = row.len() - MARGIN;
    let (first, end) = (row[MARGIN], row[last - 1]);
    row[..MARGIN].fill(first);
    row[last..].fill(end);
}

impl Pamr {
    /// Numbers that are kept for a pixel, besides the maps.
    pub(crate) const NUMBERS_A_PIXEL: usize = 8 * DISTANCES.len() + 3;

    /// Computes the weights for an image.
    pub(crate) fn new(image: &RgbImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let mut planes = vec![0.0_f32; 3 * height * width]; // [3, height, width]
        for (index, pixel) in image.as_raw().chunks_exact(3).enumerate() {
            for (channel, &value) in pixel.iter().enumerate() {
                planes[channel * height * width + index] = f32::from(value) / 255.0;
            }
        }
        Self::of_planes(&planes, [height, width])
    }

    /// Computes the weights for colour planes `[3, height, width]`.
    fn of_planes(planes: &[f32], [height, width]: [usize; 2]) -> Self {
        let padded = Padded::new(planes, [height, width]);
        let offsets = neighbours();
        let mut weights = vec![0.0; height * offsets.len() * width];
        weights
            .par_chunks_mut((offsets.len() * width).max(1))
            .enumerate()
            .for_each(|(row, weights)| {
                for channel in 0..3 {
                    add_differences(&padded, channel, row, &offsets, weights);
                }
                softmax_over_rows(weights, width);
            });
        Self {
            height,
            width,
            weights,
        }
    }

    /// Refines maps `[maps, height, width]` of the image's size.
    pub(crate) fn refine(&self, maps: &[f32]) -> Vec<f32> {
        let offsets = neighbours();
        let mut current = Padded::new(maps, [self.height, self.width]);
        let stride = current.stride();
        let mut next = vec![0.0; current.values.len()];
        for _ in 0..STEPS {
            next.par_chunks_exact_mut(stride)
                .enumerate()
                .for_each(|(line, target)| {
                    let (map, row) = (line / self.height, line % self.height);
                    let inner = &mut target[MARGIN..MARGIN + self.width];
                    inner.fill(0.0);
                    let weights =
                        self.weights[row * offsets.len() * self.width..].chunks_exact(self.width);
                    for (&offset, weights) in offsets.iter().zip(weights) {
                        let source = current.shifted(map, row, offset);
                        for ((value, weight), source) in inner.iter_mut().zip(weights).zip(source) {
                            *value += weight * source;
                        }
                    }
                    extend_sides(target);
                });
            std::mem::swap(&mut current.values, &mut next);
        }
        let inner = |row: &[f32]| row[MARGIN..MARGIN + self.width].to_vec();
        current
            .values
            .chunks_exact(stride)
            .flat_map(inner)
            .collect()
    }
}

/// Subtracts a channel's third of the scaled colour differences from `weights`, `[neighbours, width]`.
fn add_differences(
    planes: &Padded,
    channel: usize,
    row: usize,
    offsets: &[[isize; 2]],
    weights: &mut [f32],
) {
    let width = planes.width;
    let own = planes.shifted(channel, row, [0, 0]);
    let count = (offsets.len() + 1) as f32;
    let mut means = own.to_vec();
    for &offset in offsets {
        let values = planes.shifted(channel, row, offset);
        means.iter_mut().zip(values).for_each(|(m, v)| *m += v);
    }
    for mean in &mut means {
        *mean /= count;
    }
    let square = |value: f32, mean: f32| (value - mean) * (value - mean);
    let mut spreads: Vec<f32> = own
        .iter()
        .zip(&means)
        .map(|(&v, &m)| square(v, m))
        .collect();
    for &offset in offsets {
        let values = planes.shifted(channel, row, offset).iter().zip(&means);
        for (spread, (&value, &mean)) in spreads.iter_mut().zip(values) {
            *spread += square(value, mean);
        }
    }
    // One third of a channel's difference, over the softness times the sample's standard deviation.
    for spread in &mut spreads {
        *spread = 1.0 / (3.0 * (EPSILON + SOFTNESS * (*spread / (count - 1.0)).sqrt()));
    }
    for (&offset, weights) in offsets.iter().zip(weights.chunks_exact_mut(width)) {
        let values = planes.shifted(channel, row, offset);
        for (x, weight) in weights.iter_mut().enumerate() {
            *weight -= (values[x] - own[x]).abs() * spreads[x];
        }
    }
}

/// Computes a softmax over the rows of `values`, `[rows, width]`, in place.
fn softmax_over_rows(values: &mut [f32], width: usize) {
    let width = width.max(1);
    let mut highest = vec![f32::NEG_INFINITY; width];
    for row in values.chunks_exact(width) {
        highest
            .iter_mut()
            .zip(row)
            .for_each(|(h, v)| *h = h.max(*v));
    }
    let mut sums = vec![0.0_f32; width];
    for row in values.chunks_exact_mut(width) {
        for ((value, highest), sum) in row.iter_mut().zip(&highest).zip(&mut sums) {
            *value = (*value - highest).exp();
            *sum += *value;
        }
    }
    for row in values.chunks_exact_mut(width) {
        row.iter_mut().zip(&sums).for_each(|(v, sum)| *v /= sum);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::weights::StateDict;

    /// Golden numbers: `python reference/training_free_refined.py` (float64).
    #[test]
    fn refined_maps_are_those_of_the_reference() {
        let path = "tests/golden/training_free_refined.safetensors";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let golden = StateDict::open(&path, &[]).unwrap();
        let read = |name: &str| golden.read(name).unwrap().unwrap();
        let pixels = read("pamr.pixels");
        let [height, width] = [pixels.shape[1], pixels.shape[2]];
        let plane = height * width;
        let bytes =
            (0..plane).flat_map(|index| [0, 1, 2].map(|c| pixels.values[c * plane + index] as u8));
        let image = RgbImage::from_raw(width as u32, height as u32, bytes.collect()).unwrap();
        let refined = Pamr::new(&image).refine(&read("pamr.maps").values);
        let expected = read("pamr.refined").values;
        assert_eq!(refined.len(), expected.len());
        for (found, expected) in refined.iter().zip(expected) {
            assert!((found - expected).abs() < 2e-5, "{found} {expected}");
        }
    }

    #[test]
    fn equal_colours_spread_and_constants_stay() {
        let flat = RgbImage::new(9, 5);
        let refined = Pamr::new(&flat).refine(&[0.25; 45]);
        assert!(refined.iter().all(|value| (value - 0.25).abs() < 1e-5));
        let mut maps = vec![0.0; 45];
        maps[22] = 1.0;
        let spread = Pamr::new(&flat).refine(&maps);
        assert!(
            spread.iter().all(|&value| value > 0.0 && value < 0.2),
            "{spread:?}"
        );
        let single = RgbImage::new(1, 1);
        assert_eq!(Pamr::new(&single).refine(&[0.5]).len(), 1);
    }
}
