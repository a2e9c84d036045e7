//! Bicubic resize in main memory, separable: four rows and four columns per value.
//!
//! As PyTorch's `bicubic`: half-pixel centres, the kernel with a = −3/4, neighbours clamped to the border, and no
//! antialiasing, also when shrinking. Values can exceed the range of the input.

/// Parameter of the kernel.
const A: f64 = -0.75;

/// The four neighbours of an output position, with their weights.
pub type Taps = ([usize; 4], [f32; 4]);

/// Returns the neighbours of each of `output` positions among `input` positions.
pub fn taps(input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let last = input.saturating_sub(1) as i64;
    (0..output)
        .map(|position| {
            let source = (position as f64 + 0.5) * scale - 0.5;
            let floor = source.floor();
            let fraction = source - floor;
            let first = floor as i64 - 1;
            let places = [0, 1, 2, 3].map(|i| (first + i).clamp(0, last) as usize);
            let weights = [
                outer(fraction + 1.0),
                inner(fraction),
                inner(1.0 - fraction),
                outer(2.0 - fraction),
            ];
            (places, weights.map(|weight| weight as f32))
        })
        .collect()
}

/// Returns the kernel at a distance of at most 1.
fn inner(x: f64) -> f64 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// Returns the kernel at a distance from 1 to 2.
fn outer(x: f64) -> f64 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

/// Resizes a plane `[h, w]`, row-major, to `[height, width]`.
pub fn resize(plane: &[f32], [h, w]: [usize; 2], [height, width]: [usize; 2]) -> Vec<f32> {
    if [h, w] == [height, width] {
        return plane.to_vec();
    }
    let (rows, columns) = (taps(h, height), taps(w, width));
    let mut wide = Vec::with_capacity(h * width); // [h, width]
    for row in plane.chunks_exact(w.max(1)) {
        wide.extend(columns.iter().map(|(places, weights)| {
            let pairs = places.iter().zip(weights);
            pairs
                .map(|(&place, weight)| row[place] * weight)
                .sum::<f32>()
        }));
    }
    let mut values = Vec::with_capacity(height * width);
    for (places, weights) in &rows {
        let lines = places.map(|place| &wide[place * width..][..width]);
        values.extend((0..width).map(|x| {
            let pairs = lines.iter().zip(weights);
            pairs.map(|(line, weight)| line[x] * weight).sum::<f32>()
        }));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_sum_to_one_and_stay_inside() {
        for (input, output) in [(1, 7), (5, 3), (470, 224), (14, 15)] {
            for (places, weights) in taps(input, output) {
                assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                assert!(places.iter().all(|place| *place < input));
            }
        }
    }

    /// A neighbour at a distance of 5/4 has the weight −3/4·(125/64 − 5·25/16 + 10 − 4) = −27/256.
    #[test]
    fn a_step_overshoots_by_the_weight_of_the_far_neighbour() {
        let found = resize(&[0.0, 0.0, 1.0, 1.0], [1, 4], [1, 8]);
        let far = 27.0 / 256.0;
        assert!((found[2] + far).abs() < 1e-6, "{found:?}");
        assert!((found[5] - 1.0 - far).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn the_same_size_is_a_copy() {
        let plane = [0.1, -3.0, 2.0, 7.5, 0.0, 1.0];
        assert_eq!(resize(&plane, [2, 3], [2, 3]), plane);
    }
}
