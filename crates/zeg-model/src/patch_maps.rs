//! What a model computes on the patch grid of one window: class masks, similarities of patches and class names, and the
//! principal components of the patch features.

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::{RgbImage, resize_bilinear};

use crate::{
    ModelError,
    classes::ClassQueries,
    layers::l2_normalize,
    model::{Model, WindowBatch},
    scores::WindowScores,
    window_scores::host,
};

/// Number of power iterations for each principal component.
const ITERATIONS: usize = 60;

/// Maps on the patch grid of an image that was resized to one square window.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchMaps {
    /// Rows and columns of the patch grid.
    pub grid: [usize; 2],
    /// Mask logits of every class, `[classes][rows·columns]`, row-major; in ZegCLIP the products QKᵀ/√d of its last layer.
    pub masks: Vec<Vec<f32>>,
    /// Cosine of every class embedding and every patch feature, `[classes][rows·columns]`, −1 to 1.
    pub similarities: Vec<Vec<f32>>,
    /// The first three principal components of the patch features, `[rows·columns]`, each scaled to 0..=1.
    pub components: Vec<[f32; 3]>,
}

impl PatchMaps {
    /// Computes the maps of an image.
    ///
    /// - `side`: side of the window in pixels; it is rounded up to a multiple of the model's stride
    ///
    /// # Errors
    /// Returns an error if the method has no patch features (it classifies crops of regions), or if the device cannot be
    /// read.
    pub fn of(
        model: &dyn Model,
        image: &RgbImage,
        side: usize,
        classes: &ClassQueries,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let side = side.max(1).next_multiple_of(model.stride().max(1));
        let window = resize_bilinear(image, side, side);
        let values = model.normalization().to_chw(&window);
        let batch = WindowBatch {
            images: Tensor::from_data(TensorData::new(values, [1, 3, side, side]), device),
            pixels: &[window],
        };
        let none = || {
            ModelError::Config(
                "the model has no patch features: its method classifies regions, not patches"
                    .into(),
            )
        };
        let encodings = model.encode(&batch)?;
        let encoding = encodings.first().ok_or_else(none)?;
        let encoded = model.patches(encoding)?.ok_or_else(none)?;
        let WindowScores::Logits(logits) = model.score(encoding, classes)? else {
            return Err(none());
        };
        let [rows, columns] = encoded.grid;
        let [_, _, dim] = encoded.patches.dims();
        let text = l2_normalize(classes.text.clone()); // [classes, dim]
        let similarities = encoded
            .patches
            .clone()
            .matmul(text.transpose().unsqueeze())
            .swap_dims(1, 2); // [1, classes, rows·columns]
        let maps = |values: Vec<f32>| -> Vec<Vec<f32>> {
            let patches = (rows * columns).max(1);
            values.chunks_exact(patches).map(<[f32]>::to_vec).collect()
        };
        Ok(Self {
            grid: encoded.grid,
            masks: maps(host(logits)?),
            similarities: maps(host(similarities)?),
            components: principal_components(&host(encoded.patches.clone())?, dim),
        })
    }
}

/// Scales values linearly to 0..=1; equal values become 0.
pub fn to_unit_range(values: &[f32]) -> Vec<f32> {
    let (least, most) = range(values);
    let width = most - least;
    let scaled = values.iter().map(|value| (value - least) / width);
    if width > 0.0 {
        scaled.collect()
    } else {
        vec![0.0; values.len()]
    }
}

/// Returns the smallest and the largest value; 0 and 0 for no values.
pub fn range(values: &[f32]) -> (f32, f32) {
    let mut values = values.iter().copied();
    let first = values.next().unwrap_or_default();
    values.fold((first, first), |(least, most), value| {
        (least.min(value), most.max(value))
    })
}

