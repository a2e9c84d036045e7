//! Reads the JSON of COCO annotations.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::rule::{CocoRule, Format};
use super::{AnnotatedImage, Content, Instance};
use crate::DataError;

/// Largest size of a file, in bytes; that of COCO's training images has half a gigabyte.
const MAX_BYTES: u64 = 1 << 32;

/// The mark that some programs put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The parts of a file that are read.
#[derive(Deserialize)]
struct Written {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct Image {
    id: Id,
    file_name: String,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Category {
    id: Whole,
    name: String,
}

/// A whole number; some programs write `1.0`.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Hash)]
#[serde(try_from = "serde_json::Number")]
struct Whole(i64);

impl TryFrom<serde_json::Number> for Whole {
    type Error = String;

    fn try_from(number: serde_json::Number) -> Result<Self, String> {
        // Larger numbers with a decimal point are not exact.
        let exact = f64::from(u32::MAX);
        let whole =
            |value: &f64| value.trunc().to_bits() == value.to_bits() && value.abs() <= exact;
        let rounded = || number.as_f64().filter(whole).map(|value| value as i64);
        let value = number.as_i64().or_else(rounded);
        value
            .map(Self)
            .ok_or_else(|| format!("the id {number} is not a whole number"))
    }
}

/// The id of an image; some programs write texts.
#[derive(Deserialize, PartialEq, Eq, Hash)]
#[serde(untagged)]
enum Id {
    Number(Whole),
    Text(String),
}

#[derive(Deserialize)]
struct Annotation {
    image_id: Id,
    category_id: Option<Whole>,
    segmentation: Option<Mask>,
    iscrowd: Option<Flag>,
    file_name: Option<String>,
    segments_info: Option<Vec<WrittenSegment>>,
}

#[derive(Deserialize)]
struct WrittenSegment {
    id: u32,
    category_id: Whole,
}

/// A mask as the file holds it.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub(super) enum Mask {
    /// Polygons, each with alternating x and y.
    Polygons(Vec<Vec<f64>>),
    /// Run lengths by columns, in a mask of `[height, width]`.
    RunLengths { size: [u32; 2], counts: Counts },
    /// Something else.
    Other(IgnoredAny),
}

/// The two forms of run lengths.
#[derive(Deserialize, Debug)]
#[serde(untagged)]
pub(super) enum Counts {
    Compressed(String),
    Plain(Vec<u32>),
}

/// A number or a truth value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Flag {
    Number(u64),
    Truth(bool),
}

/// A segment of a panoptic PNG: its id and its label.
pub(super) struct Segment {
    pub(super) id: u32,
    pub(super) label: u16,
}

/// What a file holds.
pub(super) struct ReadFile {
    /// The images with their annotations, in the order of the file.
    pub(super) images: Vec<AnnotatedImage>,
    /// Names of the categories.
    pub(super) categories: Vec<String>,
}

/// Parses a file.
fn parse(path: &Path) -> Result<Written, DataError> {
    let unreadable = |source| DataError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let wrong = |reason: String| DataError::Annotations {
        path: path.to_owned(),
        reason,
    };
    // The type is checked before opening, because opening a pipe without a writer would wait for ever.
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(wrong("not a regular file".into()));
    }
    if metadata.len() > MAX_BYTES {
        return Err(wrong(format!(
            "{} bytes; the limit is {MAX_BYTES} bytes",
            metadata.len()
        )));
    }
    let mut file = BufReader::with_capacity(1 << 16, File::open(path).map_err(unreadable)?);
    let start = file.fill_buf().map_err(unreadable)?;
    if start.starts_with(BYTE_ORDER_MARK) {
        file.consume(BYTE_ORDER_MARK.len());
    }
    serde_json::from_reader(file).map_err(|error| wrong(format!("not COCO annotations: {error}")))
}

