//! The queue of model work: a bounded number of requests wait, a few threads work on one each.
//!
//! The bound is exact, because places are counted under one lock. A request that nobody waits for any more gives its
//! place back at once: its [`Ticket`] takes it out of the queue when it is dropped. Work that has begun runs to its end,
//! unless it looks at [`Running::flag`]. Threads whose work nobody waits for are counted, so that a server of which no
//! thread is left says that it is not ready.

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

/// Share of the newest duration in the mean of the durations.
const NEWEST: f64 = 0.1;

type Work = Box<dyn FnOnce() + Send>;

/// Work that waits for a thread.
struct Waiting {
    number: u64,
    cancelled: Arc<AtomicBool>,
    work: Work,
}

/// The queue and its threads.
#[derive(Debug)]
pub(crate) struct WorkQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    workers: usize,
    state: Mutex<State>,
    /// Is notified when work arrives or the queue ends.
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Flags of the work that runs, by its number: whether nobody waits for it any more.
    running: Vec<(u64, Arc<AtomicBool>)>,
    next: u64,
    /// Mean duration of the work, in seconds.
    mean: f64,
    is_closed: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} waiting, {} running",
            self.waiting.len(),
            self.running.len()
        )
    }
}

/// What the queue holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Depth {
    pub(crate) waiting: usize,
    pub(crate) running: usize,
    /// Number of the running ones that nobody waits for any more.
    pub(crate) abandoned: usize,
    pub(crate) limit: usize,
    pub(crate) workers: usize,
}

impl Depth {
    /// Whether no more work is accepted.
    fn is_full(&self) -> bool {
        // A thread that is free takes the work at once, so it does not count as waiting.
        let idle = self.workers.saturating_sub(self.running);
        self.waiting >= self.limit + idle
    }

    /// Returns why no more work should be sent now, if so.
    pub(crate) fn refusal(&self) -> Option<String> {
        if self.is_full() {
            return Some(format!(
                "{} requests are waiting, as many as may",
                self.waiting
            ));
        }
        (self.abandoned >= self.workers).then(|| {
            format!(
                "all {} workers are busy with requests that nobody waits for any more",
                self.workers
            )
        })
    }
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Full {
    pub(crate) waiting: usize,
    /// Estimate of the time until a place is free.
    pub(crate) wait: Duration,
}

/// What work knows about itself while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// Time that it waited.
    pub(crate) queued: Duration,
    cancelled: Arc<AtomicBool>,
}

impl Running {
    /// Whether nobody waits for the result any more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Returns the flag that is set when nobody waits for the result any more.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.cancelled
    }
}

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lost {
    /// The work panicked, with this message.
    Panicked(String),
    /// The queue ended before the work began.
    Ended,
}

/// A place in the queue, and then the result.
#[derive(Debug)]
pub(crate) struct Ticket<T> {
    number: u64,
    shared: Arc<Shared>,
    cancelled: Arc<AtomicBool>,
    result: oneshot::Receiver<Result<T, String>>,
    is_answered: bool,
}

impl<T> Ticket<T> {
    /// Waits for the result.
    pub(crate) async fn result(mut self) -> Result<T, Lost> {
        let result = (&mut self.result).await;
        self.is_answered = true;
        match result {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(message)) => Err(Lost::Panicked(message)),
            Err(_) => Err(Lost::Ended),
        }
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        // A thread that has sent its result is about to be free, and not abandoned.
        if !self.is_answered {
            self.cancelled.store(true, Ordering::Relaxed);
        }
        let mut state = self.shared.state();
        let place = state
            .waiting
            .iter()
            .position(|waiting| waiting.number == self.number);
        let removed = place.and_then(|place| state.waiting.remove(place));
        // The work holds an upload, which is freed without the lock.
        drop(state);
        drop(removed);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn depth(&self, state: &State) -> Depth {
        Depth {
            waiting: state.waiting.len(),
            running: state.running.len(),
            abandoned: state
                .running
                .iter()
                .filter(|(_, cancelled)| cancelled.load(Ordering::Relaxed))
                .count(),
            limit: self.limit,
            workers: self.workers,
        }
    }

    /// Works until the queue ends.
    fn work(&self) {
        let mut state = self.state();
        loop {
            let Some(next) = state.waiting.pop_front() else {
                if state.is_closed {
                    return;
                }
                let waited = self.arrived.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.running.push((next.number, next.cancelled));
            drop(state);
            let started = Instant::now();
            (next.work)();
            let seconds = started.elapsed().as_secs_f64();
            state = self.state();
            state.running.retain(|(number, _)| *number != next.number);
            state.mean += NEWEST * (seconds - state.mean);
        }
    }
}

impl WorkQueue {
    /// Starts the threads.
    ///
    /// - `limit`: most pieces of work that wait
    ///
    /// # Errors
    /// Returns the system's error if a thread cannot be started.
    pub(crate) fn start(limit: usize, workers: usize) -> std::io::Result<Self> {
        let workers = workers.max(1);
        let shared = Arc::new(Shared {
            limit,
            workers,
            state: Mutex::default(),
            arrived: Condvar::new(),
        });
        let queue = Self { shared };
        for number in 0..workers {
            let shared = Arc::clone(&queue.shared);
            let thread = thread::Builder::new().name(format!("model {number}"));
            thread.spawn(move || shared.work())?;
        }
        Ok(queue)
    }

