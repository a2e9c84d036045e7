//! Ranks that are threads of one process, for tests.
//!
//! Only one of the threads works at a time; the others wait until it waits for them. What belongs to the process, such as
//! the random stream of a device, is therefore used by one rank at a time, as if each were a process.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Ranks, RanksError, Transport};

/// State that all ranks share.
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    timeout: Duration,
}

#[derive(Default)]
struct State {
    /// Number of the operation.
    round: u64,
    /// The message of every rank that has come to this operation.
    messages: Vec<Option<Vec<u8>>>,
    /// The messages of the last operation that all ranks came to.
    complete: Arc<Vec<Vec<u8>>>,
    /// The rank that works.
    working: Option<usize>,
}

/// A rank that is a thread.
struct ThreadRank {
    rank: usize,
    size: usize,
    shared: Arc<Shared>,
}

/// Runs a function on several ranks, each in its own thread, and returns their results in the order of the ranks.
///
/// - `timeout`: time that a rank waits for the others
pub fn run<T: Send>(
    size: usize,
    timeout: Duration,
    work: impl Fn(Ranks) -> T + Sync,
) -> Vec<std::thread::Result<T>> {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            messages: vec![None; size],
            ..State::default()
        }),
        changed: Condvar::new(),
        timeout,
    });
    std::thread::scope(|scope| {
        let (work, shared) = (&work, &shared);
        let threads: Vec<_> = (0..size)
            .map(|rank| {
                let transport = ThreadRank {
                    rank,
                    size,
                    shared: Arc::clone(shared),
                };
                scope.spawn(move || {
                    let turn = transport.take_turn();
                    drop(turn);
                    let _end = EndOfTurn(Arc::clone(shared), rank);
                    let hosts = (0..size).map(|_| "thread".to_owned());
                    work(Ranks {
                        transport: std::rc::Rc::new(transport),
                        hosts: hosts.collect(),
                    })
                })
            })
            .collect();
        threads
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect()
    })
}

/// Lets another rank work when a thread ends, also by a panic.
struct EndOfTurn(Arc<Shared>, usize);

impl Drop for EndOfTurn {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if state.working == Some(self.1) {
            state.working = None;
        }
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ThreadRank {
    /// Waits until no other rank works.
    fn take_turn(&self) -> MutexGuard<'_, State> {
        let state = self.shared.lock();
        let is_taken = |state: &mut State| state.working.is_some_and(|rank| rank != self.rank);
        let waited = self.shared.changed.wait_while(state, is_taken);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.working = Some(self.rank);
        state
    }
}

