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
use zeg_data::{Dataset, Sample};
use zeg_eval::{ConfusionMatrix, PictureScore};
use zeg_image::{IGNORE_LABEL, LabelMap};
use zeg_model::{
    dense::DenseModel,
    inference::{ClassQueries, Inference, Stages, TestTime, segment},
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
    /// Where the time went.
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
    score: PictureScore,
    truth: LabelMap,
    predicted: LabelMap,
    times: Times,
}

impl Setup<'_> {
    /// Labels one sample of a data set.
    ///
    /// # Errors
    /// It cannot be read, or does not fit the settings.
    pub fn predict(&self, dataset: &Dataset, index: usize) -> anyhow::Result<(Sample, LabelMap)> {
        let (sample, labels, _) = self.predict_timed(dataset, index)?;
        Ok((sample, labels))
    }

    fn predict_timed(
        &self,
        dataset: &Dataset,
        index: usize,
    ) -> anyhow::Result<(Sample, LabelMap, Times)> {
        let started = Instant::now();
        let sample = dataset.load(index)?;
        let load = started.elapsed();
        let settings = (self.settings, self.test_time);
        let (labels, stages) = segment(
            self.model,
            &sample.image,
            self.queries,
            settings,
            self.device,
        )
        .with_context(|| format!("picture {}", sample.id))?;
        let times = Times {
            load,
            stages,
            count: Duration::ZERO,
        };
        Ok((sample, labels, times))
    }

    /// Labels and scores one sample.
    fn score(&self, dataset: &Dataset, index: usize) -> anyhow::Result<Scored> {
        let (sample, predicted, mut times) = self.predict_timed(dataset, index)?;
        let started = Instant::now();
        let truth = sample.labels;
        let labels = (truth.labels(), predicted.labels());
        let score = PictureScore::of(sample.id, labels, self.queries.seen.len(), IGNORE_LABEL)?;
        times.count = started.elapsed();
        Ok(Scored {
            index,
            score,
            truth,
            predicted,
            times,
        })
    }
}

/// Counts predictions against labels over a data set. Memory does not grow with the number of pictures.
///
/// Several threads work on a picture each, from decoding to labels: much of a model's time on a CPU is in operations
/// that use one core.
///
/// - `progress`: told the id of every picture counted; an error from it ends the work
///
/// # Errors
/// A picture cannot be read, or its labels do not fit the classes.
pub fn evaluate(
    setup: &Setup,
    dataset: &Dataset,
    mut progress: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let mut confusion = ConfusionMatrix::new(setup.queries.seen.len());
    let mut scores = vec![None; dataset.len()];
    let mut times = Times::default();
    let next = AtomicUsize::new(0);
    let threads = setup.threads.clamp(1, dataset.len().max(1));
    std::thread::scope(|scope| {
        let (sender, results) = sync_channel(threads);
        for _ in 0..threads {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    // The receiver is gone when the evaluation ended early.
                    if index >= dataset.len() || sender.send(setup.score(dataset, index)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for result in results {
            let mut scored = result?;
            let started = Instant::now();
            let (truth, predicted) = (scored.truth.labels(), scored.predicted.labels());
            confusion
                .add(truth, predicted, IGNORE_LABEL)
                .with_context(|| format!("picture {}", scored.score.id))?;
            scored.times.count += started.elapsed();
            times += scored.times;
            progress(&scored.score.id)?;
            scores[scored.index] = Some(scored.score);
        }
        anyhow::Ok(())
    })?;
    Ok(Outcome {
        confusion,
        pictures: scores.into_iter().flatten().collect(),
        times,
    })
}
