//! Fisher's linear discriminant of every class, with one covariance for all.
//!
//! Fisher, "The use of multiple measurements in taxonomic problems", Annals of Eugenics 1936. With the mean m of the
//! patches of a class, the mean n of the patches that are not of it, and the covariance Σ of patches around the means of
//! their classes, w = Σ⁻¹(m − n) is scaled so that the discriminant is 0 at n and 1 at m.

use rayon::prelude::*;

use super::{ExampleFeatures, ExampleOptions};

/// Least variance that is added, so that equal patches have a discriminant, too.
const LEAST_VARIANCE: f64 = 1e-6;

/// The patches of a class.
pub(super) struct Samples {
    /// Patches inside the masks, with weights that add up to 1: the images count alike, and so do patches of an image.
    inside: Vec<(f64, Vec<f64>)>,
    /// Mean of the patches inside.
    mean: Vec<f64>,
    /// Mean of the patches outside the masks; `None` if there are none.
    outside: Option<Vec<f64>>,
}

impl Samples {
    /// Collects the patches of a class.
    pub(super) fn of(examples: &[ExampleFeatures], dim: usize) -> Self {
        let images = examples.len().max(1) as f64;
        let mut inside = Vec::new();
        for example in examples {
            let count = example.inside().count().max(1) as f64;
            let weight = 1.0 / (images * count);
            inside.extend(example.inside().map(|row| (weight, doubles(row))));
        }
        let mean = weighted_mean(inside.iter().map(|(weight, row)| (*weight, &row[..])), dim);
        let rows: Vec<Vec<f64>> = examples
            .iter()
            .flat_map(ExampleFeatures::outside)
            .map(doubles)
            .collect();
        let weight = 1.0 / rows.len().max(1) as f64;
        let outside = (!rows.is_empty())
            .then(|| weighted_mean(rows.iter().map(|row| (weight, &row[..])), dim));
        Self {
            inside,
            mean,
            outside,
        }
    }

    fn is_empty(&self) -> bool {
        self.inside.is_empty()
    }
}

fn doubles(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&value| f64::from(value)).collect()
}

fn weighted_mean<'a>(rows: impl Iterator<Item = (f64, &'a [f64])>, dim: usize) -> Vec<f64> {
    let mut mean = vec![0.0; dim];
    for (weight, row) in rows {
        for (mean, value) in mean.iter_mut().zip(row) {
            *mean += weight * value;
        }
    }
    mean
}

/// The discriminants of all classes.
pub(super) struct Discriminant {
    /// `[classes, dim]`; zeros for a class without examples
    pub(super) weights: Vec<f64>,
    /// `[classes]`
    pub(super) bias: Vec<f64>,
}

