//! Features of a frozen encoder, computed once.
//!
//! An encoder without prompts gives the same tokens for the same image at every step. Encoding a few augmented
//! copies of every image before the first step takes a run from hours to minutes on a CPU; the head then trains on
//! tokens from main memory (`f16`: patches × dim × 2 bytes a copy).

mod file;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc::sync_channel,
};

use zeg_data::{
    Pipeline, SampleSource,
    chance::{Purpose, stream},
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

/// Augmented copies of every image of a data set, encoded.
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
    /// Encodes `copies` copies of every image. A copy is a function of the seed and its number.
    ///
    /// Several threads work on an image each: much of an encoder's time on a CPU is in operations that use one core.
    ///
    /// - `model`: on a device without autodiff
    /// - `criterion`: its method's loss, which says what of an image it is trained on
    /// - `threads`: images at work at once
    /// - `progress`: told after every copy
    ///
    /// # Errors
    /// An image cannot be loaded, or `progress` stops the work.
    pub fn build(
        model: &dyn Model,
        criterion: &dyn Criterion,
        dataset: &dyn SampleSource,
        pipeline: &Pipeline,
        (copies, seed): (usize, u64),
        threads: usize,
        mut progress: impl FnMut() -> Result<(), TrainError>,
    ) -> Result<Self, TrainError> {
        let (image_count, size) = (dataset.len(), pipeline.size());
        let device = model.device();
        let encode = |number: usize| -> Result<AugmentedCopy, TrainError> {
            let mut rng = stream(seed, Purpose::Sample, number as u64);
            let sample = pipeline.apply(dataset.load(number % image_count)?, &mut rng);
            let images = images_tensor(sample.image, size, &device);
            let features = Arc::new(criterion.features(model, images)?);
            Ok(AugmentedCopy {
                features,
                labels: sample.labels,
                id: sample.id,
            })
        };
        let copies = ordered_parallel(copies * image_count, threads, encode, |_| progress())?;
        Ok(Self {
            copies,
            image_count,
            size,
            seed,
            sampler: Sampler::new(image_count, seed),
        })
    }

    /// The samples of step `step`: every epoch goes through all images, and through their copies in turn.
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
            // Neighbouring images of an epoch show different copies, so that a batch mixes them.
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
/// `done` is told of each result on the calling thread, in any order; the first error ends the work.
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
                    // The receiver is gone after an error.
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
