//! The parts of a model, and the names of the tensors in each.
//!
//! A CLIP tower has exactly these tensors. If a tower has others, its architecture is a different one (layer scales,
//! attention pooling, a convolutional stem), for which `zeg` would compute wrong features.

use serde::Serialize;

use crate::key_table::{KeyTable, captures};

/// A part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WeightsPart {
    /// CLIP's image encoder, including the prompt tokens of the methods: `backbone.*`.
    ImageTower,
    /// CLIP's text encoder: `text_encoder.*`.
    TextTower,
    /// The segmentation head: `decode_head.*`.
    DecodeHead,
}

/// Prefixes of the names of tensors in each part.
const PREFIXES: [(WeightsPart, &str); 3] = [
    (WeightsPart::ImageTower, "backbone."),
    (WeightsPart::TextTower, "text_encoder."),
    (WeightsPart::DecodeHead, "decode_head."),
];

/// Names of the tensors in each part, after the prefix; patterns as in a [`KeyTable`].
const NAMES: [(WeightsPart, &[&str]); 3] = [
    (
        WeightsPart::ImageTower,
        &[
            "class_embedding",
            "positional_embedding",
            "proj",
            "conv1.weight",
            "ln_pre.weight",
            "ln_pre.bias",
            "ln_post.weight",
            "ln_post.bias",
        ],
    ),
    (
        WeightsPart::TextTower,
        &[
            "token_embedding.weight",
            "positional_embedding",
            "ln_final.weight",
            "ln_final.bias",
            "text_projection",
        ],
    ),
    (WeightsPart::DecodeHead, &["*"]),
];

/// Names of the tensors in a tower's blocks, as patterns.
const BLOCK: [&str; 12] = [
    "transformer.resblocks.#.ln_1.weight",
    "transformer.resblocks.#.ln_1.bias",
    "transformer.resblocks.#.attn.in_proj_weight",
    "transformer.resblocks.#.attn.in_proj_bias",
    "transformer.resblocks.#.attn.out_proj.weight",
    "transformer.resblocks.#.attn.out_proj.bias",
    "transformer.resblocks.#.ln_2.weight",
    "transformer.resblocks.#.ln_2.bias",
    "transformer.resblocks.#.mlp.c_fc.weight",
    "transformer.resblocks.#.mlp.c_fc.bias",
    "transformer.resblocks.#.mlp.c_proj.weight",
    "transformer.resblocks.#.mlp.c_proj.bias",
];

/// The part of a model that a name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The name is a tensor of this part.
    Known(WeightsPart),
    /// The name has the prefix of this part, but is not one of its tensors.
    Foreign(WeightsPart),
    /// The name has the prefix of no part.
    Nowhere,
}

/// Returns the part that a name belongs to; `tables` name the tensors that models have in addition to CLIP's encoders.
pub(crate) fn place(key: &str, tables: &[KeyTable]) -> Place {
    let found = PREFIXES
        .iter()
        .find_map(|(part, prefix)| Some((*part, key.strip_prefix(prefix)?)));
    let Some((part, name)) = found else {
        return Place::Nowhere;
    };
    let own = NAMES
        .iter()
        .filter(|(of, _)| *of == part)
        .flat_map(|(_, names)| names.iter());
    let block: &[&str] = if part == WeightsPart::DecodeHead {
        &[]
    } else {
        &BLOCK
    };
    let extras = tables.iter().flat_map(|table| table.extras);
    let extras = extras.filter(|(of, _)| *of == part).map(|(_, name)| name);
    if own
        .chain(block)
        .chain(extras)
        .any(|pattern| captures(pattern, name).is_some())
    {
        Place::Known(part)
    } else {
        Place::Foreign(part)
    }
}

/// Returns the names of tensors that every tower with this many blocks has.
///
/// The tensors of methods are not included, nor are the projections, which some files lack.
pub(crate) fn expected(part: WeightsPart, layers: usize) -> Vec<String> {
    let Some((_, prefix)) = PREFIXES.iter().find(|(of, _)| *of == part) else {
        return Vec::new();
    };
    let single: &[&str] = match part {
        WeightsPart::ImageTower => &[
            "class_embedding",
            "positional_embedding",
            "conv1.weight",
            "ln_pre.weight",
            "ln_pre.bias",
            "ln_post.weight",
            "ln_post.bias",
        ],
        WeightsPart::TextTower => &[
            "token_embedding.weight",
            "positional_embedding",
            "ln_final.weight",
            "ln_final.bias",
        ],
        WeightsPart::DecodeHead => return Vec::new(),
    };
    let blocks = (0..layers).flat_map(|layer| {
        BLOCK
            .iter()
            .map(move |name| format!("{prefix}{}", name.replace('#', &layer.to_string())))
    });
    single
        .iter()
        .map(|name| format!("{prefix}{name}"))
        .chain(blocks)
        .collect()
}
