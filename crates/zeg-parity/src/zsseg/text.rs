//! Compares prompts: token ids, the sequence behind learned vectors, and the class embeddings of every kind of prompt.

use burn::tensor::{Device, Tensor};
use zeg_model::{
    recognize::text_config,
    text::{CONTEXT_KEY, TextTower},
    trace::Trace,
    vocabulary::Vocabulary,
    weights::{ParamBuilder, StateDict},
};
use zeg_vocab::{
    templates::TemplateSet,
    tokenizer::{Overflow, Tokenizer},
};

use super::{ACTIVATION, case::Case};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
};

/// The fixed sets of prompts, with their names in the file.
const FIXED: [(&str, &str); 3] = [
    ("single", "zsseg-single"),
    ("imagenet", "imagenet-80"),
    ("vild", "vild-14"),
];

/// The text tower with its learned vectors.
pub(super) struct Prompts {
    tower: TextTower,
    context: Tensor<2>,
    tokenizer: Tokenizer,
}

impl Prompts {
    /// Opens tower and vectors of published weights.
    pub(super) fn open(weights: &StateDict, device: &Device) -> Result<Self, ParityError> {
        let missing = |key: &str| {
            ParityError::Model(zeg_model::ModelError::MissingTensor {
                key: key.to_owned(),
                origin: weights.origin(),
            })
        };
        let config =
            text_config(weights)?.ok_or_else(|| missing("text_encoder.token_embedding.weight"))?;
        let frozen = |_: &str| false;
        let params = ParamBuilder::new(weights, device, 0, &frozen);
        let vectors = weights
            .read(CONTEXT_KEY)
            .map_err(zeg_model::ModelError::from)?
            .ok_or_else(|| missing(CONTEXT_KEY))?;
        let vectors = Array::from_values(&vectors.shape, &vectors.values);
        Ok(Self {
            tower: TextTower::build(&params.at("text_encoder"), &config)?,
            context: vectors
                .to_tensor(device)
                .ok_or_else(|| missing(CONTEXT_KEY))?,
            tokenizer: Tokenizer::new()?,
        })
    }

    /// Computes class embeddings behind the vectors: unit rows `[classes, dim]`.
    pub(super) fn learned(&self, names: &[String]) -> Result<Tensor<2>, ParityError> {
        let words = (&self.tokenizer, &Vocabulary::Full);
        Ok(self
            .tower
            .embed_classes_behind(words, &self.context, &lists(names))?)
    }

    /// Computes class embeddings in one of the fixed prompts: unit rows `[classes, dim]`.
    fn fixed(&self, templates: &str, names: &[String]) -> Result<Tensor<2>, ParityError> {
        let templates = TemplateSet::by_name(templates)?;
        let classes = lists(names);
        Ok(self
            .tower
            .embed_classes(&self.tokenizer, &templates, &classes)?)
    }

    /// Computes the class embeddings of the queries.
    pub(super) fn of_queries(
        &self,
        case: &Case,
        names: &[String],
    ) -> Result<Tensor<2>, ParityError> {
        self.of(case, "query", names)
    }

    /// Computes the class embeddings of the crops.
    pub(super) fn of_crops(&self, case: &Case, names: &[String]) -> Result<Tensor<2>, ParityError> {
        self.of(case, "region", names)
    }

    fn of(&self, case: &Case, branch: &str, names: &[String]) -> Result<Tensor<2>, ParityError> {
        let prompts = case.meta().at("prompt_templates")?.at(branch)?;
        match prompts.text()? {
            "learned" | "learnable" => self.learned(names),
            other => match FIXED.iter().find(|(name, _)| *name == other) {
                Some((_, templates)) => self.fixed(templates, names),
                None => Err(prompts.error("is not a known kind of prompt")),
            },
        }
    }
}

/// Returns classes that have one name each.
fn lists(names: &[String]) -> Vec<Vec<String>> {
    names.iter().map(|name| vec![name.clone()]).collect()
}

/// Compares the file.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    check.input("used_token_ids")?;
    check.input("token_embedding.rows")?;
    let weights = case.weights(None)?;
    let prompts = Prompts::open(&weights, device)?;
    compare_learned(&mut check, case, &prompts)?;
    let Prompts {
        tower, tokenizer, ..
    } = &prompts;
    let context = tower.config().context_length;
    for (name, templates) in FIXED {
        let templates = TemplateSet::by_name(templates)?;
        let mut ids = Vec::new();
        for template in templates.templates() {
            for class in &case.classes {
                ids.push(tokenizer.tokenize(&template.render(class), context, Overflow::Error)?);
            }
        }
        let found = Array::from_values(&[ids.len(), context], &ids.concat());
        check.compare(
            &format!("{name}.tokens_template_major"),
            &found,
            Limit::Exact,
        );
        let rows = tower.embed_classes(tokenizer, &templates, &lists(&case.classes))?;
        check.compare(&format!("{name}.features"), &Array::of(rows)?, ACTIVATION);
    }
    Ok(check.finish())
}

/// Compares the class names behind learned vectors.
fn compare_learned(check: &mut Check, case: &Case, prompts: &Prompts) -> Result<(), ParityError> {
    let Prompts {
        tower,
        context,
        tokenizer,
    } = prompts;
    let [vectors, _] = context.dims();
    let length = tower.config().context_length;
    let count = case.classes.len();
    let (mut names, mut lengths) = (Vec::new(), Vec::new());
    for class in &case.classes {
        names.extend(tokenizer.tokenize(class, length, Overflow::Error)?);
        lengths.push(tokenizer.encode(class).len() as u32);
    }
    let row = |values: &[u32]| Array::from_values(&[values.len()], values);
    check.compare(
        "learned.name_tokens",
        &Array::from_values(&[count, length], &names),
        Limit::Exact,
    );
    check.compare("learned.name_lengths", &row(&lengths), Limit::Exact);
    let mut ids = tower.ids_behind((tokenizer, &Vocabulary::Full), &case.classes, vectors)?;
    let ends: Vec<u32> = ids
        .iter()
        .map(|ids| {
            let end = ids.iter().max();
            let place = ids.iter().position(|id| Some(id) == end).unwrap_or(0);
            (place + vectors) as u32
        })
        .collect();
    check.compare("learned.eot_index", &row(&ends), Limit::Exact);
    for ids in &mut ids {
        ids.resize(length - vectors, 0); // the reference pads to the whole context
    }
    if let Some(error) = case.planted {
        error.alter_texts(&mut ids);
    }
    let mut trace = Trace::on();
    let features = tower.forward_behind(&ids, context.clone(), &mut trace);
    for (name, data) in trace.into_recorded() {
        if name == "embedded_behind" {
            let all = Array::of_data(data)?;
            let first = all.values.len() / count.max(1);
            let found = Array {
                shape: all.shape[1..].to_vec(),
                values: all.values[..first].to_vec(),
            };
            check.compare("learned.embeddings_class0", &found, ACTIVATION);
        }
    }
    check.compare(
        "learned.features_unnormalised",
        &Array::of(features)?,
        ACTIVATION,
    );
    let rows = Array::of(prompts.learned(&case.classes)?)?;
    check.compare("learned.features", &rows, ACTIVATION);
    Ok(())
}
