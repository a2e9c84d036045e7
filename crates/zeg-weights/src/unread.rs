//! Judges the tensors of files that no model reads: whether a model computes something else without them.
//!
//! Unknown tensors inside a tower (adapters such as LoRA, layer scales, additional normalisations, zero points) change
//! what the tower computes, so weights with them are refused. Groups elsewhere, such as the head of another model, give
//! a notice. Constants and buffers that programs store with the weights are passed over.

use safetensors::Dtype;

use crate::{
    StateDict, WeightsError, WeightsPart,
    families::clip::{HUGGING_FACE_CLIP, OPEN_CLIP_CUSTOM_TEXT, OPENAI_CLIP},
    key_table::KeyTable,
    parts::{self, Place},
    state_dict::Opened,
};

/// Last parts of the names of constants and buffers, which no model needs.
const HARMLESS: [&str; 11] = [
    "position_ids",
    "attn_mask",
    "num_batches_tracked",
    "relative_position_index",
    "empty_weight",
    "pixel_mean",
    "pixel_std",
    "image_mean",
    "image_std",
    "logit_scale",
    "logit_bias",
];
/// Beginning of the parts of names that adapters add to the layers of any model.
const ADAPTER: &str = "lora_";
/// Name within a tower under which its blocks stand.
const BLOCKS: &str = "transformer.";
/// Number of names in a notice.
const MOST_NAMES: usize = 2;

impl StateDict {
    /// Checks that a model computes the same as the program that the weights come from: that no tensor inside a tower
    /// is left out, and no weight is stored as numbers that are not read.
    ///
    /// # Errors
    /// Returns [`WeightsError::UnknownTensor`] or [`WeightsError::NumberType`] for the first such tensor.
    pub fn check_unread(&self) -> Result<(), WeightsError> {
        for opened in self.opened() {
            check_integers(opened, self.tables())?;
        }
        for (opened, key, name) in self.tensors_of_files() {
            if changes_the_computation(&opened.table, parts::place(key, self.tables()), key, name) {
                return Err(unknown(opened, name));
            }
        }
        Ok(())
    }

    /// Describes the tensors beside CLIP's towers that are not read, for warnings: one sentence for each file.
    pub(crate) fn left_over_notices(&self) -> Vec<String> {
        let notice = |opened: &Opened| {
            let names: Vec<&str> = self
                .tensors_of_files()
                .filter(|(of, key, name)| {
                    of.files == opened.files
                        && is_clip(&of.table)
                        && parts::place(key, self.tables()) == Place::Nowhere
                        && !is_harmless(name)
                })
                .map(|(_, _, name)| name)
                .collect();
            let shown = names.get(..MOST_NAMES).unwrap_or(&names).join(", ");
            let more = match names.len().saturating_sub(MOST_NAMES) {
                0 => String::new(),
                rest => format!(" and {rest} more"),
            };
            (!names.is_empty()).then(|| {
                format!(
                    "{}: not all tensors are read, because these belong to neither of CLIP's towers: {shown}{more}",
                    opened.path.display()
                )
            })
        };
        self.opened().iter().filter_map(notice).collect()
    }

    /// Lists the tensors of files: the file, the name in `zeg`, and the name in the file of the first piece.
    fn tensors_of_files(&self) -> impl Iterator<Item = (&Opened, &str, &str)> {
        self.keys().filter_map(|key| {
            let piece = self.entry(key)?.pieces.first()?;
            let mut opened = self.opened().iter();
            let of_file = opened.find(|opened| opened.files.contains(&piece.file))?;
            Some((of_file, key, piece.name.as_str()))
        })
    }
}

/// Checks the tensors of integers of a file, which are not listed as weights.
fn check_integers(opened: &Opened, tables: &[KeyTable]) -> Result<(), WeightsError> {
    for (name, dtype) in &opened.integers {
        let plan = opened.table.plan(std::iter::once(name.as_str()));
        // A part of a concatenated tensor is a weight without the other parts as well.
        let whole = plan.recipes.keys().next();
        let Some(key) = whole.or(plan.incomplete.first().map(|(_, key)| key)) else {
            continue;
        };
        let place = parts::place(key, tables);
        let is_weight = match place {
            Place::Known(WeightsPart::DecodeHead) => {
                matches!(name.rsplit('.').next(), Some("weight" | "bias")) && name.contains('.')
            }
            Place::Known(_) => true,
            Place::Foreign(_) | Place::Nowhere => false,
        };
        if is_weight && !is_harmless(name) {
            return Err(number_type(opened, name, *dtype));
        }
        if changes_the_computation(&opened.table, place, key, name) {
            return Err(unknown(opened, name));
        }
    }
    Ok(())
}

/// Returns whether a tensor that no model reads changes what a tower computes.
///
/// - `key`, `name`: its names in `zeg` and in the file
fn changes_the_computation(table: &KeyTable, place: Place, key: &str, name: &str) -> bool {
    if is_harmless(name) {
        return false;
    }
    match place {
        Place::Known(_) => false,
        // Files of other families may hold unused modules beside the blocks.
        Place::Foreign(_) => is_clip(table) || key.contains(BLOCKS),
        Place::Nowhere => is_clip(table) && (is_adapter(name) || stands_in_a_tower(table, name)),
    }
}

/// Returns whether a name begins like the names of a tower's tensors in its family.
fn stands_in_a_tower(table: &KeyTable, name: &str) -> bool {
    let Some((module, _)) = name.split_once('.') else {
        return false;
    };
    let patterns = table.renames.iter().flat_map(|rule| rule.from);
    let mut modules = patterns.map(|pattern| pattern.split('.').next());
    modules.any(|of_tower| of_tower == Some(module))
}