    /// Returns what the queue holds now.
    pub(crate) fn depth(&self) -> Depth {
        self.shared.depth(&self.shared.state())
    }

    /// Puts work at the end of the queue; a free thread begins at once.
    ///
    /// # Errors
    /// Returns an error if as many pieces of work wait as may.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Running) -> T + Send + 'static,
    ) -> Result<Ticket<T>, Full> {
        let (sender, result) = oneshot::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let submitted = Instant::now();
        let flag = Arc::clone(&cancelled);
        let work: Work = Box::new(move || {
            let running = Running {
                queued: submitted.elapsed(),
                cancelled: flag,
            };
            // The threads outlive a panic, and nothing that a panic could leave half done is shared.
            let done = catch_unwind(AssertUnwindSafe(|| work(&running)));
            // Nobody may wait for the result any more.
            let _ = sender.send(done.map_err(|panic| message(panic.as_ref())));
        });
        let mut state = self.shared.state();
        if state.is_closed || self.shared.depth(&state).is_full() {
            let rounds = (state.waiting.len() as f64 / self.shared.workers as f64).max(1.0);
            let wait = (rounds * state.mean).clamp(1.0, 60.0);
            return Err(Full {
                waiting: state.waiting.len(),
                wait: Duration::from_secs_f64(wait),
            });
        }
        let number = state.next;
        state.next += 1;
        state.waiting.push_back(Waiting {
            number,
            cancelled: Arc::clone(&cancelled),
            work,
        });
        drop(state);
        self.shared.arrived.notify_one();
        Ok(Ticket {
            number,
            shared: Arc::clone(&self.shared),
            cancelled,
            result,
            is_answered: false,
        })
    }
}

impl Drop for WorkQueue {
    /// Ends the threads after the work in progress; what waits is dropped.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.is_closed = true;
        let left = std::mem::take(&mut state.waiting);
        drop(state);
        drop(left);
        self.shared.arrived.notify_all();
    }
}

/// Returns the message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Starts a queue whose only thread waits until the returned sender is dropped.
    fn busy(limit: usize) -> (WorkQueue, mpsc::Sender<()>, Ticket<()>) {
        let queue = WorkQueue::start(limit, 1).unwrap();
        let (release, wait) = mpsc::channel::<()>();
        let ticket = queue
            .submit(move |_| {
                let _ = wait.recv();
            })
            .unwrap();
        while queue.depth().running == 0 {
            thread::yield_now();
        }
        (queue, release, ticket)
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn exactly_as_many_wait_as_may_and_a_dropped_ticket_frees_its_place() {
        let (queue, release, first) = busy(3);
        let mut waiting: Vec<_> = (0..3).map(|n| queue.submit(move |_| n).unwrap()).collect();
        let full = queue.submit(|_| 9).unwrap_err();
        assert_eq!(full.waiting, 3);
        assert!(full.wait >= Duration::from_secs(1));
        drop(waiting.remove(1));
        assert_eq!(queue.depth().waiting, 2);
        assert_eq!(queue.depth().refusal(), None);
        waiting.push(queue.submit(|_| 7).unwrap());
        assert!(queue.submit(|_| 9).is_err());
        drop(release);
        block_on(async {
            first.result().await.unwrap();
            let mut results = Vec::new();
            for ticket in waiting {
                results.push(ticket.result().await.unwrap());
            }
            assert_eq!(results, [0, 2, 7]);
        });
    }

    #[test]
    fn a_queue_of_no_places_works_while_a_thread_is_free() {
        let (queue, release, first) = busy(0);
        assert!(queue.submit(|_| ()).is_err());
        assert!(queue.depth().refusal().is_some());
        drop(release);
        block_on(first.result()).unwrap();
        while queue.depth().running > 0 {
            thread::yield_now();
        }
        assert_eq!(queue.depth().refusal(), None);
        assert!(queue.submit(|_| ()).is_ok());
    }

    #[test]
    fn a_panic_is_a_lost_result_and_the_thread_goes_on() {
        let queue = WorkQueue::start(4, 1).unwrap();
        let panicked: Ticket<()> = queue.submit(|_| panic!("seven")).unwrap();
        assert_eq!(
            block_on(panicked.result()),
            Err(Lost::Panicked("seven".into()))
        );
        let next = queue.submit(|_| 5).unwrap();
        assert_eq!(block_on(next.result()), Ok(5));
    }

    #[test]
    fn work_sees_that_nobody_waits_and_the_end_drops_what_waits() {
        let (queue, release, first) = busy(2);
        let (sender, seen) = mpsc::channel();
        let second = queue
            .submit(move |running| {
                while !running.is_cancelled() {
                    thread::yield_now();
                }
                let _ = sender.send(());
            })
            .unwrap();
        drop(release);
        while queue.depth().waiting > 0 {
            thread::yield_now();
        }
        drop(second);
        seen.recv().unwrap();
        drop(first);

        // A thread whose work nobody waits for is none that serves.
        let (queue, release, first) = busy(2);
        drop(first);
        let depth = queue.depth();
        assert_eq!((depth.running, depth.abandoned), (1, 1));
        assert!(depth.refusal().unwrap().contains("all 1 workers"));
        drop(release);
        drop(queue);

        let (queue, release, first) = busy(2);
        let waiting = queue.submit(|_| ()).unwrap();
        drop(queue);
        assert_eq!(block_on(waiting.result()), Err(Lost::Ended));
        drop(release);
        block_on(first.result()).unwrap();
    }
}
