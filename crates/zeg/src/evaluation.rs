//! Scores a model on a data set: the generalised protocol, every pixel against all classes.

use std::{
    ops::AddAssign,
    sync::{Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use zeg_data::SampleSource;
use zeg_eval::{ConfusionMatrix, ImageScore};
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage};
use zeg_model::inference::{ClassQueries, Stages};

use crate::{
    session::{LARGE_IMAGE, Question, Session, SessionError},
    work_queue::{QueueOptions, work_in_order},
};

/// A model to be scored, and on which classes.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationSetup<'a> {
    /// The model with its settings.
    pub session: Session<'a>,
    /// The data set's classes.
    pub classes: &'a ClassQueries,
    /// Seen offsets to label every image with, from the same scores; empty for the settings' own.
    pub seen_offsets: &'a [f32],
}

/// How an evaluation is carried out.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationOptions<'a> {
    /// Images at work at once.
    pub threads: usize,
    /// Ends the evaluation early when set.
    pub stop: Option<&'a AtomicBool>,
}

/// What came out of an evaluation.
#[derive(Debug, Clone)]
pub struct EvaluationOutcome {
    /// Pixels by true and predicted class.
    pub confusion: ConfusionMatrix,
    /// The score of every image, in the data set's order.
    pub images: Vec<ImageScore>,
    /// Where the time went; of setups that were scored together, the time of all.
    pub times: EvaluationTimes,
}

/// Where the time of an evaluation went, summed over the threads that work on images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EvaluationTimes {
    /// Reading and decoding images and label maps.
    pub load: Duration,
    /// Everything between pixels and labels.
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
    /// All of it.
    pub fn total(&self) -> Duration {
        self.load + self.stages.prepare + self.model() + self.count
    }

    /// The model's part: encoder, masks, and scores of pixels.
    pub fn model(&self) -> Duration {
        self.stages.model + self.stages.scores
    }
}

/// An image that was scored.
#[derive(Debug, Clone, Copy)]
pub struct ScoredImage<'a> {
    /// Its id in the data set.
    pub id: &'a str,
    /// What was predicted, in the order of the outcomes.
    pub predictions: &'a [LabelMap],
}

/// An image's part of the outcomes.
struct Scored {
    id: String,
    truth: LabelMap,
    /// One entry an outcome.
    scores: Vec<ImageScore>,
    predictions: Vec<LabelMap>,
    times: EvaluationTimes,
}

/// Label maps of one image, and where the time went.
struct Labelled {
    maps: Vec<LabelMap>,
    stages: Stages,
}

impl<'a> EvaluationSetup<'a> {
    /// Outcomes that it gives.
    fn outputs(&self) -> usize {
        self.seen_offsets.len().max(1)
    }

    fn question(&self) -> Question<'a> {
        Question {
            seen_offsets: self.seen_offsets,
            ..Question::labels(self.classes)
        }
    }
}

/// What all workers of an evaluation share.
struct Evaluator<'a> {
    setups: &'a [EvaluationSetup<'a>],
    dataset: &'a dyn SampleSource,
    /// Held while a large image is labelled: one at a time.
    large: Mutex<()>,
}

impl Evaluator<'_> {
    /// Labels one image by every setup; several setups share its encoding.
    fn label(&self, image: &RgbImage) -> Result<Labelled, SessionError> {
        let pixels = image.width() as usize * image.height() as usize;
        let _alone = (pixels > LARGE_IMAGE)
            .then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
        if let [setup] = self.setups {
            let answer = setup.session.segment(image, &setup.question(), &mut [])?;
            return Ok(Labelled {
                maps: answer.labels,
                stages: answer.stages,
            });
        }
        let mut labelled = Labelled {
            maps: Vec::new(),
            stages: Stages::default(),
        };
        let Some(first) = self.setups.first() else {
            return Ok(labelled);
        };
        let encoded = first.session.encode(image)?;
        labelled.stages += encoded.stages();
        for setup in self.setups {
            let answer = setup.session.ask(&encoded, &setup.question(), &mut [])?;
            labelled.stages += answer.stages;
            labelled.maps.extend(answer.labels);
        }
        Ok(labelled)
    }

    /// Labels and scores one sample.
    fn score(&self, index: usize) -> anyhow::Result<Scored> {
        let started = Instant::now();
        let sample = self.dataset.load(index)?;
        let load = started.elapsed();
        let Labelled { maps, stages } = self
            .label(&sample.image)
            .with_context(|| format!("image {}", sample.id))?;
        let started = Instant::now();
        let owners = self
            .setups
            .iter()
            .flat_map(|setup| std::iter::repeat_n(setup, setup.outputs()));
        let scores = owners.zip(&maps).map(|(setup, labels)| {
            let pair = (sample.labels.labels(), labels.labels());
            let classes = setup.classes.seen.len();
            ImageScore::of(sample.id.clone(), pair, classes, IGNORE_LABEL)
        });
        Ok(Scored {
            scores: scores.collect::<Result<_, _>>()?,
            id: sample.id,
            truth: sample.labels,
            predictions: maps,
            times: EvaluationTimes {
                load,
                stages,
                count: started.elapsed(),
            },
        })
    }
}

/// Counts predictions against labels over a data set. Memory does not grow with the number of images.
///
/// Several threads work on an image each, from decoding to labels: much of a model's time on a CPU is in operations
/// that use one core. Several setups are scored together: every image is encoded once, by the first one's session, so
/// that all must have the same frozen encoder and the same windows, scales and flip. The outcomes are in the order of the
/// setups and, within one, of its offsets.
///
/// - `observe`: shown every image, in the data set's order; an error from it ends the work
///
/// # Errors
/// An image cannot be read, or its labels do not fit the classes.
pub fn evaluate(
    setups: &[EvaluationSetup],
    dataset: &dyn SampleSource,
    options: EvaluationOptions,
    mut observe: impl FnMut(&ScoredImage) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<EvaluationOutcome>> {
    let mut times = EvaluationTimes::default();
    let empty = |setup: &EvaluationSetup| EvaluationOutcome {
        confusion: ConfusionMatrix::new(setup.classes.seen.len()),
        images: Vec::new(),
        times,
    };
    let mut outcomes: Vec<EvaluationOutcome> = setups
        .iter()
        .flat_map(|setup| std::iter::repeat_n(empty(setup), setup.outputs()))
        .collect();
    let evaluator = Evaluator {
        setups,
        dataset,
        large: Mutex::new(()),
    };
    let queue = QueueOptions {
        workers: options.threads.clamp(1, dataset.len().max(1)),
        stop: options.stop,
    };
    let is_large = |_: &usize| false; // a size is known only when the image is read: see `Evaluator::large`
    let work = |index: usize| evaluator.score(index);
    work_in_order(0..dataset.len(), queue, is_large, work, |result| {
        let mut scored = result.map_err(anyhow::Error::new).flatten()?;
        let started = Instant::now();
        let counted = outcomes.iter_mut().zip(&scored.predictions);
        for ((outcome, labels), score) in counted.zip(scored.scores) {
            outcome
                .confusion
                .add(scored.truth.labels(), labels.labels(), IGNORE_LABEL)
                .with_context(|| format!("image {}", scored.id))?;
            outcome.images.push(score);
        }
        scored.times.count += started.elapsed();
        times += scored.times;
        observe(&ScoredImage {
            id: &scored.id,
            predictions: &scored.predictions,
        })
    })?;
    for outcome in &mut outcomes {
        outcome.times = times;
    }
    Ok(outcomes)
}