/// Returns whether a table is that of a published format of CLIP.
fn is_clip(table: &KeyTable) -> bool {
    [HUGGING_FACE_CLIP, OPEN_CLIP_CUSTOM_TEXT, OPENAI_CLIP]
        .iter()
        .any(|clip| clip.family == table.family)
}

/// Returns whether a tensor belongs to an adapter (LoRA), which changes what a layer computes.
pub fn is_adapter(name: &str) -> bool {
    name.split('.').any(|part| part.starts_with(ADAPTER))
}

/// Returns whether a tensor is a constant or a buffer that programs store with the weights and no model needs.
pub fn is_harmless(name: &str) -> bool {
    name.rsplit('.')
        .next()
        .is_some_and(|last| HARMLESS.contains(&last))
}

fn unknown(opened: &Opened, name: &str) -> WeightsError {
    WeightsError::UnknownTensor {
        path: opened.path.clone(),
        key: name.to_owned(),
    }
}

fn number_type(opened: &Opened, name: &str, dtype: Dtype) -> WeightsError {
    WeightsError::NumberType {
        path: opened.path.clone(),
        key: name.to_owned(),
        dtype: format!("{dtype:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the bytes of a safetensors file with one vector of 4 numbers per name.
    fn file(tensors: &[(&str, Dtype)]) -> Vec<u8> {
        let values = [0_u8; 32];
        let views = tensors.iter().map(|(name, dtype)| {
            let bytes = 4 * dtype.bitsize() / 8;
            let view = safetensors::tensor::TensorView::new(*dtype, vec![4], &values[..bytes]);
            (*name, view.unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    }

    fn open(tensors: &[(&str, Dtype)]) -> StateDict {
        StateDict::from_bytes("clip.safetensors", file(tensors), &[]).unwrap()
    }

    const OPENAI: (&str, Dtype) = ("visual.proj", Dtype::F32);
    const HUGGING_FACE: (&str, Dtype) = ("vision_model.pre_layrnorm.weight", Dtype::F32);

    #[test]
    fn tensors_inside_a_tower_that_no_model_reads_are_errors_that_name_them() {
        for (known, name) in [
            (OPENAI, "visual.transformer.resblocks.0.ls_1.gamma"),
            (OPENAI, "visual.transformer.resblocks.0.attn.q_norm.weight"),
            (OPENAI, "transformer.resblocks.0.mlp.c_fc.lora_A.weight"),
            (OPENAI, "visual.adapter.weight"),
            (OPENAI, "extra.lora_B.weight"),
            (
                HUGGING_FACE,
                "vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
            ),
            (HUGGING_FACE, "text_model.encoder.layers.0.adapter.weight"),
            (HUGGING_FACE, "visual_projection.bias"),
        ] {
            let error = open(&[known, (name, Dtype::F32)]).check_unread();
            assert!(
                matches!(&error, Err(WeightsError::UnknownTensor { key, .. }) if key == name),
                "{name}: {error:?}"
            );
        }
        let zero_point = "visual.transformer.resblocks.0.mlp.c_fc.weight.zero_point";
        let error = open(&[OPENAI, (zero_point, Dtype::I8)]).check_unread();
        assert!(
            matches!(&error, Err(WeightsError::UnknownTensor { key, .. }) if key == zero_point),
            "{error:?}"
        );
    }

    #[test]
    fn weights_of_integers_without_scales_are_errors_that_name_the_type() {
        for (known, name) in [
            (OPENAI, "visual.conv1.weight"),
            (
                HUGGING_FACE,
                "vision_model.encoder.layers.0.self_attn.q_proj.weight",
            ),
        ] {
            for dtype in [Dtype::I8, Dtype::U8] {
                let error = open(&[known, (name, dtype)]).check_unread().unwrap_err();
                assert!(
                    matches!(&error, WeightsError::NumberType { key, .. } if key == name),
                    "{error}"
                );
                assert!(error.to_string().contains(&format!("{dtype:?}")), "{error}");
            }
        }
    }

    #[test]
    fn constants_are_silent_and_groups_beside_the_towers_give_one_notice() {
        let silent = open(&[
            HUGGING_FACE,
            ("vision_model.embeddings.position_ids", Dtype::I64),
            ("text_model.embeddings.position_ids", Dtype::F32),
            ("logit_scale", Dtype::F32),
            ("logit_bias", Dtype::F32),
            ("head.norm.num_batches_tracked", Dtype::I64),
        ]);
        silent.check_unread().unwrap();
        assert_eq!(silent.notices(), Vec::<String>::new());
        let weights = open(&[
            OPENAI,
            ("ema.visual.conv1.weight", Dtype::F32),
            ("ema.visual.proj", Dtype::F32),
            ("head.weight", Dtype::F32),
        ]);
        weights.check_unread().unwrap();
        let notices = weights.notices();
        let [notice] = &notices[..] else {
            panic!("{notices:?}");
        };
        assert!(
            notice.ends_with("ema.visual.conv1.weight, ema.visual.proj and 1 more"),
            "{notice}"
        );
    }

    #[test]
    fn unused_modules_of_released_checkpoints_are_silent() {
        let weights = open(&[
            ("backbone.conv1.weight", Dtype::F32),
            ("backbone.fpn1.0.weight", Dtype::F32),
            (
                "decode_head.decoder.layers.0.self_attn.in_proj_weight",
                Dtype::F32,
            ),
            ("decode_head.decoder.layers.0.norm1.weight", Dtype::F32),
            ("decode_head.loss_decode.criterion.empty_weight", Dtype::F32),
            ("pixel_mean", Dtype::F32),
        ]);
        weights.check_unread().unwrap();
        assert_eq!(weights.notices(), Vec::<String>::new());
    }
}
