//! Evaluates a model on a data set by the generalised protocol: every pixel is compared with all classes.

mod on_ranks;
mod sums;

use std::{
    fmt,
    ops::AddAssign,
    sync::{Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use zeg_data::{DataError, OnBadSample, Sample, SampleSource};
use zeg_eval::{
    ConfusionMatrix, ImageScore, Reliability, SkippedImage,
    confusion::{PairCount, count_pairs},
    reliability::Truth,
};
use zeg_image::{IGNORE_LABEL, LabelMap, PADDING_LABEL, RgbImage};
use zeg_model::inference::{ClassQueries, Stages};

pub use self::on_ranks::{Predictions, evaluate_on};
use self::sums::Sums;
use crate::{
    session::{Answer, Confidence, LARGE_IMAGE, Question, Session, SessionError},
    work_queue::{QueueOptions, work_in_order},
};

/// A model to evaluate, with the classes to evaluate it on.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationSetup<'a> {
    /// The model with its settings.
    pub session: Session<'a>,
    /// The data set's classes.
    pub classes: &'a ClassQueries,
    /// Seen offsets (subtracted from the scores of seen classes) to label every image with, all from the same scores;
    /// empty: the offset of the session's settings.
    pub seen_offsets: &'a [f32],
    /// Whether pixels are counted by confidence as well.
    pub confidence: Confidence,
    /// The labels that were left out of `classes`, ascending; empty for none. `classes` has the others, in the order of
    /// their labels, and pixels of these are not scored.
    pub left_out: &'a [u16],
}

/// Settings of how an evaluation is carried out; they do not change the score of an image.
#[derive(Debug, Clone, Copy, Default)]
pub struct EvaluationOptions<'a> {
    /// Number of images that are processed at once.
    pub threads: usize,
    /// Flag that ends the evaluation early when it becomes true; images in progress are finished.
    pub stop: Option<&'a AtomicBool>,
    /// What becomes of an image that cannot be read.
    pub on_bad_image: OnBadSample,
    /// Images that an earlier run has scored, which are not scored again.
    pub kept: Option<&'a dyn KeptImages>,
}

/// Images that an earlier run has scored.
pub trait KeptImages: fmt::Debug + Sync {
    /// Returns what was kept of an image; `None` if it is to be scored.
    ///
    /// - `index`: position of the image in the data set
    ///
    /// # Errors
    /// Returns an error if the image was kept and cannot be read back.
    fn image(&self, index: usize) -> anyhow::Result<Option<KeptImage>>;
}

/// An image that an earlier run has scored.
#[derive(Debug, Clone)]
pub struct KeptImage {
    /// Its counts, in the order of the outcomes.
    pub counts: Vec<ImageCounts>,
    /// Predicted label maps, in the order of the outcomes; may be empty.
    pub predictions: Vec<LabelMap>,
    /// Times of its stages.
    pub times: EvaluationTimes,
}

/// What an image contributes to one outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageCounts {
    /// Its score.
    pub score: ImageScore,
    /// Number of pixels by true and predicted class.
    pub pairs: Vec<PairCount>,
    /// As [`Answer::tied`](crate::session::Answer::tied).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tied: bool,
    /// Number of pixels by confidence, if they are counted; of the first outcome of a setup only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Reliability>,
}

/// The result of an evaluation.
#[derive(Debug, Clone)]
pub struct EvaluationOutcome {
    /// Number of pixels by true and predicted class.
    pub confusion: ConfusionMatrix,
    /// Number of pixels by confidence, if they are counted.
    pub reliability: Option<Reliability>,
    /// The score of every image, in the data set's order.
    pub images: Vec<ImageScore>,
    /// Images that could not be read, in the data set's order.
    pub skipped: Vec<SkippedImage>,
    /// Ids of the images in which all classes have the same score at every pixel, in the data set's order.
    pub tied: Vec<String>,
    /// Times of the stages; for setups that were evaluated together, the sum over all of them.
    pub times: EvaluationTimes,
}

