//! Small helpers that several crates of the workspace share.
//!
//! - [`file`](mod@file): atomic writing, where a file appears complete or not at all
//! - [`hex`]: digests and colours as hexadecimal digits
//! - [`hash`]: FNV-1a, a hash that stays the same across versions and machines
//! - [`paths`]: paths as text, with bytes that are not UTF-8 escaped
//! - [`plural`]: numbers with their nouns
//! - [`random`]: splitmix64, which turns a counter into pseudo-random bits
//!
//! ```
//! use zeg_base::random::splitmix64;
//!
//! assert_eq!(splitmix64(1_234_567), 6_457_827_717_110_365_317);
//! ```

#![forbid(unsafe_code)]

pub mod file;
pub mod hash;
pub mod hex;
pub mod paths;
pub mod plural;
pub mod random;
