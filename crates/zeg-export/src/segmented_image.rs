//! A segmented image to export, and the trait of all exporters.

use std::path::{Component, Path, PathBuf};

use zeg_base::paths::path_text;
use zeg_image::decode::MAX_PIXELS;
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage};

use crate::regions::{Grouping, Region, Regions, find_regions};
use crate::{Classes, ExportError, ProbabilitySource, StoredImage};

/// A writer of segmented images in one format.
///
/// Implementations are opened by their constructors, before the first image is computed. Dropping an exporter without
/// finishing it removes its incomplete files.
pub trait Exporter: Send {
    /// Writes one image.
    ///
    /// An error that names no output file concerns this image only: nothing was written of it, and other images may
    /// follow.
    fn add(&mut self, image: &SegmentedImage<'_>) -> Result<(), ExportError>;

    /// Completes the files, moves them to their final paths and returns these paths.
    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError>;
}

/// An image with its predicted labels.
#[derive(Clone, Copy)]
pub struct SegmentedImage<'a> {
    /// Path of the image as outputs write it; preferably relative to the folder of all images.
    pub path: &'a Path,
    /// Relative path, without extension, of the output files that belong to this image only.
    pub stem: &'a Path,
    /// Labels of its pixels.
    pub labels: &'a LabelMap,
    /// Confidence of each pixel's class, 0..=1, row-major, `width · height` values.
    pub confidence: Option<&'a [f32]>,
    /// Probabilities of all classes at all pixels.
    pub probabilities: Option<&'a dyn ProbabilitySource>,
    /// The image with class colours. If it is larger than the label map, only its top left part of the map's size is
    /// used: [`zeg_image::overlay`](fn@zeg_image::overlay) draws a legend below the image.
    pub overlay: Option<&'a RgbImage>,
    /// The image as an earlier run kept it; its means then take the place of `confidence`.
    pub stored: Option<&'a StoredImage>,
}

impl<'a> SegmentedImage<'a> {
    /// Creates an image with labels only; its output files are named after `path`.
    pub fn new(path: &'a Path, labels: &'a LabelMap) -> Self {
        Self {
            path,
            stem: path.file_stem().map_or(path, Path::new),
            labels,
            confidence: None,
            probabilities: None,
            overlay: None,
            stored: None,
        }
    }

    /// Returns the number of columns; [`check`](Self::check) ensures that it fits `u32`.
    pub(crate) fn width(&self) -> u32 {
        self.labels.width() as u32
    }

    /// Returns the number of rows; [`check`](Self::check) ensures that it fits `u32`.
    pub(crate) fn height(&self) -> u32 {
        self.labels.height() as u32
    }

