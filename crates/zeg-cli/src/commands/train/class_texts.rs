//! The class embeddings of a training, and the texts that a trained text tower embeds.

use anyhow::Context as _;
use burn::tensor::Device;
use zeg::{
    model::{
        classes::ClassNeeds, embeddings::ClassEmbeddings, stop::StopSign, text::ClassTexts,
        weights::StateDict,
    },
    text_sources::{TableSource, Templates, TextSources, class_texts, embed_class_set},
    vocab::{
        classes::{ClassQuery, ClassSet},
        templates::TemplateSet,
    },
};

use super::{args::TrainSettings, place_of};
use crate::commands::model_file::warn_of_text;

/// Everything that class embeddings are made from.
pub(super) struct TextInput<'a> {
    pub(super) settings: &'a TrainSettings,
    /// Name of the prompt templates.
    pub(super) templates: &'a str,
    pub(super) classes: &'a ClassSet,
    /// What the model needs of the classes.
    pub(super) needs: &'a ClassNeeds,
    pub(super) weights: &'a StateDict,
    pub(super) device: &'a Device,
}

/// Embeds all classes of the data set, and returns their texts, if a text tower made the embeddings.
///
/// Training uses the rows of the seen classes only; the checkpoint stores all of them, for scoring.
pub(super) fn embed_classes(
    input: &TextInput,
) -> anyhow::Result<(ClassEmbeddings, Option<ClassTexts>)> {
    let TextInput {
        settings,
        templates,
        classes,
        needs,
        weights,
        device,
    } = *input;
    let templates =
        TemplateSet::by_name(templates).with_context(|| place_of(settings, "data.templates"))?;
    let row_classes: Option<Vec<Vec<String>>> = settings.text_classes.as_ref().map(|classes| {
        let names = |class: &ClassQuery| class.names().map(str::to_owned).collect();
        classes.iter().map(names).collect()
    });
    let sources = TextSources {
        table: settings.text.as_deref().map(|path| TableSource {
            path,
            row_classes: row_classes.as_deref(),
        }),
        stored: None,
        weights,
        templates: Templates::Usual(&templates),
        cache: None,
        progress: None,
        stop: StopSign::default(),
    };
    let embedded = embed_class_set(classes, needs, &sources, device)?;
    warn_of_text(&embedded.notices);
    let names: Vec<Vec<String>> = (0..classes.len()).map(|c| classes.names_of(c)).collect();
    let texts = class_texts(&names, needs, &sources)?;
    Ok((embedded.embeddings, texts))
}
