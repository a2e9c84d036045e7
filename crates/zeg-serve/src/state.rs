//! What all requests share: settings, models, queue, encoded images, numbers.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use zeg_base::memory::amount;

use crate::{
    config::ServeConfig,
    encodings::Encodings,
    metrics::Metrics,
    models::Models,
    problem::{Code, Problem},
    queue::{Full, Lost, Running, WorkQueue},
    work::{self, ImageSource, SegmentJob, Segmented, Upload},
};

/// Bytes of a permit of [`AppState::uploads`].
pub(crate) const UPLOAD_UNIT: usize = 1024;
/// Most permits of a semaphore of which any number may be taken at once.
const MOST_UNITS: usize = if Semaphore::MAX_PERMITS < u32::MAX as usize {
    Semaphore::MAX_PERMITS
} else {
    u32::MAX as usize
};

/// What all requests share; clones share it, too.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ServeConfig,
    models: OnceLock<Models>,
    queue: WorkQueue,
    encodings: Arc<Encodings>,
    metrics: Metrics,
    /// Memory for requests that are received or wait, in [`UPLOAD_UNIT`]s.
    uploads: Arc<Semaphore>,
    /// Memory for the copies that parsing a body makes, in [`UPLOAD_UNIT`]s.
    parsing: Arc<Semaphore>,
    /// Memory for answers that are being sent, in [`UPLOAD_UNIT`]s.
    answers: Arc<Semaphore>,
    is_stopping: AtomicBool,
}

impl AppState {
    /// Starts the queue; the models come later.
    ///
    /// # Errors
    /// Returns the system's error if a thread cannot be started.
    pub(crate) fn new(config: ServeConfig) -> std::io::Result<Self> {
        let units = config
            .upload_memory
            .max(config.max_body)
            .div_ceil(UPLOAD_UNIT);
        let units = units.clamp(1, MOST_UNITS);
        let answer_units = config.answer_memory.div_ceil(UPLOAD_UNIT);
        Ok(Self(Arc::new(Inner {
            queue: WorkQueue::start(config.queue, config.workers)?,
            encodings: Arc::new(Encodings::new(config.cache_memory, config.encoding_time)),
            metrics: Metrics::new(),
            models: OnceLock::new(),
            uploads: Arc::new(Semaphore::new(units)),
            parsing: Arc::new(Semaphore::new(parsing_units(config.max_body) as usize)),
            answers: Arc::new(Semaphore::new(answer_units.clamp(1, MOST_UNITS))),
            is_stopping: AtomicBool::new(false),
            config,
        })))
    }

    /// Sets the models; the server is ready then.
    pub(crate) fn set_models(&self, models: Models) {
        // They are loaded once.
        let _ = self.0.models.set(models);
    }

