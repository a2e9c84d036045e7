//! Schedules all work on many images: several workers in parallel, results in order, bounded memory.
//!
//! A worker takes the next item as soon as it is free; there are no batches to wait for. Results that are ready early
//! wait for those before them, and the number of items in progress is limited. Only one large item is in progress at a
//! time, from its start until its result has been delivered.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
};

/// Settings of a work queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueOptions<'a> {
    /// Number of items that are processed at once.
    pub workers: usize,
    /// Flag after which no further item is begun; those in progress are finished and delivered.
    pub stop: Option<&'a AtomicBool>,
}

/// The error that a worker panicked on an item; holds the panic message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a worker thread ended unexpectedly: {0}")]
pub struct WorkerPanicked(String);

/// State that the workers share.
struct State<I: Iterator> {
    items: I,
    /// The next item, which must still wait, and whether it is large.
    pending: Option<(I::Item, bool)>,
    begun: usize,
    delivered: usize,
    /// Number of the large item that is in progress.
    large: Option<usize>,
    ended: bool,
}

struct Queue<'a, I: Iterator> {
    state: Mutex<State<I>>,
    changed: Condvar,
    options: QueueOptions<'a>,
}

/// Processes every item of a stream in parallel and delivers the results in the items' order.
///
/// At most twice as many items as workers are in progress, counted from the start of an item until `deliver` has
/// returned. `deliver` runs on the caller's thread, in parallel with the workers.
///
/// - `is_large`: returns whether an item needs so much memory that only one such item may be in progress
/// - `work`: processes an item on a worker's thread
/// - `deliver`: receives a result, or the panic of its worker; an error from it ends the work
///
/// # Errors
/// Returns the first error of `deliver`.
pub fn work_in_order<T, R, E>(
    items: impl Iterator<Item = T> + Send,
    options: QueueOptions,
    is_large: impl Fn(&T) -> bool + Sync,
    work: impl Fn(T) -> R + Sync,
    mut deliver: impl FnMut(Result<R, WorkerPanicked>) -> Result<(), E>,
) -> Result<(), E>
where
    T: Send,
    R: Send,
{
    let queue = Queue {
        state: Mutex::new(State {
            items,
            pending: None,
            begun: 0,
            delivered: 0,
            large: None,
            ended: false,
        }),
        changed: Condvar::new(),
        options,
    };
    std::thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..options.workers.max(1) {
            let (sender, queue, is_large, work) = (sender.clone(), &queue, &is_large, &work);
            scope.spawn(move || {
                while let Some((number, item)) = queue.begin(is_large) {
                    let result = catch_unwind(AssertUnwindSafe(|| work(item)));
                    let result = result.map_err(|panic| WorkerPanicked(message(panic.as_ref())));
                    if sender.send((number, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        // Wakes the waiting workers however this function ends, even by a panic of `deliver`; they would wait for ever.
        let _end = EndOnDrop(&queue);
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (number, result) in results {
            early.insert(number, result);
            while let Some(result) = early.remove(&next) {
                deliver(result)?;
                queue.delivered(next);
                next += 1;
            }
        }
        Ok(())
    })
}

impl<I: Iterator> Queue<'_, I> {
    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        let stop = self.options.stop;
        stop.is_some_and(|stop| stop.load(Ordering::SeqCst))
    }

    /// Takes the next item as soon as there is room for it; returns `None` if there is none left.
    fn begin(&self, is_large: &impl Fn(&I::Item) -> bool) -> Option<(usize, I::Item)> {
        let most = 2 * self.options.workers.max(1);
        let mut state = self.lock();
        loop {
            if state.ended || self.is_stopped() {
                return None;
            }
            // Sizes are determined in the items' order, so that one large item cannot overtake another.
            let Some((item, large)) = state.pending.take().or_else(|| {
                let item = state.items.next()?;
                let large = is_large(&item);
                Some((item, large))
            }) else {
                state.ended = true;
                self.changed.notify_all();
                return None;
            };
            let fits = state.begun - state.delivered < most && !(large && state.large.is_some());
            if fits {
                let number = state.begun;
                state.begun += 1;
                if large {
                    state.large = Some(number);
                }
                return Some((number, item));
            }
            state.pending = Some((item, large));
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn delivered(&self, number: usize) {
        let mut state = self.lock();
        state.delivered = number + 1;
        if state.large == Some(number) {
            state.large = None;
        }
        self.changed.notify_all();
    }
}

struct EndOnDrop<'a, 'b, I: Iterator>(&'a Queue<'b, I>);

impl<I: Iterator> Drop for EndOnDrop<'_, '_, I> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// Returns the message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::atomic::AtomicUsize, thread::sleep, time::Duration};

    use super::*;

    fn options(workers: usize) -> QueueOptions<'static> {
        QueueOptions {
            workers,
            stop: None,
        }
    }

    #[test]
    fn results_come_in_order_whichever_item_takes_longest() {
        for workers in [1, 3, 8] {
            let mut found = Vec::new();
            let work = |item: u64| {
                sleep(Duration::from_millis(item * 7 % 5));
                item
            };
            let deliver = |result: Result<u64, WorkerPanicked>| {
                found.push(result.unwrap());
                Ok::<(), Infallible>(())
            };
            work_in_order(0..40, options(workers), |_| false, work, deliver).unwrap();
            assert_eq!(found, (0..40).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_slow_item_delays_no_worker_but_the_items_in_progress_are_bounded() {
        let (begun, delivered, most) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let done_during_first = AtomicUsize::new(0);
        let work = |item: usize| {
            let now = begun.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(now - delivered.load(Ordering::SeqCst), Ordering::SeqCst);
            if item == 0 {
                sleep(Duration::from_millis(100));
                done_during_first.store(begun.load(Ordering::SeqCst) - 1, Ordering::SeqCst);
            }
        };
        let deliver = |_| {
            delivered.fetch_add(1, Ordering::SeqCst);
            Ok::<(), Infallible>(())
        };
        work_in_order(0..30, options(2), |_| false, work, deliver).unwrap();
        // At most four items are in progress: during the slow one, the other worker did three.
        assert_eq!(done_during_first.load(Ordering::SeqCst), 3);
        assert!(most.load(Ordering::SeqCst) <= 5); // one more between `deliver` and its count
    }

    #[test]
    fn only_one_large_item_is_in_progress() {
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let is_large = |item: &usize| item.is_multiple_of(3);
        let work = |item: usize| {
            if is_large(&item) {
                most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                sleep(Duration::from_millis(2));
            }
            item
        };
        let deliver = |result: Result<usize, WorkerPanicked>| {
            if is_large(&result.unwrap()) {
                inside.fetch_sub(1, Ordering::SeqCst);
            }
            Ok::<(), Infallible>(())
        };
        work_in_order(0..30, options(4), is_large, work, deliver).unwrap();
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_error_ends_the_work_and_a_panic_only_its_item() {
        let mut found = Vec::new();
        let work = |item: usize| {
            assert!(item != 2, "item {item} is bad");
            item
        };
        let deliver = |result: Result<usize, WorkerPanicked>| {
            found.push(result.clone().map_err(|error| error.to_string()));
            if result == Ok(5) {
                Err("enough")
            } else {
                Ok(())
            }
        };
        let result = work_in_order(0..1000, options(2), |_| false, work, deliver);
        assert_eq!(result, Err("enough"));
        assert_eq!(found.len(), 6);
        assert!(found[2].as_ref().unwrap_err().contains("item 2 is bad"));
    }

    #[test]
    fn after_a_stop_no_item_is_begun_and_those_in_progress_are_delivered() {
        let (stop, begun) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut delivered = 0;
        let options = QueueOptions {
            workers: 2,
            stop: Some(&stop),
        };
        let work = |_| begun.fetch_add(1, Ordering::SeqCst);
        let deliver = |_| {
            delivered += 1;
            stop.store(true, Ordering::SeqCst);
            Ok::<(), Infallible>(())
        };
        work_in_order(0..1000, options, |_| false, work, deliver).unwrap();
        assert_eq!(delivered, begun.load(Ordering::SeqCst));
        assert!(delivered < 1000);
    }
}
