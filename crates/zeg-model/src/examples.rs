//! Classes by examples: patch features inside the masks of example images, and the linear layer fitted to them.
//!
//! A class may be given by images with masks, beside its name or instead of it. The patches inside the masks give every
//! class a mean; all classes share one covariance. Fisher's linear discriminant of a class against the other classes and
//! against the rest of its own example images is added to the class embedding, so that scoring costs what it costs
//! without examples. See [`ExampleScores::fit`].

mod discriminant;
mod features;

use burn::tensor::{Device, Tensor, TensorData};

use self::discriminant::{Discriminant, Samples};
pub use self::features::{ExampleFeatures, PATCHES_INSIDE, PATCHES_OUTSIDE};
use crate::{ModelError, scores::host};

/// Settings of the fit; the defaults were chosen on `train` of VOC 2012 (docs/src/project/examples.md).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExampleOptions {
    /// Weight of the discriminant beside the cosine of patch and class embedding, if every class has examples.
    pub weight: f32,
    /// The same if some classes have a name alone, which a larger weight would let lose their pixels.
    pub mixed_weight: f32,
    /// Share of the mean variance of a channel that is added to the diagonal of the covariance (shrinkage), which a few
    /// patches do not determine; above 0.
    pub shrinkage: f64,
    /// Weight of the rest of a class's own example images in the mean of what is not of the class, 0 to 1; the other
    /// classes have the remainder.
    pub outside: f64,
}

impl Default for ExampleOptions {
    fn default() -> Self {
        Self {
            weight: 0.12,
            mixed_weight: 0.05,
            shrinkage: 3.0,
            outside: 0.5,
        }
    }
}

/// The examples of a class, and whether the class has a name beside them.
#[derive(Debug, Clone, Copy)]
pub struct ClassExamples<'a> {
    /// Whether the class embedding counts; if not, the mean of the other class embeddings takes its place.
    pub is_named: bool,
    /// Features of the example images; may be empty for a class with a name.
    pub examples: &'a [ExampleFeatures],
}

/// What classes with examples are scored by, instead of their class embeddings.
#[derive(Debug, Clone)]
pub struct ExampleScores {
    /// Rows that patches are multiplied by: `[classes, dim]`
    pub patch_rows: Tensor<2>,
    /// Added to the products, `[1, 1, classes]`
    pub bias: Tensor<3>,
    /// Rows that the image embedding of a window is multiplied by: `[classes, dim]`
    pub image_rows: Tensor<2>,
}

impl ExampleScores {
    /// Fits the scores of classes to their examples.
    ///
    /// With the unit class embedding t of a class, the unit patch p and its discriminant w, b, the score is
    /// p·t + [`ExampleOptions::weight`]·(p·w + b). The discriminant is about 1 at the mean of the class's own patches and about 0
    /// at the mean of the others. A class without a name has the mean of all unit class embeddings of the others as t,
    /// and one without examples has no discriminant.
    ///
    /// - `text`: unit class embeddings, `[classes, dim]`; the rows of classes without a name do not count
    /// - `classes`: as many as `text` has rows
    ///
    /// # Errors
    /// Returns an error if the numbers of classes or of channels differ, a class has neither a name nor examples, or the
    /// device cannot be read.
    pub fn fit(
        text: &Tensor<2>,
        classes: &[ClassExamples],
        options: ExampleOptions,
    ) -> Result<Self, ModelError> {
        let [rows, dim] = text.dims();
        if rows != classes.len() {
            return Err(ModelError::Config(format!(
                "examples: {} classes, but {rows} class embeddings",
                classes.len()
            )));
        }
        for (class, of_class) in classes.iter().enumerate() {
            if !of_class.is_named && of_class.examples.is_empty() {
                return Err(ModelError::Config(format!(
                    "class {class} (counted from 0) has neither a name nor examples"
                )));
            }
            if let Some(other) = of_class
                .examples
                .iter()
                .find(|example| example.dim() != dim)
            {
                return Err(ModelError::Config(format!(
                    "examples have {} channels, but class embeddings have {dim}; they were encoded by another model",
                    other.dim()
                )));
            }
        }
        let base = base_rows(&host(text.clone())?, dim, classes);
        let samples: Vec<Samples> = classes
            .iter()
            .map(|of_class| Samples::of(of_class.examples, dim))
            .collect();
        let layer = Discriminant::fit(&samples, dim, options);
        let is_mixed = classes.iter().any(|class| class.examples.is_empty());
        let weight = if is_mixed {
            options.mixed_weight
        } else {
            options.weight
        };
        let add = |(base, row): (&f32, &f64)| base + weight * *row as f32;
        let patch_rows = base.iter().zip(&layer.weights).map(add).collect();
        let bias = layer.bias.iter().map(|bias| weight * *bias as f32);
        let device = text.device();
        Ok(Self {
            patch_rows: matrix(patch_rows, [rows, dim], &device),
            bias: Tensor::from_data(
                TensorData::new(bias.collect::<Vec<_>>(), [1, 1, rows]),
                &device,
            ),
            image_rows: matrix(base, [rows, dim], &device),
        })
    }

    /// Returns the number of numbers that are kept.
    pub fn numbers(&self) -> usize {
        let rows = self.patch_rows.shape().num_elements() + self.image_rows.shape().num_elements();
        rows + self.bias.shape().num_elements()
    }
}

fn matrix(values: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Returns the class embeddings, with the mean of those of named classes for the others: `[classes, dim]`; zeros if no
/// class is named.
fn base_rows(text: &[f32], dim: usize, classes: &[ClassExamples]) -> Vec<f32> {
    let rows: Vec<Vec<f32>> = text.chunks_exact(dim.max(1)).map(unit).collect();
    let named = rows.iter().zip(classes).filter(|(_, class)| class.is_named);
    let mut mean = vec![0.0_f32; dim];
    let mut count = 0.0_f32;
    for (row, _) in named {
        count += 1.0;
        for (mean, value) in mean.iter_mut().zip(row) {
            *mean += value;
        }
    }
    for mean in &mut mean {
        *mean /= count.max(1.0);
    }
    rows.into_iter()
        .zip(classes)
        .flat_map(|(row, class)| if class.is_named { row } else { mean.clone() })
        .collect()
}

/// Returns a row with length 1; zeros stay.
fn unit(row: &[f32]) -> Vec<f32> {
    let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.iter()
        .map(|value| value / length.max(f32::MIN_POSITIVE))
        .collect()
}
