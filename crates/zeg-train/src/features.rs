//! Caches the features of a frozen encoder, computed once before the first step.
//!
//! A frozen encoder without prompts gives the same tokens for the same image in every step. Encoding a few augmented
//! copies of every image before the first step shortens a run on a CPU from hours to minutes. The head then trains on
//! tokens in main memory (`f16`: patches × dim × 2 bytes per copy).

mod exchange;
mod file;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc::sync_channel,
};

use zeg_base::ranks::Ranks;
use zeg_data::{
    OnBadSample, Pipeline, SampleSource,
    chance::{Purpose, stream},
    loader::load,
    sampler::Sampler,
};
use zeg_model::method::Model;

use self::exchange::gather_copies;
use crate::{
    TrainError,
    batch::{Features, Inputs, Samples, images_tensor},
    recipe::Criterion,
};

/// One encoded augmented copy with its labels.
#[derive(Debug, Clone)]
struct AugmentedCopy {
    features: Arc<Features>,
    labels: Vec<u16>,
    id: String,
}

/// An encoded copy, with the ids and errors of the bad images that it replaces.
struct Encoded {
    copy: AugmentedCopy,
    skipped: Vec<(String, String)>,
}

/// Options of the encoding of augmented copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyOptions {
    /// Number of augmented copies of every image.
    pub copies: usize,
    /// The run's seed.
    pub seed: u64,
    /// Number of images that are encoded at once.
    pub threads: usize,
    /// What to do with an image that cannot be loaded; if it is skipped, its copies are those of the next image.
    pub on_bad_sample: OnBadSample,
}

/// Encoded augmented copies of every image of a data set.
#[derive(Debug)]
pub struct FeatureCache {
    /// Copy `c` of image `i` is at `c · images + i`.
    copies: Vec<AugmentedCopy>,
    image_count: usize,
    size: usize,
    seed: u64,
    sampler: Sampler,
}

impl FeatureCache {
    /// Encodes `copies` augmented copies of every image; a copy depends only on the seed and its number.
    ///
    /// Several threads encode one image each, because many of an encoder's operations use only one core on a CPU.
    ///
    /// Several ranks encode a share of the copies each, and then all have all of them.
    ///
    /// - `ranks`: the processes that call this together
    /// - `model`: the model, on a device without autodiff
    /// - `criterion`: the loss of the model's method, which defines the features it is trained on
    /// - `progress`: is called after every copy with the id and error of every bad image that was skipped for it; an
    ///   error from it ends the work
    ///
    /// # Errors
    /// Returns an error if an image cannot be loaded or `progress` fails, and [`TrainError::Interrupted`] if it fails so on
    /// another rank.
    pub fn build(
        ranks: &Ranks,
        model: &dyn Model,
        criterion: &dyn Criterion,
        dataset: &dyn SampleSource,
        pipeline: &Pipeline,
        options: CopyOptions,
        mut progress: impl FnMut(&[(String, String)]) -> Result<(), TrainError>,
    ) -> Result<Self, TrainError> {
        let CopyOptions {
            copies,
            seed,
            threads,
            on_bad_sample,
        } = options;
        let (image_count, size) = (dataset.len(), pipeline.size());
        let device = model.device();
        let encode = |number: usize| -> Result<Encoded, TrainError> {
            let mut rng = stream(seed, Purpose::Sample, number as u64);
            let (sample, skipped) = load(dataset, number % image_count, on_bad_sample)?;
            let sample = pipeline.apply(sample, &mut rng);
            let images = images_tensor(sample.image, size, &device);
            let features = Arc::new(criterion.features(model, images)?);
            let copy = AugmentedCopy {
                features,
                labels: sample.labels,
                id: sample.id,
            };
            Ok(Encoded { copy, skipped })
        };
        let own: Vec<usize> = (ranks.rank()..copies * image_count)
            .step_by(ranks.size())
            .collect();
        let encoded = ordered_parallel(
            own.len(),
            threads,
            |place| encode(own.get(place).copied().unwrap_or(0)),
            |encoded| progress(&encoded.skipped),
        );
        let is_stopped = matches!(encoded, Err(TrainError::Interrupted));
        let encoded = match encoded {
            Err(error) if !is_stopped => return Err(error),
            encoded => encoded.unwrap_or_default(),
        };
        // A rank that was stopped tells the others, which may not have been.
        if ranks.any("the end of the encoding", is_stopped)? {
            return Err(TrainError::Interrupted);
        }
        let encoded = encoded.into_iter().map(|encoded| encoded.copy);
        let copies = in_turns(ranks, encoded.collect())?;
        Ok(Self::new(copies, image_count, size, seed))
    }

