//! Class embeddings in the form that models take.

use burn::tensor::Tensor;

use crate::examples::ExampleScores;

/// The name of the class that is everything without another class.
pub const BACKGROUND: &str = "background";

/// The classes to segment, as embeddings, ready for a model.
#[derive(Debug, Clone)]
pub struct ClassQueries {
    /// Class embeddings, unit rows: `[classes, dim]`
    pub text: Tensor<2>,
    /// One embedding per class and prompt template, for models that need them ([`ClassNeeds::each_template`]):
    /// `[templates, classes, dim]`
    pub each_template: Option<Tensor<3>>,
    /// Class embeddings for crops of single regions, for models that encode crops and use other prompt templates for
    /// them: `[classes, dim]`
    pub crop_text: Option<Tensor<2>>,
    /// `[classes]`: whether the class was seen in training, so that its scores are lowered by the offset.
    pub seen: Vec<bool>,
    /// The class that is the background, for models that learn it instead of taking its name.
    pub background: Option<usize>,
    /// What classes with example images are scored by, for models that use them ([`crate::model::Model::uses_examples`]).
    pub examples: Option<ExampleScores>,
}

impl ClassQueries {
    /// Returns classes with one embedding each.
    ///
    /// - `text`: `[classes, dim]`, unit rows
    /// - `seen`: `[classes]`
    pub fn new(text: Tensor<2>, seen: Vec<bool>) -> Self {
        Self {
            text,
            each_template: None,
            crop_text: None,
            seen,
            background: None,
            examples: None,
        }
    }

    /// Returns the number of classes.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Returns whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

/// The class embeddings that a model needs in addition to one per class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassNeeds {
    /// Whether the model needs one embedding per class and prompt template, not only their mean.
    pub each_template: bool,
    /// Name of the prompt templates of a second set of embeddings, for crops.
    pub crop_templates: Option<String>,
    /// Whether a class is embedded by its first name alone; otherwise, its synonyms are averaged with it.
    pub first_name_only: bool,
    /// Whether the text tower was fine-tuned with the model, so that class embeddings of the CLIP it started from do not fit
    /// the model.
    pub own_text_tower: bool,
}

impl ClassNeeds {
    /// Returns the names of each class that are embedded.
    ///
    /// - `classes`: each a list of synonyms whose first is its name
    pub fn names(&self, classes: &[Vec<String>]) -> Vec<Vec<String>> {
        let most = if self.first_name_only { 1 } else { usize::MAX };
        let names = classes.iter();
        names
            .map(|names| names.iter().take(most).cloned().collect())
            .collect()
    }
}
