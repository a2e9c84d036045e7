//! Evaluates a model on a data set by the generalised protocol: every pixel is compared with all classes.

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
}

/// Settings of how an evaluation is carried out; they do not change its result.
#[derive(Debug, Clone, Copy)]
pub struct EvaluationOptions<'a> {
    /// Number of images that are processed at once.
    pub threads: usize,
    /// Flag that ends the evaluation early when it becomes true.
    pub stop: Option<&'a AtomicBool>,
}

/// The result of an evaluation.
#[derive(Debug, Clone)]
pub struct EvaluationOutcome {
    /// Number of pixels by true and predicted class.
    pub confusion: ConfusionMatrix,
    /// The score of every image, in the data set's order.
    pub images: Vec<ImageScore>,
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
    /// Its id in the data set.
    pub id: &'a str,
    /// Predicted label maps, in the order of the outcomes.
    pub predictions: &'a [LabelMap],
}

/// The contribution of one image to all outcomes.
struct Scored {
    id: String,
    truth: LabelMap,
    /// One entry per outcome.
    scores: Vec<ImageScore>,
    predictions: Vec<LabelMap>,
    times: EvaluationTimes,
}

/// Label maps of one image, and the times of their stages.
struct Labelled {
    maps: Vec<LabelMap>,
    stages: Stages,
}

impl<'a> EvaluationSetup<'a> {
    /// Returns the number of outcomes that this setup gives.
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

/// State that all workers of an evaluation share.
struct Evaluator<'a> {
    setups: &'a [EvaluationSetup<'a>],
    dataset: &'a dyn SampleSource,
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

    /// Labels one sample and scores the result.
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
/// Returns an error if an image cannot be read or labelled, if its label values exceed the classes, or if `observe`
/// fails.
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
    let is_large = |_: &usize| false; // sizes are known only after reading; `Evaluator::large` limits memory instead
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
