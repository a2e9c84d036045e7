//! CLIP as a classifier of crops: its image tower as it was trained, one vector a crop.

use burn::{
    module::Module,
    tensor::{Tensor, TensorData},
};

use super::crops::{ClipImage, CropStyle, QueryMasks};
use crate::{
    ModelError, config::VisionConfig, layers::l2_normalize, vision::VisionTransformer,
    weights::ParamBuilder,
};

/// Logarithm of the factor on CLIP's cosines where the weights do not tell it: ln 100, where training stopped it.
const LOGIT_SCALE: f32 = 4.605_170_2;
/// Crops that go through the tower together: 16 of 197 tokens and 768 channels keep the caches of a CPU busy.
const BATCH: usize = 16;

/// Where a released model that brings its own CLIP has its image tower and its temperature.
const RELEASED_CLIP: &str = "sem_seg_head.predictor.clip_model";

/// CLIP's image tower and temperature.
#[derive(Module, Debug)]
pub struct CropClassifier {
    /// The image tower.
    pub tower: VisionTransformer,
    #[module(skip)]
    logit_scale: f32,
}

impl CropClassifier {
    /// Reads the tower from where weights have it: in a released model of two stages, or as CLIP's own weights.
    ///
    /// - `params`: at the root
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn open(params: &ParamBuilder, config: &VisionConfig) -> Result<Self, ModelError> {
        let released = params.at(RELEASED_CLIP);
        if released
            .weights()
            .contains(&released.key("visual.conv1.weight"))
        {
            let scale = released.weights().read(&released.key("logit_scale"))?;
            let scale = scale.and_then(|scale| scale.values.first().copied());
            return Self::build(&released.at("visual"), config, scale);
        }
        Self::build(&params.at("backbone"), config, None)
    }

    /// Reads the tower.
    ///
    /// - `params`: at the tower
    /// - `logit_scale`: logarithm of the factor on cosines, where the weights tell it
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn build(
        params: &ParamBuilder,
        config: &VisionConfig,
        logit_scale: Option<f32>,
    ) -> Result<Self, ModelError> {
        let config = VisionConfig {
            double_class_embedding: false, // CLIP's own
            prompts: None,
            regions: None,
            ..config.clone()
        };
        Ok(Self {
            tower: VisionTransformer::build(params, &config)?,
            logit_scale: logit_scale.unwrap_or(LOGIT_SCALE),
        })
    }

    /// Side of a crop in pixels.
    pub fn side(&self) -> usize {
        self.tower.config().input_resolution
    }

    /// Channels of the joint image-text space.
    pub fn embed_dim(&self) -> usize {
        self.tower.config().embed_dim
    }

    /// The tower's architecture.
    pub fn config(&self) -> &VisionConfig {
        self.tower.config()
    }

    /// Crops `[crops, 3, side, side]` to vectors of any length, `[crops, dim]`.
    pub fn features(&self, crops: Tensor<4>) -> Tensor<2> {
        self.tower.embed_images(crops)
    }

    /// Vectors `[queries, dim]` of the queries' crops, a batch at a time.
    ///
    /// Queries whose masks take no pixel are shown the same crop, which is looked at once.
    ///
    /// # Errors
    /// The device could not be read.
    pub fn look(
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

    /// CLIP's logits of crops for classes: `[crops, classes]`.
    ///
    /// - `features`: `[crops, dim]`
    /// - `text`: class embeddings `[classes, dim]`, unit rows
    pub fn logits(&self, features: Tensor<2>, text: Tensor<2>) -> Tensor<2> {
        l2_normalize(features).matmul(text.transpose()) * f64::from(self.logit_scale).exp()
    }

    /// Features in main memory on the tower's device: `[crops, dim]`.
    pub fn upload(&self, features: Vec<f32>) -> Tensor<2> {
        let dim = self.embed_dim();
        let rows = features.len() / dim.max(1);
        let device = self.tower.class_embedding.val().device();
        Tensor::from_data(TensorData::new(features, [rows, dim]), &device)
    }
}
