//! Messages between ranks by MPI.
//!
//! All operations are non-blocking, and are asked again and again until they are complete or the time is over: a blocking
//! one would wait for ever for a rank that was stopped. An operation that is not complete cannot be taken back, so all
//! ranks then end at once.

use std::{
    cell::OnceCell,
    thread,
    time::{Duration, Instant},
};

use mpi::{
    Count, Threading,
    datatype::{Partition, PartitionMut},
    environment::Universe,
    request::{Request, Scope, scope},
    topology::SimpleCommunicator,
    traits::{Communicator, CommunicatorCollectives, Destination, Root, Source},
};
use zeg_base::ranks::{RanksError, Transport};

use super::LaunchError;

/// The rank that the others report to.
const ROOT: i32 = 0;
/// Time after which a rank that waits begins to sleep between two questions.
const BUSY: Duration = Duration::from_millis(5);
/// Time between two questions of a rank that has waited for a while.
const PAUSE: Duration = Duration::from_micros(500);
/// Longer time that the other ranks wait for, so that the first one, which knows who is missing, reports it.
const GRACE: Duration = Duration::from_secs(10);

/// What a rank does before all ranks end because some do not answer.
type GiveUp = Box<dyn Fn(usize, RanksError)>;

/// A process among those that were started together.
pub(super) struct MpiTransport {
    world: SimpleCommunicator,
    timeout: Duration,
    give_up: GiveUp,
    hosts: OnceCell<Vec<String>>,
    /// Ends MPI when it is dropped.
    _universe: Universe,
}

/// Returns the name of this rank's host.
pub(super) fn host() -> String {
    mpi::environment::processor_name().unwrap_or_default()
}

impl MpiTransport {
    /// Starts MPI, once in a process.
    ///
    /// - `timeout`: time that a rank waits for another one
    /// - `give_up`: is called before all ranks end because one of them does not answer in time
    ///
    /// # Errors
    /// Returns an error if MPI is running already, or does not support other threads beside its own.
    pub(super) fn open(timeout: Duration, give_up: GiveUp) -> Result<Self, LaunchError> {
        let library = |text: &str| LaunchError::Library(text.to_owned());
        let started = mpi::initialize_with_threading(Threading::Funneled);
        let (universe, threading) = started.ok_or_else(|| library("it is running already"))?;
        if threading < Threading::Funneled {
            return Err(library("it does not support threads"));
        }
        let transport = Self {
            world: universe.world(),
            timeout,
            give_up,
            hosts: OnceCell::new(),
            _universe: universe,
        };
        let hosts = transport
            .gather("the start of all ranks", host().as_bytes())
            .map_err(|error| LaunchError::Library(error.to_string()))?;
        let hosts = hosts
            .iter()
            .map(|host| String::from_utf8_lossy(host).into_owned());
        let _ = transport.hosts.set(hosts.collect());
        Ok(transport)
    }

    fn is_root(&self) -> bool {
        self.world.rank() == ROOT
    }

    /// Ends all ranks, because some do not answer.
    fn end(&self, absent: &[usize], what: &str) -> ! {
        let name = |rank: &usize| match self.hosts.get().and_then(|hosts| hosts.get(*rank)) {
            Some(host) => format!("rank {rank} on {host}"),
            None => format!("rank {rank}"),
        };
        // In an operation of all ranks it is not known who is missing, unless there is one other.
        let other = [1_usize.saturating_sub(self.rank())];
        let absent = match absent {
            [] if self.size() == other.len() + 1 => &other[..],
            known => known,
        };
        let error = RanksError::Missing {
            names: absent.iter().map(name).collect(),
            waited: self.timeout,
            what: what.to_owned(),
        };
        (self.give_up)(self.rank(), error);
        self.world.abort(1)
    }

