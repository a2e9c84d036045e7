//! Parses the TOML file of a description and checks its values.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};
use zeg_base::keys::suggestion;
use zeg_image::IGNORE_LABEL;
use zeg_vocab::classes::ClassSet;

use super::classes::{self, Entry};
use super::labels::{self, Labels};
use super::{Description, SplitSource, WrittenPlace};
use crate::coco::CocoRule;
use crate::labels::DEFAULT_THRESHOLD;
use crate::listing::{FurtherMasks, Place};
use crate::pattern::Pattern;
use crate::split::{IdForm, is_id};
use crate::{DataError, LabelKind, LabelRule, Metric};

/// The name of the only split of a description that names none.
const ALL: &str = "all";

/// The keys of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    name: Spanned<String>,
    title: Option<String>,
    root: Option<PathBuf>,
    images: Spanned<String>,
    labels: Spanned<Value>,
    #[serde(default)]
    exclude: Vec<String>,
    kind: Option<Spanned<Kind>>,
    more_masks: Option<Spanned<String>>,
    zero_is: Option<Spanned<Zero>>,
    threshold: Option<Spanned<i64>>,
    ignore: Option<Spanned<Vec<u16>>>,
    ignore_colours: Option<Spanned<Vec<String>>>,
    classes: Spanned<Value>,
    unseen: Option<Spanned<Value>>,
    #[serde(default)]
    metric: Metric,
    #[serde(default)]
    splits: BTreeMap<String, Spanned<Value>>,
}

/// The encoding of classes in label files.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Index,
    Palette,
    Binary,
}

impl Kind {
    /// Returns the name in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Palette => "palette",
            Self::Binary => "binary",
        }
    }
}

/// The meaning of the value 0 in index files.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Zero {
    Ignore,
    Class,
}

/// A split in folders of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    images: String,
    labels: Value,
    #[serde(rename = "more-masks")]
    more_masks: Option<String>,
}

/// The text and path of a description, for errors with file and line.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    text: &'a str,
    path: &'a Path,
}

impl At<'_> {
    pub(super) fn error(self, span: &Range<usize>, reason: impl Into<String>) -> DataError {
        let before = self.text.get(..span.start).unwrap_or_default();
        DataError::Description {
            path: self.path.to_owned(),
            line: before.split('\n').count(),
            reason: reason.into(),
        }
    }

    /// Returns an error of the TOML parser, at its own position or, if it has none, at `span`.
    pub(super) fn toml(self, span: Option<Range<usize>>, error: &toml::de::Error) -> DataError {
        let span = error.span().or(span).unwrap_or_default();
        let message = error.message().trim_end();
        self.error(&span, format!("{message}{}", suggestion(message)))
    }
}

/// Parses a description; `path` is the path of its file.
pub(super) fn parse(text: &str, path: &Path) -> Result<Description, DataError> {
    let at = At { text, path };
    let written: Written = toml::from_str(text).map_err(|error| at.toml(None, &error))?;
    let name = written.name.get_ref().trim().to_owned();
    if name.is_empty() || name.contains(|c: char| c.is_control() || matches!(c, '/' | '\\')) {
        let reason = format!(
            "`name` is {name:?}; it must not be empty or contain `/`, `\\` or control characters"
        );
        return Err(at.error(&written.name.span(), reason));
    }
    let entries = classes::entries(&written.classes, at)?;
    let mut set = class_set(&name, &written.classes, &entries, at)?;
    if let Some(unseen) = &written.unseen {
        set = with_unseen(set, unseen, at)?;
    }
    let title = written.title.clone().unwrap_or_else(|| name.clone());
    let span = written.labels.span();
    let (found, coco) = labels::labels(written.labels.get_ref(), &span, (&title, &set), at)?;
    let rule = match &coco {
        Some(_) => coco_rule(&written, &entries, at)?,
        None => rule(&written, &entries, at)?,
    };
    let home = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let images = labels::pattern(written.images.get_ref(), &written.images.span(), at)?;
    let masks = written.more_masks.as_ref();
    let masks = masks.map(|masks| further(masks.get_ref(), &masks.span(), at));
    let place = place(images, found, masks.transpose()?);
    Ok(Description {
        title,
        name,
        classes: set,
        rule,
        metric: written.metric,
        root: root(&home, written.root),
        place,
        exclude: written
            .exclude
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect(),
        splits: splits(written.splits, coco.as_ref(), at)?,
        coco,
        home,
    })
}

/// Joins the parts of a place.
fn place(images: Pattern, labels: Labels, further: Option<FurtherMasks>) -> WrittenPlace {
    let (labels, annotations) = match labels {
        Labels::Files(patterns) => (patterns, None),
        Labels::Coco(annotations) => (Vec::new(), annotations),
    };
    WrittenPlace {
        files: Place {
            images,
            labels,
            further,
            coco: None,
        },
        annotations,
    }
}

