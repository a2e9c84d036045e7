//! The loader: threads that decode and augment samples ahead of the training loop and deliver batches in order.
//!
//! Batch `b` of a run depends only on the data set, the pipeline, the seed, the batch size and `b`. It does not depend
//! on the number of threads, and a run that is resumed at batch `b` gets the same batches as an uninterrupted one.
//!
//! Thread `t` of `n` makes the samples number `t`, `t + n`, `t + 2n`, … and queues them in a bounded channel of
//! its own; the consumer reads the channels in turn. This keeps the order without sorting, and limits the queued
//! samples to one batch in addition to the batch being assembled.

mod draws;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};

use self::draws::{Draws, check_positions};
use crate::chance::{Purpose, stream};
use crate::sampler::Sampler;
use crate::{DataError, Pipeline, Sample, SampleSource, TrainSample};

/// Number of bad samples in a row after which the whole data set is considered bad and the loader stops.
const MAX_SKIPPED_IN_A_ROW: usize = 32;

/// Largest batch size; it catches typing errors.
const MAX_BATCH: usize = 65_536;

/// Largest number of loader threads; it catches typing errors.
const MAX_WORKERS: usize = 1024;

/// What to do with a sample that cannot be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnBadSample {
    /// Return the error to the training loop.
    #[default]
    Stop,
    /// Load the next sample in the order of the data set instead, and report the bad one in [`Batch::skipped`].
    Skip,
}

/// Options of a [`Loader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Number of samples per batch, 1 to 65,536.
    pub batch_size: usize,
    /// The run's seed.
    pub seed: u64,
    /// Number of the first batch; 0 for a new run.
    pub start_batch: u64,
    /// Number of threads, 1 to 1,024; the batches do not depend on it.
    pub workers: usize,
    /// What to do with a sample that cannot be loaded.
    pub on_bad_sample: OnBadSample,
}

/// A batch of training samples of one size.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Number of the batch in the run, from 0.
    pub number: u64,
    /// The samples' [`Item::id`](crate::Item::id)s, `[batch]`.
    pub ids: Vec<String>,
    /// Normalised images, `[batch, 3, size, size]`; padding is 0.
    pub images: Vec<f32>,
    /// Class indices, [`IGNORE_LABEL`](zeg_image::IGNORE_LABEL) or [`PADDING_LABEL`](zeg_image::PADDING_LABEL),
    /// `[batch, size, size]`.
    pub labels: Vec<u16>,
    /// Width and height of every image.
    pub size: usize,
    /// Id and error of every bad sample that was replaced by another.
    pub skipped: Vec<(String, String)>,
}

/// An endless source of batches.
///
/// Dropping it stops its threads; each thread finishes at most its current sample.
pub struct Loader {
    workers: Vec<Worker>,
    /// The worker that holds the next sample.
    turn: usize,
    /// Number of samples of a batch that are loaded.
    samples: usize,
    size: usize,
    next_batch: u64,
}

/// A thread and the channel of its samples.
struct Worker {
    samples: Receiver<Made>,
    thread: JoinHandle<()>,
}

/// A sample, with the ids and errors of the bad samples it replaces.
struct Loaded {
    sample: TrainSample,
    skipped: Vec<(String, String)>,
}

type Made = Result<Loaded, DataError>;

