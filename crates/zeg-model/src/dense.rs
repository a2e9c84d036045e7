//! What every segmentation model has in common: a picture is encoded once, and asked about any classes afterwards.
//!
//! [`crate::inference`] cuts pictures into windows and puts scores together; it knows models by this trait alone.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use zeg_image::normalize::Normalization;

use crate::{
    clip_rc::ClipRc, trace::Trace, vision::Encoded, zegclip::ZegClip, zegformer::ZegFormer,
};

/// Classes to tell apart, ready for a model.
#[derive(Debug, Clone)]
pub struct ClassQueries {
    /// Class embeddings `[classes, dim]`.
    pub text: Tensor<2>,
    /// Class embeddings for views of single regions, where a model has such and they are read in other sentences:
    /// `[classes, dim]`
    pub crop_text: Option<Tensor<2>>,
    /// `[classes]`: whether the class was seen in training, so that its scores are lowered.
    pub seen: Vec<bool>,
}

/// What the numbers of a mask are, and how they become scores from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// Each class has a score of its own, σ(logit), taken in every window before windows are averaged (ZegCLIP).
    #[default]
    Sigmoid,
    /// Classes compete: logits are averaged over windows, and a score is a softmax over the classes, taken last.
    Softmax,
}

impl Scoring {
    /// For leaving the usual value out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A model that gives every class a mask.
pub trait DenseModel: std::fmt::Debug + Send + Sync {
    /// The picture's half: `[batch, 3, height, width]`, normalised, sides multiples of [`DenseModel::patch`].
    fn encode(&self, images: Tensor<4>) -> Encoded;

    /// The classes' half: masks on the patch grid, `[batch, classes, h, w]`, logits.
    ///
    /// - `text`: class embeddings `[classes, dim]`
    fn masks(&self, encoded: Encoded, text: Tensor<2>) -> Tensor<4>;

    /// Side of a patch in pixels.
    fn patch(&self) -> usize;

    /// Channels of the joint image-text space, which class embeddings must have.
    fn embed_dim(&self) -> usize;

    /// What the masks' numbers are.
    fn scoring(&self) -> Scoring;

    /// What pictures are normalised with.
    fn normalization(&self) -> Normalization;

    /// The model as one of two stages, which looks at whole pictures and gives its masks scores for all classes;
    /// [`crate::scan`] asks it instead of cutting windows. `None` for models of one stage.
    fn two_stage(&self) -> Option<&ZegFormer> {
        None
    }
}

impl DenseModel for ZegClip {
    fn encode(&self, images: Tensor<4>) -> Encoded {
        ZegClip::encode(self, images, &mut Trace::off())
    }

    fn masks(&self, encoded: Encoded, text: Tensor<2>) -> Tensor<4> {
        self.decode_head.forward(encoded, text, &mut Trace::off())
    }

    fn patch(&self) -> usize {
        self.config().encoder.patch
    }

    fn embed_dim(&self) -> usize {
        self.config().encoder.embed_dim
    }

    fn scoring(&self) -> Scoring {
        self.config().head.scoring
    }

    /// ImageNet's statistics, as the reference has it, although the encoder was trained with CLIP's.
    fn normalization(&self) -> Normalization {
        Normalization::IMAGENET
    }
}

impl DenseModel for ClipRc {
    fn encode(&self, images: Tensor<4>) -> Encoded {
        ClipRc::encode(self, images, &mut Trace::off())
    }

    fn masks(&self, encoded: Encoded, text: Tensor<2>) -> Tensor<4> {
        self.decode_head.forward(encoded, text, &mut Trace::off())
    }

    fn patch(&self) -> usize {
        self.config().encoder.patch
    }

    fn embed_dim(&self) -> usize {
        self.config().encoder.embed_dim
    }

    fn scoring(&self) -> Scoring {
        self.config().head.scoring
    }

    /// As ZegCLIP's.
    fn normalization(&self) -> Normalization {
        Normalization::IMAGENET
    }
}
