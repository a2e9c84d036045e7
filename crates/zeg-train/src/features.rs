//! Features of a frozen encoder, computed once.
//!
//! An encoder without prompts gives the same tokens for the same picture at every step. Encoding a few augmented
//! views of every picture before the first step takes a run from hours to minutes on a CPU; the head then trains on
//! tokens from main memory (`f16`: patches × dim × 2 bytes a view).

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
    batch::{Features, Inputs, Samples, pictures_tensor},
    recipe::Criterion,
};

/// One encoded view with its labels.
#[derive(Debug, Clone)]
struct View {
    features: Arc<Features>,
    labels: Vec<u16>,
    id: String,
}

/// Views of every picture of a data set, encoded.
#[derive(Debug)]
pub struct FeatureCache {
    /// View `v` of picture `i` is at `v · pictures + i`.
    views: Vec<View>,
    pictures: usize,
    size: usize,
    seed: u64,
    sampler: Sampler,
}

impl FeatureCache {
    /// Encodes `views` views of every picture. A view is a function of the seed and its number.
    ///
    /// Several threads work on a picture each: much of an encoder's time on a CPU is in operations that use one core.
    ///
    /// - `model`: on a device without autodiff
    /// - `criterion`: its method's loss, which says what of an image it is trained on
    /// - `threads`: pictures at work at once
    /// - `progress`: told after every view
    ///
    /// # Errors
    /// A picture cannot be loaded, or `progress` stops the work.
    pub fn build(
        model: &dyn Model,
        criterion: &dyn Criterion,
        dataset: &dyn SampleSource,
        pipeline: &Pipeline,
        (views, seed): (usize, u64),
        threads: usize,
        mut progress: impl FnMut() -> Result<(), TrainError>,
    ) -> Result<Self, TrainError> {
        let (pictures, size) = (dataset.len(), pipeline.size());
        let device = model.device();
        let encode = |number: usize| -> Result<View, TrainError> {
            let mut rng = stream(seed, Purpose::Sample, number as u64);
            let sample = pipeline.apply(dataset.load(number % pictures)?, &mut rng);
            let images = pictures_tensor(sample.image, size, &device);
            let features = Arc::new(criterion.features(model, images)?);
            Ok(View {
                features,
                labels: sample.labels,
                id: sample.id,
            })
        };
        let views = ordered_parallel(views * pictures, threads, encode, |_| progress())?;
        Ok(Self {
            views,
            pictures,
            size,
            seed,
            sampler: Sampler::new(pictures, seed),
        })
    }

    /// The samples of step `step`: every epoch goes through all pictures, and through their views in turn.
    pub fn batch(&mut self, step: u64, count: usize) -> Samples {
        let draws = step * count as u64..(step + 1) * count as u64;
        let views = self.views.len() / self.pictures.max(1);
        let mut samples = Samples {
            inputs: Inputs::Pictures(vec![]),
            labels: Vec::new(),
            size: self.size,
            ids: Vec::new(),
        };
        let mut features = Vec::with_capacity(count);
        for draw in draws {
            let epoch = (draw / self.pictures as u64) as usize;
            let picture = self.sampler.index(draw);
            // Neighbouring pictures of an epoch show different views, so that a batch mixes them.
            let view = &self.views[(epoch + picture) % views * self.pictures + picture];
            features.push(Arc::clone(&view.features));
            samples.labels.extend_from_slice(&view.labels);
            samples.ids.push(view.id.clone());
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
