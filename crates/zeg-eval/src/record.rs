//! The record of an evaluation: everything that is needed to read its numbers right, without the model or the data.
//!
//! A number alone says little: 84 % may be hIoU or mIoU, of a model that saw the unseen classes' pixels or not, on 240
//! images or on 1,449. So an evaluation is kept as one file, `evaluation.json`, with the exact counts and with what was
//! scored how. A data set may be divided among machines; their records are put together by [`Evaluation::merge`] to
//! what one machine would have written.

mod file;
mod image_score;
mod merge;
mod protocol;
mod validate;

pub(crate) use file::read_limited;
pub(crate) use merge::same;

use serde::{Deserialize, Serialize};

use crate::report::{Metric, Report};
use crate::{ConfusionMatrix, EvalError, GalleryEntry};

pub use image_score::ImageScore;
pub use protocol::Protocol;

/// The format that this version writes and reads.
pub const FORMAT: u32 = 1;
/// Name of the file in an evaluation's folder.
pub const FILE_NAME: &str = "evaluation.json";

/// What an evaluation writes as `evaluation.json`, and all that a report knows of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// [`FORMAT`].
    pub format: u32,
    /// Program and version, as `zeg 0.1.0`.
    pub program: String,
    /// What was scored on.
    pub benchmark: BenchmarkRef,
    /// What the model knew of the unseen classes.
    pub protocol: Protocol,
    /// Data set of the training, as `coco-stuff164k`; `None` if it is unknown or there was none.
    pub trained_on: Option<String>,
    /// The method, as `ZegCLIP`.
    pub method: String,
    /// The model.
    pub model: ModelRef,
    /// Name of the prompt templates of the class names.
    pub templates: String,
    /// Settings of the inference as they were used.
    pub inference: serde_json::Value,
    /// Factors of the image size whose results were averaged; `[1.0]` for a single one.
    pub scales: Vec<f64>,
    /// Whether mirrored images took part.
    pub flip: bool,
    /// The classes, in label order.
    pub classes: Vec<ClassRef>,
    /// Images that were scored.
    pub images: u64,
    /// Scores of the single images; either all or none.
    #[serde(alias = "pictures")]
    pub image_scores: Vec<ImageScore>,
    /// Pixel counts of all images together.
    pub confusion: ConfusionMatrix,
    /// What the benchmark is judged by.
    pub metric: Metric,
    /// Which part of a divided evaluation this is; `None` for a whole one.
    pub shard: Option<Shard>,
    /// How long it took, and where.
    pub timing: Timing,
    /// Images to look at.
    pub gallery: Vec<GalleryEntry>,
}

/// What was scored on.
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
    /// Images of the official split; `None` for data sets without one.
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
    /// Step of the training.
    pub step: Option<u64>,
    /// Seed of the training.
    pub seed: Option<u64>,
}

/// A class of the evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassRef {
    /// Its name.
    pub name: String,
    /// Whether the model knows it by name only.
    pub unseen: bool,
    /// Its colour in images, RGB.
    pub colour: [u8; 3],
}

/// A part of a divided evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Which part, from 1.
    pub index: u64,
    /// How many parts there are.
    pub count: u64,
}

/// How long an evaluation took, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Seconds from the first image to the last. Of a merged evaluation: the sum over its shards, so the time one
    /// machine would have taken for them one after the other. Models that were scored together, over one encoding of
    /// every image, each have the time of all; so has [`Timing::model_s`].
    pub wall_s: f64,
    /// Seconds within the model, summed over threads (and shards).
    pub model_s: f64,
    /// Images at work at once; of a merged evaluation the largest number.
    pub threads: usize,
    /// Machine, in words; of a merged evaluation the different ones, joined by `; `.
    pub machine: String,
}

impl Evaluation {
    /// The metrics, by mmsegmentation's rule for classes without pixels.
    ///
    /// # Errors
    /// [`EvalError::Classes`] if the list of classes does not fit the counts.
    pub fn report(&self) -> Result<Report, EvalError> {
        let names: Vec<&str> = self
            .classes
            .iter()
            .map(|class| class.name.as_str())
            .collect();
        let unseen: Vec<bool> = self.classes.iter().map(|class| class.unseen).collect();
        let mut report = Report::new(&self.confusion, &names, &unseen, self.images)?;
        report.metric = self.metric;
        Ok(report)
    }

    /// Whether any class is unseen.
    pub(crate) fn has_unseen(&self) -> bool {
        self.classes.iter().any(|class| class.unseen)
    }

    /// Whether every image has its score.
    fn has_images(&self) -> bool {
        u64::try_from(self.image_scores.len()) == Ok(self.images)
    }

    /// Whether images of the official split are missing, or others were added.
    pub fn is_subset(&self) -> bool {
        let official = self.benchmark.official_images;
        self.shard.is_some() || official.is_some_and(|count| count != self.images)
    }
}
