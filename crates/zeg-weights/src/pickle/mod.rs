//! Parses Python's pickles without executing anything.
//!
//! Python executes a pickle as a program that names functions and calls them, so loading an untrusted file runs its
//! code. This parser interprets the opcodes, keeps names as text, and builds a table of inert values ([`value`]).
//!
//! A short list ([`calls`]) contains the functions that a pickle may *call*; the parser gives each a meaning instead of
//! calling it. A file that requests any other call is refused, with the name in the error. Objects that are only
//! *constructed* (`NEWOBJ`, used for objects of ordinary classes) become opaque values, because the released
//! checkpoints of other programs contain objects of those programs. Only classes from Python modules that act on the
//! machine, such as `subprocess`, are refused there as well.
//!
//! The opcodes are those in the documentation of Python's module `pickletools`, protocols 0 to 5.

mod calls;
mod machine;
mod operations;
pub(crate) mod value;

pub(crate) use machine::read;
pub(crate) use value::{Document, Id, StorageRef, TensorRef, Value};

use crate::error::Defect;

/// Reason why a pickle cannot be parsed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PickleError {
    /// The bytes end before the pickle does.
    #[error("the pickle is truncated")]
    CutOff,
    /// An opcode does not fit the opcodes before it.
    #[error("the pickle is damaged at byte {at}: {reason}")]
    Damaged {
        /// Position of the opcode in the pickle.
        at: usize,
        /// What is wrong.
        reason: String,
    },
    /// The pickle has more of something than any weight file has.
    #[error("the pickle has more than {limit} {of}")]
    Limit {
        /// What is counted.
        of: &'static str,
        /// The largest number.
        limit: usize,
    },
    /// The pickle requests a call that is not on the list.
    #[error("the pickle calls {0}")]
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
