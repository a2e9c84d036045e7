//! Reads the key `labels` of a description: patterns of label files, or COCO annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Value;
use zeg_image::IGNORE_LABEL;
use zeg_vocab::classes::ClassSet;

use super::Annotations;
use super::written::At;
use crate::DataError;
use crate::coco::{self, CocoRule, Format, Overlap};
use crate::pattern::Pattern;

/// The table `labels`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenCoco {
    format: Format,
    file: Option<PathBuf>,
    folder: Option<PathBuf>,
    background: Option<String>,
    #[serde(default)]
    overlap: Overlap,
    #[serde(default)]
    map: BTreeMap<String, String>,
    #[serde(default)]
    ignore: BTreeSet<String>,
}

/// The table `labels` of a split.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenFile {
    file: PathBuf,
    folder: Option<PathBuf>,
}

/// The labels of the images of a place.
pub(super) enum Labels {
    /// Patterns, of which the first with an existing file is used.
    Files(Vec<Pattern>),
    /// COCO annotations; `None` if only the splits name files.
    Coco(Option<Annotations>),
}

/// Reads `labels` of a description; also returns the rule of COCO annotations.
pub(super) fn labels(
    value: &Value,
    span: &Range<usize>,
    (title, classes): (&str, &ClassSet),
    at: At,
) -> Result<(Labels, Option<CocoRule>), DataError> {
    let Value::Table(_) = value else {
        return Ok((Labels::Files(patterns(value, span, at)?), None));
    };
    let written: WrittenCoco = value
        .clone()
        .try_into()
        .map_err(|error| at.toml(Some(span.clone()), &error))?;
    let names = coco::all_names(classes);
    let class = |name: &String, key: &str| {
        coco::class_named(&names, name).ok_or_else(|| {
            let known = classes.classes.join(", ");
            let reason = format!("`{key}`: {name:?} is not one class of the list: {known}");
            at.error(span, reason)
        })
    };
    for name in written.map.values() {
        class(name, "labels.map")?;
    }
    if let Some(name) = written
        .ignore
        .iter()
        .find(|name| written.map.contains_key(*name))
    {
        let reason = format!(
            "the category {name:?} is both in `labels.map` and in `labels.ignore`; leave it out of one of them"
        );
        return Err(at.error(span, reason));
    }
    let rest = match &written.background {
        Some(name) => class(name, "labels.background")?,
        None => IGNORE_LABEL,
    };
    let rule = CocoRule {
        format: written.format,
        overlap: written.overlap,
        rest,
        title: title.to_owned(),
        map: written.map,
        ignore: written.ignore,
        classes: names,
    };
    let file = match (written.file, written.folder) {
        (Some(file), folder) => Some(annotations(file, folder, rule.format, span, at)?),
        (None, Some(_)) => {
            return Err(at.error(span, "`labels.folder` needs `labels.file` beside it"));
        }
        (None, None) => None,
    };
    Ok((Labels::Coco(file), Some(rule)))
}

/// Reads `labels` of a split, of the same kind as those of the description.
pub(super) fn labels_of_split(
    value: &Value,
    span: &Range<usize>,
    rule: Option<&CocoRule>,
    at: At,
) -> Result<Labels, DataError> {
    match (value, rule) {
        (Value::Table(_), Some(rule)) => {
            let written: WrittenFile = value
                .clone()
                .try_into()
                .map_err(|error| at.toml(Some(span.clone()), &error))?;
            let file = annotations(written.file, written.folder, rule.format, span, at)?;
            Ok(Labels::Coco(Some(file)))
        }
        (Value::Table(_), None) => Err(at.error(
            span,
            "a split can only name a file of annotations if `labels.format` states its format",
        )),
        (_, Some(_)) => Err(at.error(
            span,
            "`labels` of this split must be { file = \"….json\" }, because `labels.format` is COCO's",
        )),
        (_, None) => Ok(Labels::Files(patterns(value, span, at)?)),
    }
}

/// Checks that the folder of PNGs is named if the format needs one.
fn annotations(
    file: PathBuf,
    folder: Option<PathBuf>,
    format: Format,
    span: &Range<usize>,
    at: At,
) -> Result<Annotations, DataError> {
    match (format, &folder) {
        (Format::Instances, Some(_)) => Err(at.error(
            span,
            "`folder` is only allowed with format = \"coco-panoptic\"",
        )),
        (Format::Panoptic, None) => Err(at.error(
            span,
            "format = \"coco-panoptic\" needs `folder`, the folder of the PNGs",
        )),
        _ => Ok(Annotations { file, folder }),
    }
}

pub(super) fn pattern(text: &str, span: &Range<usize>, at: At) -> Result<Pattern, DataError> {
    Pattern::parse(text).map_err(|reason| at.error(span, format!("{text:?}: {reason}")))
}

/// Parses one pattern, or several of which the first with an existing file is used.
fn patterns(value: &Value, span: &Range<usize>, at: At) -> Result<Vec<Pattern>, DataError> {
    let texts: Option<Vec<&str>> = match value {
        Value::String(text) => Some(vec![text]),
        Value::Array(texts) => texts.iter().map(Value::as_str).collect(),
        _ => None,
    };
    match texts {
        Some(texts) if !texts.is_empty() => texts
            .into_iter()
            .map(|text| pattern(text, span, at))
            .collect(),
        _ => Err(at.error(
            span,
            "`labels` must be a path with `{id}`, a list of such paths, or a table with the `format` of annotations",
        )),
    }
}
