//! Segmented images in a form that is kept on disk, from which all shared files can be written again.
//!
//! A program that segments thousands of images and is stopped needs the finished ones once more: COCO's JSON and the
//! web page hold all images. Labels are kept exactly. Of the confidences only the means are kept that the formats
//! write, because one number per pixel would take more room than all other results.

use serde::{Deserialize, Serialize};
use zeg_image::decode::MAX_PIXELS;
use zeg_image::{ImageError, LabelMap};

use crate::formats::GROUPING;
use crate::summary::{Summary, summarize};
use crate::{Classes, ExportError, Region, SegmentedImage};

/// A label map as runs of equal labels, in reading order.
///
/// The JSON form is `{"width": 3, "height": 2, "runs": [7, 4, 65535, 2]}`: labels and lengths in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelRuns {
    width: usize,
    height: usize,
    /// Label and length in turn; the lengths add up to `width · height`.
    runs: Vec<u32>,
}

impl LabelRuns {
    /// Encodes a label map.
    pub fn of(labels: &LabelMap) -> Self {
        let mut runs = Vec::new();
        for run in labels.labels().chunk_by(PartialEq::eq) {
            for part in run.chunks(MAX_PIXELS) {
                runs.extend([u32::from(part[0]), part.len() as u32]);
            }
        }
        Self {
            width: labels.width(),
            height: labels.height(),
            runs,
        }
    }

    /// Decodes the label map.
    ///
    /// # Errors
    /// Returns [`ImageError::LabelCount`] if the runs do not fill the map, or if the map has more pixels than an image
    /// may have.
    pub fn to_map(&self) -> Result<LabelMap, ImageError> {
        let lengths = self.runs.iter().skip(1).step_by(2);
        let total: u64 = lengths.map(|&length| u64::from(length)).sum();
        let expected = self.width.checked_mul(self.height);
        let fits = expected.is_some_and(|pixels| pixels <= MAX_PIXELS && total == pixels as u64);
        let highest = u32::from(u16::MAX);
        let are_labels = self.runs.iter().step_by(2).all(|&label| label <= highest);
        if !fits || !are_labels {
            return Err(ImageError::LabelCount {
                width: self.width,
                height: self.height,
                labels: usize::try_from(total).unwrap_or(usize::MAX),
            });
        }
        let mut labels = Vec::with_capacity(total as usize);
        for run in self.runs.as_chunks::<2>().0 {
            labels.extend(std::iter::repeat_n(run[0] as u16, run[1] as usize));
        }
        LabelMap::new(self.width, self.height, labels)
    }
}

/// A segmented image as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredImage {
    /// Area, confidence and regions of each class.
    pub summary: Summary,
    /// Labels of all pixels.
    pub labels: LabelRuns,
    /// Mean confidence of the annotated regions, each with its first pixel in reading order; sorted by this pixel.
    scores: Vec<(u64, f64)>,
}

impl StoredImage {
    /// Keeps what the formats need of an image.
    ///
    /// - `minimal_area`: smallest area of a region that is annotated, in pixels
    ///
    /// # Errors
    /// Returns an error if the labels do not fit the classes, or the confidences do not fit the labels.
    pub fn of(
        segmented: &SegmentedImage<'_>,
        classes: &Classes,
        minimal_area: u64,
    ) -> Result<Self, ExportError> {
        let summary = summarize(segmented, classes)?;
        let mut scores = Vec::new();
        if segmented.confidence.is_some() {
            let regions = segmented.regions(GROUPING, minimal_area)?;
            scores.extend(regions.iter().filter_map(|region| {
                let score = segmented.score(&region)?;
                Some((first_pixel(&region)?, score))
            }));
            scores.sort_by_key(|&(pixel, _)| pixel);
        }
        Ok(Self {
            summary,
            labels: LabelRuns::of(segmented.labels),
            scores,
        })
    }

    /// Returns the mean confidence of a region, if it was kept.
    pub(crate) fn score(&self, region: &Region<'_>) -> Option<f64> {
        let pixel = first_pixel(region)?;
        let found = self
            .scores
            .binary_search_by_key(&pixel, |&(first, _)| first);
        let (_, score) = self.scores.get(found.ok()?)?;
        Some(*score)
    }
}

/// Returns the first pixel of a region in reading order, which no other region of the map has.
fn first_pixel(region: &Region<'_>) -> Option<u64> {
    let run = region.runs().first()?;
    Some(u64::from(run.y) * u64::from(region.map_width()) + u64::from(run.x))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::formats::{ExportSettings, formats};
    use crate::{Needs, Overwrite};

    #[test]
    fn labels_come_back_as_they_were_and_false_runs_are_refused() {
        let map = LabelMap::new(3, 2, vec![7, 7, 7, 7, u16::MAX, 0]).unwrap();
        let runs = LabelRuns::of(&map);
        let text = serde_json::to_string(&runs).unwrap();
        assert_eq!(text, r#"{"width":3,"height":2,"runs":[7,4,65535,1,0,1]}"#);
        assert_eq!(runs.to_map().unwrap(), map);
        for text in [
            r#"{"width":3,"height":2,"runs":[7,5]}"#,
            r#"{"width":3,"height":2,"runs":[7,5,1]}"#,
            r#"{"width":3,"height":2,"runs":[70000,6]}"#,
            r#"{"width":4294967295,"height":4294967295,"runs":[7,4294967295]}"#,
        ] {
            let runs: LabelRuns = serde_json::from_str(text).unwrap();
            assert!(runs.to_map().is_err(), "{text}");
        }
    }

    /// Writes an image in every format that needs no scores of classes, and returns the bytes of all files.
    fn export(image: &SegmentedImage<'_>, classes: &Classes) -> Vec<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let settings = ExportSettings {
            folder: folder.path(),
            overwrite: Overwrite::Refuse,
            minimal_area: 2,
            address_prefix: "",
            method: "test",
            link_suffix: None,
        };
        let mut files = Vec::new();
        for format in formats().filter(|format| format.needs != Needs::Scores) {
            let mut exporter = format.open(classes.clone(), &settings).unwrap();
            exporter.add(image).unwrap();
            let written = exporter.finish().unwrap();
            files.extend(written.iter().map(|file| std::fs::read(file).unwrap()));
        }
        files
    }

    #[test]
    fn a_stored_image_gives_the_same_files_as_the_image_itself() {
        let names = ["sky", "sea"].map(String::from).to_vec();
        let classes = Classes::new(names, vec![[1, 2, 3], [0, 0, 255]]).unwrap();
        let labels = vec![1, 1, u16::MAX, 0, 1, 1, u16::MAX, 0, 0, 1, 1, 0];
        let labels = LabelMap::new(4, 3, labels).unwrap();
        let confidence: Vec<f32> = (0..12).map(|i| i as f32 / 13.0).collect();
        let image = SegmentedImage {
            confidence: Some(&confidence),
            ..SegmentedImage::new(Path::new("a.jpg"), &labels)
        };
        let stored = StoredImage::of(&image, &classes, 2).unwrap();
        let text = serde_json::to_string(&stored).unwrap();
        let stored: StoredImage = serde_json::from_str(&text).unwrap();
        let labels = stored.labels.to_map().unwrap();
        let again = SegmentedImage {
            stored: Some(&stored),
            ..SegmentedImage::new(Path::new("a.jpg"), &labels)
        };
        assert_eq!(export(&again, &classes), export(&image, &classes));
    }
}