    /// Waits until operations are complete.
    ///
    /// - `requests`: operations, each with the rank that it waits for, if it is one
    fn complete<'a, D: ?Sized, S: Scope<'a>>(
        &self,
        requests: Vec<(Option<usize>, Request<'a, D, S>)>,
        what: &str,
    ) {
        let limit = if self.is_root() {
            self.timeout
        } else {
            self.timeout + GRACE
        };
        let started = Instant::now();
        let mut open = requests;
        loop {
            let asked = std::mem::take(&mut open).into_iter();
            open.extend(asked.filter_map(|(rank, request)| match request.test() {
                Ok(_) => None,
                Err(request) => Some((rank, request)),
            }));
            let waited = started.elapsed();
            if open.is_empty() {
                return;
            }
            if waited > limit {
                let absent: Vec<usize> = open.iter().filter_map(|(rank, _)| *rank).collect();
                self.end(&absent, what);
            }
            if waited < BUSY {
                thread::yield_now();
            } else {
                thread::sleep(PAUSE);
            }
        }
    }

    /// Tells the first rank that this one is here, and returns the number that each rank brought.
    fn roll_call(&self, own: u64, what: &str) -> Vec<u64> {
        let size = self.size();
        let mut numbers = vec![0; size];
        if self.is_root() {
            if let Some((first, others)) = numbers.split_first_mut() {
                *first = own;
                scope(|scope| {
                    let requests = others.iter_mut().zip(1..).map(|(number, rank)| {
                        let process = self.world.process_at_rank(rank);
                        let request = process.immediate_receive_into(scope, number);
                        (Some(rank as usize), request)
                    });
                    self.complete(requests.collect(), what);
                });
            }
        } else {
            let root = self.world.process_at_rank(ROOT);
            scope(|scope| {
                let request = root.immediate_send(scope, &own);
                self.complete(vec![(Some(0), request)], what);
            });
        }
        let root = self.world.process_at_rank(ROOT);
        scope(|scope| {
            let request = root.immediate_broadcast_into(scope, &mut numbers[..]);
            self.complete(vec![(None, request)], what);
        });
        numbers
    }
}

/// Returns lengths as MPI counts them.
///
/// # Errors
/// Returns an error if they are too long for one message.
fn counts(lengths: impl Iterator<Item = usize>) -> Result<Vec<Count>, RanksError> {
    let lengths: Vec<usize> = lengths.collect();
    let all: usize = lengths.iter().sum();
    if Count::try_from(all).is_err() {
        return Err(RanksError::Transport(format!(
            "a message of {all} elements is too long for MPI"
        )));
    }
    Ok(lengths.into_iter().map(|length| length as Count).collect())
}

/// Returns where each part begins.
fn starts(counts: &[Count]) -> Vec<Count> {
    let sums = counts.iter().scan(0, |sum, count| {
        let start = *sum;
        *sum += count;
        Some(start)
    });
    sums.collect()
}

impl Transport for MpiTransport {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn gather(&self, what: &str, message: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        let lengths = self.roll_call(message.len() as u64, what);
        let counts = counts(lengths.iter().map(|length| *length as usize))?;
        let mut all = vec![0_u8; lengths.iter().sum::<u64>() as usize];
        {
            let mut parts = PartitionMut::new(&mut all[..], &counts[..], starts(&counts));
            scope(|scope| {
                let world = &self.world;
                let request = world.immediate_all_gather_varcount_into(scope, message, &mut parts);
                self.complete(vec![(None, request)], what);
            });
        }
        let mut rest = &all[..];
        let messages = lengths.iter().map(|length| {
            let (message, others) = rest.split_at(*length as usize);
            rest = others;
            message.to_vec()
        });
        Ok(messages.collect())
    }

    fn gather_floats(
        &self,
        what: &str,
        own: &[f32],
        lengths: &[usize],
        all: &mut [f32],
    ) -> Result<(), RanksError> {
        let counts = counts(lengths.iter().copied())?;
        let mut parts = PartitionMut::new(all, &counts[..], starts(&counts));
        scope(|scope| {
            let world = &self.world;
            let request = world.immediate_all_gather_varcount_into(scope, own, &mut parts);
            self.complete(vec![(None, request)], what);
        });
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
        let sent = counts(sent.iter().copied())?;
        let received = counts(received.iter().copied())?;
        let from = Partition::new(own, &sent[..], starts(&sent));
        let mut to = PartitionMut::new(all, &received[..], starts(&received));
        scope(|scope| {
            let world = &self.world;
            let request = world.immediate_all_to_all_varcount_into(scope, &from, &mut to);
            self.complete(vec![(None, request)], what);
        });
        Ok(())
    }

    fn abort(&self, code: u8) {
        self.world.abort(i32::from(code));
    }
}

/// A panic of one rank must not keep the others waiting.
impl Drop for MpiTransport {
    fn drop(&mut self) {
        if thread::panicking() {
            self.world.abort(101);
        }
    }
}
