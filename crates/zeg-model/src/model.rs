//! The model of a method: it encodes windows of images and scores classes on the encodings.
//!
//! A method implements [`SegmentationModel`], where the encoding of a window has a type of its own. Every
//! implementation is also a [`Model`], which hides that type.

use std::{any::Any, fmt::Debug, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
use zeg_image::{RgbImage, normalize::Normalization, resize_antialiased, resize_bilinear};

use crate::{
    ModelError,
    classes::{ClassNeeds, ClassQueries},
    inference::{Inference, PlannedWindow},
    params::Parameters,
    refine::SecondPass,
    scores::WindowScores,
    section::Section,
    text::TextTower,
    vision::Encoded,
};

/// The meaning of a model's logits, and how they become scores from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// Each class has an independent score, σ(logit), computed in every window before windows are averaged.
    #[default]
    Sigmoid,
    /// Classes compete: logits are averaged over windows, and the softmax over the classes is computed last.
    Softmax,
    /// The masks of mask queries are weighted by the queries' class scores and summed over the queries; a sum can
    /// exceed 1.
    MaskSum,
}

impl Scoring {
    /// Returns whether this is the default, which is omitted from files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The fixed properties of a model's input and output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelFacts {
    /// Windows are padded to sides that are multiples of this, in pixels.
    pub stride: usize,
    /// Channels of the joint image-text space; class embeddings must have as many.
    pub embed_dim: usize,
    /// Mean and standard deviation that pixels are normalised with.
    pub normalization: Normalization,
    /// The meaning of the model's logits.
    pub scoring: Scoring,
}

/// The arithmetic with which images are resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resampling {
    /// Bilinear without antialiasing, as in OpenCV.
    #[default]
    Plain,
    /// Bilinear with antialiasing, as in Pillow.
    Antialiased,
}

impl Resampling {
    /// Resizes an image.
    pub fn resize(self, image: &RgbImage, width: usize, height: usize) -> RgbImage {
        match self {
            Self::Plain => resize_bilinear(image, width, height),
            Self::Antialiased => resize_antialiased(image, width, height),
        }
    }
}

/// A batch of windows of one size, encoded together.
#[derive(Debug)]
pub struct WindowBatch<'a> {
    /// Normalised windows, padded with 0 at the right and at the bottom: `[windows, 3, height, width]`
    pub images: Tensor<4>,
    /// The same windows before normalisation and padding; empty if only normalised values are available, or if they were
    /// interpolated to fractions of grey levels.
    pub pixels: &'a [RgbImage],
}

/// A model as its method implements it.
pub trait SegmentationModel: Module + Debug + Send + Sync + 'static {
    /// The encoding of one window; any classes can be scored on it afterwards.
    type Encoding: Clone + Debug + Send + Sync + 'static;

    /// Returns the fixed properties of input and output.
    fn facts(&self) -> ModelFacts;

    /// Plans the windows of a resized image of `size` = `[height, width]`: sliding windows or the whole image according
    /// to the settings, unless the method plans its own.
    ///
    /// # Errors
    /// Returns an error if the settings do not suit the image size.
    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError> {
        settings.plan(size, self.facts().stride)
    }

    /// Returns the height and width of the canvas on which windows are placed and their scores averaged: those of the
    /// resized image, unless the method has a canvas of its own.
    ///
    /// - `size`: height and width of the resized image
    fn canvas(&self, size: [usize; 2], settings: &Inference) -> [usize; 2] {
        let _ = settings;
        size
    }

    /// Returns how images are resized before windows are cut.
    fn resampling(&self) -> Resampling {
        Resampling::default()
    }

    /// Returns whether the size that an image is resized to ([`Inference::short_side`], scales of test-time augmentation)
    /// is that at which the model sees it; `false` if the method stretches every image to a canvas of its own size.
    fn rescales(&self) -> bool {
        true
    }

    /// Encodes windows; returns one encoding per window.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read, or the method needs the pixels and they are missing.
    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Self::Encoding>, ModelError>;

    /// Scores classes on an encoded window.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    fn score(
        &self,
        encoding: &Self::Encoding,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError>;

    /// Returns the patch features of an encoding, in the joint image-text space; `None` if the method has none.
    fn patches<'a>(&self, encoding: &'a Self::Encoding) -> Option<&'a Encoded> {
        let _ = encoding;
        None
    }

    /// Returns the memory that an encoding takes, in bytes, for a program that keeps many of them.
    fn encoding_bytes(&self, encoding: &Self::Encoding) -> u64 {
        self.patches(encoding).map_or(0, Encoded::bytes)
    }

    /// Returns the class embeddings that the model needs in addition to one per class.
    fn class_needs(&self) -> ClassNeeds {
        ClassNeeds::default()
    }

    /// Returns whether the method scores classes by their example images, [`ClassQueries::examples`]; if not, they have no
    /// effect.
    fn uses_examples(&self) -> bool {
        false
    }

    /// Returns the text tower, if the method trains it with the rest of the model; class embeddings then change in
    /// training, and are computed again for every part of a batch.
    fn text_tower(&self) -> Option<&TextTower> {
        None
    }

    /// Sets the method's own inference options (`[inference.method]`).
    ///
    /// # Errors
    /// Returns an error if the method has no such option, or a value is out of range.
    fn set_options(&mut self, options: &Section) -> Result<(), ModelError> {
        options.refuse_all("inference.method")
    }

    /// Returns the second pass over the scores of the first, if the method has one.
    fn second_pass(&self) -> Option<&dyn SecondPass> {
        None
    }
}