impl Loader {
    /// Starts the threads and returns the loader.
    ///
    /// # Errors
    /// Returns an error:
    /// - [`DataError::Empty`] if the data set has no samples
    /// - [`DataError::Setting`] if the batch size, the number of threads or the first batch is out of range
    /// - [`DataError::Spawn`] if the system cannot start a thread
    pub fn new<S: SampleSource + ?Sized + 'static>(
        dataset: Arc<S>,
        pipeline: Pipeline,
        options: LoaderOptions,
    ) -> Result<Self, DataError> {
        let all = (0..options.batch_size).collect();
        Self::of_positions(dataset, pipeline, options, all)
    }

    /// Starts a loader of a part of every batch, for one of several processes that share them.
    ///
    /// A sample is the same as in the whole batch.
    ///
    /// - `positions`: positions in a batch of the samples to load, in their order; at least one, each below the batch size
    ///
    /// # Errors
    /// As for [`Loader::new`].
    pub fn of_positions<S: SampleSource + ?Sized + 'static>(
        dataset: Arc<S>,
        pipeline: Pipeline,
        options: LoaderOptions,
        positions: Vec<usize>,
    ) -> Result<Self, DataError> {
        if dataset.is_empty() {
            return Err(DataError::Empty {
                path: dataset.name().into(),
            });
        }
        let (size, policy) = (pipeline.size(), options.on_bad_sample);
        let pipeline = Arc::new(pipeline);
        Self::start(options, size, positions, || {
            let (dataset, pipeline) = (Arc::clone(&dataset), Arc::clone(&pipeline));
            let mut sampler = Sampler::new(dataset.len(), options.seed);
            move |draw| {
                let mut rng = stream(options.seed, Purpose::Sample, draw);
                let (sample, skipped) = load(&*dataset, sampler.index(draw), policy)?;
                Ok(Loaded {
                    sample: pipeline.apply(sample, &mut rng),
                    skipped,
                })
            }
        })
    }

    /// Starts threads that each call their own function from `maker`, which maps a draw to a sample.
    fn start<F>(
        options: LoaderOptions,
        size: usize,
        positions: Vec<usize>,
        mut maker: impl FnMut() -> F,
    ) -> Result<Self, DataError>
    where
        F: FnMut(u64) -> Made + Send + 'static,
    {
        let first_draw = check(&options)?;
        check_positions(&positions, options.batch_size)?;
        let stride = options.workers as u64;
        let ahead = positions.len().div_ceil(options.workers);
        let draws = Arc::new(Draws {
            first: first_draw,
            batch_size: options.batch_size as u64,
            positions,
        });
        let mut workers = Vec::with_capacity(options.workers);
        for offset in 0..stride {
            let (sender, samples) = bounded(ahead);
            let (make, draws) = (maker(), Arc::clone(&draws));
            let thread = std::thread::Builder::new()
                .name(format!("loader-{offset}"))
                .spawn(move || work(make, &draws, offset, stride, &sender))
                .map_err(DataError::Spawn)?;
            workers.push(Worker { samples, thread });
        }
        Ok(Self {
            workers,
            turn: 0,
            samples: draws.positions.len(),
            size,
            next_batch: options.start_batch,
        })
    }

    /// Waits for the next batch and returns it.
    ///
    /// # Errors
    /// Returns the error of [`SampleSource::load`] for a bad sample, or [`DataError::TooManyBadSamples`] if bad samples
    /// are skipped; [`DataError::WorkerPanicked`] if a thread panicked. After an error the loader has stopped, and
    /// every further call returns [`DataError::LoaderStopped`].
    pub fn next_batch(&mut self) -> Result<Batch, DataError> {
        let mut batch = Batch::default();
        self.next_into(&mut batch)?;
        Ok(batch)
    }

    /// Waits for the next batch and writes it into `batch`, whose memory is reused.
    fn next_into(&mut self, batch: &mut Batch) -> Result<(), DataError> {
        let result = self.assemble(batch);
        match result {
            Ok(()) => self.next_batch += 1,
            Err(_) => self.stop(),
        }
        result
    }

    fn assemble(&mut self, batch: &mut Batch) -> Result<(), DataError> {
        let pixels = self.samples * self.size * self.size;
        batch.number = self.next_batch;
        batch.size = self.size;
        batch.ids.clear();
        batch.images.clear();
        batch.labels.clear();
        batch.skipped.clear();
        batch.images.reserve_exact(3 * pixels);
        batch.labels.reserve_exact(pixels);
        for _ in 0..self.samples {
            let Loaded { sample, skipped } = self.receive()?;
            batch.ids.push(sample.id);
            batch.images.extend_from_slice(&sample.image); // [3, size, size]
            batch.labels.extend_from_slice(&sample.labels); // [size, size]
            batch.skipped.extend(skipped);
        }
        Ok(())
    }

    /// Waits for the next sample of the run and returns it.
    fn receive(&mut self) -> Made {
        let worker = self
            .workers
            .get(self.turn)
            .ok_or(DataError::LoaderStopped)?;
        self.turn = (self.turn + 1) % self.workers.len();
        let sample = worker.samples.recv();
        sample.unwrap_or(Err(DataError::LoaderStopped))
    }

    /// Ends the threads and waits for them.
    fn stop(&mut self) {
        // All channels are closed before the first thread is joined, so that all threads end at the same time.
        let threads: Vec<JoinHandle<()>> = std::mem::take(&mut self.workers)
            .into_iter()
            .map(|worker| worker.thread)
            .collect();
        for thread in threads {
            // A panic was already caught in the thread and sent as an error, so the result can be ignored.
            let _ = thread.join();
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Checks the ranges of the options and returns the number of the first draw.
fn check(options: &LoaderOptions) -> Result<u64, DataError> {
    let refuse = |setting, value: String, legal| {
        Err(DataError::Setting {
            setting,
            value,
            legal,
        })
    };
    if options.batch_size == 0 || options.batch_size > MAX_BATCH {
        let value = options.batch_size.to_string();
        return refuse("batch-size", value, "within 1..=65536");
    }
    if options.workers == 0 || options.workers > MAX_WORKERS {
        let value = options.workers.to_string();
        return refuse("workers", value, "within 1..=1024");
    }
    match options.start_batch.checked_mul(options.batch_size as u64) {
        // The limit of 2⁶² draws leaves room to add further draws without overflow; no run draws so many samples.
        Some(draw) if draw < 1 << 62 => Ok(draw),
        _ => refuse(
            "start-batch",
            options.start_batch.to_string(),
            "so small that start-batch × batch-size is below 2^62",
        ),
    }
}

/// Makes every `stride`-th sample until the receiver is gone or a sample cannot be made; the main function of a thread.
fn work(
    mut make: impl FnMut(u64) -> Made,
    draws: &Draws,
    offset: u64,
    stride: u64,
    sender: &Sender<Made>,
) {
    let mut number = offset;
    loop {
        let draw = draws.draw(number);
        // A panic is caught and sent as an error, because it would otherwise end the thread silently. The state after
        // a panic is not used again.
        let made = catch_unwind(AssertUnwindSafe(|| make(draw))).unwrap_or_else(|panic| {
            Err(DataError::WorkerPanicked {
                draw,
                message: panic_message(panic.as_ref()),
            })
        });
        let failed = made.is_err();
        if sender.send(made).is_err() || failed {
            return;
        }
        number += stride;
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message")
        .to_owned()
}

/// Loads sample `index` or, if bad samples are skipped, the first good sample from there on.
///
/// Returns the sample, and the id and error of every bad sample that it replaces.
///
/// # Errors
/// Returns the error of [`SampleSource::load`] for a bad sample, or [`DataError::TooManyBadSamples`] if bad samples are
/// skipped and there are too many in a row.
pub fn load<S: SampleSource + ?Sized>(
    dataset: &S,
    index: usize,
    policy: OnBadSample,
) -> Result<(Sample, Vec<(String, String)>), DataError> {
    let mut skipped: Vec<(String, String)> = Vec::new();
    for step in 0..dataset.len().min(MAX_SKIPPED_IN_A_ROW) {
        let index = (index + step) % dataset.len();
        match (dataset.load(index), policy) {
            (Ok(sample), _) => return Ok((sample, skipped)),
            (Err(error), OnBadSample::Stop) => return Err(error),
            (Err(error), OnBadSample::Skip) => {
                skipped.push((dataset.id(index), error.to_string()));
            }
        }
    }
    Err(DataError::TooManyBadSamples {
        tried: skipped.len(),
        first: skipped
            .into_iter()
            .next()
            .map_or_else(String::new, |(_, message)| message),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const OPTIONS: LoaderOptions = LoaderOptions {
        batch_size: 4,
        seed: 0,
        start_batch: 0,
        workers: 3,
        on_bad_sample: OnBadSample::Stop,
    };

    fn numbered(draw: u64) -> Loaded {
        Loaded {
            sample: TrainSample {
                id: draw.to_string(),
                image: vec![draw as f32; 3],
                labels: vec![draw as u16],
            },
            skipped: Vec::new(),
        }
    }

    #[test]
    fn samples_arrive_in_order_from_slow_and_fast_threads() {
        let mut loader = Loader::start(OPTIONS, 1, (0..4).collect(), || {
            |draw| {
                std::thread::sleep(Duration::from_millis(draw * 7 % 5));
                Ok(numbered(draw))
            }
        })
        .unwrap();
        let mut batch = Batch::default();
        for number in 0..6 {
            loader.next_into(&mut batch).unwrap();
            let draws: Vec<u16> = (4 * number..4 * number + 4).collect();
            assert_eq!(batch.number, u64::from(number));
            assert_eq!(batch.labels, draws);
            assert_eq!(batch.images.len(), 12);
        }
    }

    /// Three processes share batches of four samples.
    #[test]
    fn a_part_of_every_batch_has_the_samples_of_the_whole() {
        for positions in [vec![0, 3], vec![1], vec![2]] {
            let options = LoaderOptions {
                start_batch: 2,
                ..OPTIONS
            };
            let made = || |draw| Ok(numbered(draw));
            let mut loader = Loader::start(options, 1, positions.clone(), made).unwrap();
            for batch in 2..5 {
                let draws = positions
                    .iter()
                    .map(|position| 4 * batch + *position as u16);
                let found = loader.next_batch().unwrap();
                assert_eq!(found.labels, draws.collect::<Vec<u16>>());
                assert_eq!(found.number, u64::from(batch));
            }
        }
        for positions in [vec![], vec![4]] {
            let options = OPTIONS;
            let made = || |draw| Ok(numbered(draw));
            assert!(Loader::start(options, 1, positions, made).is_err());
        }
    }

    #[test]
    fn a_panic_in_a_thread_is_an_error_and_not_a_hang() {
        let mut loader = Loader::start(OPTIONS, 1, (0..4).collect(), || {
            |draw| {
                assert!(draw != 6, "a defect");
                Ok(numbered(draw))
            }
        })
        .unwrap();
        loader.next_batch().unwrap();
        let error = loader.next_batch().unwrap_err();
        assert!(
            matches!(&error, DataError::WorkerPanicked { draw: 6, message } if message == "a defect"),
            "{error}"
        );
        assert!(matches!(loader.next_batch(), Err(DataError::LoaderStopped)));
    }

    #[test]
    fn dropping_the_loader_stops_threads_whose_queue_is_full() {
        let (alive, ended) = bounded::<()>(0);
        let loader = Loader::start(OPTIONS, 1, (0..4).collect(), || {
            let alive = alive.clone();
            move |draw| {
                let _held = &alive;
                Ok(numbered(draw))
            }
        })
        .unwrap();
        drop(alive);
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        drop(loader);
        assert!(start.elapsed() < Duration::from_secs(1));
        // Every thread has dropped its sender.
        assert!(ended.try_recv().is_err_and(|error| error.is_disconnected()));
    }

    #[test]
    fn options_out_of_range_are_named() {
        let refused = |options| match check(&options) {
            Err(DataError::Setting { setting, .. }) => setting,
            _ => "accepted",
        };
        let batch_size = 0;
        assert_eq!(
            refused(LoaderOptions {
                batch_size,
                ..OPTIONS
            }),
            "batch-size"
        );
        let workers = 0;
        assert_eq!(refused(LoaderOptions { workers, ..OPTIONS }), "workers");
        let start_batch = u64::MAX / 2;
        assert_eq!(
            refused(LoaderOptions {
                start_batch,
                ..OPTIONS
            }),
            "start-batch"
        );
        assert_eq!(refused(OPTIONS), "accepted");
    }
}
