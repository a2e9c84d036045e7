//! Ranks: processes that work on one training or evaluation together.
//!
//! Every rank runs the same program on a share of the work. Each operation of [`Ranks`] is called by all ranks in the same
//! order, and begins with a message of every rank that says which operation it is at, or that it has failed. A failure
//! therefore reaches all ranks at their next operation, and none waits for a rank that has ended. How messages travel is a
//! [`Transport`]: MPI in the program, [`threads`] of one process in tests, and none for a single process.
//!
//! ```
//! use zeg_base::ranks::Ranks;
//!
//! let ranks = Ranks::single();
//! assert_eq!((ranks.rank(), ranks.size()), (0, 1));
//! assert_eq!(ranks.gather("greetings", b"hello")?, [b"hello".to_vec()]);
//! # Ok::<(), zeg_base::ranks::RanksError>(())
//! ```

pub mod threads;

use std::{fmt, rc::Rc, time::Duration};

/// Marks a message of a rank that has failed; its text follows.
const FAILED: u8 = 1;
/// Marks a message of a rank that goes on; the name of its operation and its content follow.
const WORKING: u8 = 0;

/// Time that a rank waits for another one, unless the user states it.
pub const USUAL_TIMEOUT: Duration = Duration::from_mins(10);

/// Errors of the work of several ranks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RanksError {
    /// Another rank has failed.
    #[error("{name} failed: {message}")]
    Other {
        /// Rank and host, such as `rank 2 on node7`.
        name: String,
        /// Its error.
        message: String,
    },
    /// Ranks gave no sign of life: they were killed or stopped, their host is down, or they are very slow.
    #[error(
        "{} not answered for {} ({what})",
        missing(names),
        humantime::format_duration(*waited)
    )]
    Missing {
        /// Ranks and hosts; empty if it is not known which.
        names: Vec<String>,
        /// Time that this rank has waited.
        waited: Duration,
        /// What they were waited for.
        what: String,
    },
    /// Two ranks are at different operations, which is a defect of the program.
    #[error("{name} is at {theirs:?}, and this rank is at {ours:?}")]
    OutOfStep {
        /// Rank and host.
        name: String,
        /// Its operation.
        theirs: String,
        /// The operation of this rank.
        ours: String,
    },
    /// Messages cannot be sent.
    #[error("{0}")]
    Transport(String),
}

/// Returns the subject of the sentence about ranks that do not answer.
fn missing(names: &[String]) -> String {
    match names {
        [] => "another rank has".to_owned(),
        [one] => format!("{one} has"),
        several => format!("{} have", several.join(", ")),
    }
}

/// How messages travel between ranks.
///
/// All ranks call the same methods in the same order. Each method waits for the other ranks, for a limited time.
pub trait Transport {
    /// Returns the number of this rank, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of ranks, at least 1.
    fn size(&self) -> usize;

    /// Sends a message of any length to all ranks, and returns the message of every rank, in their order.
    ///
    /// - `what`: what the other ranks are waited for, for the error
    ///
    /// # Errors
    /// Returns [`RanksError::Missing`] without the hosts if a rank does not answer in time.
    fn gather(&self, what: &str, message: &[u8]) -> Result<Vec<Vec<u8>>, RanksError>;

    /// Sends numbers to all ranks: `all` is filled with those of every rank, in their order.
    ///
    /// - `counts`: how many numbers each rank sends, `[ranks]`
    ///
    /// # Errors
    /// As for [`Transport::gather`].
    fn gather_floats(
        &self,
        what: &str,
        own: &[f32],
        counts: &[usize],
        all: &mut [f32],
    ) -> Result<(), RanksError>;

    /// Sends numbers to each rank: the first `sent[0]` of `own` to rank 0, the next `sent[1]` to rank 1, and so on; `all`
    /// is filled with the numbers that every rank sent to this one, in their order.
    ///
    /// - `received`: how many numbers each rank sends to this one, `[ranks]`
    ///
    /// # Errors
    /// As for [`Transport::gather`].
    fn exchange_floats(
        &self,
        what: &str,
        own: &[f32],
        sent: &[usize],
        all: &mut [f32],
        received: &[usize],
    ) -> Result<(), RanksError>;

    /// Ends all ranks at once; returns only where it cannot, as for threads.
    fn abort(&self, code: u8);
}

/// The transport of a single process.
struct Alone;

