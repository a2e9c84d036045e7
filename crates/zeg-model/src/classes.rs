//! The text side as models take it.

use burn::tensor::Tensor;

/// Classes to tell apart, ready for a model.
#[derive(Debug, Clone)]
pub struct ClassQueries {
    /// Class embeddings, unit rows: `[classes, dim]`
    pub text: Tensor<2>,
    /// One embedding a class and prompt template, where the model wants them ([`ClassNeeds::each_template`]):
    /// `[templates, classes, dim]`
    pub each_template: Option<Tensor<3>>,
    /// Class embeddings for crops of single regions, where the model sees such and they are read in other templates:
    /// `[classes, dim]`
    pub crop_text: Option<Tensor<2>>,
    /// `[classes]`: whether the class was seen in training, so that its scores are lowered.
    pub seen: Vec<bool>,
}

impl ClassQueries {
    /// Classes with one embedding each.
    ///
    /// - `text`: `[classes, dim]`, unit rows
    /// - `seen`: `[classes]`
    pub fn new(text: Tensor<2>, seen: Vec<bool>) -> Self {
        Self {
            text,
            each_template: None,
            crop_text: None,
            seen,
        }
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether there is no class.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

/// What a model wants of the text side besides one embedding a class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassNeeds {
    /// One embedding a class and prompt template, not their mean alone.
    pub each_template: bool,
    /// Prompt templates of a second set of embeddings, for crops.
    pub crop_templates: Option<String>,
}
