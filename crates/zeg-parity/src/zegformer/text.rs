//! Compares text prompts: their token ids, and the class embeddings computed from them.

use burn::tensor::Device;
use zeg_model::{
    config::{Activation, TextConfig},
    text::TextTower,
    trace::Trace,
    weights::{HostTensor, ParamBuilder, StateDict},
};
use zeg_vocab::{
    templates::TemplateSet,
    tokenizer::{Overflow, Tokenizer, VOCABULARY_SIZE},
};

use super::{ACTIVATION, case::Case};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
    small_model::stored_weights,
    text::start_token,
};

/// Separator between the synonyms of a class.
const SYNONYMS: &str = ", ";
/// Number of encoded prompts that are stored one by one.
const FIRST: usize = 64;
/// Prompt templates for crops, whatever templates the head uses.
const CROP_TEMPLATES: &str = "zegformer-32";

/// Compares the file.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let mut weights = weights(&mut check)?;
    let tokenizer = Tokenizer::new()?;
    let config = config(&check, case, &weights)?;
    if let Some(error) = case.planted {
        error.alter_text_weights(&mut weights, "", start_token(&tokenizer)?, config.heads)?;
    }
    let frozen = |_: &str| false;
    let tower = TextTower::build(&ParamBuilder::new(&weights, device, 0, &frozen), &config)?;
    let classes = synonyms(&case.classes);
    let context = config.context_length;

    let head = case.meta().at("prompt_eval")?;
    let sets = [
        ("all_prompt", "text_features_test", templates(head.text()?)?),
        (
            "all_cliptpl",
            "text_features_test_clip",
            TemplateSet::by_name(CROP_TEMPLATES)?,
        ),
    ];
    let inference = case.sibling("infer").ok();
    for (name, embeddings, templates) in sets {
        let (mut ids, mut counts) = (Vec::new(), Vec::new());
        for names in &classes {
            let prompts = prompts(&templates, names);
            counts.push(prompts.len() as u32);
            for prompt in prompts {
                ids.push(tokenizer.tokenize(&prompt, context, Overflow::Error)?);
            }
        }
        let flat: Vec<u32> = ids.concat();
        let found = Array::from_values(&[ids.len(), context], &flat);
        check.compare(&format!("{name}.tokens"), &found, Limit::Exact);
        let found = Array::from_values(&[counts.len()], &counts);
        check.compare(&format!("{name}.prompts_per_class"), &found, Limit::Exact);
        let mut first = ids[..ids.len().min(FIRST)].to_vec();
        if let Some(error) = case.planted {
            error.alter_texts(&mut first);
        }
        let encoded = Array::of(tower.forward(&first, &mut Trace::off()))?;
        check.compare(
            &format!("{name}.encoded_unnormalised_first{FIRST}"),
            &encoded,
            ACTIVATION,
        );
        let rows = Array::of(tower.embed_classes(&tokenizer, &templates, &classes)?)?;
        check.compare(&format!("{name}.class_features"), &rows, ACTIVATION);
        let stored = format!("text.{embeddings}");
        if let Some(stored) = inference
            .as_ref()
            .and_then(|file| file.tensors.get(&stored))
        {
            check.compare_value(
                &format!("infer.text.{embeddings}"),
                stored,
                &rows,
                ACTIVATION,
            );
        }
    }
    compare_training(&mut check, case, &tower, &tokenizer)?;
    let mut ids = Vec::new();
    for name in &case.classes {
        ids.extend(tokenizer.tokenize(name, context, Overflow::Error)?);
    }
    let found = Array::from_values(&[case.classes.len(), context], &ids);
    check.compare("tokenize_only_names.tokens", &found, Limit::Exact);
    Ok(check.finish())
}

/// Compares the class embeddings of training: those of the seen classes, with the prompt templates of training.
fn compare_training(
    check: &mut Check,
    case: &Case,
    tower: &TextTower,
    tokenizer: &Tokenizer,
) -> Result<(), ParityError> {
    const NAME: &str = "text.text_features_train";
    let file = case.sibling("train").ok();
    if let Some(stored) = file.as_ref().and_then(|file| file.tensors.get(NAME)) {
        let templates = templates(case.meta().at("prompt_train")?.text()?)?;
        let rows = tower.embed_classes(tokenizer, &templates, &synonyms(&case.seen_names))?;
        check.compare_value(
            &format!("train.{NAME}"),
            stored,
            &Array::of(rows)?,
            ACTIVATION,
        );
    }
    Ok(())
}

/// Returns the template set for a name of the reference.
fn templates(name: &str) -> Result<TemplateSet, ParityError> {
    Ok(TemplateSet::by_name(match name {
        "single" => "zegformer-single",
        "imagenet_select" => "zegformer-8",
        "imagenet" => "imagenet-80",
        other => other,
    })?)
}

fn synonyms(classes: &[String]) -> Vec<Vec<String>> {
    let names = |class: &String| class.split(SYNONYMS).map(str::to_owned).collect();
    classes.iter().map(names).collect()
}

/// Returns the prompts of a class in the reference's order: all names in the first template, then all in the second.
fn prompts(templates: &TemplateSet, names: &[String]) -> Vec<String> {
    let of_template = |template: &zeg_vocab::templates::Template| -> Vec<String> {
        names.iter().map(|name| template.render(name)).collect()
    };
    templates.templates().iter().flat_map(of_template).collect()
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

fn config(check: &Check, case: &Case, weights: &StateDict) -> Result<TextConfig, ParityError> {
    let text = case.meta().at("text")?;
    let count = |name: &str| text.at(name)?.count();
    let axis = |name: &str, axis: usize| {
        let shape = weights.shape(name).filter(|shape| shape.len() == 2);
        let missing = || check.tensor_error(&format!("weight.{name}"), "is not a matrix");
        shape.map(|shape| shape[axis]).ok_or_else(missing)
    };
    Ok(TextConfig {
        width: count("width")?,
        layers: count("layers")?,
        heads: count("heads")?,
        embed_dim: axis("text_projection", 1)?,
        context_length: axis("positional_embedding", 0)?,
        vocabulary: VOCABULARY_SIZE,
        activation: Activation::default(),
    })
}
