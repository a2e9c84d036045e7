//! The settings of an export.

use zeg_model::method::{Model, ModelFacts};

use crate::{OnnxError, graph::Precision};

/// First version of ONNX's operators with a layer normalisation.
pub const OLDEST_OPSET: i64 = 17;
/// Newest version of ONNX's operators whose definitions the graphs were checked with.
pub const NEWEST_OPSET: i64 = 23;

/// The settings of an export; the default is a graph for one image of 512×512 pixels in 32-bit floats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Height and width of the image in pixels; `None` for any.
    pub size: Option<[usize; 2]>,
    /// Number of images; `None` for any.
    pub batch: Option<usize>,
    /// Number format.
    pub precision: Precision,
    /// Version of ONNX's operators, [`OLDEST_OPSET`] to [`NEWEST_OPSET`].
    pub opset: i64,
    /// Whether the graph takes bytes, `[batch, height, width, 3]`, and normalises (and, with a fixed size, resizes) them.
    pub preprocessing: bool,
    /// Whether the part that does not depend on the classes becomes a graph of its own.
    pub split: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            size: Some([512, 512]),
            batch: Some(1),
            precision: Precision::F32,
            opset: OLDEST_OPSET,
            preprocessing: false,
            split: false,
        }
    }
}

impl Settings {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// Returns an error with the setting and its value.
    pub(crate) fn check(&self) -> Result<(), OnnxError> {
        if !(OLDEST_OPSET..=NEWEST_OPSET).contains(&self.opset) {
            return Err(OnnxError::setting(
                format!("--opset {}", self.opset),
                format!("the graphs need version {OLDEST_OPSET} to {NEWEST_OPSET}"),
            ));
        }
        if let Some([height, width]) = self.size
            && (height == 0 || width == 0 || height > 1 << 14 || width > 1 << 14)
        {
            return Err(OnnxError::setting(
                format!("--size {height}x{width}"),
                "height and width must be 1 to 16384 pixels",
            ));
        }
        if let Some(batch) = self.batch.filter(|batch| !(1..=1024).contains(batch)) {
            return Err(OnnxError::setting(
                format!("--batch {batch}"),
                "it must be 1 to 1024, or `dynamic`",
            ));
        }
        Ok(())
    }
}

/// The classes of an export.
#[derive(Debug, Clone, PartialEq)]
pub enum Classes {
    /// The class embeddings are an input of the graph.
    Input,
    /// The class embeddings are constants of the graph.
    Fixed(FixedClasses),
}

/// Class embeddings that the graph holds.
#[derive(Debug, Clone, PartialEq)]
pub struct FixedClasses {
    /// Class names, in the order of the scores.
    pub names: Vec<String>,
    /// Class embeddings, `[classes, dim]`, row-major
    pub embeddings: Vec<f32>,
    /// Class embeddings for crops of regions, if the model wants others for them: `[classes, dim]`
    pub crop_embeddings: Option<Vec<f32>>,
    /// Whether each class was seen in training, so that its scores are lowered by the seen offset.
    pub seen: Vec<bool>,
}

/// Takes the number of blocks whose matrices are rounded, and the number of all of them, on the way.
#[derive(Clone, Copy, Default)]
pub struct Progress<'a>(pub Option<&'a dyn Fn(usize, usize)>);

impl std::fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Progress").field(&self.0.is_some()).finish()
    }
}

/// Everything that the graphs of a model are made of.
#[derive(Debug)]
pub struct Request<'a> {
    /// The model, not packed ([`zeg_model::method::Architecture::build`]).
    pub model: &'a dyn Model,
    /// Name of its method.
    pub method: &'a str,
    /// The classes.
    pub classes: &'a Classes,
    /// Offset that is subtracted from the scores of seen classes.
    pub seen_offset: f32,
    /// Settings of the export.
    pub settings: &'a Settings,
    /// Is called while matrices are rounded to 8 bits, which takes a minute for a large model.
    pub progress: Progress<'a>,
}

impl Request<'_> {
    /// Returns the fixed properties of the model's input and output.
    pub(crate) fn facts(&self) -> ModelFacts {
        self.model.facts()
    }

    /// Returns the offsets of the fixed classes; `None` if there are none, or all are 0.
    pub(crate) fn offsets(&self) -> Option<Vec<f32>> {
        let Classes::Fixed(classes) = self.classes else {
            return None;
        };
        let offset = |&seen: &bool| if seen { self.seen_offset } else { 0.0 };
        let offsets: Vec<f32> = classes.seen.iter().map(offset).collect();
        offsets
            .iter()
            .any(|offset| *offset != 0.0)
            .then_some(offsets)
    }
}