fn further(text: &str, span: &Range<usize>, at: At) -> Result<FurtherMasks, DataError> {
    FurtherMasks::parse(text)
        .map_err(|reason| at.error(span, format!("`more-masks` {text:?}: {reason}")))
}

/// Returns the folder that paths are relative to: `root` below `home`, or `.` if both are empty.
fn root(home: &Path, root: Option<PathBuf>) -> PathBuf {
    let root = home.join(root.unwrap_or_default());
    if root.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        root
    }
}

fn class_set(
    name: &str,
    written: &Spanned<Value>,
    entries: &[Entry],
    at: At,
) -> Result<ClassSet, DataError> {
    let refused =
        |error: zeg_vocab::classes::ClassError| at.error(&written.span(), error.to_string());
    if let Value::String(list) = written.get_ref() {
        return ClassSet::by_name(list).map_err(refused);
    }
    let names = entries.iter().map(|entry| entry.name.clone()).collect();
    let synonyms = entries.iter().map(|entry| entry.synonyms.clone()).collect();
    ClassSet::custom(name, names, synonyms, Vec::new()).map_err(refused)
}

/// Marks the unseen classes, written as `["polyp"]` or as a string that [`ClassSet::with_split`] accepts.
fn with_unseen(set: ClassSet, unseen: &Spanned<Value>, at: At) -> Result<ClassSet, DataError> {
    let refused = |reason: String| at.error(&unseen.span(), reason);
    match unseen.get_ref() {
        Value::String(text) => set
            .with_split(text)
            .map_err(|error| refused(error.to_string())),
        Value::Array(names) => {
            let names = names.iter().map(Value::as_str);
            let Some(names) = names.collect::<Option<Vec<&str>>>() else {
                return Err(refused("`unseen` must be a list of class names".into()));
            };
            set.with_unseen(&names)
                .map_err(|error| refused(error.to_string()))
        }
        _ => Err(refused("`unseen` must be a list of class names".into())),
    }
}

/// Returns the rule of label maps that are drawn from COCO annotations; keys of label files are errors.
fn coco_rule(written: &Written, entries: &[Entry], at: At) -> Result<LabelRule, DataError> {
    classes::refuse_colours(entries, at)?;
    let keys = [
        ("kind", written.kind.as_ref().map(Spanned::span)),
        ("more-masks", written.more_masks.as_ref().map(Spanned::span)),
        ("zero-is", written.zero_is.as_ref().map(Spanned::span)),
        ("threshold", written.threshold.as_ref().map(Spanned::span)),
        ("ignore", written.ignore.as_ref().map(Spanned::span)),
        (
            "ignore-colours",
            written.ignore_colours.as_ref().map(Spanned::span),
        ),
    ];
    for (key, span) in keys {
        if let Some(span) = span {
            let reason = format!(
                "`{key}` is about label files, but `labels.format` states COCO annotations; leave one of them out"
            );
            return Err(at.error(&span, reason));
        }
    }
    let span = written.classes.span();
    if classes::table(entries, &span, at)?.is_some() {
        let reason = "a class has a `value`, but COCO annotations name their classes";
        return Err(at.error(&span, reason));
    }
    Ok(LabelRule {
        kind: LabelKind::Identity,
        ignore: vec![IGNORE_LABEL],
    })
}