/// Times of the stages of an evaluation, summed over its worker threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EvaluationTimes {
    /// Reading and decoding images and label maps.
    pub load: Duration,
    /// Everything from pixels to labels.
    pub stages: Stages,
    /// Counting predictions.
    pub count: Duration,
}

impl AddAssign for EvaluationTimes {
    fn add_assign(&mut self, other: Self) {
        self.load += other.load;
        self.stages += other.stages;
        self.count += other.count;
    }
}

impl EvaluationTimes {
    /// Returns the sum over all stages.
    pub fn total(&self) -> Duration {
        self.load + self.stages.prepare + self.model() + self.count
    }

    /// Returns the time of the model: encoder, masks and pixel scores.
    pub fn model(&self) -> Duration {
        self.stages.model + self.stages.scores
    }
}

/// An evaluated image.
#[derive(Debug, Clone, Copy)]
pub struct ScoredImage<'a> {
    /// Its position in the data set.
    pub index: usize,
    /// Its id in the data set.
    pub id: &'a str,
    /// Predicted label maps, in the order of the outcomes; there may be none for an image of an earlier run.
    pub predictions: &'a [LabelMap],
    /// What it contributes to each outcome.
    pub counts: &'a [ImageCounts],
    /// Times of its stages.
    pub times: EvaluationTimes,
    /// Whether it was scored now, kept from an earlier run, or skipped.
    pub state: ImageState<'a>,
}

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageState<'a> {
    /// It was scored now.
    Scored,
    /// An earlier run has scored it.
    Kept,
    /// It could not be read; it has neither predictions nor counts.
    Skipped {
        /// What is wrong with it.
        reason: &'a str,
    },
}

/// The contribution of one image to all outcomes.
struct Scored {
    index: usize,
    id: String,
    /// One entry per outcome.
    counts: Vec<ImageCounts>,
    predictions: Vec<LabelMap>,
    times: EvaluationTimes,
    is_kept: bool,
    /// Why the image could not be read.
    failure: Option<String>,
}

impl Scored {
    /// Returns the contribution of an image that could not be read: none.
    fn skipped(index: usize, id: String, error: &DataError) -> Self {
        Self {
            index,
            id,
            counts: Vec::new(),
            predictions: Vec::new(),
            times: EvaluationTimes::default(),
            is_kept: false,
            failure: Some(error.to_string()),
        }
    }

    /// Returns what an observer sees of the image.
    fn observed(&self) -> ScoredImage<'_> {
        ScoredImage {
            index: self.index,
            id: &self.id,
            predictions: &self.predictions,
            counts: &self.counts,
            times: self.times,
            state: self.state(),
        }
    }

    fn state(&self) -> ImageState<'_> {
        match (&self.failure, self.is_kept) {
            (Some(reason), _) => ImageState::Skipped { reason },
            (None, true) => ImageState::Kept,
            (None, false) => ImageState::Scored,
        }
    }
}

/// Label maps of one image, and the times of their stages.
#[derive(Default)]
struct Labelled {
    maps: Vec<LabelMap>,
    /// As [`Answer::tied`](crate::session::Answer::tied), for each map.
    tied: Vec<bool>,
    /// Confidence of every pixel, for each map; `None` if it is not counted.
    confidence: Vec<Option<Vec<f32>>>,
    stages: Stages,
}

impl Labelled {
    /// Adds the answer for one setup.
    fn add(&mut self, answer: Answer) {
        let maps = answer.labels.len();
        self.tied.extend(std::iter::repeat_n(answer.tied, maps));
        self.confidence.push(answer.confidence);
        self.confidence
            .extend(std::iter::repeat_n(None, maps.saturating_sub(1)));
        self.maps.extend(answer.labels);
        self.stages += answer.stages;
    }
}

impl<'a> EvaluationSetup<'a> {
    /// Returns the number of outcomes that this setup gives.
    fn outputs(&self) -> usize {
        self.seen_offsets.len().max(1)
    }

    /// Returns the number of labels, those of left out classes included.
    fn labels(&self) -> usize {
        self.classes.seen.len() + self.left_out.len()
    }

