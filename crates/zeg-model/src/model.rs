//! A model of a method: how windows of images are encoded, and how class names are asked of them.
//!
//! A method implements [`SegmentationModel`], whose encoding of an image has a type of its own. Every implementation
//! is a [`Model`], which hides that type.

use std::{any::Any, fmt::Debug, sync::Arc};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
use zeg_image::{RgbImage, normalize::Normalization};

use crate::{
    ModelError,
    classes::{ClassNeeds, ClassQueries},
    inference::{Inference, PlannedWindow},
    params::Parameters,
    refine::SecondPass,
    scores::WindowScores,
    section::Section,
};

/// What logits are, and how they become scores from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Scoring {
    /// Each class has a score of its own, σ(logit), taken in every window before windows are averaged.
    #[default]
    Sigmoid,
    /// Classes compete: logits are averaged over windows, and a score is a softmax over the classes, taken last.
    Softmax,
    /// Masks of queries times the queries' class scores, summed over the queries; a sum can exceed 1.
    MaskSum,
}

impl Scoring {
    /// Whether it is the default, which is left out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is fixed about a model's input and output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelFacts {
    /// Windows are padded to sides that are multiples of this many pixels.
    pub stride: usize,
    /// Channels of the joint image-text space, which class embeddings must have.
    pub embed_dim: usize,
    /// What pixels are normalised with.
    pub normalization: Normalization,
    /// What its logits are.
    pub scoring: Scoring,
}

/// Windows of one size, encoded together.
#[derive(Debug)]
pub struct WindowBatch<'a> {
    /// Normalised, padded with 0 at the right and at the bottom: `[windows, 3, height, width]`
    pub images: Tensor<4>,
    /// The same windows before normalisation and padding; empty where only normalised values are at hand.
    pub pixels: &'a [RgbImage],
}

/// A model as its method writes it.
pub trait SegmentationModel: Module + Debug + Send + Sync + 'static {
    /// What the model keeps of a window of an image; any class names can be asked of it afterwards.
    type Encoding: Clone + Debug + Send + Sync + 'static;

    /// What is fixed about input and output.
    fn facts(&self) -> ModelFacts;

    /// Plans the windows of a resized image of `size` = `[height, width]`; windows or the whole image as the settings
    /// say, unless the method has a plan of its own.
    ///
    /// # Errors
    /// The settings do not fit the image.
    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError> {
        settings.plan(size, self.facts().stride)
    }

    /// Encodes windows, one encoding a window.
    ///
    /// # Errors
    /// The device could not be read, or the method needs pixels and there are none.
    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Self::Encoding>, ModelError>;

    /// Scores classes on an encoded window.
    ///
    /// # Errors
    /// The device could not be read.
    fn score(
        &self,
        encoding: &Self::Encoding,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError>;

    /// What it wants of the text side besides one embedding a class.
    fn class_needs(&self) -> ClassNeeds {
        ClassNeeds::default()
    }

    /// Sets the method's own options of inference (`[inference.method]`).
    ///
    /// # Errors
    /// The method has no such option, or the value is out of range.
    fn set_options(&mut self, options: &Section) -> Result<(), ModelError> {
        options.refuse_all("inference.method")
    }

    /// A second pass over the scores of the first, where the method has one.
    fn second_pass(&self) -> Option<&dyn SecondPass> {
        None
    }
}

/// What a model keeps of a window, without its type.
#[derive(Debug, Clone)]
pub struct Encoding(Arc<dyn AnyEncoding>);

/// See [`Encoding`].
trait AnyEncoding: Any + Debug + Send + Sync {}
impl<T: Any + Debug + Send + Sync> AnyEncoding for T {}

impl Encoding {
    /// The encoding as the type that its own method gave it.
    fn of<T: 'static>(&self) -> Result<&T, ModelError> {
        let any: &dyn Any = &*self.0;
        any.downcast_ref().ok_or_else(|| {
            ModelError::Config("the image was encoded by a model of another method".into())
        })
    }
}

/// A model of any method, in training or for inference.
pub trait Model: Parameters + Any + Debug + Send + Sync {
    /// See [`SegmentationModel::facts`].
    fn facts(&self) -> ModelFacts;
    /// See [`SegmentationModel::plan`].
    ///
    /// # Errors
    /// The settings do not fit the image.
    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError>;
    /// See [`SegmentationModel::encode`].
    ///
    /// # Errors
    /// The device could not be read, or the method needs pixels and there are none.
    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Encoding>, ModelError>;
    /// See [`SegmentationModel::score`].
    ///
    /// # Errors
    /// The device could not be read, or the encoding is another method's.
    fn score(
        &self,
        encoding: &Encoding,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError>;
    /// See [`SegmentationModel::class_needs`].
    fn class_needs(&self) -> ClassNeeds;
    /// See [`SegmentationModel::set_options`].
    ///
    /// # Errors
    /// The method has no such option, or the value is out of range.
    fn set_options(&mut self, options: &Section) -> Result<(), ModelError>;
    /// See [`SegmentationModel::second_pass`].
    fn second_pass(&self) -> Option<&dyn SecondPass>;
    /// The device that the parameters are on; the default one where there are none.
    fn device(&self) -> Device;
    /// Returns the model for inference: no dropout, no graph.
    fn for_inference(&self) -> Box<dyn Model>;
    /// The model as any value, for the training part of its own method.
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

    fn class_needs(&self) -> ClassNeeds {
        SegmentationModel::class_needs(self)
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
    /// Windows are padded to sides that are multiples of this many pixels.
    pub fn stride(&self) -> usize {
        self.facts().stride
    }

    /// Channels of the joint image-text space, which class embeddings must have.
    pub fn embed_dim(&self) -> usize {
        self.facts().embed_dim
    }

    /// What its logits are.
    pub fn scoring(&self) -> Scoring {
        self.facts().scoring
    }

    /// What pixels are normalised with.
    pub fn normalization(&self) -> Normalization {
        self.facts().normalization
    }
}
