//! The data model: a data set is a list of file pairs, a list of classes, and a rule that turns file values into
//! classes.
//!
//! Nothing is decoded before it is asked for, so memory does not grow with the number of images.

use std::path::PathBuf;

use zeg_image::{LabelMap, RgbImage, decode_rgb};
use zeg_vocab::classes::ClassSet;

use crate::{DataError, LabelRule};

/// How many missing files an error lists by name.
const MISSING_SHOWN: usize = 3;

/// A data set's split: what it holds, and how its label files are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The name configurations use, such as `voc12`.
    pub name: String,
    /// The name messages use, such as `VOC`.
    pub title: String,
    /// The samples, in the order of the split's list.
    pub items: Vec<Item>,
    /// How values in label files become class indices.
    pub label_rule: LabelRule,
    /// The classes; class indices are `0..classes.len()`.
    pub classes: ClassSet,
    /// What results on this data set are usually reported in.
    pub metric: Metric,
}

/// What a data set's results are reported in.
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
    /// The file name without what all names share; in data sets with folders in folders, `folder/name`.
    pub id: String,
    /// The image.
    pub image: PathBuf,
    /// The label map.
    pub labels: PathBuf,
}

/// One sample in memory; image and label map are of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// [`Item::id`].
    pub id: String,
    /// The image, RGB bytes.
    pub image: RgbImage,
    /// Class indices or [`IGNORE_LABEL`](zeg_image::IGNORE_LABEL).
    pub labels: LabelMap,
}

impl Dataset {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Decodes sample number `index` and turns its labels into class indices.
    ///
    /// # Errors
    /// - [`DataError::NoSuchSample`] for an index past the end
    /// - [`DataError::Image`] when a file cannot be decoded, or indices are stored as an image in colour
    /// - [`DataError::SizeMismatch`] when image and label map differ in size
    /// - [`DataError::IllegalLabel`], [`DataError::IllegalColour`] for what is no class of this data set
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
        let stored = self.label_rule.read(&item.labels)?;
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

/// Refuses a split of which a file is missing, so that a run fails at its start and not hours later.
///
/// `title` and `split` are for the error.
pub(crate) fn check_files_exist(title: &str, split: &str, items: &[Item]) -> Result<(), DataError> {
    let missing: Vec<&PathBuf> = items
        .iter()
        .flat_map(|item| [&item.image, &item.labels])
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
