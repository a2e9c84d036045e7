//! Turns class names into class embeddings.
//!
//! Embeddings come from the first of these: a table given by the user; the embeddings stored in the checkpoint, if they
//! include every name and no other prompt templates are asked for; the text tower of the model's weights. What comes
//! back says which it was.

mod distinct;
mod notice;
mod table;
mod tower;

use std::path::PathBuf;

use anyhow::Context as _;
use burn::tensor::{Device, Tensor};
use zeg_model::{
    ModelError,
    classes::{BACKGROUND, ClassNeeds, ClassQueries},
    embeddings::ClassEmbeddings,
    method::Model,
    recognize::text_config,
    stop::StopSign,
    text::ClassTexts,
    vocabulary::{Vocabulary, WORDS_KEY},
    weights::StateDict,
};
use zeg_vocab::{
    classes::ClassSet,
    templates::{TemplateError, TemplateSet},
    tokenizer::{CONTEXT_LENGTH, Overflow, Tokenizer},
};

use crate::embedding_cache::EmbeddingCache;

pub use distinct::AllAlike;
pub use notice::TextNotice;
pub use table::{TableError, TableSource};
pub use tower::NoLearnedVectors;
use tower::from_tower;

/// The sources that class embeddings may come from.
pub struct TextSources<'a> {
    /// A table of embeddings that the user named; if given, it is the only source.
    pub table: Option<TableSource<'a>>,
    /// The embeddings stored in a checkpoint.
    pub stored: Option<&'a ClassEmbeddings>,
    /// Weights that may hold a text tower.
    pub weights: &'a StateDict,
    /// Prompt templates for the text tower.
    pub templates: Templates<'a>,
    /// Cache of embeddings that the text tower computed earlier.
    pub cache: Option<&'a EmbeddingCache>,
    /// Is called with `(classes done, classes in all)` while the text tower works.
    pub progress: Option<&'a dyn Fn(usize, usize)>,
    /// Ends the text tower's work between two classes.
    pub stop: StopSign<'a>,
}

/// Prompt templates, and whether somebody asked for them.
#[derive(Debug, Clone, Copy)]
pub enum Templates<'a> {
    /// Those of the model; embeddings stored in a checkpoint take precedence.
    Usual(&'a TemplateSet),
    /// Those that the user asked for; embeddings stored in a checkpoint were made with others and are not used.
    Asked(&'a TemplateSet),
}

impl<'a> Templates<'a> {
    /// Returns the prompt templates.
    pub fn set(self) -> &'a TemplateSet {
        match self {
            Self::Usual(templates) | Self::Asked(templates) => templates,
        }
    }
}

/// The origin of class embeddings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbeddingOrigin {
    /// A table in a file.
    Table(PathBuf),
    /// The embeddings stored in the checkpoint.
    Checkpoint,
    /// The text tower, with the prompt templates of [`TextSources::templates`].
    TextTower,
    /// None, since all classes are given by example images alone.
    Examples,
}

/// Class embeddings with their origin.
#[derive(Debug, Clone)]
pub struct Embedded<T> {
    /// The embeddings.
    pub embeddings: T,
    /// Their origin.
    pub origin: EmbeddingOrigin,
    /// Assumptions that were made; a program shows them to the user.
    pub notices: Vec<TextNotice>,
}

impl<T> Embedded<T> {
    fn new(embeddings: T, origin: EmbeddingOrigin) -> Self {
        Self {
            embeddings,
            origin,
            notices: Vec::new(),
        }
    }
}

/// Returns the prompt templates of a model for which nobody asks for others.
///
/// - `trained_with`: name of the templates that the model was trained with
///
/// # Errors
/// Returns an error if there are no templates of this name.
pub fn usual_templates(
    weights: &StateDict,
    trained_with: Option<&str>,
) -> Result<TemplateSet, TemplateError> {
    match trained_with {
        Some(name) => TemplateSet::by_name(name),
        // A model with a small vocabulary has only the tokens of the single template.
        None if weights.metadata().contains_key(WORDS_KEY) => Ok(TemplateSet::single()),
        None => Ok(TemplateSet::multi()),
    }
}

/// The error that class names cannot be encoded, because there is neither a table nor a text tower.
#[derive(Debug, thiserror::Error)]
#[error(
    "{weights}: no text tower to encode class names with, and no table of class embeddings is given"
)]
pub struct NoTextEncoder {
    /// Paths of the weights files.
    pub weights: String,
}

/// The error that other prompt templates are asked for than those of the stored class embeddings, but the weights have
/// no text tower.
#[derive(Debug, thiserror::Error)]
#[error(
    "{weights}: no text tower to encode class names with the prompt templates {templates}; the class embeddings stored in \
     the checkpoint were made earlier"
)]
pub struct TemplatesNeedTextTower {
    /// Paths of the weights files.
    pub weights: String,
    /// Name of the templates.
    pub templates: String,
}