/// Reads the images of a file with their annotations, and the names of its categories.
pub(super) fn read(path: &Path, rule: &CocoRule) -> Result<ReadFile, DataError> {
    let wrong = |reason: String| DataError::Annotations {
        path: path.to_owned(),
        reason,
    };
    let written = parse(path)?;
    let all_names = written.categories.iter().map(|c| c.name.clone()).collect();
    let names = names_by_id(&written.categories).map_err(wrong)?;
    let mut categories = Categories {
        rule,
        names: &names,
        unknown: BTreeSet::new(),
    };
    let mut images = Vec::with_capacity(written.images.len());
    let mut positions = HashMap::with_capacity(written.images.len());
    for image in written.images {
        let name = inner_name(&image.file_name).ok_or_else(|| {
            wrong(format!(
                "the image {:?} lies outside of the folder",
                image.file_name
            ))
        })?;
        if positions.insert(image.id, images.len()).is_some() {
            return Err(wrong(format!("two images have the id of {name}")));
        }
        images.push(AnnotatedImage {
            name,
            width: image.width,
            height: image.height,
            content: match rule.format {
                Format::Instances => Content::Instances(Vec::new()),
                Format::Panoptic => Content::Panoptic {
                    file: String::new(),
                    segments: Vec::new(),
                },
            },
        });
    }
    for (number, annotation) in written.annotations.into_iter().enumerate() {
        let position = positions.get(&annotation.image_id);
        let image = position.and_then(|position| images.get_mut(*position));
        let Some(image) = image else {
            return Err(wrong(format!(
                "annotation {number}, counted from 0, belongs to no image"
            )));
        };
        add(image, (number, annotation), &mut categories)
            .map_err(|reason| wrong(format!("image {}: {reason}", image.name)))?;
    }
    // An image without annotations has no PNG in panoptic files.
    images.retain(
        |image| !matches!(&image.content, Content::Panoptic { file, .. } if file.is_empty()),
    );
    if !categories.unknown.is_empty() {
        return Err(DataError::UnknownCategories {
            path: path.to_owned(),
            dataset: rule.title.clone(),
            names: categories.unknown.into_iter().collect(),
            classes: rule.class_names(),
        });
    }
    if images.is_empty() {
        return Err(DataError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(ReadFile {
        images,
        categories: all_names,
    })
}

/// Returns the names of the categories by their ids.
///
/// # Errors
/// Returns the reason if two categories have the same id.
fn names_by_id(categories: &[Category]) -> Result<HashMap<i64, &str>, String> {
    let mut names = HashMap::with_capacity(categories.len());
    for category in categories {
        let (id, name) = (category.id.0, category.name.as_str());
        if let Some(other) = names.insert(id, name) {
            return Err(format!(
                "the categories {other:?} and {name:?} have the same id {id}"
            ));
        }
    }
    Ok(names)
}

/// The categories of a file, and those that are not classes.
struct Categories<'a> {
    rule: &'a CocoRule,
    names: &'a HashMap<i64, &'a str>,
    unknown: BTreeSet<String>,
}

impl Categories<'_> {
    /// Returns the label of a category; one that is not a class is noted and gets label 0.
    fn label(&mut self, id: i64) -> Result<u16, String> {
        let name = self.names.get(&id);
        let name = *name.ok_or_else(|| format!("the file has no category {id}"))?;
        let label = self.rule.label(name);
        if label.is_none() {
            self.unknown.insert(name.to_owned());
        }
        Ok(label.unwrap_or_default())
    }
}

/// Adds an annotation to its image.
fn add(
    image: &mut AnnotatedImage,
    (number, annotation): (usize, Annotation),
    categories: &mut Categories,
) -> Result<(), String> {
    match &mut image.content {
        Content::Instances(instances) => {
            let category = annotation.category_id;
            let category = category.ok_or(
                "an annotation has no `category_id`; panoptic annotations are read with format = \"coco-panoptic\"",
            )?;
            let flag = annotation.iscrowd;
            instances.push(Instance {
                number,
                label: categories.label(category.0)?,
                is_crowd: flag.is_some_and(|flag| match flag {
                    Flag::Number(number) => number != 0,
                    Flag::Truth(truth) => truth,
                }),
                mask: annotation.segmentation,
            });
        }
        Content::Panoptic { file, segments } => {
            let (Some(name), Some(written)) = (annotation.file_name, annotation.segments_info)
            else {
                return Err("an annotation has no `file_name` and `segments_info`; instances are read with format = \"coco-instances\"".into());
            };
            if !file.is_empty() {
                return Err("the image has two panoptic annotations".into());
            }
            *file = inner_name(&name)
                .ok_or_else(|| format!("the file {name:?} lies outside of the folder"))?;
            for segment in written {
                segments.push(Segment {
                    id: segment.id,
                    label: categories.label(segment.category_id.0)?,
                });
            }
            segments.sort_unstable_by_key(|segment| segment.id);
            let twice = segments.windows(2).find_map(|pair| match pair {
                [one, other] if one.id == other.id => Some(one.id),
                _ => None,
            });
            if let Some(id) = twice {
                return Err(format!("`segments_info` lists the segment {id} twice"));
            }
        }
    }
    Ok(())
}

/// Returns the name of a file with `/` between its folders; `None` if it would lead out of the folder.
fn inner_name(name: &str) -> Option<String> {
    let name = name.replace('\\', "/");
    let name = name.trim_start_matches("./").trim_start_matches('/');
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_legal = !name.chars().any(char::is_control) && name.split('/').all(is_plain);
    is_legal.then(|| name.to_owned())
}