/// Returns the rule that converts label files to classes; keys that do not belong to the kind are errors.
fn rule(written: &Written, entries: &[Entry], at: At) -> Result<LabelRule, DataError> {
    let Some(kind) = &written.kind else {
        let start = Range::default();
        return Err(at.error(&start, "missing field `kind`"));
    };
    let kind = *kind.get_ref();
    let keys = [
        (
            "zero-is",
            written.zero_is.as_ref().map(Spanned::span),
            Kind::Index,
        ),
        (
            "threshold",
            written.threshold.as_ref().map(Spanned::span),
            Kind::Binary,
        ),
        (
            "more-masks",
            written.more_masks.as_ref().map(Spanned::span),
            Kind::Binary,
        ),
        (
            "ignore-colours",
            written.ignore_colours.as_ref().map(Spanned::span),
            Kind::Palette,
        ),
    ];
    for (key, span, wanted) in keys {
        if let Some(span) = span
            && kind != wanted
        {
            let reason = format!("`{key}` is only allowed with kind = \"{}\"", wanted.name());
            return Err(at.error(&span, reason));
        }
    }
    if kind == Kind::Palette
        && let Some(ignore) = &written.ignore
    {
        return Err(at.error(
            &ignore.span(),
            "`ignore` is not allowed with kind = \"palette\"; list the colours to ignore in `ignore-colours`",
        ));
    }
    let ignore = written
        .ignore
        .as_ref()
        .map(|ignore| ignore.get_ref().clone());
    match kind {
        Kind::Index => {
            classes::refuse_colours(entries, at)?;
            let zero = written.zero_is.as_ref().map(|zero| *zero.get_ref());
            let span = written.classes.span();
            let kind = match (classes::table(entries, &span, at)?, zero) {
                (Some(_), Some(_)) => {
                    let reason = "`zero-is` is not allowed if every class has its own `value`";
                    return Err(at.error(&span, reason));
                }
                (Some(table), None) => LabelKind::Table(table),
                (None, Some(Zero::Ignore)) => LabelKind::ReduceZero,
                (None, _) => LabelKind::Identity,
            };
            if let Some(ignore) = &written.ignore {
                classes::refuse_ignored_classes(&kind, entries, ignore, at)?;
            }
            let ignore = ignore.unwrap_or_else(|| classes::usual_ignore(&kind, entries.len()));
            Ok(LabelRule { kind, ignore })
        }
        Kind::Palette => {
            let ignored = written.ignore_colours.as_ref();
            let palette = classes::palette(entries, ignored, &written.classes.span(), at)?;
            Ok(LabelRule {
                kind: LabelKind::Palette(palette),
                ignore: Vec::new(),
            })
        }
        Kind::Binary => {
            let rule = binary_rule(written, entries, at)?;
            Ok(LabelRule {
                ignore: ignore.unwrap_or_default(),
                ..rule
            })
        }
    }
}

/// Returns the rule of binary masks, without the ignored values.
fn binary_rule(written: &Written, entries: &[Entry], at: At) -> Result<LabelRule, DataError> {
    classes::refuse_colours(entries, at)?;
    if entries.len() != 2 {
        let reason = format!(
            "kind = \"binary\" needs two classes, first that of dark and then that of bright pixels; `classes` has {}",
            entries.len()
        );
        return Err(at.error(&written.classes.span(), reason));
    }
    let threshold = match &written.threshold {
        None => DEFAULT_THRESHOLD,
        Some(value) => u8::try_from(*value.get_ref())
            .ok()
            .filter(|threshold| *threshold > 0)
            .ok_or_else(|| {
                let reason = format!("`threshold` is {}; it must be 1 to 255", value.get_ref());
                at.error(&value.span(), reason)
            })?,
    };
    let rule = LabelRule::binary(threshold);
    if let Some(ignore) = &written.ignore {
        classes::refuse_ignored_classes(&rule.kind, entries, ignore, at)?;
    }
    Ok(rule)
}

fn splits(
    written: BTreeMap<String, Spanned<Value>>,
    coco: Option<&CocoRule>,
    at: At,
) -> Result<BTreeMap<String, SplitSource>, DataError> {
    if written.is_empty() {
        return Ok(BTreeMap::from([(ALL.to_owned(), SplitSource::All)]));
    }
    let split = |value: Spanned<Value>| {
        let span = value.span();
        let wrong = |reason: &str| Err(at.error(&span, reason));
        match value.into_inner() {
            Value::String(text) if text == ALL => Ok(SplitSource::All),
            Value::String(text) if text.trim().is_empty() => {
                wrong("a split is an empty string; write \"all\" or the path of a list")
            }
            Value::String(text) => Ok(SplitSource::List(PathBuf::from(text))),
            Value::Array(ids) => {
                let ids = ids.iter().map(|id| id.as_str().map(str::to_owned));
                let Some(mut ids) = ids.collect::<Option<Vec<String>>>() else {
                    return wrong("the ids of a split must be strings");
                };
                if ids.is_empty() || !ids.iter().all(|id| is_id(id, IdForm::Path)) {
                    return wrong(
                        "a split needs at least one id; ids are file names without extension",
                    );
                }
                let given = ids.len();
                let mut seen = std::collections::HashSet::new();
                ids.retain(|id| seen.insert(id.clone()));
                if ids.len() < given {
                    return wrong("the split lists an id twice");
                }
                Ok(SplitSource::Ids(ids))
            }
            Value::Table(table) => {
                let folders: Elsewhere = table
                    .try_into()
                    .map_err(|error| at.toml(Some(span.clone()), &error))?;
                let masks = folders.more_masks.as_deref();
                let masks = masks.map(|masks| further(masks, &span, at));
                Ok(SplitSource::Elsewhere(place(
                    labels::pattern(&folders.images, &span, at)?,
                    labels::labels_of_split(&folders.labels, &span, coco, at)?,
                    masks.transpose()?,
                )))
            }
            _ => wrong(
                "a split must be \"all\", the path of a list, a list of ids, or { images = …, labels = … }",
            ),
        }
    };
    let splits = written.into_iter();
    splits
        .map(|(name, value)| Ok((name, split(value)?)))
        .collect()
}