/// Embeds classes, each a list of synonyms whose first is its name.
///
/// - `needs`: those of the model, which decide whether synonyms count
///
/// # Errors
/// Returns an error if a name does not fit the text encoder, if no source knows it, or [`AllAlike`].
pub fn embed(
    classes: &[Vec<String>],
    needs: &ClassNeeds,
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<Embedded<ClassEmbeddings>> {
    let mut embedded = embed_from_first(classes, needs, sources, device)?;
    let alike = distinct::check(&embedded.embeddings, &embedded.origin)?;
    embedded.notices.extend(alike);
    Ok(embedded)
}

/// Embeds classes from the first source that has them.
fn embed_from_first(
    classes: &[Vec<String>],
    needs: &ClassNeeds,
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<Embedded<ClassEmbeddings>> {
    let tokenizer = Tokenizer::new()?;
    // Names are checked even if a table provides the embeddings: one that no text encoder can read is a mistake.
    for text in classes
        .iter()
        .flatten()
        .flat_map(|name| sources.templates.set().render(name))
    {
        tokenizer.tokenize(&text, CONTEXT_LENGTH, Overflow::Error)?;
    }
    if let Some(table) = sources.table {
        return table::embed(classes, needs, table, sources.templates);
    }
    let from_stored = match (sources.templates, sources.stored) {
        (Templates::Usual(_), Some(stored)) => Some(of_stored(stored, classes, needs)),
        _ => None,
    };
    if let Some(Ok(found)) = from_stored {
        return Ok(Embedded::new(found, EmbeddingOrigin::Checkpoint));
    }
    if let Some(config) = text_config(sources.weights)? {
        let found = from_tower(&needs.names(classes), sources, &config, &tokenizer, device)?;
        return Ok(Embedded::new(found, EmbeddingOrigin::TextTower));
    }
    let weights = sources.weights.origin();
    match (from_stored, sources.templates, sources.stored) {
        (Some(Err(unknown)), _, _) => Err(unknown),
        (_, Templates::Asked(templates), Some(_)) => {
            let templates = templates.name().to_owned();
            Err(TemplatesNeedTextTower { weights, templates }.into())
        }
        _ => Err(NoTextEncoder { weights }.into()),
    }
}

/// Returns the rows of classes among the embeddings of a checkpoint.
fn of_stored(
    stored: &ClassEmbeddings,
    classes: &[Vec<String>],
    needs: &ClassNeeds,
) -> anyhow::Result<ClassEmbeddings> {
    let names = stored.needed_names(classes, needs);
    if let Some((name, rows)) = stored.ambiguous(&names) {
        let table = stored.origin().to_owned();
        return Err(TableError::Ambiguous { table, name, rows }.into());
    }
    Ok(stored.select(&names)?)
}

/// Embeds classes for crops around proposals, with prompt templates of their own.
///
/// Returns `None` if the ordinary class embeddings serve for crops too: the model needs no others, a table was given,
/// or there is no text tower.
///
/// # Errors
/// Returns an error if the templates are unknown, or if a name does not fit the text encoder.
fn embed_for_crops(
    classes: &[Vec<String>],
    templates: Option<&str>,
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<Option<ClassEmbeddings>> {
    let Some(templates) = templates.filter(|_| sources.table.is_none()) else {
        return Ok(None);
    };
    let templates = TemplateSet::by_name(templates)?;
    let Some(config) = text_config(sources.weights)? else {
        return Ok(None);
    };
    let sources = TextSources {
        stored: None,
        templates: Templates::Usual(&templates),
        ..*sources
    };
    let tokenizer = Tokenizer::new()?;
    Ok(Some(from_tower(
        classes, &sources, &config, &tokenizer, device,
    )?))
}

/// Returns every kind of class embeddings that a model needs.
///
/// - `classes`: each a list of synonyms whose first is its name
/// - `seen`: `[classes]`, see [`ClassQueries::seen`]
///
/// # Errors
/// Returns the errors of [`embed`], and an error if the embeddings have another number of channels than the model.
pub fn class_queries(
    classes: &[Vec<String>],
    seen: Vec<bool>,
    model: &dyn Model,
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<Embedded<ClassQueries>> {
    let needs = model.class_needs();
    let Embedded {
        embeddings,
        origin,
        mut notices,
    } = embed(classes, &needs, sources, device)?;
    if let (true, Some(table)) = (needs.own_text_tower, sources.table) {
        let table = table.path.to_owned();
        notices.push(TextNotice::OwnTextTower { table });
    }
    let dim = model.embed_dim();
    if embeddings.dim() != dim {
        return Err(ModelError::Config(format!(
            "class embeddings have {} channels, but the model has {dim}; they come from another CLIP",
            embeddings.dim()
        ))
        .into());
    }
    let crops = embed_for_crops(
        &needs.names(classes),
        needs.crop_templates.as_deref(),
        sources,
        device,
    )?;
    let each_template = if needs.each_template {
        let names = needs.names(classes);
        Some(embed_each_template(&names, &embeddings, sources, device)?)
    } else {
        None
    };
    Ok(Embedded {
        embeddings: ClassQueries {
            text: embeddings.to_tensor(device),
            each_template,
            crop_text: crops.map(|embeddings| embeddings.to_tensor(device)),
            seen,
            background: (classes.iter()).position(|names| names.iter().any(|n| n == BACKGROUND)),
            examples: None,
        },
        origin,
        notices,
    })
}

/// Embeds classes once for every prompt template: `[templates, classes, dim]`.
///
/// Without a text tower, the given embeddings are returned as those of a single template.
fn embed_each_template(
    classes: &[Vec<String>],
    embeddings: &ClassEmbeddings,
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<Tensor<3>> {
    let config = match sources.table {
        Some(_) => None,
        None => text_config(sources.weights)?,
    };
    let Some(config) = config else {
        return Ok(embeddings.to_tensor(device).unsqueeze_dim(0));
    };
    let tokenizer = Tokenizer::new()?;
    let mut all = Vec::new();
    for template in sources.templates.set().each() {
        let sources = TextSources {
            stored: None,
            templates: Templates::Usual(&template),
            ..*sources
        };
        let one = from_tower(classes, &sources, &config, &tokenizer, device)?;
        all.push(one.to_tensor(device).unsqueeze_dim::<3>(0)); // [1, classes, dim]
    }
    Ok(Tensor::cat(all, 0))
}

/// Reads the texts of classes for a text tower that is trained; `None` if the weights have none, or a table is given.
///
/// - `needs`: those of the model
///
/// # Errors
/// Returns an error if a text is too long for the text tower, or has a word that it does not know.
pub fn class_texts(
    classes: &[Vec<String>],
    needs: &ClassNeeds,
    sources: &TextSources,
) -> anyhow::Result<Option<ClassTexts>> {
    let config = match sources.table {
        Some(_) => None,
        None => text_config(sources.weights)?,
    };
    let Some(config) = config else {
        return Ok(None);
    };
    let tokenizer = Tokenizer::new()?;
    let vocabulary = Vocabulary::of_weights(sources.weights, &tokenizer)?;
    Ok(Some(ClassTexts::new(
        (&tokenizer, &vocabulary),
        config.context_length,
        sources.templates.set(),
        &needs.names(classes),
    )?))
}

/// Embeds all classes of a data set, in the order of its class list.
///
/// - `needs`: those of the model
///
/// # Errors
/// Returns the errors of [`embed`].
pub fn embed_class_set(
    classes: &ClassSet,
    needs: &ClassNeeds,
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<Embedded<ClassEmbeddings>> {
    let names: Vec<Vec<String>> = (0..classes.len()).map(|c| classes.names_of(c)).collect();
    let embedded =
        embed(&names, needs, sources, device).context("embedding the data set's class names")?;
    // All names of a class, because several classes may have one class name.
    let whole = names.iter().map(|names| names.join(", ")).collect();
    Ok(Embedded {
        embeddings: embedded.embeddings.with_names(whole)?,
        ..embedded
    })
}

#[cfg(test)]
mod tests {
    use zeg_model::methods::Methods;

    use super::*;
    use crate::mini;

    fn sources<'a>(weights: &'a StateDict, templates: &'a TemplateSet) -> TextSources<'a> {
        TextSources {
            table: None,
            stored: None,
            weights,
            templates: Templates::Usual(templates),
            cache: None,
            progress: None,
            stop: StopSign::default(),
        }
    }

    #[test]
    fn every_prompt_template_has_embeddings_of_its_own_from_the_text_tower() {
        let weights = mini::open_weights(mini::NAME.as_ref(), &Methods::default()).unwrap();
        let device = Device::flex();
        let lines = ["a photo of a {}.", "an image of a {}."];
        let set = TemplateSet::custom("two", &lines).unwrap();
        let classes = ["ring", "striped square"].map(|name| vec![name.to_owned()]);
        let both = sources(&weights, &set);
        let needs = ClassNeeds::default();
        let mean = embed(&classes, &needs, &both, &device).unwrap().embeddings;
        let each = embed_each_template(&classes, &mean, &both, &device).unwrap();
        assert_eq!(each.dims(), [2, 2, mean.dim()]);
        let values: Vec<f32> = each.into_data().convert::<f32>().try_into_vec().unwrap();
        let (first, second) = values.split_at(2 * mean.dim());
        assert_ne!(first, second);
        for (line, found) in lines.iter().zip([first, second]) {
            let set = TemplateSet::custom("one", &[line]).unwrap();
            let alone = embed(&classes, &needs, &sources(&weights, &set), &device).unwrap();
            assert_eq!(alone.embeddings.values(), found, "{line}");
            assert_ne!(alone.embeddings.values(), mean.values(), "{line}");
        }
    }
}
