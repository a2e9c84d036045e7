//! Finds the state dict in a checkpoint of a training program, by what its values hold.
//!
//! Programs store the state dict beside the optimiser and counters, under a key of their own choice, sometimes nested
//! or in a list of one element. A copy with averaged weights (EMA) may stand beside it.

use crate::{
    error::Defect,
    pickle::{Document, Id, Value},
};

/// Keys under which programs store the state dict, in order of preference.
const KEYS: [&str; 21] = [
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "module",
    "net",
    "network",
    "clip",
    "clip_model",
    "weights",
    "model_weights",
    "params",
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "ema_model",
    "ema",
    "swa_model",
    "averaged_model",
    "teacher",
    "student",
];
/// The largest depth of nested checkpoints.
const MOST_DEPTH: usize = 4;
/// The largest number of keys in a message.
const MOST_KEYS: usize = 12;

/// The state dict of a checkpoint.
pub(super) struct Found {
    /// The dict or object whose parts are tensors or modules.
    pub(super) id: Id,
    /// Keys beside it that hold other weights, such as averaged ones, which are not read.
    pub(super) passed_over: Vec<String>,
}

/// Returns the state dict in a file's outermost value.
///
/// # Errors
/// Returns an error that lists the keys found if none of them holds a state dict.
pub(super) fn find(document: &Document<'_>) -> Result<Found, Defect> {
    let mut found = Found {
        id: document.root,
        passed_over: Vec::new(),
    };
    for _ in 0..=MOST_DEPTH {
        if let Some([only]) = document.elements(found.id) {
            found.id = *only;
            continue;
        }
        let Some(pairs) = document.pairs(found.id) else {
            return Ok(found); // a module as an object
        };
        let holders: Vec<(&str, Id)> = KEYS
            .iter()
            .filter_map(|key| Some((*key, document.entry(pairs, key)?)))
            .filter(|(_, value)| holds_tensors(document, *value, 0))
            .collect();
        let Some((_, id)) = holders.first() else {
            // A dict of modules has no tensors of its own.
            let is_part = |value| {
                is_tensor(document, value) || matches!(document.get(value), Some(Value::Object(_)))
            };
            return if pairs.iter().any(|(_, value)| is_part(*value)) {
                Ok(found)
            } else {
                Err(none_found(document, pairs))
            };
        };
        found.id = *id;
        let rest = holders.iter().skip(1);
        found
            .passed_over
            .extend(rest.map(|(key, _)| (*key).to_owned()));
    }
    Ok(found)
}

fn is_tensor(document: &Document<'_>, id: Id) -> bool {
    matches!(document.get(id), Some(Value::Tensor(_) | Value::Reference))
}

/// Returns whether a value is a module, a dict of tensors, or a checkpoint with one of them inside.
fn holds_tensors(document: &Document<'_>, id: Id, depth: usize) -> bool {
    if depth > MOST_DEPTH {
        return false;
    }
    if let Some([only]) = document.elements(id) {
        return holds_tensors(document, *only, depth + 1);
    }
    match document.get(id) {
        Some(Value::Object(object)) if object.items.is_empty() => object.state.is_some(),
        Some(Value::Dict(_) | Value::Object(_)) => {
            let pairs = document.pairs(id).unwrap_or_default();
            pairs.iter().any(|(_, value)| is_tensor(document, *value))
                || KEYS
                    .iter()
                    .filter_map(|key| document.entry(pairs, key))
                    .any(|value| holds_tensors(document, value, depth + 1))
        }
        _ => false,
    }
}

fn none_found(document: &Document<'_>, pairs: &[(Id, Id)]) -> Defect {
    let keys: Vec<String> = pairs
        .iter()
        .filter_map(|(key, _)| document.text(*key))
        .map(|key| format!("{:?}", String::from_utf8_lossy(key)))
        .collect();
    let shown = keys.get(..MOST_KEYS).unwrap_or(&keys).join(", ");
    Defect::Unsupported(if keys.is_empty() {
        "the PyTorch file contains no named tensors".to_owned()
    } else {
        format!(
            "the PyTorch file has {} keys ({shown}), and none of them holds named tensors of a model",
            keys.len()
        )
    })
}
