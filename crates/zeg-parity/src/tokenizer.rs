//! Compares the token ids that CLIP's tokenizer gives for strings.

use serde_json::Value;
use zeg_vocab::tokenizer::{CONTEXT_LENGTH, Overflow, Tokenizer};

use super::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
};

/// Returns the list of strings in a file of this kind; `None` for other files.
pub(crate) fn entries(description: &Value) -> Option<&Vec<Value>> {
    let list = description
        .get("vectors")
        .unwrap_or(description)
        .as_array()?;
    let is_entry = |entry: &Value| entry["text"].is_string() && entry["encode"].is_array();
    (!list.is_empty() && list.iter().all(is_entry)).then_some(list)
}

/// Compares ids, the padded sequence and whether the text fits.
pub(crate) fn compare(mut check: Check) -> Result<Computed, ParityError> {
    let tokenizer = Tokenizer::new()?;
    let list = entries(&check.file().description).map_or(&[][..], Vec::as_slice);
    for (index, entry) in list.iter().enumerate() {
        let text = entry["text"].as_str().unwrap_or_default();
        let name = |what: &str| format!("{what}[{index}]");
        let ids = |key: &str| -> Option<Vec<f64>> {
            let list = entry.get(key)?.as_array()?;
            list.iter().map(Value::as_f64).collect()
        };
        let found = tokenizer.encode(text);
        if let Some(reference) = ids("encode") {
            let found = Array::from_values(&[found.len()], &found);
            check.compare_value(
                &name("encode"),
                &Array::row(reference),
                &found,
                Limit::Exact,
            );
        }
        let padded = ids("ids77").map(Array::row);
        let length = padded
            .as_ref()
            .map_or(CONTEXT_LENGTH, |ids| ids.values.len());
        if let Some(overflow) = entry.get("overflow").and_then(Value::as_bool) {
            let rejected = tokenizer.tokenize(text, length, Overflow::Error).is_err();
            let problem = format!("rejected: {rejected}, but the reference: {overflow}");
            check.verdict(&name("overflow"), (rejected != overflow).then_some(problem));
        }
        if let Some(reference) = padded {
            let found = tokenizer.tokenize(text, length, Overflow::Truncate)?;
            let found = Array::from_values(&[found.len()], &found);
            check.compare_value(&name("ids77"), &reference, &found, Limit::Exact);
        }
    }
    Ok(check.finish())
}
