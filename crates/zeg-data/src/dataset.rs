//! The data model: a data set is a list of file pairs and a rule that turns file values into classes.
//!
//! Nothing is decoded before it is asked for, so memory does not grow with the number of pictures.

use std::path::{Path, PathBuf};

use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage, decode_labels, decode_rgb};

use crate::DataError;

/// The value that label files write for pixels without a class.
const IGNORE_IN_FILES: u16 = 255;

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
    /// Number of classes; class indices are `0..classes`.
    pub classes: usize,
}

/// One sample on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The file name without folder and ending.
    pub id: String,
    /// The picture.
    pub image: PathBuf,
    /// The label map, an indexed or grey PNG.
    pub labels: PathBuf,
}

/// One sample in memory; picture and label map are of one size.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// [`Item::id`].
    pub id: String,
    /// The picture, RGB bytes.
    pub image: RgbImage,
    /// Class indices `0..classes` or [`IGNORE_LABEL`].
    pub labels: LabelMap,
}

/// How a value in a label file becomes a class index. 255 is always [`IGNORE_LABEL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelRule {
    /// The value is the class index.
    Identity,
    /// 0 is a background that no class describes and becomes [`IGNORE_LABEL`]; `n` is class `n − 1`
    /// (mmsegmentation's `reduce_zero_label`).
    ReduceZero,
}

impl LabelRule {
    /// The class index of a file's value, [`IGNORE_LABEL`], or `None` for a value that is not legal.
    pub fn class_of(self, value: u16, classes: usize) -> Option<u16> {
        if value == IGNORE_IN_FILES {
            return Some(IGNORE_LABEL);
        }
        let class = match self {
            Self::Identity => value,
            Self::ReduceZero if value == 0 => return Some(IGNORE_LABEL),
            Self::ReduceZero => value - 1,
        };
        (usize::from(class) < classes).then_some(class)
    }

    /// The legal values in words, such as `0..=20 and 255`.
    pub fn legal_values(self, classes: usize) -> String {
        let last = match self {
            Self::Identity => classes.saturating_sub(1),
            Self::ReduceZero => classes,
        };
        format!("0..={last} and {IGNORE_IN_FILES}")
    }
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
    /// - [`DataError::Image`] when a file cannot be decoded, or the label map is a picture in colour
    /// - [`DataError::SizeMismatch`] when picture and label map differ in size
    /// - [`DataError::IllegalLabel`] for a value that is no class of this data set
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
        let mut labels = decode_labels(&item.labels)?;
        let image_size = (image.width() as usize, image.height() as usize);
        let label_size = (labels.width(), labels.height());
        if image_size != label_size {
            return Err(DataError::SizeMismatch {
                image: item.image.clone(),
                image_size,
                labels: item.labels.clone(),
                label_size,
            });
        }
        self.to_classes(&mut labels, &item.labels)?;
        Ok(Sample {
            id: item.id.clone(),
            image,
            labels,
        })
    }

    /// Replaces file values by class indices in place; `file` is for the error.
    fn to_classes(&self, labels: &mut LabelMap, file: &Path) -> Result<(), DataError> {
        let width = labels.width().max(1);
        for (position, label) in labels.labels_mut().iter_mut().enumerate() {
            *label = self
                .label_rule
                .class_of(*label, self.classes)
                .ok_or_else(|| DataError::IllegalLabel {
                    file: file.to_owned(),
                    value: *label,
                    x: position % width,
                    y: position / width,
                    dataset: self.title.clone(),
                    legal: self.label_rule.legal_values(self.classes),
                })?;
        }
        Ok(())
    }
}

/// Refuses a split of which a file is missing, so that a run fails at its start and not hours later.
///
/// `title` and `split` are for the error.
pub(crate) fn check_files_exist(
    title: &'static str,
    split: &str,
    items: &[Item],
) -> Result<(), DataError> {
    let missing: Vec<&PathBuf> = items
        .iter()
        .flat_map(|item| [&item.image, &item.labels])
        .filter(|path| !path.is_file())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DataError::MissingFiles {
        dataset: title,
        split: split.to_owned(),
        missing: missing.len(),
        wanted: 2 * items.len(),
        first: missing.into_iter().take(MISSING_SHOWN).cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduce_zero_takes_the_background_away() {
        let rule = LabelRule::ReduceZero;
        assert_eq!(rule.class_of(0, 20), Some(IGNORE_LABEL));
        assert_eq!(rule.class_of(1, 20), Some(0));
        assert_eq!(rule.class_of(20, 20), Some(19));
        assert_eq!(rule.class_of(21, 20), None);
        assert_eq!(rule.class_of(255, 20), Some(IGNORE_LABEL));
        assert_eq!(rule.legal_values(20), "0..=20 and 255");
    }

    #[test]
    fn identity_keeps_the_classes() {
        let rule = LabelRule::Identity;
        assert_eq!(rule.class_of(0, 171), Some(0));
        assert_eq!(rule.class_of(170, 171), Some(170));
        assert_eq!(rule.class_of(171, 171), None);
        assert_eq!(rule.class_of(255, 171), Some(IGNORE_LABEL));
        assert_eq!(rule.class_of(u16::MAX, 171), None);
        assert_eq!(rule.legal_values(171), "0..=170 and 255");
    }
}
