//! Labels from COCO's JSON: instances and panoptic segments as label maps of classes.
//!
//! A data set file names them in the table `labels` (`configs/datasets/folder-template.toml`). Categories become classes
//! by their names. Instances are masks, as polygons or as run lengths in either form, which may overlap;
//! panoptic segments are the colours of a PNG, `red + 256·green + 65536·blue`.
//!
//! The definition of the files is <https://cocodataset.org/#format-data>; polygons are filled as by pycocotools.

mod draw;
mod rule;
mod written;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_base::names::did_you_mean;
use zeg_image::LabelMap;

pub(crate) use self::rule::{CocoRule, Format, Overlap, all_names, class_named};
use self::written::{Mask, ReadFile, Segment};
use crate::DataError;

/// A file of annotations, with classes in the place of categories.
pub(crate) struct CocoFile {
    path: PathBuf,
    /// The folder of the PNGs of panoptic annotations.
    folder: PathBuf,
    images: Vec<AnnotatedImage>,
    /// Names of the categories.
    categories: Vec<String>,
    /// Positions by file name, with folders.
    by_name: Names,
    /// Positions by file name, without folders.
    by_last_name: Names,
    overlap: Overlap,
    /// Label of the pixels without an annotation.
    rest: u16,
    /// The rule by which annotations become labels, as text.
    rule: String,
}

/// Positions of images by name; `None` if several images have the name.
type Names = HashMap<String, Option<usize>>;

/// An image with its annotations.
struct AnnotatedImage {
    /// Name of the file, with `/` between folders.
    name: String,
    width: u32,
    height: u32,
    content: Content,
}

/// The annotations of an image.
enum Content {
    /// Masks of objects.
    Instances(Vec<Instance>),
    /// A PNG, with the class of each of its ids.
    Panoptic {
        file: String,
        segments: Vec<Segment>,
    },
}

/// The mask of an object.
struct Instance {
    /// Position of the annotation in the file, from 0.
    number: usize,
    /// The class, or the ignore index.
    label: u16,
    /// Whether the mask is a crowd of objects.
    is_crowd: bool,
    mask: Option<Mask>,
}

impl CocoFile {
    /// Reads a file.
    ///
    /// - `folder`: folder of the PNGs of panoptic annotations
    ///
    /// # Errors
    /// Returns [`DataError::Unreadable`] or [`DataError::Annotations`] if the file is not COCO JSON of the format, and
    /// [`DataError::UnknownCategories`] if a category with annotations is not a class.
    pub(crate) fn read(path: &Path, folder: PathBuf, rule: &CocoRule) -> Result<Self, DataError> {
        let ReadFile { images, categories } = written::read(path, rule)?;
        let (mut by_name, mut by_last_name) = (Names::new(), Names::new());
        for (index, image) in images.iter().enumerate() {
            for (names, name) in [
                (&mut by_name, image.name.as_str()),
                (&mut by_last_name, last_name(&image.name)),
            ] {
                let known = names.entry(name.to_owned());
                known
                    .and_modify(|known| *known = None)
                    .or_insert(Some(index));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            folder,
            images,
            categories,
            by_name,
            by_last_name,
            overlap: rule.overlap,
            rest: rule.rest,
            rule: format!("{rule:?}"),
        })
    }

    /// Checks that the categories that `labels.map` and `labels.ignore` name are in the file.
    ///
    /// # Errors
    /// Returns [`DataError::Annotations`] with the first name that is not, and the one that may be meant.
    pub(crate) fn check_names(&self, rule: &CocoRule) -> Result<(), DataError> {
        let mapped = rule.map.keys().map(|name| ("labels.map", name));
        let ignored = rule.ignore.iter().map(|name| ("labels.ignore", name));
        let unknown = mapped
            .chain(ignored)
            .find(|(_, name)| !self.categories.contains(name));
        match unknown {
            Some((key, name)) => Err(DataError::Annotations {
                path: self.path.clone(),
                reason: format!(
                    "the file has no category {name:?}, which `{key}` names{}",
                    did_you_mean(name, self.categories.iter().map(String::as_str))
                ),
            }),
            None => Ok(()),
        }
    }