    /// Returns the label of every class.
    fn label_of_class(&self) -> Vec<u16> {
        let labels = 0..self.labels() as u16;
        labels
            .filter(|label| !self.left_out.contains(label))
            .collect()
    }

    fn question(&self) -> Question<'a> {
        Question {
            confidence: self.confidence,
            seen_offsets: self.seen_offsets,
            ..Question::labels(self.classes)
        }
    }
}

/// State that all workers of an evaluation share.
struct Evaluator<'a> {
    setups: &'a [EvaluationSetup<'a>],
    dataset: &'a dyn SampleSource,
    options: EvaluationOptions<'a>,
    /// Held while a large image is labelled, so that only one is in memory at a time.
    large: Mutex<()>,
}

impl Evaluator<'_> {
    /// Labels one image with every setup; several setups share its encoding.
    fn label(&self, image: &RgbImage) -> Result<Labelled, SessionError> {
        let pixels = image.width() as usize * image.height() as usize;
        let _alone = (pixels > LARGE_IMAGE)
            .then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
        if let [setup] = self.setups {
            let answer = setup.session.segment(image, &setup.question(), &mut [])?;
            let mut labelled = Labelled::default();
            labelled.add(answer);
            return Ok(labelled);
        }
        let mut labelled = Labelled::default();
        let Some(first) = self.setups.first() else {
            return Ok(labelled);
        };
        let encoded = first.session.encode(image)?;
        labelled.stages += encoded.stages();
        for setup in self.setups {
            let answer = setup.session.ask(&encoded, &setup.question(), &mut [])?;
            labelled.add(answer);
        }
        Ok(labelled)
    }

    /// Returns the contribution of an image: that of an earlier run, or a new one.
    fn contribution(&self, index: usize) -> anyhow::Result<Scored> {
        let kept = self.options.kept.map(|kept| kept.image(index));
        if let Some(kept) = kept.transpose()?.flatten() {
            let outcomes: usize = self.setups.iter().map(EvaluationSetup::outputs).sum();
            let id = self.dataset.id(index);
            anyhow::ensure!(
                kept.counts.len() == outcomes,
                "image {id}: {} outcomes were kept, but there are {outcomes}",
                kept.counts.len()
            );
            return Ok(Scored {
                index,
                id,
                counts: kept.counts,
                predictions: kept.predictions,
                times: kept.times,
                is_kept: true,
                failure: None,
            });
        }
        let started = Instant::now();
        match (self.dataset.load(index), self.options.on_bad_image) {
            (Ok(sample), _) => self.score(index, sample, started.elapsed()),
            (Err(error), OnBadSample::Skip) => {
                Ok(Scored::skipped(index, self.dataset.id(index), &error))
            }
            (Err(error), OnBadSample::Stop) => Err(error.into()),
        }
    }

    /// Computes the contributions of images in parallel, and delivers them in their order.
    fn contributions<I: IntoIterator<Item = usize, IntoIter: ExactSizeIterator + Send>>(
        &self,
        images: I,
        mut deliver: impl FnMut(Scored) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let images = images.into_iter();
        let queue = QueueOptions {
            workers: self.options.threads.clamp(1, images.len().max(1)),
            stop: self.options.stop,
        };
        let is_large = |_: &usize| false; // sizes are known only after reading; `large` limits memory instead
        let work = |index: usize| self.contribution(index);
        work_in_order(images, queue, is_large, work, |result| {
            deliver(result.map_err(anyhow::Error::new).flatten()?)
        })
    }

    /// Labels one sample and scores the result.
    ///
    /// - `load`: time that reading the sample took
    fn score(&self, index: usize, sample: Sample, load: Duration) -> anyhow::Result<Scored> {
        let Labelled {
            mut maps,
            tied,
            confidence,
            stages,
        } = self
            .label(&sample.image)
            .with_context(|| format!("image {}", sample.id))?;
        let started = Instant::now();
        let owners = self
            .setups
            .iter()
            .flat_map(|setup| std::iter::repeat_n(setup, setup.outputs()));
        let truth = sample.labels.labels();
        let owners: Vec<&EvaluationSetup> = owners.collect();
        for (setup, map) in owners.iter().zip(&mut maps) {
            to_labels(map, setup);
        }
        let of_maps = owners.iter().zip(&maps).zip(tied).zip(confidence);
        let counts = of_maps.map(|(((setup, labels), tied), confidence)| {
            let (classes, labels) = (setup.labels(), labels.labels());
            let id = sample.id.clone();
            let known = without(truth, setup.left_out);
            let known = known.as_deref().unwrap_or(truth);
            Ok(ImageCounts {
                score: ImageScore::of(id, (known, labels), classes, IGNORE_LABEL)?,
                pairs: count_pairs(known, labels, IGNORE_LABEL, classes)?,
                tied,
                reliability: confidence
                    .map(|confidence| reliability(truth, labels, &confidence, setup.left_out)),
            })
        });
        let counts: anyhow::Result<Vec<ImageCounts>> = counts.collect();
        Ok(Scored {
            index,
            counts: counts.with_context(|| format!("image {}", sample.id))?,
            id: sample.id,
            predictions: maps,
            times: EvaluationTimes {
                load,
                stages,
                count: started.elapsed(),
            },
            is_kept: false,
            failure: None,
        })
    }
}

