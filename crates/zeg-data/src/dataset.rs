//! The data model: a data set is a list of file pairs, a list of classes, and a rule that converts file values to
//! classes.
//!
//! Files are decoded only when a sample is loaded, so memory does not grow with the number of images.

use std::path::{Path, PathBuf};

use zeg_image::{LabelMap, RgbImage, decode_rgb};
use zeg_vocab::classes::ClassSet;

use crate::coco::ImageAnnotations;
use crate::labels::Stored;
use crate::{DataError, LabelRule};

/// Largest number of missing files that an error lists by name.
const MISSING_SHOWN: usize = 3;

/// A split of a data set: its samples, its classes and the rule for its label files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The data set's name in configurations, such as `voc12`.
    pub name: String,
    /// The data set's name in messages, such as `VOC`.
    pub title: String,
    /// The samples, in the order of the split's list.
    pub items: Vec<Item>,
    /// The rule that converts values in label files to class indices.
    pub label_rule: LabelRule,
    /// The classes; class indices are `0..classes.len()`.
    pub classes: ClassSet,
    /// The metric in which results on this data set are usually reported.
    pub metric: Metric,
}

/// The metric in which results on a data set are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Metric {
    /// Intersection over union, averaged over the classes.
    #[default]
    #[serde(rename = "miou")]
    MeanIou,
    /// Dice coefficient, usual for medical images.
    #[serde(rename = "dice")]
    Dice,
}

/// One sample on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The file name without the prefix and ending that all names share; with nested folders, `folder/name`.
    pub id: String,
    /// Path of the image.
    pub image: PathBuf,
    /// Path of the label map, or of the file of annotations.
    pub labels: PathBuf,
    /// The form of the labels.
    pub source: LabelSource,
}

/// The form in which the labels of a sample are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LabelSource {
    /// The label map is the file [`Item::labels`].
    #[default]
    File,
    /// The binary mask [`Item::labels`] and further masks of the same image; a pixel counts with its brightest value.
    Union(Vec<PathBuf>),
    /// Annotations in COCO's JSON.
    Coco(ImageAnnotations),
}

impl Item {
    /// Returns all files of the sample.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let further: &[PathBuf] = match &self.source {
            LabelSource::Union(further) => further,
            LabelSource::File | LabelSource::Coco(_) => &[],
        };
        [&self.image, &self.labels].into_iter().chain(further)
    }

    /// Returns the files that the labels follow from: label maps, masks, and annotations with the file that lists them.
    pub(crate) fn label_files(&self) -> impl Iterator<Item = &Path> {
        let list = match &self.source {
            LabelSource::Coco(annotations) => Some(annotations.list()),
            LabelSource::File | LabelSource::Union(_) => None,
        };
        // The first file is the image.
        self.files().skip(1).map(PathBuf::as_path).chain(list)
    }

    /// Reads the labels in the form that `rule` converts to classes.
    ///
    /// # Errors
    /// Returns an error if a file cannot be decoded, if a binary mask would be read as empty because its levels are all
    /// below the threshold, if masks of one image differ in size, or if annotations cannot be drawn.
    pub(crate) fn read_labels(&self, rule: &LabelRule) -> Result<Stored, DataError> {
        match &self.source {
            LabelSource::File => rule.read_checked(&self.labels),
            LabelSource::Union(further) => {
                further
                    .iter()
                    .try_fold(rule.read_checked(&self.labels)?, |united, path| {
                        let further = rule.read_checked(path)?;
                        united.brightest(further, (self.labels.as_path(), path.as_path()))
                    })
            }
            LabelSource::Coco(annotations) => Ok(Stored::Values(annotations.draw()?)),
        }
    }
}

/// One sample in memory; image and label map have the same size.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The sample's [`Item::id`].
    pub id: String,
    /// The image, RGB bytes.
    pub image: RgbImage,
    /// Class indices or [`IGNORE_LABEL`](zeg_image::IGNORE_LABEL).
    pub labels: LabelMap,
}

impl Dataset {
    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Returns whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the rules by which COCO annotations become labels, each once.
    pub(crate) fn annotation_rules(&self) -> Vec<&str> {
        let mut rules: Vec<&str> = self
            .items
            .iter()
            .filter_map(|item| match &item.source {
                LabelSource::Coco(annotations) => Some(annotations.rule()),
                LabelSource::File | LabelSource::Union(_) => None,
            })
            .collect();
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    /// Decodes sample number `index` and converts its labels to class indices.
    ///
    /// # Errors
    /// Returns an error:
    /// - [`DataError::NoSuchSample`] if `index` is beyond the end
    /// - [`DataError::Image`] if a file cannot be decoded, or if indices are stored as an image in colour
    /// - [`DataError::SizeMismatch`] if image and label map differ in size
    /// - [`DataError::MaskBelowThreshold`] if a binary mask has levels above 0, all of them below the threshold
    /// - [`DataError::Annotations`] if COCO annotations cannot be drawn
    /// - [`DataError::IllegalLabel`] or [`DataError::IllegalColour`] if a value or colour is neither a class of this
    ///   data set nor ignored
    pub fn load(&self, index: usize) -> Result<Sample, DataError> {
        let item = self
            .items
            .get(index)
            .ok_or_else(|| DataError::NoSuchSample {
                dataset: self.name.clone(),
                index,
                len: self.len(),
            })?;
        let image = decode_rgb(&item.image)?;
        let stored = item.read_labels(&self.label_rule)?;
        let image_size = (image.width() as usize, image.height() as usize);
        let label_size = stored.size();
        if image_size != label_size {
            return Err(DataError::SizeMismatch {
                image: item.image.clone(),
                image_size,
                labels: item.labels.clone(),
                label_size,
            });
        }
        let place = (item.labels.as_path(), self.title.as_str());
        let labels = self
            .label_rule
            .to_classes(stored, self.classes.len(), place)?;
        Ok(Sample {
            id: item.id.clone(),
            image,
            labels,
        })
    }
}

/// Checks that all files of a split exist, so that a training fails at its start and not hours later.
///
/// `title` and `split` are only used in the error.
pub(crate) fn check_files_exist(title: &str, split: &str, items: &[Item]) -> Result<(), DataError> {
    let missing: Vec<&PathBuf> = items
        .iter()
        .flat_map(Item::files)
        .filter(|path| !path.is_file())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DataError::MissingFiles {
        dataset: title.to_owned(),
        split: split.to_owned(),
        missing: missing.len(),
        wanted: 2 * items.len(),
        first: missing.into_iter().take(MISSING_SHOWN).cloned().collect(),
    })
}
