//! Classes with their class embeddings.

use zeg_export::{Classes, ExportError};
use zeg_image::distinct_palette;
use zeg_model::{examples::ExampleScores, inference::ClassQueries, scores::Labelling};
use zeg_vocab::classes::ClassQuery;

use crate::{
    session::{Confidence, Question},
    text_sources::{EmbeddingOrigin, TextNotice},
};

/// Classes with their class embeddings for one model.
#[derive(Debug, Clone)]
pub struct EncodedClasses {
    pub(super) classes: Vec<ClassQuery>,
    pub(super) queries: ClassQueries,
    pub(super) rule: Labelling,
    pub(super) origin: EmbeddingOrigin,
    pub(super) notices: Vec<TextNotice>,
}

impl EncodedClasses {
    /// Returns the classes, by class index.
    pub fn classes(&self) -> &[ClassQuery] {
        &self.classes
    }

    /// Returns the names of the classes, by class index.
    pub fn names(&self) -> Vec<String> {
        self.classes.iter().map(|c| c.name.clone()).collect()
    }

    /// Returns the class list of exports: names, background classes, and a colour for each class, which is its own or
    /// one that differs clearly from the others.
    ///
    /// # Errors
    /// Returns an error if there are more classes than labels.
    pub fn export_classes(&self) -> Result<Classes, ExportError> {
        let free = distinct_palette(self.classes.len());
        let colours = self.classes.iter().zip(free);
        let palette = colours.map(|(class, free)| class.colour.unwrap_or(free));
        let labels = (0..).zip(&self.classes);
        let background =
            labels.filter_map(|(label, class)| (!class.role.is_foreground()).then_some(label));
        Ok(Classes::new(self.names(), palette.collect())?.with_background(background))
    }

    /// Returns the memory of names and class embeddings, in bytes.
    pub fn bytes(&self) -> usize {
        let names = |class: &ClassQuery| {
            let texts = class.names().map(|name| size_of::<String>() + name.len());
            size_of::<ClassQuery>() + texts.sum::<usize>()
        };
        let ClassQueries {
            text,
            each_template,
            crop_text,
            seen,
            background: _,
            examples,
        } = &self.queries;
        let mut numbers = text.shape().num_elements();
        numbers += (each_template.as_ref()).map_or(0, |text| text.shape().num_elements());
        numbers += (crop_text.as_ref()).map_or(0, |text| text.shape().num_elements());
        numbers += (examples.as_ref()).map_or(0, ExampleScores::numbers);
        let names: usize = self.classes.iter().map(names).sum();
        names + numbers * size_of::<f32>() + seen.len()
    }

    /// Returns where the class embeddings come from.
    pub fn origin(&self) -> &EmbeddingOrigin {
        &self.origin
    }

    /// Returns the assumptions about the class embeddings that may be wrong.
    pub fn notices(&self) -> &[TextNotice] {
        &self.notices
    }

    /// Returns the question that asks a session for labels and confidence.
    pub fn question(&self) -> Question<'_> {
        Question {
            classes: &self.queries,
            rule: self.rule.clone(),
            seen_offsets: &[],
            confidence: Confidence::Keep,
        }
    }
}