    /// Returns the names of the images, in the order of the file.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|image| image.name.as_str())
    }

    /// Returns the annotations of an image by its position in the file.
    pub(crate) fn image(self: &Arc<Self>, index: usize) -> ImageAnnotations {
        let name = self.images.get(index).map(|image| image.name.clone());
        ImageAnnotations {
            file: Arc::clone(self),
            name: name.unwrap_or_default(),
            index: Some(index),
        }
    }

    /// Returns the annotations of an image by the name of its file.
    pub(crate) fn of_image(self: &Arc<Self>, name: &Path) -> ImageAnnotations {
        let parts = name
            .components()
            .map(|part| part.as_os_str().to_string_lossy());
        let name = parts.collect::<Vec<_>>().join("/");
        let last = || self.by_last_name.get(last_name(&name));
        let found = self.by_name.get(&name).or_else(last);
        ImageAnnotations {
            file: Arc::clone(self),
            index: found.copied().flatten(),
            name,
        }
    }
}

/// Returns the name of a file without its folders.
fn last_name(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

impl fmt::Debug for CocoFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("CocoFile")
            .field("path", &self.path)
            .field("images", &self.images.len())
            .finish_non_exhaustive()
    }
}

/// The annotations of one image.
#[derive(Debug, Clone)]
pub struct ImageAnnotations {
    file: Arc<CocoFile>,
    /// Name of the image's file.
    name: String,
    /// Position of the image; `None` if the file has none of this name, or several.
    index: Option<usize>,
}

/// Annotations are equal if they are those of the same image in the same file.
impl PartialEq for ImageAnnotations {
    fn eq(&self, other: &Self) -> bool {
        self.file.path == other.file.path && self.name == other.name && self.index == other.index
    }
}

impl Eq for ImageAnnotations {}

impl ImageAnnotations {
    /// Returns the rule by which annotations become labels, as text.
    pub(crate) fn rule(&self) -> &str {
        &self.file.rule
    }

    /// Returns the file that holds the labels: the PNG of panoptic annotations, or else the JSON.
    pub(crate) fn file(&self) -> PathBuf {
        match self.annotated().map(|image| &image.content) {
            Some(Content::Panoptic { file, .. }) => self.file.folder.join(file),
            _ => self.file.path.clone(),
        }
    }

    /// Returns the JSON that lists the annotations.
    pub(crate) fn list(&self) -> &Path {
        &self.file.path
    }

    /// Draws the label map: class indices and [`IGNORE_LABEL`](zeg_image::IGNORE_LABEL), in the size that the
    /// annotations state.
    ///
    /// # Errors
    /// Returns [`DataError::Annotations`] if the file lacks the image or a mask is damaged, and [`DataError::Image`] if
    /// the PNG of panoptic annotations cannot be decoded.
    pub(crate) fn draw(&self) -> Result<LabelMap, DataError> {
        let wrong = |reason: String| DataError::Annotations {
            path: self.file.path.clone(),
            reason: format!("image {}: {reason}", self.name),
        };
        let image = self.annotated().ok_or_else(|| {
            let reason = match self.file.by_last_name.get(last_name(&self.name)) {
                Some(None) => "the file has several images of this name",
                _ => "the file has no image of this name",
            };
            wrong(reason.to_owned())
        })?;
        match &image.content {
            Content::Instances(instances) => {
                let size = [image.width, image.height];
                draw::instances(instances, size, (self.file.overlap, self.file.rest)).map_err(wrong)
            }
            Content::Panoptic { segments, .. } => {
                let rgb = zeg_image::decode_mask(&self.file())?;
                draw::panoptic(&rgb, segments, self.file.rest).map_err(wrong)
            }
        }
    }

    fn annotated(&self) -> Option<&AnnotatedImage> {
        self.file.images.get(self.index?)
    }
}

#[cfg(test)]
mod tests;