    /// Sends the copies of the first rank, which has read them from a file, to all ranks.
    ///
    /// - `own`: the copies, on the first rank
    /// - `images`, `size`, `seed`: as for the copies
    ///
    /// # Errors
    /// Returns an error if another rank has failed or does not answer.
    pub fn of_first(
        ranks: &Ranks,
        own: Option<Self>,
        images: usize,
        size: usize,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let copies = own.map(|cache| cache.copies).unwrap_or_default();
        if ranks.is_single() {
            return Ok(Self::new(copies, images, size, seed));
        }
        let all = gather_copies(ranks, &copies)?.into_iter();
        Ok(Self::new(all.flatten().collect(), images, size, seed))
    }

    fn new(copies: Vec<AugmentedCopy>, image_count: usize, size: usize, seed: u64) -> Self {
        Self {
            copies,
            image_count,
            size,
            seed,
            sampler: Sampler::new(image_count, seed),
        }
    }

    /// Returns the id of an image with an encoded copy that holds a value that is not finite, as in a damaged file.
    pub fn not_finite(&self) -> Option<&str> {
        let mut copies = self.copies.iter();
        let found = copies.find(|copy| {
            let Features {
                patches, global, ..
            } = copy.features.as_ref();
            patches.iter().chain(global).any(|value| !value.is_finite())
        });
        found.map(|copy| copy.id.as_str())
    }

    /// Returns the samples of step `step`; every epoch uses one copy of every image, and the next epoch the next copy.
    pub fn batch(&mut self, step: u64, count: usize) -> Samples {
        self.part_of_batch(step, count, 0..count)
    }

    /// Returns a part of the samples of step `step`, for one of several processes that share them.
    ///
    /// - `positions`: positions of the samples in the batch, each below `count`
    pub fn part_of_batch(
        &mut self,
        step: u64,
        count: usize,
        positions: impl IntoIterator<Item = usize>,
    ) -> Samples {
        let first = step * count as u64;
        let draws = positions
            .into_iter()
            .map(|position| first + position as u64);
        let copies = self.copies.len() / self.image_count.max(1);
        let mut samples = Samples {
            inputs: Inputs::Images(vec![]),
            labels: Vec::new(),
            size: self.size,
            ids: Vec::new(),
        };
        let mut features = Vec::with_capacity(count);
        for draw in draws {
            let epoch = (draw / self.image_count as u64) as usize;
            let index = self.sampler.index(draw);
            // Within an epoch, the copy number depends on the image, so that a batch mixes different copies.
            let copy = &self.copies[(epoch + index) % copies * self.image_count + index];
            features.push(Arc::clone(&copy.features));
            samples.labels.extend_from_slice(&copy.labels);
            samples.ids.push(copy.id.clone());
        }
        samples.inputs = Inputs::Features(features);
        samples
    }
}

/// Returns the copies of all ranks, which have taken turns.
fn in_turns(ranks: &Ranks, own: Vec<AugmentedCopy>) -> Result<Vec<AugmentedCopy>, TrainError> {
    if ranks.is_single() {
        return Ok(own);
    }
    let mut lists: Vec<_> = gather_copies(ranks, &own)?
        .into_iter()
        .map(Vec::into_iter)
        .collect();
    let mut all = Vec::new();
    let mut turns = (0..lists.len()).cycle();
    while let Some(copy) = turns.next().and_then(|rank| lists.get_mut(rank)?.next()) {
        all.push(copy);
    }
    Ok(all)
}

/// Calls `work` for `0..count` on several threads and returns the results in order.
///
/// `done` is called with each result on the calling thread, in any order; the first error ends the work.
fn ordered_parallel<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> Result<T, TrainError> + Sync,
    mut done: impl FnMut(&T) -> Result<(), TrainError>,
) -> Result<Vec<T>, TrainError> {
    let next = AtomicUsize::new(0);
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(threads);
        for _ in 0..threads.clamp(1, count.max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    // Sending fails if the receiver was dropped after an error.
                    if number >= count || sender.send((number, work(number))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (number, result) in receiver {
            let result = result?;
            done(&result)?;
            results[number] = Some(result);
        }
        Ok(())
    })
    .map(|()| results.into_iter().flatten().collect())
}
