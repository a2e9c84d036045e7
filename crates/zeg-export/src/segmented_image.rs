//! One segmented image on its way out, and what takes it.

use std::path::{Component, Path, PathBuf};

use zeg_image::decode::MAX_PIXELS;
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage};

use crate::regions::{Grouping, Region, Regions, find_regions};
use crate::{Classes, ExportError, ProbabilitySource};

/// Takes images and writes them in one format.
///
/// Opened by the constructors of its implementations, before the first image is computed. Dropping one
/// instead of finishing it removes what is not in place yet.
pub trait Exporter: Send {
    /// Writes one image.
    ///
    /// An error that names no output file concerns this image alone, of which nothing was written; others may
    /// follow.
    fn add(&mut self, image: &SegmentedImage<'_>) -> Result<(), ExportError>;

    /// Completes the files, puts them in their places and names them.
    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError>;
}

/// An image and what was found in it.
#[derive(Clone, Copy)]
pub struct SegmentedImage<'a> {
    /// The image as the outputs call it; best relative to the folder of all images.
    pub path: &'a Path,
    /// Name of the files that belong to this image alone, without extension: a relative path.
    pub stem: &'a Path,
    /// Class indices of its pixels.
    pub labels: &'a LabelMap,
    /// How sure the class of each pixel is, 0..=1, row-major, `width · height` values.
    pub confidence: Option<&'a [f32]>,
    /// Probabilities of all classes at all pixels.
    pub probabilities: Option<&'a dyn ProbabilitySource>,
    /// The image as people look at it. Where it is larger than the label map, its top left part of the map's
    /// size counts: [`zeg_image::overlay`](fn@zeg_image::overlay) draws its legend below.
    pub overlay: Option<&'a RgbImage>,
}

impl<'a> SegmentedImage<'a> {
    /// An image of which only the labels are known; its own files are called like `path`.
    pub fn new(path: &'a Path, labels: &'a LabelMap) -> Self {
        Self {
            path,
            stem: path.file_stem().map_or(path, Path::new),
            labels,
            confidence: None,
            probabilities: None,
            overlay: None,
        }
    }

    /// Columns, which [`check`](Self::check) keeps within `u32`.
    pub(crate) fn width(&self) -> u32 {
        self.labels.width() as u32
    }

    /// Rows, which [`check`](Self::check) keeps within `u32`.
    pub(crate) fn height(&self) -> u32 {
        self.labels.height() as u32
    }

    /// The path with `/` between its parts on every system; bytes that are no text are replaced.
    pub(crate) fn name(&self) -> String {
        let parts = self.path.components().filter_map(|part| match part {
            Component::RootDir => Some("".into()),
            Component::CurDir => None,
            other => Some(other.as_os_str().to_string_lossy()),
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// Refuses what no exporter can write: maps without pixels or with too many, labels without a class,
    /// confidences that do not fit the map.
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

    /// The regions of an image that passed [`check`](Self::check).
    pub(crate) fn regions(
        &self,
        grouping: Grouping,
        minimal_area: u64,
    ) -> Result<Regions, ExportError> {
        find_regions(self.labels, grouping, minimal_area).map_err(|error| error.of(self.path))
    }

    /// Mean confidence of a region, to four decimals; `None` without confidences.
    pub(crate) fn score(&self, region: &Region<'_>) -> Option<f64> {
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

    /// Mean confidence of the pixels that have a class, to four decimals; `None` without any.
    pub(crate) fn mean_confidence(&self) -> Option<f64> {
        let mut mean = Mean::default();
        let pixels = self.labels.labels().iter().zip(self.confidence?);
        let labelled = pixels.filter(|&(&label, _)| label != IGNORE_LABEL);
        labelled.for_each(|(_, &value)| mean.add(value));
        mean.rounded()
    }
}

/// A mean of confidences that leaves out what is no number.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    pub(crate) fn add(&mut self, value: f32) {
        if !value.is_nan() {
            self.sum += f64::from(value.clamp(0.0, 1.0));
            self.count += 1;
        }
    }

    /// To four decimals, which is more than a confidence is worth; `None` of nothing.
    pub(crate) fn rounded(self) -> Option<f64> {
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
    fn means_skip_what_is_no_number() {
        let mut mean = Mean::default();
        assert_eq!(mean.rounded(), None);
        for value in [0.5, f32::NAN, 2.0, -1.0, f32::INFINITY] {
            mean.add(value);
        }
        assert_eq!(mean.rounded(), Some(0.625));
    }
}
