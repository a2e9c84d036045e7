//! Small helpers that several crates of the workspace share.
//!
//! - [`content`]: recognises what a failed download leaves in the place of a file
//! - [`file`](mod@file): atomic writing, where a file appears complete or not at all
//! - [`fingerprint`]: the named facts that a stored result follows from
//! - [`file_state`]: recognises that a file was written or replaced
//! - [`hex`]: digests and colours as hexadecimal digits
//! - [`hash`]: FNV-1a, a hash that stays the same across versions and machines
//! - [`keys`]: places of keys in TOML files
//! - [`lock`]: a folder or a file belongs to one process at a time
//! - [`memory`]: memory of the machine, and estimates beyond it
//! - [`names`]: the known name that a misspelt one stands for
//! - [`numbers`]: ranges of numbers that a user writes
//! - [`paths`]: paths as text, with bytes that are not UTF-8 escaped
//! - [`plural`]: numbers with their nouns
//! - [`ranks`](mod@ranks): processes that work on one training or evaluation together
//! - [`random`]: splitmix64, which turns a counter into pseudo-random bits
//!
//! ```
//! use zeg_base::random::splitmix64;
//!
//! assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
//! ```

#![forbid(unsafe_code)]

pub mod calibration;
pub mod content;
pub mod file;
pub mod file_state;
pub mod fingerprint;
pub mod hash;
pub mod hex;
pub mod keys;
pub mod lock;
pub mod memory;
pub mod names;
pub mod numbers;
pub mod paths;
pub mod plural;
pub mod random;
pub mod ranks;