impl Transport for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn gather(&self, _: &str, message: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        Ok(vec![message.to_vec()])
    }

    fn gather_floats(
        &self,
        _: &str,
        own: &[f32],
        _: &[usize],
        all: &mut [f32],
    ) -> Result<(), RanksError> {
        all.copy_from_slice(own);
        Ok(())
    }

    fn exchange_floats(
        &self,
        _: &str,
        own: &[f32],
        _: &[usize],
        all: &mut [f32],
        _: &[usize],
    ) -> Result<(), RanksError> {
        all.copy_from_slice(own);
        Ok(())
    }

    fn abort(&self, _: u8) {}
}

/// A rank whose message differs from that of the first one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Different {
    /// Number of the rank.
    pub rank: usize,
    /// The message of the first rank.
    pub of_first: Vec<u8>,
    /// Its own message.
    pub own: Vec<u8>,
}

/// One of several processes that work together, with what it needs to speak with the others.
#[derive(Clone)]
pub struct Ranks {
    transport: Rc<dyn Transport>,
    /// Name of the host of every rank, `[ranks]`.
    hosts: Rc<[String]>,
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl Default for Ranks {
    fn default() -> Self {
        Self::single()
    }
}

impl Ranks {
    /// Returns the only rank of a single process.
    pub fn single() -> Self {
        Self {
            transport: Rc::new(Alone),
            hosts: Rc::new([String::new()]),
        }
    }

    /// Meets the other ranks.
    ///
    /// - `host`: name of this rank's host
    ///
    /// # Errors
    /// Returns an error if a rank does not answer in time.
    pub fn join(transport: impl Transport + 'static, host: &str) -> Result<Self, RanksError> {
        let hosts = transport.gather("the start of all ranks", host.as_bytes())?;
        let hosts = hosts.iter().map(|host| String::from_utf8_lossy(host));
        Ok(Self {
            hosts: hosts.map(std::borrow::Cow::into_owned).collect(),
            transport: Rc::new(transport),
        })
    }

    /// Returns the number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.transport.rank()
    }

    /// Returns the number of ranks, at least 1.
    pub fn size(&self) -> usize {
        self.transport.size()
    }

    /// Returns whether this is the first rank, which alone writes files and prints.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Returns whether this process works alone.
    pub fn is_single(&self) -> bool {
        self.size() == 1
    }

    /// Returns the name of the host of every rank, `[ranks]`; empty texts if it is not known.
    pub fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Returns a rank with its host for messages, such as `rank 2 on node7`.
    pub fn name(&self, rank: usize) -> String {
        match self.hosts.get(rank).map(String::as_str) {
            None | Some("") => format!("rank {rank}"),
            Some(host) => format!("rank {rank} on {host}"),
        }
    }

    /// Sends a message to all ranks, and returns the message of every rank, in their order.
    ///
    /// - `what`: the operation, which must be the same on all ranks
    ///
    /// # Errors
    /// Returns an error if another rank has failed, does not answer in time, or is at another operation.
    pub fn gather(&self, what: &str, message: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        if self.is_single() {
            return Ok(vec![message.to_vec()]);
        }
        let mut own = vec![WORKING];
        own.extend((what.len() as u32).to_le_bytes());
        own.extend(what.as_bytes());
        own.extend(message);
        let all = self.send(what, &own)?;
        if let Some(error) = all.iter().enumerate().find_map(|(r, m)| self.failure(r, m)) {
            return Err(error);
        }
        let opened = all.into_iter().enumerate();
        let opened = opened.map(|(rank, message)| match opened_message(&message) {
            Some((theirs, content)) if theirs == what.as_bytes() => Ok(content.to_vec()),
            other => Err(RanksError::OutOfStep {
                name: self.name(rank),
                theirs: other.map_or_else(String::new, |(theirs, _)| {
                    String::from_utf8_lossy(theirs).into_owned()
                }),
                ours: what.to_owned(),
            }),
        });
        opened.collect()
    }

