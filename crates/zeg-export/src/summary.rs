//! Summary of an image: area, confidence and number of regions of each class.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeg_image::IGNORE_LABEL;

use crate::formats::{ExportFormat, Needs, own_file};
use crate::output::Folder;
use crate::regions::{Connectivity, count_regions};
use crate::segmented_image::Mean;
use crate::{Classes, ExportError, Exporter, Overwrite, SegmentedImage};

/// End of the name of an image's summary.
const SUFFIX: &str = ".summary.json";

/// The format of summaries.
pub(crate) static FORMAT: ExportFormat = ExportFormat {
    name: "summary",
    about: "NAME.summary.json: area, confidence and regions of each class",
    needs: Needs::Labels,
    image_suffix: None,
    own_files: |stem, _| vec![own_file(stem, SUFFIX)],
    shared_files: &[],
    open: |classes, settings| {
        let exporter = SummaryExporter::create(classes, settings.folder, settings.overwrite)?;
        Ok(Box::new(exporter))
    },
};

/// Summary of a segmented image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// The image.
    pub image: String,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Share of unlabelled pixels, 0..=1.
    pub unlabelled: f64,
    /// Mean confidence of the labelled pixels, 0..=1; `None` without confidences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// The classes that occur, largest first.
    pub classes: Vec<ClassSummary>,
}

/// Summary of one class in an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClassSummary {
    /// Its name.
    pub name: String,
    /// Its position in the class list, from 0: the value in label files.
    pub label: u16,
    /// Its colour, `#rrggbb`.
    pub colour: String,
    /// Number of its pixels.
    pub pixels: u64,
    /// Their share of all pixels, 0..=1.
    pub share: f64,
    /// Their mean confidence, 0..=1; `None` without confidences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    /// Number of regions connected by edges or corners.
    pub regions: usize,
}

/// Computes the summary of an image. Shares have eight decimals, confidences four.
///
/// # Errors
/// Returns an error if the labels do not fit the classes, or the confidences do not fit the labels.
pub fn summarize(
    segmented: &SegmentedImage<'_>,
    classes: &Classes,
) -> Result<Summary, ExportError> {
    segmented.check(classes)?;
    if let Some(stored) = segmented.stored {
        return Ok(Summary {
            image: segmented.name(),
            ..stored.summary.clone()
        });
    }
    let regions = count_regions(segmented.labels, Connectivity::Eight, 1)
        .map_err(|error| error.of(segmented.path))?;
    let mut found = BTreeMap::<u16, (u64, Mean)>::new();
    let mut confidences = segmented.confidence.unwrap_or(&[]).iter();
    for stretch in segmented.labels.labels().chunk_by(PartialEq::eq) {
        let Some(&label) = stretch.first() else {
            continue;
        };
        let (pixels, mean) = found.entry(label).or_default();
        *pixels += stretch.len() as u64;
        confidences
            .by_ref()
            .take(stretch.len())
            .for_each(|&value| mean.add(value));
    }
    let all = segmented.labels.labels().len() as f64;
    let unlabelled = found.remove(&IGNORE_LABEL).map_or(0, |(pixels, _)| pixels);
    let class = |(label, (pixels, mean)): (u16, (u64, Mean))| ClassSummary {
        name: classes.name(label).into(),
        label,
        colour: classes.hex_colour(label),
        pixels,
        share: rounded(pixels as f64 / all),
        confidence: mean.rounded(),
        regions: regions.get(&label).copied().unwrap_or(0),
    };
    let mut classes: Vec<_> = found.into_iter().map(class).collect();
    classes.sort_by_key(|class| std::cmp::Reverse(class.pixels)); // stable: ties by label
    Ok(Summary {
        image: segmented.name(),
        width: segmented.width(),
        height: segmented.height(),
        unlabelled: rounded(unlabelled as f64 / all),
        confidence: segmented.mean_confidence(),
        classes,
    })
}

/// Rounds to eight decimals, so that a single pixel of a large image is not rounded to 0.
fn rounded(share: f64) -> f64 {
    (share * 1e8).round() / 1e8
}

/// Writes the [`Summary`] of each image as `STEM.summary.json`.
#[derive(Debug)]
pub struct SummaryExporter {
    classes: Classes,
    folder: Folder,
}

impl SummaryExporter {
    /// Opens the folder, and creates it if it does not exist.
    ///
    /// # Errors
    /// Returns [`ExportError::Unwritable`] if the folder cannot be created.
    pub fn create(
        classes: Classes,
        folder: &Path,
        overwrite: Overwrite,
    ) -> Result<Self, ExportError> {
        Ok(Self {
            classes,
            folder: Folder::create(folder, overwrite)?,
        })
    }
}

impl Exporter for SummaryExporter {
    fn add(&mut self, segmented: &SegmentedImage<'_>) -> Result<(), ExportError> {
        let summary = summarize(segmented, &self.classes)?;
        let mut target = self.folder.target(segmented.stem, SUFFIX)?;
        target.fill(|file| {
            serde_json::to_writer_pretty(&mut *file, &summary)?;
            file.write_all(b"\n")
        })?;
        self.folder.finish(target)
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError> {
        Ok(self.folder.into_files())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeg_image::LabelMap;

    #[test]
    fn a_summary_counts_pixels_regions_and_confidence() {
        let names = ["sky", "sea", "sand"].map(String::from).to_vec();
        let classes = Classes::new(names, vec![[1, 2, 3], [0, 0, 255]]).unwrap();
        let labels =
            LabelMap::new(4, 2, vec![1, 1, IGNORE_LABEL, 0, 1, 1, IGNORE_LABEL, 1]).unwrap();
        let confidence = [0.5, 0.5, 0.9, 0.25, 0.5, 0.5, 0.9, 1.0];
        let segmented = SegmentedImage {
            confidence: Some(&confidence),
            ..SegmentedImage::new(Path::new("beach/a.jpg"), &labels)
        };
        let summary = summarize(&segmented, &classes).unwrap();
        let class =
            |name: &str, label, colour: &str, pixels, share, confidence, regions| ClassSummary {
                name: name.into(),
                label,
                colour: colour.into(),
                pixels,
                share,
                confidence: Some(confidence),
                regions,
            };
        let expected = Summary {
            image: "beach/a.jpg".into(),
            width: 4,
            height: 2,
            unlabelled: 0.25,
            confidence: Some(0.5417), // 3.25 / 6
            classes: vec![
                class("sea", 1, "#0000ff", 5, 0.625, 0.6, 2),
                class("sky", 0, "#010203", 1, 0.125, 0.25, 1),
            ],
        };
        assert_eq!(summary, expected);
        let text = serde_json::to_string(&summary).unwrap();
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), summary);
        let plain = summarize(&SegmentedImage::new(Path::new("a"), &labels), &classes).unwrap();
        let text = serde_json::to_string(&plain).unwrap();
        assert!(!text.contains("confidence"));
        assert_eq!(serde_json::from_str::<Summary>(&text).unwrap(), plain);
    }
}
