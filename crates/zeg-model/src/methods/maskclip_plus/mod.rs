//! MaskCLIP+: a segmentation network trained on pseudo labels from CLIP itself (Zhou, Loy, Dai, ECCV 2022).
//!
//! The student is an ordinary network ([`residual`], [`decode`]) whose classifier is the fixed matrix of class
//! embeddings. In training, pixels whose class is unseen get labels from the [`guide`], CLIP's frozen image tower without
//! its last attention, and after the first tenth of the run from the student itself. After training, the guide is not
//! needed.

pub mod batch_norm;
pub mod config;
pub mod convolution;
mod count;
pub mod decode;
pub mod entry;
pub mod guide;
pub mod guide_transformer;
pub mod keys;
pub mod residual;

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use zeg_image::normalize::Normalization;

use self::{batch_norm::Statistics, decode::DecodeModule, guide::Guide, residual::ResNet};
pub use self::{
    config::{GuideConfig, MaskClipPlusConfig, StudentHead},
    entry::MaskClipPlusMethod,
};
use crate::{
    ModelError,
    classes::ClassQueries,
    inference::{Inference, PlannedWindow},
    layers::l2_normalize,
    method::{ModelFacts, Scoring, SegmentationModel, WindowBatch},
    scores::WindowScores,
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// A MaskCLIP+ model: the student, and in training its guide.
#[derive(Module, Debug)]
pub struct MaskClipPlus {
    /// The student's backbone.
    pub student: ResNet,
    /// Everything else, under the reference's name.
    pub decode_head: DecodeHead,
    #[module(skip)]
    config: MaskClipPlusConfig,
}

/// The student's decoder and its guide, under the reference's names.
#[derive(Module, Debug)]
pub struct DecodeHead {
    /// From the backbone's maps to features in the joint image-text space.
    pub decode_module: DecodeModule,
    /// Embedding of the background, of any length: `[1, dim]`, if it is learned
    pub bg_embeddings: Option<Param<Tensor<2>>>,
    /// CLIP's image tower; frozen, and only there for training.
    pub clip: Option<Guide>,
}

impl MaskClipPlus {
    /// Reads or initialises the model.
    ///
    /// - `frozen`: builder of the guide, which is left out of a model for inference
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent, or a tensor has the wrong shape.
    pub fn from_params(
        params: &ParamBuilder,
        frozen: &ParamBuilder,
        config: &MaskClipPlusConfig,
    ) -> Result<Self, ModelError> {
        config.check()?;
        let head = params.at("decode_head");
        let clip = match params.packing() {
            Some(_) => None,
            None => Guide::open(frozen, &config.guide, config.as_released)?,
        };
        let background = || head.param("bg_embeddings", [1, config.embed_dim()], Init::Normal(1.0));
        Ok(Self {
            student: ResNet::build(&params.at("student"), &config.student)?,
            decode_head: DecodeHead {
                decode_module: DecodeModule::build(&head.at("decode_module"), config)?,
                bg_embeddings: config.background.then(background).transpose()?,
                clip,
            },
            config: config.clone(),
        })
    }

    /// Returns the configuration.
    pub fn config(&self) -> &MaskClipPlusConfig {
        &self.config
    }

    /// Returns whether the parameter of this name belongs to the student.
    fn is_students(key: &str) -> bool {
        key.starts_with("student.")
            || key.starts_with("decode_head.decode_module.")
            || key == "decode_head.bg_embeddings"
    }

    /// Returns whether the parameter of this name is a running mean of statistics.
    fn is_running(key: &str) -> bool {
        key.ends_with(".running_mean") || key.ends_with(".running_var")
    }

    /// Computes the student's features of normalised images `[batch, 3, height, width]`: `[batch, dim, h, w]`, of any
    /// length.
    pub fn features(
        &self,
        images: Tensor<4>,
        statistics: &mut Statistics,
        trace: &mut Trace,
    ) -> Tensor<4> {
        let maps = self.student.forward(images, statistics, trace);
        (self.decode_head.decode_module).forward(maps, statistics, trace)
    }

    /// Computes class logits from features `[batch, dim, h, w]`: `[batch, classes, h, w]`
    ///
    /// - `text`: class embeddings, unit rows `[classes, dim]`
    /// - `background`: the class that is the background, whose embedding is replaced by the learned one
    pub fn logits(
        &self,
        features: Tensor<4>,
        text: Tensor<2>,
        background: Option<usize>,
    ) -> Tensor<4> {
        let text = match (background, &self.decode_head.bg_embeddings) {
            (Some(class), Some(learned)) => {
                let [classes, _] = text.dims();
                let mut rows = Vec::with_capacity(3);
                if class > 0 {
                    rows.push(text.clone().narrow(0, 0, class));
                }
                rows.push(l2_normalize(learned.val()));
                if class + 1 < classes {
                    rows.push(text.narrow(0, class + 1, classes - class - 1));
                }
                Tensor::cat(rows, 0)
            }
            _ => text,
        };
        products(features, text)
    }
}

/// Computes inner products at every place: `[batch, dim, h, w]` and `[classes, dim]` → `[batch, classes, h, w]`
pub fn products(features: Tensor<4>, text: Tensor<2>) -> Tensor<4> {
    let [batch, dim, h, w] = features.dims();
    let [classes, _] = text.dims();
    text.unsqueeze::<3>()
        .matmul(features.reshape([batch, dim, h * w]))
        .reshape([batch, classes, h, w])
}

impl SegmentationModel for MaskClipPlus {
    /// Features of one window: `[1, dim, h, w]`
    type Encoding = Tensor<4>;

    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: 1, // convolutions take maps of any size
            embed_dim: self.config.embed_dim(),
            normalization: Normalization::IMAGENET,
            scoring: Scoring::Softmax,
        }
    }

    /// Plans the whole image as one window, regardless of the settings: the network is convolutional.
    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError> {
        let _ = settings;
        Ok(vec![PlannedWindow::whole(size)])
    }

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Tensor<4>>, ModelError> {
        let [count, ..] = windows.images.dims();
        let encode = |index: usize| {
            let image = windows.images.clone().narrow(0, index, 1);
            self.features(image, &mut Statistics::Stored, &mut Trace::off())
        };
        Ok((0..count).map(encode).collect())
    }

    fn score(
        &self,
        encoding: &Tensor<4>,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        let text = classes.text.clone();
        let logits = self.logits(encoding.clone(), text, classes.background);
        Ok(WindowScores::Logits(logits))
    }

    fn encoding_bytes(&self, encoding: &Tensor<4>) -> u64 {
        (encoding.shape().num_elements() * size_of::<f32>()) as u64
    }
}

#[cfg(test)]
mod golden_tests;
