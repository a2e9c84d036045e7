//! Caches the features of a frozen encoder, computed once before the first step.
//!
//! A frozen encoder without prompts gives the same tokens for the same image in every step. Encoding a few augmented
//! copies of every image before the first step shortens a run on a CPU from hours to minutes. The head then trains on
//! tokens in main memory (`f16`: patches × dim × 2 bytes per copy).

mod file;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc::sync_channel,
};

use zeg_data::{
    OnBadSample, Pipeline, SampleSource,
    chance::{Purpose, stream},
    loader::load,
    sampler::Sampler,
};
use zeg_model::method::Model;

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
    /// - `model`: the model, on a device without autodiff
    /// - `criterion`: the loss of the model's method, which defines the features it is trained on
    /// - `progress`: is called after every copy with the id and error of every bad image that was skipped for it; an
    ///   error from it ends the work
    ///
    /// # Errors
    /// Returns an error if an image cannot be loaded or `progress` fails.
    pub fn build(
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
        let encoded = ordered_parallel(copies * image_count, threads, encode, |encoded| {
            progress(&encoded.skipped)
        })?;
        Ok(Self {
            copies: encoded.into_iter().map(|encoded| encoded.copy).collect(),
            image_count,
            size,
            seed,
            sampler: Sampler::new(image_count, seed),
        })
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
        let draws = step * count as u64..(step + 1) * count as u64;
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
