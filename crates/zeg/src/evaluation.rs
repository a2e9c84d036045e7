//! Scores a model on a data set: the generalised protocol, every pixel against all classes.

use std::{
    ops::AddAssign,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::sync_channel,
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use burn::tensor::Device;
use zeg_data::{Sample, SampleSource};
use zeg_eval::{ConfusionMatrix, PictureScore};
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage};
use zeg_model::{
    ModelError,
    dense::DenseModel,
    inference::{
        ClassQueries, EncodedPicture, Inference, Stages, TestTime, segment, segment_calibrated,
        segment_encoded,
    },
};

/// How a model is scored.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// The model.
    pub model: &'a dyn DenseModel,
    /// The data set's classes.
    pub queries: &'a ClassQueries,
    /// How pictures go through the model.
    pub settings: &'a Inference,
    /// How often each is looked at.
    pub test_time: &'a TestTime,
    /// Seen offsets to label every picture with, from the same scores; empty for the settings' own.
    pub offsets: &'a [f32],
    /// Where tensors live.
    pub device: &'a Device,
    /// Pictures at work at once.
    pub threads: usize,
}

/// What came out of an evaluation.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Pixels by true and predicted class.
    pub confusion: ConfusionMatrix,
    /// The score of every picture, in the data set's order.
    pub pictures: Vec<PictureScore>,
    /// Where the time went; of setups that were scored together, the time of all.
    pub times: Times,
}

/// Where the time of an evaluation went, summed over the threads that work on pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Reading and decoding pictures and label maps.
    pub load: Duration,
    /// Everything between pixels and labels.
    pub stages: Stages,
    /// Counting predictions.
    pub count: Duration,
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Self) {
        self.load += other.load;
        self.stages += other.stages;
        self.count += other.count;
    }
}

impl Times {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.load + self.stages.prepare + self.model() + self.count
    }

    /// The model's part: encoder, masks, and scores of pixels.
    pub fn model(&self) -> Duration {
        self.stages.model + self.stages.scores
    }
}

/// A picture's part of the outcome.
struct Scored {
    index: usize,
    truth: LabelMap,
    /// One entry a setup and offset.
    predicted: Vec<(PictureScore, LabelMap)>,
    times: Times,
}

impl Setup<'_> {
    /// Labels one sample of a data set.
    ///
    /// # Errors
    /// It cannot be read, or does not fit the settings.
    pub fn predict(
        &self,
        dataset: &dyn SampleSource,
        index: usize,
    ) -> anyhow::Result<(Sample, LabelMap)> {
        let sample = dataset.load(index)?;
        let settings = (self.settings, self.test_time);
        let (labels, _) = segment(
            self.model,
            &sample.image,
            self.queries,
            settings,
            self.device,
        )
        .with_context(|| format!("picture {}", sample.id))?;
        Ok((sample, labels))
    }
}

impl Setup<'_> {
    /// Label maps it gives a picture.
    fn outputs(&self) -> usize {
        self.offsets.len().max(1)
    }
}

/// Labels of one picture by every setup, one map an offset; several setups share its encoding.
fn label(setups: &[Setup], image: &RgbImage) -> Result<(Vec<LabelMap>, Stages), ModelError> {
    if let [setup] = setups {
        let settings = (setup.settings, setup.test_time);
        let how = (setup.offsets, setup.device);
        return segment_calibrated(setup.model, image, setup.queries, settings, how);
    }
    let Some(first) = setups.first() else {
        return Ok((Vec::new(), Stages::default()));
    };
    let encoded = EncodedPicture::new(first.model, image, first.settings, first.device)?;
    let mut stages = encoded.stages();
    let mut all = Vec::with_capacity(setups.len());
    for setup in setups {
        let (model, queries) = (setup.model, setup.queries);
        let (labels, more) =
            segment_encoded(model, &encoded, queries, setup.settings, setup.offsets)?;
        stages += more;
        all.extend(labels);
    }
    Ok((all, stages))
}

/// Labels and scores one sample.
fn score(setups: &[Setup], dataset: &dyn SampleSource, index: usize) -> anyhow::Result<Scored> {
    let started = Instant::now();
    let sample = dataset.load(index)?;
    let load = started.elapsed();
    let (labels, stages) =
        label(setups, &sample.image).with_context(|| format!("picture {}", sample.id))?;
    let started = Instant::now();
    let truth = sample.labels;
    let owners = setups
        .iter()
        .flat_map(|setup| std::iter::repeat_n(setup, setup.outputs()));
    let predicted = owners
        .zip(labels)
        .map(|(setup, labels)| {
            let pair = (truth.labels(), labels.labels());
            let classes = setup.queries.seen.len();
            let score = PictureScore::of(sample.id.clone(), pair, classes, IGNORE_LABEL)?;
            Ok((score, labels))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Scored {
        index,
        truth,
        predicted,
        times: Times {
            load,
            stages,
            count: started.elapsed(),
        },
    })
}

/// Counts predictions against labels over a data set. Memory does not grow with the number of pictures.
///
/// Several threads work on a picture each, from decoding to labels: much of a model's time on a CPU is in operations
/// that use one core. Several setups are scored together: every picture is encoded once, by the first one's model and
/// settings, so that all must have the same frozen encoder and look at pictures once and alike. The outcomes are in the
/// order of the setups and, within one, of its offsets.
///
/// - `progress`: told the id of every picture counted; an error from it ends the work
///
/// # Errors
/// A picture cannot be read, or its labels do not fit the classes.
pub fn evaluate(
    setups: &[Setup],
    dataset: &dyn SampleSource,
    mut progress: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Outcome>> {
    let mut times = Times::default();
    let empty = |setup: &Setup| ConfusionMatrix::new(setup.queries.seen.len());
    let mut counts: Vec<ConfusionMatrix> = setups
        .iter()
        .flat_map(|setup| std::iter::repeat_n(empty(setup), setup.outputs()))
        .collect();
    let mut scores = vec![vec![None; dataset.len()]; counts.len()];
    let next = AtomicUsize::new(0);
    let threads = setups.first().map_or(1, |setup| setup.threads);
    let threads = threads.clamp(1, dataset.len().max(1));
    std::thread::scope(|scope| {
        let (sender, results) = sync_channel(threads);
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    // The receiver is gone when the evaluation ended early.
                    if index >= dataset.len() || sender.send(score(setups, dataset, index)).is_err()
                    {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for result in results {
            let mut scored: Scored = result?;
            let started = Instant::now();
            let mut id = String::new();
            let outcomes = counts.iter_mut().zip(&mut scores);
            for ((counts, scores), (score, labels)) in outcomes.zip(scored.predicted) {
                counts
                    .add(scored.truth.labels(), labels.labels(), IGNORE_LABEL)
                    .with_context(|| format!("picture {}", score.id))?;
                id.clone_from(&score.id);
                scores[scored.index] = Some(score);
            }
            scored.times.count += started.elapsed();
            times += scored.times;
            progress(&id)?;
        }
        anyhow::Ok(())
    })?;
    let outcomes = counts.into_iter().zip(scores);
    Ok(outcomes
        .map(|(confusion, scores)| Outcome {
            confusion,
            pictures: scores.into_iter().flatten().collect(),
            times,
        })
        .collect())
}
