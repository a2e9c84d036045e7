//! CLIP as a classifier of regions: the pre-trained image tower gives one unit vector per region.

use burn::{
    module::Module,
    tensor::{Tensor, TensorData},
};

use super::{
    heads::LOGIT_SCALE,
    regions::{RegionImage, RegionMasks},
};
use crate::{
    ModelError, config::VisionConfig, encoder_hooks::EncoderHooks, layers::l2_normalize,
    resize::bicubic, scores::host, trace::Trace, vision::VisionTransformer, weights::ParamBuilder,
};

/// Number of crops encoded together: 16 of 197 tokens and 768 channels use the caches of a CPU well.
const BATCH: usize = 16;

/// Resizes the position table to the grid of a region's patches by cubic convolution, as the reference does.
struct BicubicPositions;

impl EncoderHooks for BicubicPositions {
    fn positions(&self, table: &Tensor<2>, stored: usize, grid: [usize; 2]) -> Option<Tensor<2>> {
        let [_, width] = table.dims();
        let maps = table
            .clone()
            .transpose()
            .reshape([1, width, stored, stored]);
        let resized = bicubic(maps, grid).reshape([width, grid[0] * grid[1]]);
        Some(resized.transpose())
    }
}

/// CLIP's image tower.
#[derive(Module, Debug)]
pub struct RegionClassifier {
    /// The image tower.
    pub tower: VisionTransformer,
}

impl RegionClassifier {
    /// Reads the tower.
    ///
    /// - `params`: builder of the tower
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn build(params: &ParamBuilder, config: &VisionConfig) -> Result<Self, ModelError> {
        let config = VisionConfig {
            double_class_embedding: false, // as in CLIP itself
            prompts: None,
            regions: None,
            ..config.clone()
        };
        let tower = VisionTransformer::build(params, &config)?;
        Ok(Self { tower })
    }

    /// Returns the side of a crop in pixels.
    pub fn side(&self) -> usize {
        self.tower.config().input_resolution
    }

    /// Encodes the crops of all masks that are not empty, a batch at a time: unit rows `[masks that are not empty, dim]`.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn encode(&self, image: &RegionImage, masks: &RegionMasks) -> Result<Vec<f32>, ModelError> {
        let device = self.tower.class_embedding.val().device();
        let side = self.side();
        let valid = masks.valid();
        let mut features = Vec::with_capacity(valid.len() * self.tower.config().embed_dim);
        for batch in valid.chunks(BATCH) {
            let crops = image.crops(masks, batch, side);
            let shape = [batch.len(), 3, side, side];
            let crops = Tensor::from_data(TensorData::new(crops, shape), &device);
            features.extend(host(l2_normalize(self.tower.embed_images(crops)))?);
        }
        Ok(features)
    }

    /// Encodes regions of any size, normalised and masked, as vectors of any length: `[regions, dim]`; no gradient passes.
    ///
    /// - `regions`: `[regions, 3, height, width]`
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn features(
        &self,
        regions: &[f32],
        [height, width]: [usize; 2],
        trace: &mut Trace,
    ) -> Result<Vec<f32>, ModelError> {
        let device = self.tower.class_embedding.val().device();
        let (plain, device) = if device.is_autodiff() {
            (self.valid(), device.without_autodiff())
        } else {
            (self.clone(), device)
        };
        let length = 3 * height * width;
        let mut features = Vec::new();
        for batch in regions.chunks((BATCH * length).max(1)) {
            let shape = [batch.len() / length.max(1), 3, height, width];
            let images = Tensor::from_data(TensorData::new(batch.to_vec(), shape), &device);
            let found = (plain.tower).embed_images_with(images, &BicubicPositions, trace);
            features.extend(host(found)?);
        }
        Ok(features)
    }

    /// Computes CLIP's logits of regions for classes: `[regions, classes]`.
    ///
    /// - `features`: unit rows `[regions, dim]`
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    pub fn logits(features: Tensor<2>, text: Tensor<2>) -> Tensor<2> {
        features.matmul(text.transpose()) * LOGIT_SCALE
    }

    /// Copies features from main memory to the tower's device: `[regions, dim]`.
    pub fn upload(&self, features: &[f32]) -> Tensor<2> {
        let dim = self.tower.config().embed_dim;
        let rows = features.len() / dim.max(1);
        let device = self.tower.class_embedding.val().device();
        Tensor::from_data(TensorData::new(features.to_vec(), [rows, dim]), &device)
    }
}
