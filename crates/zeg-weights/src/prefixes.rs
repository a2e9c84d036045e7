//! Removes the prefixes that training programs put before the names of a model's tensors.
//!
//! `DistributedDataParallel` adds `module.`, `torch.compile` adds `_orig_mod.`, and a program that keeps CLIP in an
//! attribute adds the attribute's name, such as `model.` or `clip_model.`. The prefixes may be nested in any order.
//! Wrappers around parts of a model, as of FSDP, stand within the names.

use std::collections::{BTreeMap, BTreeSet};

use crate::{error::Defect, key_table::KeyTable};

/// Prefixes of wrappers around any model; no model has parts of these names.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
/// Names of wrappers around a part of any model, which may stand anywhere in a name.
const INNER_WRAPPERS: [&str; 4] = [
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
];
/// Names of attributes in which programs keep the model.
const OWNERS: [&str; 17] = [
    "model",
    "clip",
    "clip_model",
    "net",
    "network",
    "encoder",
    "student",
    "teacher",
    "ema",
    "ema_model",
    "model_ema",
    "swa_model",
    "base_model",
    "state_dict",
    "model_state_dict",
    "module",
    "_orig_mod",
];
/// The largest number of nested wrappers.
const MOST_WRAPPERS: usize = 8;
/// Names that begin with one of these are `zeg`'s own.
const OWN: [&str; 3] = ["backbone.", "text_encoder.", "decode_head."];
/// Tensors that every CLIP image encoder, and every CLIP text encoder, has once, by their names in each family.
const LANDMARKS: [&[&str]; 2] = [
    &[
        "visual.conv1.weight",
        "backbone.conv1.weight",
        "vision_model.embeddings.patch_embedding.weight",
    ],
    &[
        "token_embedding.weight",
        "text_encoder.token_embedding.weight",
        "text.token_embedding.weight",
        "text_model.embeddings.token_embedding.weight",
    ],
];

/// Returns the names without the prefixes of wrappers, with the values of the tensors.
///
/// # Errors
/// Returns an error that lists the prefixes if several models in the file have names that fit.
pub(crate) fn unwrapped<T>(
    tensors: BTreeMap<String, T>,
    tables: &[KeyTable],
) -> Result<BTreeMap<String, T>, Defect> {
    let mut tensors = without_inner_wrappers(tensors);
    for _ in 0..MOST_WRAPPERS {
        let Some(prefix) = common_wrapper(&tensors) else {
            break;
        };
        tensors = without(tensors, prefix);
    }
    if is_recognised(&tensors, tables) {
        return Ok(tensors);
    }
    let Some(prefix) = owner(&tensors)? else {
        return Ok(tensors);
    };
    Ok(without(tensors, &prefix))
}

/// Removes the names of wrappers around parts of the model. Where a name exists without them as well, the longer one is
/// kept as it is.
fn without_inner_wrappers<T>(tensors: BTreeMap<String, T>) -> BTreeMap<String, T> {
    let is_wrapper = |part: &&str| INNER_WRAPPERS.contains(part);
    let (wrapped, mut renamed): (BTreeMap<_, _>, BTreeMap<_, _>) = tensors
        .into_iter()
        .partition(|(name, _): &(String, T)| name.split('.').any(|part| is_wrapper(&part)));
    for (name, tensor) in wrapped {
        let parts: Vec<&str> = name.split('.').filter(|part| !is_wrapper(part)).collect();
        let short = parts.join(".");
        let free = !short.is_empty() && !renamed.contains_key(&short);
        renamed.insert(if free { short } else { name }, tensor);
    }
    renamed
}

/// Returns the prefix of a wrapper that most names have; a tensor that was added beside the model may lack it.
fn common_wrapper<T>(tensors: &BTreeMap<String, T>) -> Option<&'static str> {
    WRAPPERS.into_iter().find(|prefix| {
        let wrapped = tensors.keys().filter(|name| name.starts_with(prefix));
        wrapped.count() * 2 > tensors.len()
    })
}

/// Returns whether a table, or `zeg` itself, knows the names as they are.
fn is_recognised<T>(tensors: &BTreeMap<String, T>, tables: &[KeyTable]) -> bool {
    KeyTable::recognises(tensors.keys().map(String::as_str), tables)
        || tensors
            .keys()
            .any(|name| OWN.iter().any(|own| name.starts_with(own)))
}

