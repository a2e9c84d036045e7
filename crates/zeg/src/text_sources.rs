//! The words' journey: class names to class embeddings.
//!
//! Embeddings come from the first of these that knows every name: a table given by the user, the embeddings stored
//! in the checkpoint, the text tower of the model's weights.

use std::path::Path;

use anyhow::Context as _;
use burn::tensor::{Device, Tensor};
use zeg_model::{
    ModelError,
    classes::ClassQueries,
    config::TextConfig,
    embeddings::ClassEmbeddings,
    method::Model,
    recognize::text_config,
    text::TextTower,
    vocabulary::Vocabulary,
    weights::{ParamBuilder, StateDict},
};
use zeg_vocab::{
    classes::ClassSet,
    templates::TemplateSet,
    tokenizer::{CONTEXT_LENGTH, Overflow, Tokenizer},
};

use crate::embedding_cache::EmbeddingCache;

/// Prefix of the text tower's tensors.
const TEXT_TOWER: &str = "text_encoder.";

/// Where class embeddings may come from.
pub struct TextSources<'a> {
    /// A table that the user named; nothing else is asked then.
    pub table: Option<&'a Path>,
    /// Names of the rows of a table that holds none.
    pub table_names: Option<&'a [String]>,
    /// The embeddings that a checkpoint brings.
    pub stored: Option<&'a ClassEmbeddings>,
    /// Weights that may hold a text tower.
    pub weights: &'a StateDict,
    /// Prompt templates for the text tower.
    pub templates: &'a TemplateSet,
    /// What the text tower said before.
    pub cache: Option<&'a EmbeddingCache>,
    /// Told of `(classes done, classes in all)` while the text tower works.
    pub progress: Option<&'a dyn Fn(usize, usize)>,
}

/// Class names cannot be embedded: there is neither a table nor a text tower.
#[derive(Debug, thiserror::Error)]
#[error(
    "{weights}: holds no text tower to read class names with, and no table of embeddings is given"
)]
pub struct NoTextEncoder {
    /// The weights' files.
    pub weights: String,
}

/// Embeds classes, each a list of synonyms whose first is its name.
///
/// # Errors
/// A name does not fit the text encoder, or no source knows it.
pub fn embed(
    classes: &[Vec<String>],
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<ClassEmbeddings> {
    let tokenizer = Tokenizer::new()?;
    // Also where a table answers: a name that no text encoder could read is a slip, not a class.
    for text in classes
        .iter()
        .flatten()
        .flat_map(|name| sources.templates.render(name))
    {
        tokenizer.tokenize(&text, CONTEXT_LENGTH, Overflow::Error)?;
    }
    if let Some(path) = sources.table {
        return Ok(ClassEmbeddings::open(path, sources.table_names)?.select(classes)?);
    }
    let from_stored = sources.stored.map(|stored| stored.select(classes));
    if let Some(Ok(found)) = from_stored {
        return Ok(found);
    }
    if let Some(config) = text_config(sources.weights)? {
        return Ok(from_tower(classes, sources, &config, &tokenizer, device)?);
    }
    match from_stored {
        Some(Err(unknown)) => Err(unknown.into()),
        _ => Err(NoTextEncoder {
            weights: sources.weights.origin(),
        }
        .into()),
    }
}

/// Embeds classes for views of single regions, in sentences of their own; `None` where the same embeddings serve: nothing
/// asks for others, a table was given, or no text tower is there to read them.
///
/// # Errors
/// The templates are not known, or a name does not fit the text encoder.
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
        templates: &templates,
        ..*sources
    };
    let tokenizer = Tokenizer::new()?;
    Ok(Some(from_tower(
        classes, &sources, &config, &tokenizer, device,
    )?))
}

