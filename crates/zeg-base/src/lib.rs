//! What every crate of the workspace needs and none of them is about.
//!
//! - [`file`](mod@file): files that appear whole or not at all
//! - [`hex`]: digests and colours as hexadecimal digits
//! - [`hash`]: FNV-1a, a hash that stays the same across versions and machines
//! - [`random`]: splitmix64, which turns a counter into random bits

#![forbid(unsafe_code)]

pub mod file;
pub mod hash;
pub mod hex;
pub mod random;
