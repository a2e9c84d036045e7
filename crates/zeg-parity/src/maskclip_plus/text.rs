//! Compares prompts, their class embeddings, and the loading of labels whose unseen classes are suppressed.

use burn::tensor::Device;
use zeg_data::LabelRule;
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    config::{Activation, TextConfig},
    text::TextTower,
    weights::{HostTensor, ParamBuilder, StateDict},
};
use zeg_train::{
    pseudo_labels::PseudoLabelRule,
    supervision::{PartlyLabelled, PseudoLabels, Supervision, WAITING},
};
use zeg_vocab::{
    templates::TemplateSet,
    tokenizer::{CONTEXT_LENGTH, Overflow, Tokenizer, VOCABULARY_SIZE},
};

use super::{ACTIVATION, IGNORED, case::Case};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
    small_model::stored_weights,
    text::start_token,
};

/// The prompts of MaskCLIP.
const TEMPLATES: &str = "maskclip-85";
/// The prompt without prompt engineering.
const SINGLE: &str = "a photo of a {}.";
/// The loaded label maps: name, number of classes, and unseen classes.
const LOADED: [(&str, usize, std::ops::Range<usize>); 2] =
    [("load.voc20", 20, 15..20), ("load.voc21", 21, 16..21)];

/// Compares the file.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let mut weights = weights(&mut check)?;
    let tokenizer = Tokenizer::new()?;
    let meta = case.meta().at("text")?;
    let heads = meta.at("heads")?.count()?;
    if let Some(error) = case.planted {
        error.alter_text_weights(&mut weights, "", start_token(&tokenizer)?, heads)?;
    }
    let axis = |name: &str, axis: usize| {
        let shape = weights.shape(name).filter(|shape| shape.len() == 2);
        let missing = || check.tensor_error(&format!("weight.{name}"), "is not a matrix");
        shape.map(|shape| shape[axis]).ok_or_else(missing)
    };
    let config = TextConfig {
        width: meta.at("width")?.count()?,
        layers: meta.at("layers")?.count()?,
        heads,
        embed_dim: axis("text_projection", 1)?,
        context_length: axis("positional_embedding", 0)?,
        vocabulary: VOCABULARY_SIZE,
        activation: Activation::default(),
    };
    let frozen = |_: &str| false;
    let tower = TextTower::build(&ParamBuilder::new(&weights, device, 0, &frozen), &config)?;
    let names = meta.at("names")?.texts()?;
    let templates = TemplateSet::by_name(TEMPLATES)?;
    if let Some(reference) = check.reference("text.tokens_class_major") {
        let stored = reference.shape.last().copied().unwrap_or_default();
        let mut ids = Vec::new();
        for prompt in names.iter().flat_map(|name| templates.render(name)) {
            let prompt = tokenizer.tokenize(&prompt, CONTEXT_LENGTH, Overflow::Error)?;
            ids.extend(prompt.into_iter().take(stored));
        }
        let found = Array::from_values(&[ids.len() / stored.max(1), stored], &ids);
        check.compare_value("text.tokens_class_major", reference, &found, Limit::Exact);
    }
    let classes: Vec<Vec<String>> = names.into_iter().map(|name| vec![name]).collect();
    let single = TemplateSet::custom("single", &[SINGLE])?;
    for (name, templates) in [
        ("text.class_rows", &templates),
        ("text.class_rows_single", &single),
    ] {
        let rows = Array::of(tower.embed_classes(&tokenizer, templates, &classes)?)?;
        check.compare(name, &rows, ACTIVATION);
    }
    compare_loading(&mut check)?;
    Ok(check.finish())
}

/// Compares label maps with suppressed classes, which are −1 in the reference.
fn compare_loading(check: &mut Check) -> Result<(), ParityError> {
    let raw = check.input("load.raw")?;
    for (name, classes, unseen) in LOADED {
        let rule = if classes == 20 {
            LabelRule::reduce_zero()
        } else {
            LabelRule::identity()
        };
        let mut labels = Vec::with_capacity(raw.values.len());
        for value in raw.to_u8() {
            let class = rule.class_of(u16::from(value), classes);
            labels.push(class.ok_or_else(|| check.tensor_error("load.raw", "is no label map"))?);
        }
        let listed = (0..classes).map(|class| (class.to_string(), !unseen.contains(&class)));
        let (pixels, rule) = (PseudoLabels::default(), PseudoLabelRule::default());
        let listed = PartlyLabelled::new(listed.collect(), pixels, rule)?;
        Supervision::Transductive(listed).map(&mut labels);
        let value = |label: &u16| match *label {
            WAITING => -1,
            IGNORE_LABEL => i32::from(IGNORED),
            class => i32::from(class),
        };
        let values: Vec<i32> = labels.iter().map(value).collect();
        check.compare(name, &Array::from_values(&raw.shape, &values), Limit::Exact);
    }
    Ok(())
}

/// Returns the weights of the text tower, with the rows of the token embeddings that the file stores.
fn weights(check: &mut Check) -> Result<StateDict, ParityError> {
    let mut weights = stored_weights(check.file(), "weight.");
    for name in check.file().tensors.keys() {
        if name.starts_with("weight.") {
            check.input(name)?;
        }
    }
    let ids = check.input("used_token_ids")?.to_u32();
    let rows = check.input("token_embedding.rows")?;
    let width = rows.shape.last().copied().unwrap_or(0);
    let mut table = vec![0.0_f32; VOCABULARY_SIZE * width];
    for (id, row) in ids.iter().zip(rows.to_f32().chunks_exact(width.max(1))) {
        let start = *id as usize * width;
        if let Some(place) = table.get_mut(start..start + width) {
            place.copy_from_slice(row);
        }
    }
    let table = HostTensor {
        shape: vec![VOCABULARY_SIZE, width],
        values: table,
    };
    weights.insert("token_embedding.weight".into(), table);
    Ok(weights)
}
