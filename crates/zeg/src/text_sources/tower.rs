//! Embeds class names with the text tower of the weights, and with learned vectors in front of them.

use burn::tensor::{Device, Tensor, TensorData};
use zeg_model::{
    ModelError,
    config::TextConfig,
    embeddings::ClassEmbeddings,
    text::{CONTEXT_KEY, TextTower},
    vocabulary::Vocabulary,
    weights::ParamBuilder,
};
use zeg_vocab::tokenizer::Tokenizer;

use super::TextSources;

/// Name of the text tower in the weights.
const TEXT_TOWER: &str = "text_encoder";

/// The error that the prompt templates are learned vectors, which the weights do not hold.
#[derive(Debug, thiserror::Error)]
#[error(
    "{weights}: holds no learned vectors for the prompt templates {templates:?}; they are trained first, and training \
     starts from their checkpoint (--init)"
)]
pub struct NoLearnedVectors {
    /// Paths of the weights files.
    pub weights: String,
    /// Name of the templates.
    pub templates: String,
}

/// Embeds classes with the text tower, which is built only if a class is not in the cache.
pub(super) fn from_tower(
    classes: &[Vec<String>],
    sources: &TextSources,
    config: &TextConfig,
    tokenizer: &Tokenizer,
    device: &Device,
) -> anyhow::Result<ClassEmbeddings> {
    let vocabulary = Vocabulary::of_weights(sources.weights, tokenizer)?;
    if config.vocabulary < vocabulary.rows() {
        return Err(ModelError::Config(format!(
            "{}: the text tower has {} token embeddings, but its vocabulary has {} tokens",
            sources.weights.origin(),
            config.vocabulary,
            vocabulary.rows()
        ))
        .into());
    }
    let dim = config.embed_dim;
    let templates = sources.templates.set();
    // Embeddings behind learned vectors follow from the model, of which the cache knows nothing.
    let sources = &TextSources {
        cache: sources.cache.filter(|_| !templates.is_learned()),
        ..*sources
    };
    let mut rows: Vec<Option<Vec<f32>>> = classes
        .iter()
        .map(|names| sources.cache?.get(templates, names))
        .map(|row| row.filter(|row| row.len() == dim))
        .collect();
    if rows.iter().any(Option::is_none) {
        let frozen = |_: &str| false;
        let params = ParamBuilder::new(sources.weights, device, 0, &frozen);
        let tower = TextTower::build(&params.at(TEXT_TOWER), config)?;
        let context = if templates.is_learned() {
            Some(learned_context(sources, device)?)
        } else {
            None
        };
        for (number, (names, row)) in classes.iter().zip(&mut rows).enumerate() {
            if let Some(progress) = sources.progress {
                progress(number, classes.len());
            }
            if row.is_some() {
                continue;
            }
            sources.stop.check()?;
            let (words, class) = ((tokenizer, &vocabulary), std::slice::from_ref(names));
            let embedding = match &context {
                Some(context) => tower.embed_classes_behind(words, context, class)?,
                None => tower.embed_classes_of(words, templates, class)?,
            };
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
    Ok(ClassEmbeddings::new(
        names,
        values,
        dim,
        "text tower".into(),
    )?)
}

/// Returns the learned vectors that stand in front of class names: `[vectors, width]`.
fn learned_context(sources: &TextSources, device: &Device) -> anyhow::Result<Tensor<2>> {
    let Some(vectors) = sources.weights.read(CONTEXT_KEY)? else {
        return Err(NoLearnedVectors {
            weights: sources.weights.origin(),
            templates: sources.templates.set().name().to_owned(),
        }
        .into());
    };
    let [rows, width] = vectors.shape[..] else {
        return Err(ModelError::Config(format!(
            "{}: {CONTEXT_KEY:?} has shape {:?}, which is not [vectors, width]",
            sources.weights.origin(),
            vectors.shape
        ))
        .into());
    };
    let data = TensorData::new(vectors.values, [rows, width]);
    Ok(Tensor::from_data(data, device))
}
