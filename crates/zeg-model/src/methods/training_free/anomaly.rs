//! Anomaly tokens: patches of the penultimate block that are unlike all others, found and repaired.
//!
//! Bai et al., "Self-Calibrated CLIP for Training-Free Open-Vocabulary Segmentation" (SC-CLIP), arXiv 2411.15869. A
//! few patch tokens lie far from the others; every patch attends to them, and they say nothing about
//! their own place. They are found by the local outlier factor (Breunig et al., SIGMOD 2000), and each becomes the mean
//! of those of its eight neighbours that are no anomalies.

use burn::tensor::{Tensor, TensorData};

use crate::{ModelError, scores::host};

/// Number of neighbours that the local outlier factor compares a token with.
pub const NEIGHBOURS: usize = 10;
/// Share of the patches that are repaired.
pub const SHARE: f64 = 0.05;
/// Added to mean reachability distances, which are 0 where tokens are equal.
pub const EPSILON: f32 = 1e-10;

/// Replaces the anomaly tokens among the patches: `[batch, 1 + h·w, width]` → the same shape.
///
/// # Errors
/// Returns an error if the device cannot be read.
pub(super) fn repaired(tokens: Tensor<3>, grid: [usize; 2]) -> Result<Tensor<3>, ModelError> {
    let [batch, length, _] = tokens.dims();
    let patches = tokens.clone().narrow(1, 1, length - 1);
    let distances = host(distances(patches))?; // [batch, h·w, h·w]
    let count = length - 1;
    let mut repair = Vec::with_capacity(batch * length * length);
    for distances in distances.chunks_exact((count * count).max(1)) {
        let anomalies = largest(&outlier_factors(distances, count));
        repair.extend(repair_matrix(&anomalies, grid));
    }
    let shape = [batch, length, length];
    let repair = Tensor::<3>::from_data(TensorData::new(repair, shape), &tokens.device());
    Ok(repair.matmul(tokens))
}

/// Computes Euclidean distances between tokens: `[batch, tokens, width]` → `[batch, tokens, tokens]`.
fn distances(tokens: Tensor<3>) -> Tensor<3> {
    // Distances do not change with the mean, and smaller numbers leave less rounding.
    let tokens = tokens.clone() - tokens.mean_dim(1);
    let squares = tokens.clone().square().sum_dim(2); // [batch, tokens, 1]
    let products = tokens.clone().matmul(tokens.swap_dims(1, 2));
    let squared = squares.clone() + squares.swap_dims(1, 2) - products * 2.0;
    squared.clamp_min(0.0).sqrt()
}

/// Computes the local outlier factor of every token; 1 in the middle of a cluster, more outside.
///
/// - `distances`: `[tokens, tokens]`
fn outlier_factors(distances: &[f32], tokens: usize) -> Vec<f32> {
    let neighbours: Vec<Vec<usize>> = (0..tokens)
        .map(|token| nearest(&distances[token * tokens..][..tokens], token))
        .collect();
    let at = |from: usize, to: usize| distances[from * tokens + to];
    // The distance to the farthest of the nearest neighbours.
    let reach: Vec<f32> = (0..tokens)
        .map(|token| neighbours[token].last().map_or(0.0, |&far| at(token, far)))
        .collect();
    let mean = |values: &mut dyn Iterator<Item = f32>, count: usize| {
        values.sum::<f32>() / count.max(1) as f32
    };
    let density: Vec<f32> = (0..tokens)
        .map(|token| {
            let near = &neighbours[token];
            let mut reached = near.iter().map(|&other| at(token, other).max(reach[other]));
            1.0 / (mean(&mut reached, near.len()) + EPSILON)
        })
        .collect();
    (0..tokens)
        .map(|token| {
            let near = &neighbours[token];
            mean(&mut near.iter().map(|&other| density[other]), near.len()) / density[token]
        })
        .collect()
}

/// Returns the [`NEIGHBOURS`] tokens nearest to `token`, the nearest first.
fn nearest(distances: &[f32], token: usize) -> Vec<usize> {
    let mut others: Vec<usize> = (0..distances.len())
        .filter(|&other| other != token)
        .collect();
    others.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]));
    others.truncate(NEIGHBOURS);
    others
}

/// Returns for every patch whether it is among the [`SHARE`] of patches with the largest factors; at least one is.
fn largest(factors: &[f32]) -> Vec<bool> {
    let count = ((factors.len() as f64 * SHARE).round() as usize).max(1);
    let mut order: Vec<usize> = (0..factors.len()).collect();
    order.sort_by(|&a, &b| factors[b].total_cmp(&factors[a]));
    let mut anomalies = vec![false; factors.len()];
    for &patch in order.iter().take(count) {
        anomalies[patch] = true;
    }
    anomalies
}

/// Returns the matrix that repairs tokens from the left, `[1 + h·w, 1 + h·w]`: the identity, except for the rows of
/// anomalies, which take the mean of their sound neighbours. An anomaly without a sound neighbour stays.
fn repair_matrix(anomalies: &[bool], [h, w]: [usize; 2]) -> Vec<f32> {
    let length = 1 + h * w;
    let mut matrix = vec![0.0; length * length];
    for (token, row) in matrix.chunks_exact_mut(length).enumerate() {
        let patch = token.checked_sub(1);
        let sound = match patch.filter(|&patch| anomalies[patch]) {
            Some(patch) => sound_neighbours(anomalies, patch, [h, w]),
            None => Vec::new(),
        };
        if sound.is_empty() {
            row[token] = 1.0;
        }
        for neighbour in &sound {
            row[1 + neighbour] = 1.0 / sound.len() as f32;
        }
    }
    matrix
}

/// Returns the patches of the 3×3 neighbourhood that are no anomalies.
fn sound_neighbours(anomalies: &[bool], patch: usize, [h, w]: [usize; 2]) -> Vec<usize> {
    let (y, x) = (patch / w, patch % w);
    let rows = y.saturating_sub(1)..(y + 2).min(h);
    rows.flat_map(|row| (x.saturating_sub(1)..(x + 2).min(w)).map(move |column| row * w + column))
        .filter(|&other| !anomalies[other])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_far_from_the_others_has_the_largest_factor() {
        let places: Vec<f32> = (0..15).map(|i| i as f32).chain([40.0]).collect();
        let distances: Vec<f32> = places
            .iter()
            .flat_map(|a| places.iter().map(move |b| (a - b).abs()))
            .collect();
        let factors = outlier_factors(&distances, places.len());
        assert_eq!(largest(&factors).iter().position(|&it| it), Some(15));
        assert!(factors[15] > 2.0 && factors[7] < 1.2, "{factors:?}");
    }

    #[test]
    fn anomalies_take_the_mean_of_their_sound_neighbours() {
        let matrix = repair_matrix(&[true, true, false, false, false, false], [2, 3]);
        let row = |token: usize| &matrix[token * 7..][..7];
        assert_eq!(row(0), [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        // Patch (0, 0) has the neighbours (1, 0) and (1, 1), and (0, 1), which is an anomaly.
        assert_eq!(row(1), [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.0]);
        assert_eq!(row(2), [0.0, 0.0, 0.0, 0.25, 0.25, 0.25, 0.25]);
        assert_eq!(row(3), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    }
}