impl Discriminant {
    /// Fits the discriminants.
    pub(super) fn fit(classes: &[Samples], dim: usize, options: ExampleOptions) -> Self {
        let mut weights = vec![0.0; classes.len() * dim];
        let mut bias = vec![0.0; classes.len()];
        let factor = Factor::of(covariance(classes, dim, options.shrinkage), dim);
        for (class, samples) in classes.iter().enumerate() {
            let Some(other) = mean_of_others(classes, class, dim, options.outside) else {
                continue;
            };
            let difference: Vec<f64> = samples
                .mean
                .iter()
                .zip(&other)
                .map(|(m, n)| m - n)
                .collect();
            let direction = factor.solve(&difference);
            let distance = dot(&direction, &difference); // squared Mahalanobis distance of the means
            if distance <= 0.0 {
                continue;
            }
            let row = &mut weights[class * dim..][..dim];
            for (weight, value) in row.iter_mut().zip(&direction) {
                *weight = value / distance;
            }
            bias[class] = -dot(row, &other);
        }
        Self { weights, bias }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Returns the mean of what is not of a class: the means of the other classes, and the rest of its own example images;
/// `None` if the class has no examples, or there is nothing else.
fn mean_of_others(classes: &[Samples], class: usize, dim: usize, share: f64) -> Option<Vec<f64>> {
    let own = classes.get(class).filter(|samples| !samples.is_empty())?;
    let others: Vec<&Samples> = classes
        .iter()
        .enumerate()
        .filter(|(other, samples)| *other != class && !samples.is_empty())
        .map(|(_, samples)| samples)
        .collect();
    let weight = 1.0 / others.len().max(1) as f64;
    let of_others = weighted_mean(
        others.iter().map(|samples| (weight, &samples.mean[..])),
        dim,
    );
    match (&own.outside, others.is_empty()) {
        (None, true) => None,
        (Some(outside), true) => Some(outside.clone()),
        (None, false) => Some(of_others),
        (Some(outside), false) => Some(
            outside
                .iter()
                .zip(&of_others)
                .map(|(outside, others)| share * outside + (1.0 - share) * others)
                .collect(),
        ),
    }
}

/// Returns the covariance of patches around the means of their classes, every class with the same weight, plus the
/// shrinkage on the diagonal: `[dim, dim]`.
fn covariance(classes: &[Samples], dim: usize, shrinkage: f64) -> Vec<f64> {
    let given: Vec<&Samples> = classes
        .iter()
        .filter(|samples| !samples.is_empty())
        .collect();
    let of_class = 1.0 / given.len().max(1) as f64;
    let rows: Vec<(f64, Vec<f64>)> = given
        .iter()
        .flat_map(|samples| {
            samples.inside.iter().map(move |(weight, row)| {
                let centred = row
                    .iter()
                    .zip(&samples.mean)
                    .map(|(value, mean)| value - mean);
                (weight * of_class, centred.collect())
            })
        })
        .collect();
    let mut covariance = vec![0.0; dim * dim];
    // Every row of the matrix is one thread's own sum in a fixed order, so that threads do not change it.
    covariance
        .par_chunks_exact_mut(dim.max(1))
        .enumerate()
        .for_each(|(channel, sums)| {
            for (weight, row) in &rows {
                let scale = weight * row[channel];
                for (sum, value) in sums.iter_mut().zip(row) {
                    *sum += scale * value;
                }
            }
        });
    let trace: f64 = (0..dim)
        .map(|channel| covariance[channel * dim + channel])
        .sum();
    let added = (shrinkage * trace / dim.max(1) as f64).max(LEAST_VARIANCE);
    for channel in 0..dim {
        covariance[channel * dim + channel] += added;
    }
    covariance
}

/// The Cholesky factor L of a positive definite matrix, L·Lᵀ.
struct Factor {
    dim: usize,
    /// `[dim, dim]`, lower triangle
    lower: Vec<f64>,
}

impl Factor {
    /// Factorises a matrix `[dim, dim]`.
    fn of(mut matrix: Vec<f64>, dim: usize) -> Self {
        for column in 0..dim {
            let (above, below) = matrix.split_at_mut((column + 1) * dim);
            let own = &mut above[column * dim..];
            let left: f64 = own[..column].iter().map(|value| value * value).sum();
            // Shrinkage keeps the pivot positive; rounding could not make it smaller than this.
            let pivot = (own[column] - left).max(f64::MIN_POSITIVE).sqrt();
            own[column] = pivot;
            let own = &own[..column];
            below.par_chunks_exact_mut(dim).for_each(|row| {
                row[column] = (row[column] - dot(&row[..column], own)) / pivot;
            });
        }
        Self { dim, lower: matrix }
    }

    /// Solves L·Lᵀ·x = `right`.
    fn solve(&self, right: &[f64]) -> Vec<f64> {
        let row = |index: usize| &self.lower[index * self.dim..][..self.dim];
        let mut x = right.to_vec();
        for index in 0..self.dim {
            x[index] = (x[index] - dot(&row(index)[..index], &x[..index])) / row(index)[index];
        }
        for index in (0..self.dim).rev() {
            x[index] /= row(index)[index];
            let (before, value) = (&row(index)[..index], x[index]);
            for (x, factor) in x[..index].iter_mut().zip(before) {
                *x -= factor * value;
            }
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_solves_its_equations() {
        let matrix = vec![4.0, 2.0, 0.4, 2.0, 5.0, 1.0, 0.4, 1.0, 3.0];
        let x = Factor::of(matrix.clone(), 3).solve(&[1.0, -2.0, 0.5]);
        let back: Vec<f64> = matrix.chunks_exact(3).map(|row| dot(row, &x)).collect();
        for (found, expected) in back.iter().zip([1.0, -2.0, 0.5]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    #[test]
    fn the_discriminant_is_1_at_the_own_mean_and_0_at_that_of_the_others() {
        let example = |inside: &[[f32; 2]]| ExampleFeatures::new(2, inside.concat(), Vec::new());
        let one = [example(&[[1.0, 0.0], [0.8, 0.2]])];
        let other = [example(&[[0.0, 1.0], [0.0, 0.6]])];
        let samples = [
            Samples::of(&one, 2),
            Samples::of(&other, 2),
            Samples::of(&[], 2),
        ];
        let layer = Discriminant::fit(&samples, 2, ExampleOptions::default());
        let value = |class: usize, at: [f64; 2]| {
            dot(&layer.weights[class * 2..][..2], &at) + layer.bias[class]
        };
        assert!((value(0, [0.9, 0.1]) - 1.0).abs() < 1e-6 && value(0, [0.0, 0.8]).abs() < 1e-6);
        assert!((value(1, [0.0, 0.8]) - 1.0).abs() < 1e-6 && value(1, [0.9, 0.1]).abs() < 1e-6);
        assert_eq!((value(2, [0.3, 0.4]), layer.bias[2]), (0.0, 0.0));
    }

    /// A single class has only the rest of its own images to differ from; without one, nothing is fitted.
    #[test]
    fn a_single_class_differs_from_the_rest_of_its_images() {
        let alone = [ExampleFeatures::new(2, vec![1.0, 0.0], Vec::new())];
        let layer = Discriminant::fit(&[Samples::of(&alone, 2)], 2, ExampleOptions::default());
        assert_eq!(
            (&layer.weights[..], &layer.bias[..]),
            (&[0.0, 0.0][..], &[0.0][..])
        );
        let with_rest = [ExampleFeatures::new(2, vec![1.0, 0.0], vec![0.0, 1.0])];
        let layer = Discriminant::fit(&[Samples::of(&with_rest, 2)], 2, ExampleOptions::default());
        assert!((layer.weights[0] + layer.bias[0] - 1.0).abs() < 1e-6);
        assert!((layer.weights[1] + layer.bias[0]).abs() < 1e-6);
    }
}
