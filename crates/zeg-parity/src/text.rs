//! Compares a text encoder with class names and prompt templates: token ids, features and class embeddings.

use burn::tensor::Device;
use zeg_model::{
    config::{Activation, TextConfig},
    layers::l2_normalize,
    text::TextTower,
    trace::Trace,
    weights::{HostTensor, ParamBuilder},
};
use zeg_vocab::{
    templates::TemplateSet,
    tokenizer::{CONTEXT_LENGTH, Overflow, Tokenizer, VOCABULARY_SIZE},
};

use super::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    generator,
    limit::Limit,
    small_model::{stored_weights, token_rows},
};

/// Name of the token embeddings, which are not stored but generated.
const TOKEN_TABLE: &str = "token_embedding.weight";

/// Compares token ids from class names and templates, and features and embeddings from token ids.
pub(crate) fn compare(mut check: Check, device: &Device) -> Result<Computed, ParityError> {
    let file = check.file();
    let meta = file.meta();
    let count = |name: &str| meta.at(name)?.count();
    let (names, templates) = (meta.at("names")?.texts()?, meta.at("templates")?.texts()?);
    let single = meta.at("single")?.text()?;
    let width = count("width")?;
    let seed = count("seed")? as u64;

    let mut weights = stored_weights(file, "state.");
    let table = generator::parameter(TOKEN_TABLE, seed, &[VOCABULARY_SIZE, width]);
    compare_stored_rows(&mut check, &table);
    weights.insert(TOKEN_TABLE.to_owned(), table);
    let heads = count("heads")?;
    let tokenizer = Tokenizer::new()?;
    if let Some(error) = check.planted() {
        error.alter_text_weights(&mut weights, "", start_token(&tokenizer)?, heads)?;
    }
    let context_length = weights
        .shape("positional_embedding")
        .map_or(0, |shape| shape[0]);
    let config = TextConfig {
        width,
        layers: count("layers")?,
        heads,
        embed_dim: count("embed_dim")?,
        context_length,
        vocabulary: VOCABULARY_SIZE,
        activation: Activation::default(),
    };
    let frozen = |_: &str| false;
    let tower = TextTower::build(&ParamBuilder::new(&weights, device, 0, &frozen), &config)?;

    let single = TemplateSet::custom("single", &[single])?;
    let multi = TemplateSet::custom("multi", &templates)?;
    let classes: Vec<Vec<String>> = names.iter().map(|name| vec![name.clone()]).collect();
    for (key, templates) in [("in.single_ids", &single), ("in.multi_ids", &multi)] {
        if let Some(reference) = check.reference(key) {
            let length = reference.shape.last().copied().unwrap_or_default();
            let mut ids = Vec::new();
            for text in names.iter().flat_map(|name| templates.render(name)) {
                ids.extend(tokenizer.tokenize(&text, length, Overflow::Error)?);
            }
            let shape = if ids.len() == reference.values.len() {
                reference.shape.clone()
            } else {
                vec![ids.len()]
            };
            check.compare(key, &Array::from_values(&shape, &ids), Limit::Exact);
        }
    }
    let mut trace = Trace::on();
    let mut ids = token_rows(check.input("in.single_ids")?);
    if let Some(error) = check.planted() {
        error.alter_texts(&mut ids);
    }
    let features = tower.forward(&ids, &mut trace);
    super::small_model::compare_trace(&mut check, "single.", trace)?;
    check.compare(
        "single.features",
        &Array::of(features.clone())?,
        Limit::ACTIVATION,
    );
    check.compare(
        "single.normalized",
        &Array::of(l2_normalize(features))?,
        Limit::ACTIVATION,
    );
    let embeddings = tower.embed_classes(&tokenizer, &multi, &classes)?;
    check.compare(
        "multi.normalized",
        &Array::of(embeddings)?,
        Limit::ACTIVATION,
    );
    Ok(check.finish())
}

/// Returns the id that every text starts with.
pub(crate) fn start_token(tokenizer: &Tokenizer) -> Result<u32, ParityError> {
    let ids = tokenizer.tokenize("", CONTEXT_LENGTH, Overflow::Error)?;
    Ok(ids.first().copied().unwrap_or_default())
}

/// Compares the rows of the token embeddings that the file does store, which checks the generator.
fn compare_stored_rows(check: &mut Check, table: &HostTensor) {
    let (Some(ids), Some(rows)) = (
        check.reference("in.used_ids"),
        check.reference("in.used_rows"),
    ) else {
        return;
    };
    let width = table.shape[1];
    let found: Vec<f32> = ids
        .to_u32()
        .into_iter()
        .filter_map(|id| {
            table
                .values
                .get(id as usize * width..(id as usize + 1) * width)
        })
        .flatten()
        .copied()
        .collect();
    let found = Array::from_values(&[found.len() / width.max(1), width], &found);
    check.compare_value("in.used_rows", rows, &found, Limit::Exact);
}