/// Returns the prefix of CLIP's encoders, if they are a part of a larger model.
fn owner<T>(tensors: &BTreeMap<String, T>) -> Result<Option<String>, Defect> {
    for names in LANDMARKS {
        let found: BTreeSet<&str> = tensors
            .keys()
            .filter_map(|name| {
                // The longest name counts: `text.` belongs to the name of a family, not to the prefix.
                let prefixes = names.iter().filter_map(|suffix| name.strip_suffix(suffix));
                prefixes.min_by_key(|prefix| prefix.len())
            })
            .filter(|prefix| is_owner(prefix))
            .collect();
        let found: Vec<&str> = found.into_iter().collect();
        match found[..] {
            [] => {}
            [prefix] => return Ok(Some(prefix.to_owned())),
            _ => {
                return Err(Defect::Unsupported(format!(
                    "the file has several models, under the prefixes {}; save one of them in a file of its own",
                    found.join(", ")
                )));
            }
        }
    }
    Ok(None)
}

/// Returns whether a prefix consists of usual names of attributes that hold a model.
///
/// Under other names CLIP can be a part of a larger model, whose names a key table of its method explains.
fn is_owner(prefix: &str) -> bool {
    prefix
        .strip_suffix('.')
        .is_some_and(|path| path.split('.').all(|part| OWNERS.contains(&part)))
}

/// Removes a prefix from all names that have it. Where a name exists without it as well, the prefixed one is kept as it
/// is.
fn without<T>(tensors: BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
    let (prefixed, mut renamed): (BTreeMap<_, _>, BTreeMap<_, _>) = tensors
        .into_iter()
        .partition(|(name, _)| name.len() > prefix.len() && name.starts_with(prefix));
    for (name, tensor) in prefixed {
        let short = name[prefix.len()..].to_owned();
        let free = !renamed.contains_key(&short);
        renamed.insert(if free { short } else { name }, tensor);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Result<Vec<String>, Defect> {
        let tensors = of.iter().map(|name| ((*name).to_owned(), ())).collect();
        Ok(unwrapped(tensors, &[])?.into_keys().collect())
    }

    #[test]
    fn prefixes_of_training_programs_are_removed() {
        let plain = [
            "text_projection",
            "token_embedding.weight",
            "visual.conv1.weight",
        ];
        for prefix in [
            "",
            "module.",
            "_orig_mod.module.",
            "module._orig_mod.",
            "model.",
            "clip.",
            "clip_model.",
            "model._orig_mod.encoder.",
            "state_dict.",
            "base_model.model.",
        ] {
            let wrapped: Vec<String> = plain.iter().map(|name| format!("{prefix}{name}")).collect();
            let wrapped: Vec<&str> = wrapped.iter().map(String::as_str).collect();
            assert_eq!(names(&wrapped).unwrap(), plain, "{prefix}");
        }
    }

    #[test]
    fn wrappers_around_parts_of_the_model_are_removed() {
        let found = names(&[
            "_fsdp_wrapped_module.text_projection",
            "visual._orig_mod.conv1.weight",
            "visual.transformer.resblocks.0._checkpoint_wrapped_module._fsdp_wrapped_module.ln_1.bias",
        ]);
        let expected = [
            "text_projection",
            "visual.conv1.weight",
            "visual.transformer.resblocks.0.ln_1.bias",
        ];
        assert_eq!(found.unwrap(), expected);
        // No tensor is lost if both names exist.
        let found = names(&["a.b", "a._orig_mod.b", "_orig_mod"]).unwrap();
        assert_eq!(found, ["_orig_mod", "a._orig_mod.b", "a.b"]);
    }

    #[test]
    fn one_tensor_beside_the_model_changes_nothing() {
        let found = names(&[
            "module.text_projection",
            "module.visual.conv1.weight",
            "module.visual.proj",
            "logit_scale",
        ]);
        let expected = [
            "logit_scale",
            "text_projection",
            "visual.conv1.weight",
            "visual.proj",
        ];
        assert_eq!(found.unwrap(), expected);
        // No tensor is lost if both names exist.
        let found = names(&["module.a", "module.b", "module.c", "a"]).unwrap();
        assert_eq!(found, ["a", "b", "c", "module.a"]);
    }

    #[test]
    fn families_keep_their_own_prefixes() {
        for name in [
            "text.token_embedding.weight",
            "text_model.embeddings.token_embedding.weight",
            "vision_model.embeddings.patch_embedding.weight",
            "backbone.conv1.weight",
            "embeddings",
            "state.backbone.conv1.weight",
            "sem_seg_head.predictor.clip_model.visual.conv1.weight",
        ] {
            assert_eq!(names(&[name]).unwrap(), [name]);
        }
        let found = names(&[
            "clip.text.token_embedding.weight",
            "clip.visual.conv1.weight",
        ]);
        assert_eq!(
            found.unwrap(),
            ["text.token_embedding.weight", "visual.conv1.weight"]
        );
    }

    #[test]
    fn two_models_in_a_file_are_an_error_that_names_both() {
        let error = names(&["student.visual.conv1.weight", "teacher.visual.conv1.weight"]);
        let Err(Defect::Unsupported(reason)) = error else {
            panic!("{error:?}");
        };
        assert!(reason.contains("student., teacher."), "{reason}");
    }
}
