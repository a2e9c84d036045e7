//! The record of an evaluation: everything that is needed to interpret its numbers, without the model or the data.
//!
//! A number alone says little: 84 % may be hIoU or mIoU, of a model that was trained on pixels of the unseen classes or
//! not, on 240 images or on 1,449. So an evaluation is stored as one file, `evaluation.json`, with the exact counts and
//! all settings. A data set may be divided among machines; [`Evaluation::merge`] combines their records into the record
//! that one machine would have written.

mod file;
mod image_score;
mod merge;
mod protocol;
mod validate;

pub(crate) use file::read_limited;
pub(crate) use merge::same;

use serde::{Deserialize, Serialize};
use zeg_base::{calibration::Calibration, fingerprint::Fingerprint};

use crate::report::{Metric, NanRule, Report};
use crate::{ConfusionMatrix, EvalError, GalleryEntry, Reliability, reliability::ConfidenceReport};

pub use image_score::ImageScore;
pub use protocol::Protocol;

/// Version of the format that this program writes and reads.
pub const FORMAT: u32 = 1;
/// Name of the file in an evaluation's folder.
pub const FILE_NAME: &str = "evaluation.json";

/// The record of an evaluation, stored as `evaluation.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// [`FORMAT`].
    pub format: u32,
    /// Program and version, as `zeg 0.1.0`.
    pub program: String,
    /// The data set on which the model was scored.
    pub benchmark: BenchmarkRef,
    /// What the model knew about the unseen classes in training.
    pub protocol: Protocol,
    /// Data set of the training, such as `coco-stuff164k`; `None` if it is unknown or there was no training.
    pub trained_on: Option<String>,
    /// The method, as `ZegCLIP`.
    pub method: String,
    /// The model.
    pub model: ModelRef,
    /// Name of the prompt templates of the class names.
    pub templates: String,
    /// Inference settings.
    pub inference: serde_json::Value,
    /// Scales of test-time augmentation: factors of the image size; `[1.0]` without.
    pub scales: Vec<f64>,
    /// Whether test-time augmentation included horizontal flips.
    pub flip: bool,
    /// Everything else that the scores follow from, by name: label rule, class list, images of the whole split and
    /// what their files and label files hold, frozen weights and what the files beside them state, origin of the class
    /// embeddings. Empty in records of earlier versions.
    #[serde(default, skip_serializing_if = "Fingerprint::is_empty")]
    pub fingerprint: Fingerprint,
    /// The classes, in label order.
    pub classes: Vec<ClassRef>,
    /// Number of scored images.
    pub images: u64,
    /// Scores of the single images: of all images, or empty.
    #[serde(alias = "pictures")]
    pub image_scores: Vec<ImageScore>,
    /// Images that could not be read and are not among the scored ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedImage>,
    /// Ids of the images in which all classes have the same score at every pixel, so that their labels mean nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tied: Vec<String>,
    /// Pixel counts of all images together.
    pub confusion: ConfusionMatrix,
    /// Pixel counts by confidence, if it was measured; that of the settings, with their calibration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Reliability>,
    /// Main metric of the benchmark.
    pub metric: Metric,
    /// Rule for classes without pixels; that of mmsegmentation in records of earlier versions.
    #[serde(default, skip_serializing_if = "NanRule::is_default")]
    pub nan_rule: NanRule,
    /// The part of a divided evaluation; `None` for a whole evaluation.
    pub shard: Option<Shard>,
    /// Duration and machine.
    pub timing: Timing,
    /// Example images.
    pub gallery: Vec<GalleryEntry>,
}

/// The data set on which the model was scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchmarkRef {
    /// Name of the data set, as `voc12`.
    pub dataset: String,
    /// Its title, as `PASCAL VOC 2012`.
    pub title: String,
    /// Name of the class list, as `voc20`.
    pub class_list: String,
    /// Name of the split, as `val`.
    pub split: String,
    /// Number of images in the official split; `None` for data sets without one.
    #[serde(alias = "official_pictures")]
    pub official_images: Option<u64>,
}

/// The model that was scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRef {
    /// Its file.
    pub path: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Training step of the checkpoint.
    pub step: Option<u64>,
    /// Seed of the training.
    pub seed: Option<u64>,
}

/// An image that could not be read, so that it is not scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkippedImage {
    /// Id of the image.
    pub id: String,
    /// What was wrong with it.
    pub reason: String,
}

/// A class of the evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassRef {
    /// Its name.
    pub name: String,
    /// Whether the class is unseen: known by name only.
    pub unseen: bool,
    /// RGB colour of the class in images.
    pub colour: [u8; 3],
}

/// A part of a divided evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Number of the part, from 1.
    pub index: u64,
    /// Number of parts.
    pub count: u64,
}

/// Duration and machine of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Seconds from the first image to the last. For a merged evaluation it is the sum over its shards, the time that
    /// one machine would have taken for one shard after the other. Models that were scored together and shared one
    /// encoding of every image each have the time of all models; the same holds for [`Timing::model_s`].
    pub wall_s: f64,
    /// Seconds in the model, summed over threads (and shards).
    pub model_s: f64,
    /// Number of images that were processed in parallel; the largest number of a merged evaluation.
    pub threads: usize,
    /// Description of the machine; for a merged evaluation, of all machines, joined by `; `.
    pub machine: String,
}

impl Evaluation {
    /// Computes the metrics, by the record's rule for classes without pixels.
    ///
    /// # Errors
    /// Returns [`EvalError::Classes`] if the class list does not fit the counts.
    pub fn report(&self) -> Result<Report, EvalError> {
        let names: Vec<&str> = self
            .classes
            .iter()
            .map(|class| class.name.as_str())
            .collect();
        let unseen: Vec<bool> = self.classes.iter().map(|class| class.unseen).collect();
        let (images, rule) = (self.images, self.nan_rule);
        let mut report = Report::with_rule(&self.confusion, &names, &unseen, images, rule)?;
        report.metric = self.metric;
        report.confidence = self
            .reliability
            .as_ref()
            .map(|counts| ConfidenceReport::of(counts, self.calibration()));
        report.tied_images = (!self.tied.is_empty()).then_some(self.tied.len() as u64);
        Ok(report)
    }

    /// Returns the calibration that the confidence was counted with.
    fn calibration(&self) -> Option<Calibration> {
        let settings = self.inference.get("calibration")?;
        serde_json::from_value(settings.clone()).ok()
    }

    /// Returns true if any class is unseen.
    pub(crate) fn has_unseen(&self) -> bool {
        self.classes.iter().any(|class| class.unseen)
    }

    /// Returns true if every image has its score.
    fn has_images(&self) -> bool {
        u64::try_from(self.image_scores.len()) == Ok(self.images)
    }

    /// Returns true if the scored images are not those of the official split: a shard, or another number of images.
    pub fn is_subset(&self) -> bool {
        let official = self.benchmark.official_images;
        self.shard.is_some() || official.is_some_and(|count| count != self.images)
    }
}