/// Embeds classes with all that a model needs of the text side.
///
/// - `classes`: each a list of synonyms whose first is its name
/// - `seen`: `[classes]`, see [`ClassQueries::seen`]
///
/// # Errors
/// As [`embed`], or the embeddings are of another CLIP than the model.
pub fn class_queries(
    classes: &[Vec<String>],
    seen: Vec<bool>,
    model: &dyn Model,
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<ClassQueries> {
    let needs = model.class_needs();
    let embeddings = embed(classes, sources, device)?;
    let dim = model.embed_dim();
    if embeddings.dim() != dim {
        return Err(ModelError::Config(format!(
            "class embeddings have {} channels, the model {dim}; they are of another CLIP",
            embeddings.dim()
        ))
        .into());
    }
    let crops = embed_for_crops(classes, needs.crop_templates.as_deref(), sources, device)?;
    let each_template = if needs.each_template {
        Some(embed_each_template(classes, &embeddings, sources, device)?)
    } else {
        None
    };
    Ok(ClassQueries {
        text: embeddings.to_tensor(device),
        each_template,
        crop_text: crops.map(|embeddings| embeddings.to_tensor(device)),
        seen,
    })
}

/// Embeds classes once for every prompt template: `[templates, classes, dim]`. Where no text tower reads the names, the
/// embeddings at hand stand for a single template.
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
    for template in sources.templates.each() {
        let sources = TextSources {
            stored: None,
            templates: &template,
            ..*sources
        };
        let one = from_tower(classes, &sources, &config, &tokenizer, device)?;
        all.push(one.to_tensor(device).unsqueeze_dim::<3>(0)); // [1, classes, dim]
    }
    Ok(Tensor::cat(all, 0))
}

/// Embeds all classes of a data set, in the order of its class list.
///
/// # Errors
/// As [`embed`].
pub fn embed_class_set(
    classes: &ClassSet,
    sources: &TextSources,
    device: &Device,
) -> anyhow::Result<ClassEmbeddings> {
    let names: Vec<Vec<String>> = (0..classes.len()).map(|c| classes.names_of(c)).collect();
    embed(&names, sources, device).context("embedding the data set's class names")
}

/// Embeds classes with the text tower, which is only built if a class is not in the cache.
fn from_tower(
    classes: &[Vec<String>],
    sources: &TextSources,
    config: &TextConfig,
    tokenizer: &Tokenizer,
    device: &Device,
) -> Result<ClassEmbeddings, ModelError> {
    let vocabulary = Vocabulary::of_weights(sources.weights, tokenizer)?;
    if config.vocabulary < vocabulary.rows() {
        return Err(ModelError::Config(format!(
            "{}: its text tower has {} rows of tokens, its vocabulary {}",
            sources.weights.origin(),
            config.vocabulary,
            vocabulary.rows()
        )));
    }
    let dim = config.embed_dim;
    let templates = sources.templates;
    let mut rows: Vec<Option<Vec<f32>>> = classes
        .iter()
        .map(|names| sources.cache?.get(templates, names))
        .map(|row| row.filter(|row| row.len() == dim))
        .collect();
    if rows.iter().any(Option::is_none) {
        let frozen = |_: &str| false;
        let params = ParamBuilder::new(sources.weights, device, 0, &frozen);
        let tower = TextTower::build(&params.at(TEXT_TOWER.trim_end_matches('.')), config)?;
        for (number, (names, row)) in classes.iter().zip(&mut rows).enumerate() {
            if let Some(progress) = sources.progress {
                progress(number, classes.len());
            }
            if row.is_some() {
                continue;
            }
            let embedding = tower.embed_classes_of(
                (tokenizer, &vocabulary),
                templates,
                std::slice::from_ref(names),
            )?;
            let values: Vec<f32> = embedding
                .into_data()
                .convert::<f32>()
                .try_into_vec()
                .map_err(|error| ModelError::Config(format!("{error:?}")))?;
            if let Some(cache) = sources.cache {
                cache.put(templates, names, &values);
            }
            *row = Some(values);
        }
    }
    let names = classes
        .iter()
        .map(|names| names.first().cloned().unwrap_or_default())
        .collect();
    let values = rows.into_iter().flatten().flatten().collect();
    ClassEmbeddings::new(names, values, dim, "text tower".into())
}