/// The encoding of one window, with its type hidden.
#[derive(Debug, Clone)]
pub struct Encoding(Arc<dyn AnyEncoding>);

/// A trait for the content of an [`Encoding`], which any method can define.
trait AnyEncoding: Any + Debug + Send + Sync {}
impl<T: Any + Debug + Send + Sync> AnyEncoding for T {}

impl Encoding {
    /// Returns the encoding as the type that its method defined.
    fn of<T: 'static>(&self) -> Result<&T, ModelError> {
        let any: &dyn Any = &*self.0;
        any.downcast_ref().ok_or_else(|| {
            ModelError::Config("this encoding was made by a model of another method".into())
        })
    }
}

/// A model of any method, in training or for inference.
pub trait Model: Parameters + Any + Debug + Send + Sync {
    /// Returns the fixed properties of input and output; see [`SegmentationModel::facts`].
    fn facts(&self) -> ModelFacts;
    /// Plans the windows of a resized image; see [`SegmentationModel::plan`].
    ///
    /// # Errors
    /// Returns an error if the settings do not suit the image size.
    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError>;
    /// Returns height and width of the canvas; see [`SegmentationModel::canvas`].
    fn canvas(&self, size: [usize; 2], settings: &Inference) -> [usize; 2];
    /// Returns how images are resized; see [`SegmentationModel::resampling`].
    fn resampling(&self) -> Resampling;
    /// Returns whether the size of a resized image has an effect; see [`SegmentationModel::rescales`].
    fn rescales(&self) -> bool;
    /// Encodes windows; returns one encoding per window; see [`SegmentationModel::encode`].
    ///
    /// # Errors
    /// Returns an error if the device cannot be read, or the method needs the pixels and they are missing.
    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Encoding>, ModelError>;
    /// Scores classes on an encoded window; see [`SegmentationModel::score`].
    ///
    /// # Errors
    /// Returns an error if the device cannot be read, or the encoding belongs to another method.
    fn score(
        &self,
        encoding: &Encoding,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError>;
    /// Returns the patch features of an encoding; see [`SegmentationModel::patches`].
    ///
    /// # Errors
    /// Returns an error if the encoding belongs to another method.
    fn patches<'a>(&self, encoding: &'a Encoding) -> Result<Option<&'a Encoded>, ModelError>;
    /// Returns the memory that an encoding takes, in bytes; see [`SegmentationModel::encoding_bytes`].
    ///
    /// # Errors
    /// Returns an error if the encoding belongs to another method.
    fn encoding_bytes(&self, encoding: &Encoding) -> Result<u64, ModelError>;
    /// Returns the class embeddings that the model needs in addition to one per class; see [`SegmentationModel::class_needs`].
    fn class_needs(&self) -> ClassNeeds;
    /// Returns whether the method uses example images; see [`SegmentationModel::uses_examples`].
    fn uses_examples(&self) -> bool;
    /// Returns the text tower, if it is trained; see [`SegmentationModel::text_tower`].
    fn text_tower(&self) -> Option<&TextTower>;
    /// Sets the method's own inference options; see [`SegmentationModel::set_options`].
    ///
    /// # Errors
    /// Returns an error if the method has no such option, or a value is out of range.
    fn set_options(&mut self, options: &Section) -> Result<(), ModelError>;
    /// Returns the second pass, if the method has one; see [`SegmentationModel::second_pass`].
    fn second_pass(&self) -> Option<&dyn SecondPass>;
    /// Returns the device of the parameters; the default device if there are no parameters.
    fn device(&self) -> Device;
    /// Returns the model for inference: without dropout, without an autodiff graph.
    fn for_inference(&self) -> Box<dyn Model>;
    /// Returns the model as `Any`, for the training code of its own method.
    fn as_any(&self) -> &dyn Any;
}

