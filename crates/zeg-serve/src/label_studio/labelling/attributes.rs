//! The attributes of a tag.

use std::collections::HashMap;

use quick_xml::events::BytesStart;
use zeg_base::names::did_you_mean;

use super::{LabellingError, Tool, xml_error};

/// Beginning of the attributes that are this program's own.
const OWN: &str = "zeg_";
/// This program's attributes of a tag with labels.
const OF_TOOL: [&str; 4] = [
    "zeg_background",
    "zeg_threshold",
    "zeg_min_area",
    "zeg_model",
];
/// This program's attributes of a `Label`.
const OF_LABEL: [&str; 1] = ["zeg_threshold"];

/// Checks that a tag has none of this program's attributes that it does not take: a misspelt one would be without effect.
pub(super) fn check_own(
    tag: &str,
    attributes: &HashMap<String, String>,
) -> Result<(), LabellingError> {
    let known: &[&str] = match tag {
        "Label" => &OF_LABEL,
        tag if Tool::of_tag(tag).is_some() => &OF_TOOL,
        _ => &[],
    };
    let mut own = attributes.keys().filter(|name| name.starts_with(OWN));
    let unknown = own.find(|name| !known.contains(&name.as_str()));
    match unknown {
        None => Ok(()),
        Some(attribute) => Err(LabellingError::UnknownAttribute {
            tag: tag.chars().take(60).collect(),
            attribute: attribute.chars().take(60).collect(),
            like: did_you_mean(attribute, known.iter().copied()),
        }),
    }
}

/// Checks that the labels of a tag are written in the configuration, and not in each task.
pub(super) fn check_fixed(
    tag: &'static str,
    attributes: &HashMap<String, String>,
) -> Result<(), LabellingError> {
    match attributes.get("value") {
        Some(value) if value.trim_start().starts_with('$') => Err(LabellingError::OfTask {
            tag,
            value: value.chars().take(60).collect(),
        }),
        _ => Ok(()),
    }
}

/// Splits a list of names.
pub(super) fn listed(text: &str, separators: &[char]) -> Vec<String> {
    let names = text.split(separators).map(str::trim);
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Returns the value of `zeg_threshold`.
pub(super) fn threshold(
    attributes: &HashMap<String, String>,
) -> Result<Option<f32>, LabellingError> {
    let Some(value) = attributes.get("zeg_threshold") else {
        return Ok(None);
    };
    match value.trim().parse::<f32>() {
        Ok(threshold) if (0.0..=1.0).contains(&threshold) => Ok(Some(threshold)),
        _ => Err(LabellingError::Attribute {
            attribute: "zeg_threshold",
            value: value.clone(),
            legal: "a number from 0 to 1",
        }),
    }
}

/// Returns the attributes of a tag.
pub(super) fn attributes(
    start: &BytesStart<'_>,
) -> Result<HashMap<String, String>, LabellingError> {
    let mut found = HashMap::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(xml_error)?;
        let value = attribute
            .normalized_value(quick_xml::XmlVersion::Implicit1_0)
            .map_err(xml_error)?;
        found.insert(attribute.key.into_inner().to_owned(), value.into_owned());
    }
    Ok(found)
}
