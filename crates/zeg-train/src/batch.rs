//! Holds the training samples of one step, as images or as features of a frozen encoder.

use burn::tensor::{Device, Tensor, TensorData};
use half::f16;
use zeg_model::vision::Encoded;

use crate::TrainError;

/// Model inputs: images, or the features that a frozen encoder computed from them.
#[derive(Debug, Clone)]
pub enum Inputs {
    /// Normalised images: `[batch, 3, size, size]`, row-major.
    Images(Vec<f32>),
    /// Encoded images, one entry per image.
    Features(Vec<std::sync::Arc<Features>>),
}

impl Inputs {
    /// Returns the images as a tensor: `[batch, 3, size, size]`.
    ///
    /// # Errors
    /// Returns an error if the inputs are encoded features.
    pub fn images(self, size: usize, device: &Device) -> Result<Tensor<4>, TrainError> {
        match self {
            Self::Images(values) => Ok(images_tensor(values, size, device)),
            Self::Features(_) => Err(TrainError::Config(
                "the method trains on images, not on cached features; leave out training.cached-copies".into(),
            )),
        }
    }
}

/// An encoded image in main memory; the values are rounded to `f16`.
#[derive(Debug, Clone)]
pub struct Features {
    /// Patch tokens, `[patches, dim]`, row-major.
    pub patches: Vec<f16>,
    /// Image embedding, `[dim]`.
    pub global: Vec<f16>,
    /// Number of patch rows and columns.
    pub grid: [usize; 2],
}

/// Training samples of one step, in the data set's class numbering.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Inputs of the model.
    pub inputs: Inputs,
    /// Labels, `[batch, size, size]`, row-major: class indices, [`zeg_image::IGNORE_LABEL`] or
    /// [`zeg_image::PADDING_LABEL`].
    pub labels: Vec<u16>,
    /// Side of the images in pixels.
    pub size: usize,
    /// Ids of the images.
    pub ids: Vec<String>,
}

impl Samples {
    /// Splits the samples into parts of at most `count` images.
    pub fn split(self, count: usize) -> Vec<Self> {
        let count = count.max(1);
        let (size, pixels) = (self.size, self.size * self.size);
        let inputs: Vec<Inputs> = match self.inputs {
            Inputs::Images(values) => values
                .chunks(count * 3 * pixels)
                .map(|part| Inputs::Images(part.to_vec()))
                .collect(),
            Inputs::Features(features) => features
                .chunks(count)
                .map(|part| Inputs::Features(part.to_vec()))
                .collect(),
        };
        let labels = self.labels.chunks(count * pixels).map(<[u16]>::to_vec);
        let ids = self.ids.chunks(count).map(<[String]>::to_vec);
        inputs
            .into_iter()
            .zip(labels)
            .zip(ids)
            .map(|((inputs, labels), ids)| Self {
                inputs,
                labels,
                size,
                ids,
            })
            .collect()
    }
}

/// Returns every `stride`-th label along both axes, from the middle of each step: `[batch, size/stride, size/stride]`.
pub fn thin_labels(labels: &[u16], size: usize, stride: usize) -> Vec<u16> {
    let offset = stride / 2;
    let rows = labels.chunks_exact(size.max(1));
    let kept = rows
        .enumerate()
        .filter(|(row, _)| row % size % stride == offset);
    kept.flat_map(|(_, row)| row.iter().skip(offset).step_by(stride).copied())
        .collect()
}

/// Returns images as a tensor `[batch, 3, size, size]`.
pub fn images_tensor(values: Vec<f32>, size: usize, device: &Device) -> Tensor<4> {
    let batch = values.len() / (3 * size * size);
    Tensor::from_data(TensorData::new(values, [batch, 3, size, size]), device)
}

/// Returns encoded images as tensors; all must have the same grid.
pub fn features_tensor(features: &[std::sync::Arc<Features>], device: &Device) -> Encoded {
    let (batch, grid) = (features.len(), features.first().map_or([0, 0], |f| f.grid));
    let dim = features.first().map_or(0, |f| f.global.len());
    let flat = |part: &dyn Fn(&Features) -> &[f16]| -> Vec<f32> {
        features
            .iter()
            .flat_map(|f| part(f).iter().map(|v| v.to_f32()))
            .collect()
    };
    let patches = TensorData::new(flat(&|f| &f.patches), [batch, grid[0] * grid[1], dim]);
    let global = TensorData::new(flat(&|f| &f.global), [batch, dim]);
    Encoded {
        patches: Tensor::from_data(patches, device),
        global: Tensor::from_data(global, device),
        regions: None,
        grid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinned_labels_come_from_the_middle_of_each_step() {
        let labels: Vec<u16> = (0..16).collect();
        assert_eq!(thin_labels(&labels, 4, 2), [5, 7, 13, 15]);
        assert_eq!(thin_labels(&labels, 4, 1), labels);
    }

    #[test]
    fn splitting_keeps_order_and_everything() {
        let samples = Samples {
            inputs: Inputs::Images((0..3 * 3 * 4).map(|v| v as f32).collect()),
            labels: (0..12).collect(),
            size: 2,
            ids: vec!["a".into(), "b".into(), "c".into()],
        };
        let parts = samples.split(2);
        assert_eq!(
            parts.iter().map(|p| p.ids.len()).collect::<Vec<_>>(),
            [2, 1]
        );
        assert_eq!(parts[1].labels, [8, 9, 10, 11]);
        let Inputs::Images(values) = &parts[1].inputs else {
            panic!("images stay images")
        };
        assert_eq!((values.len(), values[0]), (12, 24.0));
    }
}