    /// Notes that the server stops.
    pub(crate) fn begin_stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the server stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.is_stopping.load(Ordering::Relaxed)
    }

    /// Returns the settings.
    pub fn config(&self) -> &ServeConfig {
        &self.0.config
    }

    pub(crate) fn queue(&self) -> &WorkQueue {
        &self.0.queue
    }

    pub(crate) fn encodings(&self) -> &Arc<Encodings> {
        &self.0.encodings
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn uploads(&self) -> &Arc<Semaphore> {
        &self.0.uploads
    }

    /// Returns the bytes of the requests that are received or wait.
    pub(crate) fn upload_bytes(&self) -> usize {
        let all = self.0.config.upload_memory.max(self.0.config.max_body);
        let free = self.0.uploads.available_permits() * UPLOAD_UNIT;
        all.saturating_sub(free)
    }

    /// Whether there is memory for one more request.
    pub(crate) fn has_upload_room(&self) -> bool {
        self.0.uploads.available_permits() > 0
    }

    /// Takes memory for an answer, which is given back when it is sent; an answer longer than all of it takes all.
    ///
    /// # Errors
    /// Returns a problem if too many answers are being sent.
    pub(crate) fn answer_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let all = self.0.config.answer_memory.div_ceil(UPLOAD_UNIT);
        let units = bytes.div_ceil(UPLOAD_UNIT).min(all.clamp(1, MOST_UNITS));
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.0.answers).try_acquire_many_owned(units);
        taken.map_err(|_| {
            Problem::new(
                Code::QueueFull,
                format!(
                    "other answers are still being received; there is no memory for one of {}",
                    amount(bytes as u64)
                ),
            )
            .with_hint("send the request again after the time in Retry-After")
            .with_retry_after(Duration::from_secs(1))
        })
    }

    /// Whether there is memory for one more long answer.
    pub(crate) fn has_answer_room(&self) -> bool {
        self.0.answers.available_permits() > 0
    }

    /// Waits until there is memory for parsing a body: twice its length, since base64 with escaped characters is copied
    /// before it is decoded, and a form is copied as a whole and then its image.
    ///
    /// What is returned gives the memory back when it is dropped. Nobody waits for anything else meanwhile, so the wait
    /// ends.
    pub(crate) async fn parsing_room(&self, length: usize) -> Option<OwnedSemaphorePermit> {
        let units = parsing_units(length).min(parsing_units(self.0.config.max_body));
        // The semaphore is never closed.
        let room = Arc::clone(&self.0.parsing).acquire_many_owned(units).await;
        room.ok()
    }

    /// Returns the models.
    ///
    /// # Errors
    /// Returns a problem while they are being loaded.
    pub fn models(&self) -> Result<&Models, Problem> {
        self.0.models.get().ok_or_else(|| {
            Problem::new(Code::NotReady, "the models are being loaded")
                .with_hint("ask again in a few seconds; GET /readyz says when they are")
                .with_retry_after(Duration::from_secs(2))
        })
    }

    /// Does work on a thread of the queue and waits for its result.
    ///
    /// A caller that stops waiting gives its place in the queue back.
    ///
    /// # Errors
    /// Returns a problem if the queue is full, the work takes too long, or it panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Running) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let ticket = self.0.queue.submit(work).map_err(of_full)?;
        let longest = self.0.config.request_time;
        match timeout(longest, ticket.result()).await {
            Ok(Ok(result)) => result,
            Ok(Err(Lost::Panicked(message))) => Err(Problem::internal(message)),
            Ok(Err(Lost::Ended)) => Err(Problem::new(Code::Stopping, "the server is stopping")),
            Err(_) => Err(Problem::new(
                Code::Timeout,
                format!("there was no result within {} s", longest.as_secs()),
            )
            .with_hint("send a smaller image or fewer classes, or ask when fewer requests wait")),
        }
    }

    /// Segments an image through the queue.
    ///
    /// # Errors
    /// Returns a problem if the models are not loaded, the queue is full, the image cannot be read, or the classes
    /// cannot be encoded.
    pub async fn segment(&self, job: SegmentJob) -> Result<Segmented, Problem> {
        let model = Arc::clone(self.models()?.get(job.model.as_deref())?);
        let upload = Upload {
            bytes: job.image,
            name: crate::fields::safe_name(&job.image_name),
            max_pixels: self.config().max_pixels,
        };
        let (classes, options) = (job.classes, job.options);
        let segmented = self
            .run(move |running| {
                let source = ImageSource::Upload(upload);
                work::segment(&model, &source, &classes, &options, running)
            })
            .await?;
        self.metrics().observe(&segmented.times);
        Ok(segmented)
    }
}

/// Returns the memory that parsing a body of some bytes takes, in [`UPLOAD_UNIT`]s.
fn parsing_units(length: usize) -> u32 {
    let units = length.saturating_mul(2).div_ceil(UPLOAD_UNIT).max(1);
    // Semaphore::MAX_PERMITS is larger than this on every machine with 64-bit addresses.
    u32::try_from(units.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

fn of_full(full: Full) -> Problem {
    Problem::new(
        Code::QueueFull,
        format!("{} requests are waiting, as many as may", full.waiting),
    )
    .with_hint("send the request again after the time in Retry-After")
    .with_retry_after(full.wait)
}