/// Returns the projections of the rows on their first three principal components, each scaled to 0..=1.
///
/// The sign of a component is chosen so that its largest entry is positive.
///
/// - `features`: `[rows, dim]`, row-major
fn principal_components(features: &[f32], dim: usize) -> Vec<[f32; 3]> {
    if dim == 0 {
        return Vec::new();
    }
    let mut rows = centred(features, dim);
    let mut scaled = vec![[0.0; 3]; features.len() / dim];
    for component in 0..3 {
        let direction = leading_direction(&rows, dim);
        let mut projections = Vec::with_capacity(scaled.len());
        for row in rows.chunks_exact_mut(dim) {
            let projection = dot(row, &direction);
            projections.push(projection as f32);
            for (value, along) in row.iter_mut().zip(&direction) {
                *value -= projection * along;
            }
        }
        for (all, value) in scaled.iter_mut().zip(to_unit_range(&projections)) {
            all[component] = value;
        }
    }
    scaled
}

/// Subtracts the mean row from every row.
fn centred(features: &[f32], dim: usize) -> Vec<f64> {
    let count = (features.len() / dim).max(1) as f64;
    let mut mean = vec![0.0; dim];
    for row in features.chunks_exact(dim) {
        for (mean, value) in mean.iter_mut().zip(row) {
            *mean += f64::from(*value) / count;
        }
    }
    let less_mean = |row: &[f32]| -> Vec<f64> {
        let pairs = row.iter().zip(&mean);
        pairs
            .map(|(value, mean)| f64::from(*value) - mean)
            .collect()
    };
    features.chunks_exact(dim).flat_map(less_mean).collect()
}

/// Returns the unit vector along which the centred rows vary most, by power iteration; zeros if they do not vary.
fn leading_direction(rows: &[f64], dim: usize) -> Vec<f64> {
    let longest = rows
        .chunks_exact(dim)
        .max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)));
    let mut direction = longest.map_or_else(|| vec![0.0; dim], <[f64]>::to_vec);
    for _ in 0..ITERATIONS {
        let length = dot(&direction, &direction).sqrt();
        if length < 1e-12 {
            return vec![0.0; dim];
        }
        for value in &mut direction {
            *value /= length;
        }
        let mut next = vec![0.0; dim];
        for row in rows.chunks_exact(dim) {
            let projection = dot(row, &direction);
            for (sum, value) in next.iter_mut().zip(row) {
                *sum += projection * value;
            }
        }
        direction = next;
    }
    let length = dot(&direction, &direction).sqrt();
    let largest = direction.iter().copied().fold(0.0_f64, |largest, value| {
        if value.abs() > largest.abs() {
            value
        } else {
            largest
        }
    });
    let scale = if length < 1e-12 {
        0.0
    } else {
        largest.signum() / length
    };
    direction.iter().map(|value| value * scale).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_ordered_by_variance_and_scaled() {
        // Rows vary by 8 along (0, 1, 0), by 2 along (1, 0, 0), and not along the third axis.
        let rows = [
            [0.0, 0.0, 5.0],
            [2.0, 0.0, 5.0],
            [0.0, 8.0, 5.0],
            [2.0, 8.0, 5.0],
        ];
        let found = principal_components(rows.as_flattened(), 3);
        let expected = [
            [0.0, 0.0, 0.0],
            [0.0, 1.0, 0.0],
            [1.0, 0.0, 0.0],
            [1.0, 1.0, 0.0],
        ];
        for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn equal_or_no_rows_have_no_components() {
        assert_eq!(principal_components(&[1.0; 6], 2), [[0.0; 3]; 3]);
        assert!(principal_components(&[], 2).is_empty());
        assert!(principal_components(&[], 0).is_empty());
    }

    #[test]
    fn ranges_become_those_from_0_to_1() {
        assert_eq!(to_unit_range(&[-2.0, 0.0, 2.0]), [0.0, 0.5, 1.0]);
        assert_eq!(to_unit_range(&[3.0, 3.0]), [0.0, 0.0]);
        assert!(to_unit_range(&[]).is_empty());
        assert_eq!(range(&[1.0, -4.0]), (-4.0, 1.0));
    }
}
