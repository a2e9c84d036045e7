//! A request of another thread to stop computing.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::ModelError;

/// A request to stop, which long computations look at between their parts; the default is never requested.
#[derive(Debug, Clone, Copy, Default)]
pub struct StopSign<'a>(Option<&'a AtomicBool>);

impl<'a> StopSign<'a> {
    /// Returns a sign that another thread sets by storing `true`.
    pub fn new(flag: &'a AtomicBool) -> Self {
        Self(Some(flag))
    }

    /// # Errors
    /// Returns [`ModelError::Stopped`] if a stop was requested.
    pub fn check(self) -> Result<(), ModelError> {
        match self.0 {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(ModelError::Stopped),
            _ => Ok(()),
        }
    }
}
