//! A reader of Python's pickles that executes nothing.
//!
//! Python runs a pickle as a program: it names functions and calls them, so that loading an untrusted file is
//! running it. This reader only describes. It understands the opcodes, keeps names as names, and builds a table of
//! inert values ([`value`]). What may be *called* is a short list ([`calls`]), whose entries are given a meaning here
//! instead of being called; a file that wants to call anything else is refused with that name. Objects that are
//! merely *constructed* (`NEWOBJ`, as ordinary classes are pickled) become values without meaning, so that the released
//! checkpoints of other programs, which carry bits of those programs, can be read; only classes of Python's modules
//! that act on the machine, such as `subprocess`, are refused there too.
//!
//! Source of the opcodes: the documentation of Python's module `pickletools`, protocols 0 to 5.

mod calls;
mod machine;
mod operations;
pub(crate) mod value;

pub(crate) use machine::read;
pub(crate) use value::{Document, Id, StorageRef, TensorRef, Value};

use crate::error::Defect;

/// Why a pickle cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickleError {
    /// The bytes end before the pickle does.
    #[error("its pickle is cut off")]
    CutOff,
    /// An opcode does not fit what stands before it.
    #[error("its pickle is damaged at byte {at}: {reason}")]
    Damaged {
        /// Position of the opcode in the pickle.
        at: usize,
        /// What is wrong.
        reason: String,
    },
    /// More of something than any weight file has.
    #[error("its pickle has more than {limit} {of}")]
    Limit {
        /// What is counted.
        of: &'static str,
        /// The most that is read.
        limit: usize,
    },
    /// It wants to call what is not on the list.
    #[error("its pickle calls {0}")]
    Call(String),
}

impl From<PickleError> for Defect {
    fn from(error: PickleError) -> Self {
        match error {
            PickleError::Call(callable) => Self::Call(callable),
            other => Self::Format(other.to_string()),
        }
    }
}
