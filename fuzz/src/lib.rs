//! The bodies of the fuzz targets.
//!
//! A test of the workspace includes the two modules and replays `fuzz/seeds` with them, without cargo-fuzz.

pub mod files;
#[cfg(feature = "models")]
pub mod models;
