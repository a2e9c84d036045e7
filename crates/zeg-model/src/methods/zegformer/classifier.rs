//! CLIP as a classifier of crops: the pre-trained image tower gives one vector per crop.

use burn::{
    module::Module,
    tensor::{Tensor, TensorData},
};

use super::crops::{ClipImage, CropStyle, QueryMasks};
use crate::{
    ModelError, config::VisionConfig, layers::l2_normalize, vision::VisionTransformer,
    weights::ParamBuilder,
};

/// Logarithm of CLIP's logit scale if the weights do not hold it: ln 100, the limit that CLIP's training reached.
const LOGIT_SCALE: f32 = 4.605_170_2;
/// Number of crops encoded together: 16 of 197 tokens and 768 channels use the caches of a CPU well.
const BATCH: usize = 16;

/// Prefix of CLIP's image tower and logit scale in a released model that includes CLIP.
pub(super) const RELEASED_CLIP: &str = "sem_seg_head.predictor.clip_model";

/// CLIP's image tower and logit scale.
#[derive(Module, Debug)]
pub struct CropClassifier {
    /// The image tower.
    pub tower: VisionTransformer,
    #[module(skip)]
    logit_scale: f32,
}

/// Returns the logarithm of CLIP's scale of cosine similarities, if the weights hold it.
///
/// # Errors
/// Returns an error if the scale is not finite.
fn logit_scale(released: &ParamBuilder) -> Result<Option<f32>, ModelError> {
    let key = released.key("logit_scale");
    let tensor = released.weights().read(&key)?;
    let value = tensor.and_then(|tensor| tensor.values.first().copied());
    match value {
        Some(value) if !(value.is_finite() && value.exp().is_finite()) => {
            Err(ModelError::NotFiniteTensor {
                key,
                origin: released.weights().origin(),
                index: 0,
                value,
            })
        }
        value => Ok(value),
    }
}

impl CropClassifier {
    /// Reads the tower from where the weights hold it: from a released two-stage model, or from CLIP's own weights.
    ///
    /// - `params`: builder rooted at the top-level prefix
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn open(params: &ParamBuilder, config: &VisionConfig) -> Result<Self, ModelError> {
        let released = params.at(RELEASED_CLIP);
        if released
            .weights()
            .contains(&released.key("visual.conv1.weight"))
        {
            return Self::build(&released.at("visual"), config, logit_scale(&released)?);
        }
        Self::build(&params.at("backbone"), config, None)
    }

    /// Reads the tower.
    ///
    /// - `params`: builder of the tower
    /// - `logit_scale`: logarithm of the scale of cosine similarities, if the weights hold it
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn build(
        params: &ParamBuilder,
        config: &VisionConfig,
        logit_scale: Option<f32>,
    ) -> Result<Self, ModelError> {
        let config = VisionConfig {
            double_class_embedding: false, // as in CLIP itself
            prompts: None,
            regions: None,
            ..config.clone()
        };
        Ok(Self {
            tower: VisionTransformer::build(params, &config)?,
            logit_scale: logit_scale.unwrap_or(LOGIT_SCALE),
        })
    }

    /// Returns the scale of cosine similarities.
    pub fn scale(&self) -> f32 {
        self.logit_scale.exp()
    }

    /// Returns the side of a crop in pixels.
    pub fn side(&self) -> usize {
        self.tower.config().input_resolution
    }

    /// Returns the number of channels of the joint image-text space.
    pub fn embed_dim(&self) -> usize {
        self.tower.config().embed_dim
    }

    /// Returns the configuration of the tower.
    pub fn config(&self) -> &VisionConfig {
        self.tower.config()
    }

    /// Encodes crops `[crops, 3, side, side]` as vectors of any length, `[crops, dim]`.
    pub fn features(&self, crops: Tensor<4>) -> Tensor<2> {
        self.tower.embed_images(crops)
    }

    /// Encodes the crops of all mask queries as vectors `[queries, dim]`, a batch at a time.
    ///
    /// Queries whose masks cover no pixel all have the same crop, which is encoded only once.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn encode_crops(
        &self,
        image: &ClipImage,
        masks: &QueryMasks,
        style: CropStyle,
    ) -> Result<Vec<f32>, ModelError> {
        let device = self.tower.class_embedding.val().device();
        let dim = self.embed_dim();
        let (empty, mut shown): (Vec<usize>, Vec<usize>) =
            (0..masks.queries).partition(|&query| masks.is_empty(query));
        shown.extend(empty.first());
        let mut features = vec![0.0; masks.queries * dim];
        for batch in shown.chunks(BATCH) {
            let crops = style.crops(image, masks, batch, self.side(), &device);
            let data = self.features(crops).into_data().convert::<f32>();
            let values: Vec<f32> = data
                .try_into_vec()
                .map_err(|error| ModelError::Config(format!("{error:?}")))?;
            for (&query, row) in batch.iter().zip(values.chunks_exact(dim.max(1))) {
                features[query * dim..(query + 1) * dim].copy_from_slice(row);
            }
        }
        if let [first, others @ ..] = &empty[..] {
            let row = features[first * dim..(first + 1) * dim].to_vec();
            for query in others {
                features[query * dim..(query + 1) * dim].copy_from_slice(&row);
            }
        }
        Ok(features)
    }

    /// Computes CLIP's logits of crops for classes: `[crops, classes]`.
    ///
    /// - `features`: `[crops, dim]`
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    pub fn logits(&self, features: Tensor<2>, text: Tensor<2>) -> Tensor<2> {
        l2_normalize(features).matmul(text.transpose()) * f64::from(self.logit_scale).exp()
    }

    /// Copies features from main memory to the tower's device: `[crops, dim]`.
    pub fn upload(&self, features: Vec<f32>) -> Tensor<2> {
        let dim = self.embed_dim();
        let rows = features.len() / dim.max(1);
        let device = self.tower.class_embedding.val().device();
        Tensor::from_data(TensorData::new(features, [rows, dim]), &device)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::weights::{HostTensor, StateDict};

    #[test]
    fn a_logit_scale_that_is_not_finite_is_an_error_that_names_it() {
        let nothing_is_trained = |_: &str| false;
        let read = |value: f32| {
            let mut weights = StateDict::default();
            let tensor = HostTensor {
                shape: Vec::new(),
                values: vec![value],
            };
            weights.insert(format!("{RELEASED_CLIP}.logit_scale"), tensor);
            let device = Device::flex();
            let params = ParamBuilder::blueprint(&weights, &device, &nothing_is_trained);
            logit_scale(&params.at(RELEASED_CLIP))
        };
        assert_eq!(read(4.5).unwrap(), Some(4.5));
        // The scale of 200 is larger than any number of 32 bits.
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 200.0] {
            let error = read(bad).unwrap_err();
            assert!(
                matches!(&error, ModelError::NotFiniteTensor { key, .. } if key.ends_with("logit_scale")),
                "{error}"
            );
        }
    }
}