impl Transport for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, what: &str, message: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        let started = Instant::now();
        let mut state = self.shared.lock();
        let round = state.round;
        state.messages[self.rank] = Some(message.to_vec());
        state.working = None;
        if state.messages.iter().all(Option::is_some) {
            let size = self.size;
            let messages = std::mem::replace(&mut state.messages, vec![None; size]);
            state.complete = Arc::new(messages.into_iter().flatten().collect());
            state.round += 1;
        }
        self.shared.changed.notify_all();
        while state.round == round {
            let left = self.shared.timeout.checked_sub(started.elapsed());
            let Some(left) = left else {
                let absent = state.messages.iter().enumerate();
                let absent = absent.filter(|(_, message)| message.is_none());
                return Err(RanksError::Missing {
                    names: absent.map(|(rank, _)| rank.to_string()).collect(),
                    waited: self.shared.timeout,
                    what: what.to_owned(),
                });
            };
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let complete = Arc::clone(&state.complete);
        drop(state);
        drop(self.take_turn());
        Ok(complete.to_vec())
    }

    fn gather_floats(
        &self,
        what: &str,
        own: &[f32],
        counts: &[usize],
        all: &mut [f32],
    ) -> Result<(), RanksError> {
        let gathered = self.gather(what, &bytes(own))?;
        let values = gathered.iter().flat_map(|message| floats(message));
        assert!(counts.iter().sum::<usize>() == all.len(), "{counts:?}");
        all.iter_mut().zip(values).for_each(|(to, from)| *to = from);
        Ok(())
    }

    fn exchange_floats(
        &self,
        what: &str,
        own: &[f32],
        sent: &[usize],
        all: &mut [f32],
        received: &[usize],
    ) -> Result<(), RanksError> {
        let header: Vec<u8> = sent
            .iter()
            .flat_map(|n| (*n as u64).to_le_bytes())
            .collect();
        let gathered = self.gather(what, &[header, bytes(own)].concat())?;
        let mut values = Vec::new();
        for (message, count) in gathered.iter().zip(received) {
            let (counts, content) = message.split_at(8 * self.size);
            let counts = counts.as_chunks::<8>().0.iter();
            let counts: Vec<usize> = counts.map(|n| u64::from_le_bytes(*n) as usize).collect();
            let start: usize = counts[..self.rank].iter().sum();
            let numbers = floats(content).skip(start).take(counts[self.rank]);
            let before = values.len();
            values.extend(numbers);
            assert!(values.len() - before == *count, "{counts:?} {received:?}");
        }
        all.copy_from_slice(&values);
        Ok(())
    }

    fn abort(&self, _: u8) {}
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn results<T: Send>(
        size: usize,
        timeout: Duration,
        work: impl Fn(Ranks) -> T + Sync,
    ) -> Vec<T> {
        let results = run(size, timeout, work).into_iter();
        results.map(|result| result.unwrap()).collect()
    }

    #[test]
    fn every_rank_gets_all_messages_in_the_order_of_the_ranks() {
        let all = results(3, LONG, |ranks| {
            let own = vec![ranks.rank() as u8; ranks.rank()];
            ranks.gather("numbers", &own).unwrap()
        });
        for gathered in all {
            assert_eq!(gathered, [vec![], vec![1], vec![2, 2]]);
        }
    }

    #[test]
    fn slices_reach_the_rank_that_owns_them() {
        let all = results(2, LONG, |ranks| {
            let base = 10.0 * ranks.rank() as f32;
            let own = [base, base + 1.0, base + 2.0];
            let received = [[1, 1], [2, 2]][ranks.rank()];
            let mut slices = vec![0.0; received.iter().sum()];
            let exchanged = ranks.exchange_floats("slices", &own, &[1, 2], &mut slices, &received);
            exchanged.unwrap();
            let sum: Vec<f32> = match ranks.rank() {
                0 => vec![slices[0] + slices[1]],
                _ => vec![slices[0] + slices[2], slices[1] + slices[3]],
            };
            let mut whole = [0.0; 3];
            ranks
                .gather_floats("sums", &sum, &[1, 2], &mut whole)
                .unwrap();
            whole
        });
        assert_eq!(all, [[10.0, 12.0, 14.0]; 2]);
    }

    #[test]
    fn a_failure_reaches_the_other_ranks_at_their_next_operation() {
        let all = results(3, LONG, |ranks| {
            ranks.meet("the first").unwrap();
            if ranks.rank() == 1 {
                return ranks.fail("no disk space").unwrap().to_string();
            }
            ranks.meet("the second").unwrap_err().to_string()
        });
        let told = "rank 1 on thread failed: no disk space";
        assert_eq!(all, [told, "true", told]);
    }

    #[test]
    fn the_first_of_several_that_fail_reports() {
        let all = results(3, LONG, |ranks| {
            if ranks.rank() == 0 {
                return ranks.meet("work").is_err();
            }
            ranks.fail("NaN").unwrap()
        });
        assert_eq!(all, [true, true, false]);
    }

    #[test]
    fn a_rank_that_does_not_come_is_named() {
        let all = results(3, Duration::from_millis(200), |ranks| {
            if ranks.rank() == 2 {
                return String::new();
            }
            ranks.meet("gradients of step 3").unwrap_err().to_string()
        });
        let text = "rank 2 on thread has not answered for 200ms (gradients of step 3)";
        assert_eq!(all, [text, text, ""]);
    }

    #[test]
    fn ranks_at_different_operations_are_noticed() {
        let all = results(2, LONG, |ranks| {
            let what = ["loss", "checkpoint"][ranks.rank()];
            ranks.meet(what).unwrap_err()
        });
        assert!(matches!(&all[0], RanksError::OutOfStep { theirs, .. } if theirs == "checkpoint"));
    }
}