/// Turns the class indices of a map into labels, where some labels were left out of the classes.
fn to_labels(map: &mut LabelMap, setup: &EvaluationSetup) {
    if setup.left_out.is_empty() {
        return;
    }
    let labels = setup.label_of_class();
    for class in map.labels_mut() {
        *class = labels
            .get(usize::from(*class))
            .copied()
            .unwrap_or(IGNORE_LABEL);
    }
}

/// Returns the truth with the ignore index in place of labels that were left out; `None` if none was.
fn without(truth: &[u16], left_out: &[u16]) -> Option<Vec<u16>> {
    let replaced = |label: &u16| {
        if left_out.contains(label) {
            IGNORE_LABEL
        } else {
            *label
        }
    };
    (!left_out.is_empty()).then(|| truth.iter().map(replaced).collect())
}

/// Counts the pixels of an image by confidence; a pixel without a true or a predicted label does not count.
fn reliability(truth: &[u16], labels: &[u16], confidence: &[f32], left_out: &[u16]) -> Reliability {
    let mut counts = Reliability::default();
    for ((&truth, &label), &confidence) in truth.iter().zip(labels).zip(confidence) {
        if truth == IGNORE_LABEL || truth == PADDING_LABEL {
            continue;
        }
        let found = if left_out.contains(&truth) {
            Truth::Absent
        } else if label == truth {
            Truth::Right
        } else {
            Truth::Wrong
        };
        counts.add(confidence, found);
    }
    counts
}

/// Evaluates models on a data set; memory does not grow with the number of images.
///
/// Each worker thread takes one image from decoding to labels, because many of a model's operations use only one core
/// on a CPU. Several setups are evaluated together: every image is encoded once, by the first setup's session. They
/// must therefore all have the same frozen encoder and the same windows, scales and flip. The outcomes are in the order
/// of the setups and, within one setup, of its offsets.
///
/// - `observe`: is called with every image, in the data set's order; an error from it ends the evaluation
///
/// # Errors
/// Returns an error if an image cannot be read and is not to be skipped, if an image cannot be labelled, if its label
/// values exceed the classes, or if `observe` fails.
pub fn evaluate(
    setups: &[EvaluationSetup],
    dataset: &dyn SampleSource,
    options: EvaluationOptions,
    mut observe: impl FnMut(&ScoredImage) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<EvaluationOutcome>> {
    let mut sums = Sums::new(setups);
    let evaluator = Evaluator {
        setups,
        dataset,
        options,
        large: Mutex::new(()),
    };
    evaluator.contributions(0..dataset.len(), |scored| {
        sums.add(&scored)?;
        observe(&scored.observed())
    })?;
    Ok(sums.finish())
}