    /// Returns the path with `/` between its components on every system; bytes that are not UTF-8 are escaped
    /// ([`path_text`]).
    pub(crate) fn name(&self) -> String {
        let parts = self.path.components().filter_map(|part| match part {
            Component::RootDir => Some(String::new()),
            Component::CurDir => None,
            other => Some(path_text(other.as_ref())),
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// Returns the path with `/` between its components on every system, as the bytes of its name, for addresses.
    pub(crate) fn name_bytes(&self) -> Vec<u8> {
        let parts = self.path.components().filter_map(|part| match part {
            Component::RootDir => Some(&[][..]),
            Component::CurDir => None,
            other => Some(other.as_os_str().as_encoded_bytes()),
        });
        parts.collect::<Vec<_>>().join(&b'/')
    }

    /// Checks that the image can be exported: its map has pixels but not too many, every label has a class, and the
    /// confidences fit the map.
    pub(crate) fn check(&self, classes: &Classes) -> Result<(), ExportError> {
        let (width, height) = (self.labels.width(), self.labels.height());
        let pixels = self.labels.labels().len();
        if pixels == 0 {
            return Err(ExportError::ZeroSize {
                image: self.path.into(),
                width,
                height,
            });
        }
        if pixels > MAX_PIXELS {
            return Err(ExportError::TooLarge {
                image: self.path.into(),
                width,
                height,
                limit: MAX_PIXELS,
            });
        }
        let strange = |&label: &u16| label != IGNORE_LABEL && usize::from(label) >= classes.len();
        let labels = self.labels.labels().iter();
        if let Some((index, &label)) = labels.enumerate().find(|(_, label)| strange(label)) {
            return Err(ExportError::UnknownLabel {
                image: self.path.into(),
                label,
                x: index % width,
                y: index / width,
                classes: classes.len(),
            });
        }
        match self.confidence {
            Some(confidence) if confidence.len() != pixels => Err(ExportError::ConfidenceCount {
                image: self.path.into(),
                given: confidence.len(),
                expected: pixels,
            }),
            _ => Ok(()),
        }
    }

    /// Finds the regions of an image that passed [`check`](Self::check).
    pub(crate) fn regions(
        &self,
        grouping: Grouping,
        minimal_area: u64,
    ) -> Result<Regions, ExportError> {
        find_regions(self.labels, grouping, minimal_area).map_err(|error| error.of(self.path))
    }

    /// Returns the mean confidence of a region, to four decimals; `None` without confidences.
    pub fn score(&self, region: &Region<'_>) -> Option<f64> {
        if let Some(stored) = self.stored {
            return stored.score(region);
        }
        let confidence = self.confidence?;
        let mut mean = Mean::default();
        for run in region.runs() {
            let start = run.y as usize * self.labels.width() + run.x as usize;
            let values = confidence.get(start..start + run.length as usize)?;
            for &value in values {
                mean.add(value);
            }
        }
        mean.rounded()
    }

    /// Returns the mean confidence of the labelled pixels, to four decimals; `None` if there are none.
    pub(crate) fn mean_confidence(&self) -> Option<f64> {
        if let Some(stored) = self.stored {
            return stored.summary.confidence;
        }
        let mut mean = Mean::default();
        let pixels = self.labels.labels().iter().zip(self.confidence?);
        let labelled = pixels.filter(|&(&label, _)| label != IGNORE_LABEL);
        labelled.for_each(|(_, &value)| mean.add(value));
        mean.rounded()
    }
}

/// A mean of confidences that ignores NaN.
///
/// ```
/// let mut mean = zeg_export::Mean::default();
/// [0.5, f32::NAN, 1.0].into_iter().for_each(|value| mean.add(value));
/// assert_eq!(mean.rounded(), Some(0.75));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    /// Adds a confidence; values outside of 0..=1 count as the nearer end.
    pub fn add(&mut self, value: f32) {
        if !value.is_nan() {
            self.sum += f64::from(value.clamp(0.0, 1.0));
            self.count += 1;
        }
    }

    /// Returns the mean to four decimals, which is more than a confidence is precise to; `None` without values.
    pub fn rounded(self) -> Option<f64> {
        (self.count > 0).then(|| (self.sum / self.count as f64 * 1e4).round() / 1e4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(count: usize) -> Classes {
        Classes::new(vec!["x".into(); count], vec![]).unwrap()
    }

    #[test]
    fn a_label_without_a_class_is_named_with_its_place() {
        let labels = LabelMap::new(2, 2, vec![0, IGNORE_LABEL, 1, 2]).unwrap();
        let image = SegmentedImage::new(Path::new("a.jpg"), &labels);
        assert!(image.check(&classes(3)).is_ok());
        let error = image.check(&classes(2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.jpg: label 2 at (1, 1), but the class list has 2 names"
        );
    }

    #[test]
    fn maps_without_pixels_and_odd_confidences_are_refused() {
        let empty = LabelMap::filled(0, 3, 0);
        let error = SegmentedImage::new(Path::new("a"), &empty).check(&classes(1));
        assert!(matches!(error, Err(ExportError::ZeroSize { .. })));
        let labels = LabelMap::filled(2, 2, 0);
        let image = SegmentedImage {
            confidence: Some(&[0.5; 3]),
            ..SegmentedImage::new(Path::new("a"), &labels)
        };
        let error = image.check(&classes(1)).unwrap_err();
        assert_eq!(error.to_string(), "a: 3 confidences for 4 pixels");
    }

    #[test]
    fn names_use_slashes() {
        let labels = LabelMap::filled(1, 1, 0);
        let name = |path: &str| SegmentedImage::new(Path::new(path), &labels).name();
        assert_eq!(name("./street/a.jpg"), "street/a.jpg");
        assert_eq!(name("/data/a.jpg"), "/data/a.jpg");
        assert_eq!(
            SegmentedImage::new(Path::new("a/b.c.jpg"), &labels).stem,
            Path::new("b.c")
        );
    }

    #[test]
    fn means_ignore_nan() {
        let mut mean = Mean::default();
        assert_eq!(mean.rounded(), None);
        for value in [0.5, f32::NAN, 2.0, -1.0, f32::INFINITY] {
            mean.add(value);
        }
        assert_eq!(mean.rounded(), Some(0.625));
    }
}
