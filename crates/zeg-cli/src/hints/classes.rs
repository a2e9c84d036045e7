//! Hints about class names and class embeddings.

use zeg::{
    text_sources::{AllAlike, NoLearnedVectors, NoTextEncoder, TableError, TemplatesNeedTextTower},
    vocab::{
        classes::{ClassArgumentError, ClassError, QueryError},
        tokenizer::TokenizeError,
    },
};

/// Returns the hint for an error about class names or class embeddings.
pub(super) fn of_classes(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if cause.is::<NoTextEncoder>() {
        return Some(
            "use weights with a text encoder, such as those of `zeg pull clip-vit-b-16`, or name class embeddings with --text".into(),
        );
    }
    if let Some(error) = cause.downcast_ref::<TableError>() {
        return Some(match error {
            TableError::Unnamed { .. } => {
                "state the classes of its rows with --text-classes, such as voc20".into()
            }
            TableError::Named { .. } => "leave --text-classes out".into(),
            TableError::Ambiguous { .. } => {
                "name the row of a class by all its names, separated by commas".into()
            }
        });
    }
    if cause.is::<AllAlike>() {
        return Some(
            "the table or the weights are damaged or were never trained; `zeg info FILE` describes a table".into(),
        );
    }
    if cause.is::<NoLearnedVectors>() {
        return Some(
            "train the vectors with a method's prompt stage first, or choose other templates, such as data.templates=single"
                .into(),
        );
    }
    if cause.is::<TemplatesNeedTextTower>() {
        return Some(
            "leave --templates out, or name the weights with a text encoder by --weights".into(),
        );
    }
    if cause.is::<TokenizeError>() {
        return Some("shorten the class name; CLIP's text encoder reads 77 tokens".into());
    }
    if let Some(ClassArgumentError::Dataset { .. }) = cause.downcast_ref::<ClassArgumentError>() {
        return Some("to name a single class so, write it into a class file".into());
    }
    if let Some(ClassArgumentError::File(_)) = cause.downcast_ref::<ClassArgumentError>() {
        return Some(
            "write one class per line, with commas between its names: `sofa, couch`".into(),
        );
    }
    if cause.is::<QueryError>() || cause.is::<ClassArgumentError>() {
        return Some(
            "write class names separated by commas, such as --classes \"dog, sofa|couch\"".into(),
        );
    }
    if let Some(ClassError::UnknownClass {
        closest: Some(closest),
        ..
    }) = cause.downcast_ref::<ClassError>()
    {
        return Some(format!("did you mean {closest:?}?"));
    }
    None
}