impl<M: SegmentationModel> Model for M {
    fn facts(&self) -> ModelFacts {
        SegmentationModel::facts(self)
    }

    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError> {
        SegmentationModel::plan(self, size, settings)
    }

    fn canvas(&self, size: [usize; 2], settings: &Inference) -> [usize; 2] {
        SegmentationModel::canvas(self, size, settings)
    }

    fn resampling(&self) -> Resampling {
        SegmentationModel::resampling(self)
    }

    fn rescales(&self) -> bool {
        SegmentationModel::rescales(self)
    }

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Encoding>, ModelError> {
        let encodings = SegmentationModel::encode(self, windows)?.into_iter();
        Ok(encodings
            .map(|encoding| Encoding(Arc::new(encoding)))
            .collect())
    }

    fn score(
        &self,
        encoding: &Encoding,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        SegmentationModel::score(self, encoding.of::<M::Encoding>()?, classes)
    }

    fn patches<'a>(&self, encoding: &'a Encoding) -> Result<Option<&'a Encoded>, ModelError> {
        let encoding = encoding.of::<M::Encoding>()?;
        Ok(SegmentationModel::patches(self, encoding))
    }

    fn encoding_bytes(&self, encoding: &Encoding) -> Result<u64, ModelError> {
        let encoding = encoding.of::<M::Encoding>()?;
        Ok(SegmentationModel::encoding_bytes(self, encoding))
    }

    fn class_needs(&self) -> ClassNeeds {
        SegmentationModel::class_needs(self)
    }

    fn uses_examples(&self) -> bool {
        SegmentationModel::uses_examples(self)
    }

    fn text_tower(&self) -> Option<&TextTower> {
        SegmentationModel::text_tower(self)
    }

    fn set_options(&mut self, options: &Section) -> Result<(), ModelError> {
        SegmentationModel::set_options(self, options)
    }

    fn second_pass(&self) -> Option<&dyn SecondPass> {
        SegmentationModel::second_pass(self)
    }

    fn device(&self) -> Device {
        self.devices().into_iter().next().unwrap_or_default()
    }

    fn for_inference(&self) -> Box<dyn Model> {
        Box::new(self.valid())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl dyn Model + '_ {
    /// Returns the stride in pixels; windows are padded to sides that are multiples of it.
    pub fn stride(&self) -> usize {
        self.facts().stride
    }

    /// Returns the number of channels of the joint image-text space, which class embeddings must have.
    pub fn embed_dim(&self) -> usize {
        self.facts().embed_dim
    }

    /// Returns the meaning of the model's logits.
    pub fn scoring(&self) -> Scoring {
        self.facts().scoring
    }

    /// Returns the mean and standard deviation that pixels are normalised with.
    pub fn normalization(&self) -> Normalization {
        self.facts().normalization
    }
}
