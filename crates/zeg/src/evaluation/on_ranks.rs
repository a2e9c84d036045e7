//! An evaluation that several processes share: the images are divided among them, and the counts are added.
//!
//! The ranks work on a few images each, and send what these contribute to the first rank, which adds it up in the order of
//! the data set. So every number is that of a single process.

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use zeg_base::ranks::Ranks;
use zeg_data::SampleSource;
use zeg_export::LabelRuns;
use zeg_model::inference::Stages;

use super::{
    EvaluationOptions, EvaluationOutcome, EvaluationSetup, EvaluationTimes, Evaluator, ImageCounts,
    Scored, ScoredImage, Sums, evaluate,
};

/// Number of images of a thread between two messages; ranks wait less for each other if it is large.
const EACH: usize = 4;

/// Whether the observer of a shared evaluation needs predicted label maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predictions {
    /// They are sent to the first rank.
    Kept,
    /// [`ScoredImage::predictions`] may be empty.
    Dropped,
}

/// What one rank tells the first one of a few images.
#[derive(Serialize, Deserialize)]
struct Message {
    /// Whether the rank was asked to stop.
    stop: bool,
    images: Vec<Sent>,
}

/// The contribution of an image on its way to the first rank.
#[derive(Serialize, Deserialize)]
struct Sent {
    index: usize,
    id: String,
    counts: Vec<ImageCounts>,
    predictions: Vec<LabelRuns>,
    /// Seconds of loading, preparation, model, pixel scores and counting.
    times: [f64; 5],
    failure: Option<String>,
}

impl Sent {
    fn new(scored: &Scored, predictions: Predictions) -> Self {
        let EvaluationTimes {
            load,
            stages,
            count,
        } = scored.times;
        let times = [load, stages.prepare, stages.model, stages.scores, count];
        let kept = predictions == Predictions::Kept;
        let maps = scored.predictions.iter().filter(|_| kept);
        Self {
            index: scored.index,
            id: scored.id.clone(),
            counts: scored.counts.clone(),
            predictions: maps.map(LabelRuns::of).collect(),
            times: times.map(|time| time.as_secs_f64()),
            failure: scored.failure.clone(),
        }
    }

    fn received(self) -> anyhow::Result<Scored> {
        let seconds = |time: f64| Duration::try_from_secs_f64(time).unwrap_or_default();
        let [load, prepare, model, scores, count] = self.times.map(seconds);
        let maps: Result<Vec<_>, _> = self.predictions.iter().map(LabelRuns::to_map).collect();
        Ok(Scored {
            index: self.index,
            predictions: maps.with_context(|| format!("image {}", self.id))?,
            id: self.id,
            counts: self.counts,
            times: EvaluationTimes {
                load,
                stages: Stages {
                    prepare,
                    model,
                    scores,
                },
                count,
            },
            is_kept: false,
            failure: self.failure,
        })
    }
}

/// Evaluates models on a data set, which several ranks share; all call it with the same models and data.
///
/// Returns the outcomes of [`evaluate`] on the first rank, and `None` on the others. Only the first rank reads
/// [`EvaluationOptions::kept`] and calls `observe`; if any rank is asked to stop, all stop.
///
/// # Errors
/// As for [`evaluate`], and an error if another rank has failed or does not answer.
pub fn evaluate_on(
    ranks: &Ranks,
    setups: &[EvaluationSetup],
    dataset: &dyn SampleSource,
    options: EvaluationOptions,
    predictions: Predictions,
    mut observe: impl FnMut(&ScoredImage) -> anyhow::Result<()>,
) -> anyhow::Result<Option<Vec<EvaluationOutcome>>> {
    if ranks.is_single() {
        return evaluate(setups, dataset, options, observe).map(Some);
    }
    let kept = kept_images(ranks, dataset, options)?;
    let is_open = |index: &usize| kept.get(*index) != Some(&1);
    let open: Vec<usize> = (0..dataset.len()).filter(is_open).collect();
    let threads = (options.threads.max(1) as u64).to_le_bytes();
    let threads = ranks.of_first("the size of a share", || threads.to_vec())?;
    let threads = threads.first_chunk().map_or(1, |n| u64::from_le_bytes(*n));
    let evaluator = Evaluator {
        setups,
        dataset,
        // An image that was begun is finished, because the other ranks wait for it.
        options: EvaluationOptions {
            stop: None,
            kept: options.kept.filter(|_| ranks.is_first()),
            ..options
        },
        large: Mutex::new(()),
    };
    let mut sums = Sums::new(setups);
    let mut next = 0;
    let mut deliver = |until: usize, scored: &mut BTreeMap<usize, Scored>| {
        for index in next..until {
            let scored = match scored.remove(&index) {
                Some(scored) => scored,
                None => evaluator.contribution(index)?,
            };
            sums.add(&scored)?;
            observe(&scored.observed())?;
        }
        next = until;
        anyhow::Ok(())
    };
    for block in open.chunks(EACH * threads as usize * ranks.size()) {
        let own: Vec<usize> = block
            .iter()
            .skip(ranks.rank())
            .step_by(ranks.size())
            .copied()
            .collect();
        let mut scored = Vec::with_capacity(own.len());
        evaluator.contributions(own, |image| {
            scored.push(image);
            Ok(())
        })?;
        let sent = scored.iter().filter(|_| !ranks.is_first());
        let message = Message {
            stop: options.stop.is_some_and(|stop| stop.load(Ordering::SeqCst)),
            images: sent.map(|image| Sent::new(image, predictions)).collect(),
        };
        let messages = ranks.gather("the scores of some images", &serde_json::to_vec(&message)?)?;
        let messages: Result<Vec<Message>, _> = messages
            .iter()
            .map(|message| serde_json::from_slice(message))
            .collect();
        let (mut stop, mut all) = (false, BTreeMap::new());
        all.extend(scored.into_iter().map(|image| (image.index, image)));
        for message in messages? {
            stop |= message.stop;
            if ranks.is_first() {
                for image in message.images {
                    all.insert(image.index, image.received()?);
                }
            }
        }
        if let (true, Some(last)) = (ranks.is_first(), block.last()) {
            deliver(last + 1, &mut all)?;
        }
        if stop {
            return Ok(ranks.is_first().then(|| sums.finish()));
        }
    }
    if !ranks.is_first() {
        return Ok(None);
    }
    deliver(dataset.len(), &mut BTreeMap::new())?;
    Ok(Some(sums.finish()))
}

/// Returns for each image 1 if an earlier run has scored it, as the first rank knows it.
fn kept_images(
    ranks: &Ranks,
    dataset: &dyn SampleSource,
    options: EvaluationOptions,
) -> anyhow::Result<Vec<u8>> {
    let mut flags = vec![0; dataset.len()];
    if let Some(kept) = options.kept.filter(|_| ranks.is_first()) {
        for (index, flag) in flags.iter_mut().enumerate() {
            *flag = u8::from(kept.image(index)?.is_some());
        }
    }
    Ok(ranks.of_first("the images that are scored already", || flags)?)
}