    /// Returns the message of the first rank on all ranks.
    ///
    /// - `message`: is only called on the first rank
    ///
    /// # Errors
    /// As for [`Ranks::gather`].
    pub fn of_first(
        &self,
        what: &str,
        message: impl FnOnce() -> Vec<u8>,
    ) -> Result<Vec<u8>, RanksError> {
        let own = if self.is_first() {
            message()
        } else {
            Vec::new()
        };
        let mut all = self.gather(what, &own)?;
        Ok(all.swap_remove(0))
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// As for [`Ranks::gather`].
    pub fn meet(&self, what: &str) -> Result<(), RanksError> {
        self.gather(what, &[]).map(drop)
    }

    /// Returns whether the answer of any rank is yes, on all ranks.
    ///
    /// # Errors
    /// As for [`Ranks::gather`].
    pub fn any(&self, what: &str, own: bool) -> Result<bool, RanksError> {
        let all = self.gather(what, &[u8::from(own)])?;
        Ok(all.iter().any(|answer| answer.as_slice() == [1]))
    }

    /// Returns the first rank whose message differs from that of rank 0.
    ///
    /// # Errors
    /// As for [`Ranks::gather`].
    pub fn first_different(
        &self,
        what: &str,
        message: &[u8],
    ) -> Result<Option<Different>, RanksError> {
        let all = self.gather(what, message)?;
        let Some((first, others)) = all.split_first() else {
            return Ok(None);
        };
        let mut others = others.iter().zip(1..);
        let found = others.find(|(other, _)| *other != first);
        Ok(found.map(|(other, rank)| Different {
            rank,
            of_first: first.clone(),
            own: other.clone(),
        }))
    }

    /// Sends the numbers of every rank to all ranks: `all` is filled with them, in the order of the ranks.
    ///
    /// - `counts`: how many numbers each rank sends, `[ranks]`
    ///
    /// # Errors
    /// As for [`Ranks::gather`].
    pub fn gather_floats(
        &self,
        what: &str,
        own: &[f32],
        counts: &[usize],
        all: &mut [f32],
    ) -> Result<(), RanksError> {
        self.meet(what)?;
        let gathered = self.transport.gather_floats(what, own, counts, all);
        gathered.map_err(|error| self.with_hosts(error))
    }

    /// Sends numbers to each rank, and fills `all` with those that every rank sent to this one; see
    /// [`Transport::exchange_floats`].
    ///
    /// # Errors
    /// Returns an error if a rank does not answer in time.
    pub fn exchange_floats(
        &self,
        what: &str,
        own: &[f32],
        sent: &[usize],
        all: &mut [f32],
        received: &[usize],
    ) -> Result<(), RanksError> {
        let exchanged = self
            .transport
            .exchange_floats(what, own, sent, all, received);
        exchanged.map_err(|error| self.with_hosts(error))
    }

    /// Tells the other ranks that this one has failed; they learn it at their next operation.
    ///
    /// Returns whether this rank is the first of those that failed, which reports the error for all.
    ///
    /// # Errors
    /// Returns an error if a rank does not answer in time.
    pub fn fail(&self, message: &str) -> Result<bool, RanksError> {
        if self.is_single() {
            return Ok(true);
        }
        let mut own = vec![FAILED];
        own.extend(message.as_bytes());
        let all = self.send("the end of all ranks after an error", &own)?;
        let first = all
            .iter()
            .position(|message| message.first() == Some(&FAILED));
        Ok(first == Some(self.rank()))
    }

    /// Ends all ranks at once, because some do not answer; returns only where it cannot.
    ///
    /// - `code`: exit code
    pub fn abort(&self, code: u8) {
        self.transport.abort(code);
    }

    fn send(&self, what: &str, message: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        let gathered = self.transport.gather(what, message);
        gathered.map_err(|error| self.with_hosts(error))
    }

    /// Returns the error that a message of another rank stands for, if it is one.
    fn failure(&self, rank: usize, message: &[u8]) -> Option<RanksError> {
        let (kind, text) = message.split_first()?;
        (*kind == FAILED).then(|| RanksError::Other {
            name: self.name(rank),
            message: String::from_utf8_lossy(text).into_owned(),
        })
    }

    /// Adds the hosts to the ranks of an error of the transport, which names them by their numbers.
    fn with_hosts(&self, error: RanksError) -> RanksError {
        match error {
            RanksError::Missing {
                names,
                waited,
                what,
            } => RanksError::Missing {
                names: names
                    .into_iter()
                    .map(|name| name.parse().map_or(name, |rank| self.name(rank)))
                    .collect(),
                waited,
                what,
            },
            other => other,
        }
    }
}

/// Returns the operation and the content of a message of a rank that goes on.
fn opened_message(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let (kind, rest) = message.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    (*kind == WORKING && length <= rest.len()).then(|| rest.split_at(length))
}
